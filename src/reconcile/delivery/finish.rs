//! Writes about the Delivery itself: its status, its finalizer, its namespace, and what is kept for a rollback.

use super::bundle::refusal;
use super::work::Memory;
use super::{Daemon, Scope, inventory, settings};
use crate::api::delivery::Revision;
use crate::api::{Delivery, DeliveryStatus, names};
use crate::core::rollout::Refusal;
use crate::reconcile::sources::Store;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::sync::Arc;

fn api(daemon: &Daemon, delivery: &Delivery) -> Api<Delivery> {
    Api::namespaced(daemon.connection.client.clone(), &delivery.namespace().unwrap_or_default())
}

/// Writes the status over the version that was read; a 409 says that it is not the newest any more.
pub async fn write_status(
    daemon: &Daemon,
    delivery: &Delivery,
    status: DeliveryStatus,
    memory: &mut Memory,
) -> Result<Delivery, kube::Error> {
    let client = &daemon.connection.client;
    let entries = status.inventory.clone();
    let before = delivery.status.as_ref().map(|s| s.inventory_shards.clone()).unwrap_or_default();
    let mut new = delivery.clone();
    new.metadata.managed_fields = None;
    new.status =
        Some(inventory::split(client, delivery, status, memory, daemon.options.inventory_shard).await?);
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
    let mut written = api(daemon, delivery).replace_status(&delivery.name_any(), &params, &new).await?;
    inventory::tidy(client, &written, &before, memory).await;
    if let Some(status) = &mut written.status {
        status.inventory = entries;
    }
    Ok(written)
}

/// Sees to it that the Delivery does not go before its objects.
pub async fn add_finalizer(daemon: &Daemon, delivery: &Delivery) -> Result<Arc<Delivery>, kube::Error> {
    let mut finalizers = delivery.finalizers().to_vec();
    finalizers.push(names::FINALIZER.into());
    patch_finalizers(daemon, delivery, &finalizers).await.map(Arc::new)
}

/// Takes off what a person said about a lost status, once that is settled. The inventory stays as it is known here.
pub async fn forget_adoption(daemon: &Daemon, delivery: &Delivery) -> Result<Arc<Delivery>, kube::Error> {
    let patch = json!({"metadata": {
        "resourceVersion": delivery.resource_version(),
        "annotations": {names::ADOPT: null},
    }});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    let mut new = api(daemon, delivery).patch(&delivery.name_any(), &params, &Patch::Merge(patch)).await?;
    new.status = delivery.status.clone();
    Ok(Arc::new(new))
}

