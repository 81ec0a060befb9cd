//! What an analysis measures is what is there: by a real Prometheus that scrapes an app, and by HTTP at the app itself. What is
//! not there, is no number, comes too late or comes from somebody else is never a success.

use crate::a_rollout_goes_step_by_step::{canary, deployed, deployment, image, web};
use crate::support::cluster::wait_until;
use crate::support::daemon::LIMIT;
use crate::support::git::Repo;
use crate::support::git_https::{Access, GitServer};
use crate::support::prometheus::Prometheus;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use windlass::analysis::{Clients, Credentials, Inputs, Reach, measure};
use windlass::api::Delivery;
use windlass::api::analysis::{AnalysisPolicy, Metric, Outcome};
use windlass::api::delivery::Phase;
use windlass::core::analysis::endpoints::Endpoint;
use windlass::core::analysis::{
    Judged, Measurement, Pair, StepKind, Subjects, Variables, Variant, judge, problems, settings,
};

/// The app: what it counts, and what it was sent.
#[derive(Clone, Default)]
struct App {
    scrapes: Arc<Mutex<u64>>,
    sent: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

/// It serves until the test's runtime ends.
async fn serve(app: &App, address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { axum::Json(json!({"status": "ok", "queue": 3})) }))
        .route("/full", get(|| async { axum::Json(json!({"status": "ok", "queue": 30})) }))
        .route("/page", get(|| async { ([(header::CONTENT_TYPE, "text/html")], "<html>Log in</html>") }))
        .route("/login", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/health")]) }))
        .route("/never", get(std::future::pending::<()>))
        .route("/large", get(|| async { vec![b' '; 2 << 20] }))
        .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/gate/{code}", post(gate))
        .with_state(app.clone());
    tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
    address
}

/// Ten requests for stable and for the candidate between any two scrapes, of the candidate's one fails and all are slow.
async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let n = {
        let mut scrapes = app.scrapes.lock().unwrap();
        *scrapes += 1;
        *scrapes
    };
    // With the time they stay for a while, also when a busy machine misses a scrape.
    let now = jiff::Timestamp::now().as_millisecond();
    let mut text = format!(
        "rate{{app=\"web\"}} 0.999 {now}\nrate{{app=\"web-canary\"}} 0.9 {now}\nbelow 0 {now}\ninfinite +Inf {now}\n"
    );
    for (service, failed, slow) in [("web", 0, 0), ("web-canary", n, 10 * n)] {
        let (good, all) = (10 * n - failed, 10 * n);
        let of = format!("namespace=\"shop\",service=\"{service}\"");
        let cluster = format!("envoy_cluster_name=\"shop_{service}_80\"");
        text.push_str(&format!(
            "http_requests_total{{{of},code=\"200\"}} {good}\nhttp_requests_total{{{of},code=\"503\"}} {failed}\n\
             http_request_duration_seconds_bucket{{{of},le=\"0.1\"}} {}\n\
             http_request_duration_seconds_bucket{{{of},le=\"1\"}} {all}\n\
             http_request_duration_seconds_bucket{{{of},le=\"+Inf\"}} {all}\n\
             envoy_cluster_upstream_rq_xx{{{cluster},envoy_response_code_class=\"2\"}} {good}\n\
             envoy_cluster_upstream_rq_xx{{{cluster},envoy_response_code_class=\"5\"}} {failed}\n\
             envoy_cluster_upstream_rq_time_bucket{{{cluster},le=\"100\"}} {}\n\
             envoy_cluster_upstream_rq_time_bucket{{{cluster},le=\"1000\"}} {all}\n\
             envoy_cluster_upstream_rq_time_bucket{{{cluster},le=\"+Inf\"}} {all}\n",
            all - slow,
            all - slow
        ));
    }
    // Who was never asked has counters that stand still, and who only fails has no good request.
    text.push_str("http_requests_total{namespace=\"shop\",service=\"idle\",code=\"200\"} 5\n");
    text.push_str(&format!("http_requests_total{{namespace=\"shop\",service=\"bad\",code=\"500\"}} {n}\n"));
    text
}

async fn gate(
    State(app): State<App>,
    axum::extract::Path(code): axum::extract::Path<u16>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    app.sent.lock().unwrap().push((headers, serde_json::from_slice(&body).unwrap()));
    (StatusCode::from_u16(code).unwrap(), axum::Json(json!({"go": code == 200})))
}

