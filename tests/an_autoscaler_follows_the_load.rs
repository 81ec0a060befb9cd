//! On a real node, where metrics-server measures what pods use, an Application has as many pods as its load asks for, and
//! nobody takes them back. What such an API only shows is no object that could be delivered.

use crate::support::cluster::{Audited, try_send, wait_until};
use crate::support::daemon::{LIMIT, World, condition, config_map};
use crate::support::plane::{self, Plane, say};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use windlass::api::application::{ApplicationPhase, ApplicationStatus};
use windlass::api::delivery::Phase;

const AUTOSCALERS: (&str, &str) = ("autoscaling/v2", "horizontalpodautoscalers");
const METRICS: (&str, &str) = ("metrics.k8s.io/v1beta1", "pods");

/// What clients make an Application do, whatever the number of its pods: ends with this.
struct Busy {
    /// Thousandths of a core, of all pods together.
    load: Arc<AtomicU32>,
    clients: tokio::task::JoinHandle<()>,
}

impl Busy {
    /// Spreads so much processor time, in thousandths of a core, over the pods of a namespace that are ready.
    fn with(plane: &'static Plane, world: &World, load: u32) -> Busy {
        let load = Arc::new(AtomicU32::new(load));
        let all = load.clone();
        let client = world.space.connection.client.clone();
        let path = world.space.path("v1", "pods");
        let clients = tokio::spawn(async move {
            let mut turns = tokio::time::interval(Duration::from_millis(500));
            loop {
                turns.tick().await;
                // A pod that just goes, or an API server that is slow, is asked again in the next turn.
                let Ok(pods) = try_send(&client, "GET", &path, &Value::Null).await else { continue };
                let pods: Vec<&str> =
                    pods["items"].as_array().into_iter().flatten().filter_map(serves).collect();
                let each = f64::from(all.load(Ordering::Relaxed)) / 1000.0 / pods.len() as f64;
                for pod in pods {
                    let _ = plane.ask(pod, &format!("/settings?BURN={each:.3}&for=1m")).await;
                }
            }
        });
        Busy { load, clients }
    }

