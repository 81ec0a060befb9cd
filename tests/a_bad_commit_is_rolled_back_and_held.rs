//! A commit that does not become healthy is taken back whole, and stays away until somebody changes something.

use crate::support::cli::windlass_with;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, condition, config_map, deployment};
use serde_json::json;
use windlass::api::Delivery;
use windlass::api::condition::{self, kind};
use windlass::api::delivery::{Outcome, Phase};
use windlass::api::names;

async fn deployed(test: &str) -> (World, String) {
    let world = World::new(test).await;
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 2)),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/old.yaml", &config_map("old", "1")),
        ],
    );
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    (world, good)
}

/// Gives the next revisions of the Delivery `shop` another timeout. The first one, which is to become healthy, had all its time.
pub async fn hurry(world: &World, timeout: &str) {
    world.deliver("shop", json!({"timeout": timeout})).await;
    let handed_on = |d: &Delivery| d.spec.template.timeout.is_some_and(|t| t.to_string() == timeout);
    world.wait("shop", "the timeout is handed on", handed_on).await;
    // The daemon sees the timeout together with this, or before.
    world.annotate("shop", names::RECONCILE_REQUEST, timeout).await;
    let known =
        |d: &Delivery| d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some(timeout));
    world.wait("shop", "the timeout is known", known).await;
}

/// How often a container restarted, as a message tells it: three times, and once more for each moment in which nobody looked.
pub fn restarts(message: &str) -> u32 {
    let told = message.split_once(" restarted ").and_then(|(_, rest)| rest.split_once(" times"));
    told.and_then(|(count, _)| count.parse().ok()).unwrap_or_else(|| panic!("no restarts: {message}"))
}

#[tokio::test]
async fn the_whole_commit_is_taken_back_and_its_author_is_named() {
    let (world, good) = deployed("rollback").await;
    let bad = world.commit(
        "Red, and broken",
        &[
            ("shop/web.yaml", &deployment("web", "crash", 2)),
            ("shop/settings.yaml", &config_map("settings", "red")),
            ("shop/new.yaml", &config_map("new", "1")),
            ("shop/old.yaml", ""),
        ],
    );
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    let status = delivery.status.unwrap();
    let held = status.held.unwrap();
    assert_eq!(held.revision.commit, bad);
    assert_eq!(held.revision.author, "Ada");
    assert_eq!(held.problem.object, format!("Deployment {}/web", world.space.name));
    assert_eq!(status.effective.unwrap().commit, good);
    let condition = condition::get(&status.conditions, kind::HELD).unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "RevisionHeld"));
    for word in [bad.as_str(), "Ada", "Red, and broken"] {
        assert!(condition.message.contains(word), "{word}: {}", condition.message);
    }
    assert!(restarts(&condition.message) >= 3, "{}", condition.message);
    assert_eq!(status.history[0].outcome, Outcome::Restored);
    assert_eq!(status.history[1].outcome, Outcome::RolledBack);
    assert_eq!(world.names("v1", "configmaps").await, ["old", "settings"]);
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "blue");
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example.com/web:ok");
    world.wait_event("shop", "RollingBack").await;
    // Also where people look who do not know Windlass: on the object itself.
    wait_until("an Event RollingBack about the Deployment", LIMIT, || async {
        let events = world.events_about("Deployment", "web").await;
        if events.iter().any(|(reason, _)| reason == "RollingBack") {
            Ok(())
        } else {
            Err(format!("{events:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_held_revision_is_not_tried_again_and_a_newer_one_is() {
    let (world, _) = deployed("held").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &deployment("web", "missing", 2))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    // A commit elsewhere in the repository is not a reason to try it again.
    let elsewhere = world.commit("Elsewhere", &[("other/readme.txt", "hello")]);
    world.wait_fetched(&elsewhere).await;
    let delivery = world.deliveries().get("shop").await.unwrap();
    assert_eq!(delivery.status.unwrap().phase, Phase::Held);
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "fixed", 2))]);
    let delivery = world.wait_for("shop", Phase::Ready, &fixed).await;
    assert!(delivery.status.unwrap().held.is_none());
}

