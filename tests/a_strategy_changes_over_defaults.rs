//! `strategy: {type: Recreate}` over a Deployment that got its `rollingUpdate` by default, and the like: what Git says comes
//! to be, although the API server refuses it as a plain apply.

use crate::support::cli::windlass_with;
use crate::support::daemon::{World, deployment};
use serde_json::{Value, json};
use windlass::api::delivery::Phase;

fn stateful_set(strategy: &str) -> String {
    deployment("db", "ok", 1)
        .replace("kind: Deployment", "kind: StatefulSet")
        .replace("  selector:", &format!("  serviceName: db\n{strategy}  selector:"))
}

fn web(tag: &str, strategy: &str) -> String {
    deployment("web", tag, 1).replace("  selector:", &format!("{strategy}  selector:"))
}

#[tokio::test]
async fn defaults_of_another_strategy_are_not_in_the_way() {
    let world = World::new("strategy").await;
    let first = world.commit(
        "Rolling by default",
        &[("shop/web.yaml", &web("ok", "")), ("shop/db.yaml", &stateful_set(""))],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let live = |kind: &'static str, name: &'static str| world.get("apps/v1", kind, name);
    let uid = live("deployments", "web").await["metadata"]["uid"].clone();
    assert!(live("deployments", "web").await["spec"]["strategy"]["rollingUpdate"].is_object());

    // What the daemon can do, `windlass diff` foretells.
    let recreate = web("v2", "  strategy: {type: Recreate}\n");
    let files = [
        ("shop/web.yaml", recreate.as_str()),
        ("shop/db.yaml", &stateful_set("  updateStrategy: {type: OnDelete}\n")),
    ];
    for (path, text) in files {
        std::fs::write(world.repo.path().join(path), text).unwrap();
    }
    let directory = world.repo.path().join("shop");
    let arguments =
        ["diff", directory.to_str().unwrap(), "--delivery", "shop", "--namespace", &world.space.name];
    let arguments = [&arguments[..], &["--installation", world.installation()]].concat();
    let diff = windlass_with(&world.space.cluster.kubeconfig, &arguments);
    assert_eq!(diff.code, 1, "{diff:?}");
    assert!(diff.out.contains("Recreate") && diff.out.contains("OnDelete"), "{diff:?}");

    let second = world.commit("All at once", &files);
    world.wait_for("shop", Phase::Ready, &second).await;
    let there = live("deployments", "web").await;
    assert_eq!(there["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(there["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example.com/web:v2");
    assert_eq!(there["metadata"]["uid"], uid, "changed, not made anew");
    assert_eq!(live("statefulsets", "db").await["spec"]["updateStrategy"], json!({"type": "OnDelete"}));

    // The same on the way back, and when a person sets it by hand.
    let third = world
        .commit("Rolling again", &[("shop/web.yaml", &web("v3", "")), ("shop/db.yaml", &stateful_set(""))]);
    world.wait_for("shop", Phase::Ready, &third).await;
    let rolls = |o: &Value, field: &str| o["spec"][field]["type"] == "RollingUpdate";
    assert!(rolls(&live("deployments", "web").await, "strategy"));
    assert!(rolls(&live("statefulsets", "db").await, "updateStrategy"));
    let fourth = world.commit("All at once", &files);
    world.wait_for("shop", Phase::Ready, &fourth).await;
    let patch = json!({"spec": {"strategy": {"type": "RollingUpdate"}}});
    world.patch("apps/v1", "deployments", "web", patch).await;
    world
        .wait_object("apps/v1", "deployments", "web", "written back", |o| {
            o["spec"]["strategy"] == json!({"type": "Recreate"})
        })
        .await;
}

#[tokio::test]
async fn a_broken_commit_that_changes_the_strategy_is_rolled_back_whole() {
    let world = World::new("strategy-back").await;
    let recreate = "  strategy: {type: Recreate}\n";
    let first = world.commit("All at once", &[("shop/web.yaml", &web("ok", recreate))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let bad = world.commit("Rolling, and broken", &[("shop/web.yaml", &web("missing", ""))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    let there = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(there["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[tokio::test]
async fn a_manifest_that_contradicts_itself_is_refused_with_file_and_line() {
    let world = World::new("strategy-both").await;
    let both = "  strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}\n";
    world.commit("Both", &[("shop/web.yaml", &web("ok", both))]);
    world.deliver("shop", json!({})).await;
    let delivery = world.wait_refused("shop", "Invalid").await;
    let message = delivery.status.unwrap().failure.unwrap().problem.message;
    assert!(
        message.contains("spec.strategy.rollingUpdate") && message.contains("shop/web.yaml:1"),
        "{message}"
    );
}
