//! Any resource that no rule of its own covers, read by the conventions of API conditions:
//! `observedGeneration`, `Stalled` and `Reconciling`, `Ready` and its synonyms, well-known phases.

use super::Verdict;
use super::live::{Condition, Live};

/// Conditions whose `True` says that all is well, the most telling first.
const GOOD: [&str; 11] = [
    "Ready",
    "Healthy",
    "Available",
    "Succeeded",
    "Complete",
    "Completed",
    "Established",
    "Programmed",
    "Accepted",
    "Synced",
    "Deployed",
];
/// Those of them whose `False` is an end, not a beginning: the work is over and did not succeed.
const FINAL: [&str; 1] = ["Succeeded"];

/// Groups whose kinds have no status, or one that says nothing of health: routing tables and scrape settings
/// that others read.
const WITHOUT_STATUS: [&str; 7] = [
    "monitoring.coreos.com/PodMonitor",
    "monitoring.coreos.com/Probe",
    "monitoring.coreos.com/PrometheusRule",
    "monitoring.coreos.com/ServiceMonitor",
    "networking.istio.io/",
    "security.istio.io/",
    "traefik.io/",
];

/// A resource of a kind without a rule of its own.
pub(super) fn verdict(live: &Live<'_>, group: &str, kind: &str) -> Verdict {
    let generation = live.generation();
    let observed = live.int("/status/observedGeneration");
    if let Some(seen) = observed.filter(|seen| *seen < generation) {
        return Verdict::progressing(format!(
            "its controller has seen generation {seen} and not yet {generation}"
        ));
    }
    for flag in ["suspend", "suspended", "paused"] {
        if live.is_set(&format!("/spec/{flag}")) {
            return Verdict::suspended(format!("is suspended (spec.{flag})"));
        }
    }
    let all: Vec<Condition<'_>> = live.conditions().filter(|c| !c.kind.is_empty()).collect();
    let is_current = |c: &Condition<'_>| c.observed_generation.is_none_or(|seen| seen >= generation);
    let conditions: Vec<Condition<'_>> = all.iter().copied().filter(is_current).collect();
    if let Some(verdict) = by_conditions(&conditions, generation, observed.is_some()) {
        return verdict;
    }
    if let Some(stale) = all.iter().find(|c| !is_current(c) && GOOD.contains(&c.kind)) {
        return Verdict::progressing(format!(
            "its controller has not said {} about generation {generation} yet",
            stale.kind
        ));
    }
    if let Some(verdict) = by_phase(live, kind) {
        return verdict;
    }
    for flag in ["ready", "readyToUse"] {
        match live.get(&format!("/status/{flag}")).and_then(serde_json::Value::as_bool) {
            Some(true) => return Verdict::healthy(format!("status.{flag} is true")),
            Some(false) => return Verdict::progressing(format!("status.{flag} is false")),
            None => {}
        }
    }
    if WITHOUT_STATUS
        .iter()
        .any(|known| known.split_once('/').is_some_and(|(g, k)| g == group && (k.is_empty() || k == kind)))
    {
        return Verdict::healthy(format!("a {kind} is healthy by being there"));
    }
    unknown(live, &all, observed)
}

fn by_conditions(conditions: &[Condition<'_>], generation: i64, observed: bool) -> Option<Verdict> {
    let find = |kind: &str| conditions.iter().find(|c| c.kind == kind);
    // Without a generation on the status or the condition, the words may be about the object as it was
    // before.
    let is_certain = |c: &Condition<'_>| generation > 0 && (observed || c.observed_generation.is_some());
    if let Some(reconciling) = find("Reconciling").filter(|c| c.is_true()) {
        return Some(Verdict::progressing(format!("is being reconciled: {}", reconciling.why())));
    }
    if let Some(stalled) = find("Stalled").filter(|c| c.is_true()) {
        let message = format!("is stalled: {}", stalled.why());
        return Some(match is_certain(stalled) {
            true => Verdict::broken("Stalled", message),
            false => Verdict::degraded(message),
        });
    }
    if let Some(failed) = find("Failed").filter(|c| c.is_true()) {
        let message = format!("has failed: {}", failed.why());
        return Some(match is_certain(failed) {
            true => Verdict::broken("Failed", message),
            false => Verdict::degraded(message),
        });
    }
    if let Some(suspended) = find("Suspended").or_else(|| find("Paused")).filter(|c| c.is_true()) {
        return Some(Verdict::suspended(format!("is suspended: {}", suspended.why())));
    }
    if let Some(degraded) = find("Degraded").filter(|c| c.is_true()) {
        return Some(Verdict::degraded(format!("is degraded: {}", degraded.why())));
    }
    let good = GOOD.iter().find_map(|kind| find(kind))?;
    if good.is_true() {
        return Some(Verdict::healthy(match good.reason {
            "" => format!("{} is True", good.kind),
            reason => format!("{} is True ({reason})", good.kind),
        }));
    }
    let message = format!("{} is {}: {}", good.kind, good.status, good.why());
    let says_failure = ["Fail", "Error", "Invalid"].iter().any(|word| good.reason.contains(word));
    let is_under_way = find("Progressing").is_some_and(|c| c.is_true());
    Some(if good.is_false() && !is_under_way && (FINAL.contains(&good.kind) || says_failure) {
        Verdict::degraded(message)
    } else {
        Verdict::progressing(message)
    })
}

/// `status.phase`, where its word leaves no doubt.
fn by_phase(live: &Live<'_>, kind: &str) -> Option<Verdict> {
    let phase = live.text("/status/phase");
    let message = format!("status.phase is {phase}");
    // `Running` is the goal of a service and the way of a task.
    let is_task = ["Workflow", "Run", "Job", "Task", "Backup", "Restore", "Migration"]
        .iter()
        .any(|end| kind.ends_with(end));
    Some(match phase.to_ascii_lowercase().as_str() {
        "running" if is_task => Verdict::progressing(message),
        "running" | "active" | "bound" | "available" | "ready" | "succeeded" | "completed" | "complete"
        | "healthy" | "provisioned" | "deployed" => Verdict::healthy(message),
        "pending" | "creating" | "provisioning" | "initializing" | "installing" | "updating"
        | "upgrading" | "deploying" | "progressing" | "inprogress" | "reconciling" | "scheduled" | "new"
        | "terminating" | "deleting" => Verdict::progressing(message),
        "failed" | "error" | "lost" | "degraded" | "unhealthy" => Verdict::degraded(message),
        "suspended" | "paused" => Verdict::suspended(message),
        _ => return None,
    })
}

/// No rule fits. It is said what was looked for; and it blocks nothing, since waiting would have no end.
fn unknown(live: &Live<'_>, conditions: &[Condition<'_>], observed: Option<i64>) -> Verdict {
    let message = if !conditions.is_empty() {
        let kinds: Vec<_> = conditions.iter().map(|c| format!("{}={}", c.kind, c.status)).collect();
        format!("none of its conditions is known ({}); looked for {}", kinds.join(", "), GOOD.join(", "))
    } else if let Some(observed) = observed {
        return Verdict::healthy(format!(
            "its controller has seen generation {observed} and reports no condition"
        ));
    } else if live.get("/status").is_none() {
        "has no status: looked for status.conditions, status.observedGeneration and status.phase".to_owned()
    } else {
        match live.text("/status/phase") {
            "" => "its status has a shape of its own: looked for conditions, observedGeneration, phase and ready".to_owned(),
            phase => format!("its phase {phase} is not known, and it has no conditions"),
        }
    };
    Verdict::new(super::Status::Unknown, super::live::first_line(&message, 400)).without_blocking()
}
