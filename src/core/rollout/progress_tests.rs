//! What a rollout promises, in the small world of the machine's tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::steps::Steps;
use super::tests::{CANDIDATE, World, problem};
use super::*;
use crate::api::analysis::Outcome as Outcome_;
use crate::api::delivery::{Outcome, Phase};
use crate::api::rollout::{RolloutPolicy, Size, Stage};
use crate::core::analysis::{self, Judged};
use proptest::prelude::*;
use proptest::strategy::Strategy;
use serde_json::json;

/// A world whose revision `a` runs, with a canary of 10 and 50 percent.
pub(super) fn canary() -> World {
    let steps = json!([{"weight": 10}, {"pause": "1m"}, {"weight": 50}, {"pause": {}}]);
    rolling(
        json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": steps}),
    )
}

pub(super) fn rolling(policy: serde_json::Value) -> World {
    let mut world = World::deployed(&["web", "old"]);
    let policy: RolloutPolicy = serde_json::from_value(policy).unwrap();
    // Proxies of this world know pods at once.
    let steps = Steps::new(&policy).unwrap().map(|steps| Steps { known: SignedDuration::ZERO, ..steps });
    world.spec.rollout = steps.map(std::sync::Arc::new);
    world
}

pub(super) fn ask(world: &mut World, verb: &str, commit: &str) {
    let at = world.now;
    world.seen.rollout = Some(format!("{verb}:{commit}:{at}:ada"));
    world.settle();
}

#[test]
fn a_good_revision_goes_through_its_steps_and_is_promoted() {
    let mut world = canary();
    world.push("b", &["web", "new"]);
    world.settle();
    assert_eq!(world.phase(), Phase::RollingOut);
    assert_eq!(world.runs(), ["old=a", "web=a", "web-canary=b"], "nothing else of it is there yet");
    assert_eq!(world.weight, 10);
    world.pass(64);
    assert_eq!(world.weight, 10, "the pause counts from when the weight was in effect");
    world.pass(10);
    assert_eq!((world.weight, world.phase()), (50, Phase::Paused));
    world.pass(100_000);
    assert_eq!((world.weight, world.phase()), (50, Phase::Paused), "it waits for a person");
    ask(&mut world, "promote", "b0");
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.runs(), ["new=b", "web=b"]);
    assert_eq!(world.weights, [10, 50, 100, 0]);
    assert!(world.state.inventory.iter().all(|e| !e.stale && !e.candidate));
    assert_eq!(world.state.history[0].outcome, Outcome::Deployed);
}

#[test]
fn a_candidate_that_breaks_is_taken_back_by_one_change_and_held() {
    let mut world = canary();
    world.push("b", &["web", "new"]);
    world.settle();
    world.pass(10);
    world.ill.insert("web-canary=b".into());
    world.settle();
    assert_eq!(world.weight, 0, "traffic goes first");
    assert!(world.cluster.contains_key(CANDIDATE), "and the pods stay until nothing can reach them");
    world.pass(10);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.runs(), ["old=a", "web=a"]);
    assert_eq!(world.weights, [10, 0]);
    assert_eq!(world.state.held.as_ref().unwrap().revision.inputs, "b");
}

#[test]
fn a_candidate_that_never_starts_gets_no_traffic_at_all() {
    for broken in [true, false] {
        let mut world = canary();
        match broken {
            true => world.ill.insert("web-canary=b".into()),
            false => world.slow.insert("b".into()),
        };
        world.push("b", &["web"]);
        world.settle();
        world.pass(320);
        assert_eq!(world.phase(), Phase::Held);
        assert_eq!(world.runs(), ["old=a", "web=a"]);
        assert!(world.weights.is_empty());
    }
}

#[test]
fn stable_that_is_ill_by_itself_freezes_and_a_person_may_promote() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world.ill.insert("web=a".into());
    world.pass(100_000);
    assert_eq!((world.weight, world.phase()), (10, Phase::Paused), "nothing moves, nothing is rolled back");
    ask(&mut world, "promote-full", "b");
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.runs(), ["web=b"]);

    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.ill.insert("web=a".into());
    world.pass(1000);
    world.ill.clear();
    // That it is well is seen as it happens.
    world.settle();
    world.pass(100);
    assert_eq!((world.weight, world.phase()), (50, Phase::Paused), "it goes on when stable is well again");
}

#[test]
fn stable_that_lacks_pods_for_long_freezes_as_well_and_is_not_held_against_the_candidate() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world.slow.insert("a".into());
    world.pass(100_000);
    assert_eq!((world.weight, world.phase()), (10, Phase::Paused));
    assert!(world.state.held.is_none());
    assert!(world.notices.iter().any(|n| n.reason == "StableUnhealthy"), "{:?}", world.notices);
    world.slow.clear();
    world.settle();
    world.pass(100);
    assert_eq!((world.weight, world.phase()), (50, Phase::Paused), "it goes on when stable is whole again");
    // A route that is not accepted in its time is another matter: the rollout wrote it.
    for (object, frozen) in [("Deployment shop/web", true), ("HTTPRoute shop/web", false)] {
        let waits = Health::Progressing(Problem { object: object.into(), ..problem("Progressing") });
        let mut seen = Observation {
            variants: Variants { named: waits, candidate: Health::Healthy, unready: None },
            ..world.seen.clone()
        };
        seen.health = seen.variants.named.clone();
        let mut state = world.state.clone();
        let mut now = world.now;
        for _ in 0..3 {
            let decision = next(&world.spec, &state, &seen, now);
            let at_once = |a: &Action| matches!(a, Action::Wake(at) if *at <= now);
            assert!(!frozen || !decision.actions.iter().any(at_once), "it is not looked at again and again");
            state = decision.state;
            now += world.spec.timeout;
        }
        assert_eq!(state.held.is_none(), frozen, "{object}");
    }
}

