//! A revision that loses its health after it was good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::tests::{World, problem, revision};
use super::*;
use crate::api::delivery::{Outcome, Phase};

fn baking() -> World {
    let mut world = World::new();
    world.spec.bake = SignedDuration::from_secs(600);
    world.push("a", &["web", "old"]);
    world.settle();
    assert!(world.state.bake.is_none(), "there is nothing to go back to");
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["new=b".to_owned(), "web=b".to_owned()]));
    assert_eq!(world.state.bake.as_ref().unwrap().good, revision("a"));
    world
}

#[test]
fn what_breaks_while_it_is_watched_goes_back_whole_and_is_held() {
    let mut world = baking();
    world.pass(500);
    world.crash();
    world.broken.insert("b".into());
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".to_owned()]));
    assert_eq!(world.state.effective, Some(revision("a")));
    assert_eq!(world.state.held.as_ref().unwrap().revision, revision("b"));
    assert!(world.state.bake.is_none());
    world.broken.clear();
    world.pass(100_000);
    assert_eq!(world.applied, ["a", "b", "a"]);
}

#[test]
fn what_breaks_after_its_time_stays() {
    let mut world = baking();
    world.pass(601);
    assert!(world.state.bake.is_none());
    world.broken.insert("b".into());
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.applied, ["a", "b"]);
}

#[test]
fn what_is_only_not_healthy_gets_time_to_recover() {
    let mut world = baking();
    world.slow.insert("b".into());
    world.settle();
    world.pass(299);
    assert_eq!(world.phase(), Phase::Ready);
    world.slow.clear();
    world.pass(10);
    world.slow.insert("b".into());
    world.settle();
    // Time alone does not end the watch: its 600 seconds are over in the middle of this.
    world.pass(299);
    assert_eq!((world.phase(), world.state.bake.is_some()), (Phase::Ready, true));
    world.pass(2);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.state.held.as_ref().unwrap().problem.reason, "HealthLost");
}

#[test]
fn its_end_waits_until_health_was_seen() {
    let mut world = baking();
    world.now += SignedDuration::from_secs(10_000);
    world.seen.health = Health::Unknown;
    let decision = next(&world.spec, &world.state, &world.seen, world.now);
    assert!(decision.state.bake.is_some());
    world.broken.insert("b".into());
    world.settle();
    assert_eq!(world.phase(), Phase::Held, "it broke while nobody looked");
}

#[test]
fn a_lost_node_is_no_reason_however_long_it_is_away() {
    let mut world = baking();
    world.broken.insert("b".into());
    world.seen.disturbed = Some(problem("Disturbed"));
    world.settle();
    world.pass(5_000);
    let bake = world.state.bake.clone().unwrap();
    assert_eq!((bake.lost_at, bake.problem.unwrap().reason.as_str()), (None, "Disturbed"));
    world.broken.clear();
    world.seen.disturbed = None;
    world.settle();
    assert_eq!((world.phase(), world.state.bake.is_none()), (Phase::Ready, true));
    assert_eq!(world.applied, ["a", "b"]);
}

#[test]
fn before_its_pods_are_seen_a_workload_is_not_believed() {
    let mut world = baking();
    world.crash();
    world.broken.insert("b".into());
    world.seen.pods_unseen = true;
    world.settle();
    world.pass(5_000);
    let bake = world.state.bake.clone().unwrap();
    assert_eq!((world.phase(), bake.lost_at), (Phase::Ready, None));
    // They are seen, and tell of a lost node; or of nothing.
    world.seen.pods_unseen = false;
    world.seen.disturbed = Some(problem("Disrupted"));
    world.settle();
    assert_eq!((world.phase(), world.state.bake.is_some()), (Phase::Ready, true));
    world.seen.disturbed = None;
    world.settle();
    assert_eq!(world.phase(), Phase::Held);
}

