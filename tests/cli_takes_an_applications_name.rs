//! Who knows an Application's name needs no other: each command takes it, and does what it says.

use crate::support::cli::{Answer, windlass_with};
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::application::ApplicationPhase;
use windlass::api::delivery::Phase;

/// What a command answers about the Application `web`.
fn of_web(world: &World, arguments: &[&str]) -> Answer {
    let (verb, more) = arguments.split_first().unwrap();
    let all = [&[*verb, "web", "-n", world.space.name.as_str()], more].concat();
    windlass_with(&world.space.cluster.kubeconfig, &all)
}

fn does(world: &World, arguments: &[&str]) -> Answer {
    let answer = of_web(world, arguments);
    assert_eq!(answer.code, 0, "{arguments:?}: {answer:?}");
    answer
}

async fn running(test: &str, more: Value) -> World {
    let world = World::new(test).await;
    world.application("web", "ok", more).await;
    world.wait_application_runs("web", "ok").await;
    world
}

#[tokio::test]
async fn sync_suspend_resume_drift_rollback_and_release() {
    let world = running("app-cli", json!({})).await;
    does(&world, &["sync", "--wait"]);
    assert_eq!(of_web(&world, &["drift"]).code, 0);

    does(&world, &["suspend"]);
    let suspended = |d: &Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::Suspended);
    world.wait("web.application", "it is suspended", suspended).await;
    world.patch("v1", "services", "web", json!({"spec": {"ports": [{"port": 8080, "name": "other"}]}})).await;
    wait_until("the drift is told", LIMIT, || async {
        let answer = of_web(&world, &["drift"]);
        if answer.code == 1 && answer.out.contains("Service") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    world.application("web", "ok2", json!({})).await;
    world
        .wait_application("web", "it says that it waits", |s| {
            s.conditions.iter().any(|c| c.reason == "Suspended")
        })
        .await;
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok", "nothing is put in place");
    does(&world, &["resume"]);
    world
        .wait_object("apps/v1", "deployments", "web", "it has what waited", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/web:ok2"
        })
        .await;
    world.wait_application_runs("web", "ok2").await;
    assert_eq!(world.get("v1", "services", "web").await["spec"]["ports"][0]["name"], "http");

    // Back to the first, by the name that history shows.
    let first = world.deliveries().get("web.application").await.unwrap().status.unwrap().history;
    let first = first.last().unwrap().revision.commit.clone();
    does(&world, &["rollback", "--to", &first[..12], "--wait"]);
    let status = world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    let current = status.current_revision.unwrap();
    let digits = current.strip_prefix("web-").filter(|digits| !digits.is_empty());
    assert!(digits.is_some_and(|digits| first.starts_with(digits)), "{current}, {first}");
    assert_eq!(world.image_of("web").await, "registry.example.com/web:ok");
    does(&world, &["release", "--wait"]);
    world.wait_application_runs("web", "ok2").await;
}

#[tokio::test]
async fn rollout_pause_abort_retry_and_promote() {
    let canary = json!({"rollout": {"strategy": "Canary", "router": {"replicas": {}}, "steps": [{"weight": 50}, {"pause": {}}]}});
    let world = running("app-cli-rollout", canary.clone()).await;
    let in_phase = async |phase: Phase| {
        let is = |d: &Delivery| d.status.as_ref().is_some_and(|s| s.phase == phase);
        world.wait("web.application", &format!("it is {phase:?}"), is).await;
    };
    world.application("web", "ok2", canary).await;
    in_phase(Phase::Paused).await;
    // It is not done, which the exit code tells.
    let shown = of_web(&world, &["rollout"]);
    assert_eq!(shown.code, 1, "{shown:?}");
    assert!(shown.out.contains("web-canary") && shown.out.contains("✓ 50% of traffic"), "{shown:?}");
    does(&world, &["pause"]);
    // That it is held then is no success.
    let aborted = of_web(&world, &["abort", "--wait"]);
    assert_eq!(aborted.code, 1, "{aborted:?}");
    for said in
        ["aborted its rollout", "a new spec replaces it; `windlass release web.application` tries it again"]
    {
        assert!(aborted.out.contains(said), "{said}: {aborted:?}");
    }
    world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    does(&world, &["retry"]);
    in_phase(Phase::Paused).await;
    does(&world, &["promote", "--wait"]);
    world.wait_application_runs("web", "ok2").await;
}
