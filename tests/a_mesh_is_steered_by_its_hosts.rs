//! With Istio a rollout divides traffic between hosts: by the VirtualService of the directory, by one of that name that is somebody
//! else's, or by one that is made for as long as there is a candidate.

use crate::a_rollout_goes_step_by_step::{service, web};
use crate::support::cli::windlass;
use crate::support::daemon::{World, config_map};
use crate::support::gateway::know;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use windlass::api::delivery::Phase;
use windlass::api::rollout::Strategy;

pub const API: &str = "networking.istio.io/v1";
pub const ROUTES: &str = "virtualservices";

/// The kinds of the mesh are the whole cluster's: one test at a time has them.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A cluster that knows the two kinds of the mesh; what they say is up to who writes them. The first value is held for longer
/// than the world.
pub async fn meshed(test: &str) -> (MutexGuard<'static, ()>, World) {
    let alone = ALONE.lock().await;
    let mut world = World::stopped(test).await;
    for (kind, plural) in [("VirtualService", ROUTES), ("DestinationRule", "destinationrules")] {
        know(&mut world.space, "networking.istio.io", kind, plural).await;
    }
    world.start();
    (alone, world)
}

/// To whom a VirtualService sends requests, rule by rule, and with which weights.
pub fn hosts(route: &Value) -> Vec<Vec<(String, Option<u64>)>> {
    let to = |entry: &Value| {
        let host = entry["destination"]["host"].as_str().unwrap_or_default();
        (host.to_owned(), entry["weight"].as_u64())
    };
    let of = |rule: &Value| rule["route"].as_array().into_iter().flatten().map(to).collect();
    route["spec"]["http"].as_array().into_iter().flatten().map(of).collect()
}

fn shares(stable: u64, candidate: u64) -> Vec<Vec<(String, Option<u64>)>> {
    vec![vec![("web".into(), Some(stable)), ("web-canary".into(), Some(candidate))]]
}

fn ask(world: &World, verb: &str) {
    let answer = windlass(&world.space, &[verb, "shop", "-n", &world.space.name]);
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn promote(world: &World) {
    ask(world, "promote");
}

async fn alone(world: &World) {
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.names("v1", "services").await, ["web"]);
}