#[test]
fn a_deadline_that_passed_while_the_node_was_lost_gets_time_for_the_pod_that_replaces_the_lost_one() {
    let mut world = baking();
    let exceeded =
        Observation { health: Health::Broken(problem("ProgressDeadlineExceeded")), ..world.seen.clone() };
    let decision = next(&world.spec, &world.state, &exceeded, world.now);
    assert!(decision.state.attempt.is_none() && decision.state.bake.as_ref().unwrap().lost_at.is_some());
    let later = world.now + SignedDuration::from_secs(301);
    let decision = next(&world.spec, &decision.state, &exceeded, later);
    assert_eq!(decision.state.held.unwrap().revision, revision("b"), "and no more than that");
    world.settle();
}

#[test]
fn a_newer_commit_takes_its_place() {
    let mut world = baking();
    world.push("c", &["web"]);
    world.settle();
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.state.bake.as_ref().unwrap().good, revision("b"));
    world.broken.insert("c".into());
    world.settle();
    assert_eq!(world.runs(), ["new=b", "web=b"]);
}

#[test]
fn what_was_losing_its_health_is_not_gone_back_to() {
    let mut world = baking();
    world.slow.insert("b".into());
    world.settle();
    world.broken.insert("c".into());
    world.push("c", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".to_owned()]));
    let outcomes: Vec<_> = world.state.history.iter().take(3).map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Restored, Outcome::RolledBack, Outcome::Superseded]);
}

#[test]
fn it_is_not_done_with_rollback_off_and_ends_when_it_is_turned_off() {
    let mut world = baking();
    world.spec.rollback = RollbackMode::Off;
    world.broken.insert("b".into());
    world.settle();
    assert_eq!((world.phase(), world.state.bake.is_none()), (Phase::Ready, true));
}

#[test]
fn settings_that_break_it_later_are_taken_back_too() {
    let with = |settings: &str| Revision { settings: settings.into(), ..revision("b") };
    let mut world = baking();
    world.pass(601);
    world.seen.target = Target::Known(with("s2"));
    world.settle();
    assert_eq!(world.state.bake.as_ref().unwrap().good, revision("b"));
    let bake = world.state.bake.clone().unwrap();
    world.broken.insert("b".into());
    let decision = next(
        &world.spec,
        &world.state,
        &Observation { health: Health::Broken(problem("CrashLoopBackOff")), ..world.seen.clone() },
        world.now,
    );
    assert_eq!(decision.state.attempt.unwrap().revision, bake.good);
    assert_eq!(decision.state.held.unwrap().revision, with("s2"));
}

#[test]
fn a_revert_is_made_once_for_each_held_revision() {
    let mut world = World::deployed(&["web"]);
    world.spec.rollback = RollbackMode::Revert;
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    assert_eq!((world.phase(), world.reverts.len()), (Phase::Held, 1));
    assert_eq!(world.state.held.as_ref().unwrap().revert.as_ref().unwrap().branch, "main");
    world.crash();
    world.pass(100_000);
    assert_eq!(world.reverts, ["b"]);
    // The revert arrives: the same tree as before.
    let mut reverted = revision("a");
    reverted.commit = "f".repeat(40);
    world.seen.target = Target::Known(reverted);
    world.settle();
    assert_eq!((world.phase(), world.applied.len()), (Phase::Ready, 3));
    assert!(world.state.held.is_none());
}

#[test]
fn a_revert_that_is_not_allowed_is_told_once_and_tried_more_and_more_seldom() {
    let mut world = World::deployed(&["web"]);
    world.spec.rollback = RollbackMode::Revert;
    world.revert = Err(Refusal { problem: problem("RevertForbidden"), transient: false });
    world.broken.insert("b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(3600);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.notices.iter().filter(|n| n.reason == "RevertForbidden").count(), 1);
    assert!((3..=12).contains(&world.reverts.len()), "{} tries", world.reverts.len());
    world.revert = Ok(("main".into(), "f".repeat(40)));
    world.pass(601);
    assert!(world.state.held.as_ref().unwrap().revert.as_ref().unwrap().problem.is_none());
}

#[test]
fn what_a_person_took_back_is_left_to_them_in_git() {
    let mut world = World::deployed(&["web"]);
    world.spec.rollback = RollbackMode::Revert;
    world.push("b", &["web"]);
    world.settle();
    world.seen.rollback = Some(revision("a").commit);
    world.settle();
    assert_eq!((world.phase(), world.reverts.len()), (Phase::Held, 0));
}
