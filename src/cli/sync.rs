//! `windlass sync NAME`: ask Git now rather than at the next poll, and try again now what failed.

use super::WELL;
use super::find::{DeliveryArgs, explained, full_name};
use super::request::{MANAGER, WaitArgs, annotate, is_ready, must_act, token, wait};
use crate::api::condition::{self, kind};
use crate::api::{Duration, Repository, names};
use crate::report::short_revision;
use anyhow::bail;
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde_json::json;

/// Look at the source now, and reconcile. What failed to begin is tried again; what is held stays held (see release).
///
/// With --wait, exit code 0: the newest commit is ready. 1: it is held, failed, or not done in time.
#[derive(clap::Args, Clone, Debug)]
pub struct SyncArgs {
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Asks, and waits where that is wanted.
pub async fn run(args: SyncArgs) -> anyhow::Result<i32> {
    let (connection, delivery) = args.of.find().await?;
    let client = &connection.client;
    must_act(&delivery)?;
    let namespace = delivery.namespace().unwrap_or_default();
    let api: Api<Repository> = Api::namespaced(client.clone(), &namespace);
    if delivery.spec.source.application.is_some() {
        // Its spec is seen without polling anything.
        let token = token();
        annotate(client, &delivery, &token, None).await?;
        if args.wait.wait {
            return wait(client, &delivery, &token, args.wait.timeout, is_ready).await;
        }
        anstream::println!(
            "{} is asked to sync; `windlass status {}` tells more",
            full_name(&delivery),
            args.of.name
        );
        return Ok(WELL);
    }
    let of = &delivery.spec.source.repository;
    let Some(repository) = api.get_opt(of).await.map_err(explained)? else {
        bail!("Repository {namespace}/{of} does not exist, and {} delivers from it", full_name(&delivery));
    };
    if repository.spec.suspend {
        bail!("Repository {namespace}/{of} is suspended and is not polled; set spec.suspend to false first");
    }
    let token = token();
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let patch = json!({"metadata": {"annotations": {names::RECONCILE_REQUEST: token}}});
    api.patch(of, &params, &Patch::Merge(patch)).await.map_err(explained)?;
    if !args.wait.wait {
        annotate(client, &delivery, &token, None).await?;
        anstream::println!(
            "{} is asked to sync; `windlass status {}` tells more",
            full_name(&delivery),
            args.of.name
        );
        return Ok(WELL);
    }
    let begin = std::time::Instant::now();
    let polled = polled(api, of, &token, args.wait.timeout).await?;
    if let Some(c) = condition::get(&polled.conditions, kind::READY).filter(|c| c.status != "True") {
        bail!("Repository {namespace}/{of}: {}", c.message);
    }
    anstream::eprintln!("{of} is at {}", short_revision(&polled.revision.unwrap_or_default()));
    annotate(client, &delivery, &token, None).await?;
    let left = Duration(args.wait.timeout.0.saturating_sub(begin.elapsed()));
    wait(client, &delivery, &token, left, is_ready).await
}

/// Waits until the remote was asked after the request.
async fn polled(
    api: Api<Repository>,
    name: &str,
    token: &str,
    limit: Duration,
) -> anyhow::Result<crate::api::RepositoryStatus> {
    let waiting = async {
        let mut states = Box::pin(watch_object(api, name));
        while let Some(state) = states.next().await {
            let status = match state {
                Ok(Some(repository)) => repository.status.unwrap_or_default(),
                Ok(None) => bail!("Repository {name} is gone"),
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            };
            if status.handled_request.as_deref() == Some(token) {
                return Ok(status);
            }
        }
        bail!("the watch of Repository {name} ended")
    };
    match tokio::time::timeout(limit.0, waiting).await {
        Ok(status) => status,
        Err(_) => bail!("Repository {name} was not polled within {limit}; does `windlass run` run?"),
    }
}
