//! What else goes by a workload's label, or by the name of its Service, and so needs a copy for the candidate: budgets,
//! monitors, policies. What cannot be copied faithfully refuses the rollout.

use super::build::{Candidate, Of, ServicePair, Twin, copy};
use super::label::UNKNOWN;
use super::names::Names;
use super::selects::{Form, Rewrite, matches};
use super::{at, at_mut, items, items_mut, monitors, network, problem};
use crate::api::delivery::Problem;
use crate::core::manifest::Manifest;
use serde_json::{Value, json};

/// Kinds that select pods and are good for a candidate's in a copy: group, kind, where the selector stands, its form.
pub(super) const SELECTING: [(&str, &str, &[&str], Form); 11] = [
    ("policy", "PodDisruptionBudget", &["spec", "selector"], Form::Selector),
    ("networking.k8s.io", "NetworkPolicy", &["spec", "podSelector"], Form::SelectorOrAll),
    ("monitoring.coreos.com", "PodMonitor", &["spec", "selector"], Form::Selector),
    ("monitoring.googleapis.com", "PodMonitoring", &["spec", "selector"], Form::Selector),
    ("security.istio.io", "AuthorizationPolicy", &["spec", "selector"], Form::SelectorOrAll),
    ("security.istio.io", "PeerAuthentication", &["spec", "selector"], Form::SelectorOrAll),
    ("security.istio.io", "RequestAuthentication", &["spec", "selector"], Form::SelectorOrAll),
    ("telemetry.istio.io", "Telemetry", &["spec", "selector"], Form::SelectorOrAll),
    ("extensions.istio.io", "WasmPlugin", &["spec", "selector"], Form::SelectorOrAll),
    ("networking.istio.io", "EnvoyFilter", &["spec", "workloadSelector", "labels"], Form::MapOrAll),
    ("networking.istio.io", "Sidecar", &["spec", "workloadSelector", "labels"], Form::MapOrAll),
];

/// Groups whose kinds select no pods, or whose selectors have been looked at where the label is chosen.
const KNOWN: [&str; 13] = [
    "",
    "apps",
    "batch",
    "autoscaling",
    "autoscaling.k8s.io",
    "keda.sh",
    "rbac.authorization.k8s.io",
    "apiextensions.k8s.io",
    "storage.k8s.io",
    "scheduling.k8s.io",
    "cert-manager.io",
    "gateway.networking.k8s.io",
    "monitoring.coreos.com",
];

/// Copies what goes by the label of a workload or by the name of its Service.
pub(super) fn copies(of: &Of, names: &mut Names, made: &mut Candidate) -> Result<(), Problem> {
    for object in of.target.objects() {
        let (group, kind) = (object.gvk().group, object.gvk().kind);
        if let Some((_, _, path, form)) = SELECTING.iter().find(|(g, k, ..)| *g == group && *k == kind) {
            selecting(object, path, *form, of, names, made)?;
        } else if (group.as_str(), kind.as_str()) == ("monitoring.coreos.com", "ServiceMonitor") {
            service_monitor(object, of, names, made)?;
        } else if (group.as_str(), kind.as_str()) == ("networking.istio.io", "DestinationRule") {
            destination_rule(object, of, names, made)?;
        } else if (group.as_str(), kind.as_str()) == ("gateway.networking.k8s.io", "ReferenceGrant") {
            grant(object, names, made);
        } else if !KNOWN.contains(&group.as_str()) {
            unknown(object, &of.twins)?;
        }
        attached(object, names, made);
    }
    Ok(())
}

/// What is said of a selector that leaves the workload out.
const OTHERS: &str = "means all but those, the candidate's among them";

/// Why an object cannot be copied.
fn refusal(object: &Manifest, twin: &Twin, why: &str) -> Problem {
    let Rewrite { key, from, .. } = twin.rewrite();
    let text = format!(
        "goes by the label {key}: {from} of the pods of {}, and {why}. Leave {key} out of its selector, so that it means both \
         variants, or keep it in a Delivery of its own",
        twin.new.id()
    );
    problem("CannotFollowCandidate", object, &text)
}

