//! A real control plane for the tests, shared by all of one process, and a namespace of its own for each test.
//!
//! `tests/cluster` builds `target/cluster/testcluster` (once; minutes, with progress shown). The first test that asks
//! starts `testcluster run`, which ends itself when this process is gone, for its standard input closes then.
//! With `WINDLASS_TEST_KUBECONFIG` a cluster that runs already is taken (`just cluster`); its audit log is looked for
//! beside the kubeconfig.
//!
//! A client belongs to the runtime whose tasks drive its connections: each `#[tokio::test]` makes its own.
#![allow(dead_code)]

use serde_json::{Value, json};
use std::fs::{self, File};
use std::future::Future;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once, OnceLock};
use std::time::{Duration, Instant};
use windlass::cluster::{Access, ConnectOptions, Connection, Discovery, Resource, ServiceAccount};
use windlass::core::manifest::Gvk;

/// How long a cluster may take to start, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(300);

/// How long a test waits for something that takes a second at most on a quiet machine.
pub const SOON: Duration = Duration::from_secs(180);

/// A control plane.
pub struct Cluster {
    /// Its kubeconfig, with an administrator's token.
    pub kubeconfig: PathBuf,
    /// Its directory: logs, pid files, the audit log.
    pub dir: PathBuf,
    child: Option<Mutex<Child>>,
    real: bool,
}

/// The cluster that the tests of this process share. Nobody stops, pauses or throttles it.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    tell_failures_at_once();
    SHARED.get_or_init(|| match std::env::var_os("WINDLASS_TEST_KUBECONFIG") {
        Some(file) => {
            let kubeconfig = PathBuf::from(file);
            let dir = kubeconfig.parent().map(Path::to_path_buf).unwrap_or_default();
            Cluster { kubeconfig, dir, child: None, real: false }
        }
        None => Cluster::start(),
    })
}

/// The harness shows what a test that failed has said once all have ended: of a run that is cut off, nobody would learn why.
fn tell_failures_at_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |failure| {
            let name = std::thread::current().name().unwrap_or("a thread").to_owned();
            // Not by `eprintln!`, which the harness keeps.
            let _ = writeln!(std::io::stderr(), "FAILED: {name}: {failure}");
            before(failure);
        }));
    });
}

