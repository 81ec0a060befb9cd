//! Whether a selector of an object means a pod, and what it becomes for the candidate's pods.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Labels of a pod or a Service.
pub(super) type Labels = BTreeMap<String, String>;

/// `metadata.labels` of an object or a pod template.
pub(super) fn labels(object: &Value) -> Labels {
    texts(&object["metadata"]["labels"])
}

/// The entries of a map that are texts.
fn texts(map: &Value) -> Labels {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// What a field of an object selects by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A map of labels, as in a Service: an empty one selects nothing.
    Map,
    /// `matchLabels` and `matchExpressions`: an empty one selects everything, and none nothing.
    Selector,
    /// The same, and where it is left out it selects everything.
    SelectorOrAll,
    /// A map of labels; none, and an empty one, selects everything.
    MapOrAll,
}

/// Whether a selector means these labels; `None` when it has an expression that is not understood.
pub(super) fn matches(form: Form, selector: &Value, labels: &Labels) -> Option<bool> {
    let map = |map: &Value| texts(map).iter().all(|(key, value)| labels.get(key) == Some(value));
    let is_empty = selector.as_object().is_none_or(Map::is_empty);
    match form {
        Form::Map => Some(!is_empty && map(selector)),
        Form::MapOrAll => Some(map(selector)),
        Form::Selector if selector.is_null() => Some(false),
        Form::Selector | Form::SelectorOrAll => {
            let mut all = map(&selector["matchLabels"]);
            for expression in super::items(&selector["matchExpressions"]) {
                let found = labels.get(expression["key"].as_str()?);
                let listed =
                    || super::items(&expression["values"]).any(|v| v.as_str() == found.map(String::as_str));
                all &= match expression["operator"].as_str()? {
                    "In" => found.is_some() && listed(),
                    "NotIn" => found.is_none() || !listed(),
                    "Exists" => found.is_some(),
                    "DoesNotExist" => found.is_none(),
                    _ => return None,
                };
            }
            Some(all)
        }
    }
}

/// The label by which the two variants are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rewrite<'a> {
    /// Its key.
    pub(super) key: &'a str,
    /// Its value on the pods of the workload.
    pub(super) from: &'a str,
    /// Its value on the candidate's.
    pub(super) to: &'a str,
}

