//! What a candidate may keep while none of its pods is ready.
#![allow(clippy::unwrap_used)]

use super::progress_tests::{ask, canary, rolling};
use super::tests::{CANDIDATE, World};
use super::*;
use crate::api::delivery::{Goal, Phase};
use crate::api::rollout::{RolloutStatus, Stage};
use serde_json::json;

fn rollout(world: &World) -> Option<&RolloutStatus> {
    world.state.attempt.as_ref()?.rollout.as_ref()
}

fn stage(world: &World) -> Option<Stage> {
    rollout(world).map(|r| r.stage)
}

/// A switch with this settle time, after which the old pods are kept for an hour.
fn blue_green(settle: &str) -> World {
    rolling(
        json!({"strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"service": {"name": "web"}},
        "scaleDownDelay": "1h", "settle": settle}),
    )
}

/// A canary at 10 percent.
fn begun() -> World {
    let mut world = canary();
    world.push("b", &["web", "new"]);
    world.settle();
    world.pass(10);
    assert_eq!(world.weight, 10);
    world
}

#[test]
fn a_candidate_without_a_ready_pod_keeps_its_share_for_moments_not_for_its_timeout() {
    let mut world = begun();
    world.unready.insert("web-canary=b".into());
    world.settle();
    world.pass(9);
    assert_eq!((world.weight, stage(&world)), (10, Some(Stage::Stepping)), "a pod may only be restarting");
    world.pass(1);
    assert_eq!(world.weights, [10, 0], "by one change");
    assert!(world.cluster.contains_key(CANDIDATE), "and nothing is removed that requests may reach");
    world.pass(15);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.runs(), ["old=a", "web=a"]);
    let held = &world.state.held.as_ref().unwrap().problem;
    assert_eq!((held.reason.as_str(), held.object.as_str()), (UNREADY, "Deployment shop/web-canary"));
    assert!(held.message.contains("for 10s"), "{held:?}");
}

#[test]
fn what_is_ready_again_in_between_begins_anew_and_what_nobody_saw_does_not_count() {
    let mut world = begun();
    for _ in 0..5 {
        world.unready.insert("web-canary=b".into());
        world.settle();
        world.pass(8);
        world.unready.clear();
        world.settle();
        assert_eq!(rollout(&world).unwrap().unready, None);
        world.pass(2);
    }
    assert!(world.weight > 0 && world.state.held.is_none());
    // A daemon that was away sees it anew: what is not seen is told as nothing.
    world.unready.insert("web-canary=b".into());
    world.settle();
    world.crash();
    world.now += SignedDuration::from_hours(1);
    world.seen.in_contact_since = Some(world.now);
    let unseen = Observation { variants: Variants::default(), health: Health::Unknown, ..world.seen.clone() };
    world.state = next(&world.spec, &world.state, &unseen, world.now).state;
    world.settle();
    assert!(world.state.held.is_none());
    world.pass(20);
    assert!(world.state.held.is_some());
}

#[test]
fn a_switched_candidate_is_left_too_and_a_longer_settle_time_is_the_longer_grace() {
    for (settle, grace) in [("5s", 10), ("25s", 25)] {
        let mut world = blue_green(settle);
        world.push("b", &["web"]);
        world.settle();
        world.pass(60);
        assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Switching)));
        world.unready.insert("web-canary=b".into());
        world.settle();
        world.pass(grace - 1);
        assert_eq!(world.weight, 100, "{settle}");
        world.pass(1);
        assert_eq!(world.weight, 0, "{settle}");
        world.pass(60);
        assert_eq!(world.phase(), Phase::Held);
        assert_eq!(world.runs(), ["old=a", "web=a"]);
    }
}

#[test]
fn it_is_left_while_it_is_paused_and_while_a_layout_is_not_in_effect_too() {
    let mut world = begun();
    ask(&mut world, "pause", "b");
    world.unready.insert("web-canary=b".into());
    world.settle();
    world.pass(30);
    assert_eq!((world.phase(), world.weight), (Phase::Held, 0), "paused");

    // The API server refuses the next share, again and again.
    let mut world = begun();
    world.refused.insert("b".into(), true);
    world.pass(70);
    assert_eq!(world.state.attempt.as_ref().unwrap().step, crate::api::delivery::Step::Applying);
    world.unready.insert("web-canary=b".into());
    world.settle();
    world.pass(11);
    assert_eq!(world.state.attempt.as_ref().unwrap().goal, Goal::Rollback);
    assert_eq!(world.state.held.as_ref().unwrap().problem.reason, UNREADY);
}

#[test]
fn traffic_stays_where_stable_has_no_pod_ready_either_and_before_any_is_sent() {
    let mut world = begun();
    world.unready.extend(["web-canary=b".to_owned(), "web=a".to_owned()]);
    world.settle();
    world.pass(60);
    assert_eq!((world.weight, stage(&world)), (10, Some(Stage::Stepping)));

    let mut world = canary();
    world.unready.insert("web-canary=b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(250);
    assert_eq!((stage(&world), world.state.held.is_none()), (Some(Stage::Starting), true), "it has its time");
    world.pass(60);
    assert_eq!((world.phase(), world.weights.len()), (Phase::Held, 0));
}

#[test]
fn in_promotion_traffic_goes_to_the_pods_that_are_ready_and_the_new_ones_decide() {
    for good in [true, false] {
        let mut world = blue_green("5s");
        world.push("b", &["web"]);
        world.settle();
        world.pass(60);
        // The new pods under the name of Git are on their way, the old ones serve until then.
        world.slow.insert("web=b".into());
        ask(&mut world, "promote-full", "b");
        world.pass(10);
        assert_eq!((world.weight, stage(&world)), (100, Some(Stage::Promoting)));
        world.unready.insert("web-canary=b".into());
        world.settle();
        world.pass(9);
        assert_eq!(world.weight, 100);
        world.pass(1);
        assert_eq!(world.weight, 0);
        assert!(world.notices.iter().any(|n| n.reason == UNREADY));
        assert!(world.state.held.is_none(), "it has not failed by that");
        if good {
            world.slow.clear();
            world.unready.clear();
            world.settle();
        }
        world.pass(700);
        let runs: &[&str] = if good { &["web=b"] } else { &["old=a", "web=a"] };
        assert_eq!(world.runs(), runs);
        assert_eq!(world.state.held.is_none(), good);
        assert_eq!(world.weights, [100, 0], "it does not go back to a candidate that is ill");
    }
}

#[test]
fn a_rollback_that_waits_for_stable_under_a_candidate_that_gets_ill_goes_on_without_it() {
    let mut world = blue_green("5s");
    world.ill.insert("web=b".into());
    world.push("b", &["web"]);
    world.settle();
    world.pass(60);
    world.seen.rollout = Some("promote-full:b:now:ada".into());
    while stage(&world) != Some(Stage::Promoting) {
        world.round();
    }
    // What is to come back is on its way for long.
    world.slow.insert("web=a".into());
    world.settle();
    assert_eq!(stage(&world), Some(Stage::Restoring));
    assert_eq!(world.weight, 100);
    world.unready.insert("web-canary=b".into());
    world.settle();
    world.pass(10);
    assert_eq!(world.weight, 0);
    assert_eq!(world.state.attempt.as_ref().unwrap().goal, Goal::Rollback);
    world.slow.clear();
    world.settle();
    world.pass(30);
    assert_eq!(world.phase(), Phase::Held);
    assert_eq!(world.runs(), ["old=a", "web=a"]);
    assert_eq!(world.weights, [100, 0]);
}
