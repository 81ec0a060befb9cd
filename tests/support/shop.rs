//! One application behind the gateway of a real node, delivered with a rollout: what the promises about real traffic begin with.
#![allow(dead_code)]

use super::cluster::wait_until;
use super::daemon::World;
use super::load::Counts;
use super::plane::{Plane, Told, server, service};
use serde_json::{Value, json};
use std::time::Duration;
use windlass::api::Delivery;
use windlass::api::delivery::Phase;

/// Requests a second.
pub const RATE: u32 = 100;

/// The API of routes.
pub const GATEWAY: &str = "gateway.networking.k8s.io/v1";

/// An application, its daemon and its host.
pub struct Shop {
    pub plane: &'static Plane,
    pub world: World,
    pub host: String,
    /// Whether its route is a GRPCRoute.
    grpc: bool,
    /// What every version has in its container besides.
    container: Value,
    _told: Told,
}

impl Shop {
    /// The version v1 behind an HTTPRoute `web`, delivered with this rollout.
    pub async fn new(plane: &'static Plane, test: &str, rollout: Value) -> Self {
        Shop::with(plane, test, rollout, json!({})).await
    }

    /// The same with more in its container, such as limits.
    pub async fn with(plane: &'static Plane, test: &str, rollout: Value, container: Value) -> Self {
        Shop::delivered(plane, test, rollout, container, false).await
    }

    /// The same behind a GRPCRoute.
    pub async fn grpc(plane: &'static Plane, test: &str, rollout: Value) -> Self {
        Shop::delivered(plane, test, rollout, json!({}), true).await
    }

    async fn delivered(
        plane: &'static Plane,
        test: &str,
        rollout: Value,
        container: Value,
        grpc: bool,
    ) -> Self {
        let mut world = World::stopped_in(plane.cluster, test).await;
        world.limit = Duration::from_secs(180);
        let told = plane.told(&world.space);
        world.start();
        let host = format!("{}.test", world.space.name);
        let shop = Shop { plane, world, host, grpc, container, _told: told };
        let good = shop.commit("v1");
        shop.world.deliver("shop", json!({"rollout": rollout})).await;
        shop.world.wait_for("shop", Phase::Ready, &good).await;
        wait_until("the gateway leads to the application", shop.world.limit, || async {
            match plane.get(&shop.host, "/any.Service/Any").await? {
                (200, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        shop
    }

    fn kind(&self) -> (&str, &str) {
        if self.grpc { ("GRPCRoute", "grpcroutes") } else { ("HTTPRoute", "httproutes") }
    }

    /// The route as Git has it.
    fn route_in_git(&self) -> Value {
        json!({
            "apiVersion": GATEWAY, "kind": self.kind().0, "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [self.plane.parent], "hostnames": [self.host],
                "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
            },
        })
    }

    /// The route as it stands.
    pub async fn route(&self) -> Value {
        self.world.get(GATEWAY, self.kind().1, "web").await
    }

    /// Pushes a version: the image's tag says how it behaves.
    pub fn commit(&self, tag: &str) -> String {
        self.commit_with(tag, json!({}))
    }

    /// The same with more in its container, such as `env`.
    pub fn commit_with(&self, tag: &str, more: Value) -> String {
        let mut web = server("web", tag, 2);
        for (field, value) in [&self.container, &more].into_iter().flat_map(|m| m.as_object().unwrap()) {
            web["spec"]["template"]["spec"]["containers"][0][field] = value.clone();
        }
        let protocol = if self.grpc { "kubernetes.io/h2c" } else { "http" };
        // JSON is YAML.
        let files = [web, service("web", protocol), self.route_in_git()].map(|object| object.to_string());
        self.world.commit(&format!("The image {tag}"), &[("shop/web.yaml", &files.join("\n---\n"))])
    }

    /// Waits until the rollout of a commit is at a step that waits for a person.
    pub async fn awaits_a_person(&self, commit: &str) {
        let awaits = |d: &Delivery| {
            let attempt = d.status.as_ref().and_then(|s| s.attempt.as_ref());
            attempt.filter(|a| a.revision.commit == commit).is_some_and(|a| {
                let paused = a.rollout.as_ref().and_then(|r| r.paused.as_ref());
                paused.is_some_and(|p| p.reason == "AwaitsPromotion")
            })
        };
        self.world.wait("shop", &format!("{commit} waits for a person"), awaits).await;
    }

    /// Nothing is left of a candidate.
    pub async fn is_alone(&self) {
        assert_eq!(self.world.names("apps/v1", "deployments").await, ["web"]);
        assert_eq!(self.world.names("v1", "services").await, ["web"]);
        let route = self.route().await;
        let rule = &route["spec"]["rules"][0];
        let refs = rule["backendRefs"].as_array().unwrap();
        assert_eq!(refs.len(), 1, "{route}");
        assert_eq!(refs[0]["name"], "web");
        assert_eq!(rule["filters"], Value::Null, "{route}");
    }
}

/// No request failed: the application answered each, and well. Of those that failed, it is said why Envoy had no answer.
pub async fn none_failed(shop: &Shop, counts: &Counts) {
    if counts.failed == 0 {
        assert!(counts.are_good(), "{counts:?}");
        return;
    }
    let noted = wait_until("Envoy writes down why", shop.world.limit, || async {
        let noted = shop.plane.failures(&shop.host);
        if noted.is_empty() { Err("nothing yet".to_owned()) } else { Ok(noted) }
    });
    panic!("{counts:?}\n{}", noted.await.join("\n"));
}
