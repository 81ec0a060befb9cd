//! `InventoryShard`: a part of a large Delivery's inventory.

use super::delivery::InventoryEntry;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A part of the inventory of a Delivery with many objects, which would not fit into its status. Owned by the Delivery,
/// named by its content, never changed: a status names the shards that belong to it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "InventoryShard",
    plural = "inventoryshards",
    category = "windlass",
    namespaced,
    doc = "A part of the inventory of a Delivery with many objects. Made and removed by Windlass; not to be edited.",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct InventoryShardSpec {
    /// The objects.
    #[serde(default)]
    pub entries: Vec<InventoryEntry>,
}
