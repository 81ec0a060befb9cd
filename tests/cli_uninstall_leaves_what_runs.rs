//! `windlass uninstall` takes everything of ours away and leaves what was deployed as it runs.

use crate::support::cli::{Answer, kubectl_with, windlass_with};
use crate::support::cluster::{Cluster, wait_until};
use crate::support::daemon::{LIMIT, config_map, deployment};
use crate::support::git::Repo;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use windlass::installation::DEPLOYER;

/// A daemon on a desk, and what it says. Stopped when dropped.
struct Daemon(Child, PathBuf);

impl Daemon {
    fn start(cluster: &Cluster, repo: &Repo, cache: &Path) -> Self {
        let (log, file) = log_in(cache);
        let child = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args([
                "run",
                "--repo",
                repo.path().to_str().unwrap(),
                "--path",
                "*",
                "--create-namespaces",
                "--yes",
            ])
            .arg("--cache-dir")
            .arg(cache)
            .env("KUBECONFIG", &cluster.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon(child, file)
    }

    fn terminate(&mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", std::fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

fn log_in(directory: &Path) -> (File, PathBuf) {
    let file = directory.join("log");
    (File::options().create(true).append(true).open(&file).unwrap(), file)
}

fn get(cluster: &Cluster, arguments: &[&str]) -> Value {
    let answer = kubectl_with(&cluster.kubeconfig, &[&["get", "-o", "json"], arguments].concat());
    serde_json::from_str(&answer.out).unwrap_or(Value::Null)
}

async fn ready(cluster: &Cluster, count: usize) {
    wait_until("all is ready", LIMIT, || async {
        let status = windlass_with(&cluster.kubeconfig, &["status", "-o", "json"]);
        let report: Value = serde_json::from_str(&status.out).map_err(|_| status.err.clone())?;
        match status.code == 0 && report["deliveries"].as_array().is_some_and(|d| d.len() == count) {
            true => Ok(()),
            false => Err(status.out),
        }
    })
    .await;
}

fn uninstall(cluster: &Cluster, more: &[&str]) -> Answer {
    windlass_with(&cluster.kubeconfig, &[&["uninstall", "--yes"], more].concat())
}

#[tokio::test]
async fn nothing_of_ours_is_left_and_the_pods_run_on() {
    let cluster = Cluster::own();
    let repo = Repo::empty();
    repo.git(&["config", "user.name", "Ada"]);
    repo.commit(&[
        ("shop/web.yaml", &deployment("web", "ok", 1)),
        ("shop/settings.yaml", &config_map("settings", "blue")),
        ("blog/settings.yaml", &config_map("settings", "blue")),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(cluster, &repo, cache.path());
    ready(cluster, 2).await;
    let pods = |cluster: &Cluster| {
        let list = get(cluster, &["pods", "-n", "shop"]);
        list["items"].as_array().unwrap().iter().map(|p| p["metadata"]["uid"].clone()).collect::<Vec<_>>()
    };
    let before = pods(cluster);
    assert_eq!(before.len(), 1);

    let running = uninstall(cluster, &[]);
    assert_eq!(running.code, 2, "{running:?}");
    assert!(running.err.contains("stop it"), "{running:?}");
    assert_eq!(get(cluster, &["deliveries", "-A"])["items"].as_array().unwrap().len(), 2);

    daemon.terminate();
    let unasked = windlass_with(&cluster.kubeconfig, &["uninstall"]);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.err.contains("--yes") && unasked.out.contains("its 2 objects stay"), "{unasked:?}");

    // While another installation is there, what both share stays.
    kubectl_with(&cluster.kubeconfig, &["create", "namespace", "other"]);
    let other = "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: windlass-other, namespace: other}\n";
    let file = cache.path().join("lease.yaml");
    std::fs::write(&file, other).unwrap();
    assert_eq!(kubectl_with(&cluster.kubeconfig, &["apply", "-f", file.to_str().unwrap()]).code, 0);
    let first = uninstall(cluster, &[]);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(!first.out.contains("CustomResourceDefinition"), "{first:?}");
    assert_eq!(get(cluster, &["deliveries", "-A"])["items"].as_array().unwrap().len(), 0);
    kubectl_with(&cluster.kubeconfig, &["delete", "namespace", "other"]);
    let second = uninstall(cluster, &[]);
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.out.contains("CustomResourceDefinition deliveries.windlass.dev removed"), "{second:?}");

    assert_eq!(pods(cluster), before, "the pods are the same");
    for (namespace, kind, name) in
        [("shop", "deployment", "web"), ("shop", "configmap", "settings"), ("blog", "configmap", "settings")]
    {
        let object = get(cluster, &[kind, name, "-n", namespace, "--show-managed-fields"]);
        assert_eq!(object["metadata"]["name"], name);
        assert!(!object.to_string().contains("windlass"), "{object:#}");
    }
    wait_until("the namespace is gone", LIMIT, || async {
        match get(cluster, &["namespace", "windlass-system"]) {
            Value::Null => Ok(()),
            there => Err(there["status"].to_string()),
        }
    })
    .await;
    let everything = kubectl_with(
        &cluster.kubeconfig,
        &["get", "crd,lease,secret,clusterrole,clusterrolebinding", "-A", "-o", "name"],
    );
    assert!(!everything.out.contains("windlass"), "{everything:?}");
    let again = uninstall(cluster, &[]);
    assert_eq!(
        (again.code, again.out.as_str()),
        (0, "nothing of Windlass is in this cluster\n"),
        "{again:?}"
    );
    let status = windlass_with(&cluster.kubeconfig, &["status"]);
    assert_eq!(status.code, 2);
    assert!(status.err.contains("is not installed"), "{status:?}");

    // From the beginning: what runs already is adopted, and goes when that is asked for.
    let mut daemon = Daemon::start(cluster, &repo, cache.path());
    ready(cluster, 2).await;
    assert_eq!(pods(cluster), before, "adopted, not made anew");
    daemon.terminate();
    let all = uninstall(cluster, &["--delete-objects"]);
    assert_eq!(all.code, 0, "{all:?}");
    assert_eq!(get(cluster, &["deployment", "web", "-n", "shop"]), Value::Null);
    assert_eq!(get(cluster, &["configmap", "settings", "-n", "blog"]), Value::Null);
    cluster.stop();
}

/// Everything that a cluster holds: kind, namespace and name of each object, what comes and goes by itself apart.
fn everything(cluster: &Cluster) -> BTreeSet<String> {
    let kinds = kubectl_with(&cluster.kubeconfig, &["api-resources", "--verbs=list,delete", "-o", "name"]);
    let kinds: Vec<&str> =
        kinds.out.lines().filter(|k| !k.starts_with("events") && !k.starts_with("pods.")).collect();
    let columns = "custom-columns=:.kind,:.metadata.namespace,:.metadata.name";
    let arguments = ["get", &kinds.join(","), "-A", "--no-headers", "--ignore-not-found", "-o", columns];
    let all = kubectl_with(&cluster.kubeconfig, &arguments);
    assert_eq!(all.code, 0, "{}", all.err);
    all.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The same, once the cluster has what it begins with: that comes by itself, and in no order.
async fn begun(cluster: &Cluster) -> BTreeSet<String> {
    wait_until("the cluster has what it begins with", LIMIT, || async {
        let now = everything(cluster);
        let lacks = ["default", "kube-system", "kube-public", "kube-node-lease"].into_iter().find(|space| {
            let its =
                [format!("ConfigMap {space} kube-root-ca.crt"), format!("ServiceAccount {space} default")];
            !its.iter().all(|one| now.contains(one))
        });
        match lacks {
            None if everything(cluster) == now => Ok(now),
            _ => Err(format!("{lacks:?}, {now:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn what_install_made_is_gone_and_what_it_delivered_runs_on() {
    let cluster = Cluster::own();
    let before = begun(cluster).await;
    let image = "registry.example.com/windlass:ok";
    let more = ["install", "--daemon", "--deployer-role", "admin", "--image", image];
    let installed = windlass_with(&cluster.kubeconfig, &more);
    assert_eq!(installed.code, 0, "{installed:?}");
    wait_until("the daemon's pod is ready", LIMIT, || async {
        let there = get(cluster, &["deployment", "windlass", "-n", "windlass-system"]);
        if there["status"]["readyReplicas"] == 1 { Ok(()) } else { Err(there["status"].to_string()) }
    })
    .await;

    // The pod is a simulated one: what it would do is done from here, with its account's token.
    let scratch = tempfile::tempdir().unwrap();
    let token = kubectl_with(&cluster.kubeconfig, &["create", "token", "windlass", "-n", "windlass-system"]);
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(&cluster.kubeconfig).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token.out.trim()});
    let kubeconfig = scratch.path().join("kubeconfig");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let (log, file) = log_in(scratch.path());
    let child = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["run", "--default-service-account", DEPLOYER, "--cache-dir"])
        .arg(scratch.path().join("cache"))
        .env("KUBECONFIG", &kubeconfig)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child, file);
    let repo = Repo::empty();
    repo.git(&["config", "user.name", "Ada"]);
    repo.commit(&[
        ("shop/web.yaml", &deployment("web", "ok", 1)),
        ("shop/settings.yaml", &config_map("settings", "blue")),
    ]);
    let repository = json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Repository",
        "metadata": {"name": "config", "namespace": "windlass-system"},
        "spec": {"url": repo.path(), "deliveries": [
            {"path": "shop", "template": {"targetNamespace": "shop"}},
        ]},
    });
    let file = scratch.path().join("repository.yaml");
    std::fs::write(&file, repository.to_string()).unwrap();
    assert_eq!(kubectl_with(&cluster.kubeconfig, &["create", "namespace", "shop"]).code, 0);
    assert_eq!(kubectl_with(&cluster.kubeconfig, &["apply", "-f", file.to_str().unwrap()]).code, 0);
    let application = json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Application", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"image": "registry.example.com/cart:ok", "port": 8080},
    });
    std::fs::write(&file, application.to_string()).unwrap();
    let of_shop = format!("--serviceaccount=shop:{DEPLOYER}");
    let granted = ["create", "rolebinding", DEPLOYER, "-n", "shop", "--clusterrole=edit", &of_shop];
    assert_eq!(kubectl_with(&cluster.kubeconfig, &granted).code, 0);
    assert_eq!(kubectl_with(&cluster.kubeconfig, &["apply", "-f", file.to_str().unwrap()]).code, 0);
    ready(cluster, 2).await;
    let pods = |cluster: &Cluster| {
        let list = get(cluster, &["pods", "-n", "shop"]);
        list["items"].as_array().unwrap().iter().map(|p| p["metadata"]["uid"].clone()).collect::<Vec<_>>()
    };
    let running = pods(cluster);
    assert_eq!(running.len(), 2);

    let service = get(cluster, &["service", "cart", "-n", "shop"]);
    let address = format!("IPAddress <none> {}", service["spec"]["clusterIP"].as_str().unwrap());

    // Its node is gone without a word: the Lease still names it.
    drop(daemon.0.kill());
    daemon.0.wait().unwrap();
    let answer = uninstall(cluster, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    for gone in ["Deployment windlass-system/windlass removed", "ClusterRole windlass removed", "runs on"] {
        assert!(answer.out.contains(gone), "{gone}: {answer:?}");
    }
    wait_until("nothing of what install made is left", LIMIT, || async {
        let mut left: Vec<String> = everything(cluster).difference(&before).cloned().collect();
        // That of the Service that stays has no namespace.
        left.retain(|line| !line.contains(" shop") && *line != address);
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    })
    .await;
    assert_eq!(pods(cluster), running, "the pods are the same");
    let kept = get(cluster, &["controllerrevisions", "-n", "shop"]);
    assert!(kept["items"].as_array().is_some_and(Vec::is_empty), "{kept:#}");
    let objects =
        [("deployment", "web"), ("configmap", "settings"), ("deployment", "cart"), ("service", "cart")];
    for (kind, name) in objects {
        let object = get(cluster, &[kind, name, "-n", "shop", "--show-managed-fields"]);
        assert_eq!(object["metadata"]["name"], name);
        // That it came from an Application is a label of the pods, too, which would restart without it.
        let ours = ["windlass.dev", r#""manager":"windlass"#];
        assert!(!ours.iter().any(|o| object.to_string().contains(o)), "{object:#}");
    }
    cluster.stop();
}
