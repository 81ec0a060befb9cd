//! The configuration of an Application as ConfigMaps.
//!
//! A ConfigMap's name holds a digest of what it says. So a change of it is a change of the pod template, which rolls pods; the
//! pods of both revisions read their own; and going back finds the old one where it was. None of them ever changes.

use super::App;
use crate::core::digest;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How many digits of the digest are in a name.
const DIGITS: usize = 10;

/// The ConfigMap of the files, and the one of the environment.
pub(super) fn config_maps(app: &App) -> Vec<Value> {
    let Some(config) = &app.spec.config else { return Vec::new() };
    let one = |name: Option<String>, data: &BTreeMap<String, String>| {
        let mut object = app.object("v1", "ConfigMap", &name?);
        object["data"] = json!(data);
        object["immutable"] = true.into();
        Some(object)
    };
    let both = [one(files_name(app), &config.files), one(env_name(app), &config.env)];
    both.into_iter().flatten().collect()
}

/// The name of the ConfigMap that holds the files.
pub(super) fn files_name(app: &App) -> Option<String> {
    name(app, "files", &app.spec.config.as_ref()?.files)
}

/// The name of the ConfigMap that holds the environment.
pub(super) fn env_name(app: &App) -> Option<String> {
    name(app, "env", &app.spec.config.as_ref()?.env)
}

fn name(app: &App, what: &str, data: &BTreeMap<String, String>) -> Option<String> {
    let digest = digest::of_value(&json!(data));
    (!data.is_empty()).then(|| format!("{}-{what}-{}", app.name, &digest[..DIGITS]))
}
