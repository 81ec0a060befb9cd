//! The gate between a daemon and the API server: every request and every event passes it, and there it is decided what
//! becomes of it.

use super::history::{Fault, Lag};
use super::model::{Answer, Request as Asked, Watch};
use super::oracle::{Moment, Promise, Violation, violated};
use super::run::HINDERED;
use super::world::{Life, World};
use axum::body::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tower::BoxError;

/// A watch that was asked for ends by itself after this time, as the API server ends it.
const WATCH: Duration = Duration::from_secs(290);

/// Carries the requests of one life of a daemon.
#[derive(Clone)]
pub struct Gate {
    pub world: World,
    pub life: Arc<Life>,
}

/// A request, read in full.
#[derive(Clone, Debug)]
pub struct Call {
    pub number: u32,
    pub method: String,
    pub path: String,
    pub content_type: String,
    pub user: Option<String>,
    pub body: Vec<u8>,
}

impl Call {
    /// The path without what is asked for.
    pub fn place(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    fn asks(&self, what: &str) -> bool {
        self.path.split_once('?').is_some_and(|(_, query)| query.split('&').any(|q| q == what))
    }

    /// Whether it asks for a watch.
    pub fn is_watch(&self) -> bool {
        self.asks("watch=true")
    }

    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        self.method != "GET" && !self.asks("dryRun=All")
    }

    /// Whether it is about who works, and about nothing else.
    fn is_about_lease(&self) -> bool {
        self.place().contains("/leases")
    }

    /// How it is told.
    fn told(&self) -> String {
        let what = match self.method.as_str() {
            _ if self.is_watch() => "WATCH",
            _ if self.asks("dryRun=All") => "dry-run",
            "PATCH" if self.content_type.starts_with("application/apply-patch") => "APPLY",
            method => method,
        };
        let place = self.place().trim_start_matches("/apis").trim_start_matches("/api");
        format!("#{} {what} {}", self.number, place.replace("/namespaces/", "/"))
    }

    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl tower::Service<Request<Body>> for Gate {
    type Response = Response<axum::body::Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<axum::body::Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let text = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
            let mut call = Call {
                number: 0,
                method: parts.method.to_string(),
                path: parts.uri.path_and_query().map(|p| p.to_string()).unwrap_or_default(),
                content_type: text("content-type").unwrap_or_default(),
                user: text("impersonate-user"),
                body: body.collect().await?.to_bytes().to_vec(),
            };
            if !gate.life.is_alive() {
                return std::future::pending().await;
            }
            // What people are told decides nothing.
            if call.place().starts_with("/apis/events.k8s.io/") {
                return Ok(answer(201, Bytes::from_static(b"{}")));
            }
            let (number, fault, delay) = gate.world.next_request();
            call.number = number;
            gate.world.fail(gate.meddles(&call));
            gate.pass(call, fault, delay).await
        })
    }
}

impl Gate {
    /// Whether a daemon begins to write though another one holds the Lease.
    fn meddles(&self, call: &Call) -> Option<Violation> {
        let state = self.world.lock();
        let leader = state.leader.as_ref().filter(|leader| leader.number != self.life.number)?;
        let meddles = state.history.lease && call.writes() && !call.is_about_lease();
        let what = || format!("{} sends {} though {leader} holds the Lease", self.life, call.told());
        meddles.then(what).and_then(|what| violated(Promise::OneWorks, what))
    }

