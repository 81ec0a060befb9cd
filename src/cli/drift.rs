//! `windlass drift`.

use super::connect::ClusterArgs;
use super::diff::{of_repository, spec_of};
use super::find::{self, ScopeArgs, full_name};
use super::output::{Output, OutputArgs, form, show};
use super::rendered::{render, settings_of};
use super::run::default_cache_dir;
use super::{NOT_WELL, WELL};
use crate::api::{Delivery, DriftReport};
use crate::cluster::apply::get;
use crate::cluster::{Access, Connection, Discovery};
use crate::core::bundle::Bundle;
use crate::core::manifest::{Gvk, Manifest};
use crate::core::rollout::{Measure, Spec, Staging, measure};
use crate::core::wanted::{as_wanted, is_cut};
use crate::reconcile::delivery::settings;
use crate::reconcile::delivery::work::Settings;
use crate::report::diff::object_lines;
use crate::report::drift::{DriftList, report, summary, text};
use crate::report::{STRONG, junit, paint};
use jiff::Timestamp;
use kube::ResourceExt;

/// Show each field that is not as it should be, who changed it, and what was mended lately.
///
/// With -A and without names: one line for each Delivery that differs, for the whole cluster.
///
/// Exit code 0: nothing differs. 1: something does, or it is not known. 2: it could not be found out.
#[derive(clap::Args, Clone, Debug)]
pub struct DriftArgs {
    /// Names of Deliveries, as NAME or NAMESPACE/NAME; all of them when none is given
    names: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How to print: a table without it, with more columns, for programs, or for a CI system
    #[arg(short = 'o', long = "output", value_enum)]
    output: Option<DriftOutput>,
    /// Print again whenever something changes, until Ctrl-C
    #[arg(short = 'w', long)]
    watch: bool,
    /// Whether the exit code tells of drift: --exit-code=false answers 0 whenever it could be found out
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    exit_code: bool,
    /// Show each object that differs as a whole: - as it should be, + as it stands
    #[arg(long, requires = "names", conflicts_with = "output")]
    diff: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How drift is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DriftOutput {
    /// For programs.
    Json,
    /// For programs.
    Yaml,
    /// The table, with nothing shortened.
    Wide,
    /// For CI systems: a failed test for each object that differs.
    Junit,
}

/// Prints the drift; the answer is the exit code.
pub async fn run(args: DriftArgs) -> anyhow::Result<i32> {
    let output = match args.output {
        Some(DriftOutput::Json) => Some(Output::Json),
        Some(DriftOutput::Yaml) => Some(Output::Yaml),
        Some(DriftOutput::Wide) => Some(Output::Wide),
        Some(DriftOutput::Junit) | None => None,
    };
    let summed_up = args.scope.all_namespaces && args.names.is_empty();
    show(&OutputArgs { output, watch: args.watch }, &args.cluster, &args.scope, async |connection| {
        let deliveries = find::select(find::list(&connection.client, &args.scope).await?, &args.names)?;
        let reports: Vec<DriftReport> = find::list(&connection.client, &args.scope).await?;
        let list = report(&deliveries, &reports);
        let known = list.deliveries.iter().all(|d| d.unknown.is_none());
        let code = if (list.drifted == 0 && known) || !args.exit_code { WELL } else { NOT_WELL };
        let now = Timestamp::now();
        let printed = match args.output {
            Some(DriftOutput::Junit) => junit::drift(&list),
            None if args.diff => text(&list, false, now) + &whole(connection, &list, &deliveries).await?,
            _ => form(output, &list, |wide| match summed_up {
                true => summary(&list, wide, now),
                false => text(&list, wide, now),
            })?,
        };
        Ok((printed, code))
    })
    .await
}

/// Each object that differs, as lines of YAML: read from the cluster as whoever asks, and put beside what the report says. Values
/// that the report had to cut come from Git, where that can be read.
async fn whole(connection: &Connection, list: &DriftList, deliveries: &[Delivery]) -> anyhow::Result<String> {
    let discovery = Discovery::new(connection.client.clone());
    discovery.refresh().await?;
    let access = connection.access(None);
    let mut out = String::new();
    for drifted in list.deliveries.iter().filter(|d| !d.objects.is_empty()) {
        let is = |d: &&Delivery| {
            d.namespace().as_deref() == Some(&drifted.namespace) && d.name_any() == drifted.name
        };
        let Some(delivery) = deliveries.iter().find(is) else { continue };
        let known = match all_settings(delivery, &access).await {
            Ok(known) => known,
            Err(why) => {
                let name = full_name(delivery);
                out.push_str(&format!(
                    "\n{name}: its objects are not shown, since what came from a Secret could not be left out: {why}\n"
                ));
                continue;
            }
        };
        let hidden = |text: String| known.iter().fold(text, |text, settings| settings.redact(&text));
        let bundle = match drifted.objects.iter().any(is_cut) {
            true => Some(wanted(connection, &discovery, delivery, &known).await),
            false => None,
        };
        for object in &drifted.objects {
            // The one is not there, and of the other nothing is wanted.
            if object.state == "Missing" || object.state == "Foreign" {
                continue;
            }
            let gvk = Gvk::new(&object.api_version, &object.kind);
            let Some(resource) = discovery.resource(&gvk) else { continue };
            let Some(live) = get(&access, &resource, &object.namespace, &object.name).await? else {
                continue;
            };
            let id = resource.id(&object.namespace, &object.name);
            let (manifest, note) = match &bundle {
                Some(Ok(bundle)) => (bundle.get(&id).map(Manifest::to_value), None),
                Some(Err(why)) if is_cut(object) => (None, Some(why)),
                _ => (None, None),
            };
            let lines = object_lines(&as_wanted(&live, object, manifest.as_ref()), &live);
            out.push_str(&format!("\n{}\n{}", paint(STRONG, &id.to_string()), hidden(lines)));
            if object.fields_left_out > 0 {
                out.push_str(&format!("  (and {} more fields differ)\n", object.fields_left_out));
            }
            if let Some(why) = note {
                let why = hidden(why.to_string());
                out.push_str(&format!(
                    "  (as far as the DriftReport tells, which cuts long values: {why})\n"
                ));
            }
        }
    }
    Ok(out)
}

/// The settings of today and those that revisions which may be in the cluster were deployed with, the effective one's last: what came
/// from a Secret then is not shown either. Fails where some of them may not be read.
async fn all_settings(delivery: &Delivery, access: &Access) -> anyhow::Result<Vec<Settings>> {
    let mut known: Vec<Settings> = settings_of(delivery, &delivery.spec, access).await?.into_iter().collect();
    let status = delivery.status.as_ref();
    let attempted = status.and_then(|s| s.attempt.as_ref()).map(|a| &a.revision);
    let effective = status.and_then(|s| s.effective.as_ref());
    for revision in attempted.into_iter().chain(effective).filter(|r| !r.settings.is_empty()) {
        match settings::kept(delivery, access, revision, Timestamp::now()).await {
            Some(kept) => known.push(kept),
            None => anyhow::bail!("the settings that {revision} was deployed with cannot be read"),
        }
    }
    Ok(known)
}

/// What Git wants of a Delivery's objects: the revision that its drift is measured against, rendered.
async fn wanted(
    connection: &Connection,
    discovery: &Discovery,
    delivery: &Delivery,
    known: &[Settings],
) -> anyhow::Result<Bundle> {
    let status = delivery.status.clone().unwrap_or_default();
    let spec = Spec::from(&delivery.spec);
    let measure = measure(status.attempt.as_ref(), status.effective.as_ref(), &spec);
    let Some(Measure { revision, staging: Staging::Whole }) = measure else {
        anyhow::bail!("a rollout is under way, which changes what is wanted");
    };
    if delivery.spec.source.application.is_some() {
        anyhow::bail!("what an Application expands to is in no repository");
    }
    let cache = default_cache_dir().join("diff");
    let directory = of_repository(connection, delivery, &revision.commit, &cache).await?;
    let spec = spec_of(connection, delivery, &directory).await?;
    // Those that the revision was deployed with, or, where it had none, those of today.
    let values = known.last().map(|s| &s.values);
    Ok(render(&directory, &spec, values, discovery, "", None).await?.0)
}