#[test]
fn what_was_ill_before_and_is_not_changed_is_neither_waited_for_nor_held_against_a_revision() {
    for bake in [0, 3600] {
        let mut world = canary();
        world.spec.bake = SignedDuration::from_secs(bake);
        world.ill.extend(["old=a".to_owned(), "old=b".to_owned()]);
        world.settle();
        world.push("b", &["web", "old"]);
        world.settle();
        assert_eq!((world.weight, world.phase()), (10, Phase::RollingOut));
        let told = world.notices.iter().find(|n| n.reason == "UnhealthyBefore").unwrap();
        assert!(
            told.message.starts_with("Deployment shop/old was not healthy before, and main@"),
            "{told:?}"
        );
        let (status, _, message) = world.condition("Healthy");
        assert_eq!(status, "False");
        assert!(message.starts_with("Deployment shop/old"), "{message}");
        world.pass(100);
        assert_eq!((world.weight, world.phase()), (50, Phase::Paused));
        // What becomes ill meanwhile is another matter.
        world.ill.insert("web=a".into());
        world.pass(100);
        assert_eq!(
            world.state.attempt.as_ref().unwrap().rollout.as_ref().unwrap().paused.as_ref().unwrap().reason,
            "StableUnhealthy"
        );
        world.ill.remove("web=a");
        world.settle();
        ask(&mut world, "promote", "b0");
        world.pass(1200);
        assert_eq!(world.phase(), Phase::Ready);
        assert_eq!(world.state.effective.as_ref().unwrap().inputs, "b");
        assert_eq!(world.condition("Healthy").0, "False", "it is not healthy for all that");
    }
}

#[test]
fn a_candidate_grows_with_stable_before_it_gets_its_next_share() {
    let mut world = canary();
    let workload = crate::api::rollout::WorkloadRef { kind: Default::default(), name: "web".into() };
    world.sizes = vec![WorkloadSize { workload, replicas: 4, now: None }];
    world.push("b", &["web"]);
    world.settle();
    let counted =
        |world: &World| world.state.attempt.as_ref().unwrap().rollout.as_ref().unwrap().sizes[0].counted();
    world.seen.sizes = vec![Some(4)];
    world.pass(10);
    assert_eq!((world.weight, counted(&world)), (10, 4));
    // It grows in the midst of a pause, which goes on; with the next step the candidate grows first, and has its share then.
    world.seen.sizes = vec![Some(6)];
    world.pass(30);
    assert_eq!((world.weight, counted(&world)), (10, 4));
    let before = world.applied.len();
    world.pass(35);
    assert_eq!((world.weight, world.phase(), counted(&world)), (50, Phase::Paused, 6));
    assert_eq!(world.applied.len(), before + 2, "once for the size, and once for the share");
    // It does not shrink again, and one that is not seen says nothing.
    world.seen.sizes = vec![Some(5)];
    ask(&mut world, "promote", "b");
    assert_eq!(counted(&world), 6);
    world.seen.sizes = vec![None];
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.weights, [10, 50, 100, 0]);
}

#[test]
fn what_is_ill_that_a_revision_changes_is_healed_by_it_at_once() {
    let mut world = canary();
    world.ill.insert("old=a".into());
    world.concerns.insert("Deployment shop/old".into());
    world.settle();
    world.push("b", &["web", "old"]);
    world.settle();
    assert_eq!(world.runs(), ["old=b", "web=b"]);
    assert!(world.weights.is_empty());
    let told = world.notices.iter().find(|n| n.reason == "StableUnhealthy").unwrap();
    assert!(told.message.contains("Deployment shop/old"), "{told:?}");
}

#[test]
fn promotion_that_fails_puts_the_last_good_revision_back_under_the_traffic_of_the_candidate() {
    let mut world = canary();
    world.ill.insert("web=b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(100);
    ask(&mut world, "promote", "b");
    world.pass(60);
    assert_eq!(world.weights, [10, 50, 100, 0], "until stable is back traffic stays");
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.runs(), ["old=a", "web=a"]);
}

#[test]
fn a_newer_revision_takes_traffic_back_first() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    assert_eq!(world.weight, 10);
    world.push("c", &["web"]);
    world.settle();
    assert_eq!(world.weight, 0);
    world.pass(20);
    assert_eq!(world.runs(), ["old=a", "web=a", "web-canary=c"]);
    assert!(world.state.held.is_none());
    let outcomes: Vec<_> =
        world.state.history.iter().map(|h| (h.revision.inputs.as_str(), h.outcome)).collect();
    assert_eq!(outcomes[1], ("b", Outcome::Superseded));
    // One that cannot even be begun takes nothing back.
    world.refused.insert("d".into(), false);
    world.push("d", &["web"]);
    world.pass(20);
    assert_eq!(world.weight, 10);
}

