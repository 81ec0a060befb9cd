//! The revisions of an Application: what its spec became, kept as ControllerRevisions that it owns. To its Delivery they are the
//! commits of a repository.

use super::Hitch;
use super::sight::Kept;
use crate::api::delivery::{self, Phase};
use crate::api::{Application, Delivery, names};
use crate::cluster::Discovery;
use crate::core::application::{Kinds, Revision, expand_for, revision, revision_name};
use crate::core::manifest::{ObjectId, Origin};
use crate::core::tree::Tree;
use crate::reconcile::fault;
use crate::reconcile::sources::Commits;
use crate::source::{CommitId, Credentials, Limits, SourceError};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Reason where a revision could not be kept.
const NOT_KEPT: &str = "RevisionNotKept";

/// The revisions of one Application.
pub(super) struct Revisions {
    pub(super) client: Client,
    pub(super) discovery: Discovery,
    pub(super) shown: Store<Application>,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Revisions {
    /// A revision: what the spec is now where that is the one, else what was kept.
    async fn get(&self, id: &str) -> Result<Revision, SourceError> {
        let shown = self.shown.get(&ObjectRef::new(&self.name).within(&self.namespace));
        let kinds = super::kinds(&self.discovery, None);
        let now = shown.and_then(|application| expand_for(&application, &Origin::default(), kinds).ok());
        if let Some(now) = now.as_ref().map(revision).filter(|now| now.id == id) {
            return Ok(now);
        }
        let name = revision_name(&self.name, id);
        let object = format!("ControllerRevision {}/{name}", self.namespace);
        let api: Api<ControllerRevision> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(&name).await;
        let found = found
            .map_err(|e| SourceError::RevisionUnread { object: object.clone(), detail: e.to_string() })?;
        let kept = found.and_then(|kept| Revision::read(&kept.data?.0));
        // One that says something else than it did is none of ours.
        kept.filter(|kept| kept.id == id)
            .ok_or_else(|| SourceError::RevisionGone { object, id: id.chars().take(12).collect() })
    }
}

impl Commits for Revisions {
    fn tree(&self, id: &CommitId) -> BoxFuture<'_, Result<Arc<dyn Tree>, SourceError>> {
        let id = id.clone();
        Box::pin(async move { Ok(Arc::new(self.get(id.as_str()).await?.tree()) as Arc<dyn Tree>) })
    }

    fn fetch<'a>(
        &'a self,
        id: &'a CommitId,
        _: &'a Credentials,
        _: &'a Limits,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move { self.get(id.as_str()).await.map(|_| ()) })
    }

    // What is kept follows from what the Delivery names: [`tidy`].
    fn keep(&self, _: &str, _: &CommitId) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(async { Ok(()) })
    }

    fn forget(&self, _: &str) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Keeps the revision that the spec of an Application is now.
pub(super) async fn keep(client: &Client, application: &Application, kinds: Kinds) -> Result<(), Hitch> {
    let refused = |message: String| Hitch::Refused(super::problem(NOT_KEPT, message));
    let expansion = expand_for(application, &Origin::default(), kinds).map_err(|e| refused(e.to_string()))?;
    let now = revision(&expansion);
    let namespace = application.namespace().unwrap_or_default();
    let name = revision_name(&application.name_any(), &now.id);
    let of = BTreeMap::from([(names::APPLICATION_LABEL.to_owned(), application.name_any())]);
    let kept = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            labels: Some(of),
            owner_references: application.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        revision: application.metadata.generation.unwrap_or_default(),
        data: Some(RawExtension(now.data(&json!(application.spec)))),
    };
    let hitch = |what: &str, error: kube::Error| {
        let (namespace, name) = (namespace.clone(), name.clone());
        let object = ObjectId { group: "apps".into(), kind: "ControllerRevision".into(), namespace, name };
        Hitch::new(NOT_KEPT, &object, "apps/v1 ControllerRevision", what, error)
    };
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
    match api.create(&params, &kept).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let there = api.get_opt(&name).await.map_err(|e| hitch(" could not be read", e))?;
            let ours = |there: &ControllerRevision| {
                there.metadata.deletion_timestamp.is_none()
                    && is_of(application, &Kept::of(there))
                    && there.data.as_ref().and_then(|d| Revision::read(&d.0)).is_some_and(|r| r.id == now.id)
            };
            match there {
                Some(there) if ours(&there) => {
                    own(&api, application, &Kept::of(&there)).await;
                    Ok(())
                }
                // Left by an Application of this name that was deleted: it goes soon.
                _ => Err(refused(format!(
                    "ControllerRevision {namespace}/{name} is there and is not this Application's; it is waited for, \
                     delete it if it does not go"
                ))),
            }
        }
        Err(error) => Err(hitch(", which a rollback needs, could not be written", error)),
    }
}

