//! What steers workloads from beside: HorizontalPodAutoscaler, PodDisruptionBudget.

use super::Verdict;
use super::live::{Condition, Live};
use serde_json::Value;

/// Where `autoscaling/v1` keeps its conditions, as JSON.
const V1_CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// An autoscaler. Metrics are missing for a while at every rollout of its target, and for good where no
/// metrics server runs; the replicas then stay as they are. That is shown and blocks nothing. A target or
/// selector that is wrong does.
pub(super) fn autoscaler(live: &Live<'_>) -> Verdict {
    match live.keyed("/metadata/annotations", V1_CONDITIONS) {
        Some(text) => {
            let conditions: Value = serde_json::from_str(text).unwrap_or_default();
            let conditions = Live::new(&conditions);
            autoscaler_by(live, &conditions.conditions_at("").collect::<Vec<_>>())
        }
        None => autoscaler_by(live, &live.conditions().collect::<Vec<_>>()),
    }
}

fn autoscaler_by(live: &Live<'_>, conditions: &[Condition<'_>]) -> Verdict {
    let of = |kind| conditions.iter().find(|c| c.kind == kind);
    let target =
        format!("{} {}", live.text("/spec/scaleTargetRef/kind"), live.text("/spec/scaleTargetRef/name"));
    if let Some(able) = of("AbleToScale").filter(|c| c.is_false() && c.reason.starts_with("Failed")) {
        return Verdict::degraded(format!("cannot scale {target}: {}", able.why()));
    }
    match of("ScalingActive").filter(|c| c.is_false()) {
        Some(active) if active.reason == "ScalingDisabled" => {
            return Verdict::suspended(format!("scales nothing while {target} has 0 replicas"));
        }
        Some(active)
            if matches!(
                active.reason,
                "InvalidSelector" | "AmbiguousSelector" | "InvalidMetricSourceType"
            ) =>
        {
            return Verdict::degraded(format!("cannot scale {target}: {}", active.why()));
        }
        Some(active) => {
            return Verdict::progressing(format!(
                "has no metrics now and leaves {target} at {} replicas: {}",
                live.count("/status/currentReplicas"),
                active.why()
            ))
            .without_blocking();
        }
        None => {}
    }
    if conditions.is_empty() && live.get("/status/currentReplicas").is_none() {
        return Verdict::progressing("the autoscaler has not looked at it yet").without_blocking();
    }
    let limited = match of("ScalingLimited").filter(|c| c.is_true()) {
        Some(limited) if limited.reason == "TooManyReplicas" => {
            format!(", held at maxReplicas {}", live.count("/spec/maxReplicas"))
        }
        _ => String::new(),
    };
    Verdict::healthy(format!(
        "keeps {target} at {} replicas{limited}",
        live.int("/status/desiredReplicas").unwrap_or_else(|| live.count("/status/currentReplicas"))
    ))
}

/// A budget. Allowing no disruption is a state like any other (`minAvailable` of all replicas asks for it),
/// not an illness.
pub(super) fn disruption_budget(live: &Live<'_>) -> Verdict {
    if live.is_unobserved() || live.get("/status").is_none() {
        return Verdict::progressing("the disruption controller has not looked at it yet");
    }
    if let Some(failed) =
        live.condition("DisruptionAllowed").filter(|c| c.is_false() && c.reason == "SyncFailed")
    {
        return Verdict::degraded(format!("cannot be computed: {}", failed.why())).without_blocking();
    }
    Verdict::healthy(format!(
        "allows {} disruptions: {} healthy pods, {} needed",
        live.count("/status/disruptionsAllowed"),
        live.count("/status/currentHealthy"),
        live.count("/status/desiredHealthy")
    ))
}