#[test]
fn a_daemon_that_has_not_read_git_yet_takes_traffic_back_all_the_same_before_a_newer_revision_begins() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world.push("c", &["web"]);
    world.settle();
    let unread = Problem { reason: SOURCE_UNKNOWN.into(), ..problem("Unread") };
    let attempt = world.state.attempt.as_mut().unwrap();
    assert_eq!((attempt.goal, attempt.problem.replace(unread)), (Goal::Rollback, None));
    world.crash();
    world.settle();
    assert_eq!(world.state.attempt.as_ref().unwrap().goal, Goal::Rollback);
    world.pass(30);
    assert_eq!(world.runs(), ["old=a", "web=a", "web-canary=c"], "it is rolled out, not applied at once");
}

#[test]
fn a_newer_revision_takes_no_traffic_from_a_healthy_candidate_while_stable_is_ill() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world.ill.insert("web=a".into());
    world.pass(100);
    world.push("c", &["web"]);
    world.settle();
    assert_eq!(world.weight, 10, "its pods are those that are healthy");
    world.ill.clear();
    world.settle();
    world.pass(30);
    assert_eq!(world.runs(), ["web=c"], "stable was broken beyond doubt: the newer one may be what heals it");
}

#[test]
fn who_aborts_takes_no_traffic_from_a_healthy_candidate_while_stable_is_ill() {
    for candidate_too in [false, true] {
        let mut world = canary();
        world.push("b", &["web"]);
        world.settle();
        world.pass(10);
        world.ill.insert("web=a".into());
        world.pass(100);
        if candidate_too {
            // Not broken beyond doubt, which would have ended it.
            world.unready.insert("web-canary=b".into());
            world.settle();
        }
        ask(&mut world, "abort", "b");
        world.pass(30);
        let kept = if candidate_too { 0 } else { 10 };
        assert_eq!(world.weight, kept, "stable is ill, and the candidate as well: {candidate_too}");
        assert_eq!(world.state.held.as_ref().unwrap().problem.reason, "Aborted");
        world.ill.clear();
        world.settle();
        world.pass(200);
        assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".into()]));
        assert_eq!(world.weights, [10, 0]);
    }
}

#[test]
fn a_commit_that_returns_to_stable_ends_the_rollout() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world.push("a", &["web", "old"]);
    world.settle();
    world.pass(20);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.runs(), ["old=a", "web=a"]);
}

fn go_back_to(world: &mut World, commit: &str) {
    world.seen.rollback = Some(format!("{commit}/{}", world.now));
    world.settle();
}

fn stage(world: &World) -> Option<Stage> {
    Some(world.state.attempt.as_ref()?.rollout.as_ref()?.stage)
}

#[test]
fn a_rollback_by_hand_to_what_runs_leaves_the_candidate_as_any_other_is_left() {
    let mut world = canary();
    world.push("b", &["web", "new"]);
    world.settle();
    world.pass(10);
    go_back_to(&mut world, "a0");
    assert_eq!((world.weight, stage(&world)), (0, Some(Stage::Draining)), "by one change");
    assert_eq!(world.state.handled_rollback, world.seen.rollback);
    // The same once more changes nothing of that.
    let before = world.state.attempt.clone();
    go_back_to(&mut world, "a00");
    assert_eq!((&world.state.attempt, &world.state.handled_rollback), (&before, &world.seen.rollback));
    world.pass(20);
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".into()]));
    let held = world.state.held.clone().unwrap();
    assert_eq!((held.revision.inputs.as_str(), held.problem.reason.as_str()), ("b", "RolledBackByHand"));
    let outcomes: Vec<_> =
        world.state.history.iter().map(|h| (h.revision.inputs.as_str(), h.outcome)).collect();
    let expected = [("a", Outcome::Restored), ("b", Outcome::Superseded), ("a", Outcome::Deployed)];
    assert_eq!(outcomes, expected);
    assert_eq!(world.weights, [10, 0]);
}

#[test]
fn a_rollback_by_hand_to_an_older_revision_comes_after_the_candidate_was_left() {
    for unread in [false, true] {
        let mut world = canary();
        world.push("b", &["web"]);
        world.settle();
        ask(&mut world, "promote-full", "b");
        world.pass(60);
        assert_eq!(world.runs(), ["web=b"]);
        world.push("c", &["web"]);
        world.settle();
        world.pass(10);
        assert_eq!(world.weight, 10);
        let git = std::mem::replace(&mut world.seen.target, Target::Unknown);
        if !unread {
            world.seen.target = git.clone();
        }
        go_back_to(&mut world, "a0");
        assert_eq!((world.weight, stage(&world)), (0, Some(Stage::Draining)));
        assert_eq!(world.runs(), ["web=b", "web-canary=c"], "what runs is not touched before");
        world.crash();
        while world.cluster["web"] != "a" {
            world.round();
            assert!(world.state.attempt.is_some(), "it does not come to its end in between");
            world.now += SignedDuration::from_millis(100);
        }
        world.pass(20);
        assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".into()]));
        world.seen.target = git;
        world.pass(100);
        assert_eq!(world.state.held.as_ref().unwrap().revision.inputs, "c");
        assert_eq!(world.runs(), ["old=a", "web=a"], "what was asked for stays");
    }
}

/// `c` is rolled out over `b`, and a person asks for `a`, which ran before that.
fn leaving_for_an_older_one(remembered: usize) -> World {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    ask(&mut world, "promote-full", "b");
    world.pass(60);
    let other = world.state.history[0].clone();
    let missing = remembered.saturating_sub(world.state.history.len());
    for _ in 0..missing {
        world.state.history.insert(0, other.clone());
    }
    world.push("c", &["web"]);
    world.settle();
    world.pass(10);
    go_back_to(&mut world, "a0");
    assert_eq!((world.weight, stage(&world)), (0, Some(Stage::Draining)));
    assert_ne!(world.state.handled_rollback, world.seen.rollback, "it is not answered yet");
    world
}

