//! Asking the daemon for something by annotation, and waiting until it is done.

use super::find::{explained, full_name};
use super::{NOT_WELL, WELL};
use crate::api::condition::{self, kind};
use crate::api::delivery::{Attempt, Goal, Phase, Step};
use crate::api::{Delivery, DeliveryStatus, Duration, names};
use crate::report::status::{report, text};
use anyhow::bail;
use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde_json::json;

/// The field manager of what people do by this command line.
pub const MANAGER: &str = "windlass-cli";

/// Whether to wait for what was asked for.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct WaitArgs {
    /// Wait until it is done, and tell how it ended by the exit code
    #[arg(long)]
    pub wait: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", requires = "wait", value_name = "DURATION")]
    pub timeout: Duration,
}

impl Default for WaitArgs {
    fn default() -> Self {
        WaitArgs { wait: false, timeout: Duration::from_secs(600) }
    }
}

/// The value of a request: no two are equal.
pub fn token() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Refuses what the daemon would not do.
pub fn must_act(delivery: &Delivery) -> anyhow::Result<()> {
    if delivery.spec.template.suspend {
        bail!(
            "{} is suspended, and nothing happens to it; `windlass resume {}` first",
            full_name(delivery),
            delivery.name_any()
        );
    }
    if delivery.metadata.deletion_timestamp.is_some() {
        bail!("{} is being deleted", full_name(delivery));
    }
    Ok(())
}

/// Sets annotations on a Delivery, with a request to look at it now.
pub async fn annotate(
    client: &kube::Client,
    delivery: &Delivery,
    token: &str,
    more: Option<(&str, &str)>,
) -> anyhow::Result<()> {
    let mut annotations = serde_json::Map::new();
    annotations.insert(names::RECONCILE_REQUEST.into(), token.into());
    if let Some((name, value)) = more {
        annotations.insert(name.into(), value.into());
    }
    let api: Api<Delivery> = Api::namespaced(client.clone(), &delivery.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let patch = json!({"metadata": {"annotations": annotations}});
    api.patch(&delivery.name_any(), &params, &Patch::Merge(patch)).await.map_err(explained)?;
    Ok(())
}

/// How far a Delivery is with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The daemon has not taken note of it.
    Unseen,
    /// Under way.
    Working,
    /// Nothing more happens by itself, or only the same once more.
    Settled,
}

/// How far a Delivery is with the request of this value.
pub fn progress(status: &DeliveryStatus, token: &str) -> Progress {
    if status.handled_request.as_deref() != Some(token) {
        return Progress::Unseen;
    }
    match &status.attempt {
        // It goes on by itself when what it depends on is ready.
        None if status.phase == Phase::Pending && status.waiting.is_some() => Progress::Working,
        None | Some(Attempt { step: Step::Failed, .. }) => Progress::Settled,
        Some(Attempt { goal: Goal::Rollback, problem: Some(_), .. }) => Progress::Settled,
        // It goes no further by itself.
        Some(Attempt { rollout: Some(rollout), .. }) if rollout.paused.is_some() => Progress::Settled,
        Some(_) => Progress::Working,
    }
}

/// Waits until a request is settled, and tells on the way how far it is. `well` judges the end.
pub async fn wait(
    client: &kube::Client,
    delivery: &Delivery,
    token: &str,
    limit: Duration,
    well: impl Fn(&DeliveryStatus) -> bool,
) -> anyhow::Result<i32> {
    let api: Api<Delivery> = Api::namespaced(client.clone(), &delivery.namespace().unwrap_or_default());
    let name = delivery.name_any();
    let mut told = String::new();
    let mut seen = false;
    let waiting = async {
        let mut states = Box::pin(watch_object(api, &name));
        while let Some(state) = states.next().await {
            let Ok(state) = state else {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            };
            let Some(now) = state else { bail!("{} is gone", full_name(delivery)) };
            let status = now.status.clone().unwrap_or_default();
            match progress(&status, token) {
                Progress::Unseen => continue,
                Progress::Working => {
                    seen = true;
                    let message = condition::get(&status.conditions, kind::READY).map(|c| c.message.clone());
                    let words: Vec<String> =
                        message.unwrap_or_default().split(' ').map(crate::report::short_word).collect();
                    let line = format!("{:?}: {}", status.phase, words.join(" "));
                    if line != told {
                        anstream::eprintln!("{}", crate::report::table::tame(&line));
                        told = line;
                    }
                }
                Progress::Settled => return Ok(now),
            }
        }
        bail!("the watch of {} ended", full_name(delivery))
    };
    match tokio::time::timeout(limit.0, waiting).await {
        Ok(ended) => {
            let ended = ended?;
            let status = ended.status.clone().unwrap_or_default();
            let report = report(&[], &[ended]);
            super::output::emit(&text(&report, false, Timestamp::now()))?;
            Ok(if well(&status) { WELL } else { NOT_WELL })
        }
        Err(_) if seen => {
            anstream::eprintln!("error: {} is not done after {limit}; it goes on", full_name(delivery));
            Ok(NOT_WELL)
        }
        Err(_) => bail!("no daemon has taken note of the request within {limit}; does `windlass run` run?"),
    }
}

/// Whether a Delivery is ready.
pub fn is_ready(status: &DeliveryStatus) -> bool {
    status.phase == Phase::Ready
        && condition::get(&status.conditions, kind::READY).is_some_and(|c| c.status == "True")
}
