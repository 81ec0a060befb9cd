//! While a rollout waits, somebody gives the candidate another share in a route that is not in Git: the step's shares are written
//! again, also where the write meets another one or a server that does not answer, and nothing more happens to the route.

use crate::support::cluster::wait_until;
use crate::support::daemon::World;
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
    let faults = Faults::before(world.space.cluster).await;
    world.arguments = vec!["--kubeconfig".into(), faults.kubeconfig.to_str().unwrap().into()];
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
