//! Fields whose rightful owner is somebody else without anybody saying so: replicas under an autoscaler, resources that a
//! VerticalPodAutoscaler sets, CA bundles that an injector fills in.

use super::fields::{Path, owned_by};
use super::ignore::{Exemption, Pattern, of_managers};
use super::manifest::Gvk;
use crate::api::names::FIELD_MANAGER;
use serde_json::Value;

/// Annotations by which an injector of CA bundles is asked for: those of cert-manager and of OpenShift's service CA.
const INJECTED: [&str; 5] = [
    "cert-manager.io/inject-ca-from",
    "cert-manager.io/inject-ca-from-secret",
    "cert-manager.io/inject-apiserver-ca",
    "service.beta.openshift.io/inject-cabundle",
    "service.alpha.openshift.io/inject-cabundle",
];

/// Field managers of the VerticalPodAutoscaler.
const VERTICAL: [&str; 3] = ["vpa-updater", "vpa-admission-controller", "vpa-recommender"];

/// Where an object has CA bundles that others fill in.
fn bundles(object: &Value) -> Option<&'static [&'static str]> {
    let gvk = Gvk::new(object["apiVersion"].as_str()?, object["kind"].as_str()?);
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => Some(&["webhooks", "*", "clientConfig", "caBundle"]),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            Some(&["spec", "conversion", "webhook", "clientConfig", "caBundle"])
        }
        ("apiregistration.k8s.io", "APIService") => Some(&["spec", "caBundle"]),
        _ => None,
    }
}

/// The values that Git gives to CA bundles of an object.
fn given<'a>(value: &'a Value, path: &[&str], out: &mut Vec<&'a Value>) {
    match (path.split_first(), value) {
        (None, value) => out.push(value),
        (Some((&"*", rest)), Value::Array(items)) => items.iter().for_each(|item| given(item, rest, out)),
        (Some((name, rest)), Value::Object(map)) => {
            if let Some(below) = map.get(*name) {
                given(below, rest, out);
            }
        }
        _ => {}
    }
}

/// Whether Git leaves a CA bundle to whoever fills it in: it is empty, or base64 of white space, as scaffolds write it.
fn is_placeholder(value: &Value) -> bool {
    value.is_null() || matches!(value.as_str(), Some("" | "Cg==" | "\n" | "IA=="))
}

/// Whether the CA bundles of a manifest are others' to fill in.
fn bundles_left(desired: &Value) -> Option<Pattern> {
    let path = bundles(desired)?;
    let annotations = &desired["metadata"]["annotations"];
    let mut values = Vec::new();
    given(desired, path, &mut values);
    let asked = INJECTED.iter().any(|name| !annotations[*name].is_null());
    let empty = !values.is_empty() && values.iter().all(|value| is_placeholder(value));
    (asked || empty).then(|| Pattern::of(path))
}

/// Whether an object may have such fields, so that it must be read before it is applied. `touched`: somebody has changed what
/// we own since our last apply, or something was left to others then.
pub fn concerns(desired: &Value, touched: bool) -> bool {
    bundles_left(desired).is_some() || (touched && template(desired).is_some())
}

/// Whether the replicas of an object may be an autoscaler's: Git names some, and they are not as we applied them.
pub fn replicas_are_anothers(desired: &Value, live: &Value) -> bool {
    let (wanted, found) = (&desired["spec"]["replicas"], &live["spec"]["replicas"]);
    let ours = || owned_by(live, FIELD_MANAGER).contains(&Path::fields(["spec", "replicas"]));
    wanted.is_number() && found.is_number() && (wanted != found || !ours())
}

