//! The values that `substitute` reads, and keeping those of the last good revision for a rollback.

use super::Scope;
use super::work::{Memory, Settings};
use crate::api::Delivery;
use crate::api::delivery::{Problem, Revision, Substitute};
use crate::cluster::NamedObject;
use crate::cluster::named::Version;
use crate::cluster::{Access, ServiceAccount};
use crate::core::digest;
use crate::core::manifest::Gvk;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Deserialize;
use serde_json::json;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Values of a Delivery whose `substitute` names none.
pub fn none(now: Timestamp) -> Settings {
    Settings { digest: String::new(), values: BTreeMap::new(), hidden: BTreeSet::new(), at: now }
}

/// The ConfigMaps and Secrets that a Delivery's values come from: kind and name.
fn sources(substitute: Option<&Substitute>) -> BTreeSet<(&'static str, String)> {
    let from = substitute.map_or(&[][..], |s| &s.from);
    from.iter()
        .filter_map(|from| match (&from.config_map, &from.secret) {
            (Some(name), _) => Some((CONFIG_MAP, name.clone())),
            (None, Some(name)) => Some((SECRET, name.clone())),
            (None, None) => None,
        })
        .collect()
}

const CONFIG_MAP: &str = "ConfigMap";
const SECRET: &str = "Secret";

/// What values were read, or why not, and which version of each object that was.
pub struct Read {
    /// The values.
    pub settings: Result<Settings, Problem>,
    /// Versions, by kind and name.
    pub versions: BTreeMap<(&'static str, String), Version>,
}

/// Reads the values of a Delivery, as its account, and keeps an eye on where they come from.
pub async fn read(scope: &Scope<'_>, memory: &mut Memory, now: Timestamp) -> Result<Settings, Problem> {
    let delivery = scope.delivery;
    let substitute = delivery.spec.template.substitute.as_ref();
    let namespace = delivery.namespace().unwrap_or_default();
    follow(scope, memory, &namespace);
    let read = read_from(&namespace, substitute, &scope.access, &scope.daemon.secret_key, now).await;
    for (object, watch) in &memory.followed {
        for ((kind, name), version) in &read.versions {
            if object.gvk.kind == *kind && object.name == *name {
                watch.note(*version);
            }
        }
    }
    if memory.followed.values().any(crate::cluster::Named::is_outdated) {
        scope.daemon.wake(&namespace, &delivery.name_any());
    }
    read.settings
}

/// Watches the objects that the values come from, and no others.
fn follow(scope: &Scope<'_>, memory: &mut Memory, namespace: &str) {
    let account: Option<ServiceAccount> = scope.account();
    let wanted: BTreeSet<NamedObject> = sources(scope.delivery.spec.template.substitute.as_ref())
        .into_iter()
        .map(|(kind, name)| NamedObject {
            account: account.clone(),
            gvk: Gvk::new("v1", kind),
            namespace: namespace.to_owned(),
            name,
        })
        .collect();
    memory.followed.retain(|object, _| wanted.contains(object));
    for object in wanted {
        if let Entry::Vacant(place) = memory.followed.entry(object) {
            let wake = scope.daemon.waker(&scope.label);
            let watch = scope.daemon.named.ensure(place.key(), wake);
            place.insert(watch);
        }
    }
}

/// Reads values as whoever `access` stands for.
pub async fn read_from(
    namespace: &str,
    substitute: Option<&Substitute>,
    access: &Access,
    key: &[u8],
    now: Timestamp,
) -> Read {
    let mut versions = BTreeMap::new();
    let settings = values(namespace, substitute, access, key, now, &mut versions).await;
    Read { settings, versions }
}

async fn values(
    namespace: &str,
    substitute: Option<&Substitute>,
    access: &Access,
    key: &[u8],
    now: Timestamp,
    versions: &mut BTreeMap<(&'static str, String), Version>,
) -> Result<Settings, Problem> {
    let Some(substitute) = substitute else { return Ok(none(now)) };
    let mut values = BTreeMap::new();
    let mut hidden = BTreeSet::new();
    for from in &substitute.from {
        let (kind, name, found) = match (&from.config_map, &from.secret) {
            (Some(name), _) => {
                let api: Api<ConfigMap> = Api::namespaced(access.client().clone(), namespace);
                let found = api
                    .get_opt(name)
                    .await
                    .map(|o| o.map(|o| (number(o.resource_version()), o.data.unwrap_or_default())));
                (CONFIG_MAP, name, found)
            }
            (None, Some(name)) => {
                let api: Api<Secret> = Api::namespaced(access.client().clone(), namespace);
                let found =
                    api.get_opt(name).await.map(|o| o.map(|o| (number(o.resource_version()), text_of(&o))));
                (SECRET, name, found)
            }
            (None, None) => continue,
        };
        let object = format!("{kind} {namespace}/{name}");
        if let Ok(found) = &found {
            versions.insert((kind, name.clone()), found.as_ref().and_then(|(version, _)| *version));
        }
        let problem = |reason: &str, message: String| Problem {
            reason: reason.into(),
            object: object.clone(),
            message,
        };
        match found {
            Ok(Some((_, data))) => {
                for (name, value) in data {
                    if kind == SECRET {
                        hidden.insert(name.clone());
                    } else {
                        hidden.remove(&name);
                    }
                    values.insert(name, value);
                }
            }
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
    for (name, value) in &substitute.values {
        hidden.remove(name);
        values.insert(name.clone(), value.clone());
    }
    Ok(Settings { digest: digest::of_value_keyed(&json!(values), key), values, hidden, at: now })
}

fn number(version: Option<String>) -> Version {
    version.and_then(|v| v.parse().ok())
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

/// The key in the Secret under which values with this digest stand.
fn entry(digest: &str) -> String {
    digest.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// What a Secret may hold is 1 MiB with its names.
const MOST_BYTES: usize = 900 << 10;

/// Why values are not kept.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// The Secret could not be read or written.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// With those of the revision to go back to they are more than one Secret holds.
    #[error("they are {0} bytes")]
    TooLarge(usize),
}

/// Keeps values in a Secret that the Delivery owns, beside those that the `needed` revisions were rendered with: as many as
/// there is room for, those named first before others. Done before a revision is applied: whatever happens afterwards, both it and the last good one can be rendered again.
pub async fn keep<'r>(
    delivery: &Delivery,
    access: &Access,
    settings: &Settings,
    needed: impl Iterator<Item = &'r Revision>,
) -> Result<(), NotKept> {
    let Some(owner) = delivery.controller_owner_ref(&()) else { return Ok(()) };
    let namespace = delivery.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(access.client().clone(), &namespace);
    let name = secret_name(delivery);
    let data = api.get_opt(&name).await?.and_then(|s| s.data).unwrap_or_default();
    if data.contains_key(&entry(&settings.digest)) {
        return Ok(());
    }
    let new =
        ByteString(json!({"values": settings.values, "hidden": settings.hidden}).to_string().into_bytes());
    let data = with_room(data, needed.map(|r| entry(&r.settings)), entry(&settings.digest), new)?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "windlass.dev/settings",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "data": data,
    });
    let params = PatchParams::apply(crate::api::names::FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(secret)).await?;
    Ok(())
}

/// What is kept: the new values and the first of the needed ones, whatever else there is room for.
fn with_room(
    mut old: BTreeMap<String, ByteString>,
    needed: impl Iterator<Item = String>,
    name: String,
    new: ByteString,
) -> Result<BTreeMap<String, ByteString>, NotKept> {
    let (mut size, mut kept) = (new.0.len(), BTreeMap::from([(name, new)]));
    for (at, name) in needed.enumerate() {
        let Some(value) = old.remove(&name) else { continue };
        if size + value.0.len() <= MOST_BYTES {
            size += value.0.len();
            kept.insert(name, value);
        } else if at == 0 {
            // Better the values of what is gone back to than those of what may have to be gone back from.
            return Err(NotKept::TooLarge(size + value.0.len()));
        }
    }
    if size > MOST_BYTES { Err(NotKept::TooLarge(size)) } else { Ok(kept) }
}

/// Values as they are kept.
#[derive(Deserialize)]
struct Kept {
    values: BTreeMap<String, String>,
    hidden: BTreeSet<String>,
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
    let kept: Kept = serde_json::from_str(data.get(&entry(&revision.settings))?).ok()?;
    let Kept { values, hidden } = kept;
    Some(Settings { digest: revision.settings.clone(), values, hidden, at: now })
}

/// Values that are looked at, to be compared with those that earlier revisions were deployed with. The digests of those are keyed:
/// only values can be compared.
pub struct Comparable<'v> {
    values: Option<&'v BTreeMap<String, String>>,
    kept: BTreeMap<String, String>,
}

impl<'v> Comparable<'v> {
    /// `values` is `None` where nothing is substituted. What may not be read is not known.
    pub async fn read(
        delivery: &Delivery,
        access: &Access,
        values: Option<&'v BTreeMap<String, String>>,
    ) -> Self {
        let namespace = delivery.namespace().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(access.client().clone(), &namespace);
        let kept = match values {
            Some(_) => api.get_opt(&secret_name(delivery)).await.ok().flatten(),
            None => None,
        };
        Comparable { values, kept: kept.map(|secret| text_of(&secret)).unwrap_or_default() }
    }

