//! How the reports read, as snapshots of what stands in the cluster.
#![allow(clippy::unwrap_used)]

use crate::api::{Delivery, DriftReport, Repository};
use jiff::Timestamp;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn revision(commit: &str, subject: &str) -> Value {
    json!({"branch": "main", "commit": commit.repeat(40 / commit.len()), "path": "apps/shop", "inputs": commit,
        "author": "Ada Lovelace", "subject": subject})
}

fn text_of(commit: &str) -> String {
    format!("main@sha1:{}", commit.repeat(40 / commit.len()))
}

fn delivery(name: &str, status: Value) -> Delivery {
    serde_json::from_value(json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery",
        "metadata": {"name": name, "namespace": "windlass-system", "creationTimestamp": "2026-02-27T12:00:00Z"},
        "spec": {"source": {"repository": "config", "path": format!("apps/{name}")}, "targetNamespace": name},
        "status": status,
    }))
    .unwrap()
}

fn ready(status: &str, reason: &str, message: &str) -> Value {
    json!([{"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-03-01T11:00:00Z"}])
}

fn repository(name: &str, status: Value) -> Repository {
    serde_json::from_value(json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Repository",
        "metadata": {"name": name, "namespace": "windlass-system", "creationTimestamp": "2026-02-27T12:00:00Z"},
        "spec": {"url": "https://git.example.com/acme/config.git"},
        "status": status,
    }))
    .unwrap()
}

fn well() -> Delivery {
    delivery(
        "blog",
        json!({"phase": "Ready", "revision": text_of("a"), "drift": 0, "effective": revision("a", "Begin"),
            "conditions": ready("True", "Deployed", "is deployed")}),
    )
}

fn held() -> Delivery {
    delivery(
        "shop",
        json!({"phase": "Held", "revision": text_of("b"), "drift": 2, "effective": revision("a", "Begin"),
            "held": {"revision": revision("b", "Red, and broken"), "since": "2026-03-01T11:55:00Z",
                "problem": {"reason": "CrashLoopBackOff", "object": "Deployment shop/web",
                    "message": "pod web-1: container app restarted 3 times, last with exit code 1"}},
            "history": [
                {"revision": revision("a", "Begin"), "outcome": "Restored", "at": "2026-03-01T11:55:05Z"},
                {"revision": revision("b", "Red, and broken"), "outcome": "RolledBack", "at": "2026-03-01T11:55:00Z",
                    "problem": {"reason": "CrashLoopBackOff", "object": "Deployment shop/web",
                        "message": "pod web-1: container app restarted 3 times, last with exit code 1"}},
                {"revision": revision("a", "Begin"), "outcome": "Deployed", "at": "2026-02-27T12:00:05Z"},
            ],
            "conditions": ready("False", "RevisionHeld", "was rolled back")}),
    )
}

fn all() -> (Vec<Repository>, Vec<Delivery>) {
    let attempt = json!({"goal": "Deploy", "revision": revision("c", "More\u{1b}[31m pods"), "step": "Waiting",
        "startedAt": "", "deadline": ""});
    let deliveries = vec![
        well(),
        held(),
        delivery(
            "till",
            json!({"phase": "Waiting", "revision": text_of("c"), "drift": 0, "attempt": attempt,
                "effective": revision("a", "Begin"), "conditions": ready("False", "WaitingForHealth", &format!(
                    "{} is applied and not healthy yet: Deployment till/web: 1 of 2 pods are ready", text_of("c")))}),
        ),
        delivery(
            "stock",
            json!({"phase": "Failed", "revision": text_of("a"), "drift": 0, "effective": revision("a", "Begin"),
                "conditions": ready("False", "UnknownField", "Deployment stock/web: .spec.replicsa: field not declared (apps/stock/web.yaml:4)")}),
        ),
        delivery(
            "mail",
            json!({"phase": "Suspended", "revision": text_of("a"), "drift": 1, "effective": revision("a", "Begin"),
                "conditions": ready("False", "Suspended", "spec.suspend is set")}),
        ),
        delivery("new", Value::Null),
    ];
    let repositories = vec![
        repository(
            "config",
            json!({"revision": text_of("c"), "conditions": ready("True", "Fetched", "is fetched")}),
        ),
        repository(
            "other",
            json!({"conditions": ready("False", "AuthenticationFailed", "the server refused the password")}),
        ),
    ];
    (repositories, deliveries)
}

#[test]
fn status_tells_what_is_held_and_what_to_do() {
    let (repositories, deliveries) = all();
    let report = super::status::report(&repositories, &deliveries);
    assert!(!report.ready);
    insta::assert_snapshot!("status", plain(&super::status::text(&report, false, now())));
    insta::assert_snapshot!("status_wide", plain(&super::status::text(&report, true, now())));
    insta::assert_json_snapshot!("status_json", super::status::report(&repositories[..1], &deliveries[1..2]));
}