#[test]
fn what_is_pushed_while_a_rollback_by_hand_waits_gets_through() {
    let mut world = leaving_for_an_older_one(0);
    assert_eq!(world.state.held.as_ref().unwrap().revision.inputs, "c");
    world.push("d", &["web"]);
    for _ in 0..10 {
        world.pass(100);
        if world.seen.rollback == world.state.handled_rollback && world.phase() == Phase::Paused {
            ask(&mut world, "promote-full", "d");
        }
    }
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=d".to_owned()]));
}

#[test]
fn what_a_person_asked_for_is_remembered_until_it_is_there() {
    let mut world = leaving_for_an_older_one(10);
    world.pass(100);
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".into()]));
    assert_eq!(world.state.history.len(), 10);
}

#[test]
fn a_newer_revision_after_a_rollback_that_failed_takes_no_traffic_from_a_healthy_candidate_before_it_is_healthy()
 {
    let mut world = canary();
    world.slow.insert("web=b".into());
    world.push("b", &["web"]);
    world.settle();
    ask(&mut world, "promote-full", "b");
    world.pass(60);
    assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Promoting)));
    // Neither gets healthy in its time, and the candidate is.
    world.slow.insert("web=a".into());
    for _ in 0..2000 {
        world.pass(1);
        if world.phase() == Phase::RollbackFailed {
            break;
        }
    }
    assert_eq!((world.phase(), world.weight), (Phase::RollbackFailed, 100));
    world.slow.insert("web=c".into());
    world.push("c", &["web", "new"]);
    world.pass(10);
    assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Restoring)));
    assert_eq!(world.runs(), ["new=c", "old=a", "web=c", "web-canary=b"]);
    // A newer one takes its place in the same way.
    world.slow.insert("web=d".into());
    world.push("d", &["web"]);
    world.pass(5);
    assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Restoring)));
    assert_eq!(world.cluster["web"], "d");
    world.slow.clear();
    world.settle();
    world.pass(60);
    assert_eq!((world.phase(), world.weight), (Phase::Ready, 0));
    assert_eq!(world.runs(), ["web=d"], "of each other one nothing is left");
}

#[test]
fn a_rollback_by_hand_in_promotion_leaves_traffic_with_the_candidate_until_stable_is_back() {
    let mut world = canary();
    world.slow.insert("web=b".into());
    world.push("b", &["web"]);
    world.settle();
    ask(&mut world, "promote-full", "b");
    world.pass(60);
    assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Promoting)));
    world.slow.insert("web=a".into());
    go_back_to(&mut world, "a0");
    world.pass(10);
    assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Restoring)));
    assert_eq!(world.cluster["web"], "a");
    // The same once more takes nothing from it either.
    go_back_to(&mut world, "a00");
    assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Restoring)));
    world.slow.clear();
    world.settle();
    world.pass(20);
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".into()]));
}

#[test]
fn a_rollback_by_hand_to_what_cannot_be_brought_back_tries_that_again_and_takes_no_traffic() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.ill.extend(["web=a".to_owned(), "web=b".to_owned()]);
    world.settle();
    ask(&mut world, "promote-full", "b");
    world.pass(30);
    assert_eq!((world.phase(), world.weight), (Phase::RollbackFailed, 100));
    world.ill.clear();
    go_back_to(&mut world, "a0");
    world.pass(20);
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["old=a".to_owned(), "web=a".into()]));
    assert_eq!(world.weights, [10, 100, 0]);
}

#[test]
fn a_rollback_by_hand_to_a_revision_that_is_held_holds_it_no_longer() {
    let mut world = canary();
    for revision in ["b", "c"] {
        world.push(revision, &["web"]);
        world.settle();
        ask(&mut world, "promote-full", revision);
        world.pass(60);
    }
    world.push("b", &["web"]);
    world.settle();
    ask(&mut world, "abort", "b");
    world.pass(20);
    assert_eq!((world.phase(), world.runs()), (Phase::Held, vec!["web=c".to_owned()]));
    go_back_to(&mut world, "b0");
    world.pass(20);
    assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=b".to_owned()]));
}

#[test]
fn a_candidate_that_is_being_removed_gets_no_traffic_again() {
    let ends: [fn(&mut World); 3] = [
        |world| world.push("c", &["web"]),
        |world| go_back_to(world, "a0"),
        |world| {
            world.ill.insert("web=b".into());
        },
    ];
    for end in ends {
        let mut world = canary();
        world.stuck.insert("old".into());
        world.push("b", &["web"]);
        world.settle();
        ask(&mut world, "promote-full", "b");
        world.pass(60);
        assert_eq!(world.runs(), ["old=a", "web=b"], "its removal is held up");
        assert_eq!(world.state.attempt.as_ref().unwrap().step, crate::api::delivery::Step::Pruning);
        let before = world.weights.clone();
        end(&mut world);
        world.settle();
        assert!(!world.cluster.contains_key(CANDIDATE) || world.weight == 0);
        world.stuck.clear();
        world.pass(20);
        assert!(!world.weights[before.len()..].contains(&100), "{:?}", world.weights);
    }
}

