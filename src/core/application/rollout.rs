//! How a change of an Application reaches traffic.

use super::App;
use super::error::ApplicationError as Error;
use crate::api::Application;
use crate::api::rollout::{RolloutPolicy, Strategy, WorkloadKind, WorkloadRef};
use crate::core::rollout::steps::Steps;
use kube::ResourceExt;

/// The policy for the Delivery of an Application: what is rolled out is its Deployment.
pub fn rollout(application: &Application) -> Option<RolloutPolicy> {
    let mut policy = application.spec.rollout.clone()?;
    policy.workload = Some(WorkloadRef { kind: WorkloadKind::Deployment, name: application.name_any() });
    policy.workloads = Vec::new();
    Some(policy)
}

/// What is wrong about it.
pub(super) fn faults(app: &App, errors: &mut Vec<Error>) {
    let Some(policy) = &app.spec.rollout else { return };
    if let Err(problem) = Steps::new(policy) {
        errors.push(Error::Rollout(problem.message));
    }
    let by_pods = policy.router.as_ref().is_some_and(|router| router.replicas.is_some());
    let (field, pods) = match &app.spec.autoscaling {
        Some(scaling) => ("spec.autoscaling.minReplicas", scaling.min_replicas),
        None => ("spec.replicas", app.spec.replicas),
    };
    if policy.strategy == Strategy::Canary && by_pods && pods == 1 {
        errors.push(Error::OnePod { field });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_rolled_out_is_the_applications_own() {
        let mut application: Application = serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Application", "metadata": {"name": "web"},
            "spec": {"image": "web:1", "replicas": 2, "rollout": {
                "strategy": "Canary", "router": {"replicas": {}}, "steps": [{"weight": 50}],
            }},
        }))
        .unwrap();
        let policy = rollout(&application).unwrap();
        assert_eq!(policy.workload.unwrap().name, "web");
        application.spec.rollout = None;
        assert_eq!(rollout(&application), None);
    }
}