/// An object that selects pods.
fn selecting(
    object: &Manifest,
    path: &[&str],
    form: Form,
    of: &Of,
    names: &mut Names,
    made: &mut Candidate,
) -> Result<(), Problem> {
    let selector = at(object, path);
    for twin in of.twins.iter().filter(|twin| monitors::looks_into(object, twin.namespace())) {
        let sees = |labels| {
            matches(form, selector, labels).ok_or_else(|| problem("SelectorNotUnderstood", object, UNKNOWN))
        };
        let (ours, theirs) = (sees(&twin.ours[1])?, sees(&twin.theirs)?);
        if ours == theirs {
            continue;
        }
        if !ours {
            return Err(refusal(object, twin, OTHERS));
        }
        let mut copied = copy(object, "");
        if let Some(selector) = at_mut(&mut copied, path) {
            twin.rewrite().only(form, selector);
        }
        let means = |labels| matches(form, at(&copied, path), labels);
        let original = twin.ours.iter().any(|labels| means(labels) != Some(false));
        if means(&twin.theirs) != Some(true) || original {
            return Err(refusal(
                object,
                twin,
                "by what else it asks for, no selector like it means the candidate's pods alone",
            ));
        }
        if network::is_policy(object) {
            network::with_peers(&mut copied, &of.twins);
        }
        budget(&mut copied, twin);
        copied.set_metadata("name", json!(names.fresh(&object.id())));
        made.objects.push(copied);
    }
    Ok(())
}

/// A budget that wants a number of pods: as many of the candidate's may be away as of the workload's.
fn budget(object: &mut Manifest, twin: &Twin) {
    if object.gvk().kind != "PodDisruptionBudget" {
        return;
    }
    if let Some(least) = at(object, &["spec", "minAvailable"]).as_i64()
        && let Some(value) = at_mut(object, &["spec", "minAvailable"])
    {
        *value = json!(twin.replicas.saturating_sub(twin.wanted.saturating_sub(least).max(0)).max(0));
    }
}

/// A monitor that selects Services.
fn service_monitor(
    object: &Manifest,
    of: &Of,
    names: &mut Names,
    made: &mut Candidate,
) -> Result<(), Problem> {
    let pairs = made.services.clone();
    let Some(seen) = monitors::seen(of, object, &pairs, &made.objects) else {
        return Err(problem("SelectorNotUnderstood", object, UNKNOWN));
    };
    let mut done: Vec<Manifest> = Vec::new();
    for one in seen {
        let namespace = &pairs[one.service].namespace;
        let mut twins = of.twins.iter().filter(|twin| twin.namespace() == namespace);
        let twin = twins.find(|twin| {
            let Rewrite { key, from, to } = twin.rewrite();
            let is =
                |labels: &super::selects::Labels, value| labels.get(key).map(String::as_str) == Some(value);
            is(&one.labels[0], from) && is(&one.labels[1], to)
        });
        let Some(twin) = twin else { continue };
        if matches(Form::Selector, at(object, &["spec", "selector"]), &one.labels[0]) != Some(true) {
            return Err(refusal(object, twin, OTHERS));
        }
        let mut copied = copy(object, "");
        if let Some(selector) = at_mut(&mut copied, &["spec", "selector"]) {
            twin.rewrite().only(Form::Selector, selector);
        }
        let means = |labels| matches(Form::Selector, at(&copied, &["spec", "selector"]), labels);
        if means(&one.labels[1]) != Some(true) || means(&one.labels[0]) != Some(false) {
            return Err(refusal(object, twin, "no selector like it means the candidate's Service alone"));
        }
        // One copy for all Services of a candidate.
        if !done.contains(&copied) {
            done.push(copied.clone());
            copied.set_metadata("name", json!(names.fresh(&object.id())));
            made.objects.push(copied);
        }
    }
    Ok(())
}

/// The Service that a host of Istio means: `web`, `web.shop`, `web.shop.svc.cluster.local`.
pub(super) fn of_host<'a>(host: &str, namespace: &str, pairs: &'a [ServicePair]) -> Option<&'a ServicePair> {
    let mut parts = host.split('.');
    let (name, place) = (parts.next()?, parts.next().unwrap_or(namespace));
    if parts.next().is_some_and(|word| word != "svc") {
        return None;
    }
    pairs.iter().find(|pair| pair.stable == name && pair.namespace == place)
}

/// How a Service is called from the mesh: its host has the candidate's name, and its subsets the candidate's label.
fn destination_rule(
    object: &Manifest,
    of: &Of,
    names: &mut Names,
    made: &mut Candidate,
) -> Result<(), Problem> {
    const SELECTOR: [&str; 2] = ["spec", "workloadSelector"];
    for twin in of.twins.iter().filter(|twin| twin.namespace() == object.namespace()) {
        let sees = |labels| matches(Form::SelectorOrAll, at(object, &SELECTOR), labels);
        if sees(&twin.ours[1]) != sees(&twin.theirs) {
            return Err(refusal(
                object,
                twin,
                "what it says of calls that those pods make cannot be said for the candidate's",
            ));
        }
    }
    let host = at(object, &["spec", "host"]).as_str().unwrap_or_default();
    let Some(pair) = of_host(host, object.namespace(), &made.services) else { return Ok(()) };
    let mut copied = copy(object, &names.fresh(&object.id()));
    let rest = host.split_once('.').map(|(_, rest)| format!(".{rest}")).unwrap_or_default();
    if let Some(spec) = at_mut(&mut copied, &["spec"]) {
        spec["host"] = json!(format!("{}{rest}", pair.candidate));
        for subset in items_mut(spec.get_mut("subsets")) {
            for twin in of.twins.iter().filter(|twin| twin.namespace() == pair.namespace) {
                twin.rewrite().map(subset.get_mut("labels"));
            }
        }
    }
    made.objects.push(copied);
    Ok(())
}

