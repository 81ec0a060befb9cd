//! Jobs that are gone, and drift while a revision is planned.
#![allow(clippy::unwrap_used)]

use super::tests::World;
use super::{Action, Applied, ApplyEnd, Health, Observation, Staging, next};
use crate::api::delivery::{InventoryEntry, Step};
use jiff::SignedDuration;

fn unfinished(world: &World) -> Vec<bool> {
    world.state.inventory.iter().map(|e| e.unfinished).collect()
}

/// A revision waits for two objects of which one is a Job that was not seen to complete.
fn waiting() -> World {
    let mut world = World::new();
    world.slow.insert("a".into());
    world.push("a", &["job", "web"]);
    for _ in 0..6 {
        world.round();
        world.now += SignedDuration::from_secs(5);
    }
    assert_eq!(world.state.attempt.as_ref().unwrap().step, Step::Waiting);
    world.state.inventory[0].unfinished = true;
    world
}

#[test]
fn that_a_job_completed_is_written_down_while_others_are_waited_for() {
    let world = waiting();
    let progressing = Health::Progressing(super::tests::problem("Progressing"));
    let mut inventory = world.state.inventory.clone();
    let revision = world.state.attempt.as_ref().unwrap().revision.clone();
    let see = |inventory: &[InventoryEntry]| {
        let inventory = inventory.to_vec();
        Applied {
            revision: revision.clone(),
            staging: Staging::Whole,
            inventory,
            end: ApplyEnd::Done,
            at: world.now,
        }
    };
    let seen = |applied| Observation {
        applied: Some(applied),
        health: progressing.clone(),
        target: world.seen.target.clone(),
        ..Observation::default()
    };
    let state = |applied| next(&world.spec, &world.state, &seen(applied), world.now).state;
    assert!(state(see(&inventory)).inventory[0].unfinished);
    inventory[0].unfinished = false;
    assert!(!state(see(&inventory)).inventory[0].unfinished);
}

#[test]
fn all_jobs_of_a_good_revision_have_completed() {
    let mut world = waiting();
    world.slow.clear();
    for _ in 0..6 {
        world.round();
    }
    assert!(world.state.attempt.is_none() && world.state.effective.is_some());
    assert_eq!(unfinished(&world), [false, false]);
}

#[test]
fn drift_is_not_written_back_while_a_revision_is_planned() {
    let mut world = World::new();
    world.push("a", &["web"]);
    for _ in 0..9 {
        world.round();
    }
    let corrects = |world: &World| {
        let seen = Observation { drifted: 1, correctable: 1, prepared: None, ..world.seen.clone() };
        let actions = next(&world.spec, &world.state, &seen, world.now).actions;
        let corrects = actions.iter().any(|a| matches!(a, Action::Correct(_)));
        (corrects, actions.iter().any(|a| matches!(a, Action::Prepare(..))))
    };
    assert_eq!(corrects(&world), (true, false));
    // The plan would say of what is written back that it is as the new revision wants it.
    world.push("b", &["web"]);
    assert_eq!(corrects(&world), (false, true));
}
