//! An Application has the objects that it is short for, keeps them that way, and takes them along when it goes.

use crate::support::applications::condition_of;
use crate::support::cli::{kubectl_with, windlass_with};
use crate::support::cluster::{try_send, wait_until};
use crate::support::daemon::{LIMIT, World};
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

/// Kinds that an Application may be short for, as `windlass render` prints them.
const CHILDREN: [(&str, &str); 8] = [
    ("v1", "serviceaccounts"),
    ("networking.k8s.io/v1", "ingresses"),
    ("apps/v1", "deployments"),
    ("v1", "services"),
    ("v1", "configmaps"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
];

async fn children(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for (api, plural) in CHILDREN {
        all.extend(world.names(api, plural).await.into_iter().map(|name| format!("{plural}/{name}")));
    }
    all
}

#[tokio::test]
async fn from_an_image_to_pods_that_serve() {
    let world = World::new("app-runs").await;
    let more = json!({
        "config": {"env": {"FEATURE": "on"}},
        "expose": {"host": "web.example.com", "ingress": {}},
    });
    world.application("web", "ok", more.clone()).await;
    let status = world.wait_application_runs("web", "ok").await;
    assert_eq!(
        (status.replicas, status.ready_replicas, status.available_replicas),
        (Some(2), Some(2), Some(2))
    );
    assert_eq!(status.url.as_deref(), Some("http://web.example.com/"));
    assert_eq!(condition_of(&status, kind::READY).0, "True");
    assert_eq!(condition_of(&status, kind::AVAILABLE).2, "2 of 2 pods are available");
    for other in [kind::PROGRESSING, kind::DEGRADED, kind::HELD] {
        assert_eq!(condition_of(&status, other).0, "False", "{other}");
    }
    let arguments = ["get", "wapp", "web", "-n", &world.space.name, "-o", "wide"];
    let listed = kubectl_with(&world.space.cluster.kubeconfig, &arguments);
    let mut lines = listed.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["NAME", "IMAGE", "READY", "REPLICAS", "PHASE", "AGE", "URL"]);
    let line = lines.next().unwrap();
    assert_eq!(line[..5], ["web", "registry.example.com/web:ok", "2", "2", "Running"]);
    assert_eq!(line.last(), Some(&"http://web.example.com/"));
    let there = children(&world).await;
    for child in ["deployments/web", "services/web", "poddisruptionbudgets/web"] {
        assert!(there.contains(&child.to_owned()), "{child}: {there:?}");
    }
    let config = |all: &[String]| all.iter().find(|n| n.starts_with("configmaps/web-env-")).cloned().unwrap();
    let before = config(&there);
    // What runs is kept, as what the spec became.
    assert_eq!(Some(world.revisions_of("web").await), status.current_revision.clone().map(|r| vec![r]));

    // Another image, and other configuration, roll the pods.
    let mut changed = more;
    changed["config"]["env"]["FEATURE"] = json!("off");
    world.application("web", "ok2", changed).await;
    let status = world.wait_application_runs("web", "ok2").await;
    let now = children(&world).await;
    assert!(config(&now) != before && !now.contains(&before), "{now:?}");
    assert_eq!(world.revisions_of("web").await.len(), 2, "the one before is what a rollback needs");
    assert!(world.revisions_of("web").await.contains(&status.current_revision.unwrap()));
    wait_until("both are told", LIMIT, || async {
        let events = world.events_about("Application", "web").await;
        let told = |(reason, text): &&(String, String)| {
            reason == "Deployed" && text.contains("is deployed and healthy")
        };
        if events.iter().filter(told).count() == 2 { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
    told_once(&world, &[("Created", "it becomes ")]).await;
    assert!(world.events("web.application").await.is_empty(), "it is told where people look");

    // People who know the Application's name need no other.
    let shown = windlass_with(&world.space.cluster.kubeconfig, &["history", "-n", &world.space.name, "web"]);
    assert!(
        shown.code == 0 && shown.out.contains("registry.example.com/web:ok2"),
        "{}{}",
        shown.out,
        shown.err
    );
}

/// Waits until these events are told about the Application: each reason once, with a text that begins like this.
async fn told_once(world: &World, wanted: &[(&str, &str)]) {
    wait_until("it is told", LIMIT, || async {
        let events = world.events_about("Application", "web").await;
        let once = |(reason, text): &(&str, &str)| {
            let mut of_it = events.iter().filter(|(r, _)| r == reason);
            of_it.next().is_some_and(|(_, told)| told.starts_with(text)) && of_it.next().is_none()
        };
        if wanted.iter().all(once) { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
}

#[tokio::test]
async fn it_is_scaled_like_a_deployment() {
    let world = World::new("app-scale").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    let namespace = world.space.name.clone();
    let answer = kubectl_with(
        &world.space.cluster.kubeconfig,
        &["scale", "application", "web", "--replicas=3", "-n", &namespace],
    );
    assert_eq!(answer.code, 0, "{}", answer.err);
    let status = world
        .wait_application("web", "three pods", |s| {
            s.phase == ApplicationPhase::Running && s.replicas == Some(3)
        })
        .await;
    assert_eq!(status.available_replicas, Some(3));
    told_once(&world, &[("Created", "it becomes "), ("Scaled", "from 2 to 3 pods")]).await;
    // Whoever scales by the subresource sees the pods that are meant.
    let path = format!("{}/web/scale", world.space.path("windlass.dev/v1alpha1", "applications"));
    let scale = world.space.send("GET", &path, &Value::Null).await;
    assert_eq!(scale["status"]["replicas"], 3);
    let selector = scale["status"]["selector"].as_str().unwrap();
    let pods = format!("{}?labelSelector={selector}", world.space.path("v1", "pods"));
    assert_eq!(world.space.send("GET", &pods, &Value::Null).await["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_somebody_does_to_its_objects_is_mended() {
    let world = World::new("app-mended").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    let edit = json!({"spec": {"ports": [{"port": 8080, "name": "other"}]}});
    world.patch("v1", "services", "web", edit).await;
    world
        .wait_object("v1", "services", "web", "its port has its name again", |s| {
            s["spec"]["ports"][0]["name"] == "http"
        })
        .await;
    wait_until("it is told", LIMIT, || async {
        let events = world.events_about("Application", "web").await;
        let told = |reason: &str| events.iter().any(|(r, text)| r == reason && text.starts_with("1 object"));
        if told("Drifted") && told("DriftCorrected") { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
    let report = world.get("windlass.dev/v1alpha1", "driftreports", "web.application").await;
    assert!(report["spec"].to_string().contains("Service"), "{report}");
    let before = world.get("apps/v1", "deployments", "web").await["metadata"]["uid"].clone();
    world.delete("apps/v1", "deployments", "web").await;
    world
        .wait_object("apps/v1", "deployments", "web", "it is there again", |d| {
            d["metadata"]["uid"].is_string() && d["metadata"]["uid"] != before
        })
        .await;
    world.wait_application_runs("web", "ok").await;
    // Its Delivery, too, is made again, and nothing is lost by that.
    world.delete("windlass.dev/v1alpha1", "deliveries", "web.application").await;
    world.wait_application_runs("web", "ok").await;
    world.wait("web.application", "it is there again", |d| d.metadata.deletion_timestamp.is_none()).await;
}

#[tokio::test]
async fn each_of_its_objects_is_mended_and_comes_back() {
    let world = World::new("app-each").await;
    let more = json!({
        "config": {"env": {"FEATURE": "on"}, "files": {"a.yaml": "b: c\n"}},
        "resources": {"requests": {"cpu": "100m"}},
        "autoscaling": {"minReplicas": 2, "maxReplicas": 3},
        "expose": {"host": "web.example.com", "ingress": {}},
        "security": {"networkPolicy": {}, "serviceAccount": {"create": true}},
    });
    world.application("web", "ok", more).await;
    world.wait_application_runs("web", "ok").await;
    let all: Vec<(&str, &str, String)> = {
        let mut all = Vec::new();
        for (api, plural) in CHILDREN {
            all.extend(world.names(api, plural).await.into_iter().map(|name| (api, plural, name)));
        }
        all
    };
    let kinds: std::collections::BTreeSet<&str> = all.iter().map(|(_, plural, _)| *plural).collect();
    assert_eq!(kinds.len(), CHILDREN.len(), "{all:?}");
    const LABEL: &str = "app.kubernetes.io/name";
    for (api, plural, name) in &all {
        let edit = json!({"metadata": {"labels": {LABEL: "another"}}});
        world.patch(api, plural, name, edit).await;
    }
    for (api, plural, name) in &all {
        world
            .wait_object(api, plural, name, "it is as it was", |o| o["metadata"]["labels"][LABEL] == "web")
            .await;
    }
    for (api, plural, name) in &all {
        let before = world.get(api, plural, name).await["metadata"]["uid"].clone();
        world.delete(api, plural, name).await;
        world
            .wait_object(api, plural, name, "it is there again", |o| {
                o["metadata"]["uid"].is_string() && o["metadata"]["uid"] != before
            })
            .await;
    }
    world.wait_application_runs("web", "ok").await;
}

#[tokio::test]
async fn what_a_backup_brings_back_is_taken_up_as_it_is() {
    let mut world = World::new("app-restored").await;
    world.application("web", "ok", json!({"config": {"env": {"FEATURE": "on"}}})).await;
    world.wait_application_runs("web", "ok").await;
    world.kill();
    // Who restores keeps owners by ids that nobody has any more, and no status.
    let mut saved = Vec::new();
    let kinds = [
        ("apps/v1", "deployments"),
        ("v1", "services"),
        ("v1", "configmaps"),
        ("apps/v1", "controllerrevisions"),
        ("windlass.dev/v1alpha1", "deliveries"),
        ("windlass.dev/v1alpha1", "applications"),
    ];
    for (api, plural) in kinds {
        for name in world.names(api, plural).await {
            let mut object = world.get(api, plural, &name).await;
            object.as_object_mut().unwrap().remove("status");
            for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
                object["metadata"].as_object_mut().unwrap().remove(field);
            }
            if plural == "services" {
                for field in ["clusterIP", "clusterIPs"] {
                    object["spec"].as_object_mut().unwrap().remove(field);
                }
            }
            saved.push((api, plural, name, object));
        }
    }
    for (api, plural, name, _) in saved.iter().rev() {
        let path = format!("{}/{name}", world.space.path(api, plural));
        wait_until(&format!("{path} is gone"), LIMIT, || async {
            // The garbage collector removes what the Application owned, too.
            let client = &world.space.connection.client;
            let free = json!({"metadata": {"finalizers": null}});
            let _ = try_send(client, "PATCH", &path, &free).await;
            match try_send(client, "DELETE", &path, &Value::Null).await {
                Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    for (api, plural, _, object) in &saved {
        world.space.send("POST", &world.space.path(api, plural), object).await;
    }
    let restored = world.get("apps/v1", "deployments", "web").await;
    world.give_away().await;
    world.start();
    let owner = world.applications().get("web").await.unwrap().metadata.uid;
    // Nobody knows what is in place: a person says that it is this.
    world
        .wait_application("web", "it says what to do", |s| {
            s.conditions.iter().any(|c| {
                c.type_ == kind::READY && c.reason == "InventoryLost" && c.message.contains("windlass adopt")
            })
        })
        .await;
    let namespace = world.space.name.clone();
    let adopted =
        windlass_with(&world.space.cluster.kubeconfig, &["adopt", "web", "-n", &namespace, "--wait"]);
    assert_eq!(adopted.code, 0, "{adopted:?}");
    let status = world.wait_application_runs("web", "ok").await;
    let now = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(now["metadata"]["uid"], restored["metadata"]["uid"], "what was restored is what runs");
    let current = status.current_revision.unwrap();
    // The garbage collector removes those that were restored.
    wait_until("what runs is kept, as its own", LIMIT, || async {
        let revision = world.get("apps/v1", "controllerrevisions", &current).await;
        let its = revision["metadata"]["ownerReferences"][0]["uid"].as_str() == owner.as_deref();
        if its { Ok(()) } else { Err(revision.to_string()) }
    })
    .await;
    // And it can be changed, and taken back.
    world.application("web", "crash", json!({})).await;
    world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
}

#[tokio::test]
async fn it_takes_everything_along_and_can_come_back() {
    let world = World::new("app-gone").await;
    world.application("web", "ok", json!({"config": {"files": {"a.yaml": "b: c\n"}}})).await;
    world.wait_application_runs("web", "ok").await;
    world.delete_application("web").await;
    // Back before the objects of the first are gone.
    world.application("web", "ok2", json!({})).await;
    world.wait_application_runs("web", "ok2").await;
    world.wait_for_application_only(&world.revisions_of("web").await).await;
    world.delete_application("web").await;
    nothing_is_left(&world).await;
    // So it is where somebody waits for all that it owns.
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    let namespace = world.space.name.clone();
    let arguments = ["delete", "application", "web", "--cascade=foreground", "-n", &namespace];
    let answer = kubectl_with(&world.space.cluster.kubeconfig, &arguments);
    assert_eq!(answer.code, 0, "{}", answer.err);
    nothing_is_left(&world).await;
}

/// Waits until all of an Application that was deleted is gone.
async fn nothing_is_left(world: &World) {
    world.wait_gone("web.application").await;
    wait_until("nothing is left", LIMIT, || async {
        let mut left = children(world).await;
        left.extend(world.revisions_of("web").await);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

impl World {
    /// Waits until an Application has no other revisions than one.
    async fn wait_for_application_only(&self, known: &[String]) {
        wait_until("one revision is left", LIMIT, || async {
            let left = self.revisions_of("web").await;
            if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}, before {known:?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn an_orphan_goes_on_running_and_is_taken_up_again() {
    orphaned_and_taken_up("app-orphan", true).await;
}

#[tokio::test]
async fn an_orphan_is_taken_up_by_a_daemon_that_never_saw_it_alone() {
    orphaned_and_taken_up("app-orphan-unseen", false).await;
}

async fn orphaned_and_taken_up(test: &str, seen: bool) {
    let mut world = World::new(test).await;
    // The garbage collector learns of kinds that were just defined a while later, and orphans what it knows of alone.
    world.application("other", "ok", json!({})).await;
    world.wait_application_runs("other", "ok").await;
    world.delete_application("other").await;
    world.wait_gone("other.application").await;
    world.application("web", "ok", json!({})).await;
    world.wait_application_runs("web", "ok").await;
    let uid = world.get("apps/v1", "deployments", "web").await["metadata"]["uid"].clone();
    let namespace = world.space.name.clone();
    let arguments = ["delete", "application", "web", "--cascade=orphan", "-n", &namespace];
    if !seen {
        world.kill();
    }
    let answer = kubectl_with(&world.space.cluster.kubeconfig, &arguments);
    assert_eq!(answer.code, 0, "{}", answer.err);
    world.application("web", "ok", json!({})).await;
    if !seen {
        world.restart().await;
    }
    world.wait_application_runs("web", "ok").await;
    let delivery = world
        .wait("web.application", "it is ready", |d| {
            d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)
        })
        .await;
    assert!(delivery.metadata.owner_references.is_some_and(|owners| owners.len() == 1));
    assert_eq!(world.get("apps/v1", "deployments", "web").await["metadata"]["uid"], uid, "the same one");
    // So are the revisions: they go with it, and what it does not need goes at once.
    let owner = world.applications().get("web").await.unwrap().metadata.uid;
    wait_until("its revisions are its own", LIMIT, || async {
        let mut left = Vec::new();
        for name in world.revisions_of("web").await {
            let revision = world.get("apps/v1", "controllerrevisions", &name).await;
            left.push((name, revision["metadata"]["ownerReferences"][0]["uid"].clone()));
        }
        let own = |(_, uid): &(String, Value)| uid.as_str() == owner.as_deref();
        if !left.is_empty() && left.iter().all(own) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    world.delete_application("web").await;
    world.wait_gone("web.application").await;
    wait_until("no revision is left", LIMIT, || async {
        let left = world.revisions_of("web").await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn nobody_writes_its_delivery_by_hand() {
    let world = World::stopped("app-by-hand").await;
    let spec = json!({"spec": {"source": {"application": "web"}, "targetNamespace": world.space.name}});
    let mut body = spec.clone();
    body["apiVersion"] = json!("windlass.dev/v1alpha1");
    body["kind"] = json!("Delivery");
    body["metadata"] = json!({"name": "mine"});
    let path = world.space.path("windlass.dev/v1alpha1", "deliveries");
    let client = &world.space.connection.client;
    let refused = try_send(client, "POST", &path, &body).await.unwrap_err().to_string();
    assert!(refused.contains("write the Application, or name a repository"), "{refused}");
    body["spec"]["source"] = json!({"application": "web", "repository": "config"});
    let refused = try_send(client, "POST", &path, &body).await.unwrap_err().to_string();
    assert!(refused.contains("source takes one of repository and application"), "{refused}");
    body["spec"]["source"] = json!({"path": "a"});
    let refused = try_send(client, "POST", &path, &body).await.unwrap_err().to_string();
    assert!(refused.contains("source takes one of repository and application"), "{refused}");
}

#[tokio::test]
async fn its_autoscaler_decides_and_nobody_takes_pods_back() {
    let world = World::new("app-hpa").await;
    let with = |least: i32| {
        json!({
            "resources": {"requests": {"cpu": "100m"}},
            "autoscaling": {"minReplicas": least, "maxReplicas": 5},
        })
    };
    let pods = |wanted: i32| {
        move |s: &windlass::api::application::ApplicationStatus| {
            s.phase == ApplicationPhase::Running && s.available_replicas == Some(wanted)
        }
    };
    world.application("web", "ok", with(2)).await;
    world.wait_application("web", "two pods", pods(2)).await;
    world.application("web", "ok", with(4)).await;
    world.wait_application("web", "four pods", pods(4)).await;
    wait_until("it is told", LIMIT, || async {
        let events = world.events_about("Application", "web").await;
        let four = events.iter().filter(|(reason, text)| reason == "Scaled" && text == "from 2 to 4 pods");
        if four.count() == 1 { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
    // Another image comes with as many pods as the autoscaler wants.
    world.application("web", "ok2", with(4)).await;
    world.wait_application_runs("web", "ok2").await;
    let deployment = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(deployment["spec"]["replicas"], 4);
    let delivery = world
        .wait("web.application", "it is ready", |d| {
            d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)
        })
        .await;
    assert_eq!(delivery.status.unwrap().drift, Some(0), "what the autoscaler does is no drift");
}

#[tokio::test]
async fn another_probe_replaces_pods_and_another_policy_does_not() {
    let world = World::new("app-probe").await;
    let probe = |path: &str| json!({"readiness": {"httpGet": {"path": path, "port": 8080}}});
    world.application("web", "ok", json!({"healthCheck": probe("/ready")})).await;
    world.wait_application_runs("web", "ok").await;
    let before = world.names("v1", "pods").await;
    world.application("web", "ok", json!({"healthCheck": probe("/healthz")})).await;
    world
        .wait_object("apps/v1", "deployments", "web", "it asks elsewhere", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/healthz"
        })
        .await;
    world.wait_application_runs("web", "ok").await;
    wait_until("other pods serve", LIMIT, || async {
        let now = world.names("v1", "pods").await;
        if now.len() == 2 && now.iter().all(|pod| !before.contains(pod)) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    let before = world.names("v1", "pods").await;
    let more = json!({"healthCheck": probe("/healthz"), "disruptionBudget": {"maxUnavailable": 2}});
    world.application("web", "ok", more).await;
    world
        .wait_object("policy/v1", "poddisruptionbudgets", "web", "it lets two go", |b| {
            b["spec"]["maxUnavailable"] == 2
        })
        .await;
    world.wait_application_runs("web", "ok").await;
    assert_eq!(world.names("v1", "pods").await, before);
}

#[tokio::test]
async fn it_says_how_many_of_its_pods_are_there() {
    let world = World::new("app-phases").await;
    world.application("web", "two", json!({"replicas": 3})).await;
    world.wait_application_runs("web", "two").await;
    let pods = world.names("v1", "pods").await;
    break_pods(&world, &pods[..1]).await;
    let status = world.wait_application_phase("web", ApplicationPhase::PartiallyRunning).await;
    assert_eq!((status.ready_replicas, status.replicas), (Some(2), Some(3)));
    assert_eq!(condition_of(&status, kind::AVAILABLE).0, "True");
    assert_eq!(condition_of(&status, kind::READY).0, "False");
    break_pods(&world, &pods[1..]).await;
    let status = world.wait_application_phase("web", ApplicationPhase::Degraded).await;
    assert_eq!(status.ready_replicas.unwrap_or(0), 0);
    assert_eq!(condition_of(&status, kind::DEGRADED).0, "True");
    assert_eq!(condition_of(&status, kind::AVAILABLE).0, "False");
    let told = world.wait_application_event("web", "PodsUnavailable").await;
    assert!(told.contains("0 of 3 pods are available"), "{told}");
    // Others come in their place.
    for pod in &pods {
        world.delete("v1", "pods", pod).await;
    }
    let status = world.wait_application_runs("web", "two").await;
    assert_eq!(status.ready_replicas, Some(3));
    assert_eq!(condition_of(&status, kind::DEGRADED).0, "False");
    let told = world.wait_application_event("web", "PodsAvailable").await;
    assert!(told.contains(" of 3 pods are available"), "{told}");
}

/// Some pods are not ready any more, and do not come back.
pub async fn break_pods(world: &World, names: &[String]) {
    for name in names {
        let mut conditions = world.get("v1", "pods", name).await["status"]["conditions"].clone();
        for condition in conditions.as_array_mut().unwrap() {
            if condition["type"] == "Ready" || condition["type"] == "ContainersReady" {
                condition["status"] = json!("False");
            }
        }
        let status = json!({"status": {"conditions": conditions}});
        world.patch("v1", "pods", &format!("{name}/status"), status).await;
    }
}
