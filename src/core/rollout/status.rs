//! From what the machine knows to what people read: phase and conditions.

use super::except::in_words;
use super::progress::takes_over;
use super::put_back::UNCOMPARED;
use super::{Dependencies, Health, Observation, Spec, State, Target, dependencies, hooks, measure};
use crate::api::condition::{self, kind};
use crate::api::delivery::{
    Attempt, DeliveryStatus, DriftMode, FirstRevision, Goal, Held, Phase, Problem, RollbackMode, Step,
};
use crate::api::rollout::Stage;
use jiff::Timestamp;

/// The status to write for a state. `before` is what stands there now: its conditions keep their times.
pub fn status(
    spec: &Spec,
    state: &State,
    seen: &Observation,
    before: &DeliveryStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> DeliveryStatus {
    let phase = phase(spec, state, seen);
    let wanted = measure(state.attempt.as_ref(), state.effective.as_ref(), spec);
    // What was measured against something else says nothing about this.
    let measured = wanted.is_some() && seen.measured == wanted;
    let drift = match &wanted {
        // Objects may say otherwise than the Delivery.
        Some(_) if spec.drift == DriftMode::Ignore && !(measured && seen.drifted > 0) => None,
        Some(_) if measured => {
            // What could not be compared is not known to be in sync.
            let known = i64::try_from(seen.drifted).unwrap_or(i64::MAX);
            Some(known.max(seen.uncompared.as_ref().and(before.drift).unwrap_or(0)))
        }
        Some(_) => before.drift,
        None => None,
    };
    let revision = match (&state.attempt, &state.held, &state.effective) {
        (Some(a), _, _) if a.goal == Goal::Deploy => Some(a.revision.to_string()),
        (_, Some(held), _) => Some(held.revision.to_string()),
        (_, _, Some(effective)) => Some(effective.to_string()),
        _ => before.revision.clone(),
    };
    let mut status = DeliveryStatus {
        observed_generation: generation,
        phase,
        revision,
        drift,
        effective: state.effective.clone(),
        attempt: state.attempt.clone(),
        held: state.held.clone(),
        bake: state.bake.clone(),
        rolled_back_except: state.except.clone(),
        failure: state.failure.clone(),
        waiting: state.waiting.clone(),
        hooks: state.hooks.clone(),
        inventory: state.inventory.clone(),
        inventory_shards: before.inventory_shards.clone(),
        removed: state.removed.clone(),
        history: state.history.clone(),
        handled_request: state.handled_request.clone(),
        handled_release: state.handled_release.clone(),
        handled_rollback: state.handled_rollback.clone(),
        handled_rollout: state.handled_rollout.clone(),
        conditions: before.conditions.clone(),
    };
    let mut say = |kind: &str, status_: &str, reason: &str, message: &str| {
        condition::set(&mut status.conditions, kind, status_, reason, message, now, generation);
    };
    let (ready, reason, message) = ready(spec, state, seen, phase);
    say(kind::READY, ready, &reason, &message);
    let working = matches!(
        phase,
        Phase::Applying | Phase::Waiting | Phase::RollingOut | Phase::RollingBack | Phase::Deleting
    );
    let paused = state.attempt.as_ref().and_then(|a| a.rollout.as_ref()?.paused.as_ref());
    match &state.waiting {
        Some(waiting) if phase == Phase::Pending => {
            say(kind::RECONCILING, "True", &waiting.problem.reason, &told(&waiting.problem));
        }
        _ if let Some(paused) = paused => say(kind::RECONCILING, "True", &paused.reason, &told(paused)),
        _ if working => say(kind::RECONCILING, "True", "Progressing", ""),
        _ => say(kind::RECONCILING, "False", "Idle", ""),
    }
    let (healthy, reason, message) = healthy(state, seen);
    // While nothing was seen yet, what was known before stands.
    if healthy != "Unknown" || condition::get(&before.conditions, kind::HEALTHY).is_none() {
        say(kind::HEALTHY, healthy, reason, &message);
    }
    match &state.held {
        Some(held) => say(
            kind::HELD,
            "True",
            "RevisionHeld",
            &format!(
                "{} by {} ({}): {}{}{}",
                held.revision,
                held.revision.author,
                held.revision.subject,
                told(&held.problem),
                except(state),
                reverted(held)
            ),
        ),
        None => say(kind::HELD, "False", "NothingHeld", ""),
    }
    match drift {
        _ if let (Some(wanted), false, false) = (&wanted, measured, spec.drift == DriftMode::Ignore) => {
            let under_way = state.attempt.as_ref().map_or(&wanted.revision, |a| &a.revision);
            let message = format!("{under_way} is being put in place; drift is measured once it is applied");
            say(kind::DRIFTED, "Unknown", "Progressing", &message);
        }
        Some(_) if seen.drifted == 0 && seen.uncompared.is_some() => {
            say(kind::DRIFTED, "Unknown", "NotCompared", seen.uncompared.as_deref().unwrap_or_default());
        }
        Some(0) => say(kind::DRIFTED, "False", "InSync", ""),
        Some(n) => {
            let differ = if n == 1 { "object differs" } else { "objects differ" };
            let mut message = format!("{n} {differ} from {}", measured_against(state.attempt.as_ref()));
            for contested in &seen.contested {
                message.push_str(&format!(". {contested}"));
            }
            let reason = if seen.contested.is_empty() { "Differs" } else { "Contested" };
            say(kind::DRIFTED, "True", reason, &message);
        }
        None if condition::get(&before.conditions, kind::DRIFTED).is_some() => match &wanted {
            Some(_) => say(kind::DRIFTED, "Unknown", "Ignored", "spec.drift.mode is Ignore"),
            None => say(kind::DRIFTED, "Unknown", "NothingDeployed", "no revision is in place"),
        },
        None => {}
    }
    // A person has to act: nothing changes by itself any more.
    let stalled = match (&state.attempt, &state.failure) {
        _ if let Dependencies::Refused(problem) = &seen.dependencies => Some(problem),
        (Some(a), _) if a.step == Step::Failed => a.problem.as_ref(),
        (None, Some(f)) if f.revision.is_some() && !f.transient => Some(&f.problem),
        _ => None,
    };
    match stalled {
        Some(problem) => say(kind::STALLED, "True", &problem.reason, &told(problem)),
        None => say(kind::STALLED, "False", "NotStalled", ""),
    }
    status
}

/// What drift is measured against, as people are told.
fn measured_against(attempt: Option<&Attempt>) -> String {
    match attempt {
        Some(a) if a.rollout.as_ref().is_some_and(|r| r.stage != Stage::Returning) => {
            "what this step of the rollout wants".into()
        }
        Some(a) if a.goal == Goal::Deploy => a.revision.to_string(),
        _ => "the effective revision".into(),
    }
}

/// What a Delivery is doing.
pub fn phase(spec: &Spec, state: &State, seen: &Observation) -> Phase {
    if seen.deleting {
        return Phase::Deleting;
    }
    if spec.suspend {
        return Phase::Suspended;
    }
    match &state.attempt {
        Some(a) => match (a.goal, a.step) {
            (_, Step::Removing) => Phase::RollingBack,
            (Goal::Rollback, _) if a.problem.as_ref().is_some_and(|p| p.reason != UNCOMPARED) => {
                Phase::RollbackFailed
            }
            (Goal::Rollback, _) => Phase::RollingBack,
            (_, Step::Failed) => Phase::Failed,
            _ if let Some(rollout) = &a.rollout => match rollout.paused {
                Some(_) => Phase::Paused,
                None => Phase::RollingOut,
            },
            (_, Step::Applying) => Phase::Applying,
            (_, Step::Waiting | Step::Pruning) => Phase::Waiting,
        },
        None if let Some(waiting) = &state.waiting => match waiting.problem.reason.as_str() {
            dependencies::NOT_READY => Phase::Pending,
            _ => Phase::Failed,
        },
        None if state.held.is_some() => Phase::Held,
        None if state.failure.is_some() => Phase::Failed,
        None if state.effective.is_some() => Phase::Ready,
        None => Phase::Pending,
    }
}

fn ready(spec: &Spec, state: &State, seen: &Observation, phase: Phase) -> (&'static str, String, String) {
    let because = |p: &Problem| (p.reason.clone(), told(p));
    match phase {
        Phase::Deleting if let Some(dependent) = &seen.dependent => {
            let message = format!("is being deleted, after {dependent}, which depends on it");
            ("False", "Deleting".into(), message)
        }
        Phase::Deleting => ("False", "Deleting".into(), "is being deleted".into()),
        Phase::Suspended => ("False", "Suspended".into(), "spec.suspend is set".into()),
        Phase::Held => {
            let held = state.held.as_ref();
            let message = held.map_or_else(String::new, |h| {
                let (done, effective) = match &state.effective {
                    Some(effective) => ("rolled back", format!("; {effective} is running")),
                    None => ("removed", "; it was the first revision".into()),
                };
                format!(
                    "{} by {} ({}) was {done} and is held: {}{effective}{}{}{}",
                    h.revision,
                    h.revision.author,
                    h.revision.subject,
                    told(&h.problem),
                    except(state),
                    reverted(h),
                    refused(state)
                )
            });
            ("False", "RevisionHeld".into(), message)
        }
        Phase::Failed | Phase::RollbackFailed => {
            let problem = match (&state.attempt, &state.failure) {
                (Some(a), _) => a.problem.as_ref(),
                (None, _) if state.waiting.is_some() => state.waiting.as_ref().map(|w| &w.problem),
                (None, Some(f)) => Some(&f.problem),
                _ => None,
            };
            let (reason, mut message) = problem.map_or(("Failed".into(), String::new()), because);
            if phase == Phase::RollbackFailed {
                message = format!(
                    "the last good revision could not be brought back, it is tried again: {message}{}",
                    untold(state)
                );
                return ("False", "RollbackFailed".into(), message);
            }
            if state.attempt.is_none() {
                let waits = state.waiting.as_ref().map(|w| &w.revision);
                if let Some(revision) = waits.or(state.failure.as_ref().and_then(|f| f.revision.as_ref())) {
                    message = format!("{revision} was not begun: {message}");
                }
                if let Some(effective) = &state.effective {
                    message = format!("{message}; {effective} goes on running");
                }
            } else if spec.rollback != RollbackMode::Off && spec.first_revision == FirstRevision::Keep {
                message.push_str(
                    "; it was the first revision, so there is nothing to go back to and it stays in place",
                );
            }
            message.push_str(&untold(state));
            ("False", reason, message)
        }
        Phase::Ready => match &all_health(state, seen) {
            Health::Degraded(p) | Health::Broken(p) | Health::Progressing(p) => {
                let (reason, message) = because(p);
                ("False", reason, message)
            }
            Health::Healthy | Health::Unknown => {
                let mut message =
                    state.effective.as_ref().map_or_else(String::new, |e| format!("{e} is deployed"));
                if let Some(bake) = &state.bake {
                    message.push_str(&format!(", and watched until {} (rollback.bake)", bake.until));
                }
                ("True", "Deployed".into(), message)
            }
        },
        Phase::RollingOut | Phase::Paused if let Some(attempt) = &state.attempt => {
            ("False", format!("{phase:?}"), format!("{}{}", rolling_out(state, attempt, seen), untold(state)))
        }
        Phase::Applying | Phase::Waiting | Phase::RollingBack | Phase::RollingOut | Phase::Paused => {
            let attempt = state.attempt.as_ref();
            let what = attempt.map_or_else(String::new, |a| a.revision.to_string());
            let problem = attempt.and_then(|a| a.problem.clone());
            let hook = attempt.and_then(|a| hooks::running(&state.hooks, a));
            let waits = match (&problem, &seen.health) {
                (None, _) if let Some(hook) = hook => format!(": {} ({}) runs", hook.object(), hook.point),
                (Some(p), _) => format!(": {}", told(p)),
                (None, Health::Progressing(p) | Health::Degraded(p)) => format!(": {}", told(p)),
                _ => String::new(),
            };
            let (reason, verb) = match phase {
                Phase::RollingBack if attempt.is_some_and(|a| a.step == Step::Removing) => {
                    ("RollingBack", "is being removed")
                }
                Phase::RollingBack => ("RollingBack", "is being brought back"),
                Phase::Waiting => ("WaitingForHealth", "is applied and not healthy yet"),
                _ => ("Applying", "is being applied"),
            };
            ("False", reason.into(), format!("{what} {verb}{waits}{}", untold(state)))
        }
        Phase::Pending if let Some(waiting) = &state.waiting => {
            let (reason, why) = because(&waiting.problem);
            let runs =
                state.effective.as_ref().map_or_else(String::new, |e| format!("; {e} goes on running"));
            ("False", reason, format!("{} waits: {why}{runs}", waiting.revision))
        }
        Phase::Pending => match &seen.target {
            Target::Failed(problem) => {
                let (reason, message) = because(problem);
                ("False", reason, message)
            }
            _ => ("Unknown", "Pending".into(), "the source was not read yet".into()),
        },
    }
}

/// How far a rollout is, and what it waits for.
fn rolling_out(state: &State, attempt: &Attempt, seen: &Observation) -> String {
    let Some(rollout) = &attempt.rollout else { return String::new() };
    let what = &attempt.revision;
    let doing = match rollout.stage {
        Stage::Starting => format!("the candidate of {what} starts"),
        Stage::Stepping => format!(
            "{what} gets {}% of traffic (step {} of {})",
            rollout.layout.weight, rollout.step, rollout.steps
        ),
        Stage::Switching => format!("traffic goes to the candidate of {what}"),
        Stage::Promoting => {
            format!("{what} takes the place of the last good revision, traffic stays with its candidate")
        }
        Stage::Restoring if takes_over(attempt).is_some() => format!(
            "{what} takes the place of what could not be brought back, traffic stays with the candidate of {}",
            rollout.candidate
        ),
        Stage::Draining | Stage::Returning | Stage::Restoring => {
            format!("traffic returns from the candidate of {what}")
        }
    };
    let waits = match (&rollout.paused, &seen.health) {
        (Some(paused), _) => format!(": {}", told(paused)),
        (None, Health::Progressing(p) | Health::Degraded(p) | Health::Broken(p)) => format!(": {}", told(p)),
        _ => hooks::running(&state.hooks, attempt)
            .map_or_else(String::new, |hook| format!(": waits for {}", hook.object())),
    };
    format!("{doing}{waits}")
}

/// While a revision is under way or has failed: why it cannot be told what is wanted now, if that is so. Empty otherwise.
fn untold(state: &State) -> String {
    match &state.failure {
        Some(failure) if failure.revision.is_none() && state.attempt.is_some() => refused(state),
        _ => String::new(),
    }
}

/// While a revision is held: why what came after it could not be begun, if that is so. Empty otherwise.
fn refused(state: &State) -> String {
    let Some(failure) = &state.failure else { return String::new() };
    let why = told(&failure.problem);
    match (&failure.revision, &state.effective) {
        (None, _) => format!("; what is wanted now cannot be told: {why}"),
        (Some(new), Some(effective)) if new.commit == effective.commit => {
            format!("; the new settings for {effective} were not taken: {why}")
        }
        (Some(new), _) => {
            format!("; the newer {new} by {} ({}) was not begun: {why}", new.author, new.subject)
        }
    }
}

/// The health of all objects, those that are excused among them. At rest, what an Application tells is not told twice: a pod that
/// comes or goes would be two writes.
fn all_health(state: &State, seen: &Observation) -> Health {
    let at_rest = state.attempt.is_none() && state.bake.is_none();
    let (health, ill) = match &seen.besides_pods {
        Some((health, ill)) if at_rest => (health, ill),
        _ => (&seen.health, &seen.ill),
    };
    match (health, ill.first()) {
        (Health::Healthy, Some(ill)) => Health::Degraded(ill.clone()),
        (health, _) => health.clone(),
    }
}

fn healthy(state: &State, seen: &Observation) -> (&'static str, &'static str, String) {
    let working = state.attempt.is_some();
    match &all_health(state, seen) {
        Health::Healthy => ("True", "Healthy", String::new()),
        Health::Unknown => ("Unknown", "NotSeen", String::new()),
        Health::Progressing(p) => (if working { "Unknown" } else { "False" }, "Progressing", told(p)),
        Health::Degraded(p) => ("False", "Degraded", told(p)),
        Health::Broken(p) => ("False", "Broken", told(p)),
    }
}

/// What the rollback did not undo.
fn except(state: &State) -> String {
    match state.except.as_slice() {
        [] => String::new(),
        some => format!("; not undone: {}", in_words(some)),
    }
}

/// What became of the revert of a held revision.
fn reverted(held: &Held) -> String {
    match &held.revert {
        Some(revert) => match &revert.problem {
            Some(problem) => format!("; Git still has it: {}", problem.message),
            None => format!("; taken back in Git on branch {}", revert.branch),
        },
        None => String::new(),
    }
}

/// A problem as people read it: the object first.
pub fn told(problem: &Problem) -> String {
    if problem.object.is_empty() || problem.message.contains(&problem.object) {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.object, problem.message)
    }
}
