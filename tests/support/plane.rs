//! A cluster with a real node, Envoy and Prometheus, shared by all tests of one process that need real pods or traffic.
//!
//! It takes root on Linux and some packages of Debian. Where these are not there, a test that asks for it is skipped:
//! that is said on standard error, past the test harness, and noted in `target/tmp/skipped`, which `scripts/test.sh`
//! prints at its end. With `WINDLASS_REAL_NODE=required` it is a failure instead.
#![allow(dead_code)]

use super::cluster::{Cluster, Space, binary, block_on, real_programs, try_send};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A cluster with one real node.
pub struct Plane {
    /// The cluster; its API server is reached as any other.
    pub cluster: &'static Cluster,
    /// The URL of the gateway, which tells hosts apart by the `Host` header.
    pub gateway: String,
    /// What a route names as its parent.
    pub parent: Value,
    prometheus: String,
    programs: PathBuf,
}

/// The real node that the tests of this process share, or nothing where this machine cannot have one; then the test is
/// noted as skipped.
pub fn shared(test: &str) -> Option<&'static Plane> {
    static SHARED: OnceLock<Result<Plane, String>> = OnceLock::new();
    match SHARED.get_or_init(Plane::start) {
        Ok(plane) => Some(plane),
        Err(why) if std::env::var("WINDLASS_REAL_NODE").is_ok_and(|v| v == "required") => {
            panic!("{test} is required: {why}")
        }
        Err(why) => {
            skip(test, why);
            None
        }
    }
}

/// Says what was expected or measured, also where the test passes.
pub fn say(what: &str) {
    // Not `eprint!`: the test harness would keep it to itself.
    let _ = std::io::stderr().write_all(format!("{what}\n").as_bytes());
}

/// Says loudly that a test was not run.
fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    say(line.trim_end());
    let note = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    let mut note = File::options().create(true).append(true).open(note).unwrap();
    note.write_all(line.as_bytes()).unwrap();
}

