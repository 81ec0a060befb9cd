//! One request and its answer, within limits. No redirect is followed, no proxy is used, and an answer's text is told to nobody.

use super::Credentials;
use crate::lock::lock;
use futures::future::BoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt, DynBody};
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

/// The largest answer that is read, in bytes.
pub const LARGEST: usize = 1 << 20;

/// A connection that is not made in this time is not made.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request, and how many to one address: providers close theirs after minutes.
const IDLE: (Duration, usize) = (Duration::from_secs(60), 4);

/// Connections with certificates of their own to trust, at most; more make the client forget them all once.
const ROOTS: usize = 64;

/// Which addresses may be asked. Whoever may write a Delivery chooses them, and the daemon asks: so it asks nothing that only its
/// own machine should reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Addresses of this machine, for a daemon that runs on somebody's desk, with a forwarded port.
    pub loopback: bool,
}

impl Reach {
    /// Why an address is not asked.
    fn refuses(self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            // Link-local ones, and the one at which a cloud gives out credentials.
            IpAddr::V6(v6) => {
                v6.segments()[0] & 0xffc0 == 0xfe80 || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
            }
        };
        match address {
            a if a.is_loopback() && !self.loopback => Some("it is an address of the daemon's own machine"),
            a if a.is_unspecified() => Some("it is no address of anybody"),
            a if a.is_multicast() => Some("it is a multicast address"),
            _ if link_local => Some("it is a link-local address, at which clouds give out credentials"),
            _ => None,
        }
    }
}

type Http = BoxCloneSyncService<Request<Body>, Response<Box<DynBody>>, BoxError>;

/// What requests are made with. A clone is the same.
#[derive(Clone)]
pub struct Clients(Arc<Kept>);

struct Kept {
    reach: Reach,
    plain: Http,
    /// By the certificates to trust; those of the system under none.
    secure: Mutex<HashMap<Option<Vec<Vec<u8>>>, Http>>,
    /// Answers everything.
    only: bool,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clients {{ reach: {:?} }}", self.0.reach)
    }
}

impl Clients {
    /// Asks over the network. Connections live on the runtime that asks.
    pub fn new(reach: Reach) -> Self {
        let plain = boxed(builder().build(connector(reach)));
        Clients(Arc::new(Kept { reach, plain, secure: Mutex::default(), only: false }))
    }

