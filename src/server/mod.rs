//! What the daemon tells about itself over HTTP: `/livez`, `/readyz` and `/metrics`. No word of it is a secret, and
//! nothing can be changed through it.

pub mod checks;
pub mod metrics;
pub mod probe;

use crate::cluster::Counters;
use crate::lock::{read, write};
use crate::reconcile::daemon::Daemon;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use checks::{Stage, View};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Instant;
use tokio::net::TcpListener;

/// Where to listen: `ADDRESS:PORT`, or `:PORT` for all addresses of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At one address.
    At(SocketAddr),
    /// At all addresses, IPv6 and IPv4.
    Everywhere(u16),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not ADDRESS:PORT or :PORT, such as 127.0.0.1:8080 or :8080");
        match text.strip_prefix(':') {
            Some(port) => port.parse().map(Listen::Everywhere).map_err(|_| wrong()),
            None => text.parse().map(Listen::At).map_err(|_| wrong()),
        }
    }
}

impl Listen {
    async fn bind(self) -> std::io::Result<TcpListener> {
        match self {
            Listen::At(address) => TcpListener::bind(address).await,
            Listen::Everywhere(port) => {
                match TcpListener::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port)).await {
                    // Not every machine has IPv6.
                    Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                        TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), port)).await
                    }
                    bound => bound,
                }
            }
        }
    }
}

/// What the server knows of the daemon. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Status(Arc<Inner>);

struct Inner {
    counters: Counters,
    started: Instant,
    daemon: RwLock<Option<Arc<Daemon>>>,
    led: AtomicBool,
}

impl Status {
    /// A replica that waits for the Lease.
    pub fn standby(counters: Counters) -> Self {
        Status(Arc::new(Inner {
            counters,
            started: Instant::now(),
            daemon: RwLock::default(),
            led: AtomicBool::new(false),
        }))
    }

    /// From now on it leads.
    pub fn lead(&self, daemon: Arc<Daemon>) {
        self.0.led.store(true, Ordering::Relaxed);
        *write(&self.0.daemon) = Some(daemon);
    }

    /// It lost the Lease, and waits for it again or ends.
    pub fn rest(&self) {
        *write(&self.0.daemon) = None;
    }

    /// Whether it ever led.
    pub fn has_led(&self) -> bool {
        self.0.led.load(Ordering::Relaxed)
    }

    fn daemon(&self) -> Option<Arc<Daemon>> {
        read(&self.0.daemon).clone()
    }

    /// What the checks look at.
    fn view(&self) -> View {
        let daemon = self.daemon();
        View {
            stage: match &daemon {
                None => Stage::Standby,
                Some(daemon) if daemon.is_stopping() => Stage::Stopping,
                Some(_) => Stage::Leading,
            },
            synced: daemon.is_some_and(|daemon| daemon.synced()),
            // Nobody has answered before the first answer: as long as the process lives, then.
            silent_for: self.0.counters.last_answer().unwrap_or_else(|| self.0.started.elapsed()),
        }
    }
}

/// Listens, and serves until the runtime ends. Answers with the address, which tells the port when 0 was asked for.
pub async fn serve(listen: Listen, status: Status) -> std::io::Result<SocketAddr> {
    let listener = listen.bind().await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(status)).await {
            tracing::error!(%error, "the server for health and metrics ended");
        }
    });
    Ok(address)
}

fn router(status: Status) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/livez/{check}", get(livez))
        .route("/readyz", get(readyz))
        .route("/readyz/{check}", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(status)
}

async fn livez(
    State(status): State<Status>,
    check: Option<Path<String>>,
    RawQuery(query): RawQuery,
) -> Response {
    told(checks::answer(
        "livez",
        &checks::live(&status.view()),
        check.as_ref().map(|c| c.as_str()),
        query.as_deref(),
    ))
}

async fn readyz(
    State(status): State<Status>,
    check: Option<Path<String>>,
    RawQuery(query): RawQuery,
) -> Response {
    told(checks::answer(
        "readyz",
        &checks::ready(&status.view()),
        check.as_ref().map(|c| c.as_str()),
        query.as_deref(),
    ))
}

fn told((code, text): (u16, String)) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code, headers, text).into_response()
}

async fn scrape(State(status): State<Status>) -> Response {
    let daemon = status.daemon();
    let snapshot = match &daemon {
        Some(daemon) => daemon.snapshot(),
        None => crate::reconcile::snapshot::Snapshot {
            requests: status.0.counters.snapshot(),
            ..Default::default()
        },
    };
    let counted = daemon.as_ref().map(|daemon| daemon.metrics.gather()).unwrap_or_default();
    match metrics::text(&snapshot, daemon.is_some(), counted) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => told((500, format!("metrics: {error}\n"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn where_to_listen_is_read_as_in_kubernetes() {
        assert_eq!(":8080".parse(), Ok(Listen::Everywhere(8080)));
        assert_eq!("127.0.0.1:0".parse(), Ok(Listen::At(SocketAddr::from(([127, 0, 0, 1], 0)))));
        assert_eq!("[::1]:80".parse(), Ok(Listen::At("[::1]:80".parse().unwrap())));
        for wrong in ["8080", "localhost", ":", ":70000", ""] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