impl Cluster {
    /// Starts a cluster of its own, for a test that stops, pauses or throttles it. Ends with the process, or with
    /// [`Cluster::stop`].
    pub fn own() -> &'static Self {
        Box::leak(Box::new(Cluster::start()))
    }

    /// Ends a cluster of one's own.
    pub fn stop(&self) {
        if let Some(child) = &self.child {
            let mut child = child.lock().unwrap();
            drop(child.stdin.take());
            let _ = child.wait();
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    /// A cluster of its own whose API server takes another's word for who asks: that of [`Cluster::serve_behind`].
    pub fn own_behind(front: &Cluster) -> &'static Self {
        let authority = front.dir.join("pki/front-proxy-ca.crt");
        let authority = format!("--requestheader-client-ca-file={}", authority.display());
        let authority = format!("--apiserver-arg={authority}");
        Box::leak(Box::new(Cluster::begin(&binary(), false, &["--nodes=0", &authority])))
    }

    /// Has this API server pass on what is asked of a group's version to the API server of another cluster, for everybody.
    pub async fn serve_behind(&self, group: &str, version: &str, behind: &Cluster) {
        let client = &self.connect().await.client;
        let server: http::Uri = behind.connect().await.server.parse().unwrap();
        let port = server.port_u16();
        // No address in a Service's endpoints may be loopback; a name may stand for one.
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "behind", "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        send(client, "POST", "/api/v1/namespaces/default/services", &service).await;
        let name = format!("{version}.{group}");
        let registered = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
            "spec": {
                "group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 10,
                "service": {"name": "behind", "namespace": "default", "port": port}, "insecureSkipTLSVerify": true,
            },
        });
        send(client, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", &registered).await;
    }

    /// Starts a cluster of its own, to be stopped with [`Cluster::stop`].
    pub fn start() -> Self {
        Cluster::begin(&binary(), false, &[])
    }

    /// Starts one with a real node, for `support::plane`.
    pub(super) fn start_real(binary: &Path) -> Self {
        Cluster::begin(binary, true, &[])
    }

    fn begin(binary: &Path, real: bool, more: &[&str]) -> Self {
        tell_failures_at_once();
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster");
        fs::create_dir_all(&root).unwrap();
        sweep(&root);
        let dir = root.join(format!("{}-{}", std::process::id(), suffix()));
        fs::create_dir_all(&dir).unwrap();
        let log = File::create(dir.join("testcluster.log")).unwrap();
        let child = Command::new(binary)
            .arg("run")
            .args(real.then_some("--real"))
            .args(more)
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", binary.display()));
        let cluster =
            Cluster { kubeconfig: dir.join("kubeconfig"), dir, child: Some(Mutex::new(child)), real };
        cluster.wait_ready();
        cluster
    }

    fn wait_ready(&self) {
        let begin = Instant::now();
        let mut last = String::from("no kubeconfig yet");
        while begin.elapsed() < START_LIMIT {
            if let Some(ended) = self.child.as_ref().and_then(|c| c.lock().unwrap().try_wait().unwrap()) {
                panic!("testcluster ended ({ended}):\n{}", self.log());
            }
            // It says so itself, too: a component that is killed before that ends it, and all the others.
            if self.says_ready() && self.kubeconfig.exists() {
                match block_on(self.ready()) {
                    Ok(()) => return,
                    Err(e) => last = e,
                }
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("the cluster in {} is not ready: {last}\n{}", self.dir.display(), self.log());
    }

    fn says_ready(&self) -> bool {
        let log = fs::read_to_string(self.dir.join("testcluster.log")).unwrap_or_default();
        self.child.is_none() || log.lines().any(|line| line.starts_with("ready "))
    }

    /// Ready: the API server says so, and what every pod and every test needs is there.
    async fn ready(&self) -> Result<(), String> {
        let options =
            ConnectOptions { kubeconfig: Some(self.kubeconfig.clone()), ..ConnectOptions::default() };
        let client = Connection::open(&options).await.map_err(|e| e.to_string())?.client;
        let request = http::Request::get("/readyz").body(vec![]).unwrap();
        client.request_text(request).await.map_err(|e| e.to_string())?;
        let path = "/api/v1/namespaces/default/serviceaccounts/default";
        let request = http::Request::get(path).body(vec![]).unwrap();
        client.request_text(request).await.map(|_| ()).map_err(|e| e.to_string())
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("testcluster.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// A connection as the daemon makes it, on this test's runtime.
    pub async fn connect(&self) -> Connection {
        let options =
            ConnectOptions { kubeconfig: Some(self.kubeconfig.clone()), ..ConnectOptions::default() };
        Connection::open(&options).await.unwrap()
    }

    /// What `testcluster` noted about the process of a component (`kube-apiserver`, `etcd`, ...).
    fn process(&self, component: &str) -> Value {
        assert!(!self.real, "the processes of a real node's cluster have numbers of their own");
        let text = fs::read_to_string(self.dir.join("pids.json")).unwrap();
        let pids: Value = serde_json::from_str(&text).unwrap();
        let found = pids["processes"].as_array().unwrap().iter().find(|p| p["name"] == component);
        found.unwrap_or_else(|| panic!("no {component} in {text}")).clone()
    }

    /// Sends a signal (`STOP`, `CONT`, `KILL`) to a component of a cluster of one's own.
    pub fn signal(&self, component: &str, signal: &str) {
        assert!(self.child.is_some(), "the shared cluster is left alone");
        let pid = self.process(component)["pid"].to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Kills the API server. It stays away until the answer is used.
    pub fn kill_api_server(&self) -> Stopped {
        self.kill("kube-apiserver", "Serving securely")
    }

    /// Kills what plays the pods. It goes on where it stopped, at once: one that only lost the server for a minute
    /// tries again what failed after ever longer pauses.
    pub fn kill_pod_player(&self) -> Stopped {
        self.kill("kwok", "Watch nodes")
    }

    /// Has the controllers leave a node alone that was not heard of for a while: its pods would be called unready, and
    /// what plays them would not take that back.
    pub fn be_patient_with_nodes(&self) -> Restarted {
        let mut stopped = self.kill("kube-controller-manager", "Serving securely");
        stopped.args.push("--node-monitor-grace-period=1h".into());
        stopped.start()
    }

    /// Has the controllers give a node up soon: after longer than its next sign of life takes.
    pub fn be_impatient_with_nodes(&self) -> Restarted {
        let mut stopped = self.kill("kube-controller-manager", "Serving securely");
        let soon = ["--node-monitor-grace-period=15s", "--node-monitor-period=1s"];
        stopped.args.extend(soon.map(String::from));
        stopped.start()
    }

    /// Kills a component; `runs` is what it logs when it runs.
    fn kill(&self, component: &str, runs: &'static str) -> Stopped {
        let args = self.process(component)["args"].as_array().unwrap().clone();
        self.signal(component, "KILL");
        let log = self.dir.join(format!("{component}-again.log"));
        Stopped { log, runs, args: args.iter().map(|a| a.as_str().unwrap().to_string()).collect() }
    }

    /// The audit log from now on.
    pub fn audit(&self) -> Audit {
        let file = self.dir.join("audit.log");
        let from = fs::metadata(&file).map(|m| m.len()).unwrap_or(0);
        Audit { file, from, since: jiff::Timestamp::now() }
    }
}

/// A component that was killed.
#[derive(Clone)]
pub struct Stopped {
    args: Vec<String>,
    runs: &'static str,
    log: PathBuf,
}

impl Stopped {
    /// Starts it again as it was; it ends when the answer is dropped.
    pub fn start(self) -> Restarted {
        // Its port may be taken for a moment: whoever tries to connect to a port that nobody listens on may be given
        // this very port to connect from.
        loop {
            let log = File::create(&self.log).unwrap();
            // Ends with this process, however that ends: its standard input closes then.
            let script = "exec 3<&0; \"$0\" \"$@\" </dev/null & server=$!; \
                          (read -r _ <&3; kill -9 $server) & wait $server; kill $! 2>/dev/null";
            let mut command = Command::new("sh");
            command.args(["-c", script]).arg(binary()).args(&self.args);
            let child = command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
            let mut child = child.unwrap();
            while child.try_wait().unwrap().is_none() {
                if fs::read_to_string(&self.log).unwrap_or_default().contains(self.runs) {
                    return Restarted { child: Some(child), again: self };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A component that was started again.
pub struct Restarted {
    child: Option<Child>,
    again: Stopped,
}

impl Restarted {
    /// Kills it once more.
    pub fn kill(mut self) -> Stopped {
        self.end();
        self.again.clone()
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        self.end();
    }
}

/// Removes what processes that are gone have left (a shared cluster's directory outlives its process).
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.split('-').next().and_then(|p| p.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() && Path::new("/proc/self").exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

/// The cluster's binary; built first if it is not there or its sources changed. One process builds, the others wait.
pub(super) fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("testcluster", &[])).clone()
}

/// What a real node needs besides; built first as [`binary`] is. Answers the folder.
pub(super) fn real_programs() -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let build = || build("real/realnode", &["real"]).parent().unwrap().to_path_buf();
    PROGRAMS.get_or_init(build).clone()
}

/// Has a program built, with what else these parts of the build make.
fn build(program: &str, parts: &[&str]) -> PathBuf {
    let dir = target().join("cluster");
    let binary = dir.join(program);
    // A link leads to what another checkout built; that one keeps it up to date.
    if dir.is_symlink() && binary.exists() {
        return binary;
    }
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join(".lock")).unwrap();
    lock.lock().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/build.sh");
    let build =
        Command::new(&script).arg(&dir).args(parts).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut build = build.unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    let lines = BufReader::new(build.stdout.take().unwrap()).lines().map_while(Result::ok);
    for line in lines.filter(|line| !line.ends_with("is up to date")) {
        // Not `eprintln!`: the test harness would keep it to itself.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    let status = build.wait().unwrap();
    assert!(status.success(), "{} failed: {status}", script.display());
    binary
}

/// A random end of a name.
pub fn suffix() -> String {
    (0..6).map(|_| fastrand::char('a'..='z')).collect()
}

/// Runs a future on a thread and a runtime of its own: usable in `Drop`, inside of a runtime or not.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(run).join().unwrap()
    })
}

/// A namespace of a test, gone when dropped, and what a test does in it.
pub struct Space {
    /// Its name.
    pub name: String,
    /// The cluster that it is in.
    pub cluster: &'static Cluster,
    /// A connection as the daemon makes it.
    pub connection: Connection,
    /// What the cluster serves, asked already.
    pub discovery: Discovery,
    /// As the daemon itself.
    pub access: Access,
    cluster_objects: Vec<String>,
}

impl Space {
    /// A new namespace of the shared cluster, named after the test.
    pub async fn new(test: &str) -> Self {
        Space::of(shared(), test).await
    }

    /// A new namespace of a cluster of one's own.
    pub async fn of(cluster: &'static Cluster, test: &str) -> Self {
        let connection = cluster.connect().await;
        let name = format!("{test}-{}", suffix());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        // The first connection of many tests at once may take longer than a connection is given.
        wait_until("a namespace is made", START_LIMIT, || async {
            match try_send(&connection.client, "POST", "/api/v1/namespaces", &namespace).await {
                Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
                made => made.map(|_| ()).map_err(|e| format!("{e}: {e:?}")),
            }
        })
        .await;
        let discovery = Discovery::new(connection.client.clone());
        wait_until("the cluster's kinds are read", START_LIMIT, || async {
            discovery.refresh().await.map_err(|e| e.to_string())
        })
        .await;
        let access = connection.access(None);
        Space { name, cluster, connection, discovery, access, cluster_objects: Vec::new() }
    }

    /// A kind that the cluster serves.
    pub fn resource(&self, api_version: &str, kind: &str) -> Resource {
        let gvk = Gvk::new(api_version, kind);
        self.discovery.resource(&gvk).unwrap_or_else(|| panic!("the cluster does not serve {gvk}"))
    }

    /// The path of a collection or an object in this namespace, such as `/api/v1/namespaces/x/configmaps`.
    pub fn path(&self, api_version: &str, plural: &str) -> String {
        let root = if api_version.contains('/') { "apis" } else { "api" };
        format!("/{root}/{api_version}/namespaces/{}/{plural}", self.name)
    }

    /// A request in the test's own name (`windlass-test` in the audit log); fails the test if it is refused.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        send(&self.connection.client, method, path, body).await
    }

    /// A service account of this namespace with these rules (as in a Role), and a connection in its name.
    pub async fn account(&self, name: &str, rules: Value) -> ServiceAccount {
        let meta = json!({"name": name});
        let account = json!({"metadata": meta});
        self.send("POST", &self.path("v1", "serviceaccounts"), &account).await;
        if rules.as_array().is_some_and(|r| !r.is_empty()) {
            let first = rules[0].clone();
            self.grant(name, rules).await;
            self.wait_granted(name, &first).await;
        }
        ServiceAccount { namespace: self.name.clone(), name: name.into() }
    }

    /// Gives an account of this namespace a Role with these rules.
    pub async fn grant(&self, account: &str, rules: Value) {
        let rbac = "rbac.authorization.k8s.io/v1";
        let name = format!("{account}-{}", suffix());
        let role = json!({"metadata": {"name": name}, "rules": rules});
        self.send("POST", &self.path(rbac, "roles"), &role).await;
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.name}],
        });
        self.send("POST", &self.path(rbac, "rolebindings"), &binding).await;
    }

    /// Waits until an account of this namespace has what a rule gives: who decides learns of a role a moment after it was made.
    async fn wait_granted(&self, account: &str, rule: &Value) {
        let first = |field: &str| rule[field][0].as_str().unwrap_or_default().to_owned();
        let attributes = json!({
            "namespace": self.name, "verb": first("verbs"), "group": first("apiGroups"), "resource": first("resources"),
            "name": first("resourceNames"),
        });
        let asked = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:{}:{account}", self.name), "resourceAttributes": attributes,
            },
        });
        wait_until(&format!("{account} has its rights"), SOON, || async {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let answer = self.send("POST", path, &asked).await;
            if answer["status"]["allowed"] == true { Ok(()) } else { Err(answer["status"].to_string()) }
        })
        .await;
    }

    /// Makes a cluster-scoped object in a collection (such as a CRD) that goes when the test does.
    pub async fn make_cluster_object(&mut self, collection: &str, object: &Value) {
        self.send("POST", collection, object).await;
        self.forget_later(&format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap()));
    }

    /// Has the cluster-scoped object at this path deleted when the test ends.
    pub fn forget_later(&mut self, path: &str) {
        self.cluster_objects.push(path.to_string());
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let paths = self.cluster_objects.drain(..).chain([format!("/api/v1/namespaces/{}", self.name)]);
        let paths: Vec<String> = paths.collect();
        let cluster = self.cluster;
        block_on(async move {
            let client = cluster.connect().await.client;
            for path in paths {
                let request = request("DELETE", &path, &Value::Null);
                let _ = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
            }
        });
    }
}

