//! A revision that loses its health within `rollback.bake` is taken back; one whose node was lost is not.

use crate::a_rollback_is_complete::crash;
use crate::a_rollout_goes_step_by_step::{canary, image, service, web};
use crate::support::cluster::{Cluster, try_send, wait_until};
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use windlass::api::Delivery;
use windlass::api::delivery::{Bake, Outcome, Phase};

fn bake(delivery: &Delivery) -> Option<Bake> {
    delivery.status.as_ref().and_then(|s| s.bake.clone())
}

#[tokio::test]
async fn what_breaks_after_it_was_good_goes_back_whole_also_over_a_restart() {
    let mut world = World::new("bake").await;
    let good = world.commit(
        "Good",
        &[("shop/web.yaml", &deployment("web", "ok", 1)), ("shop/old.yaml", &config_map("old", "1"))],
    );
    world.deliver("shop", json!({"rollback": {"bake": "10m"}})).await;
    let delivery = world.wait_for("shop", Phase::Ready, &good).await;
    assert!(bake(&delivery).is_none(), "before the first revision there is none to go back to");
    let bad = world.commit(
        "Breaks after a while",
        &[
            ("shop/web.yaml", &deployment("web", "two", 1)),
            ("shop/old.yaml", ""),
            ("shop/new.yaml", &config_map("new", "1")),
        ],
    );
    let delivery = world.wait_for("shop", Phase::Ready, &bad).await;
    assert_eq!(bake(&delivery).unwrap().good.commit, good);
    world.restart().await;
    crash(&world, "registry.example.com/web:two").await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    let status = delivery.status.unwrap();
    assert_eq!(status.effective.unwrap().commit, good);
    let held = status.held.unwrap();
    assert_eq!(held.problem.reason, "CrashLoopBackOff");
    assert_eq!(held.problem.object, format!("Deployment {}/web", world.space.name));
    assert_eq!(world.names("v1", "configmaps").await, ["old"]);
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example.com/web:ok");
}

/// A canary succeeds: stable has its pods and configuration by then, and no candidate stands beside it. What it loses its health
/// afterwards costs all of the commit.
#[tokio::test]
async fn what_breaks_after_a_canary_that_was_good_goes_back_whole() {
    let world = World::new("bake-canary").await;
    let good = world.commit(
        "Good",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/old.yaml", &config_map("old", "1")),
        ],
    );
    let policy = canary(json!([{"weight": 50}]));
    world.deliver("shop", json!({"rollout": policy, "rollback": {"bake": "10m"}})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let before = world.get("apps/v1", "deployments", "web").await;
    let bad = world.commit(
        "Breaks after a while",
        &[
            ("shop/web.yaml", &web("ok2", 2)),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/old.yaml", ""),
            ("shop/new.yaml", &config_map("new", "1")),
        ],
    );
    let delivery = world.wait_for("shop", Phase::Ready, &bad).await;
    assert_eq!(bake(&delivery).unwrap().good.commit, good);
    world.wait_event("shop", "RollingOut").await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"], "the canary has succeeded");
    assert_eq!(world.names("v1", "configmaps").await, ["new", "settings"]);

    crash(&world, "registry.example.com/web:ok2").await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let outcomes: Vec<Outcome> = status.history.iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed, Outcome::Deployed]);
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(status.held.unwrap().problem.object, format!("Deployment {}/web", world.space.name));
    let after = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(image(&after), "registry.example.com/web:ok");
    assert_eq!(after["status"]["readyReplicas"], 2, "{after}");
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"]);
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
}

#[tokio::test]
async fn the_watch_ends_in_health() {
    let world = World::new("baked").await;
    let first = world.commit("First", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.deliver("shop", json!({"rollback": {"bake": "2s"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("Second", &[("shop/web.yaml", &deployment("web", "ok", 2))]);
    let over = |d: &Delivery| {
        let status = d.status.as_ref().unwrap();
        status.effective.as_ref().is_some_and(|e| e.commit == second) && status.bake.is_none()
    };
    let delivery = world.wait("shop", "is watched no longer", over).await;
    assert_eq!(delivery.status.unwrap().history[0].outcome, Outcome::Deployed);
    // From now on what breaks is shown, and nothing is taken back.
    world.deliver("shop", json!({"rollback": {"bake": "2s"}, "drift": {"mode": "Ignore"}})).await;
    world.patch("apps/v1", "deployments", "web", json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "registry.example.com/web:missing"}]}}}})).await;
    let sick = |d: &Delivery| {
        let ready = &d.status.as_ref().unwrap().conditions;
        ready.iter().any(|c| c.type_ == "Ready" && c.status == "False")
    };
    let delivery = world.wait("shop", "is not ready", sick).await;
    assert_eq!(delivery.status.unwrap().phase, Phase::Ready);
}

