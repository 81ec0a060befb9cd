//! On a real node: a candidate that is shown copies of requests gets them, and whatever it answers, no client ever sees it.

use crate::support::cli::windlass_with;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, condition};
use crate::support::load::Load;
use crate::support::plane::{self, Plane, say};
use crate::support::shop::{RATE, Shop, none_failed};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

/// In the container of a release of which every answer is a 500.
fn always_fails() -> Value {
    json!({"env": [{"name": "ERROR_SHARE", "value": "1"}]})
}

fn mirrored(steps: Value, metrics: Value) -> Value {
    json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": steps, "settle": "1s",
        "analysis": {
            "interval": "2s", "initialDelay": "4s", "failureLimit": 1, "consecutiveErrorLimit": 30,
            "metrics": metrics,
        },
    })
}

/// How many requests the pods behind a Service say that they answered with this status.
async fn answered(shop: &Shop, service: &str, code: u16) -> Result<f64, String> {
    let namespace = &shop.world.space.name;
    let counted = format!(
        "sum(http_requests_total{{namespace=\"{namespace}\",service=\"{service}\",code=\"{code}\"}})"
    );
    shop.plane.value(&counted).await
}

/// Clients had answers of one version alone, and all of them good ones.
async fn only(shop: &Shop, load: Load, version: &str) {
    let counts = load.stop();
    none_failed(shop, &counts).await;
    assert_eq!(counts.of(version), counts.requests, "{counts:?}");
}

async fn plane_of(test: &str) -> Option<&'static Plane> {
    plane::shared(&format!("a_mirror_shows_requests_and_hides_answers::{test}"))
}

#[tokio::test]
async fn a_candidate_that_only_fails_is_shown_requests_and_no_client_notices() {
    let Some(plane) = plane_of("only_fails").await else { return };
    let steps = json!([{"mirror": {}}, {"pause": {}}]);
    let shop = Shop::new(plane, "mirror", mirrored(steps, json!([]))).await;
    let before = shop.route().await;
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let bad = shop.commit_with("bad", always_fails());
    shop.awaits_a_person(&bad).await;
    let route = shop.route().await;
    let rule = &route["spec"]["rules"][0];
    let copies = &rule["filters"][0]["requestMirror"]["backendRef"]["name"];
    assert_eq!((copies, &rule["filters"][1]), (&json!("web-canary"), &Value::Null), "{route}");
    let weight = |name: &str| {
        let refs = rule["backendRefs"].as_array().unwrap();
        refs.iter().find(|r| r["name"] == name).unwrap()["weight"].clone()
    };
    assert_eq!((weight("web"), weight("web-canary")), (json!(100), json!(0)), "{route}");
    // They are real ones, as many as clients send, not one now and then.
    let shown = wait_until("the candidate was shown 500 requests", LIMIT, || async {
        let shown = answered(&shop, "web-canary", 500).await?;
        if shown >= 500.0 { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    let asked = windlass_with(&plane.cluster.kubeconfig, &["abort", "shop", "-n", &shop.world.space.name]);
    assert_eq!(asked.code, 0, "{asked:?}");
    shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    assert_eq!(shop.route().await["spec"], before["spec"]);
    say(&format!("mirror: the candidate answered {shown} copies with 500"));
    only(&shop, load, "v1").await;
}

#[tokio::test]
async fn what_it_answers_to_copies_decides_whether_it_meets_a_client() {
    let Some(plane) = plane_of("decides").await else { return };
    let rate = json!([{"name": "success-rate", "prometheus": {
        "address": plane.prometheus(), "builtin": "request-success-rate", "window": "10s",
    }}]);
    let steps = json!([{"mirror": {}}, {"analysis": {"count": 2}}, {"weight": 50}, {"pause": "2s"}]);
    let shop = Shop::new(plane, "mirror-decides", mirrored(steps, rate)).await;
    let load = Load::start(plane, &shop.host, RATE, &[]);
    let next = shop.commit("v2");
    shop.world.wait_for("shop", Phase::Ready, &next).await;
    shop.is_alone().await;
    load.wait("the new version answers", |c| c.of("v2") > 0).await;
    none_failed(&shop, &load.stop()).await;

    let load = Load::start(plane, &shop.host, RATE, &[]);
    let bad = shop.commit_with("bad", always_fails());
    let held = shop.world.wait_for("shop", Phase::Held, &bad).await;
    shop.is_alone().await;
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("success-rate"), "{message}");
    only(&shop, load, "v2").await;
}
