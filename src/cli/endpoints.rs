//! `windlass endpoints [KIND] NAME`: who serves for a Delivery or an Application, by variant, and the traffic policy in force.

use super::connect::ClusterArgs;
use super::find::{self, Meant, Owner, ScopeArgs};
use super::live::{begin, watched};
use super::output::{OutputArgs, form};
use super::{NOT_WELL, WELL};
use crate::api::Application;
use crate::cluster::Looking;
use crate::core::application::expand;
use crate::core::look::Look;
use crate::core::manifest::{Gvk, Origin};
use crate::core::router::target;
use crate::core::serving::{Kept, Serving, keep, serving, wanted};
use crate::report::endpoints::text;
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Show who serves for a Delivery or an Application: each endpoint by variant (stable, candidate), with its pod, node, address and
/// state, and the traffic policy in force.
///
/// Exit code 0: every Service has an endpoint that is ready. 1: one has none, or that could not be seen. 2: it could not be found
/// out.
#[derive(clap::Args, Clone, Debug)]
pub struct EndpointsArgs {
    #[command(flatten)]
    of: Meant,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints who serves; the answer is the exit code.
pub async fn run(args: EndpointsArgs) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let owner = find::owner(&connection.client, &args.scope, &args.of).await?;
    let (root, looking) = begin(&connection, &owner, keep, args.output.watch)?;
    let routes = routes(&owner, &looking).await?;
    let left_out = owner.application.as_ref().map(left_out).unwrap_or_default();
    let look = async |looking: &mut Looking<Kept>| -> anyhow::Result<Serving> {
        let mut looks = wanted(&root, &routes, &looking.settled().await?);
        loop {
            looking.only(&looks);
            let seen = looking.settled().await?;
            let more = wanted(&root, &routes, &seen);
            if more == looks {
                let serving = serving(&root, &routes, &seen);
                return Ok(Serving { not_in_force: left_out.clone(), ..serving });
            }
            looks = more;
        }
    };
    let print = |serving: &Serving| form(args.output.output, serving, |wide| text(serving, wide));
    let code = |serving: &Serving| if serving.is_well() { WELL } else { NOT_WELL };
    watched(&args.output, looking, look, print, code, None).await
}

/// The route that a rollout divides, which may be another's: it is not among the objects of the Delivery then.
async fn routes(owner: &Owner, looking: &Looking<Kept>) -> anyhow::Result<BTreeSet<Look>> {
    let Some(delivery) = &owner.delivery else { return Ok(BTreeSet::new()) };
    let attempt = delivery.status.as_ref().and_then(|status| status.attempt.as_ref()?.rollout.as_ref());
    let asked = delivery.spec.template.rollout.as_ref().and_then(|policy| policy.router.as_ref());
    let Some(router) = attempt.map(|rollout| &rollout.router).or(asked) else { return Ok(BTreeSet::new()) };
    let template = &delivery.spec.template;
    let namespace = template.target_namespace.clone().or(delivery.namespace()).unwrap_or_default();
    let Some(id) = target(router, &namespace) else { return Ok(BTreeSet::new()) };
    let version = looking.version(&id.group, &id.kind).await?;
    let look = version.map(|version| Look {
        gvk: Gvk { group: id.group, version, kind: id.kind },
        namespace: id.namespace,
        name: Some(id.name),
    });
    Ok(look.into_iter().collect())
}

/// What an Application asks for and its router cannot do.
fn left_out(application: &Application) -> Vec<String> {
    let expansion = expand(application, &Origin::default());
    let notices = expansion.map(|expansion| expansion.notices).unwrap_or_default();
    let texts = notices.into_iter().map(|notice| notice.text);
    texts.filter(|text| text.starts_with("spec.traffic")).collect()
}
