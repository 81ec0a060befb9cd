//! The values that `substitute` reads, and keeping those of the last good revision for a rollback.

use super::work::Settings;
use crate::api::Delivery;
use crate::api::delivery::{Problem, Revision};
use crate::cluster::Access;
use crate::core::digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;

/// Values of a Delivery whose `substitute` names none.
pub fn none(now: Timestamp) -> Settings {
    Settings { digest: String::new(), values: BTreeMap::new(), at: now }
}

/// Reads the values, as the account of the Delivery.
pub async fn read(
    delivery: &Delivery,
    access: &Access,
    key: &[u8],
    now: Timestamp,
) -> Result<Settings, Problem> {
    let Some(substitute) = &delivery.spec.template.substitute else { return Ok(none(now)) };
    let namespace = delivery.namespace().unwrap_or_default();
    let mut values = BTreeMap::new();
    for from in &substitute.from {
        let (object, found) = match (&from.config_map, &from.secret) {
            (Some(name), _) => {
                let api: Api<ConfigMap> = Api::namespaced(access.client().clone(), &namespace);
                let found = api.get_opt(name).await.map(|o| o.map(|o| o.data.unwrap_or_default()));
                (format!("ConfigMap {namespace}/{name}"), found)
            }
            (None, Some(name)) => {
                let api: Api<Secret> = Api::namespaced(access.client().clone(), &namespace);
                let found = api.get_opt(name).await.map(|o| o.map(|o| text_of(&o)));
                (format!("Secret {namespace}/{name}"), found)
            }
            (None, None) => continue,
        };
        let problem = |reason: &str, message: String| Problem {
            reason: reason.into(),
            object: object.clone(),
            message,
        };
        match found {
            Ok(Some(data)) => values.extend(data),
            Ok(None) if from.optional => {}
            Ok(None) => {
                return Err(problem(
                    "SettingsMissing",
                    "does not exist, and spec.substitute.from names it; create it or set optional: true"
                        .into(),
                ));
            }
            Err(error) => {
                // The server's words about a Secret are not passed on.
                let code = match &error {
                    kube::Error::Api(status) => status.code.to_string(),
                    _ => "no answer".into(),
                };
                return Err(problem("SettingsUnreadable", format!("could not be read ({code})")));
            }
        }
    }
    values.extend(substitute.values.clone());
    Ok(Settings { digest: digest::of_value_keyed(&json!(values), key), values, at: now })
}

fn text_of(secret: &Secret) -> BTreeMap<String, String> {
    secret
        .data
        .iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), String::from_utf8(value.0.clone()).ok()?)))
        .collect()
}

fn secret_name(delivery: &Delivery) -> String {
    format!("{}.windlass-settings", delivery.name_any())
}

/// Keeps the values of a revision that was deployed, in a Secret that the Delivery owns.
pub async fn keep(delivery: &Delivery, access: &Access, settings: &Settings) -> Result<(), kube::Error> {
    let Some(owner) = delivery.controller_owner_ref(&()) else { return Ok(()) };
    let namespace = delivery.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(access.client().clone(), &namespace);
    let name = secret_name(delivery);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "windlass.dev/settings",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "stringData": {"digest": settings.digest, "values": json!(settings.values).to_string()},
    });
    let params = PatchParams::apply(crate::api::names::FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(secret)).await.map(|_| ())
}

/// The values that a revision was deployed with.
pub async fn kept(
    delivery: &Delivery,
    access: &Access,
    revision: &Revision,
    now: Timestamp,
) -> Option<Settings> {
    if revision.settings.is_empty() {
        return Some(none(now));
    }
    let namespace = delivery.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(access.client().clone(), &namespace);
    let data = text_of(&api.get_opt(&secret_name(delivery)).await.ok()??);
    if data.get("digest") != Some(&revision.settings) {
        return None;
    }
    let values = serde_json::from_str(data.get("values")?).ok()?;
    Some(Settings { digest: revision.settings.clone(), values, at: now })
}