    /// From now on there is nothing to do.
    fn over(&self) {
        self.load.store(0, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.clients.abort();
    }
}

/// The address of a pod that is ready and there to stay.
fn serves(pod: &Value) -> Option<&str> {
    let mut conditions = pod["status"]["conditions"].as_array()?.iter();
    let ready = conditions.any(|c| c["type"] == "Ready" && c["status"] == "True");
    (ready && pod["metadata"]["deletionTimestamp"].is_null()).then(|| pod["status"]["podIP"].as_str())?
}

/// Waits until the autoscaler knows what the pods use, in percent of what they ask for, and until that and the conditions that it
/// calls true are as wanted.
async fn measured(world: &World, what: &str, wanted: impl Fn(i64, &[&str]) -> bool) {
    let (api, plural) = AUTOSCALERS;
    let is = |autoscaler: &Value| {
        let list = |of: &str| autoscaler["status"][of].as_array().map_or(&[][..], |list| list);
        let use_of = |m: &Value| m["resource"]["current"]["averageUtilization"].as_i64();
        let conditions = list("conditions").iter().filter(|c| c["status"] == "True");
        let conditions: Vec<&str> = conditions.filter_map(|c| c["type"].as_str()).collect();
        list("currentMetrics").iter().find_map(use_of).is_some_and(|percent| wanted(percent, &conditions))
    };
    world.wait_object(api, plural, "web", what, is).await;
}

fn runs(pods: i32) -> impl Fn(&ApplicationStatus) -> bool {
    move |s| {
        let counts = [s.replicas, s.ready_replicas, s.available_replicas];
        s.phase == ApplicationPhase::Running && counts == [Some(pods); 3]
    }
}

/// Waits until Events have told that there were `first` pods, and that there are `last`: they are written beside the status.
async fn scaled(world: &World, first: &str, last: &str) {
    wait_until(&format!("it is told of {first} and of {last} pods"), LIMIT, || async {
        let events = world.events_about("Application", "web").await;
        let steps = events.iter().filter(|(reason, _)| reason == "Scaled");
        let steps: Vec<_> = steps
            .map(|(_, text)| {
                let words: Vec<&str> = text.split(' ').collect();
                let ["from", before, "to", after, "pods" | "pod"] = words[..] else { panic!("{text}") };
                (before.to_owned(), after.to_owned())
            })
            .collect();
        let told =
            steps.iter().any(|(before, _)| before == first) && steps.iter().any(|(_, after)| after == last);
        if told { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await
}

#[tokio::test]
async fn an_application_grows_under_load_keeps_its_size_with_another_image_and_shrinks_after() {
    let Some(plane) = plane::shared("an_autoscaler_follows_the_load") else { return };
    let mut world = World::stopped_in(plane.cluster, "load").await;
    let _told = plane.told(&world.space);
    world.start();
    let began = Instant::now();
    let asks = |tag: &'static str| {
        let more = json!({
            "resources": {"requests": {"cpu": "50m"}},
            "autoscaling": {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilization": 50},
        });
        world.application("web", tag, more)
    };
    asks("v1").await;
    world.wait_application("web", "one pod", runs(1)).await;
    measured(&world, "it is measured, and has little to do", |percent, _| percent < 50).await;
    world.wait_application("web", "one pod", runs(1)).await;
    say(&format!("an Application at rest was measured after {:.1?}", began.elapsed()));

    // What eight pods would do, at half of what each asks for.
    let (began, audit) = (Instant::now(), plane.cluster.audit());
    let busy = Busy::with(plane, &world, 200);
    world.wait_application("web", "three pods", runs(3)).await;
    say(&format!("an Application under load had three pods after {:.1?}", began.elapsed()));
    measured(&world, "it is measured, and wants more than it may have", |percent, is| {
        percent > 50 && is.contains(&"ScalingActive") && is.contains(&"ScalingLimited")
    })
    .await;
    scaled(&world, "1", "3").await;

    // The number is nobody's but the autoscaler's, of whose writes the server notes no owner, and nothing was written after it.
    let deployment = world.get("apps/v1", "deployments", "web").await;
    let owns = |entry: &&Value| !entry["fieldsV1"]["f:spec"]["f:replicas"].is_null();
    let entries = deployment["metadata"]["managedFields"].as_array().unwrap();
    let owners: Vec<_> = entries.iter().filter(owns).collect();
    assert!(owners.iter().all(|entry| entry["manager"] == "kube-controller-manager"), "{owners:?}");
    let written = |r: &Audited| !r.is_read() && ["deployments", AUTOSCALERS.1].contains(&r.resource.as_str());
    let written: Vec<_> = audit.in_namespace(&world.space.name).into_iter().filter(written).collect();
    assert!(written.is_empty(), "{written:?}");

    // Another image, at this size from the first moment to the last: nothing but the image was changed.
    asks("v2").await;
    world.wait_application_runs("web", "v2").await;
    world.wait_application("web", "three pods", runs(3)).await;
    let later = world.get("apps/v1", "deployments", "web").await;
    assert_eq!(later["spec"]["replicas"], 3);
    let generation = |o: &Value| o["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&later), generation(&deployment) + 1, "{later}");

    busy.over();
    let began = Instant::now();
    world.wait_application("web", "one pod again", runs(1)).await;
    say(&format!("an Application after its load had one pod after {:.1?}", began.elapsed()));
    scaled(&world, "3", "1").await;
    let delivery = world
        .wait("web.application", "it is ready", |d| {
            d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)
        })
        .await;
    assert_eq!(delivery.status.unwrap().drift, Some(0));
    let drift = |(reason, _): &&(String, String)| reason.contains("Drift") || reason.contains("Held");
    let events =
        [world.events("web.application").await, world.events_about("Application", "web").await].concat();
    assert!(!events.iter().any(|e| drift(&e)), "{events:?}");
}

#[tokio::test]
async fn what_can_only_be_read_is_refused_and_what_runs_goes_on() {
    let Some(plane) = plane::shared("an_autoscaler_follows_the_load::read") else { return };
    let mut world = World::stopped_in(plane.cluster, "metrics").await;
    let _told = plane.told(&world.space);
    world.start();
    let (api, plural) = METRICS;
    let settings = "shop/settings.yaml";
    let good = world.commit("Good", &[(settings, &config_map("settings", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    // As `kubectl get -o yaml` shows it.
    let metrics = json!({
        "apiVersion": api, "kind": "PodMetrics", "metadata": {"name": "web-0"}, "timestamp": null, "window": "10s",
        "containers": [{"name": "app", "usage": {"cpu": "1m", "memory": "4Mi"}}],
    });
    let bad = world.commit(
        "Metrics of a pod",
        &[("shop/metrics.yaml", &metrics.to_string()), (settings, &config_map("settings", "2"))],
    );
    world.wait_fetched(&bad).await;
    let delivery = world.wait_refused("shop", "Refused").await;
    let (ready, _, message) = condition(&delivery, "Ready");
    assert_eq!(ready, "False");
    for word in
        ["PodMetrics", "web-0", "shop/metrics.yaml", "cannot be applied: take it out", "goes on running"]
    {
        assert!(message.contains(word), "{word}: {message}");
    }
    let status = delivery.status.unwrap();
    assert!(status.attempt.is_none() && status.held.is_none(), "nothing was begun");
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "1");
    assert_eq!(world.names(api, plural).await, [""; 0]);

    let mended = world.commit("Without", &[("shop/metrics.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &mended).await;
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "2");
}
