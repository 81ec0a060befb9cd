//! Writes what stands in the queue: a few Events at once, again where the API server could not take one.

use super::queue::{Next, Queue, Write};
use super::{collection, event, micro_time};
use crate::cluster::access::Access;
use crate::cluster::error::Cause;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Events written at once: enough to keep up with hundreds of Deliveries, few beside what the cluster takes.
const AT_ONCE: usize = 8;

/// A call may take this long.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What the API server cannot take is tried again for so long.
const GIVE_UP: Duration = Duration::from_secs(120);

/// An Event lets everything else go first for so long after it was noted.
const BEHIND: Duration = Duration::from_secs(30);

/// The first wait before it is tried again, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Writes until the queue is closed and empty.
pub(super) async fn run(access: Access, instance: String, queue: Arc<Queue>) {
    let access = access.with_limit(CALL_LIMIT);
    let mut writes = FuturesUnordered::new();
    loop {
        let mut due = None;
        while writes.len() < AT_ONCE {
            match queue.next(Instant::now()) {
                Next::Write(write) => {
                    let (access, instance) = (&access, &instance);
                    writes.push(async move { (send(access, instance, &write).await, write) });
                }
                Next::Until(at) => {
                    due = Some(at);
                    break;
                }
                Next::End if writes.is_empty() => return,
                Next::End | Next::Nothing => break,
            }
        }
        let until_due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((end, write)) = writes.next(), if !writes.is_empty() => match end {
                Ok(()) => queue.written(&write, Instant::now()),
                Err(cause) => queue.lost(&write, &cause.to_string(), Instant::now()),
            },
            () = queue.changed.notified() => {}
            () = until_due => {}
        }
    }
}

async fn send(access: &Access, instance: &str, write: &Write) -> Result<(), Cause> {
    let note = &*write.note;
    // It may wait for long before it is written.
    let time = micro_time(write.since.elapsed());
    let (method, path, kind, body) = if write.count == 1 {
        ("POST", collection(note), "application/json", event(note, &write.name, instance, &time))
    } else {
        let path = format!("{}/{}", collection(note), write.name);
        let series = json!({"series": {"count": write.count, "lastObservedTime": time}});
        ("PATCH", path, "application/merge-patch+json", series)
    };
    access.gap(BEHIND.saturating_sub(write.since.elapsed())).await;
    let begin = Instant::now();
    let (mut wait, longest) = BACK_OFF;
    let mut repeated = false;
    loop {
        let cause = match call(access, note, method, &path, kind, &body).await {
            Ok(()) => return Ok(()),
            // The first try was carried out although its answer did not come.
            Err(Cause::Conflict) if repeated => return Ok(()),
            Err(cause) => cause,
        };
        // Nothing new can be told in a namespace that goes.
        let passes = cause.is_transient() && !matches!(cause, Cause::NamespaceTerminating { .. });
        if !passes || begin.elapsed() > GIVE_UP {
            return Err(cause);
        }
        repeated = true;
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(longest);
    }
}

async fn call(
    access: &Access,
    note: &super::Note,
    method: &str,
    path: &str,
    kind: &str,
    body: &Value,
) -> Result<(), Cause> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, kind)
        .body(body.to_string().into_bytes())
        .map_err(|e| Cause::Refused { code: 0, message: format!("no request: {e}") })?;
    let answer = access.call(&note.regarding.id, "events.k8s.io/v1 Event", &request).await;
    answer.map(|_| ()).map_err(|e| e.cause)
}
