//! What the API server answers to our verbs, and what we make of it.

use crate::support::cluster::{SOON, Space, wait_until};
use serde_json::{Value, json};
use std::time::Instant;
use windlass::cluster::apply::{apply, delete, dry_run, get, patch_json};
use windlass::cluster::{Cause, Deletion, Guard, Propagation};

fn config_map(space: &Space, name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": space.name}, "data": {"key": value},
    })
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_string()
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_string()
}

fn deployment(space: &Space, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": space.name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "example.com/app:ok"}]},
            },
        },
    })
}

#[tokio::test]
async fn an_apply_tells_what_it_made_from_what_it_changed() {
    let space = Space::new("apply").await;
    let maps = space.resource("v1", "ConfigMap");
    let wanted = config_map(&space, "settings", "1");

    let tried = dry_run(&space.access, &maps, &wanted, Guard::Any).await.unwrap();
    assert!(tried.created);
    assert!(
        get(&space.access, &maps, &space.name, "settings").await.unwrap().is_none(),
        "a dry-run makes nothing"
    );

    let made = apply(&space.access, &maps, &wanted, Guard::Absent).await.unwrap();
    assert!(made.created);
    let changed = config_map(&space, "settings", "2");
    let again = apply(&space.access, &maps, &changed, Guard::Uid(&uid(&made.object))).await.unwrap();
    assert!(!again.created);
    assert_eq!(uid(&again.object), uid(&made.object));
    assert_eq!(again.object["data"]["key"], "2");
    let managers = again.object["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["manager"] == "windlass" && m["operation"] == "Apply"));
    let same = apply(&space.access, &maps, &changed, Guard::Uid(&uid(&made.object))).await.unwrap();
    assert_eq!(version(&same.object), version(&again.object), "the same again writes nothing");
}

#[tokio::test]
async fn a_late_apply_neither_revives_nor_hits_another_object() {
    let space = Space::new("uid").await;
    let maps = space.resource("v1", "ConfigMap");
    let wanted = config_map(&space, "settings", "1");
    let first = uid(&apply(&space.access, &maps, &wanted, Guard::Absent).await.unwrap().object);

    space.send("DELETE", &format!("{}/settings", space.path("v1", "configmaps")), &Value::Null).await;
    for dry in [true, false] {
        let late = config_map(&space, "settings", "late");
        let guard = Guard::Uid(&first);
        let answer = if dry {
            dry_run(&space.access, &maps, &late, guard).await
        } else {
            apply(&space.access, &maps, &late, guard).await
        };
        assert_eq!(answer.unwrap_err().cause, Cause::UidChanged, "nothing is there");
    }
    assert!(get(&space.access, &maps, &space.name, "settings").await.unwrap().is_none());

    space.send("POST", &space.path("v1", "configmaps"), &config_map(&space, "settings", "other")).await;
    let late = config_map(&space, "settings", "late");
    let answer = apply(&space.access, &maps, &late, Guard::Uid(&first)).await;
    assert_eq!(answer.unwrap_err().cause, Cause::UidChanged, "another is there");
    let there = get(&space.access, &maps, &space.name, "settings").await.unwrap().unwrap();
    assert_eq!(there["data"]["key"], "other");
}

#[tokio::test]
async fn an_object_that_appeared_meanwhile_is_not_overwritten() {
    let space = Space::new("absent").await;
    let maps = space.resource("v1", "ConfigMap");
    space.send("POST", &space.path("v1", "configmaps"), &config_map(&space, "settings", "theirs")).await;
    let ours = config_map(&space, "settings", "ours");
    let answer = apply(&space.access, &maps, &ours, Guard::Absent).await;
    assert_eq!(answer.unwrap_err().cause, Cause::Conflict);
    let there = get(&space.access, &maps, &space.name, "settings").await.unwrap().unwrap();
    assert_eq!(there["data"]["key"], "theirs");
    let taken = apply(&space.access, &maps, &ours, Guard::Uid(&uid(&there))).await.unwrap();
    assert_eq!(taken.object["data"]["key"], "ours", "adopting, once it is planned, takes the field");
}

#[tokio::test]
async fn a_delete_hits_only_what_was_looked_at() {
    let space = Space::new("delete").await;
    let maps = space.resource("v1", "ConfigMap");
    let made =
        apply(&space.access, &maps, &config_map(&space, "it", "1"), Guard::Absent).await.unwrap().object;
    let id = uid(&made);
    let remove = async |uid: &str, version: Option<&str>| {
        delete(&space.access, &maps, &space.name, "it", uid, version, Propagation::Background).await.unwrap()
    };
    assert_eq!(remove("aaaaaaaa-0000-4000-8000-000000000000", None).await, Deletion::Replaced);
    apply(&space.access, &maps, &config_map(&space, "it", "2"), Guard::Uid(&id)).await.unwrap();
    assert_eq!(remove(&id, Some(&version(&made))).await, Deletion::Changed);
    assert_eq!(remove(&id, None).await, Deletion::Deleted);
    assert_eq!(remove(&id, None).await, Deletion::AlreadyGone);

    let mut held = config_map(&space, "it", "3");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let held = apply(&space.access, &maps, &held, Guard::Absent).await.unwrap().object;
    assert_eq!(remove(&uid(&held), Some(&version(&held))).await, Deletion::Deleting);
    let path = format!("{}/it", space.path("v1", "configmaps"));
    space.send("PATCH", &path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(remove(&uid(&held), None).await, Deletion::AlreadyGone);
}

#[tokio::test]
async fn a_patch_holds_for_the_version_that_was_looked_at() {
    let space = Space::new("patch").await;
    let maps = space.resource("v1", "ConfigMap");
    let one =
        apply(&space.access, &maps, &config_map(&space, "it", "1"), Guard::Absent).await.unwrap().object;
    let two =
        apply(&space.access, &maps, &config_map(&space, "it", "2"), Guard::Uid(&uid(&one))).await.unwrap();
    let remove = [json!({"op": "remove", "path": "/data/key"})];
    let stale = patch_json(&space.access, &maps, &space.name, "it", &version(&one), &remove).await;
    assert_eq!(stale.unwrap_err().cause, Cause::Conflict);
    let done =
        patch_json(&space.access, &maps, &space.name, "it", &version(&two.object), &remove).await.unwrap();
    assert!(done["data"].is_null() || done["data"]["key"].is_null());
}

/// What is wrong, to which manifest, and how the error reads.
#[tokio::test]
async fn refusals_say_which_field_and_what_to_do() {
    let space = Space::new("refuse").await;
    let name = &space.name;
    let mut cases: Vec<(&str, Value, &str, Vec<&str>)> = Vec::new();

    let mut unknown = deployment(&space, "web");
    unknown["spec"]["replica"] = json!(3);
    cases.push((
        "unknown field",
        unknown,
        "UnknownField",
        vec!["unknown field spec.replica", "kubectl explain"],
    ));
    let mut typed = deployment(&space, "web");
    typed["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "PORT", "value": 8080}]);
    cases.push(("wrong type", typed, "UnknownField", vec!["env[name=\"PORT\"].value: expected string"]));
    let mut negative = deployment(&space, "web");
    negative["spec"]["replicas"] = json!(-1);
    cases.push(("bad value", negative, "Invalid", vec!["spec.replicas", "-1", "greater than or equal to 0"]));
    let mut upper = config_map(&space, "Upper", "1");
    cases.push(("bad name", upper.clone(), "Invalid", vec!["metadata.name", "lower case"]));
    upper["metadata"]["name"] = json!("..");
    cases.push(("climbing name", upper, "", vec![]));
    let mut nowhere = config_map(&space, "it", "1");
    nowhere["metadata"]["namespace"] = json!("nowhere");
    cases.push((
        "no namespace",
        nowhere,
        "NamespaceMissing",
        vec!["namespace nowhere does not exist", "createNamespace"],
    ));
    let large = config_map(&space, "large", &"x".repeat(1_200_000));
    cases.push(("too large for the kind", large, "TooLarge", vec!["1048576"]));
    let mut large = deployment(&space, "large");
    large["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["x".repeat(1_800_000)]);
    cases.push(("too large for etcd", large, "TooLarge", vec!["etcd"]));
    let large = config_map(&space, "large", &"x".repeat(3_500_000));
    cases.push(("too large to send", large, "TooLarge", vec!["3 MiB"]));

    for (what, manifest, reason, texts) in cases {
        let resource =
            space.resource(manifest["apiVersion"].as_str().unwrap(), manifest["kind"].as_str().unwrap());
        let error = apply(&space.access, &resource, &manifest, Guard::Any).await.unwrap_err();
        let text = error.to_string();
        assert!(!error.is_transient(), "{what}: {error:?}");
        assert!(reason.is_empty() || error.cause.reason() == reason, "{what}: {error:?}");
        assert!(text.starts_with(manifest["kind"].as_str().unwrap()), "{what}: {text}");
        for part in texts {
            assert!(text.contains(part), "{what}: {text:?} does not say {part:?} ({name})");
        }
    }
}

#[tokio::test]
async fn a_key_that_stands_twice_is_refused() {
    // Our own reader refuses it first; a body made elsewhere is refused by the server.
    let space = Space::new("twice").await;
    let path = format!("{}/it?fieldManager=x&fieldValidation=Strict", space.path("v1", "configmaps"));
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"it"},"data":{"k":"1","k":"2"}}"#;
    let request = http::Request::patch(path)
        .header("content-type", "application/apply-patch+yaml")
        .body(kube::client::Body::from(body.as_bytes().to_vec()))
        .unwrap();
    let answer = space.connection.client.send(request).await.unwrap();
    let code = answer.status().as_u16();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let id = space.resource("v1", "ConfigMap").id(&space.name, "it");
    let refusal = windlass::cluster::refusal::Refusal { code, body: &body, retry_after: None };
    let cause = windlass::cluster::refusal::classify(&id, "v1 ConfigMap", refusal);
    assert_eq!(cause, Cause::UnknownField { problem: "key \"k\" stands twice".into() });
}

#[tokio::test]
async fn a_change_of_an_immutable_field_names_the_field() {
    let space = Space::new("immutable").await;
    let meta = json!({"name": "it", "namespace": space.name});
    let pod = |image: &str| json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}});
    let web = deployment(&space, "it");
    let mut selector = web.clone();
    selector["spec"]["selector"]["matchLabels"] = json!({"other": "it"});
    selector["spec"]["template"]["metadata"]["labels"] = json!({"other": "it"});
    let set = |service: &str| {
        let mut set = web.clone();
        set["kind"] = json!("StatefulSet");
        set["spec"]["serviceName"] = json!(service);
        set
    };
    let of = |version: &str, kind: &str, rest: Value| {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": meta});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let job = |image: &str| of("batch/v1", "Job", json!({"spec": {"template": pod(image)}}));
    let service = |ip: &str| of("v1", "Service", json!({"spec": {"clusterIP": ip, "ports": [{"port": 80}]}}));
    let claim = |mode: &str| {
        let spec = json!({"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}});
        of("v1", "PersistentVolumeClaim", json!({"spec": spec}))
    };
    let binding = |role: &str| {
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role});
        of("rbac.authorization.k8s.io/v1", "RoleBinding", json!({"roleRef": role}))
    };
    let frozen = |value: &str| of("v1", "ConfigMap", json!({"immutable": true, "data": {"k": value}}));
    let secret = |value: &str| of("v1", "Secret", json!({"type": value, "stringData": {"k": "v"}}));
    let table = [
        (web.clone(), selector, "spec.selector"),
        (set("one"), set("two"), "spec"),
        (job("a"), job("b"), "spec.template"),
        (service(""), service("None"), "spec.clusterIPs[0]"),
        (claim("ReadWriteOnce"), claim("ReadWriteMany"), "spec"),
        (binding("one"), binding("two"), "roleRef"),
        (frozen("1"), frozen("2"), "data"),
        (secret("example.com/one"), secret("example.com/two"), "type"),
    ];
    for (old, new, field) in table {
        let kind = old["kind"].as_str().unwrap();
        let resource = space.resource(old["apiVersion"].as_str().unwrap(), kind);
        apply(&space.access, &resource, &old, Guard::Any).await.unwrap();
        let error = dry_run(&space.access, &resource, &new, Guard::Any).await.unwrap_err();
        let Cause::Immutable { fields, .. } = &error.cause else { panic!("{kind}: {error:?}") };
        assert_eq!(fields, &[field.to_string()], "{kind}");
        let text = error.to_string();
        assert!(text.contains(field) && text.contains("windlass.dev/recreate") && text.len() < 400, "{text}");
    }
}