    async fn pass(
        self,
        call: Call,
        fault: Option<Fault>,
        delay: Duration,
    ) -> Result<Response<axum::body::Body>, BoxError> {
        if let Some(fault) = fault {
            self.world.note(|| format!("{} #{} meets {fault:?}", self.life, call.number));
        }
        match fault {
            Some(Fault::Slow(millis)) => tokio::time::sleep(Duration::from_millis(millis.into())).await,
            _ => tokio::time::sleep(delay).await,
        }
        let broken = || -> BoxError { "connection reset by peer".into() };
        match fault {
            Some(Fault::Refused(code)) => return Ok(refused(code)),
            Some(Fault::Broken) => return Err(broken()),
            Some(Fault::Silent) => {
                tokio::time::sleep(Duration::from_secs(66)).await;
                return Err(broken());
            }
            Some(Fault::CrashBefore) => {
                self.world.kill(&self.life);
                return std::future::pending().await;
            }
            Some(Fault::CrashLate(millis)) => {
                self.world.kill(&self.life);
                let late = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis.into())).await;
                    if !call.is_watch() {
                        late.world.note(|| format!("{} #{} arrives late", late.life, call.number));
                        late.deliver(&call);
                    }
                });
                return std::future::pending().await;
            }
            _ => {}
        }
        if !self.life.is_alive() {
            return std::future::pending().await;
        }
        let answered = match self.world.sleeps(&self.life) {
            None => self.deliver(&call),
            // It arrives whoever waits for the answer still.
            Some(left) => {
                let (late, (tell, told)) = (self.clone(), tokio::sync::oneshot::channel());
                let call = call.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(left).await;
                    if late.life.is_alive() {
                        let _ = tell.send(late.deliver(&call));
                    }
                });
                match told.await {
                    Ok(answered) => answered,
                    Err(_) => return std::future::pending().await,
                }
            }
        };
        match fault {
            Some(Fault::CrashAfter) => {
                self.world.kill(&self.life);
                return std::future::pending().await;
            }
            Some(Fault::Lost) => return Err(broken()),
            _ => {}
        }
        match answered {
            Answer::Object { status, mut body } => {
                self.shown(&body);
                if let Some(planted) = self.world.lock().planted {
                    planted.lists(Arc::make_mut(&mut body));
                }
                let bytes = self.world.lock().wire.bytes(&body);
                Ok(answer(status, bytes))
            }
            Answer::Watch(watch) => Ok(self.watch(watch)),
        }
    }

    /// The daemon was shown an object or a list.
    fn shown(&self, object: &Value) {
        let at = self.world.millis();
        let mut state = self.world.lock();
        state.oracle.rollouts.now = at;
        state.oracle.shown(&self.life, object);
    }

    /// Carries a request out.
    fn deliver(&self, call: &Call) -> Answer {
        let world = &self.world;
        let now = world.now();
        let mut state = world.lock();
        let planted = state.planted;
        let changed = planted.and_then(|p| p.change(call, &self.life));
        let call = changed.as_ref().unwrap_or(call);
        if let Some(made_up) = planted.and_then(|p| p.swallow(call, &mut state, now)) {
            return made_up;
        }
        let writes = call.writes();
        let place = call.place().strip_suffix("/status").unwrap_or(call.place()).to_owned();
        let before = if writes { state.cluster.at_path(&place).cloned() } else { None };
        let request = Asked {
            method: &call.method,
            path_and_query: &call.path,
            content_type: &call.content_type,
            user: call.user.as_deref(),
            body: &call.body,
        };
        let answer = state.cluster.handle(now, &request);
        let mut violation = None;
        let mut wrote = false;
        if let Answer::Object { status, body } = &answer
            && writes
            && *status < 300
        {
            // What is made by a POST has no path before.
            let made = || Some(body.clone());
            let after = if call.method == "POST" { made() } else { state.cluster.at_path(&place).cloned() };
            wrote = before.as_deref().map(version) != after.as_deref().map(version) && !call.is_about_lease();
            if wrote {
                state.writes += 1;
                state.written.push(call.number);
            }
            let git = state.git.clone();
            let millis = world.millis();
            let hindered = state.last_fault > 0 && millis < state.last_fault + HINDERED;
            let at = Moment { millis, hindered };
            let super::world::State { oracle, cluster, .. } = &mut *state;
            oracle.rollouts.now = world.millis();
            violation = oracle
                .written(&self.life, call, &git.lock(), before.as_deref(), after.as_deref(), *status, at)
                .or_else(|| oracle.moment(cluster));
        }
        let status = match &answer {
            Answer::Object { status, .. } => *status,
            Answer::Watch(_) => 200,
        };
        let line = format!("{} {} -> {status}", self.life, call.told());
        world.mix(&mut state, &line);
        if state.trace.is_some() {
            let line = match &answer {
                Answer::Object { body, .. } if status >= 400 => format!("{line} {}", body["message"]),
                _ if place.contains("/deliveries/") && writes => format!("{line} {}", told(&call.json())),
                _ => line,
            };
            drop(state);
            world.note(|| line);
        } else {
            drop(state);
        }
        world.fail(violation);
        if wrote {
            world.changed();
        }
        answer
    }

    /// The events of a watch, each when it is due.
    fn watch(self, watch: Watch) -> Response<axum::body::Body> {
        let (sender, receiver) = mpsc::unbounded_channel::<Vec<u8>>();
        tokio::spawn(self.pump(watch, sender));
        let chunks = stream::unfold(receiver, |mut receiver| async move {
            let chunk = receiver.recv().await?;
            Some((Ok::<_, BoxError>(chunk), receiver))
        });
        Response::new(axum::body::Body::from_stream(chunks))
    }

    async fn pump(self, mut watch: Watch, sender: mpsc::UnboundedSender<Vec<u8>>) {
        let end = tokio::time::Instant::now() + WATCH;
        let cuts = self.world.lock().cuts;
        loop {
            let changed = self.world.next_change();
            let events = {
                let mut state = self.world.lock();
                if state.cuts != cuts {
                    return;
                }
                state.cluster.happened(&mut watch)
            };
            for (kind, mut object) in events {
                let (number, lag, delay) = self.world.next_event();
                let wait = match lag {
                    Some(Lag::Late(millis)) => Duration::from_millis(millis.into()),
                    _ => delay,
                };
                tokio::time::sleep(wait).await;
                while let Some(left) = self.world.sleeps(&self.life) {
                    tokio::time::sleep(left).await;
                }
                if !self.life.is_alive() || sender.is_closed() {
                    return;
                }
                if let Some(lag) = lag {
                    self.world.note(|| format!("{} event {number} meets {lag:?}", self.life));
                }
                if lag == Some(Lag::Cut) {
                    return;
                }
                let planted = self.world.lock().planted;
                if planted.is_some_and(|p| p.hides(kind, &object)) {
                    continue;
                }
                self.shown(&object);
                if let Some(planted) = planted {
                    planted.shows(Arc::make_mut(&mut object));
                }
                let ends = kind == "ERROR";
                let mut line = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
                line.extend(self.world.lock().wire.bytes(&object));
                line.extend(b"}\n");
                if lag == Some(Lag::Twice) {
                    let _ = sender.send(line.clone());
                }
                let _ = sender.send(line);
                if ends {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = changed => {}
                () = tokio::time::sleep_until(end) => return,
            }
        }
    }
}

fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}

fn told(delivery: &Value) -> String {
    let status = &delivery["status"];
    let attempt = &status["attempt"];
    let brief = |v: &Value| v["commit"].as_str().map_or("-".to_owned(), |c| c.chars().take(5).collect());
    let stale =
        status["inventory"].as_array().map_or(0, |all| all.iter().filter(|e| e["stale"] == true).count());
    let rollout = &attempt["rollout"];
    let rollout = match rollout["stage"].as_str() {
        None => String::new(),
        Some(stage) => format!(
            "{stage} step {} weight {} {} settled {} {} ",
            rollout["step"],
            rollout["layout"]["weight"],
            rollout["layout"]["base"],
            rollout["settled"],
            rollout["paused"]["reason"].as_str().unwrap_or_default(),
        ),
    };
    format!(
        "phase {} effective {} attempt {} {} {} {rollout}held {} failure {} inventory {} ({stale} stale)",
        status["phase"],
        brief(&status["effective"]),
        attempt["goal"],
        attempt["step"],
        brief(&attempt["revision"]),
        brief(&status["held"]["revision"]),
        status["failure"]["problem"]["message"],
        status["inventory"].as_array().map_or(0, Vec::len),
    )
}

fn answer(status: u16, bytes: Bytes) -> Response<axum::body::Body> {
    let mut response = Response::new(axum::body::Body::from(bytes));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// An answer of the API server that carried nothing out.
fn refused(code: u16) -> Response<axum::body::Body> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": format!("{reason}: simulated"),
    });
    let mut response = answer(code, body.to_string().into());
    if code == 429 {
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
    }
    response
}
