//! Whatever is wrong with a commit, the cluster or a resource: it is told where and why, what runs goes on, and the next
//! good commit is deployed.

use crate::support::cluster::{try_send, wait_gone, wait_until};
use crate::support::daemon::{LIMIT, World, condition, config_map, deployment};
use crate::support::faults::{Fault, Faults};
use crate::support::git::git;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use windlass::api::delivery::Phase;
use windlass::cluster::apply::get;

/// A Delivery `shop` of one ConfigMap, ready.
async fn running(test: &str, template: Value) -> World {
    let world = World::new(test).await;
    let good = world.commit("Good", &[("shop/settings.yaml", &config_map("settings", "good-0"))]);
    world.repository(json!({})).await;
    world.delivery("config", "shop", template).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    world
}

/// Waits until a commit is refused; checks what is told, and that what runs goes on.
async fn refused(world: &World, commit: &str, reason: &str, words: &[&str]) {
    let delivery = world
        .wait("shop", &format!("{commit} is refused with {reason}"), |d| {
            let status = d.status.clone().unwrap_or_default();
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready").cloned();
            status.phase == Phase::Failed && ready.is_some_and(|c| c.reason == reason)
        })
        .await;
    let (status, _, message) = condition(&delivery, "Ready");
    assert_eq!(status, "False");
    for word in words.iter().chain(&["goes on running"]) {
        assert!(message.contains(word), "{word}: {message}");
    }
    let status = delivery.status.unwrap();
    assert!(status.attempt.is_none() && status.held.is_none(), "nothing was begun");
    let event = world.wait_event("shop", reason).await;
    assert!(event.contains("nothing was changed"), "{event}");
    assert!(world.value("settings").await.starts_with("good-"));
}

/// Undoes a bad commit together with a change, which is deployed.
async fn mended(world: &World, number: usize) {
    fs::remove_dir_all(world.repo.path().join("shop")).unwrap();
    let value = format!("good-{number}");
    let commit = world.commit("Mended", &[("shop/settings.yaml", &config_map("settings", &value))]);
    world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(world.value("settings").await, value);
}

/// Names, and what a commit does wrong to the directory; the reason, and words of the message.
type Wrong = (&'static str, fn(&Path), &'static str, &'static [&'static str]);

fn write(path: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(path.join(name), content).unwrap();
}

const WRONG: &[Wrong] = &[
    (
        "an empty directory",
        |shop| {
            fs::remove_file(shop.join("settings.yaml")).unwrap();
            write(shop, "README", "nothing");
        },
        "EmptyBundle",
        &["shop: holds no manifest"],
    ),
    (
        "a directory that is gone",
        |shop| fs::remove_dir_all(shop).unwrap(),
        "PathNotFound",
        &["shop: no such directory"],
    ),
    (
        "a submodule",
        |shop| {
            let module = shop.join("module");
            fs::create_dir(&module).unwrap();
            git(&module, &["init", "--quiet"]);
            git(&module, &["commit", "--quiet", "--allow-empty", "--message", "Module"]);
        },
        "RenderFailed",
        &["shop/module", "Git submodule"],
    ),
    (
        "a pointer of LFS",
        |shop| {
            let text = "version https://git-lfs.github.com/spec/v1\noid sha256:0000000000000000000000000000000000000000000000000000000000000000\nsize 12\n";
            write(shop, "large.yaml", text);
        },
        "RenderFailed",
        &["shop/large.yaml:1", "Git LFS"],
    ),
    (
        "a link out of the repository",
        |shop| std::os::unix::fs::symlink("../../../etc/hostname", shop.join("link.yaml")).unwrap(),
        "RenderFailed",
        &["shop/link.yaml", "leads out of the repository"],
    ),
    (
        "a kustomization that leads out",
        |shop| write(shop, "kustomization.yaml", "resources:\n- settings.yaml\n- ../../outside\n"),
        "RenderFailed",
        &["shop/kustomization.yaml:3", "../../outside", "leads out of the repository"],
    ),
    (
        "a file of 100 MB",
        |shop| write(shop, "huge.yaml", vec![b'#'; 100 << 20]),
        "RenderFailed",
        &["shop/huge.yaml", "limit"],
    ),
    (
        "aliases of aliases",
        |shop| {
            let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
            for n in 1..10 {
                let before = vec![format!("*a{}", n - 1); 9].join(", ");
                text.push_str(&format!("a{n}: &a{n} [{before}]\n"));
            }
            write(shop, "laughs.yaml", text);
        },
        "RenderFailed",
        &["shop/laughs.yaml:"],
    ),
    (
        "text that is not UTF-8",
        |shop| write(shop, "latin.yaml", b"kind: ConfigMap\nname: caf\xe9\n"),
        "RenderFailed",
        &["shop/latin.yaml:2", "UTF-8"],
    ),
    (
        "a name that is not UTF-8",
        |shop| {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"caf\xe9.yaml");
            fs::write(shop.join(name), "kind: ConfigMap\n").unwrap();
        },
        "RenderFailed",
        &["shop", "UTF-8"],
    ),
    (
        "an object that is too large",
        |shop| {
            let text = config_map("large", &"x".repeat(4 << 20));
            write(shop, "large.yaml", text);
        },
        "TooLarge",
        &["ConfigMap", "large", "shop/large.yaml:1"],
    ),
    (
        "a field that the API server does not take",
        |shop| {
            let text = deployment("web", "ok", 1).replace("replicas: 1", "replicas: -1");
            write(shop, "web.yaml", text);
        },
        "Invalid",
        &["Deployment", "spec.replicas", "shop/web.yaml:1"],
    ),
];

