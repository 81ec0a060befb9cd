//! What keeps pods running: Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController.
//!
//! The counts in a status say nothing about the current template until the controller has observed it, so the
//! generation is compared before all else.

use super::live::{Condition, Live, MESSAGE_LIMIT, counted, first_line};
use super::{Broken, Verdict};

/// `Some` while the controller has not looked at the object as it is now.
fn unobserved(live: &Live<'_>, kind: &str) -> Option<Verdict> {
    if !live.is_unobserved() && live.get("/status/observedGeneration").is_some() {
        return None;
    }
    Some(Verdict::progressing(match live.int("/status/observedGeneration") {
        None => format!("the {kind} controller has not looked at it yet"),
        Some(seen) => {
            format!("the {kind} controller has seen generation {seen} and not yet {}", live.generation())
        }
    }))
}

/// A Deployment. The counts are those of `kubectl rollout status`, with pods in excess added.
pub(super) fn deployment(live: &Live<'_>) -> Verdict {
    if let Some(verdict) = unobserved(live, "Deployment") {
        return verdict;
    }
    if live.is_set("/spec/paused") {
        return Verdict::suspended("is paused: no new pod is rolled out until spec.paused is false");
    }
    let desired = live.int("/spec/replicas").unwrap_or(1).max(0);
    let total = live.count("/status/replicas");
    let updated = live.count("/status/updatedReplicas");
    let ready = live.count("/status/readyReplicas");
    let available = live.count("/status/availableReplicas");
    if updated >= desired && total <= updated && total <= desired && available >= desired {
        return Verdict::healthy(match desired {
            0 => "is scaled to 0".to_owned(),
            _ => format!("{available} of {} available", counted(desired, "pod")),
        });
    }
    let counts = if updated < desired {
        format!("{updated} of {} at the new revision, {available} available", counted(desired, "pod"))
    } else if total > desired {
        format!(
            "the new revision is at {updated} of {}; waits for {} to terminate",
            counted(desired, "pod"),
            counted(total - desired, "old pod")
        )
    } else if total > updated {
        format!("waits for {} to be replaced", counted(total - updated, "old pod"))
    } else if ready > available {
        format!(
            "{available} of {} available; {} ready for less than minReadySeconds",
            counted(desired, "pod"),
            ready - available
        )
    } else {
        format!("{available} of {} available", counted(desired, "pod"))
    };
    if let Some(progress) = live.condition("Progressing").filter(|c| c.reason == "ProgressDeadlineExceeded") {
        // The controller keeps this condition when the template changes back to an older ReplicaSet, with the
        // generation observed: what was said before the last change is not about it.
        if live.last_change().is_none_or(|change| progress.time.is_empty() || progress.time >= change) {
            let seconds = live.int("/spec/progressDeadlineSeconds").unwrap_or(600);
            return Verdict::broken(
                "ProgressDeadlineExceeded",
                format!("made no progress for {seconds} s (progressDeadlineSeconds): {counts}"),
            );
        }
    }
    if let Some(failure) = live.condition("ReplicaFailure").filter(Condition::is_true) {
        return not_created(&failure, &counts, room_may_appear(live));
    }
    let completed = live.condition("Progressing").is_some_and(|c| c.reason == "NewReplicaSetAvailable");
    if completed && desired > 0 && available == 0 && live.condition("Available").is_some_and(|c| c.is_false())
    {
        return Verdict::degraded(format!(
            "0 of {} available, after the rollout had completed",
            counted(desired, "pod")
        ));
    }
    Verdict::progressing(counts)
}

/// Whether pods of the workload itself are still to go, which would give back a share of the quota.
fn room_may_appear(live: &Live<'_>) -> bool {
    let old = live.count("/status/replicas") - live.count("/status/updatedReplicas");
    if live.count("/status/terminatingReplicas") > 0 {
        return true;
    }
    let desired = live.int("/spec/replicas").unwrap_or(1).max(0);
    let spare = match live.get("/spec/strategy/rollingUpdate/maxUnavailable") {
        None => desired.saturating_mul(25) / 100,
        Some(value) => match (value.as_i64(), value.as_str().and_then(|s| s.strip_suffix('%'))) {
            (Some(number), _) => number,
            (None, Some(percent)) => desired.saturating_mul(percent.parse().unwrap_or(0)) / 100,
            (None, None) => 0,
        },
    };
    old > 0 && (spare > 0 || live.text("/spec/strategy/type") == "Recreate")
}

/// The verdict about a workload whose pods the API server refuses.
fn not_created(failure: &Condition<'_>, counts: &str, room_may_appear: bool) -> Verdict {
    match refusal(failure.message, room_may_appear) {
        Some(broken) => Verdict::broken(broken.reason, format!("{}; {counts}", broken.message)),
        None => Verdict::progressing(format!("{counts}; pods cannot be created now: {}", failure.why())),
    }
}

/// Why the API server will refuse the same pod again. `None` for what may pass by itself: a webhook that does
/// not answer, a service account that is about to be made, a conflict.
pub(super) fn refusal(message: &str, room_may_appear: bool) -> Option<Broken> {
    let has = |text: &str| message.contains(text);
    let reason = if has("exceeded quota") {
        if room_may_appear {
            return None;
        }
        "QuotaExceeded"
    } else if has("failed quota") {
        // A quota on a resource that the pod does not name at all.
        "QuotaExceeded"
    } else if has("violates PodSecurity") {
        "PodSecurityViolation"
    } else if (has("admission webhook") && has("denied the request"))
        || (has("ValidatingAdmissionPolicy") && has("denied request"))
    {
        "AdmissionDenied"
    } else if has("usage per Container is") || has("usage per Pod is") || has("limit to request ratio per") {
        "LimitRangeViolation"
    } else if has(" is invalid: ") {
        "InvalidPod"
    } else {
        return None;
    };
    Some(Broken { reason, message: format!("pods are refused: {}", first_line(message, MESSAGE_LIMIT)) })
}

