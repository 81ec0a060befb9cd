//! From a revision to its bundle: the tree of the commit, rendered with the settings of the Delivery.

use super::work::Settings;
use crate::api::delivery::{DeliverySpec, Problem, Revision};
use crate::api::names;
use crate::cluster::Discovery;
use crate::core::bundle::Bundle;
use crate::core::diff::fold_string_data;
use crate::core::manifest::Manifest;
use crate::core::rollout::Refusal;
use crate::core::tree::Tree;
use crate::reconcile::sources::Store;
use crate::render::{self, Options, RenderError, Scope, Scopes, Substitutions};
use crate::source::CommitId;
use std::path::PathBuf;
use std::sync::Arc;

/// What rendering needs besides the tree.
#[derive(Clone, Debug)]
pub struct Renderer {
    /// The kustomize binary.
    pub kustomize: PathBuf,
}

/// Kinds as the cluster knows them, with the built-in ones where it does not answer.
pub struct ClusterScopes<'a>(pub &'a Discovery);

impl Scopes for ClusterScopes<'_> {
    fn scope(&self, group: &str, kind: &str) -> Option<Scope> {
        match self.0.scope(group, kind) {
            Some(true) => Some(Scope::Namespaced),
            Some(false) => Some(Scope::Cluster),
            None => None,
        }
    }
}

/// A refusal to render.
pub fn refusal(reason: &str, message: impl Into<String>, transient: bool) -> Refusal {
    Refusal {
        problem: Problem { reason: reason.into(), object: String::new(), message: message.into() },
        transient,
    }
}

/// The options of a Delivery's rendering.
pub fn options(spec: &DeliverySpec, settings: Option<&Settings>, renderer: &Renderer) -> Options {
    let t = &spec.template;
    let kustomize = t.render.as_ref().and_then(|r| match (&r.kustomize, &r.plain) {
        (Some(_), _) => Some(true),
        (None, Some(_)) => Some(false),
        (None, None) => None,
    });
    Options {
        kustomize,
        kustomize_binary: renderer.kustomize.clone(),
        target_namespace: t.target_namespace.clone(),
        substitute: t
            .substitute
            .as_ref()
            .map(|_| Substitutions { values: settings.map(|s| s.values.clone()).unwrap_or_default() }),
        ..Options::default()
    }
}

/// Renders a tree and makes a bundle of it, labelled as the Delivery's.
pub async fn render(
    tree: Arc<dyn Tree>,
    path: &str,
    options: &Options,
    scopes: &dyn Scopes,
    label: &str,
) -> Result<(Bundle, Vec<String>), Refusal> {
    let rendered = render::render(tree, path, options, scopes)
        .await
        .map_err(|e| refusal(reason(&e), e.to_string(), is_transient(&e)))?;
    let objects = rendered.objects.into_iter().map(|manifest| labelled(manifest, label)).collect();
    let bundle = Bundle::new(objects).map_err(|e| refusal("InvalidBundle", e.to_string(), false))?;
    Ok((bundle, rendered.warnings))
}

/// A word for conditions and events.
pub fn reason(error: &RenderError) -> &'static str {
    match error {
        RenderError::NoSuchDirectory(_) | RenderError::NotADirectory(_) => "PathNotFound",
        RenderError::Empty { .. } => "EmptyBundle",
        RenderError::Unset { .. } => "SettingMissing",
        _ => "RenderFailed",
    }
}

/// Whether rendering may succeed without a new commit.
fn is_transient(error: &RenderError) -> bool {
    matches!(
        error,
        RenderError::KustomizeMissing { .. } | RenderError::KustomizeTimeout { .. } | RenderError::Tree(_)
    )
}

fn labelled(mut manifest: Manifest, label: &str) -> Manifest {
    if !label.is_empty() {
        manifest.set_label(names::DELIVERY_LABEL, label);
    }
    fold_string_data(manifest.fields_mut());
    manifest
}

/// The tree of a revision. A commit that the mirror does not have any more (its cache was lost, and history was
/// rewritten) is store by its id where the server allows that.
pub async fn tree(store: &Store, revision: &Revision) -> Result<Arc<dyn Tree>, Refusal> {
    let lost = |e: &dyn std::fmt::Display| {
        refusal("CommitMissing", format!("revision {} cannot be had any more: {e}", revision.commit), true)
    };
    let id: CommitId = revision.commit.parse().map_err(|e| lost(&e))?;
    if let Ok(tree) = store.mirror.tree(&id).await {
        return Ok(tree);
    }
    store.mirror.fetch(&id, &store.credentials, &store.limits).await.map_err(|e| lost(&e))?;
    store.mirror.tree(&id).await.map_err(|e| lost(&e))
}
