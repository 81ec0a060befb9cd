//! Which namespaces a monitor looks into, and which Services it means.

use super::build::{Of, ServicePair};
use super::selects::{Form, Labels, labels, matches};
use super::{at, items};
use crate::core::manifest::{Manifest, ObjectId};

/// Whether an object that selects pods or Services looks into a namespace: its own, unless it names others.
pub(super) fn looks_into(object: &Manifest, namespace: &str) -> bool {
    let group = object.gvk().group;
    // What stands in Istio's root namespace holds for the whole mesh.
    if group.ends_with(".istio.io") && object.namespace() == "istio-system" {
        return true;
    }
    let wider = at(object, &["spec", "namespaceSelector"]);
    if group != "monitoring.coreos.com" || wider.is_null() {
        return object.namespace() == namespace;
    }
    let mut named = items(&wider["matchNames"]).peekable();
    wider["any"] == true
        || named.peek().is_none() && object.namespace() == namespace
        || named.any(|name| name == namespace)
}

/// How a ServiceMonitor's selector stands to a Service and to its copy.
pub(super) struct Seen {
    /// Which of the copied Services, by their place.
    pub(super) service: usize,
    /// Labels of the Service and of its copy.
    pub(super) labels: [Labels; 2],
}

/// The copied Services that a ServiceMonitor selects, without the copies: it needs a copy of its own for those.
pub(super) fn seen(
    of: &Of,
    monitor: &Manifest,
    pairs: &[ServicePair],
    made: &[Manifest],
) -> Option<Vec<Seen>> {
    let selector = at(monitor, &["spec", "selector"]);
    let mut all = Vec::new();
    for (service, pair) in pairs.iter().enumerate() {
        let id = |name: &str| ObjectId {
            group: String::new(),
            kind: "Service".into(),
            namespace: pair.namespace.clone(),
            name: name.into(),
        };
        let copy = made.iter().find(|object| object.id() == id(&pair.candidate));
        let (Some(original), Some(copy)) = (of.target.get(&id(&pair.stable)), copy) else { continue };
        if !looks_into(monitor, &pair.namespace) {
            continue;
        }
        let labels = [original, copy].map(|service| labels(&service.to_value()));
        let (one, other) =
            (matches(Form::Selector, selector, &labels[0])?, matches(Form::Selector, selector, &labels[1])?);
        if one != other {
            all.push(Seen { service, labels });
        }
    }
    Some(all)
}