    /// Whether they are those with this digest, where that is known.
    pub fn is(&self, digest: &str) -> Option<bool> {
        let Some(values) = self.values else { return Some(digest.is_empty()) };
        if digest.is_empty() {
            return Some(false);
        }
        let kept: Kept = serde_json::from_str(self.kept.get(&entry(digest))?).ok()?;
        Some(kept.values == *values)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(count: usize) -> ByteString {
        ByteString(vec![0; count])
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_last_good_values_come_first() {
        let third = MOST_BYTES / 3;
        let old: BTreeMap<String, ByteString> =
            ["good", "older", "oldest", "unneeded"].map(|name| (name.to_owned(), bytes(third))).into();
        let needed = || ["good", "older", "oldest"].map(str::to_owned).into_iter();
        let kept = with_room(old.clone(), needed(), "new".into(), bytes(third)).unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["good", "new", "older"]);
        assert!(kept.values().map(|v| v.0.len()).sum::<usize>() <= MOST_BYTES);
        let too_large = with_room(old, needed(), "new".into(), bytes(3 * third));
        assert!(matches!(too_large, Err(NotKept::TooLarge(_))), "the good values are not given up for it");
        assert!(with_room(BTreeMap::new(), needed(), "new".into(), bytes(MOST_BYTES + 1)).is_err());
    }
}