/// Lets the Delivery go.
pub async fn remove_finalizer(daemon: &Daemon, delivery: &Delivery) -> Result<(), kube::Error> {
    let finalizers: Vec<String> =
        delivery.finalizers().iter().filter(|f| *f != names::FINALIZER).cloned().collect();
    match patch_finalizers(daemon, delivery, &finalizers).await {
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn patch_finalizers(
    daemon: &Daemon,
    delivery: &Delivery,
    finalizers: &[String],
) -> Result<Delivery, kube::Error> {
    let patch = json!({"metadata": {
        "resourceVersion": delivery.resource_version(),
        "finalizers": finalizers,
    }});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    api(daemon, delivery).patch(&delivery.name_any(), &params, &Patch::Merge(patch)).await
}

/// Makes the target namespace where the Delivery asks for that.
pub async fn ensure_namespace(scope: &Scope<'_>) -> Result<(), Refusal> {
    let template = &scope.delivery.spec.template;
    let Some(name) = template.target_namespace.as_deref().filter(|_| template.create_namespace) else {
        return Ok(());
    };
    // Once it was there, a missing one is an accident to be told, and asking each time would cost a request.
    if scope.delivery.status.as_ref().is_some_and(|s| s.effective.is_some()) {
        return Ok(());
    }
    let failed = |error: kube::Error| {
        let transient = !matches!(&error, kube::Error::Api(e) if e.code == 403);
        refusal("NamespaceNotCreated", format!("namespace {name} could not be created: {error}"), transient)
    };
    let api: Api<Namespace> = Api::all(scope.access.client().clone());
    if api.get_opt(name).await.map_err(failed)?.is_some() {
        return Ok(());
    }
    let namespace = Namespace {
        metadata: kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() },
        ..Default::default()
    };
    match api.create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The name under which the mirror keeps the commit that is being put in place.
fn next_name(label: &str) -> String {
    format!("{label}-next")
}

/// The name under which the mirror keeps the commit that was good before the one that is watched on.
fn before_name(label: &str) -> String {
    format!("{label}-before")
}

/// Keeps what going on with a revision, and going back from it, will need: before the first write of it, since the
/// branch may be rewritten and the settings changed at any time.
pub async fn keep_ahead(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus, revision: &Revision) {
    let mut commits = vec![(next_name(&scope.label), revision.commit.clone())];
    if let Some(effective) = &status.effective {
        commits.push((scope.label.clone(), effective.commit.clone()));
    }
    keep_commits(scope, commits).await;
    keep_settings(scope, memory, status, revision).await;
}

/// Keeps what a rollback to this revision, which is good now, will need.
pub async fn keep(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus, revision: &Revision) {
    let mut commits = vec![(scope.label.clone(), revision.commit.clone())];
    // Moved last would be too late: the commit that was good until now is held by the name that moves here.
    if let Some(bake) = &status.bake {
        commits.insert(0, (before_name(&scope.label), bake.good.commit.clone()));
    }
    let baking = status.bake.is_some();
    keep_commits(scope, commits).await;
    if !baking && let Some(store) = store(scope) {
        let name = before_name(&scope.label);
        // What cannot be forgotten takes a little room.
        let _ = store.mirror.forget(&name).await;
    }
    keep_settings(scope, memory, status, revision).await;
}

/// Keeps nothing for a Delivery any more. Answers `false` while its mirror is about to be opened, so that nothing could be done yet.
pub async fn keep_nothing(scope: &Scope<'_>) -> bool {
    let Some(store) = store(scope) else {
        return match scope.daemon.sources.get(&scope.delivery.source_key()) {
            Some(known) => known.problem.is_some(),
            None => scope.daemon.sources_listed(scope.delivery),
        };
    };
    let names = [scope.label.clone(), next_name(&scope.label), before_name(&scope.label)];
    for name in names {
        // What cannot be forgotten takes a little room.
        let _ = store.mirror.forget(&name).await;
    }
    true
}

fn store(scope: &Scope<'_>) -> Option<Store> {
    scope.daemon.sources.get(&scope.delivery.source_key())?.store
}

async fn keep_commits(scope: &Scope<'_>, commits: Vec<(String, String)>) {
    let Some(store) = store(scope) else { return };
    for (name, commit) in commits {
        if let Ok(id) = commit.parse()
            && let Err(error) = store.mirror.keep(&name, &id).await
        {
            tracing::warn!(%error, "a commit could not be kept in the mirror");
        }
    }
}

async fn keep_settings(scope: &Scope<'_>, memory: &Memory, status: &DeliveryStatus, revision: &Revision) {
    let delivery = scope.delivery;
    let deployed = status.history.iter().map(|h| &h.revision);
    let baking = status.bake.iter().map(|b| &b.good);
    let needed = status
        .effective
        .iter()
        .chain(baking)
        .chain(status.attempt.iter().map(|a| &a.revision))
        .chain(deployed);
    if !revision.settings.is_empty()
        && let Some(settings) = memory.settings.as_ref().filter(|s| s.digest == revision.settings)
        && let Err(error) = settings::keep(delivery, &scope.access, settings, needed).await
    {
        let account = scope.account().map_or_else(|| "the daemon".into(), |a| a.to_string());
        let why = match &error {
            settings::NotKept::TooLarge(bytes) => format!(
                "the settings of {revision} are not kept, since with those of the last good revision they take {bytes} bytes, \
                 and a Secret holds 1 MiB; read smaller objects in substitute.from"
            ),
            // The server's words about a Secret are not passed on.
            settings::NotKept::Api(error) => {
                let code = match error {
                    kube::Error::Api(status) => status.code.to_string(),
                    _ => "no answer".into(),
                };
                format!(
                    "{account} could not write the Secret that keeps the settings of {revision} ({code}); allow it to get, \
                     create and patch Secrets"
                )
            }
        };
        let text = format!("a rollback to it may not be possible: {why}");
        scope.notify(true, "SettingsNotKept", "", &text);
    }
}