#[test]
fn people_pause_resume_abort_and_retry() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    ask(&mut world, "pause", "b");
    world.pass(1000);
    assert_eq!((world.weight, world.phase()), (10, Phase::Paused));
    ask(&mut world, "resume", "b");
    world.pass(100);
    assert_eq!(world.weight, 50);
    ask(&mut world, "promote", "c");
    assert!(world.notices.iter().any(|n| n.reason == "RolloutRequestRefused"), "another commit is meant");
    ask(&mut world, "abort", "b");
    world.pass(10);
    assert_eq!(world.phase(), Phase::Held);
    assert!(world.state.held.as_ref().unwrap().problem.message.contains("ada"));
    ask(&mut world, "retry", "b");
    world.pass(10);
    assert_eq!(world.weight, 10);
    ask(&mut world, "promote-full", "b");
    world.pass(30);
    assert_eq!(world.phase(), Phase::Ready);
}

#[test]
fn switched_off_in_the_middle_the_rest_is_one_step() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    world.spec.rollout = None;
    world.settle();
    world.pass(10);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.runs(), ["web=b"]);
}

#[test]
fn steps_that_are_taken_away_meanwhile_do_not_take_the_switch_along() {
    for (steps, weights) in [
        (json!([{"weight": 10}]), [10, 50, 100, 0].as_slice()),
        (json!([{"weight": 10}, {"pause": "1m"}]), &[10, 50, 100, 0]),
        (
            json!([{"weight": 5}, {"weight": 10}, {"weight": 15}, {"weight": 20}, {"weight": 60}]),
            &[10, 50, 60, 100, 0],
        ),
    ] {
        let mut world = canary();
        world.push("b", &["web"]);
        world.settle();
        world.pass(100);
        assert_eq!((world.weight, world.phase()), (50, Phase::Paused));
        let other = rolling(json!({"strategy": "Canary", "workload": {"name": "web"},
            "router": {"gatewayAPI": {"route": "web"}}, "steps": steps}));
        world.spec.rollout = other.spec.rollout;
        world.settle();
        world.pass(100);
        assert_eq!((world.phase(), world.weights.as_slice()), (Phase::Ready, weights), "{steps}");
    }
}

/// What a Delivery with this `spec.rollout` makes of an attempt.
fn spec_of(policy: serde_json::Value, attempt: serde_json::Value) -> Spec {
    let all = json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery", "metadata": {"name": "shop"},
        "spec": {"source": {"repository": "config", "path": "shop"}, "rollout": policy}, "status": {"attempt": attempt},
    });
    Spec::of(&serde_json::from_value(all).unwrap())
}

/// Policies that say nothing of a canary of `web` by a route which is under way.
fn others() -> [serde_json::Value; 5] {
    let route = json!({"gatewayAPI": {"route": "web"}});
    let of = |strategy: &str, workload: &str, router: &serde_json::Value, steps: serde_json::Value| json!({"strategy": strategy, "workload": {"name": workload}, "router": router, "steps": steps});
    [
        of("Canary", "web", &route, json!([{"weight": 20, "pause": "5m"}])),
        of("Canary", "web", &route, json!([{"pause": "soon"}, {}])),
        of("Canary", "web", &json!({"replicas": {}}), json!([{"weight": 30}])),
        of("BlueGreen", "web", &route, json!([])),
        of("Canary", "other", &route, json!([{"weight": 30}])),
    ]
}

#[test]
fn a_policy_that_is_none_of_its_own_leaves_a_rollout_where_it_is_for_a_person_to_say() {
    for policy in others() {
        let mut world = canary();
        world.push("b", &["web"]);
        world.settle();
        let own = world.spec.rollout.clone();
        let given = |world: &World| {
            let attempt = serde_json::to_value(world.state.attempt.as_ref().unwrap()).unwrap();
            spec_of(policy.clone(), attempt).rollout
        };
        assert_eq!(world.weight, 10, "{policy}");
        world.spec.rollout = given(&world);
        world.pass(1000);
        let paused = |world: &World| {
            let rollout = world.state.attempt.as_ref()?.rollout.as_ref()?;
            rollout.paused.as_ref().map(|p| p.reason.clone())
        };
        assert_eq!((world.weight, paused(&world).as_deref()), (10, Some("PolicyChanged")), "{policy}");
        // Said as it was, it goes on.
        world.spec.rollout = own;
        world.settle();
        assert_eq!(paused(&world), None, "{policy}");
        world.pass(1000);
        assert_eq!(world.weight, 50, "{policy}");
        world.spec.rollout = given(&world);
        world.pass(1000);
        assert_eq!((world.weight, paused(&world).as_deref()), (50, Some("PolicyChanged")), "{policy}");
        ask(&mut world, "promote", "b");
        world.pass(100);
        assert_eq!(world.phase(), Phase::Ready, "{policy}");
        assert_eq!(world.weights, [10, 50, 100, 0], "{policy}");
    }
}