/// A StatefulSet. `currentReplicas` and `currentRevision` are left out: they are known to lag behind for good
/// after an update that was interrupted, while the pods are all there.
pub(super) fn stateful_set(live: &Live<'_>) -> Verdict {
    if let Some(verdict) = unobserved(live, "StatefulSet") {
        return verdict;
    }
    let desired = live.int("/spec/replicas").unwrap_or(1).max(0);
    let total = live.count("/status/replicas");
    let ready = live.count("/status/readyReplicas");
    let same_revision = live.text("/status/currentRevision") == live.text("/status/updateRevision");
    let updated = match live.int("/status/updatedReplicas") {
        Some(updated) => updated.max(0),
        None if same_revision => total,
        None => 0,
    };
    let pods = counted(desired, "pod");
    if total > desired {
        return Verdict::progressing(format!(
            "waits for {} to terminate, last ordinal first; {desired} wanted",
            counted(total - desired, "pod")
        ));
    }
    if desired == 0 {
        return Verdict::healthy("is scaled to 0");
    }
    if total < desired {
        return Verdict::progressing(format!("{total} of {pods} created, {ready} ready"));
    }
    let on_delete = live.text("/spec/updateStrategy/type") == "OnDelete";
    let partition = live.count("/spec/updateStrategy/rollingUpdate/partition");
    let to_update = if on_delete { 0 } else { (desired - partition).max(0) };
    if updated < to_update {
        return Verdict::progressing(match partition {
            0 => format!("{updated} of {pods} at the new revision, {ready} ready"),
            _ => format!(
                "{updated} of {} above the partition at the new revision, {ready} of {desired} ready",
                counted(to_update, "pod")
            ),
        });
    }
    if ready < desired {
        return Verdict::progressing(format!("{ready} of {pods} ready"));
    }
    let available = live.int("/status/availableReplicas").unwrap_or(ready);
    if live.count("/spec/minReadySeconds") > 0 && available < desired {
        return Verdict::progressing(format!(
            "{available} of {pods} available; the others ready for less than minReadySeconds"
        ));
    }
    let old = desired - updated.min(desired);
    Verdict::healthy(match (old, on_delete) {
        (0, _) => format!("{ready} of {pods} ready"),
        (old, true) => format!(
            "{ready} of {pods} ready; {} of the old revision stay until somebody deletes them (OnDelete)",
            counted(old, "pod")
        ),
        (old, false) => format!(
            "{ready} of {pods} ready; {} of the old revision stay below partition {partition}",
            counted(old, "pod")
        ),
    })
}

/// A DaemonSet.
pub(super) fn daemon_set(live: &Live<'_>) -> Verdict {
    if let Some(verdict) = unobserved(live, "DaemonSet") {
        return verdict;
    }
    let Some(desired) = live.int("/status/desiredNumberScheduled") else {
        return Verdict::progressing("the DaemonSet controller has not counted the nodes yet");
    };
    if desired <= 0 {
        return Verdict::healthy("no node matches, so no pod is wanted");
    }
    let nodes = counted(desired, "node");
    let updated = live.count("/status/updatedNumberScheduled");
    let available = live.count("/status/numberAvailable");
    let current = live.count("/status/currentNumberScheduled");
    let on_delete = live.text("/spec/updateStrategy/type") == "OnDelete";
    if current < desired {
        return Verdict::progressing(format!("{current} of {nodes} with a pod, {available} available"));
    }
    if !on_delete && updated < desired {
        return Verdict::progressing(format!(
            "{updated} of {nodes} at the new revision, {available} available"
        ));
    }
    if available < desired {
        return Verdict::progressing(format!("pods on {available} of {nodes} available"));
    }
    Verdict::healthy(match desired - updated {
        old if on_delete && old > 0 => format!(
            "pods on {available} of {nodes} available; {} of the old revision stay until \
             somebody deletes them (OnDelete)",
            counted(old, "pod")
        ),
        _ => format!("pods on {available} of {nodes} available"),
    })
}

/// A ReplicaSet or a ReplicationController.
pub(super) fn replica_set(live: &Live<'_>) -> Verdict {
    if let Some(verdict) = unobserved(live, live.text("/kind")) {
        return verdict;
    }
    let desired = live.int("/spec/replicas").unwrap_or(1).max(0);
    let total = live.count("/status/replicas");
    let available = live.count("/status/availableReplicas");
    let counts = format!("{available} of {} available", counted(desired, "pod"));
    if let Some(failure) = live.condition("ReplicaFailure").filter(Condition::is_true) {
        return not_created(&failure, &counts, live.count("/status/terminatingReplicas") > 0);
    }
    if total > desired {
        return Verdict::progressing(format!(
            "waits for {} to terminate; {desired} wanted",
            counted(total - desired, "pod")
        ));
    }
    match desired {
        0 => Verdict::healthy("is scaled to 0"),
        _ if total < desired => {
            Verdict::progressing(format!("{total} of {} created", counted(desired, "pod")))
        }
        _ if available < desired => Verdict::progressing(counts),
        _ => Verdict::healthy(counts),
    }
}
