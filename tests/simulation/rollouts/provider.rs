//! Who is asked for metrics: a Prometheus that answers as it is told to, and as the pods that it is asked about deserve.

use super::super::planted::Planted;
use super::super::things::SPACE;
use super::super::world::World;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::BoxError;
use windlass::analysis::Clients;

/// What it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Says {
    /// The truth.
    #[default]
    True,
    /// That it knows nothing.
    Nothing,
    /// No number.
    NaN,
    /// An error.
    Error,
    /// Nothing at all: nobody answers.
    Down,
    /// Nothing for a long time.
    Late,
}

/// It, for one life of a daemon.
#[derive(Clone)]
pub struct Provider {
    pub world: World,
}

impl Provider {
    /// What the daemon asks with.
    pub fn clients(self) -> Clients {
        Clients::from_service(self)
    }

    /// The share of good answers of a workload.
    fn rate(&self, query: &str) -> f64 {
        let state = self.world.lock();
        let asked = |workload: &&Value| {
            let name = workload["metadata"]["name"].as_str().unwrap_or_default();
            workload["metadata"]["namespace"] == SPACE && query.contains(&format!("{name:?}"))
        };
        let image =
            |w: &Value| w["spec"]["template"]["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
        let found = state.cluster.of_kind("Deployment").find(asked).and_then(image);
        match found.is_some_and(|image| image.ends_with(":wrong")) {
            true => 0.5,
            false => 1.0,
        }
    }
}

impl tower::Service<Request<Body>> for Provider {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let provider = self.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await?.to_bytes();
            let query = form_value(&String::from_utf8_lossy(&body), "query");
            let (says, planted) = {
                let state = provider.world.lock();
                (state.provider, state.planted)
            };
            tokio::time::sleep(Duration::from_millis(20)).await;
            let vector = |value: &str| {
                json!({"status": "success", "data": {"resultType": "vector", "result": [
                    {"metric": {}, "value": [0, value]},
                ]}})
            };
            let (status, body) = match says {
                _ if planted == Some(Planted::MeasuresPass) => (200, vector("1")),
                Says::True => (200, vector(&provider.rate(&query).to_string())),
                Says::NaN => (200, vector("NaN")),
                Says::Nothing => {
                    (200, json!({"status": "success", "data": {"resultType": "vector", "result": []}}))
                }
                Says::Error => {
                    (503, json!({"status": "error", "errorType": "unavailable", "error": "simulated"}))
                }
                Says::Down => return Err("connection refused".into()),
                Says::Late => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    return Err("too late".into());
                }
            };
            provider.world.note(|| format!("the provider is asked {query} and says {says:?}"));
            let mut answer = Response::new(Body::from(serde_json::to_vec(&body)?));
            *answer.status_mut() = http::StatusCode::from_u16(status)?;
            Ok(answer)
        })
    }
}

/// A value of a form.
fn form_value(form: &str, name: &str) -> String {
    let found = form.split('&').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name);
    let mut out = Vec::new();
    let mut bytes = found.map_or("", |(_, value)| value).bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