/// How tests show up in the audit log, to be told from what they test.
pub const TEST_AGENT: &str = "windlass-test";

fn request(method: &str, path: &str, body: &Value) -> http::Request<Vec<u8>> {
    let (method, kind) = match method {
        "APPLY" => ("PATCH", "application/apply-patch+yaml"),
        "PATCH" if body.is_array() => (method, "application/json-patch+json"),
        "PATCH" => (method, "application/merge-patch+json"),
        _ => (method, "application/json"),
    };
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .header("user-agent", TEST_AGENT)
        .body(body)
        .unwrap()
}

/// A raw request (a PATCH with an array is a JSON patch, otherwise a merge patch; APPLY is a server-side apply); fails the test if refused.
pub async fn send(client: &kube::Client, method: &str, path: &str, body: &Value) -> Value {
    match try_send(client, method, path, body).await {
        Ok(value) => value,
        // With its causes: that no connection was had says little.
        Err(e) => panic!("{method} {path}: {e}: {e:?}"),
    }
}

/// A raw request in the test's own name. Sent again where it surely did not arrive: a busy machine may take longer for a
/// connection than one is given.
pub async fn try_send(client: &kube::Client, method: &str, path: &str, body: &Value) -> kube::Result<Value> {
    for _ in 0..5 {
        match client.request(request(method, path, body)).await {
            Err(error) if never_sent(&error) => {}
            answer => return answer,
        }
    }
    client.request(request(method, path, body)).await
}