/// Who may name a Service from another namespace may name the candidate's.
fn grant(object: &Manifest, names: &mut Names, made: &mut Candidate) {
    let to: Vec<Value> = items(at(object, &["spec", "to"]))
        .filter_map(|target| renamed(target, object.namespace(), &made.services))
        .collect();
    if to.is_empty() {
        return;
    }
    let mut copied = copy(object, &names.fresh(&object.id()));
    if let Some(spec) = at_mut(&mut copied, &["spec"]) {
        spec["to"] = Value::Array(to);
    }
    made.objects.push(copied);
}

/// The Service that a reference means, if it has a copy.
pub(super) fn of_reference<'a>(
    reference: &Value,
    namespace: &str,
    pairs: &'a [ServicePair],
) -> Option<&'a ServicePair> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    if text("kind") != "Service" || !["", "core"].contains(&text("group")) {
        return None;
    }
    let place = reference["namespace"].as_str().unwrap_or(namespace);
    pairs.iter().find(|pair| pair.stable == text("name") && pair.namespace == place)
}

/// A reference to a Service that has a copy, to the copy.
fn renamed(reference: &Value, namespace: &str, pairs: &[ServicePair]) -> Option<Value> {
    let pair = of_reference(reference, namespace, pairs)?;
    let mut reference = reference.clone();
    reference["name"] = json!(pair.candidate);
    Some(reference)
}

/// A policy that is attached to Services by `targetRef` or `targetRefs`, such as a BackendTLSPolicy (GEP-713): the copy is attached
/// to the candidate's alone.
fn attached(object: &Manifest, names: &mut Names, made: &mut Candidate) {
    let refs: Vec<Value> = items(at(object, &["spec", "targetRefs"]))
        .filter_map(|target| renamed(target, object.namespace(), &made.services))
        .collect();
    let one = renamed(at(object, &["spec", "targetRef"]), object.namespace(), &made.services);
    if refs.is_empty() && one.is_none() {
        return;
    }
    let mut copied = copy(object, &names.fresh(&object.id()));
    if let Some(spec) = at_mut(&mut copied, &["spec"]) {
        if !refs.is_empty() {
            spec["targetRefs"] = Value::Array(refs);
        }
        if let Some(one) = one {
            spec["targetRef"] = one;
        }
    }
    made.objects.push(copied);
}

/// Refuses an object of a kind that is not known here and that selects pods by the label that is rewritten.
fn unknown(object: &Manifest, twins: &[Twin]) -> Result<(), Problem> {
    for twin in twins {
        let here = object.namespace().is_empty() || object.namespace() == twin.namespace();
        if here && object.fields().values().any(|value| selects_by(value, &twin.rewrite(), false)) {
            return Err(refusal(object, twin, "what a copy of it for the candidate would do is not known"));
        }
    }
    Ok(())
}

/// Whether something below a value selects by a label: a map, an expression or a text at a field that is a selector by its name.
/// Selectors of namespaces are none of pods.
fn selects_by(value: &Value, label: &Rewrite, inside: bool) -> bool {
    match value {
        Value::Object(fields) => {
            let expression = inside
                && fields.get("key").is_some_and(|key| is_key(key.as_str().unwrap_or_default(), label))
                && fields.get("values").is_some_and(|values| items(values).any(|v| *v == label.from));
            expression
                || fields.iter().any(|(name, below)| {
                    let named = name.to_ascii_lowercase();
                    if named.ends_with("namespaceselector") {
                        return false;
                    }
                    let inside = inside || named.ends_with("selector") || named == "matchlabels";
                    let entry = inside && is_key(name, label) && *below == label.from;
                    entry || selects_by(below, label, inside)
                })
        }
        Value::Array(all) => all.iter().any(|item| selects_by(item, label, inside)),
        Value::String(text) => {
            inside && has_word(text, label.key) && has_word(text, label.from) && text.contains('=')
        }
        _ => false,
    }
}

/// Whether a key is that of a label; Cilium writes `k8s:app` for `app`.
fn is_key(name: &str, label: &Rewrite) -> bool {
    name.rsplit_once(':').map_or(name, |(_, key)| key) == label.key
}

/// Whether a selector that is a text has a word.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c))).any(|part| part == word)
}