    /// Asks whatever answers requests, instead of the network.
    pub fn from_service<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let plain = BoxCloneSyncService::new(service.map_response(|answer: Response<Body>| {
            answer.map(|body| Box::new(body.map_err(BoxError::from)) as Box<DynBody>)
        }));
        Clients(Arc::new(Kept {
            reach: Reach { loopback: true },
            plain,
            secure: Mutex::default(),
            only: true,
        }))
    }

    /// The client for an address.
    fn get(&self, url: &url::Url, credentials: Option<&Credentials>) -> Result<Http, AskError> {
        if self.0.only || url.scheme() == "http" {
            return Ok(self.0.plain.clone());
        }
        let roots = credentials.and_then(|c| c.roots.clone());
        let mut secure = lock(&self.0.secure);
        if let Some(known) = secure.get(&roots) {
            return Ok(known.clone());
        }
        let mut config = kube::Config::new(Uri::from_static("https://nobody.invalid"));
        config.root_cert = roots.clone();
        let tls = config.rustls_client_config().map_err(|e| AskError::Connect(chain(&e)))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(connector(self.0.reach));
        let made = boxed(builder().build(connector));
        if secure.len() >= ROOTS {
            secure.clear();
        }
        secure.insert(roots, made.clone());
        Ok(made)
    }

    /// Makes a request and reads the answer.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, AskError> {
        let url = self.address(ask.url)?;
        let client = self.get(&url, ask.credentials)?;
        let mut request = ask.request(&url)?;
        let connection = capture_connection(&mut request);
        let answered = async {
            let answer = client.oneshot(request).await.map_err(|e| AskError::from_client(e.as_ref()))?;
            let (head, body) = answer.into_parts();
            let body = whole(body).await?;
            let kind = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim().chars().take(63).collect();
            Ok(Answer { status: head.status, kind, body })
        };
        match tokio::time::timeout(ask.limit, answered).await {
            Ok(answer) => answer,
            Err(_) if connection.connection_metadata().is_some() || self.0.only => {
                Err(AskError::Late(ask.limit))
            }
            Err(_) => Err(AskError::Connect(format!("no connection within {:?}", ask.limit))),
        }
    }

    /// An address that may be asked. Names are looked at when they are resolved.
    fn address(&self, text: &str) -> Result<url::Url, AskError> {
        let url = url::Url::parse(text).map_err(|e| AskError::Address(e.to_string()))?;
        let host = match url.host() {
            _ if !matches!(url.scheme(), "http" | "https") => {
                return Err(AskError::Address("it is neither http nor https".into()));
            }
            _ if !url.username().is_empty() || url.password().is_some() => {
                return Err(AskError::Address(
                    "it holds a user name; put it into a Secret and name that in secretRef".into(),
                ));
            }
            Some(url::Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
            Some(url::Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
            Some(url::Host::Domain(_)) => None,
            None => return Err(AskError::Address("it names no host".into())),
        };
        match host.and_then(|address| self.0.reach.refuses(address)) {
            Some(why) => Err(AskError::Refused(why)),
            None => Ok(url),
        }
    }
}

/// An answer's body, as far as it is read.
async fn whole(mut body: Box<DynBody>) -> Result<Vec<u8>, AskError> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| AskError::Broken(chain(e.as_ref())))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > LARGEST {
            return Err(AskError::TooLarge);
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
    builder.pool_idle_timeout(IDLE.0).pool_max_idle_per_host(IDLE.1);
    builder
}

fn connector(reach: Reach) -> HttpConnector<Guarded> {
    let mut http = HttpConnector::new_with_resolver(Guarded { reach, resolver: GaiResolver::new() });
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT));
    http.set_nodelay(true);
    http
}

fn boxed<C>(client: Client<C, Body>) -> Http
where
    C: hyper_util::client::legacy::connect::Connect + Clone + Send + Sync + 'static,
{
    BoxCloneSyncService::new(
        client
            .map_response(|answer| answer.map(|body| Box::new(body.map_err(BoxError::from)) as Box<DynBody>))
            .map_err(BoxError::from),
    )
}

/// Resolves names, and leaves out addresses that are not asked.
#[derive(Clone)]
struct Guarded {
    reach: Reach,
    resolver: GaiResolver,
}

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (reach, resolver) = (self.reach, self.resolver.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = resolver.oneshot(name).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|a| reach.refuses(a.ip()).is_none()).collect();
            match found.iter().find_map(|a| reach.refuses(a.ip())) {
                Some(why) if allowed.is_empty() => Err(std::io::Error::other(Forbidden(why))),
                _ => Ok(allowed.into_iter()),
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it is not asked: {0}")]
struct Forbidden(&'static str);

/// A request.
pub(super) struct Ask<'a> {
    pub(super) url: &'a str,
    pub(super) headers: &'a BTreeMap<String, String>,
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) limit: Duration,
    /// What is posted, with its type; it is a GET without.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    /// Whether the connection may be used again. An app that closes it in that moment would look as if it had failed.
    pub(super) keep: bool,
}

