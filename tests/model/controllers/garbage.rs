//! Objects whose owner is gone, deletions that wait for dependents, namespaces that are being deleted, claims.

use super::*;
use std::collections::BTreeSet;

/// One step.
pub fn run(cluster: &mut Cluster, now: Timestamp) {
    namespaces(cluster, now);
    let mut uids: BTreeSet<&str> = BTreeSet::new();
    let mut owned: Vec<(Key, Arc<Value>)> = Vec::new();
    let mut waiting: Vec<(Key, Arc<Value>)> = Vec::new();
    let everything: Vec<(Key, Arc<Value>)> =
        (0..cluster.kinds.len()).flat_map(|at| snapshot(cluster, at)).collect();
    for (key, object) in &everything {
        uids.insert(text(object, "uid"));
        if object["metadata"]["ownerReferences"].as_array().is_some_and(|o| !o.is_empty()) {
            owned.push((key.clone(), object.clone()));
        }
        let finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
        if is_deleting(object) && finalizers.into_iter().any(|f| f == "foregroundDeletion" || f == "orphan") {
            waiting.push((key.clone(), object.clone()));
        }
    }
    for (key, object) in &owned {
        let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let gone = owners.into_iter().all(|o| !uids.contains(o["uid"].as_str().unwrap_or_default()));
        if gone && !is_deleting(object) {
            delete(cluster, key, now, "Background");
        }
    }
    for (key, object) in waiting {
        dependents_first(cluster, &key, &object, &owned, now);
    }
}

fn dependents_first(
    cluster: &mut Cluster,
    key: &Key,
    object: &Value,
    owned: &[(Key, Arc<Value>)],
    now: Timestamp,
) {
    let uid = text(object, "uid");
    let mine = |object: &Value| {
        let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.into_iter().any(|o| o["uid"] == uid)
    };
    let dependents: Vec<&(Key, Arc<Value>)> = owned.iter().filter(|(_, o)| mine(o)).collect();
    let orphan = object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|f| f == "orphan");
    if orphan {
        for (key, dependent) in dependents {
            let mut new = dependent.as_ref().clone();
            let owners = new["metadata"]["ownerReferences"].as_array_mut();
            if let Some(owners) = owners {
                owners.retain(|o| o["uid"] != uid);
            }
            write(cluster, key, dependent, new);
        }
        release(cluster, key, "orphan");
        return;
    }
    let blocking = |dependent: &Value| {
        let owners = dependent["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.into_iter().any(|o| o["uid"] == uid && o["blockOwnerDeletion"] == true)
    };
    let mut blocked = false;
    for (key, dependent) in dependents {
        blocked |= blocking(dependent) && cluster.store.get(key.0, &key.1, &key.2).is_some();
        if !is_deleting(dependent) {
            delete(cluster, key, now, "Foreground");
        }
    }
    if !blocked {
        release(cluster, key, "foregroundDeletion");
    }
}

/// Takes a finalizer off; the last one lets the object go.
fn release(cluster: &mut Cluster, key: &Key, finalizer: &str) {
    let Some(object) = cluster.store.get(key.0, &key.1, &key.2).cloned() else { return };
    let mut new = object.as_ref().clone();
    let Some(finalizers) = new["metadata"]["finalizers"].as_array_mut() else { return };
    finalizers.retain(|f| f != finalizer);
    let empty = finalizers.is_empty();
    if empty && let Some(meta) = new["metadata"].as_object_mut() {
        meta.remove("finalizers");
    }
    if empty && is_deleting(&object) {
        cluster.store.remove(key);
    } else {
        write(cluster, key, &object, new);
    }
}

fn namespaces(cluster: &mut Cluster, now: Timestamp) {
    for (key, namespace) in snapshot(cluster, at::NAMESPACE) {
        if !is_deleting(&namespace) {
            continue;
        }
        let mut left = false;
        for at in 1..cluster.kinds.len() {
            let inside: Vec<(Key, Arc<Value>)> =
                cluster.store.list(at, &key.2).map(|(k, o)| (k.clone(), o.clone())).collect();
            for (inner, object) in inside {
                left = true;
                if !is_deleting(&object) {
                    delete(cluster, &inner, now, "Background");
                }
            }
        }
        let held = namespace["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if left || held {
            continue;
        }
        cluster.store.remove(&key);
    }
}

/// Claims of the default class are bound at once; one that is used does not go.
pub fn claims(cluster: &mut Cluster, _now: Timestamp) {
    for (key, claim) in snapshot(cluster, at::CLAIM) {
        if is_deleting(&claim) {
            let used = cluster.store.list(at::POD, &key.1).any(|(_, pod)| {
                let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
                volumes.into_iter().any(|v| v["persistentVolumeClaim"]["claimName"] == key.2.as_str())
            });
            let protected = claim["metadata"]["finalizers"].as_array().into_iter().flatten();
            if !used && protected.into_iter().any(|f| f == "kubernetes.io/pvc-protection") {
                release(cluster, &key, "kubernetes.io/pvc-protection");
            }
            continue;
        }
        let class = claim["spec"]["storageClassName"].as_str().unwrap_or("simulated");
        if claim["status"]["phase"] == "Pending" && class == "simulated" {
            let mut new = claim.as_ref().clone();
            new["spec"]["volumeName"] = format!("pvc-{}", text(&claim, "uid")).into();
            new["status"] = json!({
                "phase": "Bound", "accessModes": claim["spec"]["accessModes"],
                "capacity": claim["spec"]["resources"]["requests"],
            });
            write(cluster, &key, &claim, new);
        }
    }
}
