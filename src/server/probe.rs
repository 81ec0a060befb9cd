//! Asking a server for its health, as a container runtime does that can only run a command.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A connection, and each read and write on it, may take so long.
const LIMIT: Duration = Duration::from_secs(5);

/// As much of an answer is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It is not `http://HOST:PORT/PATH`.
    #[error("{0:?} is not http://HOST:PORT/PATH")]
    Url(String),
    /// Nobody answered.
    #[error("{url}: {source}")]
    Silent {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What came back is not HTTP.
    #[error("{0} does not speak HTTP")]
    NotHttp(String),
}

/// Status code and body of the answer to a GET.
pub fn ask(url: &str) -> Result<(u16, String), ProbeError> {
    let wrong = || ProbeError::Url(url.to_owned());
    let silent = |source| ProbeError::Silent { url: url.to_owned(), source };
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).map_err(silent)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(silent)?;
    stream.set_write_timeout(Some(LIMIT)).map_err(silent)?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(silent)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).map_err(silent)?;
    let answer = String::from_utf8_lossy(&answer);
    let code = answer.strip_prefix("HTTP/1.").and_then(|a| a.split(' ').nth(1)).and_then(|c| c.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    code.zip(body).ok_or_else(|| ProbeError::NotHttp(url.to_owned()))
}