/// A node of this test alone.
async fn add_node(world: &World, node: &str) {
    let body = json!({
        "metadata": {"name": node, "labels": {"type": "kwok", "test": node, "kubernetes.io/hostname": node}},
        "spec": {"taints": [{"key": "test", "value": node, "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "100", "memory": "1Ti", "pods": "100"},
            "allocatable": {"cpu": "100", "memory": "1Ti", "pods": "100"}},
    });
    world.space.send("POST", "/api/v1/nodes", &body).await;
}

#[tokio::test]
async fn a_lost_node_and_an_eviction_are_no_reason() {
    let mut world = World::new("node").await;
    let node = world.space.name.clone();
    world.space.forget_later(&format!("/api/v1/nodes/{node}"));
    add_node(&world, &node).await;
    let web = |replicas: u32| {
        deployment("web", "ok", replicas).replace(
            "spec: {containers:",
            &format!(
                "spec: {{nodeSelector: {{test: {node}}}, tolerations: [{{key: test, operator: Exists}}], containers:"
            ),
        )
    };
    let first = world.commit("First", &[("shop/web.yaml", &web(1))]);
    world.deliver("shop", json!({"rollback": {"bake": "60s"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit(
        "Second",
        &[(
            "shop/web.yaml",
            &web(1).replace("metadata: {labels: {app: web}}", "metadata: {labels: {app: web, v: two}}"),
        )],
    );
    world.wait_for("shop", Phase::Ready, &second).await;
    // What is only not healthy would be given no more than this from now on.
    world.deliver("shop", json!({"timeout": "3s", "rollback": {"bake": "60s"}})).await;
    world
        .wait("shop", "has its new time-out", |d| {
            d.spec.template.timeout.as_ref().is_some_and(|t| t.0.as_secs() == 3)
        })
        .await;

    world.space.send("DELETE", &format!("/api/v1/nodes/{node}"), &Value::Null).await;
    let pods = world.space.send("GET", &world.space.path("v1", "pods"), &Value::Null).await;
    for pod in pods["items"].as_array().unwrap() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/{name}/eviction", world.space.path("v1", "pods"));
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let _ = try_send(&world.space.connection.client, "POST", &path, &eviction).await;
    }
    let disrupted = |d: &Delivery| {
        bake(d).is_some_and(|b| b.lost_at.is_none() && b.problem.is_some_and(|p| p.reason == "Disrupted"))
    };
    let delivery = world.wait("shop", "says that its pods were taken away", disrupted).await;
    let until: jiff::Timestamp = bake(&delivery).unwrap().until.parse().unwrap();
    assert_eq!(delivery.status.unwrap().phase, Phase::Ready);
    // Longer than a revision that is only not healthy is given, and than the watch was to last.
    let since = Instant::now();
    wait_until("time enough has passed", LIMIT, || async {
        let delivery = world.deliveries().get("shop").await.map_err(|e| e.to_string())?;
        assert!(disrupted(&delivery), "{:#?}", delivery.status);
        let enough = since.elapsed() > Duration::from_secs(4) && jiff::Timestamp::now() > until;
        if enough { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    add_node(&world, &node).await;
    let over = |d: &Delivery| bake(d).is_none();
    let status = world.wait("shop", "is well again, and watched no longer", over).await.status.unwrap();
    assert_eq!((status.phase, status.effective.unwrap().commit), (Phase::Ready, second));
    assert!(status.held.is_none());
    assert!(status.history.iter().all(|h| h.outcome == Outcome::Deployed), "{:?}", status.history);
}

/// Whether the controllers have given the only node up.
async fn wait_node(world: &World, ready: &str) {
    wait_until(&format!("the node's Ready is {ready}"), LIMIT, || async {
        let nodes = world.space.send("GET", "/api/v1/nodes", &Value::Null).await;
        let conditions = nodes["items"][0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == ready);
        if found { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
}

/// A daemon that was just started sees workloads before it sees their pods.
#[tokio::test]
async fn a_node_that_is_not_ready_is_no_reason_for_a_daemon_that_was_just_started_either() {
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "notready").await;
    world.start();
    let first = world.commit("First", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.deliver("shop", json!({"rollback": {"bake": "10m"}})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("Second", &[("shop/web.yaml", &deployment("web", "two", 1))]);
    let delivery = world.wait_for("shop", Phase::Ready, &second).await;
    assert!(bake(&delivery).is_some());

    let player = cluster.kill_pod_player();
    let controllers = cluster.be_impatient_with_nodes();
    wait_node(&world, "Unknown").await;
    let disrupted = |d: &Delivery| {
        bake(d).is_some_and(|b| b.lost_at.is_none() && b.problem.is_some_and(|p| p.reason == "Disrupted"))
    };
    let delivery = world.wait("shop", "says that its node is lost", disrupted).await;
    let said = bake(&delivery).unwrap().problem.unwrap().message;
    assert!(said.contains("does not answer"), "{said}");

    // The workload itself says that it is broken beyond doubt, as one does that was under way when its node went.
    let web = world.get("apps/v1", "deployments", "web").await;
    let conditions = web["status"]["conditions"].as_array().unwrap();
    let at = conditions.iter().position(|c| c["type"] == "Progressing").unwrap();
    let exceeded = json!([
        {"op": "replace", "path": format!("/status/conditions/{at}/status"), "value": "False"},
        {"op": "replace", "path": format!("/status/conditions/{at}/reason"), "value": "ProgressDeadlineExceeded"},
    ]);
    world.patch("apps/v1", "deployments", "web/status", exceeded).await;
    for request in ["one", "two", "three"] {
        world.restart().await;
        world.annotate("shop", windlass::api::names::RECONCILE_REQUEST, request).await;
        let delivery = world
            .wait("shop", "looked at by the next one", |d| {
                d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some(request))
            })
            .await;
        assert!(disrupted(&delivery), "{:#?}", delivery.status);
    }

    // The node is back, and its pod is replaced as an eviction would.
    let _player = player.start();
    wait_node(&world, "True").await;
    let pods = world.names("v1", "pods").await;
    world.delete("v1", "pods", &pods[0]).await;
    let well = |d: &Delivery| bake(d).is_some_and(|b| b.problem.is_none());
    let status = world.wait("shop", "is well again", well).await.status.unwrap();
    assert_eq!((status.phase, status.effective.unwrap().commit), (Phase::Ready, second));
    assert!(status.history.iter().all(|h| h.outcome == Outcome::Deployed), "{:?}", status.history);
    drop(controllers);
    drop(world);
    cluster.stop();
}
