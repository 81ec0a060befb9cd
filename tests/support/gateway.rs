//! Routes on a control plane without a proxy: the kinds, whose contents are up to who writes them, and a controller that the test
//! plays, which answers for a route when the test wants it to.
#![allow(dead_code)]

use super::cluster::{SOON, Space, try_send, wait_until};
use super::daemon::{LIMIT, World};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;
use windlass::cluster::crds;

/// The API of routes, and their name in it.
pub const GATEWAY: &str = "gateway.networking.k8s.io/v1";
pub const ROUTES: &str = "httproutes";

/// Held by a test in which PodMonitors of the Prometheus Operator come or go: the cluster knows a kind or does not, for all at once.
pub static MONITORS: Mutex<()> = Mutex::const_new(());

/// Has the API server know a kind of a group in version `v1`, with a status of its own, until the namespace goes.
pub async fn know(space: &mut Space, group: &str, kind: &str, plural: &str) {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    });
    if group.ends_with(".k8s.io") {
        // Groups of Kubernetes itself take an approval.
        let approved = json!({"api-approved.kubernetes.io": "unapproved, for tests"});
        definition["metadata"]["annotations"] = approved;
    }
    let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    // Those of a test before this one take a moment to go, and now and then the API server overlooks one.
    let one = format!("{all}/{plural}.{group}");
    wait_until(&format!("{plural} can be made"), LIMIT, || async {
        let client = &space.connection.client;
        let Err(error) = try_send(client, "POST", all, &definition).await else { return Ok(()) };
        if let Ok(there) = try_send(client, "GET", &one, &Value::Null).await {
            if there["metadata"]["deletionTimestamp"].is_null() {
                return Ok(());
            }
            crds::look_again(&space.access, &there).await.map_err(|e| e.to_string())?;
        }
        Err(error.to_string())
    })
    .await;
    space.forget_later(&one);
    let path = space.path(&format!("{group}/v1"), plural);
    wait_until(&format!("{plural} are served"), SOON, || async {
        try_send(&space.connection.client, "GET", &path, &Value::Null).await.map_err(|e| e.to_string())
    })
    .await;
}

/// Has the API server know HTTPRoutes from now on: several tests use them at once, and none knows which is the last.
pub async fn know_routes() {
    static KNOWN: OnceCell<()> = OnceCell::const_new();
    let make = async || {
        let mut space = Space::new("routes").await;
        know(&mut space, "gateway.networking.k8s.io", "HTTPRoute", ROUTES).await;
        // It stays until the cluster goes.
        std::mem::forget(space);
    };
    KNOWN.get_or_init(make).await;
}

/// The route `web` to the Service `web`.
pub fn route() -> Value {
    json!({
        "apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"name": "gateway"}],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    })
}

/// The candidate's share in a route, in percent; `None` where it is not named.
pub fn share(route: &Value) -> Option<u64> {
    let refs = route["spec"]["rules"][0]["backendRefs"].as_array()?;
    refs.iter().find(|r| r["name"] == "web-canary")?["weight"].as_u64()
}

/// About which shares a controller says nothing.
type Silence = Arc<std::sync::Mutex<Option<Option<u64>>>>;

/// A controller that takes every route of a namespace, but for those that it is told to be silent about.
pub struct Controller {
    silence: Silence,
    task: JoinHandle<()>,
}

impl Controller {
    /// Begins.
    pub fn of(world: &World) -> Self {
        let silence = Silence::default();
        let (client, all) = (world.space.connection.client.clone(), world.space.path(GATEWAY, ROUTES));
        let told = Arc::clone(&silence);
        let task = tokio::spawn(async move {
            loop {
                let found = try_send(&client, "GET", &all, &Value::Null).await.unwrap_or_default();
                for route in found["items"].as_array().into_iter().flatten() {
                    let silent = *told.lock().unwrap() == Some(share(route));
                    let (name, status) = (&route["metadata"]["name"], answer(route));
                    if !silent && route["status"] != status {
                        let version = &route["metadata"]["resourceVersion"];
                        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
                        let path = format!("{all}/{}/status", name.as_str().unwrap_or_default());
                        // Where somebody was faster, it is looked at again.
                        let _ = try_send(&client, "PATCH", &path, &patch).await;
                    }
                }
                // How long a controller takes.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Controller { silence, task }
    }

    /// Says nothing about a route in which the candidate has this share; `None` for one that does not name it.
    pub fn keep_silent(&self, share: Option<u64>) {
        *self.silence.lock().unwrap() = Some(share);
    }

    /// Answers everything.
    pub fn answer_all(&self) {
        *self.silence.lock().unwrap() = None;
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The status of a route that is taken as it stands.
fn answer(route: &Value) -> Value {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": route["metadata"]["generation"],
        })
    };
    let conditions = ["Accepted", "ResolvedRefs"].map(condition);
    let parents = route["spec"]["parentRefs"].as_array().into_iter().flatten();
    let of = |parent: &Value| json!({"parentRef": parent, "controllerName": "example.com/played", "conditions": conditions});
    json!({"parents": parents.map(of).collect::<Vec<_>>()})
}
