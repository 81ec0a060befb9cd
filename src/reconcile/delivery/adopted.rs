//! What adopted objects were before: kept in a Secret that the Delivery owns before the first write to them, since they are
//! given back with the values that they had when the commit that adopted them fails. Kept until a revision with them is
//! good.

use super::Scope;
use super::work::{Memory, Work};
use crate::api::Delivery;
use crate::api::delivery::{DeliveryStatus, EntryOrigin};
use crate::cluster::Access;
use crate::core::digest;
use crate::core::fields::{Path, Segment};
use crate::core::manifest::ObjectId;
use crate::core::restore::to_keep;
use crate::reconcile::fault;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a Secret may hold is 1 MiB with its names.
const MOST_BYTES: usize = 900 << 10;

/// An object before it was adopted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Before {
    id: String,
    /// The object, without what the API server writes.
    pub object: Value,
    /// Fields that were taken away when it was adopted, as `fieldsV1` writes their steps.
    released: Vec<Vec<String>>,
}

impl Before {
    /// Fields that were taken away when it was adopted.
    pub fn released(&self) -> Vec<Path> {
        let decode =
            |steps: &Vec<String>| steps.iter().map(|s| Segment::decode(s)).collect::<Option<Vec<_>>>();
        self.released.iter().filter_map(decode).map(Path).collect()
    }
}

/// What is known of adopted objects, by their identity.
pub type Befores = BTreeMap<String, Before>;

fn secret_name(delivery: &Delivery) -> String {
    format!("{}.windlass-adopted", delivery.name_any())
}

fn api(delivery: &Delivery, access: &Access) -> Api<Secret> {
    Api::namespaced(access.client().clone(), &delivery.namespace().unwrap_or_default())
}

/// The key under which an object stands.
fn key(id: &str) -> String {
    digest::of_value(&json!(id)).replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// What the objects were that this plan is about to adopt is written down. Where that is not possible people are told, and
/// the objects would be released as they are.
pub async fn keep(scope: &Scope<'_>, memory: &mut Memory, work: &Work) {
    let found: Vec<Before> = work
        .plan
        .iter()
        .filter(|(_, planned)| planned.origin == Some(EntryOrigin::Adopted))
        .filter_map(|(id, planned)| {
            let release = match &planned.act {
                super::work::Act::Update { release, .. } => release.as_slice(),
                _ => &[],
            };
            let steps = |path: &Path| path.segments().iter().map(Segment::encode).collect();
            Some(Before {
                id: id.to_string(),
                object: to_keep(planned.found.as_deref()?),
                released: release.iter().map(steps).collect(),
            })
        })
        .collect();
    if found.is_empty() {
        return;
    }
    memory.nothing_adopted = false;
    fault::place(|| "before keeping adopted values".into());
    let (left_out, result) = write(scope.delivery, &scope.access, &found).await;
    fault::place(|| "after keeping adopted values".into());
    let tell = |object: &str, why: &str| {
        let text = format!(
            "what it was before it was adopted is not kept ({why}), so it would be released with the values of this revision \
             should this revision fail"
        );
        scope.notify(true, "AdoptedNotKept", object, &text);
    };
    for id in left_out {
        tell(&id, "a Secret has no room for it");
    }
    if let Err(error) = result {
        // The server's words about a Secret are not passed on.
        let why = match &error {
            kube::Error::Api(status) => format!("writing a Secret was answered with {}", status.code),
            _ => "writing a Secret was not answered".into(),
        };
        for before in &found {
            tell(&before.id, &why);
        }
    }
}

async fn write(
    delivery: &Delivery,
    access: &Access,
    found: &[Before],
) -> (Vec<String>, Result<(), kube::Error>) {
    let Some(owner) = delivery.controller_owner_ref(&()) else { return (Vec::new(), Ok(())) };
    let (api, name) = (api(delivery, access), secret_name(delivery));
    let mut data = match api.get_opt(&name).await {
        Ok(secret) => secret.and_then(|s| s.data).unwrap_or_default(),
        Err(error) => return (Vec::new(), Err(error)),
    };
    for before in found {
        data.remove(&key(&before.id));
    }
    let mut room = MOST_BYTES.saturating_sub(data.values().map(|v| v.0.len()).sum());
    let mut left_out = Vec::new();
    for before in found {
        let text = json!(before).to_string();
        match room.checked_sub(text.len()) {
            Some(rest) => {
                room = rest;
                data.insert(key(&before.id), ByteString(text.into_bytes()));
            }
            None => left_out.push(before.id.clone()),
        }
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "windlass.dev/adopted",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "data": data,
    });
    let params = PatchParams::apply(crate::api::names::FIELD_MANAGER).force();
    (left_out, api.patch(&name, &params, &Patch::Apply(secret)).await.map(|_| ()))
}

/// What adopted objects were before. Errors: the Secret could not be read; nothing is known then, and nothing should be
/// released.
pub async fn kept(delivery: &Delivery, access: &Access) -> Result<Befores, kube::Error> {
    let secret = api(delivery, access).get_opt(&secret_name(delivery)).await?;
    let data = secret.and_then(|s| s.data).unwrap_or_default();
    let read = data.into_values().filter_map(|text| serde_json::from_slice::<Before>(&text.0).ok());
    Ok(read.map(|before| (before.id.clone(), before)).collect())
}

/// What an object was before.
pub fn of<'b>(befores: &'b Befores, id: &ObjectId) -> Option<&'b Before> {
    befores.get(&id.to_string())
}

/// A revision is good: what it adopted stays, and what that was before is not needed any more.
pub async fn forget(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) {
    let adopted = status.inventory.iter().any(|e| e.origin == EntryOrigin::Adopted);
    if status.bake.is_some() || memory.nothing_adopted || !adopted {
        return;
    }
    fault::place(|| "before forgetting adopted values".into());
    let gone = api(scope.delivery, &scope.access)
        .delete(&secret_name(scope.delivery), &DeleteParams::default())
        .await;
    fault::place(|| "after forgetting adopted values".into());
    match gone {
        Ok(_) => memory.nothing_adopted = true,
        Err(kube::Error::Api(error)) if error.code == 404 => memory.nothing_adopted = true,
        // It is in nobody's way.
        Err(error) => tracing::debug!(%error, "what adopted objects were before is still kept"),
    }
}
