//! `rollout` of an Application: that of a Delivery, but for the workload.

use crate::api::rollout::RolloutPolicy;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

/// A share of one pod is none. An Application of no pods at all has nothing to roll out.
pub(super) const ENOUGH_PODS: &str = "!has(self.rollout) || self.rollout.strategy != 'Canary' || \
     !has(self.rollout.router) || !has(self.rollout.router.replicas) || \
     (has(self.autoscaling) ? self.autoscaling.minReplicas : self.replicas) != 1";

/// The schema of a Delivery's `rollout` without what names the workload.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = RolloutPolicy::json_schema(generator);
    let names = ["workload", "workloads"];
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| !names.contains(&name.as_str()));
    }
    if let Some(rules) = schema.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut) {
        rules.retain(|rule| !rule["rule"].as_str().is_some_and(|rule| rule.contains("self.workload")));
    }
    schema.insert("nullable".into(), true.into());
    schema
}
