//! From a kubeconfig or the in-cluster account to one client with time limits and a request counter.
//!
//! Kubeconfigs are found as kubectl finds them: `--kubeconfig`, else the files of `KUBECONFIG` merged (files that
//! do not exist are passed over), else `~/.kube/config`, else the service account of the pod.

use super::Access;
use super::limit::{Limit, Share};
use http::{HeaderName, HeaderValue, Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

    /// The groups that the API server puts it in. Impersonation takes only those that are named.
    pub fn groups(&self) -> [String; 3] {
        [
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", self.namespace),
            "system:authenticated".into(),
        ]
    }
}

/// Requests counted by verb (`get`, `list`, `watch`, `create`, `patch`, `dry-run`, `update`, `delete`) and class
/// of the answer (`2xx`, `4xx`, ... or `error` when there was none).
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<(&'static str, &'static str), u64>>>);

impl Counters {
    /// All counts so far, by (verb, class).
    pub fn snapshot(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Requests so far, watches left out.
    pub fn requests(&self) -> u64 {
        self.snapshot().iter().filter(|((verb, _), _)| *verb != "watch").map(|(_, n)| n).sum()
    }

    fn add(&self, verb: &'static str, class: &'static str) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()).entry((verb, class)).or_default() += 1;
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
        let client = ClientBuilder::try_from(config)
            .map_err(|source| ConnectError::Client { server: server.clone(), source: Box::new(source) })?
            .with_layer(&layer)
            .build();
        Ok(Connection {
            client,
            server,
            context,
            namespace,
            counters,
            limit: Limit::new(concurrency.unwrap_or(CONCURRENCY)),
            accounts: Arc::default(),
        })
    }

    /// A client that makes its requests as a service account, over the same connections. Made once per account.
    pub fn as_service_account(&self, account: &ServiceAccount) -> kube::Client {
        let mut accounts = self.accounts.lock().unwrap_or_else(|e| e.into_inner());
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

    fn impersonating(&self, account: &ServiceAccount) -> kube::Client {
        let base = self.client.clone();
        // A name that is no header value is no service account's name: nothing is sent, least of all as ourselves.
        let header = |text: String| HeaderValue::from_str(&text).ok();
        let groups: Option<Vec<_>> = account.groups().into_iter().map(header).collect();
        let headers = header(account.user()).zip(groups);
        let service = tower::service_fn(move |mut request: Request<Body>| {
            let base = base.clone();
            let headers = headers.clone();
            async move {
                let refuse = || kube::Error::Service("not a valid service account name".into());
                let (user, groups) = headers.ok_or_else(refuse)?;
                request.headers_mut().insert(HeaderName::from_static("impersonate-user"), user);
                for group in groups {
                    request.headers_mut().append(HeaderName::from_static("impersonate-group"), group);
                }
                base.send(request).await
            }
        });
        kube::Client::new(service, account.namespace.clone())
    }
}

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

fn verb(request: &Request<Body>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    let has = |pair: &str| query.split('&').any(|p| p == pair);
    match *request.method() {
        _ if has("dryRun=All") => "dry-run",
        http::Method::GET if has("watch=true") || has("watch=1") => "watch",
        http::Method::GET if query.contains("labelSelector=") || query.contains("limit=") => "list",
        http::Method::GET => "get",
        http::Method::POST => "create",
        http::Method::PATCH => "patch",
        http::Method::PUT => "update",
        http::Method::DELETE => "delete",
        _ => "other",
    }
}

/// What the environment says; handed in, so that a test can say something else.
struct Environment {
    kubeconfig: Option<std::ffi::OsString>,
    home: Option<PathBuf>,
    https_proxy: Option<String>,
    no_proxy: String,
}

impl Environment {
    fn read() -> Self {
        let either = |upper: &str, lower: &str| std::env::var(upper).or_else(|_| std::env::var(lower)).ok();
        Environment {
            kubeconfig: std::env::var_os("KUBECONFIG"),
            home: std::env::home_dir(),
            https_proxy: either("HTTPS_PROXY", "https_proxy").filter(|p| !p.is_empty()),
            no_proxy: either("NO_PROXY", "no_proxy").unwrap_or_default(),
        }
    }

