//! What holds for any bundle: the last good bundle is not touched, and neither variant sees the other.

use super::*;
use crate::core::variant::selects::{Form, Labels, labels, matches};
use crate::core::variant::{at, template, template_path};
use proptest::prelude::*;
use proptest::strategy::{Strategy, ValueTree};
use serde_json::json;
use std::collections::BTreeSet;

/// An application: which labels its parts go by, and what changes.
#[derive(Clone, Debug)]
struct App {
    name: String,
    /// Labels of the pods beyond `app`, which the selector has too.
    extra: BTreeSet<&'static str>,
    /// Which labels the Service, the budget and the policy leave out of their selectors.
    loose: [BTreeSet<&'static str>; 3],
    /// Whether selectors are written as expressions.
    expressions: bool,
    /// Whether there is an autoscaler, a second workload, a headless Service.
    parts: [bool; 3],
    changes: BTreeSet<&'static str>,
    size: Option<Size>,
    base: Base,
    by_counts: bool,
}

const LABELS: [&str; 3] = ["app.kubernetes.io/name", "release", "tier"];
const CHANGES: [&str; 5] = ["image", "config", "secret", "new config", "other"];

fn subset(of: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<&'static str>> {
    proptest::collection::btree_set(proptest::sample::select(of), 0..=of.len())
}

fn app() -> impl Strategy<Value = App> {
    let loose = || [subset(&LABELS), subset(&LABELS), subset(&LABELS)];
    let size = prop_oneof![
        Just(None),
        (0_u32..120).prop_map(|p| Some(Size::Percent(p))),
        (1_u32..9).prop_map(|n| Some(Size::Replicas(n)))
    ];
    (
        "[a-z]([-a-z0-9]{0,60}[a-z0-9])?",
        subset(&LABELS),
        loose(),
        any::<bool>(),
        any::<[bool; 3]>(),
        subset(&CHANGES),
        size,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(name, extra, loose, expressions, parts, changes, size, target, by_counts)| App {
            name,
            extra,
            loose,
            expressions,
            parts,
            changes,
            size,
            base: if target { Base::Target } else { Base::Stable },
            by_counts,
        })
}

impl App {
    fn pod_labels(&self, name: &str) -> serde_json::Map<String, Value> {
        let mut all = serde_json::Map::new();
        all.insert("app".into(), json!(name));
        all.extend(self.extra.iter().map(|key| ((*key).to_owned(), json!("v"))));
        all
    }

    fn without(&self, which: usize) -> serde_json::Map<String, Value> {
        let mut all = self.pod_labels(&self.name);
        all.retain(|key, _| !self.loose[which].contains(key.as_str()));
        all
    }

    fn selector(&self, labels: &serde_json::Map<String, Value>) -> Value {
        if !self.expressions {
            return json!({"matchLabels": labels});
        }
        let list = labels
            .iter()
            .map(|(key, value)| json!({"key": key, "operator": "In", "values": [value, "another"]}));
        json!({"matchExpressions": list.collect::<Vec<_>>()})
    }

    fn deployment(&self, name: &str, image: &str, config: &str) -> Value {
        let labels = self.pod_labels(name);
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "replicas": 3, "selector": self.selector(&labels),
                "template": {"metadata": {"labels": labels}, "spec": {
                    "containers": [{"name": "app", "image": image, "envFrom": [{"configMapRef": {"name": config}}]}],
                    "volumes": [{"name": "keys", "secret": {"secretName": "keys"}}],
                    "topologySpreadConstraints": [{"labelSelector": {"matchLabels": {"app": name}}}],
                }},
            },
        })
    }

    fn bundle(&self, new: bool) -> Bundle {
        let changed = |what: &str| new && self.changes.contains(what);
        let value = |what: &str| if changed(what) { "2" } else { "1" };
        let meta = |name: &str| json!({"name": name, "namespace": "shop"});
        let config = if changed("new config") { "env-2" } else { "env" };
        let mut all = vec![
            self.deployment(&self.name, &format!("web:{}", value("image")), config),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(config), "data": {"a": value("config")}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("keys"), "stringData": {"a": value("secret")}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(&self.name), "spec": {"selector": self.without(0)}}),
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta(&self.name),
                "spec": {"minAvailable": 2, "selector": self.selector(&self.without(1))}}),
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta(&self.name),
                "spec": {"podSelector": self.selector(&self.without(2))}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("other"), "data": {"a": value("other")}}),
        ];
        if self.parts[0] {
            all.push(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta("scaler"),
                "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name}, "maxReplicas": 9}}));
        }
        if self.parts[1] {
            all.push(self.deployment(&format!("{}-b", &self.name), "b:1", "env-b"));
        }
        if self.parts[2] {
            all.push(
                json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(&format!("{}-h", &self.name)),
                "spec": {"clusterIP": "None", "selector": self.without(1)}}),
            );
        }
        let objects = all.into_iter().map(|value| Manifest::new(value, Origin::default()).unwrap());
        Bundle::new(objects.collect()).unwrap()
    }
}

/// What selects pods by what an object says: its selector and its form.
fn selector(object: &Manifest) -> Option<(Form, Value)> {
    let form = match object.gvk().kind.as_str() {
        "Service" => Form::Map,
        "NetworkPolicy" => return Some((Form::SelectorOrAll, at(object, &["spec", "podSelector"]).clone())),
        "PodDisruptionBudget" | "Deployment" | "StatefulSet" => Form::Selector,
        _ => return None,
    };
    Some((form, at(object, &["spec", "selector"]).clone()))
}

