//! The daemon is killed while it takes over objects that were there before its Delivery, while it clears away the admission of
//! a failed commit before it goes back, and around a suspension. The next one ends where the dead one would have. The places
//! are named in `reconcile/delivery`.

use crate::a_rollback_is_complete::{crash, webhook_of_nobody};
use crate::support::cluster::{try_send, wait_until};
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::the_daemon_dies_at_every_step::{arm, dies_and_rises, outcomes};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{everywhere, gated};
use serde_json::{Value, json};
use windlass::api::delivery::{DeliveryStatus, EntryOrigin, Outcome, Phase};
use windlass::api::names;

/// A workload that runs and its configuration, made by somebody before any Delivery names them. Answers the workload.
async fn somebody_runs(world: &World) -> Value {
    let settings = json!({"metadata": {"name": "settings"}, "data": {"own": "1", "key": "theirs"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &settings).await;
    let web: Value = serde_saphyr::from_str(&deployment("web", "ok", 1)).unwrap();
    world.space.send("POST", &world.space.path("apps/v1", "deployments"), &web).await;
    let ready = |web: &Value| web["status"]["readyReplicas"] == 1;
    world.wait_object("apps/v1", "deployments", "web", "runs", ready).await
}

/// The first commit ever: over what is there, with one object of its own.
fn over_it(world: &World, tag: &str) -> String {
    world.commit(
        "Over it",
        &[
            ("shop/web.yaml", &deployment("web", tag, 1)),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/new.yaml", &config_map("new", "1")),
        ],
    )
}

fn origins(status: &DeliveryStatus) -> Vec<(&str, EntryOrigin)> {
    let mut all: Vec<_> = status.inventory.iter().map(|e| (e.name.as_str(), e.origin)).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

const ADOPTED: [(&str, EntryOrigin); 3] =
    [("new", EntryOrigin::Created), ("settings", EntryOrigin::Adopted), ("web", EntryOrigin::Adopted)];

fn image(web: &Value) -> &Value {
    &web["spec"]["template"]["spec"]["containers"][0]["image"]
}

async fn a_first_revision_that_adopts(mut world: World, place: String) {
    let before = somebody_runs(&world).await;
    arm(&world, &place);
    world.start();
    let first = over_it(&world, "ok2");
    world.deliver("shop", json!({})).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Ready, &first).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::Deployed], "{place}");
    assert_eq!(origins(&status), ADOPTED, "{place}");
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["metadata"]["uid"], before["metadata"]["uid"], "{place}: the very same");
    assert_eq!(*image(&web), "registry.example.com/web:ok2", "{place}");
    let settings = world.get("v1", "configmaps", "settings").await;
    assert_eq!(settings["data"], json!({"own": "1", "key": "blue"}), "{place}");
}

#[tokio::test]
async fn while_a_first_revision_takes_over_what_runs() {
    let steps = ["status Deploy Applying", "Apply Deploy", "keeping adopted values", "status Ready"];
    everywhere(&steps, &["amid writes Deploy"], a_first_revision_that_adopts).await;
}

async fn a_first_revision_that_adopts_and_fails(mut world: World, place: String) {
    let before = somebody_runs(&world).await;
    arm(&world, &place);
    world.start();
    let bad = over_it(&world, "missing");
    world.deliver("shop", json!({"rollback": {"firstRevision": "Remove"}})).await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(outcomes(&status), [Outcome::RolledBack], "{place}");
    assert!(status.inventory.is_empty() && status.effective.is_none(), "{place}: {:?}", status.inventory);
    // What it made is gone; what it took over is there, the very same, with the values that it had, and nobody's.
    assert_eq!(world.names("v1", "configmaps").await, ["settings"], "{place}");
    let settings = world.get("v1", "configmaps", "settings").await;
    assert_eq!(settings["data"], json!({"own": "1", "key": "theirs"}), "{place}: {settings}");
    let web = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(web["metadata"]["uid"], before["metadata"]["uid"], "{place}");
    assert_eq!(*image(&web), "registry.example.com/web:ok", "{place}");
    for object in [settings, web] {
        assert!(object["metadata"]["labels"][names::DELIVERY_LABEL].is_null(), "{place}: {object}");
    }
    // The next one takes them over again.
    let fixed = over_it(&world, "ok2");
    let status = world.wait_for("shop", Phase::Ready, &fixed).await.status.unwrap();
    assert_eq!(origins(&status), ADOPTED, "{place}");
}

#[tokio::test]
async fn while_a_first_revision_takes_over_what_runs_and_fails() {
    let steps = ["status Deploy Applying", "Apply Deploy", "status Deploy Removing", "Prune"];
    let also = ["after keeping adopted values", "amid writes Deploy", "amid removals"];
    everywhere(&steps, &also, a_first_revision_that_adopts_and_fails).await;
}

