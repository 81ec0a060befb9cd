//! The tasks beside the rounds: when they measure, what they show, how they end. Time stands still unless all wait for it.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::analysis::{AnalysisPolicy, MetricRun, Outcome};
use crate::core::analysis::{StepKind, Variant, Verdict, verdict};
use ::http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tokio::time::Instant;
use tower::BoxError;

/// A Prometheus that answers one number, and what it was asked.
#[derive(Clone, Default)]
struct Teller {
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<(Duration, String)>>>,
}

impl Teller {
    fn says(&self, value: &str) {
        *self.answer.lock().unwrap() = value.into();
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn clients(&self, start: Instant) -> Clients {
        let this = self.clone();
        Clients::from_service(tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move {
                let body = request.into_body().collect().await?.to_bytes();
                let query =
                    url::form_urlencoded::parse(&body).find(|(k, _)| k == "query").unwrap().1.into_owned();
                this.asked.lock().unwrap().push((start.elapsed(), query));
                let value = this.answer.lock().unwrap().clone();
                if value == "hang" {
                    std::future::pending::<()>().await;
                }
                let result =
                    if value.is_empty() { json!([]) } else { json!([{"metric": {}, "value": [1, value]}]) };
                let answer = json!({"status": "success", "data": {"resultType": "vector", "result": result}});
                Ok::<_, BoxError>(Response::new(Body::from(answer.to_string().into_bytes())))
            }
        }))
    }
}

fn started() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn clock(start: Instant) -> impl Fn() -> Timestamp + Send + Sync + Clone + 'static {
    move || started() + start.elapsed()
}

fn order(policy: serde_json::Value, key: &str) -> Order {
    let variant = |name: &str| Variant { workload: name.into(), service: name.into(), ..Variant::default() };
    let pair = Pair { stable: variant("web"), candidate: variant("web-canary") };
    let variables = Variables { namespace: "shop".into(), pairs: vec![pair], ..Variables::default() };
    Order {
        key: key.into(),
        policy: serde_json::from_value::<AnalysisPolicy>(policy).unwrap(),
        kind: StepKind::Analysis,
        since: started(),
        runs: Vec::new(),
        inputs: Inputs { variables, ..Inputs::default() },
    }
}