#[tokio::test]
async fn a_tenant_may_do_what_its_account_may() {
    let space = Space::new("tenant").await;
    let maps = space.resource("v1", "ConfigMap");
    let rules =
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]}]);
    let account = space.account("deployer", rules).await;
    let tenant = space.connection.access(Some(&account));
    let wanted = config_map(&space, "it", "1");
    // The authorizer learns of a new role a moment after it was made.
    wait_until("the role counts", SOON, async || {
        apply(&tenant, &maps, &wanted, Guard::Any).await.map_err(|e| e.to_string())
    })
    .await;
    let secrets = space.resource("v1", "Secret");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "it", "namespace": space.name}});
    let error = apply(&tenant, &secrets, &secret, Guard::Any).await.unwrap_err();
    let Cause::Forbidden { user, verb, resource, namespace } = &error.cause else { panic!("{error:?}") };
    assert_eq!(user, &format!("service account {}/deployer", space.name));
    assert_eq!((verb.as_str(), resource.as_str(), namespace), ("patch", "secrets", &space.name));
    assert!(!error.is_transient());

    let audit = space.cluster.audit();
    let gone = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]);
    space.grant("deployer", gone).await;
    wait_until("new rights count at once", SOON, async || {
        dry_run(&tenant, &secrets, &secret, Guard::Any).await.map_err(|e| e.to_string())
    })
    .await;
    let users = wait_until("the audit log is written", SOON, async || {
        let users: Vec<_> = audit.in_namespace(&space.name).into_iter().map(|r| r.user).collect();
        if users.is_empty() { Err("no entry".to_string()) } else { Ok(users) }
    })
    .await;
    assert!(users.iter().all(|u| u == &account.user()), "{users:?}");
}