    fn kubeconfigs(&self) -> Vec<PathBuf> {
        let listed = self.kubeconfig.iter().flat_map(std::env::split_paths);
        let listed: Vec<PathBuf> = listed.filter(|p| !p.as_os_str().is_empty()).collect();
        if !listed.is_empty() {
            return listed;
        }
        self.home.iter().map(|home| home.join(".kube").join("config")).collect()
    }

    /// The proxy for a server, by the rules of Go's `ProxyFromEnvironment`: never for loopback, nor for what
    /// `NO_PROXY` lists as host, domain or network.
    fn proxy_for(&self, server: &http::Uri) -> Option<http::Uri> {
        let host = server.host()?.trim_start_matches('[').trim_end_matches(']');
        let ip: Option<IpAddr> = host.parse().ok();
        let loopback = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
        if loopback || self.no_proxy.split(',').any(|rule| exempt(rule.trim(), host, ip)) {
            return None;
        }
        self.https_proxy.as_ref()?.parse().ok()
    }
}

/// Whether a rule of `NO_PROXY` holds for a host.
fn exempt(rule: &str, host: &str, ip: Option<IpAddr>) -> bool {
    if rule == "*" {
        return true;
    }
    let rule = rule.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(rule, |(r, _)| r);
    if let (Some((net, bits)), Some(IpAddr::V4(ip))) = (rule.split_once('/'), ip) {
        let (Ok(net), Ok(bits)) = (net.parse::<Ipv4Addr>(), bits.parse::<u32>()) else { return false };
        let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
        return u32::from(ip) & mask == u32::from(net) & mask;
    }
    let domain = rule.trim_start_matches("*.").trim_start_matches('.');
    !domain.is_empty()
        && (host.eq_ignore_ascii_case(domain)
            || host.to_ascii_lowercase().ends_with(&format!(".{}", domain.to_ascii_lowercase())))
}

