//! Deployments: a ReplicaSet for each template, Pods moved from the old ones to the new one within `maxSurge` and
//! `maxUnavailable`, and the conditions that tell how it goes.

use super::super::managed::{Managers, Who, Write};
use super::super::select::Selector;
use super::*;

const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const HASH: &str = "pod-template-hash";

/// A ReplicaSet of a Deployment.
type Set = (Key, Arc<Value>);

/// One step for each.
pub fn run(cluster: &mut Cluster, now: Timestamp) {
    for (key, deployment) in snapshot(cluster, at::DEPLOYMENT) {
        if is_deleting(&deployment) {
            continue;
        }
        step(cluster, &key, &deployment, now);
    }
}

/// How many Pods more, and how many fewer, than wanted there may be.
pub fn limits(spec: &Value) -> (i64, i64) {
    let replicas = number(spec, "replicas");
    if spec["strategy"]["type"] == "Recreate" {
        return (0, replicas);
    }
    let rolling = &spec["strategy"]["rollingUpdate"];
    let surge = portion(&rolling["maxSurge"], replicas, true);
    let mut unavailable = portion(&rolling["maxUnavailable"], replicas, false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    (surge, unavailable.min(replicas))
}

fn portion(value: &Value, of: i64, up: bool) -> i64 {
    if let Some(number) = value.as_i64() {
        return number;
    }
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok()).unwrap_or(25);
    if up { (percent * of + 99) / 100 } else { percent * of / 100 }
}

/// A short name for a template.
fn hash(template: &Value) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in template.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{}{}", super::super::verbs::suffix(hash % 14_348_907), super::super::verbs::suffix(hash >> 32))
}

fn replicas(set: &Set) -> i64 {
    number(&set.1["spec"], "replicas")
}

fn available(set: &Set) -> i64 {
    number(&set.1["status"], "availableReplicas")
}

fn total(sets: &[Set]) -> i64 {
    sets.iter().map(replicas).sum()
}

fn revision(object: &Value) -> i64 {
    let text = object["metadata"]["annotations"][REVISION].as_str();
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

fn step(cluster: &mut Cluster, key: &Key, deployment: &Value, now: Timestamp) {
    let spec = &deployment["spec"];
    adopt(cluster, deployment);
    let mut sets = controlled(cluster, at::REPLICA_SET, &key.1, text(deployment, "uid"));
    sets.retain(|(_, set)| !is_deleting(set));
    sets.sort_by_key(|(_, set)| (text(set, "creationTimestamp").to_string(), revision(set)));
    let name = hash(&spec["template"]);
    let (mut new, old): (Vec<Set>, Vec<Set>) =
        sets.into_iter().partition(|(_, set)| set["metadata"]["labels"][HASH] == name.as_str());
    let new = new.pop();
    if spec["paused"] == true || scaled(new.as_ref(), &old, spec) {
        scale_all(cluster, new.as_ref(), &old, spec);
        status(cluster, key, deployment, &name, None, now);
        return;
    }
    let mut said = None;
    let last = old.iter().map(|(_, set)| revision(set)).max().unwrap_or(0);
    if spec["strategy"]["type"] == "Recreate" {
        let mut down = false;
        for set in old.iter().filter(|set| replicas(set) > 0) {
            down |= scale(cluster, set, 0, spec);
        }
        let running =
            old.iter().any(|(_, set)| !controlled(cluster, at::POD, &key.1, text(set, "uid")).is_empty());
        if !down && !running {
            match &new {
                None => said = make(cluster, deployment, &name, number(spec, "replicas"), last + 1, now),
                Some(new) => {
                    renumber(cluster, new, last + 1);
                    scale_new(cluster, new, number(spec, "replicas"), spec);
                }
            }
        }
    } else {
        let (surge, _) = limits(spec);
        let wanted = number(spec, "replicas");
        let room = |current: i64, own: i64| (own + (wanted + surge - current).max(0)).min(wanted);
        match &new {
            None => said = make(cluster, deployment, &name, room(total(&old), 0), last + 1, now),
            Some(new) => {
                renumber(cluster, new, last + 1);
                let own = replicas(new);
                let next = if own > wanted { wanted } else { room(total(&old) + own, own) };
                let scaled = scale_new(cluster, new, next, spec);
                if !scaled {
                    shrink_old(cluster, new, &old, spec);
                }
            }
        }
    }
    status(cluster, key, deployment, &name, said, now);
    forget(cluster, key, deployment, &name, now);
}

/// ReplicaSets that fit and that nobody controls become its own.
fn adopt(cluster: &mut Cluster, deployment: &Value) {
    let selector = Selector::of_workload(&deployment["spec"]["selector"]);
    let sets = cluster.store.list(at::REPLICA_SET, text(deployment, "namespace"));
    let free = sets.filter(|(_, s)| controller_of(s).is_none() && !is_deleting(s) && selector.fits(s));
    let free: Vec<Set> = free.map(|(key, set)| (key.clone(), set.clone())).collect();
    for (key, set) in free {
        let mut new = set.as_ref().clone();
        new["metadata"]["ownerReferences"] = owner("Deployment", "apps/v1", deployment);
        write(cluster, &key, &set, new);
    }
}

/// Makes the ReplicaSet of the template; what that says of the progress.
fn make(
    cluster: &mut Cluster,
    deployment: &Value,
    hash: &str,
    replicas: i64,
    revision: i64,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    let namespace = text(deployment, "namespace").to_string();
    if !takes_new(cluster, &namespace) {
        return None;
    }
    let spec = &deployment["spec"];
    let name = format!("{}-{hash}", text(deployment, "name"));
    let mut template = spec["template"].clone();
    template["metadata"]["labels"][HASH] = hash.into();
    let mut selector = spec["selector"].clone();
    selector["matchLabels"][HASH] = hash.into();
    let uid = cluster.store.uid();
    let mut annotations = deployment["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert(REVISION.into(), revision.to_string().into());
    annotations.insert(DESIRED.into(), number(spec, "replicas").to_string().into());
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "generation": 1, "creationTimestamp": time(now),
            "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": owner("Deployment", "apps/v1", deployment),
        },
        "spec": {
            "replicas": replicas, "selector": selector, "template": template,
            "minReadySeconds": number(spec, "minReadySeconds"),
        },
        "status": {"replicas": 0},
    });
    cluster.store.put((at::REPLICA_SET, namespace, name.clone()), set);
    Some(("NewReplicaSetCreated", format!("Created new replica set {name:?}")))
}