#[test]
fn status_tells_of_pods_that_only_the_application_tells_of() {
    let of = |name: &str, conditions: Value| -> crate::api::Application {
        serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": "windlass-system"}, "spec": {"image": "blog:1"},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    };
    let mut its = well();
    its.spec.source = crate::api::delivery::Source { application: Some("blog".into()), ..Default::default() };
    let lacking = [of("blog", ready("False", "PodsUnavailable", "1 of 3 pods are available"))];
    let told = |mut deliveries: Vec<Delivery>, applications: &[crate::api::Application]| {
        super::status::tell_of_pods(&mut deliveries, applications);
        let row = super::status::report(&[], &deliveries).deliveries.remove(0);
        (row.ready, row.message)
    };
    let well_told = ("True".to_owned(), "is deployed".to_owned());
    assert_eq!(told(vec![its.clone()], &lacking), ("False".into(), "1 of 3 pods are available".into()));
    assert_eq!(told(vec![its.clone()], &[of("blog", ready("True", "Running", "it runs"))]), well_told);
    assert_eq!(told(vec![its], &[of("other", ready("False", "PodsUnavailable", ""))]), well_told);
    assert_eq!(told(vec![well()], &lacking), well_told, "a directory's Delivery of that name");
}

#[test]
fn status_tells_why_a_newer_commit_was_refused_while_one_is_held() {
    let mut delivery = held();
    let status = delivery.status.as_mut().unwrap();
    status.failure =
        serde_json::from_value(json!({"revision": revision("c", "Mended"), "retries": 0, "retryAt": "",
        "problem": {"reason": "UnknownField", "object": "Deployment shop/web",
            "message": "unknown field spec.replica (shop/web.yaml:1)"}}))
        .unwrap();
    let text = plain(&super::status::text(&super::status::report(&[], &[delivery]), false, now()));
    let after = text.split_once("refused").unwrap().1;
    for word in ["ccccccc", "Mended", "Deployment shop/web", "spec.replica (shop/web.yaml:1)", "UnknownField"]
    {
        assert!(after.contains(word), "{word}: {text}");
    }
}

#[test]
fn all_is_ready_only_if_everything_is() {
    let (repositories, deliveries) = all();
    assert!(super::status::report(&repositories[..1], &deliveries[..1]).ready);
    assert!(!super::status::report(&repositories, &deliveries[..1]).ready);
    assert!(!super::status::report(&repositories[..1], &deliveries[..2]).ready);
    assert!(super::status::report(&[], &[]).ready);
}

fn drifted() -> DriftReport {
    let field = |path: &str, desired: Value, live: Value, manager: &str, at: Value| json!({"path": path, "desired": desired, "live": live, "manager": manager, "operation": "Update", "at": at});
    let object = |kind: &str, state: &str, fields: Value| {
        json!({"apiVersion": if kind == "Deployment" { "apps/v1" } else { "v1" }, "kind": kind, "namespace": "shop",
            "name": "web", "state": state, "since": "2026-03-01T11:58:00Z", "fields": fields})
    };
    let scaled = field("spec.replicas", json!("1"), json!("5"), "kubectl", Value::Null);
    let env = field(
        "spec.template.spec.containers[name=app].env",
        Value::Null,
        json!("[{\"name\":\"DEBUG\",\"value\":\"a rather long value that does not fit\"}]"),
        "kubectl-edit",
        json!("2026-03-01T11:57:00Z"),
    );
    let copied = field(
        "metadata.labels[windlass.dev/delivery]",
        Value::Null,
        json!("\"0f\""),
        "copier",
        json!("2026-03-01T11:00:00Z"),
    );
    let colour = field(
        "data.color",
        json!("\"green\""),
        json!("\"mauve\""),
        "kubectl-patch",
        json!("2026-03-01T10:00:00Z"),
    );
    serde_json::from_value(json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "DriftReport",
        "metadata": {"name": "shop", "namespace": "windlass-system"},
        "spec": {"revision": text_of("a"), "count": 7, "leftOut": {"objects": 4, "fields": 9}, "since": "2026-03-01T11:58:00Z",
            "objects": [object("Deployment", "Modified", json!([scaled, env])), object("Service", "Missing", json!([])),
                object("ConfigMap", "Foreign", json!([copied]))],
            "recurring": [
                {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "web", "path": "data.color",
                    "pointer": "/data/color", "manager": "kubectl-patch", "times": 3, "inARow": 1,
                    "firstAt": "2026-03-01T08:00:00Z", "lastAt": "2026-03-01T10:00:01Z"},
                {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web",
                    "path": "spec.replicas", "pointer": "/spec/replicas", "manager": "scaler", "times": 7, "inARow": 5,
                    "firstAt": "2026-03-01T08:00:00Z", "lastAt": "2026-03-01T11:58:00Z", "stoppedAt": "2026-03-01T11:58:01Z"}],
            "episodes": [{"startedAt": "2026-03-01T09:59:50Z", "mendedAt": "2026-03-01T10:00:01Z", "mendedBy": "windlass", "object": object("ConfigMap", "Modified", json!([colour]))}]},
    }))
    .unwrap()
}

