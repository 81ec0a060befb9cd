//! The rules as tables (`cases/`), and what holds for any JSON value.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::core::manifest::ObjectId;
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectCase {
    name: String,
    object: Value,
    status: Status,
    says: Option<String>,
    hides: Option<String>,
    broken: Option<String>,
    settles: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WorkloadCase {
    name: String,
    workload: Value,
    #[serde(default)]
    replica_sets: Vec<Value>,
    #[serde(default)]
    pods: Vec<Value>,
    #[serde(default)]
    rules: RulesCase,
    broken: Option<String>,
    says: Option<String>,
    waits: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RulesCase {
    max_restarts: Option<u32>,
    since: Option<jiff::Timestamp>,
}

fn cases<T: serde::de::DeserializeOwned>(directory: &str) -> Vec<(String, T)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/health/cases").join(directory);
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let cases: Vec<T> = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        all.extend(cases.into_iter().map(|case| (name.clone(), case)));
    }
    all
}

#[test]
fn each_object_has_the_verdict_that_the_table_says() {
    let mut wrong = Vec::new();
    let cases = cases::<ObjectCase>("objects");
    for (file, case) in &cases {
        let found = verdict(&case.object);
        let settles = case.settles.unwrap_or(matches!(case.status, Status::Healthy | Status::Suspended));
        let well = found.status == case.status
            && case.says.as_ref().is_none_or(|text| found.message.contains(text))
            && case.hides.as_ref().is_none_or(|text| !format!("{found:?}").contains(text))
            && found.broken.as_ref().map(|broken| broken.reason) == case.broken.as_deref()
            && found.settles() == settles;
        if !well {
            wrong.push(format!("{file}: {}\n    found {found:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 150, "only {} cases were read", cases.len());
}

#[test]
fn each_workload_is_broken_where_the_table_says() {
    let mut wrong = Vec::new();
    for (file, case) in cases::<WorkloadCase>("workloads") {
        let default = PodRules::default();
        let rules = PodRules {
            max_restarts: case.rules.max_restarts.unwrap_or(default.max_restarts),
            since: case.rules.since,
        };
        let found = workload_trouble(&case.workload, &case.replica_sets, &case.pods, &rules);
        let waits = workload_waits_for(&case.workload, &case.replica_sets, &case.pods);
        let contains = |found: Option<&str>, text: &Option<String>| {
            text.as_ref().is_none_or(|text| found.is_some_and(|found| found.contains(text)))
        };
        let well = found.as_ref().map(|broken| broken.reason) == case.broken.as_deref()
            && contains(found.as_ref().map(|broken| broken.message.as_str()), &case.says)
            && contains(waits.as_deref(), &case.waits);
        if !well {
            wrong.push(format!("{file}: {}\n    found {found:?}\n    waits {waits:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is kept of watched pods says what the whole ones say.
#[test]
fn the_essence_of_pods_says_what_the_pods_say() {
    let mut compared = 0;
    for (file, case) in cases::<WorkloadCase>("workloads") {
        let rules = PodRules { max_restarts: case.rules.max_restarts.unwrap_or(3), since: case.rules.since };
        let small = |all: &[Value]| all.iter().map(essence).collect::<Vec<_>>();
        let (sets, pods) = (small(&case.replica_sets), small(&case.pods));
        let whole = (
            workload_trouble(&case.workload, &case.replica_sets, &case.pods, &rules),
            workload_waits_for(&case.workload, &case.replica_sets, &case.pods),
        );
        let kept = (
            workload_trouble(&case.workload, &sets, &pods, &rules),
            workload_waits_for(&case.workload, &sets, &pods),
        );
        assert_eq!(kept, whole, "{file}: {}", case.name);
        let names = |all: Vec<&Value>| all.iter().map(|p| p["metadata"]["name"].clone()).collect::<Vec<_>>();
        assert_eq!(
            names(pods_in_the_way(&case.workload, &pods, &rules)),
            names(pods_in_the_way(&case.workload, &case.pods, &rules)),
            "{file}: {}",
            case.name
        );
        compared += pods.len();
    }
    for (file, case) in cases::<ObjectCase>("objects") {
        if case.object["kind"] == "Pod" {
            let small = essence(&case.object);
            assert_eq!(verdict(&small), verdict(&case.object), "{file}: {}", case.name);
            assert_eq!(essence(&small), small, "{file}: {}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 50, "only {compared} pods were compared");
}

#[test]
fn the_essence_of_a_pod_is_small_and_holds_no_value_of_its_environment() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web"},
            "annotations": {"note": "x".repeat(1000)}, "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {
            "volumes": [{"name": "token"}],
            "containers": [{"name": "app", "image": "web:1", "readinessProbe": {"exec": {"command": ["true"]}},
                "env": [{"name": "PASSWORD", "value": "correct-horse"}]}],
        },
        "status": {"containerStatuses": [{
            "name": "app", "image": "web:1", "ready": false, "restartCount": 4,
            "lastState": {"terminated": {"exitCode": 1, "message": "cannot log in with correct-horse"}},
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        }]},
    });
    let small = essence(&pod);
    let text = small.to_string();
    assert!(!text.contains("correct-horse") && text.len() < 700, "{text}");
    let told = |pod: &Value| pod_trouble(pod, &PodRules::default()).map(|b| b.message);
    assert_eq!(told(&small), told(&pod));
    // A probe that says "ready" is an answer to restarts; that it is there must not be lost.
    let mut ready = pod;
    ready["status"]["containerStatuses"][0]["ready"] = json!(true);
    ready["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let rules = PodRules { since: Some("2025-01-01T00:00:00Z".parse().unwrap()), ..PodRules::default() };
    assert_eq!(pod_trouble(&ready, &rules), None);
    assert_eq!(pod_trouble(&essence(&ready), &rules), None);
}

fn id(name: &str) -> ObjectId {
    ObjectId { group: "apps".into(), kind: "Deployment".into(), namespace: "shop".into(), name: name.into() }
}

fn summary(verdicts: Vec<(&str, Verdict)>) -> Verdict {
    summarize(verdicts.into_iter().map(|(name, verdict)| (id(name), verdict)))
}

#[test]
fn a_summary_names_the_worst_three_and_counts_the_rest() {
    let found = summary(vec![
        ("a", Verdict::healthy("is well")),
        ("b", Verdict::progressing("waits")),
        ("c", Verdict::progressing("waits")),
        ("d", Verdict::progressing("waits")),
        ("e", Verdict::broken("JobFailed", "failed")),
        ("f", Verdict::degraded("is ill")),
    ]);
    assert_eq!(found.status, Status::Degraded);
    assert_eq!(
        found.message,
        "5 of 6 objects are not healthy: Deployment shop/e: failed; Deployment shop/f: is ill; \
         Deployment shop/b: waits; and 2 more"
    );
    assert_eq!(
        found.broken,
        Some(Broken { reason: "JobFailed", message: "Deployment shop/e: failed".into() })
    );
}

#[test]
fn what_settles_makes_no_summary_unhealthy_and_is_named() {
    let found = summary(vec![
        ("a", Verdict::healthy("is well")),
        ("b", Verdict::progressing("waits for its first pod").without_blocking()),
        ("c", Verdict::suspended("is paused")),
    ]);
    assert_eq!((found.status, found.settles()), (Status::Healthy, true));
    assert_eq!(
        found.message,
        "1 of 3 objects are healthy; Deployment shop/b is Progressing, Deployment shop/c is Suspended"
    );
    assert_eq!(summary(vec![("c", Verdict::suspended("is paused"))]).status, Status::Suspended);
    assert_eq!(summary(vec![]).message, "there are no objects");
}

/// JSON of any shape, with the field names and words that the rules look at, so that the rules are entered.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "True",
        "False",
        "Unknown",
        "Ready",
        "Accepted",
        "Progressing",
        "ProgressDeadlineExceeded",
        "Failed",
        "Running",
        "Pending",
        "CrashLoopBackOff",
        "ErrImagePull",
        "Invalid value: \"",
        "é\n…",
        "OnDelete",
        "-1",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "status",
        "spec",
        "metadata",
        "generation",
        "observedGeneration",
        "conditions",
        "type",
        "reason",
        "message",
        "replicas",
        "updatedReplicas",
        "availableReplicas",
        "readyReplicas",
        "desiredNumberScheduled",
        "phase",
        "name",
        "containerStatuses",
        "initContainerStatuses",
        "containers",
        "env",
        "value",
        "state",
        "lastState",
        "waiting",
        "terminated",
        "exitCode",
        "restartCount",
        "annotations",
        "labels",
        "ownerReferences",
        "uid",
        "parents",
        "parentRef",
        "parentRefs",
        "listeners",
        "partition",
        "updateStrategy",
        "rollingUpdate",
        "maxUnavailable",
        "completions",
        "strategy",
        "currentNumberScheduled",
        "deletionTimestamp",
        "finalizers",
    ]);
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..7).prop_map(|fields| fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

const KINDS: [(&str, &str); 22] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "ReplicationController"),
    ("v1", "Pod"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "Service"),
    ("networking.k8s.io/v1", "Ingress"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "PersistentVolume"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Namespace"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("apiregistration.k8s.io/v1", "APIService"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "GatewayClass"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1", "BackendTLSPolicy"),
    ("example.com/v1", "Database"),
];

fn is_lawful(verdict: &Verdict) -> bool {
    !verdict.message.is_empty()
        && !verdict.message.contains('\n')
        && (verdict.broken.is_none() || (verdict.status == Status::Degraded && !verdict.settles()))
        && (!matches!(verdict.status, Status::Healthy | Status::Suspended) || verdict.settles())
}

proptest! {
    #[test]
    fn any_json_has_a_lawful_verdict(value in any_json(), pods in prop::collection::vec(any_json(), 0..3)) {
        prop_assert!(is_lawful(&verdict(&value)));
        for (api_version, kind) in KINDS {
            let mut object = match &value {
                Value::Object(map) => Value::Object(map.clone()),
                other => json!({"status": other, "spec": other, "metadata": other}),
            };
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            let found = verdict(&object);
            prop_assert!(is_lawful(&found), "{kind}: {found:?}");
            let _ = workload_trouble(&object, &pods, &pods, &PodRules::default());
            let _ = workload_waits_for(&object, &pods, &pods);
        }
    }

    #[test]
    fn no_workload_is_healthy_before_its_controller_has_looked(
        generation in 2i64..9, behind in 1i64..9, replicas in 0i64..5,
    ) {
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"] {
            let object = json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": {"generation": generation}, "spec": {"replicas": replicas},
                "status": {
                    "observedGeneration": generation - behind, "replicas": replicas, "updatedReplicas": replicas,
                    "readyReplicas": replicas, "availableReplicas": replicas, "desiredNumberScheduled": 0,
                    "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}],
                },
            });
            let found = verdict(&object);
            prop_assert_eq!(found.status, Status::Progressing);
            prop_assert_eq!(found.broken, None);
        }
    }

    #[test]
    fn no_value_of_a_variable_is_shown(value in "[a-zA-Z0-9/+ ]{8,40}", before in "[a-z ]{0,20}") {
        prop_assume!(!value.trim().is_empty() && value.trim() == value);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": value}]}]},
            "status": {"containerStatuses": [{
                "name": "app", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "message": format!("{before}!{value}!")}},
            }]},
        });
        let broken = pod_trouble(&pod, &PodRules::default()).unwrap();
        prop_assert!(!broken.message.contains(&value), "{}", broken.message);
    }
}