/// A person changes the policy while the candidate is a tenth of the pods and has a tenth of the traffic.
#[test]
fn a_candidate_grows_before_it_gets_weight_also_when_the_steps_are_not_those_by_which_it_came() {
    let route = json!({"gatewayAPI": {"route": "web"}});
    let policy = |more: serde_json::Value, steps: serde_json::Value| {
        let mut policy =
            json!({"strategy": "Canary", "workload": {"name": "web"}, "router": route, "steps": steps});
        policy["candidate"] = more;
        policy
    };
    let share = json!({"size": "Share"});
    let [cannot_be_read, _, other_router, other_strategy, other_workload] = others();
    let other_steps = json!([{"weight": 60}, {"pause": "1s"}, {"pause": "1s"}]);
    let sized = policy(share.clone(), other_steps.clone());
    let fixed = policy(json!({"size": "Fixed", "replicas": 3}), other_steps);
    // It is begun by another one than what is refused with BlueGreen.
    let mut of_a_size = other_strategy.clone();
    of_a_size["candidate"] = share.clone();
    for next in [cannot_be_read, other_router, other_strategy, other_workload, of_a_size, sized, fixed] {
        let mut world =
            rolling(policy(share.clone(), json!([{"weight": 10}, {"pause": {}}, {"weight": 20}])));
        world.push("b", &["web"]);
        world.settle();
        world.pass(10);
        let layout = |world: &World| world.state.attempt.as_ref()?.rollout.as_ref().map(|r| r.layout.clone());
        let mut before = layout(&world).unwrap();
        assert_eq!((before.weight, before.size), (10, Some(Size::Percent(10))));
        let attempt = serde_json::to_value(world.state.attempt.as_ref().unwrap()).unwrap();
        world.spec.rollout = spec_of(next.clone(), attempt).rollout;
        assert!(world.spec.rollout.is_some(), "{next}: it is not switched off by that");
        world.settle();
        ask(&mut world, "promote", "b");
        for _ in 0..100 {
            if let Some(now) = layout(&world) {
                assert!(
                    now.weight <= before.weight || now.size == before.size,
                    "{next}: {before:?}, {now:?}"
                );
                before = now;
            }
            world.pass(1);
        }
        assert_eq!((world.phase(), world.weights.contains(&100)), (Phase::Ready, true), "{next}");
    }
}

#[test]
fn what_is_past_its_steps_ends_whatever_the_policy_says() {
    for policy in others() {
        for seconds in 0..60 {
            let mut world = canary();
            world.push("b", &["web"]);
            world.settle();
            ask(&mut world, "promote-full", "b");
            world.pass(seconds);
            let Some(attempt) = world.state.attempt.as_ref().filter(|a| a.rollout.is_some()) else { break };
            let at = format!("{policy}: {:?}", attempt.rollout.as_ref().unwrap().stage);
            world.spec.rollout = spec_of(policy.clone(), serde_json::to_value(attempt).unwrap()).rollout;
            assert!(world.spec.rollout.is_some(), "{at}");
            world.pass(200);
            assert_eq!(world.phase(), Phase::Ready, "{at}");
            assert_eq!(world.weights.last(), Some(&0), "{at}");
            assert!(world.weights.contains(&100), "{at}: {:?}", world.weights);
        }
    }
}

#[test]
fn a_rollout_keeps_its_router_when_the_spec_names_another() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    let attempt = serde_json::to_value(world.state.attempt.as_ref().unwrap()).unwrap();
    let pods = json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"replicas": {}},
        "steps": [{"weight": 30}]});
    let kept = spec_of(pods.clone(), attempt).rollout.unwrap();
    assert_eq!(kept.making.router, world.spec.rollout.as_ref().unwrap().making.router);
    assert!(
        kept.all.iter().any(|planned| planned.stage == Stage::Switching),
        "its layouts are of that router, too"
    );
    let next = spec_of(pods, json!(null)).rollout.unwrap();
    assert!(next.making.router.replicas.is_some());
}

#[test]
fn a_candidate_is_made_to_its_end_as_it_was_begun() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    let begun = world.state.attempt.as_ref().unwrap().rollout.clone().unwrap();
    let other: RolloutPolicy = serde_json::from_value(json!({
        "strategy": "BlueGreen", "workloads": [{"name": "other"}], "router": {"service": {"name": "other"}},
        "settle": "7s",
    }))
    .unwrap();
    let made = Making::of(&begun).keep(&other);
    let names: Vec<_> = made.workload.iter().chain(&made.workloads).map(|w| w.name.as_str()).collect();
    assert_eq!(
        (made.strategy, names, &made.router),
        (begun.strategy.unwrap(), vec!["web"], &Some(begun.router.clone()))
    );
    assert_eq!(made.settle, other.settle, "everything else is as the spec says now");
    // Begun by a version of the daemon that did not note it.
    let noted_nothing = RolloutStatus { strategy: None, workloads: Vec::new(), ..begun };
    let made = Making::of(&noted_nothing).keep(&other);
    assert_eq!((made.strategy, &made.workloads, made.workload), (other.strategy, &other.workloads, None));
}

#[test]
fn suspended_in_the_middle_everything_stays() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.spec.suspend = true;
    let before = world.runs();
    world.pass(1000);
    assert_eq!((world.weight, world.runs()), (10, before));
    world.spec.suspend = false;
    world.settle();
    world.pass(1000);
    assert_eq!(world.weight, 50);
}

#[test]
fn what_cannot_be_brought_back_is_left_for_a_newer_revision_without_another_candidate() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.ill.extend(["web=a".to_owned(), "web=b".to_owned()]);
    world.settle();
    ask(&mut world, "promote-full", "b");
    world.pass(30);
    assert_eq!(world.phase(), Phase::RollbackFailed);
    assert_eq!(world.weight, 100, "traffic stays where pods are healthy");
    world.ill.clear();
    world.push("c", &["web"]);
    world.settle();
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.runs(), ["web=c"]);
    assert_eq!(*world.weights.last().unwrap(), 0);
}