#[tokio::test]
async fn what_is_wrong_with_a_commit_is_told() {
    let world = running("wrong", json!({})).await;
    for (number, (what, make, reason, words)) in WRONG.iter().enumerate() {
        eprintln!("{what}");
        make(&world.repo.path().join("shop"));
        let commit = world.commit(what, &[]);
        refused(&world, &commit, reason, words).await;
        let _ = fs::create_dir(world.repo.path().join("shop"));
        mended(&world, number + 1).await;
    }
}

#[tokio::test]
async fn a_quota_says_no_and_is_raised() {
    let world = running("quota", json!({})).await;
    let quotas = world.space.path("v1", "resourcequotas");
    let quota = |hard: &str| json!({"metadata": {"name": "few"}, "spec": {"hard": {"services": hard}}});
    world.space.send("POST", &quotas, &quota("0")).await;
    // That its status says so is not enough: what admits objects learns of it by itself.
    let probe = json!({"metadata": {"name": "probe"}, "spec": {"ports": [{"port": 80}]}});
    let path = format!("{}?dryRun=All", world.space.path("v1", "services"));
    wait_until("the quota is in force", LIMIT, || async {
        match try_send(&world.space.connection.client, "POST", &path, &probe).await {
            Err(e) if e.to_string().contains("exceeded quota: few") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
    let commit = world.commit("One service too many", &[("shop/web.yaml", service)]);
    refused(&world, &commit, "QuotaExceeded", &["Service", "few", "shop/web.yaml:1"]).await;
    // Tried again by itself.
    world.space.send("PATCH", &format!("{quotas}/few"), &json!({"spec": {"hard": {"services": "1"}}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
}

#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let world = World::new("rights").await;
    let read = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    let reader = world.space.connection.access(Some(&world.space.account("reader", read).await));
    let maps = world.space.resource("v1", "ConfigMap");
    // The authorizer learns of a new role a moment after it was made.
    wait_until("the account may read", LIMIT, || async {
        get(&reader, &maps, &world.space.name, "settings").await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
    let commit = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "good-1"))]);
    world.repository(json!({})).await;
    world.delivery("config", "shop", json!({"serviceAccountName": "reader"})).await;
    let delivery = world.wait_refused("shop", "Forbidden").await;
    let (_, _, message) = condition(&delivery, "Ready");
    let account = format!("{}/reader", world.space.name);
    for word in [account.as_str(), "patch", "configmaps", "shop/settings.yaml:1", "Role"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let write = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]}]);
    world.space.grant("reader", write).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(world.value("settings").await, "good-1");
}