/// Where a workload has its pods' containers.
fn template(object: &Value) -> Option<&'static [&'static str]> {
    let gvk = Gvk::new(object["apiVersion"].as_str()?, object["kind"].as_str()?);
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => Some(&["spec"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template", "spec"]),
        _ if object["spec"]["replicas"].is_number() || object["spec"]["template"]["spec"].is_object() => {
            Some(&["spec", "template", "spec"])
        }
        _ => None,
    }
}

/// What of an object that is there has another rightful owner. `scaled`: an autoscaler scales it.
pub fn exemptions(desired: &Value, live: &Value, scaled: bool) -> Vec<Exemption> {
    let mut out = Vec::new();
    // An injector that has not come yet leaves what Git says: until then the field is ours.
    if let Some(path) = bundles_left(desired) {
        let mut values = Vec::new();
        if let Some(path) = bundles(desired) {
            given(live, path, &mut values);
        }
        if values.iter().any(|value| !is_placeholder(value)) {
            out.push(Exemption { paths: vec![path], theirs: None });
        }
    }
    if scaled && desired["spec"]["replicas"].is_number() {
        out.push(Exemption { paths: vec![Pattern::of(&["spec", "replicas"])], theirs: None });
    }
    if let Some(path) = template(desired) {
        let theirs = of_managers(live, |manager| VERTICAL.contains(&manager));
        if !theirs.is_empty() {
            let of = |list: &str| {
                let names: Vec<&str> = path.iter().copied().chain([list, "*", "resources"]).collect();
                Pattern::of(&names)
            };
            out.push(Exemption { paths: vec![of("containers"), of("initContainers")], theirs: Some(theirs) });
        }
    }
    out
}

/// Whether what is left to others is left to some of them only: it is drift again as soon as another one writes it, which none of
/// our fields shows.
pub fn depends_on_who(desired: &Value, live: &Value) -> bool {
    exemptions(desired, live, false).iter().any(|e| e.theirs.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hooks(bundles: &[&str], annotated: bool) -> Value {
        let hooks: Vec<Value> = bundles
            .iter()
            .enumerate()
            .map(|(n, bundle)| json!({"name": format!("h{n}"), "clientConfig": {"caBundle": bundle}}))
            .collect();
        let annotations = if annotated { json!({INJECTED[0]: "a/b"}) } else { json!({}) };
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "it", "annotations": annotations}, "webhooks": hooks})
    }

    #[test]
    fn a_ca_bundle_is_the_injectors_when_git_leaves_it_empty_or_asks_for_one() {
        let injected = hooks(&["QUJD"], false);
        let table = [
            (hooks(&[""], false), true),
            (hooks(&["Cg=="], false), true),
            (hooks(&["REVG"], false), false),
            (hooks(&["REVG"], true), true),
            (hooks(&["", "REVG"], false), false),
            (json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"caBundle": ""}}), false),
        ];
        for (desired, left) in table {
            assert_eq!(concerns(&desired, false), left, "{desired}");
            assert_eq!(!exemptions(&desired, &injected, false).is_empty(), left, "{desired}");
        }
        // Nobody has filled it in.
        assert!(exemptions(&hooks(&[""], false), &hooks(&[""], false), false).is_empty());
    }

    #[test]
    fn a_ca_bundle_is_the_injectors_in_each_kind_that_has_one() {
        let with = |bundle: &str| {
            let client = json!({"caBundle": bundle});
            [
                json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                    "webhooks": [{"name": "a", "clientConfig": client}]}),
                json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                    "spec": {"conversion": {"webhook": {"clientConfig": client}}}}),
                json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": client}),
            ]
        };
        for (desired, live) in with("").iter().zip(with("QUJD")) {
            assert_eq!(exemptions(desired, &live, false).len(), 1, "{desired}");
        }
        for (desired, live) in with("REVG").iter().zip(with("QUJD")) {
            assert!(exemptions(desired, &live, false).is_empty(), "{desired}");
        }
    }

    #[test]
    fn replicas_are_the_autoscalers_only_where_there_is_one() {
        let web = |replicas: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": replicas}});
        assert!(replicas_are_anothers(&web(json!(2)), &web(json!(5))));
        assert!(replicas_are_anothers(&web(json!(2)), &web(json!(2))));
        assert!(!replicas_are_anothers(&web(Value::Null), &web(json!(2))));
        let mut ours = web(json!(2));
        ours["metadata"] = json!({"managedFields": [
            {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]});
        assert!(!replicas_are_anothers(&web(json!(2)), &ours));
        assert!(exemptions(&web(json!(2)), &web(json!(5)), false).is_empty());
        assert_eq!(exemptions(&web(json!(2)), &web(json!(5)), true).len(), 1);
    }

    #[test]
    fn resources_are_the_vertical_autoscalers_where_it_wrote_them() {
        let object = |cpu: &str, manager: &str| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"managedFields": [{"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:template": {"f:spec":
                    {"f:containers": {"k:{\"name\":\"a\"}": {"f:resources": {"f:requests": {"f:cpu": {}}}}}}}}}}]},
                "spec": {"template": {"spec": {"containers": [
                    {"name": "a", "image": "a:1", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]}}}})
        };
        let desired = object("1", "");
        assert!(concerns(&desired, true) && !concerns(&desired, false));
        let left = |manager: &str| {
            let live = object("2", manager);
            let left = super::super::ignore::leave(&desired, &live, &exemptions(&desired, &live, false));
            left.desired["spec"]["template"]["spec"]["containers"][0].clone()
        };
        assert_eq!(
            left("vpa-updater"),
            json!({"name": "a", "image": "a:1", "resources": {"requests": {"memory": "1Gi"}}})
        );
        assert_eq!(left("hand")["resources"]["requests"]["cpu"], "1");
    }
}
