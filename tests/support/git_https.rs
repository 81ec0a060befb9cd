//! Git's own HTTP backend behind a real server on loopback, with TLS by an authority of its own and with passwords.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody.
    Anyone,
    /// Who knows this user and password.
    Basic(&'static str, &'static str),
    /// Who has this token.
    Bearer(&'static str),
}

/// How it misbehaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mood {
    /// Not at all.
    #[default]
    Well,
    /// Answers each request with this status.
    Status(u16),
    /// Points elsewhere.
    RedirectTo(String),
    /// Lists its refs and never sends a commit.
    NeverSends,
}

/// A server that stops when it is dropped.
pub struct GitServer {
    address: SocketAddr,
    ca: String,
    config: Arc<ServerConfig>,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    root: PathBuf,
    access: Access,
    mood: Mutex<Mood>,
    requests: Mutex<Vec<String>>,
}

impl GitServer {
    /// Serves the repositories below `root`.
    pub fn start(root: &Path, access: Access) -> Self {
        let (config, ca) = tls();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            access,
            mood: Mutex::default(),
            requests: Mutex::default(),
        });
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            ca,
            config: Arc::new(config),
            shared,
            stop: None,
            thread: None,
        };
        server.begin();
        server
    }

    /// Ends it as a power cut would: requests that are under way are broken off.
    pub fn kill(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Starts it, at the address where it was before.
    pub fn begin(&mut self) {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (started, address) = std::sync::mpsc::channel();
        let (state, config, address_before) = (self.shared.clone(), self.config.clone(), self.address);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                // Whoever tries to connect meanwhile may be given this very port to connect from, for a moment.
                let tcp = loop {
                    match TcpListener::bind(address_before).await {
                        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                            tokio::task::yield_now().await;
                        }
                        bound => break bound.unwrap(),
                    }
                };
                started.send(tcp.local_addr().unwrap()).unwrap();
                let listener = Tls { tcp, acceptor: TlsAcceptor::from(config) };
                let app = axum::Router::new().fallback(answer).with_state(state);
                tokio::select! {
                    _ = stopped => {}
                    result = axum::serve(listener, app) => result.unwrap(),
                }
            });
            // Requests that are kept waiting on purpose are not waited for.
            runtime.shutdown_background();
        });
        self.address = address.recv().unwrap();
        (self.stop, self.thread) = (Some(stop), Some(thread));
    }

    /// The URL of a repository below the root.
    pub fn url(&self, name: &str) -> String {
        format!("https://{}/{name}", self.address)
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca(&self) -> String {
        self.ca.clone()
    }

    /// From now on it behaves like this.
    pub fn set_mood(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// How many requests there were, as `GET /config/info/refs`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A certificate for loopback, and the authority that signed it.
fn tls() -> (ServerConfig, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // Named by its key: GnuTLS takes the first trusted authority of a name and tries no other.
    let key = rcgen::KeyPair::generate().unwrap();
    let number =
        key.public_key_raw().iter().fold(0u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(*byte));
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("Test authority {number}"));
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);

    let mut params =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (config, ca)
}

struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // A client that does not trust us breaks the handshake off; the next one may.
            if let Ok((stream, address)) = self.tcp.accept().await
                && let Ok(Ok(stream)) =
                    tokio::time::timeout(Duration::from_secs(60), self.acceptor.accept(stream)).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    shared.requests.lock().unwrap().push(format!("{} {}", parts.method, parts.uri.path()));
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());

    let mood = shared.mood.lock().unwrap().clone();
    match mood {
        Mood::Status(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Mood::RedirectTo(base) => {
            let query = parts.uri.path_and_query().map(|all| all.as_str()).unwrap_or_default();
            return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, format!("{base}{query}"))])
                .into_response();
        }
        Mood::NeverSends if contains(&body, b"command=fetch") => std::future::pending::<()>().await,
        _ => {}
    }
    let (expected, challenge) = match &shared.access {
        Access::Anyone => (None, ""),
        Access::Basic(user, password) => {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            (Some(format!("Basic {pair}")), "Basic realm=\"git\"")
        }
        Access::Bearer(token) => (Some(format!("Bearer {token}")), "Bearer"),
    };
    if expected.as_deref().is_some_and(|expected| given != Some(expected)) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    backend(&shared.root, &parts.method, &parts.uri, &parts.headers, &body).await
}

/// One request to `git http-backend`, by CGI.
async fn backend(root: &Path, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", value("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", value("content-encoding"))
        .env("GIT_PROTOCOL", value("git-protocol"))
        .env("HTTP_GIT_PROTOCOL", value("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async {
        let _ = stdin.write_all(body).await;
        drop(stdin);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        response = match name {
            "Status" => response.status(value.trim().split(' ').next().unwrap().parse::<u16>().unwrap()),
            name => response.header(name, value.trim()),
        };
    }
    response.body(Body::from(output.get(end + 4..).unwrap_or_default().to_vec())).unwrap()
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}
