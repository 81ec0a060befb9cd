//! Pods: the verdict about one that stands in Git, and what of a pod is beyond doubt broken.

use super::live::{Condition, Live, MESSAGE_LIMIT, counted, first_line};
use super::{Broken, Verdict};
use jiff::Timestamp;
use serde_json::Value;

/// When a pod counts as broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRules {
    /// Restarts of one container that are enough. Below it, an application may be waiting for its database.
    pub max_restarts: u32,
    /// When the revision was applied. Restarts of a pod that is older count only if the container is in
    /// back-off and ended after this; a pod that was restarted now and then over weeks is not the revision's
    /// doing. `None`: every pod counts as new.
    pub since: Option<Timestamp>,
}

impl Default for PodRules {
    fn default() -> Self {
        PodRules { max_restarts: 3, since: None }
    }
}

/// The longest part of a container's own last words that is shown, in characters.
const LAST_WORDS: usize = 200;

/// One container's status, with what its specification says.
struct Container<'a> {
    name: &'a str,
    status: Live<'a>,
    is_init: bool,
    has_readiness_probe: bool,
}

fn containers<'a>(pod: &Live<'a>) -> Vec<Container<'a>> {
    let lists = [
        ("/status/initContainerStatuses", "/spec/initContainers", true),
        ("/status/containerStatuses", "/spec/containers", false),
    ];
    let mut all = Vec::new();
    for (statuses, specs, is_init) in lists {
        for status in pod.items(statuses) {
            let name = status.text("/name");
            let spec = pod.items(specs).find(|spec| spec.text("/name") == name);
            all.push(Container {
                name,
                status,
                is_init,
                has_readiness_probe: spec.is_some_and(|spec| spec.get("/readinessProbe").is_some()),
            });
        }
    }
    all
}

impl Container<'_> {
    fn title(&self) -> String {
        format!("{} {}", if self.is_init { "init container" } else { "container" }, self.name)
    }

    fn waiting(&self) -> &str {
        self.status.text("/state/waiting/reason")
    }

    fn is_ready(&self) -> bool {
        self.status.is_set("/ready")
    }

    /// How the container ended last: the state itself, or the one before.
    fn end(&self) -> Option<Live<'_>> {
        ["/state/terminated", "/lastState/terminated"]
            .into_iter()
            .find_map(|at| self.status.get(at))
            .map(Live::new)
    }

    /// `exit code 137 (OOMKilled): cannot open /data`.
    fn last_end(&self, pod: &Live<'_>) -> Option<String> {
        let end = self.end()?;
        let mut text = match (end.int("/exitCode"), end.int("/signal").filter(|signal| *signal != 0)) {
            (Some(code), None) => format!("exit code {code}"),
            (Some(code), Some(signal)) => format!("exit code {code}, signal {signal}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown exit code".to_owned(),
        };
        // `Error` says no more than the code.
        if !matches!(end.text("/reason"), "" | "Error") {
            text.push_str(&format!(" ({})", end.text("/reason")));
        }
        let words = words(pod, end.text("/message"), LAST_WORDS);
        if !words.is_empty() {
            text.push_str(&format!(": {words}"));
        }
        Some(text)
    }
}

/// Text that came from a container or its runtime: one bounded line, with the values of the pod's environment
/// variables taken out, wherever an application may have printed them.
fn words(pod: &Live<'_>, text: &str, limit: usize) -> String {
    first_line(&without_environment(pod, text), limit)
}

/// The text without values of the pod's environment variables.
pub(super) fn without_environment(pod: &Live<'_>, text: &str) -> String {
    let mut text = text.to_owned();
    for list in ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"] {
        for container in pod.items(list) {
            for variable in container.items("/env") {
                let value = variable.text("/value");
                // Shorter ones are words such as `true` and ports, and would take the sense out of the
                // message.
                if value.chars().count() >= 8 && text.contains(value) {
                    text = text.replace(value, "…");
                }
            }
        }
    }
    text
}

/// Whether what a registry said cannot be mended by asking again.
fn image_is_refused(message: &str) -> Option<bool> {
    let message = message.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    // Looked at first: a rate limit is often told as "denied".
    if says(&[
        "toomanyrequests",
        "too many requests",
        "429",
        "rate limit",
        "timeout",
        "timed out",
        "deadline exceeded",
        "connection refused",
        "connection reset",
        "no route to host",
        "network is unreachable",
        "no such host",
        "server misbehaving",
        "temporary failure",
        "service unavailable",
        "bad gateway",
        "internal server error",
        "registry is unavailable",
        "unexpected eof",
        "context canceled",
        "no space left",
        "qps exceeded",
    ]) {
        return Some(false);
    }
    if says(&[
        "not found",
        "manifest unknown",
        "name unknown",
        "does not exist",
        "denied",
        "unauthorized",
        "forbidden",
        "authentication required",
        "authorization failed",
        "no basic auth credentials",
        "no match for platform",
        "no matching manifest",
        "invalid reference",
    ]) {
        return Some(true);
    }
    None
}