fn policy() -> serde_json::Value {
    json!({"interval": "10s", "count": 3, "metrics": [
        {"name": "rate", "prometheus": {"address": "http://p:9090", "query": "rate{app=\"{{ variant }}\"}"},
         "success": "result >= 0.99"}]})
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_step_is_measured_until_it_has_passed() {
    let (start, teller, woken) = (Instant::now(), Teller::default(), Arc::new(AtomicU32::new(0)));
    let clients = teller.clients(start);
    let (mut running, now) = (Running::default(), clock(start));
    let wake = || {
        let woken = woken.clone();
        move || {
            woken.fetch_add(1, SeqCst);
        }
    };
    teller.says("0.999");
    running.ensure(&clients, order(policy(), "a/1"), now.clone(), wake());
    assert_eq!(running.seen().unwrap().runs, [MetricRun { name: "rate".into(), ..MetricRun::default() }]);
    pass(9).await;
    assert_eq!(teller.asked(), 0, "the initial delay is an interval");
    pass(13).await;
    running.ensure(&clients, order(policy(), "a/1"), now.clone(), wake());
    assert_eq!(
        (teller.asked(), woken.load(SeqCst)),
        (2, 0),
        "two of three decide nothing, and ensuring starts nothing anew"
    );
    pass(10).await;
    assert_eq!((teller.asked(), woken.load(SeqCst)), (3, 1));
    let seen = running.seen().unwrap();
    let of = order(policy(), "");
    assert_eq!(verdict(&of.policy, &seen.runs, of.kind, of.since, now()), Verdict::Passed);
    assert_eq!(
        (seen.key.as_str(), seen.runs[0].succeeded, seen.runs[0].value.as_deref()),
        ("a/1", 3, Some("0.999"))
    );
    assert_eq!(teller.asked.lock().unwrap()[0].1, "rate{app=\"web-canary\"}");

    // A failure is shown at once, and a new key ends the old measurements.
    teller.says("0.5");
    pass(10).await;
    assert_eq!((running.seen().unwrap().runs[0].failed, woken.load(SeqCst)), (1, 2));
    let asked = teller.asked();
    running.ensure(&clients, Order { since: now(), ..order(policy(), "a/2") }, now.clone(), wake());
    assert_eq!(running.seen().unwrap().runs[0].failed, 0);
    pass(9).await;
    assert_eq!(teller.asked(), asked);
    running.end();
    pass(60).await;
    assert_eq!((teller.asked(), running.seen()), (asked, None));
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_status_says() {
    let (start, teller) = (Instant::now(), Teller::default());
    let (mut running, now) = (Running::default(), clock(start));
    teller.says("0.5");
    pass(100).await;
    let run = MetricRun {
        name: "rate".into(),
        failed: 3,
        outcome: Some(Outcome::Failure),
        at: Some((started() + Duration::from_secs(95)).to_string()),
        ..MetricRun::default()
    };
    let of = Order { runs: vec![run], ..order(policy(), "a") };
    running.ensure(&teller.clients(start), of.clone(), now.clone(), || {});
    pass(4).await;
    assert_eq!(teller.asked(), 0, "it was measured five seconds ago");
    pass(3).await;
    let seen = running.seen().unwrap();
    assert_eq!((teller.asked(), seen.runs[0].failed), (1, 4));
    assert!(matches!(verdict(&of.policy, &seen.runs, of.kind, of.since, now()), Verdict::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_an_error_and_holds_up_no_other_metric() {
    let (start, hangs, well) = (Instant::now(), Teller::default(), Teller::default());
    let (mut running, now) = (Running::default(), clock(start));
    hangs.says("hang");
    well.says("1");
    let both = (hangs.clients(start), well.clients(start));
    let of = order(policy(), "a");
    let (metric, of_metric) =
        (&of.policy.metrics[0], crate::core::analysis::settings(&of.policy, &of.policy.metrics[0]));
    let (late, fine) = tokio::join!(
        measure(&both.0, metric, &of_metric, &of.inputs),
        measure(&both.1, metric, &of_metric, &of.inputs)
    );
    assert_eq!(fine, Measurement::of(Reading::Number(1.0)));
    let said = "Prometheus at http://p:9090: no answer within 10s";
    assert_eq!(late, Measurement::of(Reading::Error(said.into())));

    running.ensure(&both.0, of.clone(), now.clone(), || {});
    // Ten seconds each until there is no answer: five of them one after the other, the first after an interval and its spread.
    pass(65).await;
    let seen = running.seen().unwrap();
    let Verdict::Paused(problem) = verdict(&of.policy, &seen.runs, of.kind, of.since, now()) else {
        unreachable!()
    };
    assert_eq!(problem.reason, "AnalysisError");
    hangs.says("1");
    pass(15).await;
    let seen = running.seen().unwrap();
    let went_on = verdict(&of.policy, &seen.runs, of.kind, of.since, now());
    assert!(matches!(went_on, Verdict::Running { .. }), "{went_on:?}");
}

#[tokio::test(start_paused = true)]
async fn stable_is_asked_only_when_a_rule_names_it() {
    let (start, teller) = (Instant::now(), Teller::default());
    let clients = teller.clients(start);
    teller.says("2");
    let of = order(policy(), "a");
    let mut metric = of.policy.metrics[0].clone();
    metric.success = Some("candidate <= stable * 1.2".into());
    let settings = crate::core::analysis::settings(&of.policy, &metric);
    let measured = measure(&clients, &metric, &settings, &of.inputs).await;
    assert_eq!(measured.stable, Some(Reading::Number(2.0)));
    let mut asked: Vec<String> = teller.asked.lock().unwrap().iter().map(|(_, q)| q.clone()).collect();
    asked.sort();
    assert_eq!(asked, ["rate{app=\"web\"}", "rate{app=\"web-canary\"}"]);
    // What cannot be asked asks nobody.
    metric.workload = Some("db".into());
    let measured = measure(&clients, &metric, &settings, &of.inputs).await;
    assert_eq!(
        measured,
        Measurement::of(Reading::Error("workload db is none of those that are rolled out".into()))
    );
    metric.workload = None;
    metric.prometheus.as_mut().unwrap().secret_ref =
        Some(crate::api::repository::LocalRef { name: "auth".into() });
    let measured = measure(&clients, &metric, &settings, &of.inputs).await;
    assert_eq!(measured, Measurement::of(Reading::Error("Secret auth was not read".into())));
    assert_eq!(teller.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_that_begin_at_once_are_spread_and_wake_nobody() {
    let (start, teller, woken) = (Instant::now(), Teller::default(), Arc::new(AtomicU32::new(0)));
    let clients = teller.clients(start);
    teller.says("1");
    let mut policy = policy();
    policy["count"] = json!(1000);
    let all: Vec<Running> = (0..200)
        .map(|n| {
            let (mut running, woken) = (Running::default(), woken.clone());
            let wake = move || {
                woken.fetch_add(1, SeqCst);
            };
            running.ensure(&clients, order(policy.clone(), &n.to_string()), clock(start), wake);
            running
        })
        .collect();
    pass(62).await;
    let asked = teller.asked.lock().unwrap().clone();
    let first: Vec<Duration> = asked[..200].iter().map(|(at, _)| *at).collect();
    assert!(first.iter().all(|at| (10..=11).contains(&at.as_secs())), "{first:?}");
    assert!(
        first.iter().collect::<std::collections::BTreeSet<_>>().len() > 100,
        "they are not all asked in one moment"
    );
    assert_eq!((asked.len(), woken.load(SeqCst)), (1200, 0));
    assert!(all.iter().all(|running| running.live()[0].succeeded == 6));
    assert!(all.iter().all(|running| running.seen().unwrap().runs[0].succeeded == 0));
    drop(all);
    pass(60).await;
    assert_eq!(teller.asked(), 1200);
}