#[test]
fn drift_tells_each_field_and_that_git_is_ahead() {
    let list = super::drift::report(&[well(), held()], &[drifted()]);
    assert_eq!(list.drifted, 7);
    insta::assert_snapshot!("drift", plain(&super::drift::text(&list, false, now())));
    insta::assert_snapshot!("drift_wide", plain(&super::drift::text(&list, true, now())));
    insta::assert_json_snapshot!("drift_json", list);
    insta::assert_snapshot!("drift_summary", plain(&super::drift::summary(&list, false, now())));
    insta::assert_snapshot!("drift_junit", super::junit::drift(&list));
    let none = super::drift::report(&[well()], &[drifted()]);
    insta::assert_snapshot!("drift_summary_none", plain(&super::drift::summary(&none, false, now())));
    insta::assert_snapshot!("drift_none", plain(&super::drift::text(&none, false, now())));
}

#[test]
fn history_marks_what_runs_and_what_is_held() {
    let history = super::history::report(&held());
    insta::assert_snapshot!("history", plain(&super::history::text(&history, false, now())));
    insta::assert_snapshot!("history_wide", plain(&super::history::text(&history, true, now())));
    let none = super::history::report(&delivery("new", Value::Null));
    insta::assert_snapshot!("history_none", plain(&super::history::text(&none, false, now())));
}

#[test]
fn a_difference_reads_as_lines_and_holds_no_secret() {
    use super::diff::{Act, DiffReport, ObjectDiff};
    let map = |color: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"color": color, "size": "1"},
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1", "managedFields": []}})
    };
    let secret = |password: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"password": password, "same": "c2FtZQ=="},
            "metadata": {"name": "web", "namespace": "shop"}})
    };
    assert_eq!(ObjectDiff::new("ConfigMap shop/web", "", Act::Change, &map("red"), &map("red")), None);
    let objects = [
        ObjectDiff::new("ConfigMap shop/web", "shop/web.yaml:3", Act::Change, &map("green"), &map("red")),
        ObjectDiff::new(
            "Secret shop/web",
            "shop/secret.yaml:1",
            Act::Change,
            &secret("aHVudGVyMg=="),
            &secret("aHVudGVyMw=="),
        ),
        ObjectDiff::new(
            "Secret shop/new",
            "shop/secret.yaml:9",
            Act::Create,
            &Value::Null,
            &secret("aHVudGVyMg=="),
        ),
        ObjectDiff::new("ConfigMap shop/there", "shop/there.yaml:1", Act::Adopt, &map("red"), &map("red")),
        ObjectDiff::new("Secret shop/old", "", Act::Delete, &secret("aHVudGVyMg=="), &Value::Null),
    ];
    let report = DiffReport {
        hooks: Vec::new(),
        delivery: Some("windlass-system/shop".into()),
        objects: objects.into_iter().flatten().collect(),
        unchanged: 4,
        problems: Vec::new(),
        rollout: vec![
            "has 5m to become healthy; otherwise main@sha1:aaaa is brought back and this one is held".into(),
        ],
        unchecked: Vec::new(),
    };
    let text = plain(&super::diff::text(&report));
    assert!(!format!("{text}{}", json!(report)).contains("aHVudGVyM"), "{text}");
    insta::assert_snapshot!("diff", text);
    insta::assert_json_snapshot!("diff_json", report);
}

#[test]
fn revisions_are_shortened_and_other_texts_are_not() {
    use super::{short_revision, short_word};
    let table = [
        ("main@sha1:1a2b3c4d5e6f", "main@1a2b3c4"),
        ("sha1:1a2b3c4d5e6f", "1a2b3c4"),
        ("main@sha1:1a2", "main@1a2"),
        ("feature/a@b@sha1:1a2b3c4d", "feature/a@b@1a2b3c4"),
        ("", ""),
    ];
    for (long, short) in table {
        assert_eq!(short_revision(long), short);
    }
    assert_eq!(short_word(&format!("{}:", text_of("a"))), "main@aaaaaaa:");
    assert_eq!(short_word("sha1:abc"), "sha1:abc");
}
