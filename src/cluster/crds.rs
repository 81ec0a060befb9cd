//! Puts CustomResourceDefinitions into the cluster and waits until they can be used.

use super::access::Access;
use super::apply::{Guard, apply, get, patch_json};
use super::discovery::{Discovery, DiscoveryError, Resource};
use super::error::{ApplyError, Cause};
use crate::api::names;
use crate::core::manifest::Gvk;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How often an unfinished definition is looked at. It takes some 10 ms to be established.
const LOOK: Duration = Duration::from_millis(50);

/// What installing a definition came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It was not there.
    Created,
    /// It was there, and is another now.
    Updated,
    /// It was there as it should be.
    Unchanged,
}

/// Why a definition cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// It could not be written or read.
    #[error(transparent)]
    Failed(#[from] ApplyError),
    /// The cluster could not be asked for its kinds afterwards.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// Another definition has one of its names.
    #[error("CustomResourceDefinition {name}: its names are taken: {message}; remove the other definition")]
    NameConflict {
        /// Its name.
        name: String,
        /// The server's words.
        message: String,
    },
    /// It was not established in time.
    #[error("CustomResourceDefinition {name} was not established within {}s: {state}", .limit.as_secs())]
    Late {
        /// Its name.
        name: String,
        /// How long it was waited for.
        limit: Duration,
        /// What its conditions said last.
        state: String,
    },
}

/// How a definition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its objects can be made.
    Established,
    /// Another definition has its names; the server's words.
    NameConflict(String),
    /// Not yet; what its conditions say.
    Pending(String),
}

/// How a definition stands, from its conditions.
pub fn standing(crd: &Value) -> Standing {
    let none = Vec::new();
    let conditions = crd["status"]["conditions"].as_array().unwrap_or(&none);
    let find = |kind: &str| conditions.iter().find(|c| c["type"] == kind);
    if let Some(refused) = find("NamesAccepted").filter(|c| c["status"] == "False") {
        return Standing::NameConflict(refused["message"].as_str().unwrap_or_default().into());
    }
    if find("Established").is_some_and(|c| c["status"] == "True") {
        return Standing::Established;
    }
    let said =
        |c: &Value| format!("{}={}", c["type"].as_str().unwrap_or("?"), c["status"].as_str().unwrap_or("?"));
    let state = conditions.iter().map(said).collect::<Vec<_>>().join(", ");
    Standing::Pending(if state.is_empty() { "no condition yet".into() } else { state })
}

/// How CustomResourceDefinitions are addressed.
pub fn resource() -> Resource {
    Resource {
        gvk: Gvk::new("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        plural: "customresourcedefinitions".into(),
        namespaced: false,
        verbs: ["get", "list", "watch", "patch", "delete"].map(String::from).to_vec(),
    }
}

/// Has the API server look again at a definition that it deletes.
///
/// Its finalizer may overlook one for five minutes (Kubernetes 1.36): where listing the instances fails for a moment, it
/// notes that in the definition's condition and begins again, meets its own note as a conflict and ends, and a change of
/// that condition alone does not wake it. A change of anything else does.
pub async fn look_again(access: &Access, definition: &Value) -> Result<(), ApplyError> {
    let text = |field: &str| definition["metadata"][field].as_str().unwrap_or_default();
    // Another value each time: what stays the same is no change.
    let version = text("resourceVersion");
    let (path, value) = match definition["metadata"]["annotations"].is_object() {
        true => (format!("/metadata/annotations/{}", names::REMOVAL.replace('/', "~1")), json!(version)),
        false => ("/metadata/annotations".to_owned(), json!({ names::REMOVAL: version })),
    };
    let operations = [json!({"op": "add", "path": path, "value": value})];
    match patch_json(access, &resource(), "", text("name"), version, &operations).await {
        // Who changed it meanwhile has woken the finalizer.
        Ok(_) | Err(ApplyError { cause: Cause::NotFound | Cause::Conflict, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Applies definitions, waits until all are established and the cluster lists their kinds. Answers in their order.
pub async fn install(
    access: &Access,
    discovery: &Discovery,
    definitions: &[Value],
    limit: Duration,
) -> Result<Vec<Installed>, CrdError> {
    let resource = resource();
    let deadline = Instant::now() + limit;
    let version = |crd: &Value| crd["metadata"]["generation"].as_i64();
    let mut answers = Vec::with_capacity(definitions.len());
    let mut pending = Vec::new();
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let before = get(access, &resource, "", name).await?;
        let applied = apply(access, &resource, definition, Guard::Any).await?;
        answers.push(match &before {
            _ if applied.created => Installed::Created,
            Some(before) if version(before) == version(&applied.object) => Installed::Unchanged,
            _ => Installed::Updated,
        });
        pending.push((name, applied.object));
    }
    while let Some((name, crd)) = pending.pop() {
        let state = match standing(&crd) {
            Standing::Established => continue,
            Standing::NameConflict(message) => {
                return Err(CrdError::NameConflict { name: name.into(), message });
            }
            Standing::Pending(state) => state,
        };
        if Instant::now() >= deadline {
            return Err(CrdError::Late { name: name.into(), limit, state });
        }
        tokio::time::sleep(LOOK).await;
        let crd = get(access, &resource, "", name).await?.unwrap_or_default();
        pending.push((name, crd));
    }
    // Established comes a moment before the kinds are served.
    loop {
        discovery.refresh().await?;
        let missing =
            definitions.iter().find_map(|d| served(d).find(|gvk| discovery.resource(gvk).is_none()));
        match missing {
            None => return Ok(answers),
            Some(gvk) if Instant::now() >= deadline => {
                let name = gvk.to_string();
                return Err(CrdError::Late { name, limit, state: "its kind is not served".into() });
            }
            Some(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The kinds that a definition serves.
pub fn served(definition: &Value) -> impl Iterator<Item = Gvk> {
    let spec = &definition["spec"];
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
    let served = versions.into_iter().filter(|v| v["served"] == true);
    served.map(move |v| Gvk {
        group: group.clone(),
        version: v["name"].as_str().unwrap_or_default().into(),
        kind: kind.clone(),
    })
}