/// What is beyond doubt broken about the image of a container.
fn image_trouble(pod: &Live<'_>, container: &Container<'_>) -> Option<Broken> {
    let message = container.status.text("/state/waiting/message");
    let reason = match (container.waiting(), image_is_refused(message)) {
        ("InvalidImageName", _) => "InvalidImageName",
        ("ErrImageNeverPull", _) => "ErrImageNeverPull",
        // The first failure may be the registry's bad moment, so its words have to say that the image is not
        // to be had.
        ("ErrImagePull", Some(true)) => "ErrImagePull",
        // A second failure: enough, unless the words name a bad moment.
        ("ImagePullBackOff", Some(true) | None) => "ImagePullBackOff",
        _ => return None,
    };
    let image = container.status.text("/image");
    let said = words(pod, message, MESSAGE_LIMIT);
    let mut text = format!("{}: {reason}", container.title());
    if !image.is_empty() && !said.contains(image) {
        text.push_str(&format!(" for {image}"));
    }
    if !said.is_empty() {
        text.push_str(&format!(": {said}"));
    }
    Some(Broken { reason, message: text })
}

/// What is beyond doubt broken about the restarts of a container.
fn restart_trouble(pod: &Live<'_>, container: &Container<'_>, rules: &PodRules) -> Option<Broken> {
    let restarts = container.status.count("/restartCount");
    if rules.max_restarts == 0 || restarts < i64::from(rules.max_restarts) {
        return None;
    }
    let in_back_off = container.waiting() == "CrashLoopBackOff";
    let since = rules.since.map(|since| since.as_second());
    let is_after = |time: &str| match (since, time.parse::<Timestamp>()) {
        (Some(since), Ok(time)) => time.as_second() >= since,
        (Some(_), Err(_)) => false,
        (None, _) => true,
    };
    let is_new = is_after(pod.text("/metadata/creationTimestamp"));
    let ended_well = container.status.int("/state/terminated/exitCode") == Some(0) && container.is_init;
    let counts = if ended_well {
        // An init container that failed some times and then did its work.
        false
    } else if container.is_ready() {
        // Without a probe "ready" says no more than "runs at this moment", which is no answer to three
        // restarts.
        is_new && since.is_some() && !container.has_readiness_probe && !container.is_init
    } else {
        is_new || (in_back_off && container.end().is_some_and(|end| is_after(end.text("/finishedAt"))))
    };
    if !counts {
        return None;
    }
    let mut message = format!("{} restarted {}", container.title(), counted(restarts, "time"));
    if let Some(end) = container.last_end(pod) {
        message.push_str(&format!(", last with {end}"));
    }
    Some(Broken { reason: "CrashLoopBackOff", message })
}

/// Why a new pod will not become ready however long one waits: an image that is not to be had, or a container
/// that restarted [`PodRules::max_restarts`] times and is not ready. `None` for what may pass: a pod that no
/// node has room for (nodes may be added), a ConfigMap or Secret that is missing (something else may be about
/// to make it), a registry that does not answer, an eviction (its workload makes another pod). Those are told
/// by [`pod_waits_for`].
pub fn pod_trouble(pod: &Value, rules: &PodRules) -> Option<Broken> {
    let live = Live::new(pod);
    let trouble = trouble(&live, rules)?;
    Some(Broken { message: with_pod(&live, &trouble.message), ..trouble })
}

/// As [`pod_trouble`], but only for images: for pods whose restarts somebody else counts (a Job's
/// `backoffLimit`).
pub(super) fn pod_image_trouble(pod: &Live<'_>) -> Option<Broken> {
    let trouble = containers(pod).iter().find_map(|container| image_trouble(pod, container))?;
    Some(Broken { message: with_pod(pod, &trouble.message), ..trouble })
}

fn trouble(live: &Live<'_>, rules: &PodRules) -> Option<Broken> {
    if !live.text("/metadata/deletionTimestamp").is_empty()
        || matches!(live.text("/status/phase"), "Succeeded" | "Failed")
    {
        return None;
    }
    let containers = containers(live);
    containers
        .iter()
        .find_map(|container| image_trouble(live, container))
        .or_else(|| containers.iter().find_map(|container| restart_trouble(live, container, rules)))
}

fn with_pod(pod: &Live<'_>, message: &str) -> String {
    match pod.text("/metadata/name") {
        "" => message.to_owned(),
        name => format!("pod {name}: {message}"),
    }
}

/// What a pod that is not ready waits for, with its name; `None` when it is ready, has ended well or is being
/// deleted. This is what to show when a wait lasts, also when nothing is beyond doubt broken.
pub fn pod_waits_for(pod: &Value) -> Option<String> {
    let live = Live::new(pod);
    if !live.text("/metadata/deletionTimestamp").is_empty() || live.text("/status/phase") == "Succeeded" {
        return None;
    }
    waits_for(&live).map(|message| with_pod(&live, &message))
}