fn never_sent(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let client = error.downcast_ref::<hyper_util::client::legacy::Error>();
        if client.is_some_and(hyper_util::client::legacy::Error::is_connect) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Waits until an object is gone: another refusal or a lost connection does not say so.
pub async fn wait_gone(client: &kube::Client, path: &str, limit: Duration) {
    wait_until(&format!("{path} is gone"), limit, || async {
        match try_send(client, "GET", path, &Value::Null).await {
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Asks again until the answer is `Ok`; fails the test with the last `Err` (the state seen) after `limit`.
pub async fn wait_until<T, F, Fut>(what: &str, limit: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let begin = Instant::now();
    let mut last = String::from("nothing was seen");
    while begin.elapsed() < limit {
        match tokio::time::timeout(limit.saturating_sub(begin.elapsed()), ask()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => last = state,
            Err(_) => last = format!("{last} (and the last look did not end)"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within {}s; last seen: {last}", limit.as_secs());
}

/// One request in the audit log.
#[derive(Clone, Debug)]
pub struct Audited {
    /// Groups the entries of one request.
    pub id: String,
    /// The client's name.
    pub agent: String,
    /// Who asked, after impersonation.
    pub user: String,
    /// `get`, `list`, `watch`, `patch`, ...
    pub verb: String,
    /// The resource, such as `configmaps`; empty for discovery.
    pub resource: String,
    /// `status` where only that was meant, otherwise empty.
    pub subresource: String,
    /// The namespace, `""` for the cluster.
    pub namespace: String,
    /// The object's name, `""` for a collection.
    pub name: String,
    /// Path and query.
    pub uri: String,
    /// The HTTP status.
    pub code: u64,
    /// When it was answered.
    pub at: String,
}

impl Audited {
    /// Whether nothing was meant to change.
    pub fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch") || self.uri.contains("dryRun=All")
    }
}

/// The audit log from a point in time on.
pub struct Audit {
    file: PathBuf,
    from: u64,
    since: jiff::Timestamp,
}

impl Audit {
    /// The requests since then by clients whose name begins with this, each once.
    pub fn by_agent(&self, agent: &str) -> Vec<Audited> {
        self.all().into_iter().filter(|r| r.agent.starts_with(agent)).collect()
    }

    /// The daemon's requests since then that concern a namespace (its objects, or itself).
    pub fn in_namespace(&self, namespace: &str) -> Vec<Audited> {
        let mut found = self.by_agent("windlass/");
        found.retain(|r| r.namespace == namespace);
        found
    }

    /// All requests since then, each once.
    pub fn all(&self) -> Vec<Audited> {
        let Ok(mut file) = File::open(&self.file) else { return Vec::new() };
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut found: Vec<Audited> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            // The last line may be half written.
            let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
            let text =
                |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string();
            // An entry may be written after the answer that a test has waited for.
            let earlier = |at: jiff::Timestamp| at < self.since;
            if text("/requestReceivedTimestamp").parse().is_ok_and(earlier) || !seen.insert(text("/auditID"))
            {
                continue;
            }
            let impersonated = text("/impersonatedUser/username");
            found.push(Audited {
                id: text("/auditID"),
                agent: text("/userAgent"),
                user: if impersonated.is_empty() { text("/user/username") } else { impersonated },
                verb: text("/verb"),
                resource: text("/objectRef/resource"),
                subresource: text("/objectRef/subresource"),
                namespace: text("/objectRef/namespace"),
                name: text("/objectRef/name"),
                uri: text("/requestURI"),
                code: entry.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0),
                at: text("/stageTimestamp"),
            });
        }
        found
    }
}