fn pods(bundle: &Bundle) -> Vec<Labels> {
    let workloads = bundle.objects().iter().filter(|object| template_path(&object.id()).is_some());
    workloads.map(|object| labels(&template(object))).collect()
}

fn is_name(object: &Manifest) -> bool {
    let name = object.name();
    let limit = if ["Service", "Deployment"].contains(&object.gvk().kind.as_str()) { 63 } else { 253 };
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= limit
        && name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

/// Neither variant sees the other's pods. With `by_counts` Services and budgets see both.
pub(super) fn variants_are_apart(stage: &StageObjects, bundles: [&Bundle; 2], by_counts: bool) {
    let is_candidate = |object: &&Manifest| bundles.iter().all(|bundle| bundle.get(&object.id()).is_none());
    let workloads = stage.objects.iter().filter(is_candidate);
    let candidates: Vec<Labels> = workloads
        .filter(|object| ["Deployment", "StatefulSet"].contains(&object.gvk().kind.as_str()))
        .map(|object| labels(&template(object)))
        .collect();
    assert_eq!(candidates.len(), stage.variants.len());
    for object in stage.objects.iter().filter(is_candidate) {
        let Some((form, selector)) = selector(object) else { continue };
        let sees = |pod: &Labels| matches(form, &selector, pod) == Some(true);
        // Pods of others are told to let the candidate in.
        if object.gvk().kind == "NetworkPolicy" && object.name().contains("-peers-") {
            continue;
        }
        for pod in bundles.iter().flat_map(|bundle| pods(bundle)) {
            assert!(!sees(&pod), "{} sees {pod:?}", object.id());
        }
        assert!(candidates.iter().any(sees), "{} sees no candidate", object.id());
    }
    for object in bundles.iter().flat_map(|bundle| bundle.objects()) {
        let Some((form, selector)) = selector(object) else { continue };
        let sees = |pod: &Labels| matches(form, &selector, pod) == Some(true);
        // Who isolates all pods of the namespace isolates the candidate's.
        let may = by_counts && template_path(&object.id()).is_none() || object.gvk().kind == "NetworkPolicy";
        assert!(may || !candidates.iter().any(sees), "{} sees a candidate", object.id());
        let reached = !by_counts || object.gvk().kind != "Service" || candidates.iter().all(sees);
        assert!(reached || !stage.variants.iter().any(|v| v.stable.name == object.name()), "{}", object.id());
    }
}

fn check(app: &App) -> Result<bool, TestCaseError> {
    let (stable, target) = (app.bundle(false), app.bundle(true));
    let mut policy = if app.by_counts { by_counts() } else { policy() };
    policy.workload = Some(workload(&app.name));
    let layout = layout(app.base, app.size);
    let stage = match stage(&stable, &target, &policy, &layout, &[]) {
        Ok(stage) => stage,
        Err(problem) => {
            prop_assert!(
                !problem.object.is_empty() && problem.message.contains(&problem.object),
                "{problem:?}"
            );
            return Ok(false);
        }
    };
    let base = if app.base == Base::Stable { &stable } else { &target };
    // What stands under the names of Git is what the base has, and all of it.
    for object in base.objects() {
        prop_assert_eq!(
            stage.objects.iter().filter(|o| o.id() == object.id()).collect::<Vec<_>>(),
            vec![object]
        );
    }
    if app.size.is_none() {
        prop_assert_eq!(&stage.objects, base.objects());
    }
    let decision = needs_rollout(&stable, &target, &policy).unwrap();
    let rolled = matches!(decision, Decision::Rollout { .. });
    let reasons = ["image", "config", "secret", "new config"];
    prop_assert_eq!(rolled, reasons.iter().any(|reason| app.changes.contains(reason)));
    prop_assert_eq!(!stage.variants.is_empty(), rolled && app.size.is_some());
    // It is a bundle: each object once.
    prop_assert!(Bundle::new(stage.objects.clone()).is_ok());
    prop_assert!(stage.objects.iter().filter(|object| object.name().contains("-canary")).all(is_name));
    variants_are_apart(&stage, [&stable, &target], app.by_counts);
    // What the candidate reads is there.
    let there: BTreeSet<ObjectId> = stage.objects.iter().map(Manifest::id).collect();
    for object in stage
        .objects
        .iter()
        .filter(|object| object.gvk().kind == "Deployment" && object.name() != format!("{}-b", app.name))
    {
        for id in crate::core::variant::reads::reads(&template(object), object.namespace()).into_keys() {
            prop_assert!(there.contains(&id), "{} reads {}, which is not there", object.id(), id);
        }
    }
    Ok(!stage.variants.is_empty())
}

proptest! {
    #[test]
    fn stable_is_not_touched_and_neither_variant_sees_the_other(app in app()) {
        check(&app)?;
    }
}

#[test]
fn the_law_is_tried_on_candidates_and_not_on_refusals_alone() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let made = (0..300).filter(|_| {
        let app = app().new_tree(&mut runner).unwrap().current();
        check(&app).unwrap()
    });
    let made = made.count();
    assert!(made > 30, "only {made} of 300 have a candidate");
}