/// A pod whose Service has one port, without a name.
fn pod(at: &SocketAddr) -> Endpoint {
    Endpoint { addresses: [at.ip()].into(), ports: [(String::new(), at.port())].into() }
}

fn inputs(candidate: &str, endpoints: &[SocketAddr]) -> Inputs {
    let variant = |name: &str, endpoints: &[SocketAddr]| Variant {
        workload: name.into(),
        service: name.into(),
        endpoints: endpoints.iter().map(pod).collect(),
        ..Variant::default()
    };
    let pair = Pair {
        stable: variant("web", &endpoints[..endpoints.len().min(1)]),
        candidate: variant(candidate, endpoints),
    };
    let variables = Variables {
        namespace: "shop".into(),
        revision: "main@sha1:abc".into(),
        delivery: "web".into(),
        step: 2,
        pairs: vec![pair],
    };
    Inputs { variables, credentials: BTreeMap::new() }
}

/// Measures what a manifest says, once.
async fn measured(metric: &Value, inputs: &Inputs) -> (Measurement, Judged) {
    let policy: AnalysisPolicy = serde_json::from_value(json!({"metrics": [metric]})).unwrap();
    assert_eq!(problems(&policy, StepKind::Other, &Subjects::default()), Vec::<String>::new());
    let metric: &Metric = &policy.metrics[0];
    let clients = Clients::new(Reach { loopback: true });
    let measurement = measure(&clients, metric, &settings(&policy, metric), inputs).await;
    let judged = judge(metric, &measurement);
    (measurement, judged)
}

async fn outcome(metric: &Value, inputs: &Inputs) -> (Outcome, String) {
    let (_, judged) = measured(metric, inputs).await;
    (judged.outcome, judged.message)
}

