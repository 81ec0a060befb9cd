//! The daemon is killed around what it keeps of a Delivery besides its status: the shards of a large inventory, and the finalizer
//! that keeps the Delivery until its objects are gone. Nothing is forgotten, and nothing is left behind.

use crate::a_large_delivery_keeps_its_inventory::shards_are;
use crate::support::daemon::{World, config_map};
use crate::the_daemon_dies_at_every_step::{arm, around, at_each, dies_and_rises, outcomes};
use kube::ResourceExt;
use serde_json::json;
use std::fs;
use windlass::api::delivery::{Outcome, Phase};
use windlass::api::names::FINALIZER;
use windlass::source::{CommitId, Mirror, RemoteUrl};

/// A Delivery of eight objects, three to a shard.
async fn large(world: &mut World) {
    world.arguments = vec!["--inventory-shard-size".into(), "3".into()];
    world.start();
    let files: Vec<(String, String)> =
        (0..8).map(|n| (format!("shop/{n}.yaml"), config_map(&format!("map-{n}"), "1"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let first = world.commit("Eight objects", &files);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
}

async fn a_change_of_a_large_inventory(mut world: World, place: String) {
    large(&mut world).await;
    arm(&world, &place);
    let (new, changed) = (config_map("map-8", "1"), config_map("map-1", "2"));
    let second = world.commit(
        "Others",
        &[("shop/0.yaml", ""), ("shop/4.yaml", ""), ("shop/1.yaml", &changed), ("shop/8.yaml", &new)],
    );
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Ready, &second).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed, Outcome::Deployed], "{place}");
    let all = ["map-1", "map-2", "map-3", "map-5", "map-6", "map-7", "map-8"];
    assert_eq!(world.names("v1", "configmaps").await, all, "{place}: what left Git was known, and is gone");
    let mut named = status.inventory_shards;
    named.sort();
    assert_eq!(named.len(), 3, "{place}");
    shards_are(&world, &named).await;
}

#[tokio::test]
async fn while_a_large_inventory_is_written() {
    let places = ["amid shards", "before old shards go", "amid old shards"];
    at_each(&places, a_change_of_a_large_inventory).await;
}

/// The commits that the mirror keeps for Deliveries.
fn kept(world: &World) -> Vec<(String, CommitId)> {
    let url = RemoteUrl::parse(&world.repo.path().to_string_lossy(), true).unwrap();
    Mirror::open(&world.file("cache"), url).unwrap().kept().unwrap()
}

async fn a_deletion_of_a_large_inventory(mut world: World, place: String) {
    large(&mut world).await;
    arm(&world, &place);
    assert!(!kept(&world).is_empty(), "{place}");
    // Nobody makes it anew.
    world.repository(json!({"deliveries": []})).await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    dies_and_rises(&mut world, &place).await;
    world.wait_gone("shop").await;
    assert!(world.names("v1", "configmaps").await.is_empty(), "{place}");
    shards_are(&world, &[]).await;
    assert!(kept(&world).is_empty(), "{place}: the mirror keeps nothing for it");
}

#[tokio::test]
async fn while_a_large_inventory_is_removed() {
    let places = around(
        &["RemoveFinalizer"],
        &["amid RemoveFinalizer", "amid removals", "before old shards go", "amid old shards"],
    );
    at_each(&places, a_deletion_of_a_large_inventory).await;
}

/// One that a person makes: those of a Repository have it from the beginning.
async fn made(world: &mut World, place: &str) -> String {
    arm(world, place);
    world.start();
    let commit = world.commit("It", &[("shop/it.yaml", &config_map("it", "1"))]);
    world.repository(json!({})).await;
    world.deliver_by_hand("shop", "shop", json!({})).await;
    commit
}

async fn a_delivery_that_is_new(mut world: World, place: String) {
    let commit = made(&mut world, &place).await;
    dies_and_rises(&mut world, &place).await;
    let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(delivery.finalizers(), [FINALIZER], "{place}");
}

async fn a_new_delivery_that_is_deleted_meanwhile(mut world: World, place: String) {
    made(&mut world, &place).await;
    world.wait_ended(&format!("the daemon dies {place}")).await;
    world.delete("windlass.dev/v1alpha1", "deliveries", "shop").await;
    fs::remove_file(world.file("place")).unwrap();
    world.give_away().await;
    world.start();
    world.wait_gone("shop").await;
    assert!(world.names("v1", "configmaps").await.is_empty(), "{place}");
}

#[tokio::test]
async fn around_the_finalizer_of_a_new_delivery() {
    let places = around(&["finalizer"], &[]);
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    at_each(&places, a_delivery_that_is_new).await;
    at_each(&places, a_new_delivery_that_is_deleted_meanwhile).await;
}
