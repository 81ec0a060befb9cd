//! The real daemon, as a process, for one test: with a namespace, an installation and a cache of its own, delivering a
//! config repository on this machine. Its log is printed when the test fails.
#![allow(dead_code)]

use super::cluster::{Audit, Audited, Cluster, Space, block_on, suffix, wait_until};
use super::faults::Faults;
use super::git::{Repo, git};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use windlass::api::delivery::Phase;
use windlass::api::drift_report::DriftReportSpec;
use windlass::api::{Delivery, DriftReport, Repository};
use windlass::cluster::crds;

/// Whether the daemon writes there about itself: its own resources, its Events, its Lease, what adopted objects were like.
fn is_own(request: &Audited) -> bool {
    let all = [
        "deliveries",
        "repositories",
        "applications",
        "controllerrevisions",
        "driftreports",
        "events",
        "leases",
    ];
    let adopted = request.resource == "secrets" && request.name.ends_with(".windlass-adopted");
    adopted || all.contains(&request.resource.as_str())
}

/// Longer than anything that is waited for takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A daemon, what it watches and what it delivers from.
pub struct World {
    /// The namespace of everything.
    pub space: Space,
    /// The config repository.
    pub repo: Repo,
    /// Arguments of `windlass run` besides those that separate the tests from each other.
    pub arguments: Vec<String>,
    /// Its environment besides ours.
    pub environment: Vec<(&'static str, String)>,
    /// Whether it acts on all namespaces; only in a cluster of one's own.
    pub everywhere: bool,
    /// Whether it waits for what is away, and for the Lease, as in a pod: an API server that a busy machine keeps from
    /// answering does not end it.
    pub patient: bool,
    /// The name of its installation.
    pub installation: String,
    /// How long anything is waited for.
    pub limit: Duration,
    scratch: tempfile::TempDir,
    daemon: Option<Child>,
}

impl World {
    /// A namespace and an empty repository; the daemon is not started.
    pub async fn stopped(test: &str) -> Self {
        World::in_space(Space::new(test).await).await
    }

    /// The same in a cluster of one's own, for a test that makes it fail.
    pub async fn stopped_in(cluster: &'static Cluster, test: &str) -> Self {
        World::in_space(Space::of(cluster, test).await).await
    }

    async fn in_space(space: Space) -> Self {
        // Applied by each test: the same definitions, so only the first one changes anything.
        wait_until("our definitions are installed", LIMIT, || async {
            let ours = windlass::api::crds();
            let installed = crds::install(&space.access, &space.discovery, &ours, LIMIT).await;
            installed.map_err(|e| e.to_string())
        })
        .await;
        let repo = Repo::empty();
        repo.git(&["config", "user.name", "Ada"]);
        World {
            space,
            repo,
            arguments: Vec::new(),
            environment: Vec::new(),
            everywhere: false,
            patient: true,
            installation: suffix(),
            limit: LIMIT,
            scratch: tempfile::tempdir().unwrap(),
            daemon: None,
        }
    }

    /// A namespace, an empty repository and a running daemon.
    pub async fn new(test: &str) -> Self {
        let mut world = World::stopped(test).await;
        world.start();
        world
    }

    /// Has the daemon reach the API server through faults from its next start on; there are none yet.
    pub async fn behind_faults(&mut self) -> Faults {
        let faults = Faults::before(self.space.cluster).await;
        self.arguments = vec!["--kubeconfig".into(), faults.kubeconfig.to_str().unwrap().into()];
        faults
    }

    /// Starts the daemon.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let more = if self.patient { &["--standby"][..] } else { &[] };
        self.daemon = Some(self.spawn_with(more, &self.installation, "cache"));
    }

    /// Another daemon with the same log, for whoever starts it to end.
    pub fn spawn(&self, installation: &str, cache: &str) -> Child {
        self.spawn_with(&[], installation, cache)
    }

