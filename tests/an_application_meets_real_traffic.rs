//! On a real node, behind a real Gateway: an Application that changes loses no request, nor where somebody edits its Deployment or the
//! daemon dies; an image that cannot run is taken back without one, and a canary that answers badly costs no more than its share. What is
//! deleted of it comes back and serves.

use crate::a_canary_meets_real_traffic::{WEIGHT, canary, within};
use crate::support::applications::condition_of;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World};
use crate::support::load::Load;
use crate::support::plane::{self, Plane, Told, say};
use crate::support::shop::RATE;
use serde_json::{Value, json};
use windlass::api::application::ApplicationPhase;
use windlass::api::condition::kind;

/// An Application of two pods behind the gateway.
struct Exposed {
    plane: &'static Plane,
    world: World,
    host: String,
    rollout: Option<Value>,
    _told: Told,
}

impl Exposed {
    /// The version v1, once it answers.
    async fn new(plane: &'static Plane, test: &str, rollout: Option<Value>) -> Self {
        let mut world = World::stopped_in(plane.cluster, test).await;
        let told = plane.told(&world.space);
        world.start();
        let host = format!("{}.test", world.space.name);
        let exposed = Exposed { plane, world, host, rollout, _told: told };
        exposed.asks("v1", json!({})).await;
        exposed.world.wait_application_runs("web", "v1").await;
        exposed.answers().await;
        exposed
    }