#[test]
fn what_has_no_data_is_passed_over_only_where_that_is_asked_for_and_is_told() {
    let mut world = rolling(json!({"strategy": "Canary", "workload": {"name": "web"},
        "router": {"gatewayAPI": {"route": "web"}}, "steps": [{"weight": 10}, {"pause": "1m"}],
        "analysis": {"interval": "10s", "onNoData": "Pass", "metrics": [
            {"name": "rate", "prometheus": {"address": "http://p", "query": "up"}, "success": "result >= 0.99"}]}}));
    world.push("b", &["web"]);
    world.settle();
    measure(&mut world, Outcome_::NoData, 20);
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
    let told = world.notices.iter().filter(|n| n.reason == "NoData").count();
    assert!(told > 0, "{:?}", world.notices);
}

#[test]
fn pods_get_no_traffic_before_every_proxy_knows_them() {
    let mut world = canary();
    let mut steps = (**world.spec.rollout.as_ref().unwrap()).clone();
    steps.known = SignedDuration::from_secs(5);
    world.spec.rollout = Some(std::sync::Arc::new(steps));
    world.push("b", &["web"]);
    world.settle();
    world.pass(4);
    assert!(world.weights.is_empty());
    world.pass(2);
    assert_eq!(world.weights, [10]);
    ask(&mut world, "promote-full", "b");
    while world.cluster["web"] == "a" {
        world.pass(1);
    }
    world.pass(3);
    assert_eq!(world.weight, 100, "the new pods are not known yet");
    world.pass(20);
    assert_eq!((world.weight, world.phase()), (0, Phase::Ready));
}

#[test]
fn routes_name_the_candidate_until_nothing_reaches_it() {
    let mut world = canary();
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    ask(&mut world, "abort", "b");
    assert_eq!((world.weight, stage(&world)), (0, Some(Stage::Draining)), "by one change");
    world.pass(4);
    assert_eq!(stage(&world), Some(Stage::Draining));
    world.pass(2);
    assert_eq!(stage(&world), Some(Stage::Returning));
    // Somebody has the route name it again just then.
    world.named_again = 1;
    world.pass(6);
    assert!(world.cluster.contains_key(CANDIDATE), "nothing points at what is not there");
    world.pass(6);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.runs(), ["old=a", "web=a"]);

    // Numbers of pods name nothing.
    let mut world =
        rolling(json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"replicas": {}},
        "steps": [{"weight": 50}, {"pause": {}}]}));
    world.push("b", &["web"]);
    world.settle();
    world.pass(10);
    ask(&mut world, "abort", "b");
    assert_eq!(stage(&world), Some(Stage::Returning));
}

#[test]
fn hooks_before_traffic_run_once_and_decide() {
    use super::hooks::tests::hook;
    use crate::api::hook::HookPoint;
    let mut world = canary();
    world.hooks = vec![hook("test", &[HookPoint::BeforeTraffic])];
    world.push("b", &["web"]);
    world.settle();
    assert_eq!(world.started, ["before-traffic test b"]);
    assert!(world.weights.is_empty(), "it is not done");
    let job = world.made.iter().next().unwrap().clone();
    world.seen.hooks.jobs.insert(job, JobSeen::Succeeded("u".into()));
    world.settle();
    assert_eq!(world.weight, 10);

    let mut world = canary();
    world.hooks = vec![hook("test", &[HookPoint::BeforeTraffic])];
    world.push("b", &["web"]);
    world.settle();
    let job = world.made.iter().next().unwrap().clone();
    world.seen.hooks.jobs.insert(job, JobSeen::Failed("u".into(), problem("JobFailed")));
    world.settle();
    world.pass(10);
    assert_eq!((world.phase(), world.weights.len()), (Phase::Held, 0));
}

/// A world whose canary is measured each 10 seconds.
fn measured() -> World {
    rolling(
        json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 10}, {"analysis": {"count": 2}}],
        "analysis": {"interval": "10s", "failureLimit": 1, "metrics": [
            {"name": "rate", "prometheus": {"address": "http://p", "query": "up"}, "success": "result >= 0.99"}]}}),
    )
}

/// Lets time pass in which each measurement comes to this.
fn measure(world: &mut World, outcome: Outcome_, times: u32) {
    for _ in 0..times {
        world.pass(10);
        let Some(attempt) = world.state.attempt.clone() else { return };
        let Some(rollout) = attempt.rollout else { return };
        let steps = world.spec.rollout.clone().unwrap();
        let Some(measuring) = measuring(&attempt.revision, &rollout, &steps) else { continue };
        let before = world.seen.analysis.take().filter(|seen| seen.key == measuring.key);
        let runs =
            analysis::runs_of(&measuring.policy, before.as_ref().map_or(&rollout.analysis, |b| &b.runs));
        let settings = analysis::settings(&measuring.policy, &measuring.policy.metrics[0]);
        let judged = Judged { outcome, value: None, message: "it is so".into() };
        let runs = vec![analysis::step(&settings, &runs[0], &judged, world.now)];
        world.seen.analysis = Some(AnalysisSeen { key: measuring.key, runs });
        world.settle();
    }
}

#[test]
fn measurements_let_it_go_on_or_take_it_back() {
    let mut world = measured();
    world.push("b", &["web"]);
    world.settle();
    world.pass(3600);
    assert_eq!(world.weight, 10, "nothing was measured, and nothing goes on");
    measure(&mut world, Outcome_::Success, 8);
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
    assert_eq!(world.runs(), ["web=b"]);

    let mut world = measured();
    world.push("b", &["web"]);
    world.settle();
    measure(&mut world, Outcome_::Failure, 3);
    world.pass(10);
    assert_eq!(world.phase(), Phase::Held);
    let held = world.state.held.clone().unwrap();
    assert_eq!(held.problem.reason, "AnalysisFailed");
    assert_eq!(world.weights, [10, 0]);
}

