//! The first Delivery that has an object keeps it; a second one that names it is told.

use crate::hooks_run_once::{end_well, hook};
use crate::support::cli::windlass_with;
use crate::support::daemon::{World, condition, config_map};
use serde_json::json;
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::hook::HookStep;

#[tokio::test]
async fn an_owner_that_is_not_known_here_is_told_by_its_label() {
    let world = World::new("owner-far").await;
    let far = "0123456789abcdef0123456789abcdef";
    let labels = json!({windlass::api::names::DELIVERY_LABEL: far});
    let body = json!({"metadata": {"name": "it", "labels": labels}, "data": {"key": "far"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &body).await;
    world.commit("Taken", &[("two/it.yaml", &config_map("it", "two"))]);
    world.deliver("two", json!({})).await;
    let delivery = world.wait_refused("two", "Conflict").await;
    let (_, _, message) = condition(&delivery, kind::READY);
    for word in [far, "another installation", "two/it.yaml:1"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let event = world.wait_event("two", "Conflict").await;
    assert!(event.contains(far), "{event}");
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "far");
}

#[tokio::test]
async fn what_was_nobodys_when_it_was_planned_stays_with_who_made_it_meanwhile() {
    let world = World::new("owner-late").await;
    world.commit(
        "One waits for its hook",
        &[
            ("one/it.yaml", &config_map("it", "one")),
            ("one/migrate.yaml", &hook("migrate", "before-apply", "", "hang")),
        ],
    );
    world.repository(json!({})).await;
    world.deliver_by_hand("one", "one", json!({})).await;
    let runs =
        |d: &Delivery| d.status.as_ref().is_some_and(|s| s.hooks.iter().any(|h| h.step == HookStep::Running));
    world.wait("one", "runs its hook", runs).await;
    let both = world.commit("Two has it", &[("two/it.yaml", &config_map("it", "two"))]);
    world.deliver_by_hand("two", "two", json!({})).await;
    world.wait_for("two", Phase::Ready, &both).await;
    end_well(&world).await;
    let owner = format!("belongs to Delivery {}/two ", world.space.name);
    let told = |d: &Delivery| condition(d, kind::READY).2.contains(&owner);
    let one = world.wait("one", "is told whose it is", told).await;
    assert_ne!(one.status.unwrap().phase, Phase::Ready);
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "two");
    world.wait_for("two", Phase::Ready, &both).await;
}

fn job(tag: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: migrate}}\nspec:\n  template:\n    spec:\n      restartPolicy: \
         Never\n      containers: [{{name: it, image: \"registry.example.com/it:{tag}\"}}]\n"
    )
}

#[tokio::test]
async fn the_second_is_told_and_touches_nothing() {
    let world = World::new("owner").await;
    let first = world.commit(
        "One and two",
        &[
            ("one/it.yaml", &config_map("it", "one")),
            ("one/job.yaml", &job("ok")),
            ("two/it.yaml", &config_map("it", "two")),
            ("two/own.yaml", &config_map("own", "two")),
            ("three/job.yaml", &job("other")),
        ],
    );
    world.repository(json!({})).await;
    world.deliver_by_hand("one", "one", json!({})).await;
    world.wait_for("one", Phase::Ready, &first).await;
    let uid = world.get("batch/v1", "jobs", "migrate").await["metadata"]["uid"].clone();
    let audit = world.space.cluster.audit();
    for (name, object) in [("two", "ConfigMap"), ("three", "Job")] {
        world.deliver_by_hand(name, name, json!({})).await;
        let delivery = world.wait_refused(name, "Conflict").await;
        let (_, reason, message) = condition(&delivery, kind::READY);
        assert_eq!(reason, "Conflict");
        assert!(message.contains(object) && message.contains(&format!("{name}/")), "{message}");
        // Who has it is named, wherever people look.
        let owner = format!("Delivery {}/one ", world.space.name);
        assert!(message.contains(&owner), "{message}");
        let event = world.wait_event(name, "Conflict").await;
        assert!(event.contains(&owner), "{event}");
        let directory = world.repo.path().join(name);
        let arguments =
            ["diff", directory.to_str().unwrap(), "--delivery", name, "--namespace", &world.space.name];
        let arguments = [&arguments[..], &["--installation", world.installation()]].concat();
        let diff = windlass_with(&world.space.cluster.kubeconfig, &arguments);
        assert!(diff.code == 2 && (diff.out + &diff.err).contains(&owner), "{arguments:?}");
    }
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "one");
    assert_eq!(
        world.get("batch/v1", "jobs", "migrate").await["metadata"]["uid"],
        uid,
        "it was not made anew"
    );
    // The second one gets it once the first has let it go.
    let second = world.commit("One gives it up", &[("one/it.yaml", "")]);
    world.wait_for("one", Phase::Ready, &second).await;
    world.wait("two", "ready", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)).await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "two");
    // Deleting the one that was refused takes nothing along.
    world.delete("windlass.dev/v1alpha1", "deliveries", "three").await;
    world.wait_gone("three").await;
    assert_eq!(world.get("batch/v1", "jobs", "migrate").await["metadata"]["uid"], uid);
}
