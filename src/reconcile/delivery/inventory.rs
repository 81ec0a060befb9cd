//! The inventory of a Delivery with many objects: kept in shards, since one object in etcd holds about 1.5 MB.
//!
//! A shard is named by its content and never changed. The shards of a status are written before the status that names
//! them, and those that no status names any more are removed after; a crash in between leaves a shard too many, which
//! goes with the next status that is written, or with the Delivery.

use super::work::Memory;
use crate::api::delivery::InventoryEntry;
use crate::api::inventory_shard::{InventoryShard, InventoryShardSpec};
use crate::api::{Delivery, DeliveryStatus, names};
use crate::core::digest;
use crate::reconcile::fault;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Entries that stand in the status itself, and in one shard: some 350 bytes each.
pub const SHARD: usize = 1000;

/// Shards by name, as far as they are known.
pub type Shards = BTreeMap<String, Vec<InventoryEntry>>;

fn api(client: &kube::Client, delivery: &Delivery) -> Api<InventoryShard> {
    Api::namespaced(client.clone(), &delivery.namespace().unwrap_or_default())
}

/// Puts the entries of its shards into a Delivery's status, from what is known or read from the cluster. Without one of them
/// nothing must be done: what a Delivery owns would be forgotten.
pub async fn complete(
    client: &kube::Client,
    delivery: &mut Delivery,
    known: &mut Shards,
) -> Result<(), kube::Error> {
    let api = api(client, delivery);
    let Some(status) = &mut delivery.status else { return Ok(()) };
    known.retain(|name, _| status.inventory_shards.contains(name));
    if status.inventory_shards.is_empty() || !status.inventory.is_empty() {
        return Ok(());
    }
    let mut all = Vec::new();
    for name in &status.inventory_shards {
        if !known.contains_key(name) {
            known.insert(name.clone(), api.get(name).await?.spec.entries);
        }
        all.extend(known.get(name).into_iter().flatten().cloned());
    }
    status.inventory = all;
    Ok(())
}

/// Writes the shards that a status needs, and answers the status as it is to be written: with the names of its shards
/// instead of its entries when there are more than `size`.
pub async fn split(
    client: &kube::Client,
    delivery: &Delivery,
    mut status: DeliveryStatus,
    memory: &mut Memory,
    size: usize,
) -> Result<DeliveryStatus, kube::Error> {
    status.inventory_shards.clear();
    if status.inventory.len() <= size {
        return Ok(status);
    }
    let api = api(client, delivery);
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    for entries in std::mem::take(&mut status.inventory).chunks(size.max(1)) {
        let spec = InventoryShardSpec { entries: entries.to_vec() };
        let short: String = delivery.name_any().chars().take(200).collect();
        let name = format!("{short}-{}", &digest::of_value(&json!(spec))[..16]);
        if !memory.shards.contains_key(&name) {
            let mut shard = InventoryShard::new(&name, spec);
            shard.metadata.owner_references = delivery.controller_owner_ref(&()).map(|owner| vec![owner]);
            api.patch(&name, &params, &Patch::Apply(json!(shard))).await?;
            fault::place(|| "amid shards".into());
            memory.shards.insert(name.clone(), entries.to_vec());
        }
        status.inventory_shards.push(name);
    }
    Ok(status)
}

/// Removes the shards that a status named and its successor, which was written just now, does not. The first time also those
/// that an earlier life of the daemon left: a status that was decided before this one cannot be written any more, so nothing
/// will ever name them.
pub async fn tidy(client: &kube::Client, delivery: &Delivery, before: &[String], memory: &mut Memory) {
    let after = delivery.status.as_ref().map_or(&[][..], |s| &s.inventory_shards);
    if before.is_empty() && after.is_empty() {
        return;
    }
    fault::place(|| "before old shards go".into());
    let mut old: BTreeSet<String> = before.iter().cloned().collect();
    if !memory.shards_tidied {
        match left(client, delivery).await {
            Ok(left) => {
                old.extend(left);
                memory.shards_tidied = true;
            }
            Err(error) => tracing::debug!(%error, "the shards of the inventory could not be listed"),
        }
    }
    for name in old.iter().filter(|name| !after.contains(name)) {
        memory.shards.remove(name);
        if let Err(error) = api(client, delivery).delete(name, &DeleteParams::default()).await {
            tracing::debug!(shard = %name, %error, "an old shard of the inventory was not removed");
        }
        fault::place(|| "amid old shards".into());
    }
}

/// The shards that a Delivery has.
async fn left(client: &kube::Client, delivery: &Delivery) -> Result<Vec<String>, kube::Error> {
    let all = api(client, delivery).list_metadata(&ListParams::default()).await?;
    let is_its =
        |owners: &[OwnerReference]| owners.iter().any(|o| Some(&o.uid) == delivery.metadata.uid.as_ref());
    Ok(all
        .into_iter()
        .filter(|shard| is_its(shard.owner_references()))
        .map(|shard| shard.name_any())
        .collect())
}