async fn load(
    options: &ConnectOptions,
    environment: &Environment,
) -> Result<(kube::Config, Option<String>), ConnectError> {
    let (files, given) = match &options.kubeconfig {
        Some(file) => (vec![file.clone()], true),
        None => (environment.kubeconfigs(), false),
    };
    let shown = files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
    let wrap = |source| ConnectError::Kubeconfig { file: shown.clone(), source: Box::new(source) };
    let mut merged = Kubeconfig::default();
    for file in &files {
        // As kubectl does: a file of the list that is not there is passed over, one that was asked for is not.
        if !given && !file.exists() {
            continue;
        }
        merged = Kubeconfig::read_from(file).and_then(|next| merged.merge(next)).map_err(wrap)?;
    }
    if merged.contexts.is_empty() && !given {
        if let Some(context) = &options.context {
            return Err(ConnectError::ContextWithoutKubeconfig { context: context.clone() });
        }
        return match kube::Config::incluster() {
            Ok(config) => Ok((config, None)),
            Err(_) => Err(ConnectError::NotConfigured { looked: shown }),
        };
    }
    let name = options.context.clone().or_else(|| merged.current_context.clone());
    let context = merged.contexts.iter().find(|c| Some(&c.name) == name.as_ref());
    if let (Some(name), None) = (&name, context) {
        let known = merged.contexts.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(ConnectError::NoSuchContext { file: shown, context: name.clone(), known });
    }
    let cluster = context.and_then(|c| c.context.as_ref()).map(|c| &c.cluster);
    let cluster = merged.clusters.iter().find(|c| Some(&c.name) == cluster).and_then(|c| c.cluster.as_ref());
    let own_proxy = cluster.and_then(|c| c.proxy_url.as_ref()).is_some_and(|p| !p.is_empty());
    let select = KubeConfigOptions { context: name.clone(), ..KubeConfigOptions::default() };
    let mut config = kube::Config::from_custom_kubeconfig(merged, &select).await.map_err(wrap)?;
    if !own_proxy {
        // kube holds NO_PROXY against the proxy's address instead of the server's.
        config.proxy_url = environment.proxy_for(&config.cluster_url);
    }
    Ok((config, name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;

    fn environment() -> Environment {
        Environment { kubeconfig: None, home: None, https_proxy: None, no_proxy: String::new() }
    }

    fn kubeconfig(name: &str, more: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: {name}, cluster: {{server: 'https://{name}.example.com', \
             insecure-skip-tls-verify: true}}}}]\nusers: [{{name: {name}, user: {{token: t}}}}]\n\
             contexts: [{{name: {name}, context: {{cluster: {name}, user: {name}, namespace: in-{name}}}}}]\n{more}"
        )
    }

    #[tokio::test]
    async fn kubeconfigs_are_found_and_merged_as_kubectl_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, more: &str| {
            let path = dir.path().join(name);
            fs::write(&path, kubeconfig(name, more)).unwrap();
            path
        };
        let (one, two) = (file("one", "current-context: one"), file("two", "current-context: two"));
        let missing = dir.path().join("missing");
        let listed = Environment {
            kubeconfig: Some(std::env::join_paths([&missing, &two, &one]).unwrap()),
            ..environment()
        };
        let ask = |kubeconfig: Option<&PathBuf>, context: Option<&str>| ConnectOptions {
            kubeconfig: kubeconfig.cloned(),
            context: context.map(String::from),
            ..ConnectOptions::default()
        };
        let (config, context) = load(&ask(None, None), &listed).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("two.example.com"), "the first that says so wins");
        assert_eq!((context.as_deref(), config.default_namespace.as_str()), (Some("two"), "in-two"));
        let (config, _) = load(&ask(None, Some("one")), &listed).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("one.example.com"));
        let (config, _) = load(&ask(Some(&one), None), &listed).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("one.example.com"), "--kubeconfig wins over KUBECONFIG");

        let error = load(&ask(Some(&one), Some("two")), &listed).await.unwrap_err().to_string();
        assert!(error.contains("no context \"two\"") && error.contains("it has: one"), "{error}");
        let error = load(&ask(Some(&missing), None), &listed).await.unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
        let home = Environment { home: Some(dir.path().into()), ..environment() };
        let error = load(&ask(None, None), &home).await.unwrap_err().to_string();
        assert!(error.contains(".kube/config") && error.contains("--kubeconfig"), "{error}");
        let error = load(&ask(None, Some("one")), &home).await.unwrap_err();
        assert!(matches!(error, ConnectError::ContextWithoutKubeconfig { .. }), "{error}");
        fs::create_dir(dir.path().join(".kube")).unwrap();
        fs::write(dir.path().join(".kube/config"), kubeconfig("home", "current-context: home")).unwrap();
        let (config, _) = load(&ask(None, None), &home).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("home.example.com"));
    }

    #[test]
    fn the_proxy_of_the_environment_is_obeyed_as_go_does() {
        let environment = Environment {
            https_proxy: Some("http://proxy.example.com:3128".into()),
            no_proxy: "10.0.0.0/8, .internal.example.com,bare.example.org:6443,*.star.example".into(),
            ..environment()
        };
        let table = [
            ("https://api.example.com:6443", true),
            ("https://127.0.0.1:6443", false),
            ("https://localhost:6443", false),
            ("https://[::1]:6443", false),
            ("https://10.96.0.1", false),
            ("https://11.96.0.1", true),
            ("https://api.internal.example.com", false),
            ("https://notinternal.example.com", true),
            ("https://bare.example.org:6443", false),
            ("https://a.star.example", false),
        ];
        for (server, proxied) in table {
            assert_eq!(environment.proxy_for(&server.parse().unwrap()).is_some(), proxied, "{server}");
        }
    }

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
