//! From a kubeconfig or the in-cluster account to one client with time limits and a request counter.
//!
//! Kubeconfigs are found as kubectl finds them: `--kubeconfig`, else the files of `KUBECONFIG` merged (files that
//! do not exist are passed over), else `~/.kube/config`, else the service account of the pod.

use super::Access;
use super::kubeconfig::{Environment, load};
use super::lease::Contact;
use super::limit::{Limit, Share};
use super::multiplex;
use crate::lock::lock;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A connection attempt (TCP and TLS) that takes longer has failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection on which nothing is read for so long is dead. Longer than a watch (290 s), which the server ends
/// by itself; shorter limits hold for each call.
const READ_LIMIT: Duration = Duration::from_secs(300);

/// A connection that takes no byte of a request for so long is dead.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// The server ends a request by itself after 60 s (`--request-timeout`), with an answer that says more than a
/// time-out of ours. The head of every answer, a watch's too, has to be there a little later.
const HEAD_LIMIT: Duration = Duration::from_secs(65);

/// Requests in flight at once for one cluster; half of them for one Delivery.
pub const CONCURRENCY: usize = 32;

/// Watches that begin at once: each reads a list.
const BEGINNING: usize = 12;

/// Which cluster to talk to, and as whom.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// `--kubeconfig`: this file and no other.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`: a context of the kubeconfig instead of its current one.
    pub context: Option<String>,
    /// Requests in flight at once; `None` is the default, 32.
    pub concurrency: Option<usize>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a pod's service account was found.
    #[error(
        "no cluster is configured: {looked} does not exist or is empty, and this is not a pod with a service \
         account; give --kubeconfig FILE or set KUBECONFIG"
    )]
    NotConfigured {
        /// Where a kubeconfig was looked for.
        looked: String,
    },
    /// A kubeconfig could not be read, or names something that it does not define.
    #[error("kubeconfig {file}: {source}")]
    Kubeconfig {
        /// The file or files.
        file: String,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// `--context` names a context that is not there.
    #[error("kubeconfig {file} has no context {context:?}; it has: {known}")]
    NoSuchContext {
        /// The file or files.
        file: String,
        /// The context asked for.
        context: String,
        /// The contexts that there are.
        known: String,
    },
    /// A context was asked for, but the cluster is known from the pod's service account only.
    #[error("--context {context} was given, but there is no kubeconfig that could define it")]
    ContextWithoutKubeconfig {
        /// The context asked for.
        context: String,
    },
    /// The client could not be built: credentials, certificates or a proxy.
    #[error("cannot make a client for {server}: {source}")]
    Client {
        /// The server's address.
        server: String,
        /// What is wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A service account that requests are made as.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ServiceAccount {
    /// The user name that the API server knows it by.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// Requests counted by verb (`get`, `list`, `watch`, `create`, `patch`, `dry-run`, `update`, `delete`) and class
/// of the answer (`2xx`, `4xx`, ... or `error` when there was none).
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    requests: BTreeMap<(&'static str, &'static str), u64>,
    answered: Option<Instant>,
}

impl Counters {
    /// All counts so far, by (verb, class).
    pub fn snapshot(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.lock().requests.clone()
    }

    /// How long ago the API server last answered, whatever it said, unless that it is not well (5xx).
    pub fn last_answer(&self) -> Option<Duration> {
        self.lock().answered.map(|at| at.elapsed())
    }

    /// Requests so far, watches left out.
    pub fn requests(&self) -> u64 {
        self.snapshot().iter().filter(|((verb, _), _)| *verb != "watch").map(|(_, n)| n).sum()
    }

    fn add(&self, verb: &'static str, class: &'static str) {
        let mut counted = self.lock();
        *counted.requests.entry((verb, class)).or_default() += 1;
        if !matches!(class, "error" | "5xx") {
            counted.answered = Some(Instant::now());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        lock(&self.0)
    }
}

/// A connection to one cluster: one client, one pool of connections, whoever the requests are made as.
#[derive(Clone)]
pub struct Connection {
    /// Makes requests as the daemon itself.
    pub client: kube::Client,
    /// The server's address, to be shown.
    pub server: String,
    /// The kubeconfig's context, `None` inside a pod.
    pub context: Option<String>,
    /// The namespace of the context or of the pod.
    pub namespace: String,
    /// How many requests were made.
    pub counters: Counters,
    limit: Limit,
    beginning: Share,
    accounts: Arc<Mutex<HashMap<ServiceAccount, kube::Client>>>,
}

impl Connection {
    /// Reads the configuration and builds the client. Sends nothing yet. The client lives on the runtime that this
    /// is called on.
    pub async fn open(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let (config, context) = load(options, &Environment::read()).await?;
        Self::from_config(config, context, options.concurrency)
    }

    /// Builds the client from a configuration that the caller has read.
    pub fn from_config(
        mut config: kube::Config,
        context: Option<String>,
        concurrency: Option<usize>,
    ) -> Result<Self, ConnectError> {
        // Repeating is the caller's business: hidden repeats multiply the load on a server that is short of breath.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_LIMIT);
        config.read_timeout = Some(READ_LIMIT);
        config.write_timeout = Some(WRITE_LIMIT);
        config.reset_reader_on_write = true;
        config.headers.push((
            http::header::USER_AGENT,
            HeaderValue::from_static(concat!("windlass/", env!("CARGO_PKG_VERSION"))),
        ));
        let server = config.cluster_url.to_string().trim_end_matches('/').to_string();
        let namespace = config.default_namespace.clone();
        let counters = Counters::default();
        let layer = {
            let counters = counters.clone();
            tower::layer::layer_fn(move |inner| Watched { inner, counters: counters.clone() })
        };
        let failed = |source| ConnectError::Client { server: server.clone(), source: Box::new(source) };
        let watches = multiplex::watches(&config).map_err(failed)?;
        let routed =
            tower::layer::layer_fn(move |plain| multiplex::Routed { plain, watches: watches.clone() });
        let client =
            ClientBuilder::try_from(config).map_err(failed)?.with_layer(&routed).with_layer(&layer).build();
        Ok(Self::new(client, server, context, namespace, counters, concurrency))
    }

    /// Talks to whatever answers requests as an API server does, instead of to a server. Called on a runtime.
    pub fn from_service<S>(service: S, namespace: &str) -> Self
    where
        S: tower::Service<Request<Body>, Response = Response<axum::body::Body>, Error = tower::BoxError>
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let counters = Counters::default();
        let client = kube::Client::new(Watched { inner: service, counters: counters.clone() }, namespace);
        Self::new(client, "in this process".into(), None, namespace.into(), counters, None)
    }

    fn new(
        client: kube::Client,
        server: String,
        context: Option<String>,
        namespace: String,
        counters: Counters,
        concurrency: Option<usize>,
    ) -> Self {
        let limit = Limit::new(concurrency.unwrap_or(CONCURRENCY));
        // One share is half of what there is.
        let beginning = limit.beside(2 * BEGINNING).share();
        let accounts = Arc::default();
        Connection { client, server, context, namespace, counters, limit, beginning, accounts }
    }

    /// The same for as long as a Lease is ours: a write that would begin later is not sent. What decides asks before it
    /// writes, but may be many requests away from the next one when a process sleeps or the API server does not answer.
    pub fn while_held(&self, contact: Contact) -> Self {
        let base = self.client.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (base, contact) = (base.clone(), contact.clone());
            async move {
                let tries = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "dryRun=All"));
                if request.method() != Method::GET && !tries && !contact.holds() {
                    return Err(kube::Error::Service(NotOurs.into()));
                }
                base.send(request).await
            }
        });
        let client = kube::Client::new(service, self.namespace.clone());
        Connection { client, accounts: Arc::default(), ..self.clone() }
    }

    /// A client that makes its requests as a service account, over the same connections. Made once per account.
    pub fn as_service_account(&self, account: &ServiceAccount) -> kube::Client {
        let mut accounts = lock(&self.accounts);
        accounts.entry(account.clone()).or_insert_with(|| self.impersonating(account)).clone()
    }

    /// What a Delivery makes its requests with: a client, as the daemon (`None`) or as an account, and a share of
    /// what the cluster takes at once. Ask once per Delivery and keep it: the share is what stops one from
    /// starving the others.
    pub fn access(&self, account: Option<&ServiceAccount>) -> Access {
        let client = account.map_or_else(|| self.client.clone(), |account| self.as_service_account(account));
        Access::new(client, self.share())
    }

    /// A share of what the cluster takes at once, see [`Limit`].
    pub fn share(&self) -> Share {
        self.limit.share()
    }

    /// The bound of what the cluster is asked at once.
    pub fn limit(&self) -> Limit {
        self.limit.clone()
    }

    /// The turns of watches that begin: behind all that is to be tried and applied, nothing would be known for long.
    pub(super) fn beginning(&self) -> Share {
        self.beginning.clone()
    }

    /// A client for the Lease, in a queue of its own: behind what thousands of objects ask for, a renewal would come when the
    /// Lease is lost.
    pub(super) fn access_to_lease(&self) -> Access {
        Access::new(self.client.clone(), self.limit.beside(2).share())
    }

    fn impersonating(&self, account: &ServiceAccount) -> kube::Client {
        let base = self.client.clone();
        // A name that is no header value is no service account's name: nothing is sent, least of all as ourselves.
        let user = HeaderValue::from_str(&account.user()).ok();
        // The user alone: the server adds the groups of a service account by itself. Naming them would take the
        // right to impersonate groups, and who may impersonate any group may be `system:masters`.
        let service = tower::service_fn(move |mut request: Request<Body>| {
            let base = base.clone();
            let user = user.clone();
            async move {
                let refuse = || kube::Error::Service("not a valid service account name".into());
                let user = user.ok_or_else(refuse)?;
                request.headers_mut().insert(HeaderName::from_static("impersonate-user"), user);
                base.send(request).await
            }
        });
        kube::Client::new(service, account.namespace.clone())
    }
}

