//! What takes pods away through no fault of their template: a lost node, an eviction, a cluster without room. All of it
//! is read off the pods themselves, since an account that may look after one namespace may seldom read nodes.

use super::live::{Live, MESSAGE_LIMIT, first_line};
use serde_json::{Value, json};
use std::borrow::Borrow;

/// Reasons of a pod that was ended from outside, by the kubelet or a controller of nodes.
const ENDED: &[&str] = &[
    "Evicted",
    "NodeLost",
    "NodeShutdown",
    "Shutdown",
    "Terminated",
    "Preempting",
    "NodeAffinity",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
];

/// Why a pod is not ready (or about to go) although its template is not to blame; `None` when it is ready, or when
/// nothing but itself explains it.
///
/// - It has the condition `DisruptionTarget`: evicted by the API, for the sake of another pod, by a taint of its node, or
///   since its node is gone.
/// - It ended with a reason that only the kubelet gives to pods that it cannot keep (`Evicted`, `NodeShutdown`, `OutOfcpu`).
/// - It counts as not ready while all its containers are: the controller of nodes says that of pods whose node does not
///   answer any more; the kubelet never does (but for readiness gates, and says so).
/// - No node has room for it. Told of a revision that was healthy: its pods did find room before.
pub fn pod_disturbance(pod: &Value) -> Option<String> {
    let live = Live::new(pod);
    if let Some(target) = live.condition("DisruptionTarget").filter(|c| c.is_true()) {
        return Some(format!("is taken away: {}", target.why()));
    }
    let reason = live.text("/status/reason");
    if live.text("/status/phase") != "Succeeded" && (ENDED.contains(&reason) || reason.starts_with("OutOf")) {
        let said = first_line(live.text("/status/message"), MESSAGE_LIMIT);
        return Some(format!(
            "was ended from outside: {reason}{}{said}",
            if said.is_empty() { "" } else { ": " }
        ));
    }
    if let Some(unscheduled) =
        live.condition("PodScheduled").filter(|c| c.is_false() && c.reason == "Unschedulable")
    {
        return Some(format!(
            "finds no room on any node: {}",
            first_line(unscheduled.message, MESSAGE_LIMIT)
        ));
    }
    let ready = live.condition("Ready")?;
    let containers_ready = live.condition("ContainersReady").is_some_and(|c| c.is_true());
    (!ready.is_true() && containers_ready && ready.reason != "ReadinessGatesNotReady")
        .then(|| format!("is on node {}, which does not answer", live.text("/spec/nodeName")))
}