async fn admission_that_is_in_the_way(mut world: World, place: String) {
    let name = world.space.name.clone();
    let all = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let (new, old) = (format!("{all}/{name}"), format!("{all}/{name}-old"));
    world.space.forget_later(&new);
    world.space.forget_later(&old);
    let of = |name: &str, policy: &str| webhook_of_nobody(&world, name, policy);
    let (was, becomes) = (of(&format!("{name}-old"), "Ignore"), of(&format!("{name}-old"), "Fail"));
    let comes = of(&name, "Fail");
    world.start();
    let web = |tag: &str| deployment("web", tag, 1);
    let good = world.commit("Good", &[("shop/web.yaml", &web("ok")), ("shop/old.yaml", &was)]);
    world.deliver("shop", json!({"rollback": {"bake": "10m"}})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let bad = world.commit(
        "Breaks, and lets nobody mend it",
        &[("shop/web.yaml", &web("two")), ("shop/new.yaml", &comes), ("shop/old.yaml", &becomes)],
    );
    world.wait_for("shop", Phase::Ready, &bad).await;
    arm(&world, &place);
    crash(&world, "registry.example.com/web:two").await;
    dies_and_rises(&mut world, &place).await;
    let status = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    let expected = [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed, Outcome::Deployed];
    assert_eq!(outcomes(&status), expected, "{place}");
    assert_eq!(status.effective.as_ref().unwrap().commit, good, "{place}");
    assert_eq!(status.inventory.len(), 2, "{place}: {:?}", status.inventory);
    assert_eq!(
        *image(&world.get("apps/v1", "deployments", "web").await),
        "registry.example.com/web:ok",
        "{place}"
    );
    let client = &world.space.connection.client;
    let left = try_send(client, "GET", &new, &Value::Null).await;
    assert!(left.is_err(), "{place}: {left:?}");
    let back = world.space.send("GET", &old, &Value::Null).await;
    assert_eq!(back["webhooks"][0]["failurePolicy"], "Ignore", "{place}");
}

#[tokio::test]
async fn while_admission_is_cleared_away_before_a_rollback() {
    everywhere(&["admission"], &["amid admission", "amid removals"], admission_that_is_in_the_way).await;
}

async fn a_suspension(mut world: World, place: String) {
    world.start();
    let files = |web: &str, key: &str| {
        [("shop/web.yaml", web.to_owned()), ("shop/settings.yaml", config_map("settings", key))]
    };
    let commit = |world: &World, subject: &str, files: [(&str, String); 2]| {
        world.commit(subject, &files.each_ref().map(|(path, text)| (*path, text.as_str())))
    };
    let good = commit(&world, "Good", files(&deployment("web", "ok", 1), "blue"));
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // It waits as long as nobody opens its gate.
    let next = commit(&world, "Next", files(&gated("ok"), "red"));
    world.wait_for("shop", Phase::Waiting, &next).await;
    let begins = place.ends_with("begun");
    if begins {
        arm(&world, &place);
    }
    world.deliver("shop", json!({"suspend": true})).await;
    if begins {
        dies_and_rises(&mut world, &place).await;
    }
    let suspended =
        |d: &windlass::api::Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::Suspended);
    world.wait("shop", "is suspended", suspended).await;

    // While it is, too: what is to be done, and what somebody does, is left alone.
    world.restart().await;
    let audit = world.space.cluster.audit();
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "by hand"}})).await;
    let third = commit(&world, "Third", files(&deployment("web", "ok3", 1), "green"));
    world.wait_fetched(&third).await;
    let delivery = world.wait("shop", "is suspended still", suspended).await;
    let attempt = delivery.status.unwrap().attempt.unwrap();
    assert_eq!(attempt.revision.commit, next, "{place}: as far as it was");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "by hand", "{place}");
    assert!(world.writes(&audit).is_empty(), "{place}: {:#?}", world.writes(&audit));

    if !begins {
        arm(&world, &place);
    }
    world.deliver("shop", json!({})).await;
    if !begins {
        dies_and_rises(&mut world, &place).await;
    }
    let status = world.wait_for("shop", Phase::Ready, &third).await.status.unwrap();
    let expected = [Outcome::Deployed, Outcome::Superseded, Outcome::Deployed];
    assert_eq!(outcomes(&status), expected, "{place}");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "green", "{place}");
    wait_until(&format!("{place}: one pod is left"), LIMIT, || async {
        let pods = world.names("v1", "pods").await;
        if pods.len() == 1 { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .await;
}

#[tokio::test]
async fn around_a_suspension_and_in_it() {
    everywhere(&["status suspension begun", "status suspension over"], &[], a_suspension).await;
}