#[tokio::test]
async fn one_is_made_and_goes_and_anothers_or_ones_own_is_given_back() {
    let (_alone, world) = meshed("mesh").await;
    let route = |host: &str| {
        json!({
            "apiVersion": API, "kind": "VirtualService", "metadata": {"name": "web"},
            "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": "web"}}]}]},
        })
    };
    let good = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &web("ok", 1)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let canary = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"istio": {"virtualService": "web"}},
        "steps": [{"weight": 20}, {"pause": {}}], "settle": "300ms",
    });
    world.deliver("shop", json!({"retryInterval": "2s", "rollout": canary})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    // Somebody else's is divided by a patch, kept so whatever people do to it, and given back.
    world.space.send("POST", &world.space.path(API, ROUTES), &route("theirs.example.com")).await;
    let before = world.get(API, ROUTES, "web").await;
    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 1))]);
    world.wait_for("shop", Phase::Paused, &next).await;
    let divided = world.get(API, ROUTES, "web").await;
    assert_eq!(hosts(&divided), shares(80, 20), "{divided}");
    assert_eq!(divided["metadata"]["labels"], Value::Null, "it is none of ours");
    let weigh = json!([{"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 90}]);
    world.patch(API, ROUTES, "web", weigh).await;
    world
        .wait_object(API, ROUTES, "web", "the step's shares stand again", |r| hosts(r) == shares(80, 20))
        .await;
    ask(&world, "abort");
    let held = world.wait_for("shop", Phase::Held, &next).await;
    assert_eq!(held.status.unwrap().effective.unwrap().commit, good);
    let after = world.get(API, ROUTES, "web").await;
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["metadata"]["annotations"], before["metadata"]["annotations"]);
    alone(&world).await;

    // When it is gone, one is made for as long as there is a candidate.
    world.delete(API, ROUTES, "web").await;
    ask(&world, "retry");
    world.wait_for("shop", Phase::Paused, &next).await;
    let made = world.get(API, ROUTES, "web").await;
    assert_eq!((hosts(&made), &made["spec"]["hosts"]), (shares(80, 20), &json!(["web"])), "{made}");
    promote(&world);
    world.wait_for("shop", Phase::Ready, &next).await;
    assert!(world.names(API, ROUTES).await.is_empty());
    alone(&world).await;

    // That of the directory is divided, with a copy of what holds for the host, and is as Git has it afterwards.
    let rule = json!({
        "apiVersion": API, "kind": "DestinationRule", "metadata": {"name": "web"},
        "spec": {"host": "web", "trafficPolicy": {"loadBalancer": {"simple": "LEAST_REQUEST"}}},
    });
    let mesh = [route("shop.example.com"), rule].map(|object| object.to_string()).join("\n---\n");
    let routed = world.commit("With a route of its own", &[("shop/mesh.yaml", &mesh)]);
    world.wait_for("shop", Phase::Ready, &routed).await;
    let own = world.get(API, ROUTES, "web").await;
    // Refused by the mesh, no pod of a candidate is started for it.
    let said = json!([{"level": "ERROR", "type": {"name": "ReferencedResourceNotFound", "code": "IST0101"}}]);
    let status = |messages: &Value| json!({"status": {"validationMessages": messages}});
    world.patch(API, ROUTES, "web/status", status(&said)).await;
    let third = world.commit("Third", &[("shop/web.yaml", &web("ok3", 1))]);
    let refused = world.wait_refused("shop", "RouteRefused").await.status.unwrap();
    let problem = refused.failure.unwrap().problem;
    assert!(
        problem.message.contains("is refused by Istio: ReferencedResourceNotFound IST0101"),
        "{problem:?}"
    );
    assert_eq!(refused.effective.unwrap().commit, routed);
    alone(&world).await;
    world.patch(API, ROUTES, "web/status", status(&Value::Null)).await;
    world.wait_for("shop", Phase::Paused, &third).await;
    assert_eq!(hosts(&world.get(API, ROUTES, "web").await), shares(80, 20));
    let copy = world.get(API, "destinationrules", "web-canary").await;
    assert_eq!(copy["spec"]["host"], "web-canary", "{copy}");
    assert_eq!(copy["spec"]["trafficPolicy"]["loadBalancer"]["simple"], "LEAST_REQUEST");
    promote(&world);
    world.wait_for("shop", Phase::Ready, &third).await;
    assert_eq!(world.get(API, ROUTES, "web").await["spec"], own["spec"]);
    assert_eq!(world.names(API, "destinationrules").await, ["web"]);
    alone(&world).await;

    // Requests with a cookie, which only the mesh can tell.
    let test = json!({
        "strategy": "AB", "workload": {"name": "web"}, "router": {"istio": {"virtualService": "web"}},
        "ab": {"cookie": {"name": "beta", "value": "1"}}, "settle": "300ms",
    });
    world.deliver("shop", json!({"retryInterval": "2s", "rollout": test})).await;
    world
        .wait("shop", "the other rollout", |d| {
            d.spec.template.rollout.as_ref().is_some_and(|r| r.strategy == Strategy::AB)
        })
        .await;
    let fourth = world.commit("Fourth", &[("shop/web.yaml", &web("ok4", 1))]);
    world.wait_for("shop", Phase::Paused, &fourth).await;
    let marked = world.get(API, ROUTES, "web").await;
    let rules = &marked["spec"]["http"];
    assert!(
        rules[0]["match"][0]["headers"]["cookie"]["regex"].as_str().unwrap().contains("beta"),
        "{marked}"
    );
    assert_eq!(hosts(&marked)[0], [("web-canary".to_owned(), None)], "{marked}");
    assert_eq!(hosts(&marked)[1], shares(100, 0)[0], "{marked}");
    promote(&world);
    world.wait_for("shop", Phase::Ready, &fourth).await;
    assert_eq!(world.get(API, ROUTES, "web").await["spec"], own["spec"]);
    alone(&world).await;
}