#[tokio::test]
async fn an_admission_policy_is_quoted() {
    let mut world = running("policy", json!({})).await;
    let name = format!("no-red-{}", world.space.name);
    let space = world.space.name.clone();
    let of_space =
        json!([{"name": "space", "expression": format!("object.metadata.namespace == '{space}'")}]);
    let api = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "matchConditions": of_space,
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["configmaps"],
            }]},
            "validations": [{
                "expression": "!has(object.data) || !('key' in object.data) || object.data.key != 'red'",
                "message": "red is not allowed here",
            }],
        },
    });
    world.space.make_cluster_object(&format!("{api}/validatingadmissionpolicies"), &policy).await;
    let binding = json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    world.space.make_cluster_object(&format!("{api}/validatingadmissionpolicybindings"), &binding).await;
    let probe = json!({"metadata": {"name": "probe"}, "data": {"key": "red"}});
    let path = format!("{}?dryRun=All", world.space.path("v1", "configmaps"));
    wait_until("the policy is in force", LIMIT, || async {
        match try_send(&world.space.connection.client, "POST", &path, &probe).await {
            Err(e) if e.to_string().contains("red is not allowed here") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let commit = world.commit("Red", &[("shop/settings.yaml", &config_map("settings", "red"))]);
    let words = ["red is not allowed here", &name, "shop/settings.yaml:1"];
    refused(&world, &commit, "AdmissionDenied", &words).await;
    mended(&world, 1).await;
}

#[tokio::test]
async fn a_definition_that_goes_takes_nothing_else_with_it() {
    let mut world = running("definition", json!({})).await;
    let group = format!("{}.example.com", crate::support::cluster::suffix());
    let definition = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: things.{group}}}\nspec:\n  \
         group: {group}\n  scope: Namespaced\n  names: {{plural: things, singular: thing, kind: Thing}}\n  versions:\n  \
         - {{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, properties: \
         {{spec: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}}}}}\n"
    );
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}");
    let value: Value = json!({
        "metadata": {"name": format!("things.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.space.make_cluster_object(definitions, &value).await;
    let thing = format!("apiVersion: {group}/v1\nkind: Thing\nmetadata: {{name: one}}\nspec: {{size: 1}}\n");
    let commit = world.commit("A thing", &[("shop/thing.yaml", &thing)]);
    world.wait_for("shop", Phase::Ready, &commit).await;

    world.space.send("DELETE", &path, &Value::Null).await;
    let delivery = world
        .wait("shop", "says what is missing", |d| {
            let conditions = d.status.clone().unwrap_or_default().conditions;
            conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "False" && c.message.contains("Thing"))
        })
        .await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, commit);
    assert_eq!(world.value("settings").await, "good-0");
    // What does not need it is deployed: a commit that names it no more, and then one that brings it itself.
    mended(&world, 1).await;
    wait_gone(&world.space.connection.client, &path, LIMIT).await;
    let files = [("shop/definition.yaml", definition.as_str()), ("shop/thing.yaml", thing.as_str())];
    let commit = world.commit("With its definition", &files);
    world.wait_for("shop", Phase::Ready, &commit).await;
}

/// A daemon whose API server can be made to fail.
async fn behind_faults(test: &str) -> (World, Faults) {
    let mut world = World::stopped(test).await;
    let faults = world.behind_faults().await;
    world.start();
    let good = world.commit("Good", &[("shop/settings.yaml", &config_map("settings", "good-0"))]);
    world.repository(json!({})).await;
    world.delivery("config", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, faults)
}

fn is_object(request: &axum::extract::Request) -> bool {
    !request.uri().path().contains("windlass.dev") && !request.uri().path().contains("/leases/")
}

#[tokio::test]
async fn an_api_server_that_is_away_in_the_middle_of_a_deployment_delays_it() {
    let (world, faults) = behind_faults("outage").await;
    // Everything fails from the first real write on, watches and the daemon's own resources included.
    let away = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let begun = away.clone();
    faults.set(move |request| {
        let write = request.method() == "PATCH" && is_object(request);
        if write && !request.uri().query().unwrap_or_default().contains("dryRun") {
            begun.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        begun.load(std::sync::atomic::Ordering::SeqCst).then_some(Fault::Status(503, None))
    });
    let files = [
        ("shop/settings.yaml", config_map("settings", "good-1")),
        ("shop/web.yaml", deployment("web", "ok", 1)),
        ("shop/more.yaml", config_map("more", "1")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (*p, c.as_str())).collect();
    let commit = world.commit("In the middle", &files);
    wait_until("the outage begins", LIMIT, || async {
        if away.load(std::sync::atomic::Ordering::SeqCst) { Ok(()) } else { Err("no write yet".to_owned()) }
    })
    .await;
    // Some of what it tries meanwhile is seen to fail.
    let count = faults.times("PATCH").len() + faults.times("GET").len() + faults.times("PUT").len();
    wait_until("it is tried again", LIMIT, || async {
        let now = faults.times("PATCH").len() + faults.times("GET").len() + faults.times("PUT").len();
        if now >= count + 5 { Ok(()) } else { Err(format!("{now} requests after {count}")) }
    })
    .await;
    assert_eq!(world.value("settings").await, "good-0");
    faults.set(|_| None);
    let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(delivery.status.unwrap().history.len(), 2, "an outage is no failure of the commit");
    assert_eq!(world.value("settings").await, "good-1");
}

#[tokio::test]
async fn stalled_is_only_what_does_not_pass_by_itself() {
    let (world, faults) = behind_faults("stalled").await;
    let stalled = |reason: &'static str| {
        let world = &world;
        async move {
            let delivery = world.wait_refused("shop", reason).await;
            assert_eq!(delivery.status.as_ref().unwrap().phase, Phase::Failed);
            condition(&delivery, "Stalled")
        }
    };

    // The API server cannot do anything for what is delivered; what the daemon says about itself gets through.
    faults.set(|request| {
        let path = request.uri().path();
        let write = request.method() == "PATCH" && is_object(request) && !path.contains("/events");
        write.then_some(Fault::Status(503, None))
    });
    world.commit("While it is away", &[("shop/settings.yaml", &config_map("settings", "good-1"))]);
    assert_eq!(stalled("Unavailable").await, ("False".into(), "NotStalled".into(), String::new()));
    faults.set(|_| None);
    let far = format!("{}-far", world.space.name);
    let there = config_map("far", "1").replace("{name: far}", &format!("{{name: far, namespace: {far}}}"));
    let commit = world.commit("Somewhere else", &[("shop/far.yaml", &there)]);
    assert_eq!(stalled("NamespaceMissing").await, ("False".into(), "NotStalled".into(), String::new()));
    // Somebody makes it, and nobody has to ask for anything.
    let namespace = json!({"metadata": {"name": far}});
    world.space.send("POST", "/api/v1/namespaces", &namespace).await;
    let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(condition(&delivery, "Stalled").0, "False");

    let gadget = "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: it}\n";
    world.commit("Nobody knows it", &[("shop/gadget.yaml", gadget)]);
    let (status, reason, message) = stalled("KindUnknown").await;
    assert_eq!((status.as_str(), reason.as_str()), ("True", "KindUnknown"));
    assert!(message.contains("Gadget"), "{message}");
    let files = [("shop/gadget.yaml", ""), ("shop/settings.yaml", &*config_map("settings", "good-2"))];
    let mended = world.commit("Without it", &files);
    let delivery = world.wait_for("shop", Phase::Ready, &mended).await;
    assert_eq!(condition(&delivery, "Stalled").0, "False");
    world.space.send("DELETE", &format!("/api/v1/namespaces/{far}"), &Value::Null).await;
}

#[tokio::test]
async fn an_api_server_short_of_breath_is_left_time_and_the_commit_gets_through() {
    let (world, faults) = behind_faults("breath").await;
    for (number, fault) in
        [Fault::Status(429, Some(1)), Fault::Status(500, None), Fault::LoseAnswer].into_iter().enumerate()
    {
        let mut left = 4;
        let what = fault.clone();
        faults.set(move |request| {
            let hit = left > 0 && request.method() == "PATCH" && is_object(request);
            left -= usize::from(hit);
            hit.then(|| what.clone())
        });
        let value = format!("good-{}", number + 1);
        let commit = world.commit("More", &[("shop/settings.yaml", &config_map("settings", &value))]);
        let delivery = world.wait_for("shop", Phase::Ready, &commit).await;
        let history = delivery.status.unwrap().history;
        assert!(history.iter().all(|h| h.problem.is_none()), "{fault:?}: {history:?}");
        assert_eq!(world.value("settings").await, value, "{fault:?}");
    }
}

#[tokio::test]
async fn resources_that_make_no_sense_are_refused_with_a_sentence() {
    let world = World::stopped("sense").await;
    let repositories = world.space.path("windlass.dev/v1alpha1", "repositories");
    let deliveries = world.space.path("windlass.dev/v1alpha1", "deliveries");
    let repository = |spec: Value| {
        let mut all = json!({"url": "https://git.example.com/config.git"});
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        (&repositories, "Repository", all)
    };
    let delivery = |spec: Value| {
        let mut all = json!({"source": {"repository": "config", "path": "shop"}});
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        (&deliveries, "Delivery", all)
    };
    let table = [
        (repository(json!({"url": "https://ada:hunter2@git.example.com/x"})), "url holds a password"),
        (repository(json!({"url": "ftp://git.example.com/x"})), "url must begin with https://"),
        (repository(json!({"ref": {"branch": "main", "tag": "v1"}})), "exactly one of branch, tag, semver"),
        (repository(json!({"ref": {}})), "exactly one of branch, tag, semver"),
        (repository(json!({"ref": {"commit": "abc"}})), "full id of 40 hexadecimal digits"),
        (repository(json!({"interval": "soon"})), "spec.interval"),
        (repository(json!({"interval": "99999999999999999999s"})), "spec.interval"),
        (delivery(json!({"render": {"kustomize": {}, "plain": {}}})), "one of kustomize and plain"),
        (delivery(json!({"source": {"repository": "config", "path": "../x"}})), "cannot leave it"),
        (delivery(json!({"source": {"repository": "config", "path": "/x"}})), "relative to the root"),
        (delivery(json!({"timeout": "-5m"})), "spec.timeout"),
        (
            delivery(json!({"substitute": {"from": [{"configMap": "a", "secret": "b"}]}})),
            "one of configMap and secret",
        ),
        (delivery(json!({"drift": {"mode": "Sometimes"}})), "supported values"),
    ];
    for ((path, kind, spec), words) in table {
        let body = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": kind,
            "metadata": {"generateName": "bad-"}, "spec": spec,
        });
        let answer = try_send(&world.space.connection.client, "POST", path, &body).await;
        let error = answer.map(|v| v.to_string()).unwrap_err().to_string();
        assert!(error.to_lowercase().contains(&words.to_lowercase()), "{spec}: {error}");
    }
    // The longest and the shortest that are taken harm nobody.
    for interval in ["999999999999999h", "0s"] {
        let (path, kind, spec) =
            repository(json!({"interval": interval, "timeout": interval, "suspend": true}));
        let body = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": kind, "metadata": {"generateName": "odd-"}, "spec": spec,
        });
        world.space.send("POST", path, &body).await;
        let (path, kind, mut spec) = delivery(json!({"interval": interval, "timeout": interval}));
        spec["source"]["repository"] = json!("config");
        let body = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": kind, "metadata": {"generateName": "odd-"}, "spec": spec,
        });
        world.space.send("POST", path, &body).await;
    }
    let mut world = world;
    world.start();
    let good = world.commit("Good", &[("mine/settings.yaml", &config_map("settings", "good"))]);
    world.repository(json!({})).await;
    world
        .delivery("config", "mine", json!({"interval": "999999999999999h", "timeout": "999999999999999h"}))
        .await;
    world.wait_for("mine", Phase::Ready, &good).await;
}