impl Rewrite<'_> {
    /// Rewrites the label in a map of labels.
    pub(super) fn map(&self, map: Option<&mut Value>) {
        if let Some(value) = map.and_then(|map| map.get_mut(self.key))
            && *value == self.from
        {
            *value = json!(self.to);
        }
    }

    /// Rewrites a selector so that it means the candidate's pods alone, as far as it can be told by this label.
    pub(super) fn only(&self, form: Form, selector: &mut Value) {
        if matches!(form, Form::Map | Form::MapOrAll) {
            return self.map(Some(selector));
        }
        self.map(selector.get_mut("matchLabels"));
        for expression in super::items_mut(selector.get_mut("matchExpressions")) {
            let about = expression["key"] == self.key && expression["operator"] == "In";
            if about && super::items(&expression["values"]).any(|value| *value == self.from) {
                expression["values"] = json!([self.to]);
            }
        }
    }

    /// Puts the candidate in the place of the workload in a selector of the candidate's own pods, such as that of its affinity, if
    /// it tells the two apart: `ours` are the labels of the workload's pods, `theirs` those of the candidate's.
    fn instead(&self, selector: Option<&mut Value>, [ours, theirs]: [&Labels; 2]) {
        let Some(selector) = selector else { return };
        let means = |labels| matches(Form::Selector, selector, labels);
        if means(ours) == means(theirs) {
            return;
        }
        self.map(selector.get_mut("matchLabels"));
        for expression in super::items_mut(selector.get_mut("matchExpressions")) {
            if expression["key"] != self.key {
                continue;
            }
            let leaves_out = expression["operator"] == "NotIn";
            let Some(Value::Array(values)) = expression.get_mut("values") else { continue };
            let Some(at) = values.iter().position(|value| *value == self.from) else { continue };
            match leaves_out {
                // All but the workload's pods: they are left out still, and the candidate's as well.
                true => values.push(json!(self.to)),
                false => values[at] = json!(self.to),
            }
        }
    }

    /// Rewrites the label in the affinity and the topology spread of a pod's `spec` in a namespace; `pods` are the labels of the
    /// workload's pods and of the candidate's.
    pub(super) fn placement(&self, spec: &mut Value, namespace: &str, pods: [&Labels; 2]) {
        for kind in ["podAffinity", "podAntiAffinity"] {
            let Some(rules) = spec.get_mut("affinity").and_then(|a| a.get_mut(kind)) else { continue };
            for term in super::items_mut(rules.get_mut("requiredDuringSchedulingIgnoredDuringExecution")) {
                self.term(term, namespace, pods);
            }
            for weighted in super::items_mut(rules.get_mut("preferredDuringSchedulingIgnoredDuringExecution"))
            {
                if let Some(term) = weighted.get_mut("podAffinityTerm") {
                    self.term(term, namespace, pods);
                }
            }
        }
        for constraint in super::items_mut(spec.get_mut("topologySpreadConstraints")) {
            self.instead(constraint.get_mut("labelSelector"), pods);
        }
    }

    fn term(&self, term: &mut Value, namespace: &str, pods: [&Labels; 2]) {
        let named = term["namespaces"].as_array().is_some_and(|all| !all.is_empty());
        let here = super::items(&term["namespaces"]).any(|name| name == namespace);
        if !named || here || term.get("namespaceSelector").is_some() {
            self.instead(term.get_mut("labelSelector"), pods);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn selectors_mean_what_kubernetes_says_they_mean() {
        let pod = labels(&json!({"metadata": {"labels": {"app": "web", "tier": "front"}}}));
        let table = [
            (Form::Map, json!({"app": "web"}), Some(true)),
            (Form::Map, json!({"app": "db"}), Some(false)),
            (Form::Map, json!({}), Some(false)),
            (Form::Map, json!(null), Some(false)),
            (Form::MapOrAll, json!(null), Some(true)),
            (Form::Selector, json!(null), Some(false)),
            (Form::SelectorOrAll, json!(null), Some(true)),
            (Form::Selector, json!({}), Some(true)),
            (Form::Selector, json!({"matchLabels": {"app": "web", "tier": "front"}}), Some(true)),
            (Form::Selector, json!({"matchLabels": {"app": "web", "tier": "back"}}), Some(false)),
            (
                Form::Selector,
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "web"]}]}),
                Some(true),
            ),
            (
                Form::Selector,
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
                Some(false),
            ),
            (
                Form::Selector,
                json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["web"]}]}),
                Some(true),
            ),
            (
                Form::Selector,
                json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
                Some(true),
            ),
            (
                Form::Selector,
                json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
                Some(false),
            ),
            (
                Form::Selector,
                json!({"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["1"]}]}),
                None,
            ),
        ];
        for (form, selector, expected) in table {
            assert_eq!(matches(form, &selector, &pod), expected, "{form:?} {selector}");
        }
    }

    #[test]
    fn a_placement_follows_the_pods_that_it_means() {
        let rewrite = Rewrite { key: "app", from: "web", to: "web-canary" };
        let pod = |app: &str| labels(&json!({"metadata": {"labels": {"app": app, "tier": "front"}}}));
        let table = [
            (json!({"matchLabels": {"app": "web"}}), json!({"matchLabels": {"app": "web-canary"}})),
            // Another workload of the same application.
            (
                json!({"matchLabels": {"app": "web", "tier": "back"}}),
                json!({"matchLabels": {"app": "web", "tier": "back"}}),
            ),
            (json!({"matchLabels": {"tier": "front"}}), json!({"matchLabels": {"tier": "front"}})),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "cache"]}]}),
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web-canary", "cache"]}]}),
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web", "web-canary"]}]}),
            ),
        ];
        for (before, after) in table {
            let anti = |selector: &Value| {
                let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector});
                let rules = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
                json!({"affinity": {"podAntiAffinity": rules}, "topologySpreadConstraints": [{"labelSelector": selector}]})
            };
            let mut spec = anti(&before);
            rewrite.placement(&mut spec, "shop", [&pod("web"), &pod("web-canary")]);
            assert_eq!(spec, anti(&after));
        }
    }
}
