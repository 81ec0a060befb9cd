//! The demo on a real node: a release that passes its canary and one that is rolled back, under requests through a real proxy,
//! with what became of them drawn second by second.

use super::{Demo, HOME, LIMIT, say, title};
use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use windlass::api::Delivery;
use windlass::api::delivery::Phase;
use windlass::cluster::{ConnectOptions, Connection};

/// Requests a second.
const RATE: &str = "100";

/// The host that the gateway knows the shop by.
const HOST: &str = "shop.test";

/// Columns of the drawn split.
const WIDTH: u64 = 40;

/// Whether this machine can have a real node; why not, in words.
pub fn check(binary: &Path) -> anyhow::Result<()> {
    let output = Command::new(binary).args(["check", "--real"]).output()?;
    if !output.status.success() {
        bail!("no real node here: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The program that sends requests.
fn load_program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/real/load")
}

/// A stream of requests through the gateway. It ends when this is dropped.
struct Load {
    child: Child,
    seconds: Receiver<Value>,
}

impl Load {
    fn start(gateway: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(load_program())
            .args(["--url", gateway, "--host", HOST, "--rate", RATE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the load generator cannot be run")?;
        let out = BufReader::new(child.stdout.take().context("no output")?);
        let (tell, seconds) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let Ok(second) = serde_json::from_str(&line) else { continue };
                if tell.send(second).is_err() {
                    return;
                }
            }
        });
        Ok(Load { child, seconds })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Shows it, in the cluster that has been started.
pub fn show(demo: &mut Demo) -> anyhow::Result<()> {
    let facts = std::fs::read_to_string(demo.scratch.path().join("cluster/real.json"))?;
    let facts: Value = serde_json::from_str(&facts)?;
    let text = |name: &str| facts[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let (gateway, prometheus) = (text("gateway")?, text("prometheus")?);

    title("A service behind a gateway");
    say(
        "One real node: kubelet, containerd, Envoy steered by the Gateway API, Prometheus. The directory holds a Deployment, its \
         Service, its route, and how a new revision is rolled out.",
    );
    demo.quietly("git", &["init", "-q", "--bare", "-b", "main", "config.git"], ".")?;
    demo.quietly("git", &["clone", "-q", "config.git", "work"], ".")?;
    std::fs::create_dir_all(demo.scratch.path().join("work/apps/shop"))?;
    demo.write("apps/shop/web.yaml", &manifests(&facts["parentRef"]))?;
    demo.write("apps/shop/windlass.yaml", &rollout(&prometheus))?;
    demo.run("cat apps/shop/windlass.yaml", "work")?;
    let commit = demo.commit("Ada", "Shop: first version")?;
    demo.start()?;
    demo.wait_commit(Phase::Ready, &commit)?;
    let load = Load::start(&gateway)?;

    title("1. A release that is good");
    demo.edit("apps/shop/web.yaml", "web:v1", "web:v2")?;
    let commit = demo.commit("Ada", "Shop: second version")?;
    say("\nEach line is a second of requests: █ the version that ran, ▒ the new one.\n");
    let (requests, failed) = draw(demo, &load, ("v1", "v2"), Phase::Ready, &commit)?;
    say(&format!("\nPromoted. {failed} of {requests} requests failed."));
    demo.windlass("history shop")?;

    title("2. A release that fails half of its requests");
    demo.edit("apps/shop/web.yaml", "web:v2", "web:errors")?;
    let commit = demo.commit("Bob", "Shop: third version")?;
    say("");
    let (requests, failed) = draw(demo, &load, ("v2", "errors"), Phase::Held, &commit)?;
    say(&format!(
        "\nTaken back by itself. {failed} of {requests} requests failed; what ran before was not touched."
    ));
    demo.windlass("status")?;
    Ok(())
}

/// Draws the requests of each second until a commit has come to this.
fn draw(
    demo: &Demo,
    load: &Load,
    (old, new): (&str, &str),
    phase: Phase,
    commit: &str,
) -> anyhow::Result<(u64, u64)> {
    let options = ConnectOptions { kubeconfig: demo.kubeconfig.clone(), ..ConnectOptions::default() };
    let connection = demo.runtime.block_on(Connection::open(&options))?;
    let api: kube::Api<Delivery> = kube::Api::namespaced(connection.client.clone(), HOME);
    // What was sent before belongs to nobody.
    while load.seconds.try_recv().is_ok() {}
    let (mut requests, mut failed) = (0, 0);
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if demo.interrupted.load(Ordering::Relaxed) {
            bail!("it was interrupted");
        }
        let second = load.seconds.recv_timeout(Duration::from_secs(15)).context("no answers")?;
        let delivery = demo.runtime.block_on(api.get_opt("shop")).ok().flatten();
        let status = delivery.and_then(|d| d.status).unwrap_or_default();
        requests += second["requests"].as_u64().unwrap_or(0);
        failed += second["failed"].as_u64().unwrap_or(0);
        println!("{}", line(&second, old, new, &doing(&status)));
        if status.phase == phase && status.revision.as_ref().is_some_and(|r| r.ends_with(commit)) {
            return Ok((requests, failed));
        }
    }
    bail!("the Delivery shop is not {phase:?} after {} s", LIMIT.as_secs())
}

/// A second of requests as a line.
fn line(second: &Value, old: &str, new: &str, doing: &str) -> String {
    let of = |version: &str| -> u64 {
        let counts = second["counts"].as_object().into_iter().flatten();
        let its = counts.filter(|(key, _)| key.rsplit_once(' ').is_some_and(|(_, v)| v == version));
        its.filter_map(|(_, count)| count.as_u64()).sum()
    };
    let (with_old, with_new) = (of(old), of(new));
    let all = (with_old + with_new).max(1);
    // Whoever gets anything is seen.
    let columns = ((with_new * WIDTH).div_ceil(all)).min(WIDTH);
    let bar = |letter: &str, count: u64| letter.repeat(usize::try_from(count).unwrap_or(0));
    let failed = match second["failed"].as_u64().unwrap_or(0) {
        0 => String::new(),
        failed => format!("{failed} failed"),
    };
    format!(
        "{old:>3} {}{} {new:<7} {:>3}%  {failed:<9}  {doing}",
        bar("█", WIDTH - columns),
        bar("▒", columns),
        with_new * 100 / all,
    )
}

/// What the Delivery does, in a few words.
fn doing(status: &windlass::api::DeliveryStatus) -> String {
    let rollout = status.attempt.as_ref().and_then(|attempt| attempt.rollout.as_ref());
    match rollout {
        Some(rollout) => format!("{:?}, {:?}", status.phase, rollout.stage),
        None => format!("{:?}", status.phase),
    }
}

fn rollout(prometheus: &str) -> String {
    format!(
        "\
rollout:
  strategy: Canary
  workload: {{name: web}}
  router: {{gatewayAPI: {{route: web}}}}
  steps: [{{weight: 10}}, {{analysis: {{count: 3}}}}, {{weight: 50}}, {{pause: 5s}}]
  settle: 2s
  analysis:
    interval: 2s
    initialDelay: 4s
    failureLimit: 1
    metrics:
    - name: success-rate
      prometheus: {{address: \"{prometheus}\", builtin: request-success-rate, window: 10s}}
"
    )
}

fn manifests(parent: &Value) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: app
        image: registry.example.com/web:v1
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: web, port: 80, targetPort: 8080, appProtocol: http}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{parent}]
  hostnames: [{HOST}]
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
"
    )
}