#[test]
fn measurements_that_fail_take_it_back_while_its_pods_are_not_ready_too() {
    for stable_is_ill in [false, true] {
        let mut world = measured();
        world.push("b", &["web"]);
        world.settle();
        measure(&mut world, Outcome_::Failure, 1);
        assert_eq!(world.weight, 10);
        // Its pods end and start again, far from the time in which they have to be ready.
        world.slow.insert("b".into());
        if stable_is_ill {
            world.ill.insert("web=a".into());
        }
        measure(&mut world, Outcome_::Failure, 3);
        world.pass(10);
        match stable_is_ill {
            false => {
                assert_eq!((world.phase(), world.weight), (Phase::Held, 0));
                assert_eq!(world.state.held.as_ref().unwrap().problem.reason, "AnalysisFailed");
            }
            // There is nothing better to give its share to.
            true => assert_eq!((world.phase(), world.weight), (Phase::Paused, 10)),
        }
    }
}

#[test]
fn without_data_it_pauses_and_goes_on_when_there_is_some() {
    let mut world = measured();
    world.push("b", &["web"]);
    world.settle();
    measure(&mut world, Outcome_::NoData, 8);
    assert_eq!((world.weight, world.phase()), (10, Phase::Paused));
    let (_, reason, _) = world.condition("Reconciling");
    assert_eq!(reason, "NoData");
    measure(&mut world, Outcome_::Success, 8);
    world.pass(60);
    assert_eq!(world.phase(), Phase::Ready);
}

#[derive(Clone, Debug)]
enum Event {
    Push(u8),
    Ill(&'static str, u8),
    Well,
    Pass(u16),
    Crash,
    Ask(&'static str),
    Rollback(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u8..4).prop_map(Event::Push),
        (prop_oneof![Just("web"), Just(CANDIDATE)], 0u8..4).prop_map(|(o, r)| Event::Ill(o, r)),
        Just(Event::Well),
        (1u16..400).prop_map(Event::Pass),
        Just(Event::Crash),
        (0u8..4).prop_map(Event::Rollback),
        prop_oneof![
            Just("promote"),
            Just("promote-full"),
            Just("pause"),
            Just("resume"),
            Just("abort"),
            Just("retry")
        ]
        .prop_map(Event::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// The world itself holds that no candidate is replaced under traffic or removed while traffic may reach it, and that
    /// nothing held is applied.
    #[test]
    fn whatever_happens_one_variant_is_left_with_all_the_traffic(events in prop::collection::vec(event(), 1..24)) {
        let mut world = canary();
        let name = |n: u8| ["a", "b", "c", "d"][n as usize];
        for event in events {
            match event {
                Event::Push(n) => {
                    world.push(name(n), &["web"]);
                    // In the very round that sees it, a revision is gone about, or traffic is on its way back for it.
                    let decision = next(&world.spec, &world.state, &world.seen, world.now);
                    let begun = |a: &Action| matches!(a, Action::Prepare(r, ..) if r.inputs == name(n));
                    let (state, id) = (&decision.state, name(n));
                    let known = [
                        state.effective.as_ref(),
                        state.held.as_ref().map(|h| &h.revision),
                        state.attempt.as_ref().map(|a| &a.revision),
                    ];
                    let known = known.into_iter().flatten().any(|r| r.inputs == id);
                    let leaves = state.attempt.as_ref().is_some_and(|a| a.goal == Goal::Rollback && a.rollout.is_some());
                    prop_assert!(known || leaves || decision.actions.iter().any(begun), "{:?}", decision.actions);
                }
                Event::Ill(object, n) => {
                    world.ill.insert(format!("{object}={}", name(n)));
                }
                Event::Well => world.ill.clear(),
                Event::Pass(secs) => world.pass(i64::from(secs)),
                Event::Crash => world.crash(),
                Event::Rollback(n) => go_back_to(&mut world, name(n)),
                Event::Ask(verb) => {
                    let commit = match &world.seen.target {
                        Target::Known(target) => target.commit.clone(),
                        _ => String::new(),
                    };
                    ask(&mut world, verb, &commit);
                }
            }
            world.settle();
            let stable = world.state.effective.as_ref().unwrap().inputs.clone();
            if let Some(rollout) = world.state.attempt.as_ref().and_then(|a| a.rollout.clone())
                && rollout.layout.base == crate::api::rollout::Base::Stable
                && !matches!(rollout.stage, Stage::Restoring | Stage::Draining | Stage::Returning)
            {
                prop_assert_eq!(&world.cluster["web"], &stable, "stable is untouched");
            }
        }
        world.ill.clear();
        world.pass(10_000);
        let commit = match &world.seen.target { Target::Known(t) => t.commit.clone(), _ => String::new() };
        ask(&mut world, "resume", &commit);
        ask(&mut world, "promote-full", &commit);
        world.pass(10_000);
        prop_assert!(world.state.attempt.is_none(), "{:?}", world.state.attempt);
        prop_assert_eq!(world.weight, 0);
        prop_assert!(!world.cluster.contains_key(CANDIDATE));
        let effective = world.state.effective.as_ref().unwrap().inputs.clone();
        prop_assert_eq!(&world.cluster["web"], &effective);
        let target = match &world.seen.target { Target::Known(t) => t.inputs.clone(), _ => String::new() };
        prop_assert!(effective == target || world.state.held.is_some());
        }
}