    /// Waits until the gateway leads to it.
    async fn answers(&self) {
        wait_until("the gateway leads to it", LIMIT, || async {
            match self.plane.get(&self.host, "/").await? {
                (200, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// As patient as those of the other tests' servers, for the machine may stall.
    fn probe(path: &str) -> Value {
        let get = json!({"path": path, "port": "http"});
        json!({"httpGet": get, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 60})
    }

    /// Writes the Application, with this image and what else it says.
    async fn asks(&self, tag: &str, more: Value) {
        let parent = &self.plane.parent;
        let mut spec = json!({
            "healthCheck": {"readiness": Self::probe("/readyz")},
            "expose": {"host": self.host, "gateway": {"name": parent["name"], "namespace": parent["namespace"]}},
        });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        if let Some(rollout) = &self.rollout {
            spec["rollout"] = rollout.clone();
        }
        self.world.application("web", tag, spec).await;
    }

    /// Waits until a bad image is taken back. Answers what is said of it.
    async fn is_taken_back(&self, good: &str) -> String {
        let status = self.world.wait_application_phase("web", ApplicationPhase::RolledBack).await;
        assert_eq!(self.world.image_of("web").await, format!("registry.example.com/web:{good}"));
        assert_eq!(self.world.names("apps/v1", "deployments").await, ["web"]);
        condition_of(&status, kind::HELD).2
    }
}

#[tokio::test]
async fn changes_lose_no_request_and_images_that_cannot_run_are_taken_back() {
    let Some(plane) = plane::shared("an_application_meets_real_traffic::changes") else { return };
    let web = Exposed::new(plane, "app-traffic", None).await;
    let load = Load::start(plane, &web.host, RATE, &[]);
    web.asks("v2", json!({})).await;
    web.world.wait_application_runs("web", "v2").await;
    // Other configuration replaces pods, too; and some pods more, and fewer.
    let red = |replicas: i32| json!({"config": {"env": {"COLOUR": "red"}}, "replicas": replicas});
    for replicas in [2, 4, 2] {
        web.asks("v2", red(replicas)).await;
        web.world
            .wait_application("web", &format!("{replicas} pods"), |s| {
                s.phase == ApplicationPhase::Running && s.available_replicas == Some(replicas)
            })
            .await;
    }
    for (tag, said) in [("missing", "not found"), ("crash", " times")] {
        web.asks(tag, red(2)).await;
        let message = web.is_taken_back("v2").await;
        assert!(message.contains(said), "{tag}: {message}");
    }
    web.asks("v3", red(2)).await;
    web.world.wait_application_runs("web", "v3").await;
    load.wait("the newest answers", |c| c.of("v3") > 0).await;
    let counts = load.stop();
    say(&format!("an Application that changes: {counts:?}"));
    assert!(counts.failed == 0 && counts.are_good(), "{counts:?}");
    assert!(["v1", "v2", "v3"].iter().all(|version| counts.of(version) > 0), "{counts:?}");
}

#[tokio::test]
async fn another_probe_an_edit_and_a_dead_daemon_lose_no_request_and_what_is_deleted_comes_back() {
    let Some(plane) = plane::shared("an_application_meets_real_traffic::kept") else { return };
    let mut web = Exposed::new(plane, "app-kept", None).await;
    let load = Load::start(plane, &web.host, RATE, &[]);
    let pods = web.world.names("v1", "pods").await;
    let probed = json!({"healthCheck": {
        "readiness": Exposed::probe("/readyz"), "liveness": Exposed::probe("/healthz"),
    }});
    web.asks("v1", probed.clone()).await;
    wait_until("other pods serve, with the probe", LIMIT, || async {
        let list = web.world.space.send("GET", &web.world.space.path("v1", "pods"), &Value::Null).await;
        let is_other = |pod: &Value| {
            let name = pod["metadata"]["name"].as_str().unwrap();
            !pods.iter().any(|before| before == name)
                && pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/healthz"
        };
        let all = list["items"].as_array().unwrap();
        if all.len() == 2 && all.iter().all(is_other) { Ok(()) } else { Err(format!("{} pods", all.len())) }
    })
    .await;
    web.world.wait_application_runs("web", "v1").await;

    // An edit that would be the end of it.
    let crash = json!([
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "registry.example.com/web:crash"},
    ]);
    web.world.patch("apps/v1", "deployments", "web", crash).await;
    web.world.wait_application_event("web", "DriftCorrected").await;
    web.world.wait_application_runs("web", "v1").await;

    // It dies while pods are replaced.
    web.asks("v2", probed).await;
    web.world
        .wait_object("apps/v1", "deployments", "web", "pods are being replaced", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/web:v2"
        })
        .await;
    web.world.restart().await;
    web.world.wait_application_runs("web", "v2").await;
    load.wait("the newest answers", |c| c.of("v2") > 0).await;
    let counts = load.stop();
    say(&format!("an Application that is touched: {counts:?}"));
    assert!(counts.failed == 0 && counts.are_good(), "{counts:?}");

    let before = web.world.names("v1", "pods").await;
    let is_there: fn(&Value) -> bool = |_| true;
    let is_seen: fn(&Value) -> bool = |route| route["status"]["parents"][0]["conditions"].is_array();
    let has_pods: fn(&Value) -> bool = |deployment| deployment["status"]["availableReplicas"] == 2;
    let objects = [
        ("v1", "services", "another one is there", is_there),
        (
            "gateway.networking.k8s.io/v1",
            "httproutes",
            "another one is there, and its gateway has seen it",
            is_seen,
        ),
        ("apps/v1", "deployments", "another one is there, with its pods", has_pods),
    ];
    let mut uids = Vec::new();
    for (api, plural, ..) in objects {
        uids.push(web.world.get(api, plural, "web").await["metadata"]["uid"].clone());
        web.world.delete(api, plural, "web").await;
    }
    for ((api, plural, what, is_whole), uid) in objects.into_iter().zip(uids) {
        web.world
            .wait_object(api, plural, "web", what, |o| {
                o["metadata"]["uid"].is_string() && o["metadata"]["uid"] != uid && is_whole(o)
            })
            .await;
    }
    wait_until("other pods answer, and no one else", LIMIT, || async {
        for _ in 0..20 {
            let (status, headers) = plane.get(&web.host, "/").await?;
            let pod = headers.get("x-pod").cloned().unwrap_or_default();
            if status != 200 || before.contains(&pod) {
                return Err(format!("{status} {pod}, and before there were {before:?}"));
            }
        }
        Ok(())
    })
    .await;
    web.world.wait_application_runs("web", "v2").await;
}

#[tokio::test]
async fn a_canary_that_answers_badly_costs_no_more_than_its_share() {
    let Some(plane) = plane::shared("an_application_meets_real_traffic::canary") else { return };
    let mut rollout = canary(plane);
    // It is that of the Application.
    rollout.as_object_mut().unwrap().remove("workload");
    let web = Exposed::new(plane, "app-canary-traffic", Some(rollout)).await;
    let load = Load::start(plane, &web.host, RATE, &[]);
    web.asks("v2", json!({})).await;
    web.world.wait_application_runs("web", "v2").await;
    let counts = load.stop();
    assert!(counts.failed == 0 && counts.are_good(), "{counts:?}");
    assert!(counts.of("v1") > 0 && counts.of("v2") > 0, "{counts:?}");

    // Half of its answers are a 500.
    let load = Load::start(plane, &web.host, RATE, &[]);
    web.asks("errors", json!({})).await;
    let message = web.is_taken_back("v2").await;
    let counts = load.stop();
    assert!(message.contains("success-rate"), "{message}");
    within("an Application's canary that fails half of its requests", counts.failed, WEIGHT, 0.5, &counts);
}

#[tokio::test]
async fn what_takes_too_long_is_cut_off_and_nothing_sooner() {
    let Some(plane) = plane::shared("an_application_meets_real_traffic::time_limit") else { return };
    let web = Exposed::new(plane, "app-limit", None).await;
    let (status, headers) = plane.get(&web.host, "/settings?LATENCY=1s").await.unwrap();
    assert_eq!(status, 200);
    let slow = &headers["x-pod"];
    // Asks until the answers to twenty requests are as wanted: their statuses, and whether the slow pod gave them.
    let answers = async |what: &str, is: fn(&[(u16, bool)]) -> bool| {
        wait_until(what, LIMIT, || async {
            let mut all = Vec::new();
            for _ in 0..20 {
                let (status, headers) = plane.get(&web.host, "/").await?;
                all.push((status, headers.get("x-pod") == Some(slow)));
            }
            if is(&all) { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
    };
    web.asks("v1", json!({"traffic": {"timeout": "500ms"}})).await;
    answers("what takes longer is cut off", |all| {
        let of = |status: u16| all.iter().filter(|(s, _)| *s == status).count();
        of(504) > 0 && of(200) > 0 && all.iter().all(|(status, slow)| *status == 504 || !slow)
    })
    .await;
    // A limit for each try is none for the whole, where the route has no words for more than one try.
    let retries = json!({"attempts": 3, "perTryTimeout": "500ms", "retryOn": "5xx"});
    web.asks("v1", json!({"traffic": {"timeout": "10s", "retries": retries}})).await;
    answers("the slow pod may answer", |all| {
        all.iter().all(|(status, _)| *status == 200) && all.iter().any(|(_, slow)| *slow)
    })
    .await;
    let limited = |s: &windlass::api::application::ApplicationStatus| {
        condition_of(s, kind::LIMITED).2.contains("spec.traffic.retries cannot be carried out")
    };
    web.world.wait_application("web", "that there are no retries is told", limited).await;
}