/// A template that was used before and is used again is the latest revision.
fn renumber(cluster: &mut Cluster, set: &Set, wanted: i64) {
    if revision(&set.1) < wanted {
        let current = cluster.store.get(set.0.0, &set.0.1, &set.0.2).cloned();
        if let Some(current) = current {
            let mut new = current.as_ref().clone();
            new["metadata"]["annotations"][REVISION] = wanted.to_string().into();
            write(cluster, &set.0, &current, new);
        }
    }
}

fn scale_new(cluster: &mut Cluster, set: &Set, replicas: i64, spec: &Value) -> bool {
    self::replicas(set) != replicas && scale(cluster, set, replicas, spec)
}

fn scale(cluster: &mut Cluster, set: &Set, replicas: i64, spec: &Value) -> bool {
    let Some(current) = cluster.store.get(set.0.0, &set.0.1, &set.0.2).cloned() else { return false };
    let mut new = current.as_ref().clone();
    let before = number(&new["spec"], "replicas");
    new["spec"]["replicas"] = replicas.into();
    new["metadata"]["annotations"][DESIRED] = number(spec, "replicas").to_string().into();
    if before != replicas {
        new["metadata"]["generation"] = (number(&new["metadata"], "generation") + 1).into();
    }
    write(cluster, &set.0, &current, new);
    before != replicas
}

/// Whether somebody changed `replicas` since the ReplicaSets were last scaled.
fn scaled(new: Option<&Set>, old: &[Set], spec: &Value) -> bool {
    old.iter().chain(new).filter(|set| replicas(set) > 0).any(|(_, set)| {
        let desired = set["metadata"]["annotations"][DESIRED].as_str().and_then(|t| t.parse::<i64>().ok());
        desired.is_some_and(|desired| desired != number(spec, "replicas"))
    })
}

