//! While a rollout waits, somebody gives the candidate another share in a route that is not in Git: the step's shares are written
//! again, also where the write meets another one or a server that does not answer, and nothing more happens to the route. So are
//! those of a route of the directory, and the selectors of Services.

use crate::a_rollout_goes_step_by_step::{service, web};
use crate::support::cluster::wait_until;
use crate::support::daemon::{World, config_map};
use crate::support::faults::{Fault, Faults};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use crate::the_daemon_dies_at_every_stage_of_a_rollout::{deployed, next};
use serde_json::{Value, json};
use windlass::api::delivery::Phase;

fn writes_it(request: &axum::extract::Request) -> bool {
    request.method() == "PATCH" && request.uri().path().ends_with("/httproutes/web")
}

fn written(faults: &Faults) -> usize {
    faults.count(|method, uri| method == "PATCH" && uri.contains("/httproutes/web?"))
}

#[tokio::test]
async fn also_where_the_first_write_comes_to_nothing() {
    know_routes().await;
    let mut world = World::stopped("route-by-hand").await;
    let faults = world.behind_faults().await;
    world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    let _controller = Controller::of(&world);
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 30}, {"pause": {}}], "settle": "300ms",
    });
    deployed(&mut world, "app: web", policy).await;
    let second = next(&world, "ok2", &[]);
    world.wait_for("shop", Phase::Paused, &second).await;

    let conflict = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409,
        "message": "the object has been modified; please apply your changes to the latest version and try again",
    });
    for fault in [Fault::Refuse(409, conflict.to_string()), Fault::Status(503, None)] {
        let before = written(&faults);
        let mut once = Some(fault.clone());
        faults.set(move |request| writes_it(request).then(|| once.take()).flatten());
        let weigh = json!([{"op": "replace", "path": "/spec/rules/0/backendRefs/1/weight", "value": 90}]);
        world.patch(GATEWAY, ROUTES, "web", weigh).await;
        wait_until("the write comes to nothing", world.limit, || async {
            if written(&faults) > before { Ok(()) } else { Err("nothing is written".to_owned()) }
        })
        .await;
        let again = |route: &Value| share(route) == Some(30);
        world
            .wait_object(GATEWAY, ROUTES, "web", &format!("has its shares again after {fault:?}"), again)
            .await;
    }
    let delivery = world.wait_for("shop", Phase::Paused, &second).await;
    assert!(delivery.status.unwrap().failure.is_none());
}

#[tokio::test]
async fn what_is_in_the_directory_is_as_the_step_wants_it_again_at_once() {
    know_routes().await;
    let mut world = World::stopped("own-route-by-hand").await;
    let _controller = Controller::of(&world);
    world.start();
    let good = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/route.yaml", &route().to_string()),
        ],
    );
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 30}, {"pause": {}}], "settle": "300ms",
    });
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &second).await;

    let weigh = json!([{"op": "replace", "path": "/spec/rules/0/backendRefs/1/weight", "value": 90}]);
    world.patch(GATEWAY, ROUTES, "web", weigh).await;
    world.wait_object(GATEWAY, ROUTES, "web", "has its shares again", |r| share(r) == Some(30)).await;
    for name in ["web", "web-canary"] {
        let nobody = json!({"spec": {"selector": {"app": "nobody"}}});
        world.patch("v1", "services", name, nobody).await;
        let selects = |s: &Value| s["spec"]["selector"]["app"] == name;
        world.wait_object("v1", "services", name, "selects its pods again", selects).await;
    }
    let told = world.wait_event("shop", "Overwritten").await;
    assert!(told.contains("was changed in the cluster, and traffic goes by it; it is put back"), "{told}");
    let delivery = world.wait_for("shop", Phase::Paused, &second).await;
    assert!(delivery.status.unwrap().failure.is_none());
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
}
