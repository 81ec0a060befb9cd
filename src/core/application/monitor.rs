//! How the Prometheus Operator finds the metrics of an Application.

use super::notice::Notice;
use super::{App, set};
use crate::core::manifest::Gvk;
use serde_json::{Value, json};

/// What a cluster has that an Application makes use of where it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// PodMonitors.
    pub pod_monitors: bool,
}

const API: &str = "monitoring.coreos.com/v1";
const KIND: &str = "PodMonitor";

impl Kinds {
    /// What a cluster has, by what it says of a kind.
    pub fn new(has: impl Fn(&Gvk) -> bool) -> Self {
        Kinds { pod_monitors: has(&Gvk::new(API, KIND)) }
    }
}

/// The PodMonitor, where there are metrics and the cluster has the kind.
pub(super) fn pod_monitor(app: &App, kinds: Kinds) -> Option<Value> {
    let metrics = app.spec.metrics.as_ref()?;
    let asked = metrics.pod_monitor.clone().unwrap_or_default();
    if !asked.enabled || !kinds.pod_monitors {
        return None;
    }
    let own = app.metrics_port().map(|_| "metrics".to_owned());
    let known = |number: i32| app.ports.iter().find(|port| port.number == number && port.protocol == "TCP");
    let port = match metrics.port {
        Some(number) => known(number),
        None => app.first_port(),
    };
    let port = own.or(port.map(|port| port.name.clone()))?;
    let mut endpoint = json!({"port": port, "path": metrics.path});
    set(&mut endpoint, "interval", asked.interval.map(|time| time.to_string().into()));
    let mut object = app.object(API, KIND, &app.name);
    for (label, value) in &asked.labels {
        // Ours stay: what finds the objects of an Application goes by them.
        if object["metadata"]["labels"].get(label).is_none() {
            object["metadata"]["labels"][label.as_str()] = value.clone().into();
        }
    }
    object["spec"] = json!({"selector": {"matchLabels": app.selector()}, "podMetricsEndpoints": [endpoint]});
    Some(object)
}

/// What is asked for in so many words, and left out: without them the annotations do.
pub(super) fn notice(app: &App, kinds: Kinds) -> Option<Notice> {
    let asked = app.spec.metrics.as_ref().and_then(|metrics| metrics.pod_monitor.as_ref());
    let asked = asked.is_some_and(|monitor| monitor.enabled);
    (asked && !kinds.pod_monitors).then(|| {
        let text = "spec.metrics.podMonitor is left out, as PodMonitors (monitoring.coreos.com/v1) are not known here; the Prometheus \
                    Operator brings them";
        Notice::new("KindNotServed", text)
    })
}
