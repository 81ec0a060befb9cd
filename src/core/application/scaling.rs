//! How many pods: the autoscaler, and the budget of disruptions.

use super::{App, value};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

/// The autoscaler.
pub(super) fn autoscaler(app: &App) -> Option<Value> {
    let scaling = app.spec.autoscaling.as_ref()?;
    let targets = [("cpu", scaling.target_cpu_utilization), ("memory", scaling.target_memory_utilization)];
    let metrics = targets.into_iter().filter_map(|(name, percent)| {
        let target = json!({"type": "Utilization", "averageUtilization": percent?});
        Some(json!({"type": "Resource", "resource": {"name": name, "target": target}}))
    });
    let mut object = app.object("autoscaling/v2", "HorizontalPodAutoscaler", &app.name);
    object["spec"] = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": app.name},
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": metrics.collect::<Vec<_>>(),
    });
    Some(object)
}

/// The budget of disruptions, where there are two pods at least: with one it could only stop a drain or allow all.
pub(super) fn budget(app: &App) -> Option<Value> {
    let least = app.spec.autoscaling.as_ref().map_or(app.spec.replicas, |scaling| scaling.min_replicas);
    let away = &app.spec.disruption_budget.max_unavailable;
    if least < 2 || *away == IntOrString::String("100%".into()) {
        return None;
    }
    let mut object = app.object("policy/v1", "PodDisruptionBudget", &app.name);
    object["spec"] = json!({
        "selector": {"matchLabels": app.selector()},
        "maxUnavailable": value(away),
        // Who is not ready serves nobody, and must not keep a broken node from being emptied.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    Some(object)
}
