//! What a rollback leaves, and a first revision that is removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::tests::World;
use super::*;
use crate::api::delivery::{EntryOrigin, Phase};

fn precious(name: &str) -> InventoryEntry {
    InventoryEntry {
        kind: "PersistentVolumeClaim".into(),
        uid: Some("u".into()),
        ..InventoryEntry {
            group: String::new(),
            version: "v1".into(),
            kind: String::new(),
            namespace: "shop".into(),
            name: name.into(),
            uid: None,
            origin: EntryOrigin::Created,
            applied: String::new(),
            digest: String::new(),
            prune: None,
            kept: false,
            stale: true,
            settled_by: None,
            unfinished: false,
            candidate: false,
            config: None,
            replicas: None,
            wave: 0,
        }
    }
}

#[test]
fn what_holds_data_is_listed_before_the_first_write_and_told_at_the_end() {
    let mut world = World::deployed(&["web"]);
    world.state.inventory.push(precious("data"));
    world.state.inventory.push(InventoryEntry { origin: EntryOrigin::Adopted, ..precious("theirs") });
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.seen.except =
        vec![Exception { object: "PersistentVolumeClaim shop/old".into(), message: "stays at 2Gi".into() }];
    while !world.applied.ends_with(&["a".into()]) || world.applied.len() < 3 {
        world.round();
    }
    let listed: Vec<_> = world.state.except.iter().map(|e| e.object.clone()).collect();
    assert_eq!(listed, ["PersistentVolumeClaim shop/data", "PersistentVolumeClaim shop/old"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.state.history[0].except.len(), 2);
    let told = world.notices.iter().find(|n| n.reason == "RolledBackExcept").unwrap();
    assert!(told.warning && told.message.contains("shop/data"), "{told:?}");
    let written =
        status::status(&world.spec, &world.state, &world.seen, &DeliveryStatus::default(), None, world.now);
    assert_eq!(written.rolled_back_except.len(), 2);
    // The next good revision has put an end to it.
    world.seen.except.clear();
    world.push("c", &["web"]);
    world.settle();
    assert!(world.state.except.is_empty());
}

#[test]
fn a_first_revision_that_fails_is_removed_where_that_is_asked_for() {
    let mut world = World::new();
    world.spec.first_revision = FirstRevision::Remove;
    world.broken.insert("a".into());
    world.push("a", &["web", "map"]);
    world.settle();
    assert_eq!((world.phase(), world.runs().len()), (Phase::Held, 0));
    assert!(world.state.effective.is_none() && world.state.inventory.is_empty());
    world.pass(10_000);
    assert_eq!(world.applied, ["a"], "it is held");
    world.push("b", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
}

#[test]
fn its_removal_survives_a_crash_and_is_overtaken_by_a_newer_commit() {
    let mut world = World::new();
    world.spec.first_revision = FirstRevision::Remove;
    world.slow.insert("a".into());
    world.push("a", &["web", "map"]);
    world.settle();
    world.now += SignedDuration::from_secs(301);
    let decision = next(&world.spec, &world.state, &world.seen, world.now);
    world.state = decision.state;
    assert_eq!(world.phase(), Phase::RollingBack);
    world.crash();
    let mut other = World::new();
    std::mem::swap(&mut other.state, &mut world.state);
    world.state = other.state.clone();
    world.settle();
    assert_eq!((world.phase(), world.runs().len()), (Phase::Held, 0));

    world.state = other.state;
    world.push("b", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.state.held, None);
}