impl Plane {
    fn start() -> Result<Plane, String> {
        let testcluster = binary();
        let check = Command::new(&testcluster).args(["check", "--real"]).stdin(Stdio::null()).output();
        let check = check.map_err(|e| e.to_string())?;
        if !check.status.success() {
            return Err(String::from_utf8_lossy(&check.stderr).trim().to_owned());
        }
        let programs = real_programs();
        let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start_real(&testcluster)));
        let facts = fs::read_to_string(cluster.dir.join("real.json")).unwrap();
        let facts: Value = serde_json::from_str(&facts).unwrap();
        let text = |name: &str| facts[name].as_str().unwrap().to_owned();
        Ok(Plane {
            cluster,
            gateway: text("gateway"),
            parent: facts["parentRef"].clone(),
            prometheus: text("prometheus"),
            programs,
        })
    }

    /// The URL of Prometheus, for a daemon.
    pub fn prometheus(&self) -> &str {
        &self.prometheus
    }

    /// A program that was built with the node.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A namespace of it. When the test fails, what became of its pods is printed.
    pub async fn space(&'static self, test: &str) -> Space {
        Space::of(self.cluster, test).await
    }

    /// Asks the gateway once. Answers the status and the headers, by their names in lower case.
    pub async fn get(&self, host: &str, path: &str) -> Result<(u16, BTreeMap<String, String>), String> {
        let (status, headers, _) = get(&self.gateway, host, path).await?;
        Ok((status, headers))
    }

    /// Asks a pod itself, by its address: past the gateway and its Service.
    pub async fn ask(&self, pod: &str, path: &str) -> Result<(), String> {
        match get(&format!("http://{pod}:8080"), pod, path).await? {
            (200, ..) => Ok(()),
            other => Err(format!("{pod}{path}: {other:?}")),
        }
    }

    /// The answer of Prometheus to an instant query: the labels and the value of each series.
    pub async fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let escaped: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        let (_, _, body) =
            get(&self.prometheus, "prometheus", &format!("/api/v1/query?query={escaped}")).await?;
        let answer: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
        let result = answer["data"]["result"].as_array().ok_or(body)?;
        Ok(result
            .iter()
            .map(|r| (r["metric"].clone(), r["value"][1].as_str().and_then(|v| v.parse().ok()).unwrap()))
            .collect())
    }

    /// The value of the only series that a query answers.
    pub async fn value(&self, query: &str) -> Result<f64, String> {
        match self.query(query).await?.as_slice() {
            [(_, value)] if value.is_finite() => Ok(*value),
            other => Err(format!("{query}: {other:?}")),
        }
    }

    /// What Envoy noted of requests to a host that it has no good answer to: the status, why, and the backend. It writes
    /// that down each 10 seconds.
    pub fn failures(&self, host: &str) -> Vec<String> {
        let log = fs::read_to_string(self.cluster.dir.join("envoy.log")).unwrap_or_default();
        let failed = |line: &&str| {
            let status =
                line.split("\" ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
            line.contains(&format!("\"{host}\"")) && status.is_none_or(|status| status == 0 || status >= 500)
        };
        log.lines().filter(failed).map(str::to_owned).collect()
    }

    /// Another cluster beside this one, to be started by a test that ends it, with `run` or `up`.
    pub fn another(&self, verb: &str, dir: &Path) -> Command {
        let mut command = Command::new(binary());
        command.args([verb, "--real", "--dir"]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    /// Stops and removes what was left of another one.
    pub fn down(&self, dir: &Path) -> Command {
        let mut command = Command::new(binary());
        command.args(["down", "--real", "--dir"]).arg(dir).stdin(Stdio::null());
        command
    }

    /// Prints, when the test fails, what became of the pods of a namespace and what the node said last.
    pub fn told(&'static self, space: &Space) -> Told {
        Told { plane: self, namespace: space.name.clone() }
    }
}

/// See [`Plane::told`].
pub struct Told {
    plane: &'static Plane,
    namespace: String,
}

impl Drop for Told {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let pods = block_on(async {
            let client = self.plane.cluster.connect().await.client;
            let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
            try_send(&client, "GET", &path, &Value::Null).await.unwrap_or(Value::Null)
        });
        eprintln!("--- pods of {}", self.namespace);
        for pod in pods["items"].as_array().into_iter().flatten() {
            eprintln!("{}: {}", pod["metadata"]["name"], pod["status"]);
        }
        for component in ["kubelet", "contour", "envoy", "prometheus", "metrics-server", "real"] {
            let file = self.plane.cluster.dir.join(format!("{component}.log"));
            let text = fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- {component}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

/// A plain request, for which no client is needed: the answer ends with the connection.
async fn get(url: &str, host: &str, path: &str) -> Result<(u16, BTreeMap<String, String>, String), String> {
    let address = url.strip_prefix("http://").unwrap();
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(super::cluster::SOON, ask).await;
    let answer = answer.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| answer.clone())?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| head.to_owned())?;
    let headers: BTreeMap<String, String> = head
        .lines()
        .filter_map(|l| l.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let body = if headers.get("transfer-encoding").is_some_and(|e| e == "chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Ok((status, headers, body))
}

/// Puts a body together that was sent in chunks, each after a line with its length.
fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || rest.len() < length {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// A Deployment of the test's server, as JSON. The image's tag says how it behaves.
pub fn server(name: &str, tag: &str, replicas: u32) -> Value {
    // Once ready it stays so while the machine stalls: a probe that comes late says nothing of the program, and each request
    // would be answered with 503.
    let probe = json!({
        "httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 60,
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"prometheus.io/scrape": "true"}},
                "spec": {"containers": [{
                    "name": "app",
                    "image": format!("registry.example.com/{name}:{tag}"),
                    "ports": [{"containerPort": 8080}],
                    "readinessProbe": probe,
                }]},
            },
        },
    })
}

/// The Service of a [`server`]; with `h2c` as protocol for gRPC.
pub fn service(name: &str, protocol: &str) -> Value {
    let port = json!({"name": "web", "port": 80, "targetPort": 8080, "appProtocol": protocol});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [port]},
    })
}
