//! `windlass tree [KIND] NAME`: what a Delivery or an Application has in the cluster, what that owns, and how it is.

use super::connect::ClusterArgs;
use super::find::{self, Meant, ScopeArgs};
use super::live::{begin, watched};
use super::output::{OutputArgs, form};
use super::{NOT_WELL, WELL};
use crate::cluster::Looking;
use crate::core::resource_tree::{Known, Root, Tree, changes, grow, keep, wanted};
use crate::report::tree::{change, text};
use jiff::Timestamp;

/// Show what a Delivery or an Application has in the cluster, what that owns (ReplicaSets, Pods, EndpointSlices), and how it is.
///
/// Exit code 0: all that is shown is Healthy or Suspended. 1: something is not, or could not be looked at. 2: it could not be found
/// out.
#[derive(clap::Args, Clone, Debug)]
pub struct TreeArgs {
    #[command(flatten)]
    of: Meant,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints the tree; the answer is the exit code.
pub async fn run(args: TreeArgs) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let owner = find::owner(&connection.client, &args.scope, &args.of).await?;
    let (root, looking) = begin(&connection, &owner, keep, args.output.watch)?;
    let look = async |looking: &mut Looking<Known>| look(looking, &root).await;
    let print = |tree: &Tree| form(args.output.output, tree, |wide| text(tree, wide, Timestamp::now()));
    let code = |tree: &Tree| if tree.root.is_well() { WELL } else { NOT_WELL };
    let lines = |before: &Tree, after: &Tree| {
        changes(before, after).into_iter().map(|(what, node)| change(what, node)).collect::<String>()
    };
    watched(&args.output, looking, look, print, code, Some(&lines)).await
}

/// Looks until nothing more is to be looked at.
async fn look(looking: &mut Looking<Known>, root: &Root) -> anyhow::Result<Tree> {
    let mut looks = wanted(root, &looking.settled().await?);
    loop {
        looking.only(&looks);
        let seen = looking.settled().await?;
        let more = wanted(root, &seen);
        if more == looks {
            return Ok(grow(root, &seen));
        }
        looks = more;
    }
}
