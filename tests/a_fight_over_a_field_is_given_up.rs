//! Where another controller answers each correction with another write, the field is left to it after a few rounds; people are told
//! who it is and which rule leaves it for good, and all else is written back as ever.

use crate::support::cluster::{Space, try_send, wait_until};
use crate::support::daemon::{LIMIT, World, condition, config_map};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::drift_report::{DriftEpisode, DriftReportSpec};

const MAP: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {key: ours, other: ours}\n";

/// A controller that wants another value in one field.
struct Fighter {
    writes: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Fighter {
    fn begin(space: &Space) -> Self {
        let writes = Arc::new(AtomicUsize::new(0));
        let (client, count) = (space.connection.client.clone(), writes.clone());
        let path = format!("{}/settings?fieldManager=other-controller", space.path("v1", "configmaps"));
        let task = tokio::spawn(async move {
            loop {
                let found = try_send(&client, "GET", &path, &Value::Null).await.unwrap_or_default();
                if found["data"]["key"] == "ours" {
                    // Counted before: the daemon may have answered it before it is answered here.
                    count.fetch_add(1, Ordering::Relaxed);
                    let write = json!({"data": {"key": "theirs"}});
                    if try_send(&client, "PATCH", &path, &write).await.is_err() {
                        count.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
        Fighter { writes, task }
    }

    fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.task.abort();
    }
}

async fn given_up(test: &str) -> (World, Fighter, Delivery) {
    let world = World::new(test).await;
    let commit = world.commit("It", &[("shop/settings.yaml", MAP)]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let fighter = Fighter::begin(&world.space);
    let delivery = world
        .wait("shop", "given up", |d| {
            let conditions = d.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            windlass::api::condition::get(&conditions, kind::DRIFTED).is_some_and(|c| c.reason == "Contested")
        })
        .await;
    (world, fighter, delivery)
}

async fn key(world: &World, name: &str) -> Value {
    world.get("v1", "configmaps", "settings").await["data"][name].clone()
}

async fn other_field_is_mended(world: &World) {
    world.patch("v1", "configmaps", "settings", json!({"data": {"other": "edited"}})).await;
    world.wait_object("v1", "configmaps", "settings", "mended", |o| o["data"]["other"] == "ours").await;
}

/// The report says that the other field was written back so often: it survives the daemon then. And it tells of the one that
/// is left to the other controller: a moment after what was written back has been looked at again.
async fn told(world: &World, times: i64) -> DriftReportSpec {
    wait_until("the report tells of it", LIMIT, || async {
        let report = world.reports().get("shop").await.map_err(|e| e.to_string())?.spec;
        // What is about to be mended is counted before, and stands among the mended ones after.
        let other = |e: &DriftEpisode| e.object.fields.iter().any(|f| f.path == "data.other");
        let mended = report.episodes.iter().filter(|e| other(e)).count();
        let is = report.recurring.iter().any(|r| r.path == "data.other" && r.times >= times)
            && mended >= usize::try_from(times).unwrap();
        if is && report.objects.len() == 1 { Ok(report) } else { Err(format!("{report:?}")) }
    })
    .await
}

#[tokio::test]
async fn until_a_newer_revision_also_through_a_restart_and_all_else_is_mended() {
    let (mut world, fighter, delivery) = given_up("fight").await;
    let (status, _, message) = condition(&delivery, kind::DRIFTED);
    assert_eq!(status, "True");
    let rule = "[{target: {kind: ConfigMap, name: settings}, paths: [/data/key]}]";
    for word in ["other-controller", "data.key", "ConfigMap", rule] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(!message.contains("theirs"), "no value: {message}");
    let event = world.wait_event("shop", "Contested").await;
    assert!(
        event.contains("other-controller") && event.contains(rule) && !event.contains("theirs"),
        "{event}"
    );
    let writes = fighter.writes();
    assert!((5..=7).contains(&writes), "{writes} rounds");

    other_field_is_mended(&world).await;
    assert_eq!((key(&world, "key").await, fighter.writes()), (json!("theirs"), writes));
    told(&world, 1).await;
    world.restart().await;
    other_field_is_mended(&world).await;
    assert_eq!((key(&world, "key").await, fighter.writes()), (json!("theirs"), writes));
    let report = told(&world, 2).await;
    let one = report.recurring.iter().find(|r| r.path == "data.key").unwrap();
    assert!(one.stopped_at.is_some() && one.times >= 5 && one.manager == "other-controller", "{one:?}");
    let other = report.recurring.iter().find(|r| r.path == "data.other").unwrap();
    assert!(other.stopped_at.is_none(), "{other:?}");

    fighter.end();
    let commit = world.commit("Newer", &[("shop/more.yaml", &config_map("more", "1"))]);
    world.wait_for("shop", Phase::Ready, &commit).await;
    world.wait_object("v1", "configmaps", "settings", "ours again", |o| o["data"]["key"] == "ours").await;
    let delivery =
        world.wait("shop", "in sync", |d| d.status.as_ref().is_some_and(|s| s.drift == Some(0))).await;
    assert_eq!(condition(&delivery, kind::DRIFTED).0, "False");
}

#[tokio::test]
async fn for_good_with_the_rule_that_is_suggested() {
    let (world, fighter, delivery) = given_up("fight-rule").await;
    let (_, _, message) = condition(&delivery, kind::DRIFTED);
    let rule = message.split_once("spec.drift.ignore: ").unwrap().1;
    let rule: Value = serde_saphyr::from_str(rule).unwrap();
    world.deliver("shop", json!({"drift": {"mode": "Correct", "ignore": rule}})).await;
    let is_in_sync = |d: &Delivery| {
        let status = d.status.as_ref();
        status.is_some_and(|s| s.drift == Some(0) && s.observed_generation == d.metadata.generation)
            && d.spec.template.drift.as_ref().is_some_and(|p| !p.ignore.is_empty())
    };
    world.wait("shop", "in sync with the rule", is_in_sync).await;
    other_field_is_mended(&world).await;
    assert_eq!(key(&world, "key").await, "theirs");
    let writes = fighter.writes();
    world.commit("Elsewhere", &[("shop/more.yaml", &config_map("more", "1"))]);
    world.wait_object("v1", "configmaps", "more", "made", |o| o["data"]["key"] == "1").await;
    assert_eq!((key(&world, "key").await, fighter.writes()), (json!("theirs"), writes));
    wait_until("nothing is stopped any more", LIMIT, || async {
        let report = world.reports().get("shop").await.map_err(|e| e.to_string())?.spec;
        let stopped = report.recurring.iter().any(|r| r.stopped_at.is_some());
        if stopped { Err(format!("{report:?}")) } else { Ok(()) }
    })
    .await;
    fighter.end();
}

/// Somebody who undoes what is written back of the object as a whole: `undo` says how, where there is something to undo.
fn undoing(
    space: &Space,
    undo: impl Fn(&Value) -> Option<(&'static str, Value)> + Send + 'static,
) -> (Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let rounds = Arc::new(AtomicUsize::new(0));
    let (client, count) = (space.connection.client.clone(), rounds.clone());
    let path = format!("{}/settings?fieldManager=other-controller", space.path("v1", "configmaps"));
    let task = tokio::spawn(async move {
        loop {
            let found = try_send(&client, "GET", &path, &Value::Null).await.unwrap_or_default();
            if let Some((method, body)) = undo(&found) {
                count.fetch_add(1, Ordering::Relaxed);
                if try_send(&client, method, &path, &body).await.is_err() {
                    count.fetch_sub(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    (rounds, task)
}

async fn given_up_whole(
    test: &str,
    undo: impl Fn(&Value) -> Option<(&'static str, Value)> + Send + 'static,
    says: &str,
    state: &str,
) {
    let world = World::new(test).await;
    let commit = world.commit("It", &[("shop/settings.yaml", MAP)]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let (rounds, task) = undoing(&world.space, undo);
    let contested = |d: &Delivery| {
        let conditions = d.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        windlass::api::condition::get(&conditions, kind::DRIFTED).is_some_and(|c| c.reason == "Contested")
    };
    let delivery = world.wait("shop", "given up", contested).await;
    let (_, _, message) = condition(&delivery, kind::DRIFTED);
    assert!(message.contains(says) && message.contains("windlass.dev/drift: ignore"), "{message}");
    let event = world.wait_event("shop", "Contested").await;
    assert!(event.contains(says), "{event}");
    let done = rounds.load(Ordering::Relaxed);
    assert!((5..=7).contains(&done), "{done} rounds");
    wait_until("the report tells of it", LIMIT, || async {
        let report = world.reports().get("shop").await.map_err(|e| e.to_string())?.spec;
        let is = report.objects.iter().any(|o| o.name == "settings" && o.state == state);
        if is { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
    assert_eq!(rounds.load(Ordering::Relaxed), done, "nothing is written back that would be undone");
    task.abort();
    let commit = world.commit("Newer", &[("shop/more.yaml", &config_map("more", "1"))]);
    world.wait_for("shop", Phase::Ready, &commit).await;
    world
        .wait_object("v1", "configmaps", "settings", "ours again", |o| {
            o["data"]["key"] == "ours" && !o["metadata"]["labels"]["windlass.dev/delivery"].is_null()
        })
        .await;
}

#[tokio::test]
async fn so_is_one_over_the_object_itself() {
    let undo = |found: &Value| found["data"].is_object().then_some(("DELETE", Value::Null));
    given_up_whole("fight-object", undo, "deleted again and again", "Missing").await;
}

#[tokio::test]
async fn an_object_that_is_deleted_again_and_again_is_made_again_after_a_rest() {
    let mut world = World::new("fight-rests").await;
    let commit =
        world.commit("It", &[("shop/settings.yaml", MAP), ("shop/more.yaml", &config_map("more", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let undo = |found: &Value| found["data"].is_object().then_some(("DELETE", Value::Null));
    let (_, task) = undoing(&world.space, undo);
    let event = world.wait_event("shop", "Contested").await;
    assert!(event.contains("after five minutes"), "{event}");
    task.abort();
    // Another life of the daemon knows of it, and does not make it before, while it mends what else differs.
    world.restart().await;
    world.patch("v1", "configmaps", "more", json!({"data": {"key": "by hand"}})).await;
    world.wait_object("v1", "configmaps", "more", "mended", |o| o["data"]["key"] == "1").await;
    assert!(world.get("v1", "configmaps", "settings").await.is_null());
    std::fs::write(world.file("clock"), "360").unwrap();
    world.environment.push(("WINDLASS_CLOCK_OFFSET", world.file("clock").display().to_string()));
    world.restart().await;
    world.wait_object("v1", "configmaps", "settings", "made again", |o| o["data"]["key"] == "ours").await;
}

#[tokio::test]
async fn so_is_one_over_our_label() {
    let undo = |found: &Value| {
        let there = !found["metadata"]["labels"]["windlass.dev/delivery"].is_null();
        there.then(|| ("PATCH", json!({"metadata": {"labels": {"windlass.dev/delivery": null}}})))
    };
    given_up_whole("fight-label", undo, "label windlass.dev/delivery off ConfigMap", "Unlabelled").await;
}
