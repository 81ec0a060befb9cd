//! A revision that was healthy is looked after for as long as the removal of what left Git takes: a finalizer that nobody takes
//! off may hold that up for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::tests::{World, problem};
use crate::api::delivery::{Phase, RollbackMode, Step};

/// `b` is healthy, and what left Git with it is held: `old` by a finalizer, while `older` is gone.
fn stuck() -> World {
    let mut world = World::deployed(&["web", "old", "older"]);
    world.stuck.insert("old".into());
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!(step(&world), Some(Step::Pruning));
    world.pass(3600);
    assert_eq!((step(&world), world.phase()), (Some(Step::Pruning), Phase::Waiting));
    assert_eq!(world.runs(), ["new=b", "old=a", "web=b"]);
    world
}

fn step(world: &World) -> Option<Step> {
    world.state.attempt.as_ref().map(|a| a.step)
}

fn told(world: &World, reason: &str) -> usize {
    world.notices.iter().filter(|n| n.reason == reason).count()
}

#[test]
fn a_revision_that_breaks_while_its_prune_is_stuck_is_rolled_back_at_once_and_held() {
    let mut world = stuck();
    world.broken.insert("b".into());
    let now = world.now;
    world.settle();
    assert_eq!((now, world.phase()), (world.now, Phase::Held), "nothing is waited for");
    // What was removed is back, and what the commit brought is not.
    assert_eq!(world.runs(), ["old=a", "older=a", "web=a"]);
    assert_eq!((told(&world, "RollingBack"), told(&world, "RolledBack")), (1, 1), "{:?}", world.notices);
    assert!(world.state.inventory.iter().all(|e| !e.stale));
}

#[test]
fn what_is_only_not_healthy_or_has_another_cause_is_not_held_against_it() {
    let mut world = stuck();
    world.slow.insert("b".into());
    world.pass(3600);
    assert_eq!((step(&world), told(&world, "RollingBack")), (Some(Step::Pruning), 0));
    world.broken.insert("b".into());
    world.seen.disturbed = Some(problem("Disrupted"));
    world.pass(3600);
    assert_eq!((step(&world), told(&world, "RollingBack")), (Some(Step::Pruning), 0));
    world.seen.disturbed = None;
    world.seen.pods_unseen = true;
    world.pass(3600);
    assert_eq!((step(&world), told(&world, "RollingBack")), (Some(Step::Pruning), 0));
    // Once the finalizer lets go it is deployed.
    world.seen.pods_unseen = false;
    world.broken.clear();
    world.slow.clear();
    world.stuck.clear();
    world.pass(3600);
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["new=b".to_owned(), "web=b".into()]));
}

#[test]
fn what_was_removed_in_the_moment_in_which_it_broke_is_known_to_be_gone() {
    let mut world = World::deployed(&["web", "old"]);
    world.push("b", &["web"]);
    while world.seen.pruned.is_none() {
        world.round();
    }
    world.broken.insert("b".into());
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".into()]));
}

#[test]
fn with_rollback_off_it_failed_and_is_deployed_when_it_heals() {
    let mut world = stuck();
    world.spec.rollback = RollbackMode::Off;
    world.broken.insert("b".into());
    world.pass(10);
    assert_eq!((world.phase(), told(&world, "Failed")), (Phase::Failed, 1));
    world.broken.clear();
    world.stuck.clear();
    world.pass(10);
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["new=b".to_owned(), "web=b".into()]));
}

#[test]
fn a_rollback_that_breaks_while_its_prune_is_stuck_failed_and_goes_on_with_both() {
    let mut world = World::deployed(&["web"]);
    world.broken.insert("b".into());
    world.stuck.insert("new".into());
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!(step(&world), Some(Step::Pruning));
    assert_eq!(told(&world, "RollbackFailed"), 0);
    world.broken.insert("a".into());
    world.settle();
    assert_eq!((world.phase(), told(&world, "RollbackFailed")), (Phase::RollbackFailed, 1));
    world.settle();
    assert_eq!(told(&world, "RollbackFailed"), 1, "told once for each try");
    // It heals: it is back, and what the bad commit made is removed still.
    world.broken.remove("a");
    world.pass(3600);
    assert_eq!(step(&world), Some(Step::Pruning));
    world.stuck.clear();
    world.pass(3600);
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=a".to_owned()]));
}

#[test]
fn a_newer_commit_gets_through_a_prune_that_is_stuck() {
    let mut world = stuck();
    world.push("c", &["web"]);
    world.settle();
    assert_eq!(world.runs(), ["old=a", "web=c"]);
    world.broken.insert("c".into());
    world.settle();
    // What was good before `b` is good still: `b` never came to its end.
    assert_eq!((world.phase(), world.runs()[2].as_str()), (Phase::Held, "web=a"));
}