#[tokio::test]
async fn while_one_is_held_people_are_told_why_a_newer_one_was_refused() {
    let (world, good) = deployed("refused").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &deployment("web", "missing", 2))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    let misspelt = deployment("web", "ok", 2).replace("replicas:", "replica:");
    let newer = world.commit("Misspelt", &[("shop/web.yaml", &misspelt)]);
    let delivery = world.wait_refused("shop", "UnknownField").await;
    assert_eq!(delivery.status.as_ref().unwrap().phase, Phase::Held);
    let (_, reason, message) = condition(&delivery, kind::READY);
    assert_eq!(reason, "RevisionHeld");
    for word in [bad.as_str(), &good, &newer, "Misspelt", "was not begun", "replica", "shop/web.yaml:1"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    // As on the command line.
    let kubeconfig = &world.space.cluster.kubeconfig;
    let status = windlass_with(kubeconfig, &["status", "shop", "--namespace", &world.space.name]);
    let told = status.out.split_once("refused").map(|(_, rest)| rest).unwrap_or_default();
    assert_eq!(status.code, 1, "{status:?}");
    for word in [&newer[..7], "Misspelt", "replica", "shop/web.yaml:1"] {
        assert!(told.contains(word), "{word}: {status:?}");
    }
    // What is told goes with the cause.
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "fixed", 2))]);
    let delivery = world.wait_for("shop", Phase::Ready, &fixed).await;
    assert!(delivery.status.unwrap().failure.is_none());
}

#[tokio::test]
async fn a_release_tries_it_once_more() {
    let (world, good) = deployed("release").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &deployment("web", "denied", 2))]);
    world.wait_for("shop", Phase::Held, &bad).await;
    world.annotate("shop", names::RELEASE_REQUEST, &format!("{bad}/1")).await;
    let delivery = world
        .wait("shop", "held once more", |d| {
            let status = d.status.clone().unwrap_or_default();
            status.phase == Phase::Held
                && status.history.iter().filter(|h| h.outcome == Outcome::RolledBack).count() == 2
        })
        .await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
}

#[tokio::test]
async fn a_release_of_another_commit_is_refused() {
    let (world, good) = deployed("other-release").await;
    let bad = world.commit("Broken", &[("shop/web.yaml", &deployment("web", "denied", 2))]);
    let before = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    for meant in [good.as_str(), "", "/1", "ffffffff"] {
        world.annotate("shop", names::RELEASE_REQUEST, meant).await;
        let delivery = world
            .wait("shop", &format!("\"{meant}\" is answered"), |d| {
                d.status.as_ref().is_some_and(|s| s.handled_release.as_deref() == Some(meant))
            })
            .await;
        let status = delivery.status.unwrap();
        assert_eq!((status.phase, &status.held), (Phase::Held, &before.held), "{meant}");
        assert_eq!(status.history, before.history, "{meant}");
    }
    let event = world.wait_event("shop", "ReleaseRefused").await;
    assert!(event.contains("no revision is held whose commit begins with"), "{event}");

    world.annotate("shop", names::RELEASE_REQUEST, &bad[..8]).await;
    world
        .wait("shop", "tried once more", |d| {
            let history = d.status.as_ref().map(|s| s.history.as_slice()).unwrap_or_default();
            history.iter().filter(|h| h.outcome == Outcome::RolledBack).count() == 2
        })
        .await;
    let event = world.wait_event("shop", "Released").await;
    assert!(event.contains(&bad), "{event}");
}

#[tokio::test]
async fn a_newer_commit_gets_through_in_the_middle_of_a_wait() {
    let (world, _) = deployed("preempt").await;
    let stuck = world.commit("Never ready", &[("shop/web.yaml", &deployment("web", "unready", 2))]);
    world.wait_for("shop", Phase::Waiting, &stuck).await;
    let fixed = world.commit("Fixed", &[("shop/web.yaml", &deployment("web", "fixed", 2))]);
    let delivery = world.wait_for("shop", Phase::Ready, &fixed).await;
    let outcomes: Vec<_> = delivery.status.unwrap().history.iter().map(|h| h.outcome).collect();
    assert_eq!(outcomes, [Outcome::Deployed, Outcome::Superseded, Outcome::Deployed]);
}

#[tokio::test]
async fn what_is_not_healthy_in_time_is_taken_back() {
    let (world, _) = deployed("timeout").await;
    hurry(&world, "3s").await;
    let stuck = world.commit("Never ready", &[("shop/web.yaml", &deployment("web", "unready", 2))]);
    let delivery = world.wait_for("shop", Phase::Held, &stuck).await;
    assert_eq!(delivery.status.unwrap().held.unwrap().problem.reason, "Timeout");
}