/// The Lease may be another's: nothing is written.
#[derive(Debug, thiserror::Error)]
#[error("not sent: the Lease was not renewed in time, another daemon may work now")]
struct NotOurs;

/// Counts requests and gives the head of each answer a time limit.
#[derive(Clone)]
struct Watched<S> {
    inner: S,
    counters: Counters,
}

impl<S, B> tower::Service<Request<Body>> for Watched<S>
where
    S: tower::Service<Request<Body>, Response = Response<B>, Error = tower::BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = tower::BoxError;
    type Future = futures::future::BoxFuture<'static, Result<Response<B>, tower::BoxError>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = verb(&request);
        let counters = self.counters.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = match tokio::time::timeout(HEAD_LIMIT, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(NoAnswer(HEAD_LIMIT).into()),
            };
            counters.add(verb, answer.as_ref().map_or("error", |a| class(a.status().as_u16())));
            answer
        })
    }
}

/// No answer came in time; whether the request was carried out is not known.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {}s", .0.as_secs())]
pub struct NoAnswer(pub Duration);

fn class(code: u16) -> &'static str {
    match code {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

fn has(request: &Request<Body>, pair: &str) -> bool {
    request.uri().query().unwrap_or_default().split('&').any(|p| p == pair)
}

/// Whether a request is a watch.
pub(super) fn is_watch(request: &Request<Body>) -> bool {
    request.method() == http::Method::GET && (has(request, "watch=true") || has(request, "watch=1"))
}

fn verb(request: &Request<Body>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        _ if has(request, "dryRun=All") => "dry-run",
        _ if is_watch(request) => "watch",
        http::Method::GET if query.contains("labelSelector=") || query.contains("limit=") => "list",
        http::Method::GET => "get",
        http::Method::POST => "create",
        http::Method::PATCH => "patch",
        http::Method::PUT => "update",
        http::Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_told_apart() {
        let table = [
            ("GET", "/api/v1/pods?limit=100&labelSelector=x", "list"),
            ("GET", "/api/v1/pods?watch=true&labelSelector=x", "watch"),
            ("GET", "/api/v1/namespaces/a/pods/b", "get"),
            ("PATCH", "/api/v1/namespaces/a/pods/b?fieldManager=windlass&dryRun=All", "dry-run"),
            ("PATCH", "/api/v1/namespaces/a/pods/b?fieldManager=windlass", "patch"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/a/events", "create"),
        ];
        for (method, uri, expected) in table {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
            assert_eq!(verb(&request), expected, "{method} {uri}");
        }
    }
}
