//! A newer commit takes over wherever a rollout with a route stands, also where the route's controller does not answer: traffic
//! goes back to the last good revision first, and nothing is left of what was on its way.

use crate::a_rollout_goes_step_by_step::{deployment, image, service, web};
use crate::support::cli::windlass;
use crate::support::cluster::wait_until;
use crate::support::daemon::{World, config_map};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use windlass::api::Delivery;
use windlass::api::delivery::{Outcome, Phase};
use windlass::api::rollout::Stage;

/// Where a rollout is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    stage: Stage,
    /// The share about which the controller says nothing then; `None` where something else keeps it there.
    silent: Option<Option<u64>>,
    /// Whether stable has the new template by then.
    touched: bool,
}

const EVERYWHERE: [Kept; 7] = [
    Kept { stage: Stage::Starting, silent: Some(Some(0)), touched: false },
    Kept { stage: Stage::Stepping, silent: Some(Some(30)), touched: false },
    // Waits for a person.
    Kept { stage: Stage::Stepping, silent: None, touched: false },
    Kept { stage: Stage::Switching, silent: Some(Some(100)), touched: false },
    // What comes with promotion is never ready.
    Kept { stage: Stage::Promoting, silent: None, touched: true },
    Kept { stage: Stage::Draining, silent: Some(Some(0)), touched: true },
    Kept { stage: Stage::Returning, silent: Some(None), touched: true },
];

fn promote(world: &World) {
    let answer = windlass(&world.space, &["promote", "shop", "-n", &world.space.name]);
    assert_eq!(answer.code, 0, "{answer:?}");
}

async fn live_route(world: &World) -> Value {
    world.get(GATEWAY, ROUTES, "web").await
}

/// Waits until the second step of a commit's rollout waits for a person.
async fn pauses(world: &World, commit: &str) {
    let waits = |d: &Delivery| {
        let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
        let rollout = attempt.filter(|a| a.revision.commit == commit).and_then(|a| a.rollout.as_ref());
        rollout.is_some_and(|r| r.paused.as_ref().is_some_and(|p| p.reason == "AwaitsPromotion"))
    };
    world.wait("shop", &format!("{commit} waits for a person"), waits).await;
}

async fn takes_over(kept: Kept) {
    let Kept { stage, silent, touched } = kept;
    let mut world = World::stopped("takes-over").await;
    let controller = Controller::of(&world);
    world.start();
    let first = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/route.yaml", &route().to_string()),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 30}, {"pause": {}}], "settle": "300ms",
    });
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let (stable, in_git) = (deployment(&world, "web").await, live_route(&world).await);

    if let (Stage::Starting | Stage::Stepping, Some(silent)) = (stage, silent) {
        controller.keep_silent(silent);
    }
    let worker = crate::support::daemon::deployment("worker", "unready", 1);
    let mut files = vec![
        ("shop/web.yaml", web("ok2", 2)),
        ("shop/settings.yaml", config_map("settings", "red")),
        ("shop/more.yaml", config_map("more", "1")),
    ];
    if let Stage::Promoting = stage {
        files.push(("shop/worker.yaml", worker));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let second = world.commit("Second", &files);
    if !matches!(stage, Stage::Starting | Stage::Stepping) {
        pauses(&world, &second).await;
        if let Some(silent) = silent {
            controller.keep_silent(silent);
        }
        promote(&world);
    }
    match (stage, silent) {
        (Stage::Stepping, None) => pauses(&world, &second).await,
        (stage, _) => {
            let stands = |d: &Delivery| {
                let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
                let rollout =
                    attempt.filter(|a| a.revision.commit == second).and_then(|a| a.rollout.as_ref());
                rollout.is_some_and(|r| r.stage == stage && r.settled.is_none())
            };
            world.wait("shop", &format!("stands in {stage:?}"), stands).await;
        }
    }
    // What is kept there is in the cluster, too.
    if let Some(silent) = silent {
        let written = |route: &Value| share(route) == silent;
        world.wait_object(GATEWAY, ROUTES, "web", "is written", written).await;
    }
    wait_until("the workload has its template", world.limit, || async {
        let tag = if touched { "web:ok2" } else { "web:ok" };
        let web = deployment(&world, "web").await;
        if image(&web).ends_with(tag) { Ok(()) } else { Err(image(&web).to_owned()) }
    })
    .await;

    let newest = web("ok3", 2);
    let mut files = vec![("shop/web.yaml", newest.as_str()), ("shop/more.yaml", "")];
    if let Stage::Promoting = stage {
        files.push(("shop/worker.yaml", ""));
    }
    let third = world.commit("Third", &files);
    // Before the controller says another word.
    let superseded = |d: &Delivery| {
        let history = d.status.iter().flat_map(|s| &s.history);
        history.filter(|h| h.revision.commit == second && h.outcome == Outcome::Superseded).count() == 1
    };
    world.wait("shop", "the newer commit takes over", superseded).await;
    controller.answer_all();
    pauses(&world, &third).await;
    let delivery = world.deliveries().get("shop").await.unwrap();
    assert!(superseded(&delivery), "{:?}", delivery.status);
    let status = delivery.status.unwrap();
    assert_eq!(status.effective.unwrap().commit, first);
    assert!(status.held.is_none(), "{:?}", status.held);
    assert_eq!(world.names("apps/v1", "deployments").await, ["web", "web-canary"]);
    assert_eq!(world.names("v1", "configmaps").await, ["settings", "settings-canary"]);
    assert_eq!(image(&deployment(&world, "web-canary").await), "registry.example.com/web:ok3");
    let now = deployment(&world, "web").await;
    assert_eq!(image(&now), "registry.example.com/web:ok");
    assert_eq!(now["metadata"]["uid"], stable["metadata"]["uid"]);
    if !touched {
        assert_eq!(now["metadata"]["generation"], stable["metadata"]["generation"], "stable is untouched");
    }
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    assert_eq!(share(&live_route(&world).await), Some(30));

    promote(&world);
    world.wait_for("shop", Phase::Ready, &third).await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok3");
    assert_eq!(live_route(&world).await["spec"], in_git["spec"]);
}

#[tokio::test]
async fn wherever_the_rollout_before_stands() {
    know_routes().await;
    let all = EVERYWHERE.into_iter().map(|kept| async move {
        let ended = AssertUnwindSafe(takes_over(kept)).catch_unwind().await;
        ended.is_err().then_some(kept)
    });
    let failed: Vec<Kept> = stream::iter(all).buffer_unordered(3).filter_map(async |f| f).collect().await;
    assert!(failed.is_empty(), "did not end well: {failed:?}");
}
