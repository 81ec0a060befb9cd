//! Watches over HTTP/2, many on one connection. Over HTTP/1.1 each watch is a connection of its own, with its buffers and its
//! TLS state on both sides: hundreds of accounts that watch a few kinds each would cost thousands of them.
//!
//! A server (or a proxy before it) that does not speak HTTP/2 is spoken to with HTTP/1.1. All other requests stay there:
//! they end soon, their connections are used again, and a long list holds up nobody's events.

use super::connect::is_watch;
use crate::lock::lock;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt, DynBody};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

/// Watches on one connection. An API server takes a thousand (`--http2-max-streams-per-connection`), proxies take a
/// hundred by custom; one more would wait until another ends.
const STREAMS: usize = 100;

/// How often a silent connection is asked whether it still lives, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

type Connector = TimeoutConnector<HttpsConnector<HttpConnector>>;
type Http = Client<Connector, Body>;
type Answer = Response<Box<DynBody>>;

/// Where watches go.
pub(super) type Watches = BoxCloneSyncService<Request<Body>, Answer, BoxError>;

/// What makes watches for a configuration; `None` where they go the way of everything else: through a proxy.
pub(super) fn watches(config: &kube::Config) -> kube::Result<Option<Watches>> {
    if config.proxy_url.is_some() {
        return Ok(None);
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    let tls = match &config.tls_server_name {
        Some(name) => {
            let name = name.clone().try_into().map_err(|e| kube::Error::Service(Box::new(e)))?;
            tls.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => tls,
    };
    let mut connector = TimeoutConnector::new(tls.enable_all_versions().wrap_connector(http));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let lanes = Lanes { connector, all: Arc::default() };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(lanes);
    Ok(Some(BoxCloneSyncService::new(service)))
}

/// Connections, each with so many watches at most.
#[derive(Clone)]
struct Lanes {
    connector: Connector,
    all: Arc<Mutex<Vec<Lane>>>,
}

/// A client makes one connection and keeps to it while it lasts.
struct Lane {
    client: Http,
    /// One more than watches are open.
    open: Arc<()>,
}

impl Lanes {
    /// The first connection that has room for one more. What is answered besides is held as long as the watch is open.
    fn take(&self) -> (Http, Arc<()>) {
        let mut all = lock(&self.all);
        let free = all.iter().find(|lane| Arc::strong_count(&lane.open) <= STREAMS);
        if let Some(lane) = free {
            return (lane.client.clone(), lane.open.clone());
        }
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING.0)
            .http2_keep_alive_timeout(PING.1)
            .build(self.connector.clone());
        let lane = Lane { client: client.clone(), open: Arc::default() };
        let open = lane.open.clone();
        all.push(lane);
        (client, open)
    }
}

impl Service<Request<Body>> for Lanes {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, open) = self.take();
        Box::pin(async move {
            let answer = client.request(request).await?;
            Ok(answer.map(|body| {
                let body = body.map_err(BoxError::from).map_frame(move |frame| {
                    let _held = &open;
                    frame
                });
                Box::new(body) as Box<DynBody>
            }))
        })
    }
}

/// Sends watches where they go, and all else on.
pub(super) struct Routed<S> {
    pub(super) plain: S,
    pub(super) watches: Option<Watches>,
}

impl<S> Service<Request<Body>> for Routed<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.plain.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &self.watches {
            Some(watches) if is_watch(&request) => Box::pin(watches.clone().oneshot(request)),
            _ => Box::pin(self.plain.call(request)),
        }
    }
}