/// Why a workload is not healthy although its template is not to blame: each of its pods that is not ready, or is going,
/// says so, with the first one's words. `None` also when no pod is to be seen that explains it.
pub fn disturbance<V: Borrow<Value>>(workload: &Value, replica_sets: &[V], pods: &[V]) -> Option<String> {
    let live = Live::new(workload);
    // That of an Application has its name.
    let own = json!({"kind": "Deployment", "metadata": {"name": live.text("/metadata/name")}});
    let sets_of = |owner: &Live<'_>| {
        let sets = replica_sets.iter().map(|set| Live::new(set.borrow()));
        sets.filter(|set| set.is_controlled_by(owner)).collect()
    };
    let owners: Vec<Live<'_>> = match live.text("/kind") {
        "Deployment" => sets_of(&live),
        "Application" => sets_of(&Live::new(&own)),
        _ => vec![live],
    };
    let itself = (live.text("/kind") == "Pod").then_some(workload);
    let owned = pods
        .iter()
        .map(Borrow::borrow)
        .filter(|pod| owners.iter().any(|owner| Live::new(pod).is_controlled_by(owner)));
    let mut words = None;
    for pod in owned.chain(itself) {
        let seen = Live::new(pod);
        let going = !seen.text("/metadata/deletionTimestamp").is_empty();
        let disturbed = pod_disturbance(pod);
        let well =
            seen.condition("Ready").is_some_and(|c| c.is_true()) || seen.text("/status/phase") == "Succeeded";
        match disturbed {
            Some(why) => {
                words.get_or_insert_with(|| format!("pod {} {why}", seen.text("/metadata/name")));
            }
            None if well || going => {}
            None => return None,
        }
    }
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod(name: &str, status: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n1"}, "status": status,
            "metadata": {"name": name, "ownerReferences": [{"kind": "StatefulSet", "name": "db", "uid": "u"}]},
        })
    }

    fn conditions(all: &[(&str, &str, &str)]) -> Value {
        let list: Vec<Value> =
            all.iter().map(|(t, s, r)| json!({"type": t, "status": s, "reason": r})).collect();
        json!({"phase": "Running", "conditions": list})
    }

    #[test]
    fn a_pod_that_is_taken_away_is_told_from_one_that_breaks() {
        let table = [
            (conditions(&[("Ready", "True", ""), ("ContainersReady", "True", "")]), false),
            (
                conditions(&[("Ready", "False", "ContainersNotReady"), ("ContainersReady", "False", "")]),
                false,
            ),
            // The controller of nodes touches nothing but `Ready`.
            (conditions(&[("Ready", "False", ""), ("ContainersReady", "True", "")]), true),
            (
                conditions(&[("Ready", "False", "ReadinessGatesNotReady"), ("ContainersReady", "True", "")]),
                false,
            ),
            (
                conditions(&[("Ready", "True", ""), ("DisruptionTarget", "True", "EvictionByEvictionAPI")]),
                true,
            ),
            (conditions(&[("PodScheduled", "False", "Unschedulable")]), true),
            (conditions(&[("PodScheduled", "False", "SchedulingGated")]), false),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
                true,
            ),
            (json!({"phase": "Failed", "reason": "OutOfcpu"}), true),
            (json!({"phase": "Failed", "reason": "Error"}), false),
        ];
        for (status, disturbed) in table {
            assert_eq!(pod_disturbance(&pod("db-0", status.clone())).is_some(), disturbed, "{status}");
        }
    }

    #[test]
    fn a_workload_is_disturbed_only_if_that_explains_all_of_its_pods() {
        let set = json!({"kind": "StatefulSet", "metadata": {"name": "db", "uid": "u"}});
        let well = pod("db-0", conditions(&[("Ready", "True", "")]));
        let lost = pod("db-1", conditions(&[("Ready", "False", ""), ("ContainersReady", "True", "")]));
        let broken = pod("db-2", conditions(&[("Ready", "False", ""), ("ContainersReady", "False", "")]));
        let mut stranger = broken.clone();
        stranger["metadata"]["ownerReferences"] = json!([]);
        assert!(disturbance(&set, &[], &[well.clone(), lost.clone(), stranger]).unwrap().contains("db-1"));
        assert!(disturbance(&set, &[], &[well.clone(), lost, broken]).is_none());
        assert!(disturbance(&set, &[], &[well]).is_none(), "nothing explains it");
        // The pods of an Application are those of the Deployment of its name.
        let application = json!({"kind": "Application", "metadata": {"name": "web", "uid": "a"}});
        let owned = |kind: &str, name: &str, by: (&str, &str)| json!({"metadata": {"name": name, "uid": name, "ownerReferences": [{"kind": by.0, "name": by.1, "uid": by.1}]}, "kind": kind});
        let sets = [
            owned("ReplicaSet", "web-1", ("Deployment", "web")),
            owned("ReplicaSet", "api-1", ("Deployment", "api")),
        ];
        let mut away = owned("Pod", "web-1-x", ("ReplicaSet", "web-1"));
        away["status"] = json!({"phase": "Failed", "reason": "Evicted"});
        assert!(disturbance(&application, &sets, &[away.clone()]).unwrap().contains("web-1-x"));
        away["metadata"]["ownerReferences"][0] =
            json!({"kind": "ReplicaSet", "name": "api-1", "uid": "api-1"});
        assert!(disturbance(&application, &sets, &[away]).is_none(), "another's");
    }
}