#[tokio::test]
async fn a_used_up_quota_says_so() {
    let space = Space::new("quota").await;
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"count/deployments.apps": "0"}}});
    space.send("POST", &space.path("v1", "resourcequotas"), &quota).await;
    let deployments = space.resource("apps/v1", "Deployment");
    let text = wait_until("the quota counts", SOON, async || {
        match dry_run(&space.access, &deployments, &deployment(&space, "web"), Guard::Any).await {
            Err(e) if e.cause.reason() == "QuotaExceeded" => Ok(e.to_string()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(text.contains("quota exceeded: small"), "{text}");
}

#[tokio::test]
async fn nothing_new_is_made_in_a_namespace_that_goes() {
    let mut space = Space::new("going").await;
    let maps = space.resource("v1", "ConfigMap");
    let other = format!("{}-b", space.name);
    let collection = "/api/v1/namespaces".to_string();
    space.make_cluster_object(&collection, &json!({"metadata": {"name": other}})).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    space.send("POST", &format!("/api/v1/namespaces/{other}/configmaps"), &held).await;
    space.send("DELETE", &format!("/api/v1/namespaces/{other}"), &Value::Null).await;
    let new =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new", "namespace": other}});
    let error = apply(&space.access, &maps, &new, Guard::Any).await.unwrap_err();
    assert_eq!(error.cause, Cause::NamespaceTerminating { namespace: other.clone() });
    assert!(error.is_transient());
    let path = format!("/api/v1/namespaces/{other}/configmaps/held");
    space.send("PATCH", &path, &json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn no_error_about_a_secret_quotes_it() {
    let space = Space::new("secret").await;
    let secrets = space.resource("v1", "Secret");
    let secret = |rest: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "it", "namespace": space.name}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let first = secret(json!({"type": "example.com/one", "immutable": true, "stringData": {"k": "v"}}));
    apply(&space.access, &secrets, &first, Guard::Absent).await.unwrap();
    let table = [
        (secret(json!({"stringData": {"k": 8675309}})), "stringData.k: expected string"),
        (secret(json!({"data": {"k": "hunter2!"}})), "not base64"),
        (secret(json!({"type": "hunter2"})), "type, immutable cannot be changed"),
        (
            secret(json!({"type": "example.com/one", "immutable": true, "stringData": {"k": "hunter2"}})),
            "data cannot",
        ),
        (secret(json!({"data": ["hunter2"]})), "data"),
        (secret(json!({"stringData": {"k": {"hunter2": "8675309"}}})), "stringData.k"),
    ];
    for (manifest, says) in table {
        let error = apply(&space.access, &secrets, &manifest, Guard::Any).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("8675309"), "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[tokio::test]
async fn a_kind_that_comes_later_is_found() {
    use windlass::core::manifest::Gvk;
    let mut space = Space::new("crd").await;
    let group = format!("{}.example.com", space.name);
    let gvk = Gvk { group: group.clone(), version: "v1".into(), kind: "Widget".into() };
    assert!(space.discovery.find(&gvk).await.unwrap().is_none());
    let asked = space.connection.counters.requests();
    let begin = Instant::now();
    for _ in 0..20 {
        assert!(space.discovery.find(&gvk).await.unwrap().is_none());
    }
    let asked = space.connection.counters.requests() - asked;
    // Two requests at most every three seconds.
    let most = 2 * (1 + begin.elapsed().as_secs() / 3);
    assert!(asked <= most, "asking for an unknown kind is limited in rate: {asked} requests, not {most}");
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}],
        },
    });
    space.make_cluster_object("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await;
    let widgets = wait_until("the kind is found", SOON, async || {
        space.discovery.find(&gvk).await.unwrap().ok_or_else(|| "unknown".to_string())
    })
    .await;
    assert!(!widgets.namespaced);
    assert_eq!(space.discovery.scope(&group, "Widget"), Some(false));
    let mut widget = json!({"apiVersion": format!("{group}/v1"), "kind": "Widget",
        "metadata": {"name": "one"}, "spec": {"size": 1}});
    let made = wait_until("the kind takes objects", SOON, async || {
        apply(&space.access, &widgets, &widget, Guard::Any).await.map_err(|e| e.to_string())
    })
    .await;
    assert!(made.created);
    widget["spec"]["colour"] = json!("red");
    let error = dry_run(&space.access, &widgets, &widget, Guard::Any).await.unwrap_err();
    assert_eq!(error.cause, Cause::UnknownField { problem: "unknown field spec.colour".into() });

    space
        .send(
            "DELETE",
            &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{group}"),
            &Value::Null,
        )
        .await;
    wait_until("the kind is gone", SOON, async || match get(&space.access, &widgets, "", "one").await {
        Err(e) if e.cause.reason() == "KindUnknown" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
