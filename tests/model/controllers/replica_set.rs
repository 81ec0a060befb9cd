//! ReplicaSets: as many Pods as wanted, and a count of those that are ready.

use super::super::select::Selector;
use super::*;

/// One step for each.
pub fn run(cluster: &mut Cluster, now: Timestamp) {
    for (key, set) in snapshot(cluster, at::REPLICA_SET) {
        if is_deleting(&set) {
            continue;
        }
        adopt(cluster, &set);
        let pods = controlled(cluster, at::POD, &key.1, text(&set, "uid"));
        let mut active: Vec<(Key, Arc<Value>)> = pods
            .into_iter()
            .filter(|(_, p)| {
                !is_deleting(p) && p["status"]["phase"] != "Succeeded" && p["status"]["phase"] != "Failed"
            })
            .collect();
        let wanted = number(&set["spec"], "replicas").max(0) as usize;
        for _ in active.len()..wanted {
            make_pod(cluster, &set, "ReplicaSet", "apps/v1", now);
        }
        if active.len() > wanted {
            // Those that serve least go first: not ready, often restarted, young.
            active.sort_by_key(|(key, pod)| {
                let age = std::cmp::Reverse(text(pod, "creationTimestamp").to_string());
                (is_ready(pod), std::cmp::Reverse(restarts(pod)), age, key.2.clone())
            });
            for (key, _) in active.drain(..active.len() - wanted) {
                delete(cluster, &key, now, "Background");
            }
        }
        status(cluster, &key, &set, now);
    }
}

/// Pods that fit and that nobody controls become its own.
fn adopt(cluster: &mut Cluster, set: &Value) {
    let selector = Selector::of_workload(&set["spec"]["selector"]);
    let pods = cluster.store.list(at::POD, text(set, "namespace"));
    let free = pods.filter(|(_, p)| controller_of(p).is_none() && !is_deleting(p) && selector.fits(p));
    let free: Vec<(Key, Arc<Value>)> = free.map(|(key, pod)| (key.clone(), pod.clone())).collect();
    for (key, pod) in free {
        let mut new = pod.as_ref().clone();
        new["metadata"]["ownerReferences"] = owner("ReplicaSet", "apps/v1", set);
        write(cluster, &key, &pod, new);
    }
}

fn status(cluster: &mut Cluster, key: &Key, set: &Value, now: Timestamp) {
    let pods = controlled(cluster, at::POD, &key.1, text(set, "uid"));
    let pods: Vec<&Arc<Value>> = pods.iter().map(|(_, pod)| pod).filter(|pod| !is_deleting(pod)).collect();
    let least = number(&set["spec"], "minReadySeconds");
    let (mut ready, mut available) = (0, 0);
    for pod in &pods {
        let Some(since) = ready_since(pod) else { continue };
        ready += 1;
        let from = since + seconds(least);
        if least == 0 || from <= now {
            available += 1;
        } else {
            cluster.controllers.at(from);
        }
    }
    let mut status = json!({"replicas": pods.len(), "observedGeneration": set["metadata"]["generation"]});
    for (field, count) in
        [("fullyLabeledReplicas", pods.len()), ("readyReplicas", ready), ("availableReplicas", available)]
    {
        if count > 0 {
            status[field] = count.into();
        }
    }
    if set["status"] != status {
        let mut new = set.clone();
        new["status"] = status;
        write(cluster, key, set, new);
    }
}

/// Since when a Pod is ready.
pub(super) fn ready_since(pod: &Value) -> Option<Timestamp> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    parsed(&ready["lastTransitionTime"])
}

fn is_ready(pod: &Value) -> bool {
    ready_since(pod).is_some()
}

fn restarts(pod: &Value) -> i64 {
    let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    containers.map(|c| number(c, "restartCount")).sum()
}
