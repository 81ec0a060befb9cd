//! One call to the API server: a turn in the queue, a time limit, a bounded answer.

use super::connect::NoAnswer;
use super::error::{ApplyError, Cause};
use super::limit::Share;
use super::refusal::{Refusal, classify};
use crate::core::manifest::ObjectId;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use std::time::Duration;

/// The API server ends a request by itself after 60 s; a little later we stop waiting.
const CALL_LIMIT: Duration = Duration::from_secs(65);

/// Largest answer that is read, in bytes. An object is at most some MiB, managed fields included.
const LARGEST_ANSWER: usize = 32 << 20;

/// How long others that write to a ResourceQuota are given until what they counted is counted, on average.
const QUOTA_RACE: Duration = Duration::from_millis(100);

/// How often a request that was answered with 429, or lost the race for a quota, is sent. It was not carried out, so sending it again is safe,
/// and cheaper than beginning the whole round again.
const ATTEMPTS: u32 = 3;

/// A client and a share of what the cluster takes at once: what every call is made with.
#[derive(Clone)]
pub struct Access {
    client: kube::Client,
    share: Share,
    limit: Duration,
}

/// An answer that came in full.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Vec<u8>,
}

impl Access {
    /// A client with its share.
    pub fn new(client: kube::Client, share: Share) -> Self {
        Access { client, share, limit: CALL_LIMIT }
    }

    /// The same with another time limit for each call.
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The client, for what needs no turn in the queue (watches).
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Waits until others ask for little, but no longer than this: for what may come after everything else.
    pub(super) async fn gap(&self, at_most: Duration) {
        self.share.gap(at_most).await;
    }

    /// Sends a request about an object and reads the answer, which is a success (2xx). Waits for its turn without
    /// a limit: turns come, since each call has one.
    pub(super) async fn call(
        &self,
        object: &ObjectId,
        kind: &str,
        request: &Request<Vec<u8>>,
    ) -> Result<Answer, ApplyError> {
        let failed = |cause| ApplyError::new(object.clone(), cause);
        let mut attempt = 1;
        loop {
            let permit = self.share.permit().await;
            let answer = tokio::time::timeout(self.limit, self.send(request.clone())).await;
            drop(permit);
            let (code, retry_after, body) = match answer {
                Err(_) => return Err(failed(Cause::Timeout { limit: self.limit })),
                Ok(Err(cause)) => return Err(failed(cause)),
                Ok(Ok(answer)) => answer,
            };
            if (200..300).contains(&code) {
                return Ok(Answer { code, body });
            }
            let cause = classify(object, kind, Refusal { code, body: &body, retry_after });
            let last = attempt == ATTEMPTS;
            match cause {
                Cause::Throttled { retry_after } => self.share.hold_off(retry_after),
                Cause::QuotaBusy { .. } if !last => {
                    tokio::time::sleep(QUOTA_RACE.mul_f64(0.5 + fastrand::f64())).await;
                }
                _ => return Err(failed(cause)),
            }
            if last {
                return Err(failed(cause));
            }
            attempt += 1;
        }
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<(u16, Option<Duration>, Vec<u8>), Cause> {
        let answer = self.client.send(request.map(Body::from)).await.map_err(unreachable)?;
        let code = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.trim().parse().ok())
            .map(Duration::from_secs);
        match Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await {
            Ok(body) => Ok((code, retry_after, body.to_bytes().to_vec())),
            Err(e) => Err(Cause::Unavailable { message: format!("the answer broke off: {e}") }),
        }
    }
}

/// Why a call of the client about an object (`kind` is `apiVersion kind`) failed.
pub fn cause(object: &ObjectId, kind: &str, error: kube::Error) -> Cause {
    match error {
        kube::Error::Api(status) => {
            let body = serde_json::to_vec(&status).unwrap_or_default();
            classify(object, kind, Refusal { code: status.code, body: &body, retry_after: None })
        }
        // Where it is broken, not what stands there: it may be a Secret.
        kube::Error::SerdeError(e) => Cause::Unavailable {
            message: format!("the answer is no object (line {}, column {})", e.line(), e.column()),
        },
        other => unreachable(other),
    }
}

/// Says why there was no answer, down to the innermost cause: the outer ones say "client error (Connect)".
pub(super) fn unreachable(error: kube::Error) -> Cause {
    if let kube::Error::Service(inner) = &error
        && let Some(NoAnswer(limit)) = inner.downcast_ref()
    {
        return Cause::Timeout { limit: *limit };
    }
    let mut inner: &dyn std::error::Error = &error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    Cause::Unavailable { message: inner.to_string() }
}