/// Measures until it comes to this, and answers what it came to.
async fn until(what: &str, metric: &Value, inputs: &Inputs, wanted: Outcome) -> Judged {
    wait_until(what, LIMIT, || async {
        let (_, judged) = measured(metric, inputs).await;
        if judged.outcome == wanted { Ok(judged) } else { Err(format!("{judged:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_real_prometheus_is_asked() {
    let app = App::default();
    let target = serve(&app, "127.0.0.1:0").await;
    let mut prometheus = Prometheus::start(target).await;
    let address = prometheus.address();
    let canary = inputs("web-canary", &[]);
    let query = |query: &str, rule: (&str, &str)| json!({"name": "m", "timeout": "1m", rule.0: rule.1, "prometheus": {"address": address, "query": query}});
    let least = ("success", "result >= 0.99");

    let good = query("rate{app=\"{{ stable }}\"}", least);
    let judged = until("the first scrape", &good, &canary, Outcome::Success).await;
    assert_eq!(judged.value.as_deref(), Some("0.999"));
    let bad = query("rate{app='{{ candidate }}'}", least);
    assert_eq!(outcome(&bad, &canary).await, (Outcome::Failure, "result >= 0.99 does not hold".into()));
    let relative = query("rate{app='{{ variant }}'}", ("success", "candidate >= stable * 0.95"));
    let (_, judged) = measured(&relative, &canary).await;
    assert_eq!((judged.outcome, judged.value.as_deref()), (Outcome::Failure, Some("0.9 (stable 0.999)")));
    let close = query("rate{app='{{ variant }}'}", ("success", "candidate >= stable * 0.9"));
    assert_eq!(outcome(&close, &canary).await.0, Outcome::Success);

    // Nothing of this is a success, whichever way round the rule is written.
    for rule in
        [least, ("failure", "result < 0.99"), ("failure", "result > 0.99"), ("success", "!(result < 0.0)")]
    {
        for (text, expected, said) in [
            ("gone{app='{{ candidate }}'}", Outcome::NoData, "the query finds no series"),
            ("below / below", Outcome::NoData, "the value is NaN"),
            ("infinite", Outcome::NoData, "the value is infinite"),
            ("-infinite", Outcome::NoData, "the value is infinite"),
            ("rate", Outcome::Error, "Prometheus: the query finds 2 series where one value is needed"),
            ("rate[1m]", Outcome::Error, "Prometheus: the query comes to a matrix"),
            ("'1'", Outcome::Error, "Prometheus: the query comes to a string"),
            ("rate{", Outcome::Error, "Prometheus: it answers 400 (bad_data): "),
            (
                "sum(rate) by (app) * on (app) rate{a='1'} or nothing(1)",
                Outcome::Error,
                "Prometheus: it answers 400",
            ),
        ] {
            let (outcome, message) = outcome(&query(text, rule), &canary).await;
            assert_eq!(outcome, expected, "{text}: {message}");
            assert!(message.starts_with(said), "{text}: {message}");
        }
    }

    // Slow: it takes the connection and says nothing.
    prometheus.signal("STOP");
    let said = format!("Prometheus at {address}: no answer within 1s");
    let mut hasty = good.clone();
    hasty["timeout"] = json!("1s");
    assert_eq!(outcome(&hasty, &canary).await, (Outcome::Error, said));
    prometheus.signal("CONT");
    until("it answers again", &good, &canary, Outcome::Success).await;

    prometheus.stop();
    let said = format!("Prometheus at {address}: nobody listens there: the connection was refused");
    assert_eq!(outcome(&good, &canary).await, (Outcome::Error, said));
}

#[tokio::test]
async fn a_candidate_that_does_worse_than_stable_is_taken_back_where_that_is_what_counts() {
    let app = App::default();
    let target = serve(&app, "127.0.0.1:0").await;
    let prometheus = Prometheus::start(target).await;
    let address = prometheus.address();
    let compared = |success: &str| {
        let mut policy = canary(json!([{"weight": 30}, {"analysis": {"count": 1}}]));
        policy["analysis"] = json!({
            "interval": "1s", "initialDelay": "1s", "failureLimit": 0,
            "metrics": [{
                "name": "rate", "timeout": "1m", "success": success,
                "prometheus": {"address": address, "query": "rate{app='{{ variant }}'}"},
            }],
        });
        json!({"rollout": policy})
    };
    let is_judged = |success: &'static str| {
        move |d: &Delivery| {
            let analysis = d.spec.template.rollout.as_ref().and_then(|r| r.analysis.as_ref());
            analysis.is_some_and(|a| a.metrics[0].success.as_deref() == Some(success))
        }
    };
    // 0.9 of its requests are well, and 0.999 of stable's.
    let (world, _) = deployed("relative", "app: web", json!({})).await;
    let close = "candidate >= stable * 0.9";
    world.deliver("shop", compared(close)).await;
    world.wait("shop", "is judged by stable", is_judged(close)).await;
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Ready, &second).await;

    let near = "candidate >= stable * 0.95";
    world.deliver("shop", compared(near)).await;
    world.wait("shop", "is judged by stable more strictly", is_judged(near)).await;
    let third = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    let held = world.wait_for("shop", Phase::Held, &third).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, second);
    let problem = held.held.unwrap().problem;
    assert_eq!(problem.reason, "AnalysisFailed", "{problem:?}");
    for part in ["metric rate", near, "0.9 (stable 0.999)"] {
        assert!(problem.message.contains(part), "{part}: {problem:?}");
    }
    assert_eq!(image(&deployment(&world, "web").await), "registry.example.com/web:ok2");
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
}

#[tokio::test]
async fn ready_made_queries_say_what_the_app_counted() {
    let app = App::default();
    let target = serve(&app, "127.0.0.1:0").await;
    let prometheus = Prometheus::start(target).await;
    let address = prometheus.address();
    let metric = |builtin: &str, provider: &str| {
        json!({"name": "m", "prometheus":
            {"address": address, "builtin": builtin, "provider": provider, "window": "10s"}, "timeout": "1m"})
    };
    for provider in ["envoy", "http"] {
        let rate = metric("request-success-rate", provider);
        let stable = until("rates of stable", &rate, &inputs("web", &[]), Outcome::Success).await;
        assert_eq!(stable.value.as_deref(), Some("1"), "{provider}");
        let judged =
            until("rates of the candidate", &rate, &inputs("web-canary", &[]), Outcome::Failure).await;
        assert_eq!(judged.value.as_deref(), Some("0.9"), "{provider}");

        let duration = metric("request-duration", provider);
        let stable = until("times of stable", &duration, &inputs("web", &[]), Outcome::Success).await;
        assert_eq!(stable.value.as_deref(), Some("0.099"), "{provider}: 99 % of what took up to 0.1 s");
        let judged =
            until("times of the candidate", &duration, &inputs("web-canary", &[]), Outcome::Failure).await;
        assert_eq!(judged.value.as_deref(), Some("0.991"), "{provider}: between 0.1 and 1 s");

        let mut relative = metric("request-duration", provider);
        relative["success"] = json!("candidate <= stable * 1.2");
        let judged = until("both times", &relative, &inputs("web-canary", &[]), Outcome::Failure).await;
        assert_eq!(judged.value.as_deref(), Some("0.991 (stable 0.099)"), "{provider}");

        for nobody in [rate, duration] {
            let (outcome, message) = outcome(&nobody, &inputs("nobody", &[])).await;
            assert_eq!(outcome, Outcome::NoData);
            assert!(message.starts_with("no requests were "), "{message}");
        }
    }
    // No traffic is no success, and nothing but failures is no lack of data.
    let rate = metric("request-success-rate", "http");
    let said = "no requests were counted in the window (the value is NaN)";
    wait_until("counters that stand still", LIMIT, || async {
        let idle = outcome(&rate, &inputs("idle", &[])).await;
        if idle == (Outcome::NoData, said.to_owned()) { Ok(()) } else { Err(format!("{idle:?}")) }
    })
    .await;
    let judged = until("only failures", &rate, &inputs("bad", &[]), Outcome::Failure).await;
    assert_eq!(judged.value.as_deref(), Some("0"));
}

#[tokio::test]
async fn the_app_is_checked_at_each_endpoint() {
    let app = App::default();
    let (one, other) = (serve(&app, "127.0.0.1:0").await, serve(&app, "127.0.0.2:0").await);
    let closed = {
        let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let both = inputs("web-canary", &[one, other]);
    let check = |path: &str, rule: Option<&str>| {
        let timeout = if path == "/never" { "1s" } else { "1m" };
        let mut metric = json!({"name": "m", "timeout": timeout, "http": {"path": path}});
        if let Some(rule) = rule {
            metric["success"] = json!(rule);
        }
        metric
    };
    let small = Some("result.status == 'ok' && result.queue < 10");
    let (measurement, judged) = measured(&check("/health", small), &both).await;
    assert_eq!((measurement.candidate.len(), judged.outcome), (2, Outcome::Success));
    assert_eq!(outcome(&check("/health", None), &both).await, (Outcome::Success, String::new()));
    let relative = check("/health", Some("candidate.queue <= stable.queue"));
    assert_eq!(outcome(&relative, &both).await.0, Outcome::Success);

    for (path, rule, said) in [
        ("/full", small, "result.status == 'ok' && result.queue < 10 does not hold"),
        ("/broken", None, "it answers 500"),
        ("/gone", None, "it answers 404"),
        ("/login", None, "it answers 302, a redirect, which is not followed; does it want a login?"),
        ("/page", small, "it answers 200 with text/html that is no JSON"),
        ("/never", None, "no answer within 1s"),
        ("/large", None, "the answer is larger than 1048576 bytes"),
    ] {
        assert_eq!(
            outcome(&check(path, rule), &both).await,
            (Outcome::Failure, format!("{one}: {said}")),
            "{path}"
        );
    }
    let gone = inputs("web-canary", &[one, other, closed]);
    let said = format!("{closed}: nobody listens there: the connection was refused");
    assert_eq!(outcome(&check("/health", None), &gone).await, (Outcome::Failure, said));
    let nobody = inputs("web-canary", &[]);
    let said = "web-canary has no ready endpoint".to_owned();
    assert_eq!(outcome(&check("/health", None), &nobody).await, (Outcome::NoData, said));

    // An address of its own: whoever does not let us connect is no failure of the app.
    let url = |url: String| json!({"name": "m", "timeout": "1m", "http": {"url": url, "status": [302]}});
    assert_eq!(
        outcome(&url(format!("http://{one}/login?to={{{{ revision }}}}")), &both).await.0,
        Outcome::Success
    );
    assert_eq!(outcome(&url(format!("http://{one}/health")), &both).await.0, Outcome::Failure);
    assert_eq!(outcome(&url(format!("http://{closed}/")), &both).await.0, Outcome::Error);
    let (outcome, message) = outcome(&url("http://nobody.invalid/".into()), &both).await;
    assert_eq!(outcome, Outcome::Error, "{message}");
}

#[tokio::test]
async fn somebody_else_may_decide() {
    let app = App::default();
    let at = serve(&app, "127.0.0.1:0").await;
    let hook = |code: u16, rule: Option<&str>| {
        let mut metric = json!({"name": "gate", "timeout": "1m", "webhook": {"url": format!("http://{at}/gate/{code}"),
            "metadata": {"team": "shop"}, "secretRef": {"name": "auth"}}});
        if let Some(rule) = rule {
            metric["success"] = json!(rule);
        }
        metric
    };
    let mut with = inputs("web-canary", &[]);
    let secret = |pairs: &[(&str, &str)]| {
        let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        Credentials::from_secret(&data).map(Arc::new).map_err(|e| e.to_string())
    };
    with.credentials.insert("auth".into(), secret(&[("bearerToken", "t0ken")]));
    for (code, rule, expected) in [
        (200, None, Outcome::Success),
        (200, Some("result.go"), Outcome::Success),
        (204, Some("result.go"), Outcome::Error),
        (202, Some("result.go"), Outcome::Failure),
        (202, None, Outcome::Success),
        (400, None, Outcome::Failure),
        (409, None, Outcome::Failure),
        (500, None, Outcome::Failure),
        (302, None, Outcome::Error),
        (401, None, Outcome::Error),
        (404, None, Outcome::Error),
        (429, None, Outcome::Error),
        (503, None, Outcome::Error),
    ] {
        assert_eq!(outcome(&hook(code, rule), &with).await.0, expected, "{code} {rule:?}");
    }
    let (headers, body) = app.sent.lock().unwrap()[0].clone();
    assert_eq!(headers[header::AUTHORIZATION], "Bearer t0ken");
    let wanted = json!({"delivery": "web", "namespace": "shop", "revision": "main@sha1:abc", "step": 2, "metric": "gate",
        "stable": "web", "candidate": "web-canary", "variant": "web-canary", "service": "web-canary", "metadata": {"team": "shop"}});
    assert_eq!(body, wanted);

    with.credentials.insert("auth".into(), secret(&[("token", "t0ken")]));
    let (outcome, message) = outcome(&hook(200, None), &with).await;
    assert_eq!(outcome, Outcome::Error);
    assert_eq!(message, "Secret auth: it has none of bearerToken, username with password, and ca.crt");
}

#[tokio::test]
async fn certificates_are_looked_at_and_credentials_are_not_told() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Basic("ada", "s3cret+/="));
    let url = format!("{}/info/refs?service=git-upload-pack", server.url(Repo::NAME));
    let metric = json!({"name": "m", "timeout": "1m", "http": {"url": url, "secretRef": {"name": "auth"}}});
    let with = |pairs: &[(&str, &str)]| {
        let mut with = inputs("web-canary", &[]);
        let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        with.credentials
            .insert("auth".into(), Credentials::from_secret(&data).map(Arc::new).map_err(|e| e.to_string()));
        with
    };
    let (ca, word) = (server.ca(), "s3cret+/=");
    let trusted = with(&[("username", "ada"), ("password", word), ("ca.crt", &ca)]);
    assert_eq!(outcome(&metric, &trusted).await, (Outcome::Success, String::new()));
    let (outcome_, message) = outcome(&metric, &with(&[("username", "ada"), ("password", word)])).await;
    assert_eq!(outcome_, Outcome::Error);
    assert!(message.contains("certificate") && !message.contains("s3cret"), "{message}");
    let wrong = with(&[("username", "ada"), ("password", "other"), ("ca.crt", &ca)]);
    assert_eq!(outcome(&metric, &wrong).await, (Outcome::Failure, "it answers 401".into()));
}

#[tokio::test]
async fn the_daemons_own_machine_is_not_asked_by_name_either() {
    let app = App::default();
    let at = serve(&app, "127.0.0.1:0").await;
    let policy: AnalysisPolicy = serde_json::from_value(
        json!({"metrics": [{"name": "m", "http": {"url": format!("http://localhost:{}/health", at.port())}}]}),
    )
    .unwrap();
    let metric = &policy.metrics[0];
    for (loopback, expected) in [(true, Outcome::Success), (false, Outcome::Error)] {
        let clients = Clients::new(Reach { loopback });
        let judged =
            judge(metric, &measure(&clients, metric, &settings(&policy, metric), &inputs("c", &[])).await);
        assert_eq!(judged.outcome, expected, "{}", judged.message);
        if !loopback {
            assert!(
                judged.message.contains("it is an address of the daemon's own machine"),
                "{}",
                judged.message
            );
        }
    }
}