/// Spreads another number of replicas over the ReplicaSets that have some, in proportion.
fn scale_all(cluster: &mut Cluster, new: Option<&Set>, old: &[Set], spec: &Value) {
    let wanted = number(spec, "replicas");
    let active: Vec<&Set> = old.iter().chain(new).filter(|set| replicas(set) > 0).collect();
    let latest = match active.as_slice() {
        [] => new.or(old.last()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(latest) = latest {
        // A paused Deployment that never ran has nothing to scale.
        scale(cluster, latest, wanted, spec);
        return;
    }
    if let Some(new) = new
        && replicas(new) == wanted
        && available(new) == wanted
    {
        for set in old.iter().filter(|set| replicas(set) > 0) {
            scale(cluster, set, 0, spec);
        }
        return;
    }
    let (surge, _) = limits(spec);
    let allowed = if wanted > 0 { wanted + surge } else { 0 };
    let now: i64 = active.iter().map(|set| replicas(set)).sum();
    let mut left = allowed - now;
    let mut sorted = active.clone();
    sorted.sort_by_key(|set| std::cmp::Reverse(replicas(set)));
    let count = sorted.len();
    for (i, set) in sorted.into_iter().enumerate() {
        let own = replicas(set);
        let share = if i + 1 == count { left } else { own * (allowed - now) / now.max(1) };
        let share = if left >= 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        left -= share;
        scale(cluster, set, (own + share).max(0), spec);
    }
}

/// Takes Pods from the old ReplicaSets as far as enough others are there.
fn shrink_old(cluster: &mut Cluster, new: &Set, old: &[Set], spec: &Value) {
    if total(old) == 0 {
        return;
    }
    let (_, unavailable) = limits(spec);
    let least = number(spec, "replicas") - unavailable;
    let missing = replicas(new) - available(new);
    let most = total(old) + replicas(new) - least - missing;
    if most <= 0 {
        return;
    }
    // Those that do not serve anyway go first.
    let mut left: Vec<i64> = old.iter().map(replicas).collect();
    let mut gone = 0;
    for (i, set) in old.iter().enumerate() {
        let broken = (left[i] - available(set)).max(0).min(most - gone);
        if broken > 0 {
            left[i] -= broken;
            gone += broken;
        }
    }
    let serving: i64 = old.iter().map(available).sum::<i64>() + available(new);
    let mut spare = (serving - least).max(0);
    for (i, set) in old.iter().enumerate() {
        let take = left[i].min(spare);
        left[i] -= take;
        spare -= take;
        if left[i] != replicas(set) {
            scale(cluster, set, left[i], spec);
        }
    }
}

/// Removes ReplicaSets of old revisions that nobody keeps any more.
fn forget(cluster: &mut Cluster, key: &Key, deployment: &Value, hash: &str, now: Timestamp) {
    let keep = deployment["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10).max(0) as usize;
    let mut sets = controlled(cluster, at::REPLICA_SET, &key.1, text(deployment, "uid"));
    sets.retain(|(_, s)| {
        s["metadata"]["labels"][HASH] != hash
            && number(&s["spec"], "replicas") == 0
            && number(&s["status"], "replicas") == 0
            && !is_deleting(s)
    });
    sets.sort_by_key(|(_, set)| revision(set));
    let surplus = sets.len().saturating_sub(keep);
    for (key, _) in sets.into_iter().take(surplus) {
        delete(cluster, &key, now, "Background");
    }
}

fn status(
    cluster: &mut Cluster,
    key: &Key,
    deployment: &Value,
    hash: &str,
    said: Option<(&'static str, String)>,
    now: Timestamp,
) {
    let spec = &deployment["spec"];
    let old = &deployment["status"];
    let sets = controlled(cluster, at::REPLICA_SET, &key.1, text(deployment, "uid"));
    let new = sets.iter().find(|(_, set)| set["metadata"]["labels"][HASH] == hash);
    let sum = |field: &str| sets.iter().map(|(_, set)| number(&set["status"], field)).sum::<i64>();
    let updated = new.map_or(0, |(_, set)| number(&set["status"], "replicas"));
    let (all, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
    let wanted = number(spec, "replicas");
    let mut status = json!({"observedGeneration": deployment["metadata"]["generation"]});
    let unavailable = (total(&sets) - available).max(0);
    for (field, count) in [
        ("replicas", all),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", unavailable),
    ] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    status["terminatingReplicas"] = 0.into();
    let enough = available >= wanted - limits(spec).1;
    let available_condition = match enough {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    let (answer, reason, message) = available_condition;
    let mut first = condition(&old["conditions"], "Available", answer, reason, message, now);
    first["lastUpdateTime"] = first["lastTransitionTime"].clone();
    let grew = updated > number(old, "updatedReplicas")
        || all - updated < number(old, "replicas") - number(old, "updatedReplicas")
        || ready > number(old, "readyReplicas")
        || available > number(old, "availableReplicas");
    let complete = updated == wanted && all == wanted && available == wanted;
    let progress =
        Progress { grew, complete, settled: all == updated, said, set: new.map(|(key, _)| key.2.as_str()) };
    let progressing = progressing(cluster, deployment, progress, now);
    status["conditions"] = json!([first]);
    if let (Some(condition), Some(all)) = (progressing, status["conditions"].as_array_mut()) {
        all.push(condition);
    }
    let number_of_new = new.map(|(_, set)| revision(set)).filter(|r| *r > 0);
    if *old == status && number_of_new.is_none_or(|number| number == revision(deployment)) {
        return;
    }
    let mut after = deployment.clone();
    after["status"] = status;
    if let Some(revision) = number_of_new {
        after["metadata"]["annotations"][REVISION] = revision.to_string().into();
    }
    let kind = cluster.kinds[at::DEPLOYMENT].clone();
    let mut managers = Managers::of(deployment);
    if !managers.0.is_empty() {
        let who = Who::new("kube-controller-manager", false, "apps/v1", "status");
        let ignored = kind.ignored("status");
        let write = Write { of: &kind.of, ignored: &ignored, who: &who, version: "apps/v1" };
        managers.update(write, deployment, &after, now);
        managers.write(&mut after);
    }
    cluster.store.put(key.clone(), after);
}

/// What the condition `Progressing` is made of.
struct Progress<'a> {
    grew: bool,
    complete: bool,
    settled: bool,
    said: Option<(&'static str, String)>,
    set: Option<&'a str>,
}

fn progressing(
    cluster: &mut Cluster,
    deployment: &Value,
    progress: Progress<'_>,
    now: Timestamp,
) -> Option<Value> {
    let spec = &deployment["spec"];
    let conditions = &deployment["status"]["conditions"];
    let before = conditions.as_array().into_iter().flatten().find(|c| c["type"] == "Progressing").cloned();
    let set = progress.set.unwrap_or_default();
    let make = |status: &str, reason: &str, message: &str| {
        let mut out = condition(conditions, "Progressing", status, reason, message, now);
        out["lastUpdateTime"] = time(now);
        Some(out)
    };
    let reason_before = before.as_ref().map_or("", |c| c["reason"].as_str().unwrap_or_default()).to_string();
    if spec["paused"] == true {
        return match reason_before.as_str() {
            "DeploymentPaused" => before,
            _ => make("Unknown", "DeploymentPaused", "Deployment is paused"),
        };
    }
    if reason_before == "DeploymentPaused" {
        return make("Unknown", "DeploymentResumed", "Deployment is resumed");
    }
    if let Some((reason, message)) = progress.said {
        return make("True", reason, &message);
    }
    if before.is_none() && !set.is_empty() {
        return make("True", "FoundNewReplicaSet", &format!("Found new replica set {set:?}"));
    }
    let deadline = spec["progressDeadlineSeconds"].as_i64().unwrap_or(600);
    if progress.settled && reason_before == "NewReplicaSetAvailable" {
        return before;
    }
    if progress.complete {
        let message = format!("ReplicaSet {set:?} has successfully progressed.");
        return make("True", "NewReplicaSetAvailable", &message);
    }
    if progress.grew {
        return make("True", "ReplicaSetUpdated", &format!("ReplicaSet {set:?} is progressing."));
    }
    let since = before.as_ref().and_then(|c| parsed(&c["lastUpdateTime"]));
    let Some(due) = since.map(|since| since + seconds(deadline)) else { return before };
    if reason_before == "ProgressDeadlineExceeded" || reason_before == "NewReplicaSetAvailable" {
        return before;
    }
    if due < now {
        let message = format!("ReplicaSet {set:?} has timed out progressing.");
        return make("False", "ProgressDeadlineExceeded", &message);
    }
    // After it, not at it.
    cluster.controllers.at(due + SignedDuration::from_millis(1));
    before
}