impl Ask<'_> {
    fn request(&self, url: &url::Url) -> Result<Request<Body>, AskError> {
        let no_header = |name: &str| AskError::Header(name.chars().take(63).collect());
        let mut request = Request::new(Body::empty());
        *request.uri_mut() =
            url.as_str().parse().map_err(|e: http::uri::InvalidUri| AskError::Address(e.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("windlass/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        if !self.keep {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in self.headers {
            let key = HeaderName::try_from(name.as_str()).map_err(|_| no_header(name))?;
            headers.insert(key, HeaderValue::try_from(value.as_str()).map_err(|_| no_header(name))?);
        }
        if let Some(authorization) = self.credentials.and_then(|c| c.authorization.clone()) {
            headers.insert(AUTHORIZATION, authorization);
        }
        if let Some((kind, body)) = &self.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            *request.method_mut() = Method::POST;
            *request.body_mut() = Body::from(body.clone());
        }
        Ok(request)
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The type of its body, such as `text/html`.
    pub(super) kind: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// What it is, for people: nothing of its text.
    pub(super) fn told(&self) -> String {
        let code = self.status.as_u16();
        match self.status.is_redirection() {
            true => format!("it answers {code}, a redirect, which is not followed; does it want a login?"),
            false => format!("it answers {code}"),
        }
    }

    /// That it is no JSON.
    pub(super) fn no_json(&self) -> String {
        let kind = if self.kind.is_empty() { "something" } else { &self.kind };
        format!("it answers {} with {kind} that is no JSON", self.status.as_u16())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The address is none.
    #[error("the address cannot be used: {0}")]
    Address(String),
    /// The address is one that is not asked.
    #[error("the address is not asked: {0}")]
    Refused(&'static str),
    /// A header that is none.
    #[error("the header {0} cannot be sent")]
    Header(String),
    /// Nobody listens at that port of a machine that is there.
    #[error("nobody listens there: the connection was refused")]
    Closed,
    /// No connection could be made, for any other reason.
    #[error("no connection could be made: {0}")]
    Connect(String),
    /// There was a connection, and no answer in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// There was a connection, and it broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// There was more of it than is read.
    #[error("the answer is larger than {LARGEST} bytes")]
    TooLarge,
}

impl AskError {
    fn from_client(error: &(dyn std::error::Error + 'static)) -> Self {
        let made = error.downcast_ref::<hyper_util::client::legacy::Error>().is_none_or(|e| !e.is_connect());
        if made {
            return AskError::Broken(chain(error));
        }
        let causes = std::iter::successors(Some(error), |e| e.source());
        for cause in causes {
            if cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == ErrorKind::ConnectionRefused)
            {
                return AskError::Closed;
            }
        }
        AskError::Connect(chain(error))
    }

    /// Whether somebody at that address did something: then it is the app's answer, if the app is what is asked.
    pub(super) fn is_of_the_other_side(&self) -> bool {
        matches!(self, AskError::Late(_) | AskError::Broken(_) | AskError::TooLarge)
    }
}

/// An error and its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told = String::new();
    for cause in std::iter::successors(Some(error), |e| e.source()) {
        let text = cause.to_string();
        if !told.contains(&text) {
            told.push_str(if told.is_empty() { "" } else { ": " });
            told.push_str(&text);
        }
    }
    told
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_own_machine_is_not_asked() {
        let clients = Clients::new(Reach::default());
        for address in [
            "http://127.0.0.1:9090",
            "http://[::1]/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest",
            "http://[fe80::1]/",
            "http://0.0.0.0/",
            "http://[fd00:ec2::254]/",
            "http://224.0.0.1/",
        ] {
            assert!(matches!(clients.address(address), Err(AskError::Refused(_))), "{address}");
        }
        for address in ["http://10.1.2.3:9090", "http://prometheus.monitoring:9090/x", "https://[fd00::1]/"] {
            assert!(clients.address(address).is_ok(), "{address}");
        }
        for address in ["ftp://a/", "http://", "file:///etc/passwd", "http://u:p@a/", "a"] {
            let error = clients.address(address).unwrap_err();
            assert!(
                matches!(&error, AskError::Address(_)) && !error.to_string().contains("u:p"),
                "{address}"
            );
        }
        assert!(Clients::new(Reach { loopback: true }).address("http://127.0.0.1:9090").is_ok());
    }
}
