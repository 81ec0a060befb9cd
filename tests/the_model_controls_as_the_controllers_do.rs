//! The controllers of the modelled cluster do what the real ones promise.

use crate::model::Cluster;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// A cluster and its time.
struct World {
    cluster: Cluster,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        World { cluster: Cluster::new(), now: start() }
    }

    /// Applies as the daemon does.
    fn apply(&mut self, object: &Value) -> Value {
        let path = format!(
            "{}/{}?fieldManager=windlass&force=true",
            self.cluster.collection_of(object),
            object["metadata"]["name"].as_str().unwrap()
        );
        let (status, body) = self.cluster.act(self.now, "PATCH", &path, object);
        assert!(status < 300, "{body}");
        body
    }

    /// Lets the controllers work for some time; `look` after every step.
    fn run_looking(&mut self, duration: SignedDuration, mut look: impl FnMut(&Cluster)) {
        let end = self.now + duration;
        loop {
            let mut steps = 0;
            while self.cluster.run_controllers(self.now) {
                look(&self.cluster);
                steps += 1;
                assert!(steps < 200, "the controllers do not come to rest");
            }
            match self.cluster.next_due() {
                Some(due) if due <= end => self.now = self.now.max(due),
                _ => break,
            }
        }
        self.now = end;
    }

    fn run(&mut self, seconds: i64) {
        self.run_looking(SignedDuration::from_secs(seconds), |_| {});
    }

    fn deployment(&self) -> &Value {
        self.cluster.get("Deployment", "default", "web").unwrap()
    }

    fn condition(&self, kind: &str) -> (&str, &str) {
        let conditions = self.deployment()["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|c| c["type"] == kind).unwrap();
        (found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    }
}

fn deployment(tag: &str, replicas: i64, surge: Value, unavailable: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 60,
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "web", "image": format!("web:{tag}")}]}},
        },
    })
}

