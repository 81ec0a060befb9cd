//! What manifests become where something is left to others.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

fn rules(rules: Value) -> Result<Rules, RuleError> {
    Rules::parse(&serde_json::from_value::<Vec<IgnoreRule>>(rules).unwrap())
}

/// A Deployment as Git has it.
fn git() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", DELIVERY_LABEL: "ours"}},
        "spec": {"replicas": 2, "template": {"spec": {
            "containers": [
                {"name": "web", "image": "web:2", "args": ["--a", "--b"], "env": [{"name": "A", "value": "1"}]},
                {"name": "log", "image": "log:2"},
            ]}}},
    })
}

/// The same in the cluster, where `hand` has set what `theirs` names and we have the rest of version 1.
fn live(ours: Value, theirs: Value, more: impl Fn(&mut Value)) -> Value {
    let mut live = git();
    live["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:1");
    live["spec"]["template"]["spec"]["containers"][1]["image"] = json!("log:1");
    live["metadata"]["managedFields"] = json!([
        {"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": ours},
        {"manager": "hand", "operation": "Update", "apiVersion": "apps/v1", "fieldsV1": theirs},
    ]);
    more(&mut live);
    live
}

fn ours() -> Value {
    let container = |more: Value| {
        let mut fields = json!({".": {}, "f:name": {}, "f:image": {}});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    json!({"f:metadata": {"f:labels": {"f:app": {}, (format!("f:{DELIVERY_LABEL}")): {}}},
    "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
        "k:{\"name\":\"web\"}": container(json!({"f:args": {}, "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}})),
        "k:{\"name\":\"log\"}": container(json!({})),
    }}}}})
}

fn left(rules_: Value, live: &Value) -> Left {
    let rules = rules(rules_).unwrap();
    assert!(rules.concern(&git()));
    leave(&git(), live, &rules.exemptions(&git(), live))
}

fn paths(left: &Left) -> Vec<String> {
    left.paths.iter().map(ToString::to_string).collect()
}

#[test]
fn a_field_that_another_has_is_not_named_any_more() {
    let mut without = ours();
    without["f:spec"].as_object_mut().unwrap().remove("f:replicas");
    let live = live(without, json!({"f:spec": {"f:replicas": {}}}), |o| o["spec"]["replicas"] = json!(5));
    for rule in [
        json!([{"paths": ["/spec/replicas"]}]),
        json!([{"managers": ["hand"]}]),
        json!([{"managers": ["ha*"], "paths": ["/spec/*"]}]),
        json!([{"paths": ["/spec/replicas"], "target": {"kind": "Deployment", "group": "apps", "name": "w*", "labelSelector": "app=web"}}]),
        json!([{"paths": ["/spec/replicas"], "cel": "object.spec.replicas > 2"}]),
    ] {
        let left = left(rule.clone(), &live);
        assert!(left.changed && left.desired["spec"]["replicas"].is_null(), "{rule}: {}", left.desired);
        assert_eq!(left.desired["spec"]["template"], git()["spec"]["template"], "{rule}");
        assert_eq!(paths(&left), ["spec.replicas"], "{rule}");
    }
    for rule in [
        json!([{"managers": ["other"]}]),
        json!([{"managers": ["hand"], "paths": ["/metadata"]}]),
        json!([{"paths": ["/spec/replicas"], "cel": "object.spec.replicas > 7"}]),
        json!([{"paths": ["/spec/replicas"], "cel": "object.spec.gone > 7"}]),
    ] {
        let left = left(rule.clone(), &live);
        assert!(!left.changed, "{rule}: {}", left.desired);
    }
}

#[test]
fn a_field_that_we_have_alone_keeps_its_live_value_so_that_it_does_not_vanish() {
    let live = live(ours(), json!({}), |_| {});
    let left = left(json!([{"paths": ["/spec/template/spec/containers/*/image"]}]), &live);
    let containers = &left.desired["spec"]["template"]["spec"]["containers"];
    assert_eq!((&containers[0]["image"], &containers[1]["image"]), (&json!("web:1"), &json!("log:1")));
    assert_eq!(containers[0]["args"], git()["spec"]["template"]["spec"]["containers"][0]["args"]);
    // Left Git, and others' business: it stays as well.
    let mut git = git();
    git["spec"].as_object_mut().unwrap().remove("replicas");
    let rules = rules(json!([{"paths": ["/spec/replicas"]}])).unwrap();
    let left = leave(&git, &live, &rules.exemptions(&git, &live));
    assert_eq!(left.desired["spec"]["replicas"], 2);
}