fn waits_for(live: &Live<'_>) -> Option<String> {
    if live.text("/status/phase") == "Failed" {
        return Some(failure(live));
    }
    if live.condition("Ready").is_some_and(|c| c.is_true()) {
        return None;
    }
    if let Some(scheduled) = live.condition("PodScheduled").filter(Condition::is_false) {
        return Some(match scheduled.reason {
            "SchedulingGated" => format!(
                "is held by scheduling gates {}",
                live.items("/spec/schedulingGates")
                    .map(|gate| gate.text("/name"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            _ => format!("cannot be scheduled: {}", first_line(scheduled.message, MESSAGE_LIMIT)),
        });
    }
    let containers = containers(live);
    // What explains most comes first: a waiting container with a message, then one that ended, then one not
    // ready.
    let explained = containers.iter().find_map(|container| {
        let reason = container.waiting();
        match reason {
            "" | "ContainerCreating" | "PodInitializing" => None,
            "CrashLoopBackOff" => Some(format!(
                "{} restarted {} and waits before the next{}",
                container.title(),
                counted(container.status.count("/restartCount"), "time"),
                container.last_end(live).map(|end| format!(", last with {end}")).unwrap_or_default()
            )),
            reason => {
                let said = words(live, container.status.text("/state/waiting/message"), MESSAGE_LIMIT);
                Some(format!(
                    "{} waits: {reason}{}{said}",
                    container.title(),
                    if said.is_empty() { "" } else { ": " }
                ))
            }
        }
    });
    let ended = || {
        containers.iter().find_map(|container| {
            let code = container.status.int("/state/terminated/exitCode")?;
            let over = container.is_init && code == 0;
            (!over).then(|| {
                format!("{} ended with {}", container.title(), container.last_end(live).unwrap_or_default())
            })
        })
    };
    let not_ready = || {
        let names: Vec<&str> =
            containers.iter().filter(|c| !c.is_init && !c.is_ready()).map(|c| c.name).collect();
        let starting = containers
            .iter()
            .find(|c| c.is_init && !c.is_ready() && c.status.get("/state/running").is_some());
        let restarts = containers.iter().map(|c| c.status.count("/restartCount")).max().unwrap_or(0);
        let suffix = match restarts {
            0 => String::new(),
            restarts => format!(" after {}", counted(restarts, "restart")),
        };
        match (names.as_slice(), starting) {
            (_, Some(init)) => Some(format!("{} runs{suffix}", init.title())),
            ([], None) => None,
            (names, None) => Some(format!(
                "{} {} not ready{suffix}",
                names.join(", "),
                if names.len() == 1 { "is" } else { "are" }
            )),
        }
    };
    explained.or_else(ended).or_else(not_ready).or_else(|| {
        let unready = live.conditions().find(|c| c.kind == "Ready" && !c.is_true() && !c.message.is_empty());
        Some(match unready {
            Some(unready) => format!("is not ready: {}", unready.why()),
            None if live.text("/spec/nodeName").is_empty() => "is not scheduled yet".to_owned(),
            None => "is starting".to_owned(),
        })
    })
}

/// Why a pod that ended did so.
fn failure(live: &Live<'_>) -> String {
    let said = words(live, live.text("/status/message"), MESSAGE_LIMIT);
    match (live.text("/status/reason"), said) {
        ("", said) if said.is_empty() => {
            let ended = containers(live).into_iter().find(|container| {
                container.end().is_some_and(|end| end.int("/exitCode").is_some_and(|code| code != 0))
            });
            match ended {
                Some(container) => {
                    format!(
                        "failed: {} ended with {}",
                        container.title(),
                        container.last_end(live).unwrap_or_default()
                    )
                }
                None => "failed".to_owned(),
            }
        }
        ("", said) => format!("failed: {said}"),
        (reason, said) if said.is_empty() => format!("failed: {reason}"),
        (reason, said) => format!("failed: {reason}: {said}"),
    }
}

/// A Pod that stands in Git. Nothing makes it anew, so one that failed or was evicted stays so.
pub(super) fn verdict(live: &Live<'_>) -> Verdict {
    match live.text("/status/phase") {
        "Succeeded" => return Verdict::healthy("has run to its end"),
        "Failed" => {
            return Verdict::broken(
                if live.text("/status/reason") == "Evicted" { "Evicted" } else { "PodFailed" },
                format!("{}; nothing makes it anew", failure(live)),
            );
        }
        _ => {}
    }
    if let Some(trouble) = trouble(live, &PodRules::default()) {
        return Verdict::broken(trouble.reason, trouble.message);
    }
    match waits_for(live) {
        None => Verdict::healthy("is ready"),
        Some(message) => Verdict::progressing(message),
    }
}
