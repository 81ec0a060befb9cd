//! A Delivery with more objects than fit into one object of etcd: its inventory is kept in several, and nothing changes
//! but that.

use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map};
use serde_json::json;
use windlass::api::delivery::Phase;

/// Old shards are removed after the status that does not name them any more is written.
pub async fn shards_are(world: &World, wanted: &[String]) {
    wait_until("the shards that the status names are there, and no others", LIMIT, || async {
        let there = world.names("windlass.dev/v1alpha1", "inventoryshards").await;
        if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

#[tokio::test]
async fn what_it_owns_is_known_after_a_restart_and_is_pruned() {
    let mut world = World::stopped("shards").await;
    world.arguments = vec!["--inventory-shard-size".into(), "3".into()];
    world.start();
    let files: Vec<(String, String)> =
        (0..8).map(|i| (format!("shop/map-{i}.yaml"), config_map(&format!("map-{i}"), "1"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(f, c)| (f.as_str(), c.as_str())).collect();
    let first = world.commit("Eight objects", &files);
    world.deliver("shop", json!({})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &first).await;
    let status = delivery.status.unwrap();
    assert!(status.inventory.is_empty());
    let mut named = status.inventory_shards.clone();
    named.sort();
    assert_eq!(named.len(), 3);
    shards_are(&world, &named).await;

    world.restart().await;
    let second = world
        .commit("Five objects", &[("shop/map-0.yaml", ""), ("shop/map-4.yaml", ""), ("shop/map-7.yaml", "")]);
    let delivery = world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(world.names("v1", "configmaps").await, ["map-1", "map-2", "map-3", "map-5", "map-6"]);
    let mut named = delivery.status.unwrap().inventory_shards;
    named.sort();
    assert_eq!(named.len(), 2);
    shards_are(&world, &named).await;

    let third = world
        .commit("Two objects", &[("shop/map-1.yaml", ""), ("shop/map-2.yaml", ""), ("shop/map-3.yaml", "")]);
    let delivery = world.wait_for("shop", Phase::Ready, &third).await;
    let status = delivery.status.unwrap();
    assert_eq!((status.inventory.len(), status.inventory_shards.len()), (2, 0));
    shards_are(&world, &[]).await;
}