#[test]
fn items_are_named_by_key_position_or_any() {
    let live = live(ours(), json!({}), |_| {});
    let images = |path: &str| {
        let left = left(json!([{"paths": [path]}]), &live);
        let containers = left.desired["spec"]["template"]["spec"]["containers"].clone();
        [0, 1].map(|n| containers[n]["image"].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(images("/spec/template/spec/containers/name=log/image"), ["web:2", "log:1"]);
    assert_eq!(images("/spec/template/spec/containers/name=l*/image"), ["web:2", "log:1"]);
    assert_eq!(images("/spec/template/spec/containers/0/image"), ["web:1", "log:2"]);
    assert_eq!(images("/spec/template/spec/containers/*/image"), ["web:1", "log:1"]);
    assert_eq!(images("/spec/template/spec/containers/7/image"), ["web:2", "log:2"]);
    assert_eq!(images("/spec/template/spec/containers/name=log"), ["web:2", "log:1"]);
}

#[test]
fn a_part_of_a_value_that_counts_as_one_is_taken_from_the_cluster() {
    let mut without = ours();
    let web = &mut without["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"web\"}"];
    web.as_object_mut().unwrap().remove("f:args");
    let theirs = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {"f:args": {}}}}}}});
    let live = live(without, theirs, |o| {
        o["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["--a", "--c", "--d"]);
    });
    let args = |path: &str| {
        left(json!([{"paths": [path]}]), &live).desired["spec"]["template"]["spec"]["containers"][0]["args"]
            .clone()
    };
    assert_eq!(args("/spec/template/spec/containers/name=web/args/1"), json!(["--a", "--c"]));
    assert_eq!(args("/spec/template/spec/containers/name=web/args/*"), json!(["--a", "--c", "--d"]));
    assert_eq!(args("/spec/template/spec/containers/name=web/args"), Value::Null);
    let left = left(json!([{"paths": ["/spec/template/spec/containers/name=web/args/1"]}]), &live);
    let whole = "spec.template.spec.containers[name=web].args";
    assert_eq!(paths(&left), [format!("{whole}[1]")]);
}

#[test]
fn the_whole_object_is_left_but_for_what_makes_it_ours() {
    let live = live(ours(), json!({}), |o| {
        o["metadata"]["labels"].as_object_mut().unwrap().remove(DELIVERY_LABEL);
    });
    let left = left(json!([{"paths": [""]}]), &live);
    assert_eq!(left.desired["metadata"]["labels"][DELIVERY_LABEL], "ours");
    assert_eq!(left.desired["metadata"]["name"], "web");
    assert_eq!(left.desired["kind"], "Deployment");
    assert_eq!(left.desired["spec"], live["spec"]);
    // What is not there any more is left so.
    let mut live = live;
    live["spec"].as_object_mut().unwrap().remove("template");
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].as_object_mut().unwrap().remove("f:template");
    let rules = rules(json!([{"paths": [""]}])).unwrap();
    let left = leave(&git(), &live, &rules.exemptions(&git(), &live));
    assert_eq!(left.desired["spec"], json!({"replicas": 2}));
}

#[test]
fn what_is_new_in_git_and_only_holds_something_that_is_left_is_made() {
    let live = live(ours(), json!({}), |o| {
        o["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().pop();
    });
    let left = left(json!([{"paths": ["/spec/template/spec/containers/*/image"]}]), &live);
    let containers = &left.desired["spec"]["template"]["spec"]["containers"];
    assert_eq!((&containers[0]["image"], &containers[1]["image"]), (&json!("web:1"), &json!("log:2")));
}

#[test]
fn rules_that_cannot_be_used_are_told_with_their_place() {
    let told = |rule: Value| rules(json!([{"paths": ["/a"]}, rule])).unwrap_err().to_string();
    assert!(
        told(json!({"paths": ["spec/replicas"]}))
            .starts_with("spec.drift.ignore[1].paths: \"spec/replicas\"")
    );
    assert!(told(json!({"paths": ["/a~2"]})).contains("JSON pointer"));
    assert!(told(json!({"target": {"kind": "Pod"}})).contains("neither paths nor managers"));
    assert!(told(json!({"paths": [""], "cel": "object.a ="})).starts_with("spec.drift.ignore[1].cel: "));
    assert!(
        told(json!({"paths": [""], "target": {"labelSelector": "a b"}}))
            .starts_with("spec.drift.ignore[1].target.labelSelector: ")
    );
}

#[test]
fn the_pointer_of_a_field_finds_it_again() {
    let path = |keys: &[&str]| Path(keys.iter().map(|k| Segment::decode(k).unwrap()).collect());
    let table = [
        (path(&["f:spec", "f:replicas"]), "/spec/replicas"),
        (
            path(&["f:spec", "f:containers", r#"k:{"name":"web"}"#, "f:image"]),
            "/spec/containers/name=web/image",
        ),
        (
            path(&["f:spec", "f:ports", r#"k:{"port":80,"protocol":"TCP"}"#]),
            "/spec/ports/port=80,protocol=TCP",
        ),
        (path(&["f:metadata", "f:labels", "f:a/b~c"]), "/metadata/labels/a~1b~0c"),
        (path(&["f:metadata", "f:finalizers", r#"v:"a/b""#]), "/metadata/finalizers/a~1b"),
    ];
    for (path, text) in table {
        assert_eq!(pointer(&path), text);
        let pattern = Pattern::parse(text).unwrap();
        let mut states = vec![State { rest: &pattern.0, theirs: None }];
        for step in path.segments() {
            states = steps(&states, step, None, None);
        }
        assert!(states.iter().any(State::matched), "{text}");
    }
    for (pattern, text, is) in [
        ("*", "", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*b*c", "a-b-c", true),
        ("a*a", "a", false),
        ("a", "ab", false),
    ] {
        assert_eq!(glob(pattern, text), is, "{pattern} {text}");
    }
}
