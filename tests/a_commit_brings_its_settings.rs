//! What a commit says of its own delivery, in `windlass.yaml`, is in force for this very commit: neither is taken without the
//! other.

use crate::a_rollout_goes_step_by_step::{canary, deployment, image, service, web};
use crate::support::daemon::World;
use crate::support::faults::{Fault, Faults};
use serde_json::json;
use windlass::api::delivery::Phase;
use windlass::api::names;

#[tokio::test]
async fn and_is_not_deployed_before_they_are_written() {
    let mut world = World::stopped("settings").await;
    let faults = Faults::before(world.space.cluster).await;
    world.arguments = vec!["--kubeconfig".into(), faults.kubeconfig.to_str().unwrap().into()];
    world.start();
    let good = world
        .commit("Good", &[("shop/web.yaml", &web("ok", 2)), ("shop/service.yaml", &service("app: web"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    faults.set(|request| {
        let spec = request.method() == "PATCH" && request.uri().path().ends_with("/deliveries/shop");
        spec.then_some(Fault::Status(500, None))
    });
    let settings = json!({"rollout": canary(json!([{"weight": 30}, {"pause": {}}]))}).to_string();
    let next =
        world.commit("Step by step", &[("shop/web.yaml", &web("ok2", 2)), ("shop/windlass.yaml", &settings)]);
    world.wait_repository("DeliveriesNotWritten").await;
    // Looked at for another reason.
    world.annotate("shop", names::RECONCILE_REQUEST, "now").await;
    let looked = world
        .wait("shop", "looked at", |d| {
            d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("now"))
        })
        .await;
    let status = looked.status.unwrap();
    assert_eq!((status.phase, status.effective.unwrap().commit), (Phase::Ready, good.clone()));
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");

    faults.set(|_| None);
    let delivery = world.wait_for("shop", Phase::Paused, &next).await;
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok");
    assert_eq!(image(&deployment(&world, "web-canary").await), "registry.example.com/web:ok2");
}
