//! The nodes: Pods start at once and act out the tags of their images, as the simulated nodes of `tests/cluster` do.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// What is remembered of each container: since when it is in its state, and how it is.
pub type Memory = BTreeMap<String, Pod>;

/// What is remembered of a Pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    containers: BTreeMap<String, Container>,
    /// The version that was last looked at.
    version: String,
    /// When one of its containers moves on.
    due: Option<Timestamp>,
}

/// A container's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Container {
    state: State,
    since: Timestamp,
    restarts: i64,
    ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Running,
    /// Running, and not well by itself.
    Sick,
    Crashed,
    PullError,
    PullBackOff,
    Ended(i64),
}

/// The annotation of a Pod that is not well by itself.
const SICK: &str = "example.com/sick";

/// How many crashes follow each other quickly.
const QUICK_RESTARTS: i64 = 5;

/// One step for each Pod.
pub fn run(cluster: &mut Cluster, now: Timestamp) {
    let mut alive: BTreeSet<String> = BTreeSet::new();
    for (key, pod) in snapshot(cluster, at::POD) {
        let uid = text(&pod, "uid").to_string();
        if cluster.controllers.nodes.lost(&pod) {
            alive.insert(uid);
            continue;
        }
        if is_deleting(&pod) {
            // There is no process to wait for; finalizers hold it.
            if pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                cluster.store.remove(&key);
            } else if pod["metadata"]["deletionGracePeriodSeconds"] != 0 {
                let mut new = pod.as_ref().clone();
                new["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                write(cluster, &key, &pod, new);
            }
            continue;
        }
        alive.insert(uid.clone());
        if ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default()) {
            continue;
        }
        let node = match pod["spec"]["nodeName"].as_str() {
            Some(_) => None,
            None => match cluster.controllers.nodes.place(&pod) {
                Some(node) => Some(node),
                None => {
                    unscheduled(cluster, &key, &pod, now);
                    continue;
                }
            },
        };
        let mut memory = cluster.controllers.pods.remove(&uid).unwrap_or_default();
        let known = memory.version == text(&pod, "resourceVersion") && memory.due.is_none_or(|due| due > now);
        if !known {
            memory.due = advance(&pod, &mut memory.containers, now);
        }
        if let Some(due) = memory.due {
            cluster.controllers.at(due);
        }
        if known {
            cluster.controllers.pods.insert(uid, memory);
            continue;
        }
        let mut new = pod.as_ref().clone();
        if let Some(node) = node {
            new["spec"]["nodeName"] = node.into();
        }
        new["status"] = status(&pod, &memory.containers, now);
        write(cluster, &key, &pod, new);
        let stored = cluster.store.get(key.0, &key.1, &key.2);
        memory.version = stored.map(|p| text(p, "resourceVersion").to_string()).unwrap_or_default();
        cluster.controllers.pods.insert(uid, memory);
    }
    cluster.controllers.pods.retain(|uid, _| alive.contains(uid));
}

/// No node has room for a Pod.
fn unscheduled(cluster: &mut Cluster, key: &Key, pod: &Value, now: Timestamp) {
    let mut new = pod.clone();
    let said = "0/2 nodes are available: 2 Insufficient cpu.";
    let old = &pod["status"]["conditions"];
    new["status"]["conditions"] =
        json!([condition(old, "PodScheduled", "False", "Unschedulable", said, now)]);
    write(cluster, key, pod, new);
}

fn tag(container: &Value) -> &str {
    let image = container["image"].as_str().unwrap_or_default();
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    image.rsplit('/').next().unwrap_or_default().rsplit_once(':').map_or("", |(_, tag)| tag)
}

/// The tag that a Pod acts out: one that is `alone` is well beside another variant only.
fn acted<'a>(pod: &Value, tag: &'a str) -> &'a str {
    let app = pod["metadata"]["labels"]["app"].as_str().unwrap_or_default();
    match tag {
        "alone" if app.ends_with("-canary") || app.ends_with("-preview") => "ok",
        "alone" => "unready",
        tag => tag,
    }
}

/// Moves containers on; the time of the next move.
fn advance(pod: &Value, memory: &mut BTreeMap<String, Container>, now: Timestamp) -> Option<Timestamp> {
    let policy = pod["spec"]["restartPolicy"].as_str().unwrap_or("Always");
    let mut due: Option<Timestamp> = None;
    for list in ["initContainers", "containers"] {
        let mut all_passed = true;
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_string();
            let fresh = Container { state: State::New, since: now, restarts: 0, ready: false };
            let entry = memory.entry(name).or_insert(fresh);
            let policy = match (list, container["restartPolicy"].as_str()) {
                ("initContainers", Some("Always")) => "Always",
                ("initContainers", _) if policy == "Always" => "OnFailure",
                _ => policy,
            };
            let sick = pod["metadata"]["annotations"][SICK] == "yes";
            match entry.state {
                State::Running if sick => {
                    *entry = Container { state: State::Sick, since: now, ready: false, ..*entry }
                }
                State::Sick if !sick => *entry = Container { state: State::New, since: now, ..*entry },
                _ => {}
            }
            // Whatever is overdue happens at once, so that a jump of the clock loses nothing.
            while let Some((after, next)) = next(*entry, acted(pod, tag(container)), policy) {
                let time = entry.since + after;
                if time > now {
                    due = Some(due.map_or(time, |due| due.min(time)));
                    break;
                }
                *entry = Container { since: time, ..next };
            }
            let passed = matches!(entry.state, State::Ended(0)) || policy == "Always" && entry.ready;
            if list == "initContainers" && !passed {
                all_passed = false;
                break;
            }
        }
        if !all_passed {
            break;
        }
    }
    due
}

