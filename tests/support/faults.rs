//! An API server that is short of breath: everything passes through to the real one, but for the faults asked for.
#![allow(dead_code)]

use super::cluster::Cluster;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use windlass::cluster::{ConnectOptions, Connection};

/// What is done to a request instead of passing it on.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answered with this status (and a `Retry-After` in seconds).
    Status(u16, Option<u64>),
    /// Never answered.
    Hang,
    /// Carried out, but the answer is lost: the connection ends.
    LoseAnswer,
    /// Carried out, and answered when this is told.
    AnswerLater(Arc<Notify>),
    /// Carried out when this is told.
    PassLater(Arc<Notify>),
    /// A watch that the server ends by itself after so many seconds.
    EndAfter(u32),
    /// Answered well, with this JSON.
    Answer(String),
    /// Refused with this status and JSON.
    Refuse(u16, String),
}

type Rule = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// Method, path with query, and when.
type Seen = Arc<Mutex<Vec<(String, String, std::time::Instant)>>>;

/// Whether a request is a watch.
pub fn is_watch(request: &Request) -> bool {
    request.uri().query().is_some_and(|query| query.contains("watch=true"))
}

/// Whether a request only tries a write.
pub fn is_dry_run(request: &Request) -> bool {
    request.uri().query().is_some_and(|query| query.contains("dryRun=All"))
}

/// The proxy; it ends with the runtime of the test.
pub struct Faults {
    /// A kubeconfig that leads through it.
    pub kubeconfig: PathBuf,
    rule: Arc<Mutex<Rule>>,
    seen: Seen,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
struct Shared {
    client: kube::Client,
    rule: Arc<Mutex<Rule>>,
    seen: Seen,
}

impl Faults {
    /// Starts it on loopback before a cluster; passes everything on.
    pub async fn before(cluster: &Cluster) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let seen = Arc::default();
        let shared =
            Shared { client: cluster.connect().await.client, rule: rule.clone(), seen: Arc::clone(&seen) };
        let app = Router::new().fallback(pass).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, app).await });
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
             contexts: [{{name: faulty, context: {{cluster: c}}}}]\ncurrent-context: faulty\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        Faults { kubeconfig, rule, seen, _dir: dir }
    }

    /// A connection as the daemon makes it, through the proxy.
    pub async fn connect(&self) -> Connection {
        let options =
            ConnectOptions { kubeconfig: Some(self.kubeconfig.clone()), ..ConnectOptions::default() };
        Connection::open(&options).await.unwrap()
    }

    /// From now on, this decides.
    pub fn set(&self, rule: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// The next `count` requests with this method get this fault.
    pub fn next(&self, method: &'static str, mut count: usize, fault: Fault) {
        self.set(move |request| {
            let hit = request.method() == method && count > 0;
            count -= usize::from(hit);
            hit.then(|| fault.clone())
        });
    }

    /// When requests with this method came.
    pub fn times(&self, method: &str) -> Vec<std::time::Instant> {
        self.seen.lock().unwrap().iter().filter(|(m, _, _)| m == method).map(|(_, _, at)| *at).collect()
    }

    /// How many requests came whose method, path and query are meant.
    pub fn count(&self, is: impl Fn(&str, &str) -> bool) -> usize {
        self.seen.lock().unwrap().iter().filter(|(method, uri, _)| is(method, uri)).count()
    }
}

async fn pass(State(shared): State<Shared>, request: Request) -> Response {
    let (method, uri) = (request.method().to_string(), request.uri().to_string());
    shared.seen.lock().unwrap().push((method, uri, std::time::Instant::now()));
    let fault = (shared.rule.lock().unwrap())(&request);
    match &fault {
        Some(Fault::Status(code, retry_after)) => {
            let mut answer = Response::builder().status(*code);
            if let Some(seconds) = retry_after {
                answer = answer.header("retry-after", *seconds);
            }
            return answer.body(Body::from("injected")).unwrap();
        }
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Answer(json)) => return answer(200, json.clone()),
        Some(Fault::Refuse(code, json)) => return answer(*code, json.clone()),
        Some(Fault::PassLater(told)) => told.notified().await,
        Some(Fault::LoseAnswer | Fault::EndAfter(_) | Fault::AnswerLater(_)) | None => {}
    }
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let mut uri = parts.uri.path_and_query().unwrap().as_str().to_owned();
    if let Some(Fault::EndAfter(seconds)) = &fault {
        uri = match uri.split_once("timeoutSeconds=") {
            Some((before, rest)) => {
                let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{before}timeoutSeconds={seconds}{rest}")
            }
            None => format!("{uri}&timeoutSeconds={seconds}"),
        };
    }
    parts.uri = uri.parse().unwrap();
    parts.headers.remove("host");
    // Unpacked here, so passed on unpacked.
    parts.headers.remove("accept-encoding");
    let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let answer = match shared.client.send(request).await {
        Ok(answer) => answer,
        Err(e) => return Response::builder().status(502).body(Body::from(e.to_string())).unwrap(),
    };
    if let Some(Fault::AnswerLater(told)) = &fault {
        told.notified().await;
    }
    if matches!(fault, Some(Fault::LoseAnswer)) {
        // A body that breaks off at once ends the connection.
        let broken = futures::stream::once(async { Err::<String, _>(std::io::Error::other("lost")) });
        return Response::new(Body::from_stream(broken));
    }
    let (mut parts, body) = answer.into_parts();
    for header in ["content-length", "transfer-encoding", "content-encoding"] {
        parts.headers.remove(header);
    }
    Response::from_parts(parts, Body::new(body))
}

fn answer(code: u16, json: String) -> Response {
    let answer = Response::builder().status(code).header("content-type", "application/json");
    answer.body(Body::from(json)).unwrap()
}
