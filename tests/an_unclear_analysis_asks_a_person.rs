//! A measurement that is neither success nor failure is borne so often as `inconclusiveLimit` says. Beyond it the rollout stays
//! where it is until a person decides, or until it fails after all.

use crate::a_rollout_goes_step_by_step::{canary, deployed, deployment, image, web};
use crate::support::cli::windlass;
use crate::support::daemon::World;
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use windlass::api::Delivery;
use windlass::api::delivery::{Outcome, Phase};

/// Who is asked how well the candidate does: a list of answers, of which the last one stays.
#[derive(Clone, Default)]
pub struct Gauge {
    answers: Arc<Mutex<Vec<f64>>>,
    /// Where it is asked.
    pub url: String,
}

impl Gauge {
    /// It serves until the test's runtime ends.
    pub async fn new() -> Self {
        let mut gauge = Gauge::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gauge.url = format!("http://{}/", listener.local_addr().unwrap());
        let answers = Arc::clone(&gauge.answers);
        let answer = move || async move {
            let mut answers = answers.lock().unwrap();
            let value = answers[0];
            if answers.len() > 1 {
                answers.remove(0);
            }
            axum::Json(json!({"good": value}))
        };
        let pages = axum::Router::new().route("/", get(answer));
        tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
        gauge
    }

    /// What it answers from now on.
    pub fn answer(&self, answers: &[f64]) {
        *self.answers.lock().unwrap() = answers.to_vec();
    }

    /// The metric `gauge`: good from 0.9, bad below 0.5, and in between nobody knows.
    pub fn metric(&self) -> Value {
        json!({
            "name": "gauge", "timeout": "60s", "http": {"url": self.url},
            "success": "result.good >= 0.9", "failure": "result.good < 0.5",
        })
    }
}

/// Whether it is paused because nobody knows.
fn is_unclear(delivery: &Delivery) -> bool {
    let rollout = delivery.status.as_ref().and_then(|s| s.attempt.as_ref()?.rollout.as_ref());
    rollout.and_then(|r| r.paused.as_ref()).is_some_and(|p| p.reason == "AnalysisInconclusive")
}

/// Waits until nobody knows of a commit, whose candidate stays.
async fn unclear(world: &World, commit: &str, tag: &str) {
    let paused = world
        .wait("shop", &format!("nobody knows of {commit}"), |d| {
            let of = d.status.as_ref().and_then(|s| s.attempt.as_ref()).map(|a| a.revision.commit.as_str());
            of == Some(commit) && is_unclear(d)
        })
        .await
        .status
        .unwrap();
    assert_eq!(paused.phase, Phase::Paused);
    let problem = paused.attempt.unwrap().rollout.unwrap().paused.unwrap();
    let told = "metric gauge was neither success nor failure 3 times; the limit is 2";
    assert!(problem.message.starts_with(told), "{}", problem.message);
    assert_eq!(image(&deployment(world, "web-canary").await), format!("registry.example.com/web:{tag}"));
}

#[tokio::test]
async fn some_are_borne_more_stop_it_and_a_person_or_a_failure_ends_that() {
    let gauge = Gauge::new().await;
    let mut rollout = canary(json!([{"weight": 30}, {"analysis": {"count": 2}}]));
    rollout["analysis"] = json!({
        "interval": "1s", "initialDelay": "1s", "failureLimit": 2, "inconclusiveLimit": 2, "metrics": [gauge.metric()],
    });
    let (world, _) = deployed("unclear", "app: web", rollout).await;

    // As many as are borne.
    gauge.answer(&[0.7, 0.7, 0.95]);
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    let told = world.events("shop").await;
    assert!(told.iter().all(|(reason, _)| reason != "AnalysisInconclusive"), "{told:?}");

    // One more. A better one does not take back that nobody knew.
    gauge.answer(&[0.7, 0.7, 0.7, 0.95]);
    let third = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    unclear(&world, &third, "ok3").await;
    let asked = windlass(&world.space, &["promote", "--full", "--wait", "shop", "-n", &world.space.name]);
    assert_eq!(asked.code, 0, "{asked:?}");
    world.wait_for("shop", Phase::Ready, &third).await;

    // What is bad is bad all the same.
    gauge.answer(&[0.7, 0.7, 0.7, 0.95]);
    let fourth = world.commit("Fourth", &[("shop/web.yaml", &web("ok4", 2))]);
    unclear(&world, &fourth, "ok4").await;
    gauge.answer(&[0.1]);
    let held = world.wait_for("shop", Phase::Held, &fourth).await.status.unwrap();
    assert_eq!(held.held.unwrap().problem.reason, "AnalysisFailed");
    assert_eq!(held.effective.unwrap().commit, third);
    assert!(held.history.iter().any(|h| h.revision.commit == third && h.outcome == Outcome::Deployed));
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}