/// Makes a revision that nobody owns, as one that was orphaned, the Application's: it goes with it then. One that stays as it is
/// can be used all the same, and is tried again with the next that is kept.
async fn own(api: &Api<ControllerRevision>, application: &Application, orphan: &Kept) {
    if !orphan.owners.is_empty() {
        return;
    }
    let Some(owner) = application.controller_owner_ref(&()) else { return };
    // Another one of the name is refused.
    let patch = json!({"metadata": {"uid": orphan.uid, "ownerReferences": [owner]}});
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    if let Err(error) = api.patch_metadata(&orphan.name, &params, &Patch::Merge(patch)).await {
        tracing::warn!(%error, "a revision that nobody owns could not be taken over");
    }
}

/// Whether a revision is an Application's: it owns it, or nobody does, as after its name was orphaned.
fn is_of(application: &Application, kept: &Kept) -> bool {
    kept.owners.is_empty() || kept.owners.iter().any(|owner| Some(owner) == application.metadata.uid.as_ref())
}

/// The revisions that a Delivery may still need, or has begun.
pub(super) fn needed(delivery: &Delivery) -> impl Iterator<Item = &str> {
    let status = delivery.status.iter();
    status.flat_map(|s| {
        let named = [
            s.effective.as_ref(),
            s.attempt.as_ref().map(|a| &a.revision),
            s.held.as_ref().map(|h| &h.revision),
            s.bake.as_ref().map(|b| &b.good),
            s.waiting.as_ref().map(|w| &w.revision),
        ];
        named.into_iter().flatten().chain(s.history.iter().map(|h| &h.revision)).map(|r| r.commit.as_str())
    })
}

/// Whether a revision is in place or was taken back, and nothing is under way.
pub(super) fn is_settled(delivery: &Delivery, id: &str) -> bool {
    delivery.status.as_ref().is_some_and(|s| {
        let is = |r: &delivery::Revision| r.commit == id;
        let ended = s.effective.as_ref().is_some_and(is) || s.held.as_ref().is_some_and(|h| is(&h.revision));
        matches!(s.phase, Phase::Ready | Phase::Held) && s.attempt.is_none() && ended
    })
}

/// Asks for the revisions of an Application, where they are not watched. `None` when they could not be listed.
pub(super) async fn ask(client: &Client, application: &Application) -> Option<Vec<Kept>> {
    let api: Api<ControllerRevision> =
        Api::namespaced(client.clone(), &application.namespace().unwrap_or_default());
    let label = format!("{}={}", names::APPLICATION_LABEL, application.name_any());
    match api.list_metadata(&ListParams::default().labels(&label)).await {
        Ok(all) => Some(all.items.iter().map(Kept::of).collect()),
        Err(error) => {
            tracing::warn!(%error, "old revisions could not be listed");
            None
        }
    }
}

/// Of the revisions that are there, removes those that nothing needs any more, and makes those that are needed the Application's.
/// What could not be removed takes a little room, and is removed with the next that is kept. Answers whether all was as it was seen:
/// one that somebody changed meanwhile stays, and is looked at again.
pub(super) async fn tidy(
    client: &Client,
    application: &Application,
    delivery: &Delivery,
    all: Vec<Kept>,
) -> bool {
    let (namespace, name) = (application.namespace().unwrap_or_default(), application.name_any());
    let needed: BTreeSet<String> = needed(delivery).map(|id| revision_name(&name, id)).collect();
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &namespace);
    let mut as_seen = true;
    for old in all.iter().filter(|kept| is_of(application, kept) && !kept.goes) {
        if needed.contains(&old.name) {
            own(&api, application, old).await;
            continue;
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: old.uid.clone(),
                resource_version: old.version.clone(),
            }),
            ..DeleteParams::default()
        };
        fault::place(|| "before removing a revision".into());
        let removed = api.delete(&old.name, &params).await;
        fault::place(|| "after removing a revision".into());
        match removed {
            Ok(_) => {}
            Err(kube::Error::Api(e)) if e.code == 404 => {}
            Err(kube::Error::Api(e)) if e.code == 409 => as_seen = false,
            Err(error) => tracing::warn!(%error, "an old revision could not be removed"),
        }
    }
    as_seen
}