fn ready(cluster: &Cluster) -> i64 {
    let is_ready = |pod: &&Value| {
        pod["metadata"]["deletionTimestamp"].is_null()
            && pod["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    cluster.of_kind("Pod").filter(is_ready).count() as i64
}

#[test]
fn a_rollout_keeps_within_its_limits() {
    for replicas in 1..5 {
        for (surge, unavailable) in [
            (json!(1), json!(0)),
            (json!(0), json!(1)),
            (json!("25%"), json!("25%")),
            (json!(3), json!(2)),
            (json!("100%"), json!("50%")),
        ] {
            for tag in ["v2", "slow", "unready", "crash", "missing"] {
                let mut world = World::new();
                world.apply(&deployment("v1", replicas, surge.clone(), unavailable.clone()));
                world.run(10);
                assert_eq!(ready(&world.cluster), replicas);
                assert_eq!(world.condition("Progressing"), ("True", "NewReplicaSetAvailable"));
                world.apply(&deployment(tag, replicas, surge.clone(), unavailable.clone()));
                let least = replicas - Cluster::may_be_missing(world.deployment());
                let more = surge.as_i64().unwrap_or_else(|| {
                    let percent: i64 = surge.as_str().unwrap().trim_end_matches('%').parse().unwrap();
                    (percent * replicas + 99) / 100
                });
                let most = replicas + if more == 0 && least == replicas { 0 } else { more };
                world.run_looking(SignedDuration::from_secs(30), |cluster| {
                    let told = || format!("{replicas} {surge} {unavailable} {tag}");
                    assert!(ready(cluster) >= least, "{}: {} of {least}", told(), ready(cluster));
                    let pods =
                        cluster.of_kind("Pod").filter(|p| p["metadata"]["deletionTimestamp"].is_null());
                    assert!(pods.count() as i64 <= most, "{}", told());
                });
                let done = matches!(tag, "v2" | "slow");
                let updated = world.deployment()["status"]["updatedReplicas"].as_i64().unwrap_or(0);
                if done {
                    assert_eq!((updated, ready(&world.cluster)), (replicas, replicas), "{tag}");
                    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
                } else {
                    world.run(100);
                    assert_eq!(
                        world.condition("Progressing"),
                        ("False", "ProgressDeadlineExceeded"),
                        "{tag}"
                    );
                    // Back: the old template serves again.
                    world.apply(&deployment("v1", replicas, surge.clone(), unavailable.clone()));
                    world.run(10);
                    assert_eq!(ready(&world.cluster), replicas);
                    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
                }
            }
        }
    }
}

#[test]
fn images_do_what_their_tags_say() {
    let waiting = |tag: &str, seconds: i64| {
        let mut world = World::new();
        world.apply(&deployment(tag, 1, json!(1), json!(0)));
        world.run(seconds);
        let pod = world.cluster.of_kind("Pod").next().unwrap();
        let container = &pod["status"]["containerStatuses"][0];
        let reason = container["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_string();
        (ready(&world.cluster), reason, container["restartCount"].as_i64().unwrap())
    };
    assert_eq!(waiting("ok", 0), (1, String::new(), 0));
    assert_eq!(waiting("slow", 2), (0, String::new(), 0));
    assert_eq!(waiting("slow", 4), (1, String::new(), 0));
    assert_eq!(waiting("unready", 400), (0, String::new(), 0));
    assert_eq!(waiting("crash", 1), (0, "CrashLoopBackOff".into(), 1));
    assert_eq!(waiting("crash", 4), (0, "CrashLoopBackOff".into(), 4));
    assert_eq!(waiting("missing", 2), (0, "ImagePullBackOff".into(), 0));
    assert_eq!(waiting("flaky", 3), (1, String::new(), 0));
    assert_eq!(waiting("flaky", 4), (0, "CrashLoopBackOff".into(), 1));
}

#[test]
fn a_job_ends_one_way_or_the_other() {
    let job = |tag: &str, policy: &str| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "default"},
            "spec": {"backoffLimit": 1, "template": {"spec": {"restartPolicy": policy, "containers": [
                {"name": "job", "image": format!("job:{tag}")}]}}}})
    };
    for (tag, policy, wanted) in [
        ("ok", "Never", "Complete"),
        ("slow", "OnFailure", "Complete"),
        ("fail", "Never", "Failed"),
        ("crash", "OnFailure", "Failed"),
    ] {
        let mut world = World::new();
        world.apply(&job(tag, policy));
        world.run(60);
        let found = world.cluster.get("Job", "default", "job").unwrap();
        let conditions = found["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().any(|c| c["type"] == wanted && c["status"] == "True"), "{tag}: {found}");
    }
}

#[test]
fn what_is_owned_goes_as_it_was_asked_for() {
    for (policy, left) in [("Background", 0), ("Foreground", 0), ("Orphan", 2)] {
        let mut world = World::new();
        world.apply(&deployment("ok", 2, json!(1), json!(0)));
        world.run(1);
        let path = format!("/apis/apps/v1/namespaces/default/deployments/web?propagationPolicy={policy}");
        world.cluster.act(world.now, "DELETE", &path, &Value::Null);
        world.run(1);
        assert!(world.cluster.get("Deployment", "default", "web").is_none(), "{policy}");
        assert_eq!(world.cluster.of_kind("Pod").count(), left, "{policy}");
    }
}

#[test]
fn a_namespace_goes_with_what_is_in_it() {
    let mut world = World::new();
    world.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    let mut web = deployment("ok", 2, json!(1), json!(0));
    web["metadata"]["namespace"] = "shop".into();
    world.apply(&web);
    world.run(1);
    let (status, body) = world.cluster.act(world.now, "DELETE", "/api/v1/namespaces/shop", &Value::Null);
    assert_eq!((status, &body["status"]["phase"]), (200, &json!("Terminating")));
    let (status, body) = world.cluster.act(
        world.now,
        "POST",
        "/api/v1/namespaces/shop/configmaps",
        &json!({"metadata": {"name": "late"}}),
    );
    assert_eq!((status, &body["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")));
    world.run(1);
    assert!(world.cluster.get("Namespace", "", "shop").is_none());
    assert_eq!(world.cluster.of_kind("Pod").count(), 0);
}
