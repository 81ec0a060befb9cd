//! What a Delivery's directory renders to, as `diff` and `drift --diff` look at it: with the settings that it is delivered with, and
//! without showing those that came from a Secret.

use super::directory::Directory;
use crate::api::Delivery;
use crate::api::delivery::DeliverySpec;
use crate::cluster::{Access, Discovery};
use crate::core::bundle::Bundle;
use crate::core::rollout::status;
use crate::reconcile::delivery::bundle::{self, ClusterScopes, Renderer};
use crate::reconcile::delivery::settings;
use crate::reconcile::delivery::work::Settings;
use crate::render::{Substitutions, find_kustomize};
use anyhow::anyhow;
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::path::Path;

/// Reads the values that a Delivery is rendered with, as whoever asks; `None` where it has none. Fails where they may not be read.
pub async fn settings_of(
    delivery: &Delivery,
    spec: &DeliverySpec,
    access: &Access,
) -> anyhow::Result<Option<Settings>> {
    let Some(substitute) = &spec.template.substitute else { return Ok(None) };
    let namespace = delivery.namespace().unwrap_or_default();
    let read = settings::read_from(&namespace, Some(substitute), access, &[], Timestamp::now()).await;
    read.settings.map(Some).map_err(|p| anyhow!("{}", status::told(&p)))
}

/// A text without what came from a Secret, wherever that was put.
pub fn redacted(settings: Option<&Settings>, text: String) -> String {
    settings.map_or_else(|| text.clone(), |s| s.redact(&text))
}

/// Renders a directory. Answers the bundle, and what is to be warned of.
pub async fn render(
    directory: &Directory,
    spec: &DeliverySpec,
    values: Option<&BTreeMap<String, String>>,
    discovery: &Discovery,
    label: &str,
    kustomize: Option<&Path>,
) -> anyhow::Result<(Bundle, Vec<String>)> {
    let renderer = Renderer { kustomize: find_kustomize(kustomize) };
    let mut options = bundle::options(spec, None, &renderer);
    options.substitute = values.map(|values| Substitutions { values: values.clone() });
    let scopes = ClusterScopes(discovery);
    bundle::render(directory.tree.clone(), &directory.path, &options, &scopes, label)
        .await
        .map_err(|refusal| anyhow!(refusal.problem.message))
}