    fn spawn_with(&self, more: &[&str], installation: &str, cache: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let watched = ["--watch-namespace", &self.space.name];
        let watched = if self.everywhere { &[] } else { &watched[..] };
        Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(["run", "--namespace", &self.space.name])
            .args(watched)
            .args(more)
            .args([
                "--installation",
                installation,
                "--log-level",
                "info,windlass=debug",
                "--log-format",
                "text",
            ])
            .arg("--cache-dir")
            .arg(self.file(cache))
            .args(&self.arguments)
            .env("KUBECONFIG", &self.space.cluster.kubeconfig)
            .env("WINDLASS_KUSTOMIZE", super::rendering::kustomize())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Sends a signal (`STOP`, `CONT`, `TERM`) to the daemon.
    pub fn signal(&self, signal: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Waits until the daemon has ended by itself. Answers how.
    pub async fn wait_ended(&mut self, what: &str) -> ExitStatus {
        let mut child = self.daemon.take().unwrap();
        wait_until(what, LIMIT, || {
            let ended = child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned());
            async { ended }
        })
        .await
    }

    /// The daemon that runs, to be ended by whoever takes it.
    pub fn take(&mut self) -> Child {
        self.daemon.take().unwrap()
    }

    /// A file of this test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The name of this daemon's installation.
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// Kills the daemon as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills the daemon and starts it again. Its Lease is given away, as if it had run out.
    pub async fn restart(&mut self) {
        self.kill();
        self.give_away().await;
        self.start();
    }

    /// Deletes the Lease, as if it had run out.
    pub async fn give_away(&self) {
        let lease =
            format!("{}/windlass-{}", self.space.path("coordination.k8s.io/v1", "leases"), self.installation);
        let _ = super::cluster::try_send(&self.space.connection.client, "DELETE", &lease, &Value::Null).await;
    }

    /// Loses the daemon's cache, as a new machine would. The daemon must not run.
    pub fn lose_cache(&self) {
        assert!(self.daemon.is_none(), "the daemon runs");
        let _ = fs::remove_dir_all(self.scratch.path().join("cache"));
    }

    /// Everything that the daemon said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    /// Writes files (an empty content removes one), and commits with this subject. Answers the commit's id.
    pub fn commit(&self, subject: &str, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let file = self.repo.path().join(path);
            if content.is_empty() {
                fs::remove_file(&file).unwrap();
            } else {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, content).unwrap();
            }
        }
        git(&self.repo.path(), &["add", "--all"]);
        git(&self.repo.path(), &["commit", "--quiet", "--allow-empty", "--message", subject]);
        self.repo.head()
    }

    /// Has the Delivery `shop` made, or changed, so that a revision has so many seconds to become healthy, and waits until that is
    /// handed on.
    pub async fn give_time(&self, seconds: u64, mut template: Value) {
        let time = windlass::api::Duration::from_secs(seconds);
        template["timeout"] = json!(time);
        self.deliver("shop", template).await;
        self.wait("shop", "it has its time", |d| d.spec.template.timeout == Some(time)).await;
    }

    /// Has the directories that match delivered into this namespace. `template` adds to the template.
    pub async fn deliver(&self, path: &str, template: Value) {
        let mut all = json!({"targetNamespace": self.space.name, "timeout": "3m", "retryInterval": "2s"});
        for (field, value) in template.as_object().unwrap() {
            all[field] = value.clone();
        }
        let spec = json!({
            "url": self.repo.path(), "interval": "30s",
            "deliveries": [{"path": path, "template": all}],
        });
        self.apply("Repository", "config", json!({"spec": spec})).await;
    }

    /// Applies an object of ours by server-side apply, as a person would.
    pub async fn apply(&self, kind: &str, name: &str, mut body: Value) {
        body["apiVersion"] = json!("windlass.dev/v1alpha1");
        body["kind"] = json!(kind);
        body["metadata"]["name"] = json!(name);
        let plural = match kind {
            "Delivery" => "deliveries",
            "Application" => "applications",
            _ => "repositories",
        };
        let api: kube::Api<kube::core::DynamicObject> = kube::Api::namespaced_with(
            self.space.connection.client.clone(),
            &self.space.name,
            &kube::core::ApiResource {
                group: "windlass.dev".into(),
                version: "v1alpha1".into(),
                api_version: "windlass.dev/v1alpha1".into(),
                kind: kind.into(),
                plural: plural.into(),
            },
        );
        let params = kube::api::PatchParams::apply("test").force();
        api.patch(name, &params, &kube::api::Patch::Apply(&body)).await.unwrap();
    }

    /// The Deliveries of this namespace.
    pub fn deliveries(&self) -> kube::Api<Delivery> {
        kube::Api::namespaced(self.space.connection.client.clone(), &self.space.name)
    }

    /// The Repositories of this namespace.
    pub fn repositories(&self) -> kube::Api<Repository> {
        kube::Api::namespaced(self.space.connection.client.clone(), &self.space.name)
    }

    /// The DriftReports of this namespace.
    pub fn reports(&self) -> kube::Api<DriftReport> {
        kube::Api::namespaced(self.space.connection.client.clone(), &self.space.name)
    }

    /// Waits until the report of the Delivery `shop` is as wanted.
    pub async fn wait_report(&self, what: &str, is: impl Fn(&DriftReportSpec) -> bool) -> DriftReportSpec {
        wait_until(&format!("the report says: {what}"), self.limit, || async {
            let report = self.reports().get_opt("shop").await.map_err(|e| e.to_string())?;
            let spec = report.map(|r| r.spec).ok_or("there is none")?;
            if is(&spec) { Ok(spec) } else { Err(format!("{spec:?}")) }
        })
        .await
    }

    /// Sets an annotation of a Delivery.
    pub async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let params = kube::api::PatchParams::default();
        self.deliveries().patch(name, &params, &kube::api::Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until a Delivery is as wanted.
    pub async fn wait(&self, name: &str, what: &str, is: impl Fn(&Delivery) -> bool) -> Delivery {
        wait_until(&format!("Delivery {name}: {what}"), self.limit, || async {
            match self.deliveries().get_opt(name).await {
                Ok(Some(delivery)) if is(&delivery) => Ok(delivery),
                Ok(Some(delivery)) => Err(told(&delivery)),
                Ok(None) => Err("is not there".into()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Waits until a Delivery is in a phase with this commit as the last one tried.
    pub async fn wait_for(&self, name: &str, phase: Phase, commit: &str) -> Delivery {
        self.wait(name, &format!("{phase:?} with {commit}"), |d| {
            d.status
                .as_ref()
                .is_some_and(|s| s.phase == phase && s.revision.as_ref().is_some_and(|r| r.ends_with(commit)))
        })
        .await
    }

    /// Waits until a Delivery says that the revision wanted could not be begun, for this reason.
    pub async fn wait_refused(&self, name: &str, reason: &str) -> Delivery {
        self.wait(name, &format!("refused with {reason}"), |d| {
            let failure = d.status.as_ref().and_then(|s| s.failure.as_ref());
            failure.is_some_and(|f| f.problem.reason == reason)
        })
        .await
    }

    /// Waits until a condition of the Repository has this reason. Answers its message.
    pub async fn wait_repository(&self, reason: &str) -> String {
        wait_until(&format!("the Repository says {reason}"), self.limit, || async {
            let repository = self.repositories().get("config").await.map_err(|e| e.to_string())?;
            let conditions = repository.status.unwrap_or_default().conditions;
            let found = conditions.iter().find(|c| c.reason == reason);
            found.map(|c| c.message.clone()).ok_or_else(|| format!("{conditions:?}"))
        })
        .await
    }

    /// Waits until the Repository shows this commit.
    pub async fn wait_fetched(&self, commit: &str) {
        wait_until(&format!("{commit} is fetched"), self.limit, || async {
            let repository = self.repositories().get("config").await.map_err(|e| e.to_string())?;
            let revision = repository.status.and_then(|s| s.revision).unwrap_or_default();
            if revision.ends_with(commit) { Ok(()) } else { Err(revision) }
        })
        .await;
    }

    /// Waits until an object of this namespace is as wanted; `Null` stands for one that is not there.
    pub async fn wait_object(
        &self,
        api_version: &str,
        plural: &str,
        name: &str,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_until(&format!("{plural} {name}: {what}"), self.limit, || async {
            let found = self.get(api_version, plural, name).await;
            if is(&found) { Ok(found) } else { Err(found.to_string()) }
        })
        .await
    }

    /// Waits until a Delivery is gone.
    pub async fn wait_gone(&self, name: &str) {
        wait_until(&format!("Delivery {name} is gone"), self.limit, || async {
            match self.deliveries().get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(delivery)) => Err(told(&delivery)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Waits until there is an Event about a Delivery with this reason. Answers its text.
    pub async fn wait_event(&self, name: &str, reason: &str) -> String {
        wait_until(&format!("an Event {reason} about Delivery {name}"), self.limit, || async {
            let events = self.events(name).await;
            let found = events.iter().find(|(r, _)| r == reason).map(|(_, text)| text.clone());
            found.ok_or_else(|| format!("{events:?}"))
        })
        .await
    }

    /// Sends a merge patch to an object of this namespace (a JSON patch if it is an array), as the manager `hand`.
    pub async fn patch(&self, api_version: &str, plural: &str, name: &str, patch: Value) -> Value {
        let path = format!("{}/{name}?fieldManager=hand", self.space.path(api_version, plural));
        self.space.send("PATCH", &path, &patch).await
    }

    /// Deletes an object of this namespace.
    pub async fn delete(&self, api_version: &str, plural: &str, name: &str) {
        let path = format!("{}/{name}", self.space.path(api_version, plural));
        self.space.send("DELETE", &path, &Value::Null).await;
    }

    /// A Delivery made by hand of a directory of the Repository `config`, into this namespace.
    pub async fn deliver_by_hand(&self, name: &str, path: &str, more: Value) {
        let mut spec = json!({
            "source": {"repository": "config", "path": path},
            "targetNamespace": self.space.name, "timeout": "3m", "retryInterval": "2s",
        });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        self.apply("Delivery", name, json!({"spec": spec})).await;
    }

    /// The Repository `config` without any Delivery of its own.
    pub async fn repository(&self, more: Value) {
        let mut spec = json!({"url": self.repo.path(), "interval": "30s"});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        self.apply("Repository", "config", json!({"spec": spec})).await;
    }

    /// What the daemon wrote in this namespace since then, besides what it writes about itself.
    pub fn writes(&self, audit: &Audit) -> Vec<Audited> {
        let mut found = audit.in_namespace(&self.space.name);
        // What removes something that is not there writes nothing.
        found.retain(|r| !r.is_read() && r.code != 404 && !is_own(r));
        found
    }

    /// An object of this namespace, or `Null` if there is none.
    pub async fn get(&self, api_version: &str, plural: &str, name: &str) -> Value {
        let path = format!("{}/{name}", self.space.path(api_version, plural));
        wait_until(&format!("{path} is read"), LIMIT, || async {
            match super::cluster::try_send(&self.space.connection.client, "GET", &path, &Value::Null).await {
                Err(kube::Error::Api(e)) if e.code == 404 => Ok(Value::Null),
                got => got.map_err(|e| format!("{e}: {e:?}")),
            }
        })
        .await
    }

    /// Names of the objects of a kind in this namespace, those that Kubernetes makes left out.
    pub async fn names(&self, api_version: &str, plural: &str) -> Vec<String> {
        let list = self.space.send("GET", &self.space.path(api_version, plural), &Value::Null).await;
        let mut names: Vec<String> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|o| o["metadata"]["name"].as_str())
            .filter(|n| *n != "kube-root-ca.crt" && *n != "default")
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }

    /// Reasons of the Events about a Delivery, each with its text.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        self.events_about("Delivery", name).await
    }

    /// Reasons of the Events about an object, each with its text.
    pub async fn events_about(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let list = self.space.send("GET", &self.space.path("events.k8s.io/v1", "events"), &Value::Null).await;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| e["regarding"]["kind"] == kind && e["regarding"]["name"] == name)
            .map(|e| (text(&e["reason"]), text(&e["note"])))
            .collect()
    }
}

fn told(delivery: &Delivery) -> String {
    let status = delivery.status.clone().unwrap_or_default();
    format!(
        "phase {:?}, revision {:?}, conditions {:#?}, attempt {:#?}, held {:#?}, failure {:#?}",
        status.phase, status.revision, status.conditions, status.attempt, status.held, status.failure
    )
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}--- end of the daemon's log", self.log());
        }
        // Nobody is there any more to let them go.
        let (cluster, name) = (self.space.cluster, self.space.name.clone());
        block_on(async move {
            let client = cluster.connect().await.client;
            let api: kube::Api<Delivery> = kube::Api::namespaced(client, &name);
            let Ok(all) = api.list(&kube::api::ListParams::default()).await else { return };
            for delivery in all.items {
                let patch = json!({"metadata": {"finalizers": null}});
                let name = delivery.metadata.name.unwrap_or_default();
                let params = kube::api::PatchParams::default();
                let _ = api.patch(&name, &params, &kube::api::Patch::Merge(patch)).await;
            }
        });
    }
}

/// The condition of a Delivery: status, reason and message.
pub fn condition(delivery: &Delivery, kind: &str) -> (String, String, String) {
    let conditions = delivery.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let found = windlass::api::condition::get(&conditions, kind).cloned();
    let found = found.unwrap_or_else(|| panic!("no condition {kind}: {conditions:?}"));
    (found.status, found.reason, found.message)
}

/// A Deployment with one container whose image's tag says how its pods behave.
pub fn deployment(name: &str, tag: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec: {{containers: [{{name: app, image: \"registry.example.com/{name}:{tag}\"}}]}}\n"
    )
}

/// A ConfigMap with one key.
pub fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: \"{value}\"}}\n")
}