/// What becomes of a container next, and when.
fn next(container: Container, tag: &str, policy: &str) -> Option<(SignedDuration, Container)> {
    let millis = SignedDuration::from_millis;
    let task = policy != "Always";
    let bad_image = matches!(tag, "missing" | "denied");
    let crashes = matches!(tag, "crash" | "fail");
    let crash = || {
        let restarts = container.restarts + 1;
        match policy {
            "Never" => Container { state: State::Ended(1), ready: false, ..container },
            _ => Container { state: State::Crashed, restarts, ready: false, ..container },
        }
    };
    match container.state {
        State::New if bad_image => Some((millis(300), Container { state: State::PullError, ..container })),
        State::New => {
            let ready = !task && !crashes && !matches!(tag, "slow" | "unready");
            Some((millis(0), Container { state: State::Running, ready, ..container }))
        }
        State::PullError => Some((millis(1000), Container { state: State::PullBackOff, ..container })),
        State::Running if crashes => Some((millis(300), crash())),
        State::Running if tag == "flaky" => Some((millis(4000), crash())),
        State::Running if tag == "slow" && task => {
            Some((millis(3000), Container { state: State::Ended(0), ..container }))
        }
        State::Running if tag == "slow" && !container.ready => {
            Some((millis(3000), Container { ready: true, ..container }))
        }
        State::Running if task && !matches!(tag, "slow" | "unready" | "hang") => {
            Some((millis(500), Container { state: State::Ended(0), ..container }))
        }
        State::Crashed => {
            let pause = if container.restarts < QUICK_RESTARTS { 1000 } else { 10_000 };
            Some((millis(pause), crash()))
        }
        _ => None,
    }
}

fn status(pod: &Value, memory: &BTreeMap<String, Container>, now: Timestamp) -> Value {
    let old = &pod["status"];
    let shown = |list: &str| -> Vec<Value> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.map(|c| container_status(c, memory.get(c["name"].as_str().unwrap_or_default()))).collect()
    };
    let of = |list: &str| -> Vec<Option<&Container>> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.map(|c| memory.get(c["name"].as_str().unwrap_or_default())).collect()
    };
    let (inits, mains) = (of("initContainers"), of("containers"));
    let initialized = inits.iter().all(|c| c.is_some_and(|c| c.state == State::Ended(0) || c.ready));
    let ready = initialized && mains.iter().all(|c| c.is_some_and(|c| c.ready));
    let state = |c: &Option<&Container>| c.map_or(State::New, |c| c.state);
    let ended = mains.iter().all(|c| matches!(state(c), State::Ended(_)));
    let failed = mains.iter().chain(&inits).any(|c| matches!(state(c), State::Ended(code) if code != 0));
    let waiting =
        mains.iter().any(|c| matches!(state(c), State::New | State::PullError | State::PullBackOff));
    let phase = match () {
        () if failed && (ended || !initialized) => "Failed",
        () if ended && !mains.is_empty() => "Succeeded",
        () if !initialized || waiting => "Pending",
        () => "Running",
    };
    let yes = |yes: bool| if yes { "True" } else { "False" };
    let reason = |fine: bool, reason: &'static str| if fine { "" } else { reason };
    let end = phase == "Succeeded";
    let why = if end { "PodCompleted" } else { "ContainersNotReady" };
    let conditions = [
        ("PodScheduled", true, ""),
        ("Initialized", initialized, reason(initialized, "ContainersNotInitialized")),
        ("ContainersReady", ready, reason(ready, why)),
        ("Ready", ready, reason(ready, why)),
    ];
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, fine, reason)| condition(&old["conditions"], kind, yes(fine), reason, "", now))
        .collect();
    let started = old.get("startTime").cloned().unwrap_or_else(|| time(now));
    let mut out = json!({
        "phase": phase, "conditions": conditions, "startTime": started, "qosClass": old["qosClass"],
        "containerStatuses": shown("containers"), "podIP": "10.250.0.1", "podIPs": [{"ip": "10.250.0.1"}],
        "hostIP": "192.0.2.1",
    });
    if !inits.is_empty() {
        out["initContainerStatuses"] = shown("initContainers").into();
    }
    out
}

fn container_status(container: &Value, memory: Option<&Container>) -> Value {
    let fresh = Container { state: State::New, since: Timestamp::UNIX_EPOCH, restarts: 0, ready: false };
    let known = memory.copied().unwrap_or(fresh);
    let since = time(known.since);
    let terminated = |code: i64| {
        json!({"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
            "startedAt": since, "finishedAt": since})
    };
    let image = container["image"].as_str().unwrap_or_default();
    let wait = |reason: &str, message: String| json!({"waiting": {"reason": reason, "message": message}});
    let why = if tag(container) == "denied" { "403 Forbidden" } else { "not found" };
    let state = match known.state {
        State::New => json!({"waiting": {"reason": "ContainerCreating"}}),
        State::Running | State::Sick => json!({"running": {"startedAt": since}}),
        State::Crashed => wait(
            "CrashLoopBackOff",
            format!(
                "back-off 10s restarting failed container={}",
                container["name"].as_str().unwrap_or_default()
            ),
        ),
        State::PullError => wait("ErrImagePull", format!("failed to pull image {image:?}: {why}")),
        State::PullBackOff => wait("ImagePullBackOff", format!("Back-off pulling image {image:?}: {why}")),
        State::Ended(code) => json!({"terminated": terminated(code)}),
    };
    let last = if known.restarts > 0 { json!({"terminated": terminated(1)}) } else { json!({}) };
    json!({
        "name": container["name"], "image": image, "imageID": "", "ready": known.ready,
        "restartCount": known.restarts, "started": matches!(known.state, State::Running | State::Sick), "state": state,
        "lastState": last,
    })
}
