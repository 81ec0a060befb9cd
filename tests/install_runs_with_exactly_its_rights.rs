//! What `windlass install --daemon` grants is enough for the daemon, and no more, and what docs/security.md lists for the account of
//! a Delivery is enough for a rollout; several replicas share the work by a Lease.

use crate::a_rollout_goes_step_by_step::{service, web};
use crate::support::cli::{kubectl, windlass};
use crate::support::cluster::{Audited, Space, suffix, try_send, wait_until};
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::support::gateway::{Controller, GATEWAY, ROUTES, know_routes, route, share};
use crate::support::git::Repo;
use crate::support::git_https::{Access, GitServer};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use windlass::api::application::{ApplicationPhase, ApplicationStatus};
use windlass::api::condition::{self, kind};
use windlass::api::delivery::Phase;
use windlass::cluster::apply::apply;
use windlass::cluster::{Connection, Guard};
use windlass::core::variant::minded;
use windlass::installation::{DEPLOYER, Installation};
use windlass::render::yaml::{Keep, Limits, parse};

/// `windlass install --daemon` for the namespace of a test.
fn install(world: &World, more: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(["install", "--daemon", "--replicas", "0", "--namespace", &world.space.name])
        .args(["--installation", &world.installation])
        .args(more)
        .env("KUBECONFIG", &world.space.cluster.kubeconfig)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The last word of each line about an object.
fn words(output: &Output) -> Vec<(String, String)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let objects = text.lines().take_while(|l| !l.is_empty());
    objects.map(|l| l.rsplit_once(' ').unwrap()).map(|(o, w)| (o.to_owned(), w.to_owned())).collect()
}

fn installation(world: &World) -> Installation {
    Installation {
        name: world.installation.clone(),
        namespace: world.space.name.clone(),
        replicas: 0,
        ..Installation::default()
    }
}

/// Has the cluster-scoped objects of an installation go with the test.
fn forget_later(world: &mut World) {
    let (name, binding) = (installation(world).object_name(), installation(world).deployer_binding());
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    world.space.forget_later(&format!("{rbac}/clusterroles/{name}"));
    world.space.forget_later(&format!("{rbac}/clusterrolebindings/{name}"));
    world.space.forget_later(&format!("{rbac}/clusterrolebindings/{binding}"));
}

/// A kubeconfig with nothing but a token of the daemon's service account.
async fn kubeconfig(world: &World, directory: &Path) -> PathBuf {
    let account = installation(world).object_name();
    // The authorizer learns of new roles a moment after they were made.
    let user = format!("system:serviceaccount:{}:{account}", world.space.name);
    for (verb, group, resource) in
        [("create", "coordination.k8s.io", "leases"), ("list", "windlass.dev", "deliveries")]
    {
        let namespace = &world.space.name;
        let asked = json!({"verb": verb, "group": group, "resource": resource, "namespace": namespace});
        wait_until(&format!("{account} may {verb} {resource}"), LIMIT, || async {
            if may(world, &user, asked.clone()).await { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    }
    let path = format!("{}/{account}/token", world.space.path("v1", "serviceaccounts"));
    let request = json!({"spec": {"expirationSeconds": 3600}});
    let answer = world.space.send("POST", &path, &request).await;
    let text = fs::read_to_string(&world.space.cluster.kubeconfig).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let user = config["contexts"][0]["context"]["user"].clone();
    config["users"] = json!([{"name": user, "user": {"token": answer["status"]["token"]}}]);
    let file = directory.join("kubeconfig");
    fs::write(&file, config.to_string()).unwrap();
    file
}

/// A daemon as a pod would run it, with health and metrics on a free port.
struct Replica {
    child: Child,
    log: PathBuf,
}

impl Replica {
    fn start(world: &World, kubeconfig: &Path, directory: &Path) -> Self {
        Replica::watching(world, &world.space.name, kubeconfig, directory)
    }

    /// One that watches another namespace than the one that it was installed in.
    fn watching(world: &World, watched: &str, kubeconfig: &Path, directory: &Path) -> Self {
        let name = suffix();
        let log = directory.join(format!("{name}.log"));
        let out = File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(["run", "--namespace", &world.space.name, "--watch-namespace", watched])
            .args(["--installation", &world.installation, "--default-service-account", DEPLOYER])
            .args(["--standby", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--log-level", "info,windlass=debug", "--cache-dir"])
            .arg(directory.join(name))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Replica { child, log }
    }

    /// The lines of its log.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// Status code and body of a GET, once it listens.
    async fn get(&self, path: &str) -> (u16, String) {
        wait_until("the daemon answers", LIMIT, || async {
            let found = self.lines().iter().find_map(|l| l["address"].as_str().map(str::to_owned));
            let address = found.ok_or_else(|| fs::read_to_string(&self.log).unwrap_or_default())?;
            let url = format!("http://{address}{path}");
            let answer =
                tokio::task::spawn_blocking(move || windlass::server::probe::ask(&url)).await.unwrap();
            // It is given seconds, which is little on a busy machine.
            answer.map_err(|e| e.to_string())
        })
        .await
    }

    /// Waits until a check says this.
    async fn wait_ready(&self, says: &str) {
        wait_until(&format!("/readyz says {says:?}"), LIMIT, || async {
            match self.get("/readyz?verbose").await {
                (200, text) if text.contains(says) => Ok(()),
                (code, text) => Err(format!("{code} {text}")),
            }
        })
        .await;
    }

    fn signal(&mut self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- log of a replica\n{text}--- end of the log");
        }
    }
}

/// Whether an account may do something, by the API server's own answer.
async fn may(world: &World, user: &str, attributes: Value) -> bool {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes, "groups": [
            "system:serviceaccounts", format!("system:serviceaccounts:{}", world.space.name), "system:authenticated",
        ]},
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    world.space.send("POST", path, &review).await["status"]["allowed"] == true
}

#[tokio::test]
async fn the_manifest_is_accepted_as_it_stands() {
    let mut space = Space::new("manifest").await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/install.yaml");
    let documents = parse(&fs::read_to_string(file).unwrap(), Keep::Variables, &Limits::default()).unwrap();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    space.forget_later(&format!("{rbac}/clusterroles/windlass"));
    space.forget_later(&format!("{rbac}/clusterrolebindings/windlass"));
    space.forget_later("/api/v1/namespaces/windlass-system");
    for document in &documents {
        let object = &document.value;
        let resource =
            space.resource(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        // Server-side, with strict field validation.
        let applied = apply(&space.access, &resource, object, Guard::Any).await;
        applied.unwrap_or_else(|e| panic!("{e}"));
    }
    let path = "/apis/apps/v1/namespaces/windlass-system/deployments/windlass";
    wait_until("the Deployment makes a pod", LIMIT, || async {
        let there = space.send("GET", path, &Value::Null).await;
        match there["status"]["replicas"].as_i64() {
            Some(1) => Ok(()),
            _ => Err(there["status"].to_string()),
        }
    })
    .await;
}

/// Waits until the controllers have written what they write into new objects: it would look like the doing of an installation.
async fn settled(world: &World) {
    let deployment = installation(world).object_name();
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    wait_until("the controllers are done", LIMIT, || async {
        let daemon = world.get("apps/v1", "deployments", &deployment).await;
        let policy =
            world.space.send("GET", &format!("{policies}/windlass-rollout-requests"), &Value::Null).await;
        let mut conditions = daemon["status"]["conditions"].as_array().into_iter().flatten();
        let done = conditions.any(|c| c["reason"] == "NewReplicaSetAvailable");
        match done && policy["status"]["observedGeneration"] == policy["metadata"]["generation"] {
            true => Ok(()),
            false => Err(format!("{daemon} {policy}")),
        }
    })
    .await;
}

#[tokio::test]
async fn installing_again_changes_nothing_and_a_role_is_chosen_knowingly() {
    let mut world = World::stopped("install-again").await;
    forget_later(&mut world);
    let first = install(&world, &[]);
    let created: Vec<_> = words(&first).into_iter().filter(|(_, word)| word == "created").collect();
    assert!(
        created
            .iter()
            .any(|(o, _)| o == &format!("deployment {}/windlass-{}", world.space.name, world.installation)),
        "{created:?}"
    );
    assert!(String::from_utf8_lossy(&first.stdout).contains("was given no rights"));
    settled(&world).await;
    let again = words(&install(&world, &[]));
    assert!(again.len() >= 12 && again.iter().all(|(_, word)| word == "unchanged"), "{again:?}");
    let binding = format!("clusterrolebinding {}", installation(&world).deployer_binding());
    let word = |output: &Output| words(output).into_iter().find(|(o, _)| *o == binding).map(|(_, w)| w);
    assert_eq!(word(&install(&world, &["--deployer-role", "edit"])).as_deref(), Some("created"));
    assert_eq!(word(&install(&world, &["--deployer-role", "view"])).as_deref(), Some("replaced"));
    let kept = install(&world, &[]);
    assert!(String::from_utf8_lossy(&kept.stdout).contains("keeps the rights of view"));
    let gone = install(&world, &["--deployer-role", "none"]);
    assert!(String::from_utf8_lossy(&gone.stdout).contains(&format!("{binding} deleted")));
}

#[tokio::test]
async fn an_application_runs_by_the_rights_of_the_deployer_of_its_own_namespace() {
    let mut world = World::stopped("rights-app").await;
    forget_later(&mut world);
    install(&world, &["--deployer-role", "edit"]);
    let scratch = tempfile::tempdir().unwrap();
    let config = kubeconfig(&world, scratch.path()).await;
    let itself = format!("system:serviceaccount:{}:{}", world.space.name, installation(&world).object_name());
    let team = World::stopped("team").await;
    let deployer = format!("system:serviceaccount:{}:{DEPLOYER}", team.space.name);
    let audit = world.space.cluster.audit();
    let replica = Replica::watching(&world, &team.space.name, &config, scratch.path());
    replica.wait_ready("leadership ok: leading").await;

    // In another namespace than the installation's the account is not there: that is said, with what to do.
    team.application("web", "ok", json!({})).await;
    let refused = |s: &ApplicationStatus| {
        let ready = condition::get(&s.conditions, kind::READY);
        let words = [format!("{}/{DEPLOYER}", team.space.name), "kubectl create rolebinding".into()];
        ready.is_some_and(|c| words.iter().all(|word| c.message.contains(word)))
    };
    team.wait_application("web", "it has no rights", refused).await;

    // As docs/applications.md says.
    let namespace = &*team.space.name;
    let account = format!("--serviceaccount={namespace}:{DEPLOYER}");
    for arguments in [
        &["create", "serviceaccount", DEPLOYER, "-n", namespace][..],
        &["create", "rolebinding", DEPLOYER, "-n", namespace, "--clusterrole=edit", &account],
    ] {
        let answer = kubectl(&team.space, arguments);
        assert_eq!(answer.code, 0, "{}", answer.err);
    }
    let asked = json!({"verb": "patch", "group": "apps", "resource": "deployments", "namespace": namespace});
    wait_until("the deployer may deploy", LIMIT, || async {
        if may(&team, &deployer, asked.clone()).await { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    team.annotate("web.application", windlass::api::names::RECONCILE_REQUEST, "now").await;
    team.wait_application_runs("web", "ok").await;
    team.application(
        "web",
        "ok2",
        json!({"config": {"env": {"A": "b"}}, "autoscaling": {"maxReplicas": 4},
        "resources": {"requests": {"cpu": "10m"}}}),
    )
    .await;
    team.wait_application_runs("web", "ok2").await;
    team.application("web", "missing", json!({})).await;
    team.wait_application("web", "taken back", |s| s.phase == ApplicationPhase::RolledBack).await;
    team.delete("windlass.dev/v1alpha1", "applications", "web").await;
    team.wait_gone("web.application").await;
    assert!(team.names("apps/v1", "deployments").await.is_empty());

    let of_both = |r: &Audited| r.user == itself || r.user == deployer;
    let requests: Vec<Audited> = audit.in_namespace(namespace).into_iter().filter(|r| of_both(r)).collect();
    let written = |resource: &str| -> Vec<&Audited> {
        requests.iter().filter(|r| r.resource == resource && !r.is_read() && r.code < 300).collect()
    };
    assert!(written("deployments").iter().all(|r| r.user == deployer) && !written("deployments").is_empty());
    assert!(written("controllerrevisions").iter().all(|r| r.user == itself));
    let refused: Vec<_> = requests.iter().filter(|r| r.user == itself && r.code == 403).collect();
    assert!(refused.is_empty(), "the daemon lacks rights of its own: {refused:#?}");
}

#[tokio::test]
async fn the_daemon_deploys_as_the_deployer_and_can_do_nothing_by_itself() {
    let mut world = World::stopped("rights").await;
    forget_later(&mut world);
    install(&world, &[]);
    let scratch = tempfile::tempdir().unwrap();
    let config = kubeconfig(&world, scratch.path()).await;
    let namespace = world.space.name.clone();
    let itself = format!("system:serviceaccount:{namespace}:{}", installation(&world).object_name());
    let deployer = format!("system:serviceaccount:{namespace}:{DEPLOYER}");

    // Nothing that is delivered, no list of Secrets, nobody but service accounts.
    let options =
        windlass::cluster::ConnectOptions { kubeconfig: Some(config.clone()), ..Default::default() };
    let connection = Connection::open(&options).await.unwrap();
    let body = json!({
        "metadata": {"name": "own"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]},
        }},
    });
    let refused =
        try_send(&connection.client, "POST", &world.space.path("apps/v1", "deployments"), &body).await;
    assert!(matches!(&refused, Err(kube::Error::Api(e)) if e.code == 403), "{refused:?}");
    for (verb, group, resource) in [
        ("create", "apps", "deployments"),
        ("get", "", "pods"),
        ("list", "", "secrets"),
        ("patch", "", "secrets"),
        ("delete", "", "secrets"),
        ("create", "", "configmaps"),
        ("create", "", "namespaces"),
        ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
        ("impersonate", "", "users"),
        ("impersonate", "", "groups"),
        ("create", "", "serviceaccounts/token"),
        ("patch", "windlass.dev", "repositories"),
    ] {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = json!({
            "verb": verb, "group": group, "resource": resource, "subresource": subresource,
            "namespace": namespace,
        });
        assert!(!may(&world, &itself, asked).await, "the daemon itself may {verb} {resource}");
    }

    let audit = world.space.cluster.audit();
    let replica = Replica::start(&world, &config, scratch.path());
    replica.wait_ready("leadership ok: leading").await;
    let commit = world.commit(
        "First version",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 1)),
            ("shop/settings.yaml", &config_map("settings", "1")),
        ],
    );
    world.deliver("shop", json!({})).await;
    // Without rights: who is refused what is said, and nothing was written.
    let delivery = world
        .wait("shop", "Forbidden", |d| {
            d.status.iter().flat_map(|s| &s.conditions).any(|c| c.reason == "Forbidden")
        })
        .await;
    let status = delivery.status.unwrap();
    let ready = condition::get(&status.conditions, kind::READY).unwrap();
    assert_eq!(ready.status, "False");
    let account = format!("{namespace}/{DEPLOYER}");
    for word in [account.as_str(), "may not patch ", "grant it"] {
        assert!(ready.message.contains(word), "{word}: {} {}", ready.reason, ready.message);
    }
    assert!(world.names("v1", "configmaps").await.is_empty());

    // With rights: everything is done as the deployer.
    install(&world, &["--deployer-role", "admin"]);
    world.annotate("shop", windlass::api::names::RECONCILE_REQUEST, "now").await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let requests: Vec<Audited> =
        audit.by_agent("windlass/").into_iter().filter(|r| r.user == itself || r.user == deployer).collect();
    let deployed =
        requests.iter().filter(|r| r.resource == "deployments" && r.verb == "patch" && r.code < 300);
    assert!(deployed.clone().count() >= 1, "{requests:#?}");
    assert!(deployed.clone().all(|r| r.user == deployer), "{requests:#?}");
    let refused: Vec<_> = requests.iter().filter(|r| r.user == itself && r.code == 403).collect();
    assert!(refused.is_empty(), "the daemon lacks rights of its own: {refused:#?}");

    // What it says about itself.
    wait_until("the metrics tell of the deployment", LIMIT, || async {
        let (_, text) = replica.get("/metrics").await;
        let all = [
            format!("windlass_delivery_ready{{name=\"shop\",namespace=\"{namespace}\"}} 1"),
            format!("windlass_delivery_inventory_objects{{name=\"shop\",namespace=\"{namespace}\"}} 2"),
            "windlass_commit_to_healthy_seconds_count 1".into(),
            "windlass_leader 1".into(),
        ];
        match all.iter().find(|line| !text.lines().any(|l| l == *line)) {
            None if text.contains("windlass_api_requests_total{code=\"4xx\",verb=\"dry-run\"}") => Ok(()),
            missing => Err(format!("no {missing:?} in\n{text}")),
        }
    })
    .await;
    assert_eq!(replica.get("/livez").await, (200, "ok".into()));
    // Every line about a Delivery says which one, and at which revision.
    let lines = replica.lines();
    let about: Vec<_> = lines.iter().filter(|l| l["delivery"].is_string()).collect();
    assert!(about.iter().any(|l| l["reason"] == "Deployed"), "{lines:#?}");
    for line in about {
        assert_eq!(line["delivery"], format!("{namespace}/shop"));
        assert!(line["revision"].as_str().is_some_and(|r| r.ends_with(&commit)), "{line}");
    }
}

#[tokio::test]
async fn rotated_credentials_are_noticed_by_the_next_poll_where_secrets_may_not_be_watched() {
    let mut world = World::stopped("rotated").await;
    forget_later(&mut world);
    install(&world, &["--deployer-role", "admin"]);
    let scratch = tempfile::tempdir().unwrap();
    let config = kubeconfig(&world, scratch.path()).await;
    let itself = format!("system:serviceaccount:{}:{}", world.space.name, installation(&world).object_name());
    for verb in ["list", "watch"] {
        let asked = json!({"verb": verb, "group": "", "resource": "secrets", "namespace": world.space.name});
        assert!(!may(&world, &itself, asked).await, "the daemon itself may {verb} Secrets");
    }
    let replica = Replica::start(&world, &config, scratch.path());
    replica.wait_ready("leadership ok: leading").await;
    let server = GitServer::start(world.repo.root(), Access::Basic("ada", "new+horse"));
    let login = |password: &str| json!({"username": "ada", "password": password, "ca.crt": server.ca()});
    let first = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    world.texts("Secret", "login", login("new+horse")).await;
    world.remote("config", &server.url(Repo::NAME), Some("login"), json!({"interval": "1s"})).await;
    world.delivery("config", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;

    // What worked a moment ago is not used on: the Secret is read for each poll.
    world.texts("Secret", "login", login("old+horse")).await;
    world.wait_remote("config", "Unauthorized").await;
    let second = world.commit("Second", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    world.texts("Secret", "login", login("new+horse")).await;
    world.wait_for("shop", Phase::Ready, &second).await;
}

#[tokio::test]
async fn a_second_replica_waits_for_the_lease_and_takes_over() {
    let mut world = World::stopped("replicas").await;
    forget_later(&mut world);
    install(&world, &["--deployer-role", "admin"]);
    let scratch = tempfile::tempdir().unwrap();
    let config = kubeconfig(&world, scratch.path()).await;
    let mut first = Replica::start(&world, &config, scratch.path());
    first.wait_ready("leadership ok: leading").await;
    let mut second = Replica::start(&world, &config, scratch.path());
    second.wait_ready("leadership ok: standby").await;
    assert!(second.get("/metrics").await.1.contains("windlass_leader 0"));
    let commit = world.commit("First version", &[("shop/settings.yaml", &config_map("settings", "1"))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;

    // Killed: the second begins when the Lease has run out.
    first.signal("KILL");
    second.wait_ready("leadership ok: leading").await;
    let commit = world.commit("Second version", &[("shop/settings.yaml", &config_map("settings", "2"))]);
    world.wait_for("shop", Phase::Ready, &commit).await;

    // Told to end: it gives the Lease back, and the third begins at once.
    let third = Replica::start(&world, &config, scratch.path());
    third.wait_ready("leadership ok: standby").await;
    let ended = format!("-{}", second.child.id());
    second.signal("TERM");
    let name = format!("windlass-{}", world.installation);
    let lease = world.get("coordination.k8s.io/v1", "leases", &name).await;
    let holder = lease["spec"]["holderIdentity"].as_str();
    assert!(holder.is_some_and(|h| !h.ends_with(&ended)), "it was given back, or is the third's: {lease}");
    third.wait_ready("leadership ok: leading").await;
    let commit = world.commit("Third version", &[("shop/settings.yaml", &config_map("settings", "3"))]);
    world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], "3");
}

/// What the account of a Delivery needs for the kinds that it delivers.
const DELIVERS: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];

/// What docs/security.md lists for an account that delivers a Deployment, its Service and its configuration, and rolls them out through an
/// HTTPRoute for which it has these rights.
fn listed(route: &[&str]) -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let (list, watch) = (&["list"][..], &["list", "watch"][..]);
    json!([
        rule("", &["configmaps", "services"], &DELIVERS),
        rule("apps", &["deployments"], &DELIVERS),
        rule("gateway.networking.k8s.io", &["httproutes"], route),
        // How the pods do, and which of them are sent requests.
        rule("", &["pods"], watch),
        rule("apps", &["replicasets"], watch),
        rule("discovery.k8s.io", &["endpointslices"], watch),
        // Whether an autoscaler has the replicas.
        rule("autoscaling", &["horizontalpodautoscalers"], list),
        rule("keda.sh", &["scaledobjects"], list),
        // What others have for the workload.
        rule("policy", &["poddisruptionbudgets"], list),
        rule("networking.k8s.io", &["networkpolicies"], list),
        rule("monitoring.coreos.com", &["podmonitors", "servicemonitors"], list),
        rule("monitoring.googleapis.com", &["podmonitorings"], list),
        rule("gateway.networking.k8s.io", &["backendtlspolicies"], list),
        rule("networking.istio.io", &["destinationrules", "envoyfilters", "sidecars"], list),
        rule(
            "security.istio.io",
            &["authorizationpolicies", "peerauthentications", "requestauthentications"],
            list
        ),
        rule("telemetry.istio.io", &["telemetries"], list),
        rule("extensions.istio.io", &["wasmplugins"], list),
    ])
}

/// Each right, as a verb and a resource with its group.
fn each(rules: &Value) -> BTreeSet<(String, String)> {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let rights = rules.as_array().unwrap().iter().flat_map(|rule| {
        let (group, resources, verbs) =
            (texts(rule, "apiGroups"), texts(rule, "resources"), texts(rule, "verbs"));
        let of = move |resource: String| {
            let (verbs, named) = (verbs.clone(), format!("{resource}.{}", group[0]));
            verbs.into_iter().map(move |verb| (verb, named.clone()))
        };
        resources.into_iter().flat_map(of)
    });
    rights.collect()
}

/// An account with what is listed rolls out a revision that is good and one that breaks, and is refused nothing; and nothing is listed
/// that it does not use. The route is its own, or somebody else's.
async fn rolls_out(test: &str, own_route: bool) {
    know_routes().await;
    let mut world = World::stopped(test).await;
    let listed = listed(if own_route { &DELIVERS } else { &["get", "list", "watch", "patch"] });
    world.space.account("deployer", listed.clone()).await;
    let _controller = Controller::of(&world);
    let audit = world.space.cluster.audit();
    world.start();
    let mut files = vec![
        ("shop/web.yaml", web("ok", 2)),
        ("shop/service.yaml", service("app: web")),
        ("shop/settings.yaml", config_map("settings", "blue")),
    ];
    if own_route {
        files.push(("shop/route.yaml", route().to_string()));
    } else {
        world.space.send("POST", &world.space.path(GATEWAY, ROUTES), &route()).await;
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let good = world.commit("First", &files);
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 30}, {"pause": {}}], "settle": "300ms",
    });
    world.deliver("shop", json!({"serviceAccountName": "deployer", "rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    // Was it an autoscaler? It was not.
    world.patch("apps/v1", "deployments", "web/scale", json!({"spec": {"replicas": 3}})).await;
    let sized = |web: &Value| web["spec"]["replicas"] == 2 && web["status"]["readyReplicas"] == 2;
    world.wait_object("apps/v1", "deployments", "web", "has its size again", sized).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    let red = config_map("settings", "red");
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2)), ("shop/settings.yaml", &red)]);
    world.wait_for("shop", Phase::Paused, &second).await;
    assert_eq!(share(&world.get(GATEWAY, ROUTES, "web").await), Some(30));
    let asked = windlass(&world.space, &["promote", "shop", "-n", &world.space.name]);
    assert_eq!(asked.code, 0, "{asked:?}");
    world.wait_for("shop", Phase::Ready, &second).await;
    let bad = world.commit("Breaks", &[("shop/web.yaml", &web("crash", 2))]);
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, second);
    assert_eq!(world.names("apps/v1", "deployments").await, ["web"]);
    assert_eq!(world.get(GATEWAY, ROUTES, "web").await["spec"], route()["spec"]);
    let told = world.wait_event("shop", "RollingOut").await;
    assert!(!told.contains("may not") && !told.contains("not known"), "{told}");

    let account = format!("system:serviceaccount:{}:deployer", world.space.name);
    // That it may not look at all namespaces at once is found out first, and is no lack.
    let requests = || {
        let all = audit.in_namespace(&world.space.name).into_iter();
        all.filter(|r| r.user == account).collect::<Vec<Audited>>()
    };
    let refused: Vec<Audited> = requests().into_iter().filter(|r| r.code == 403).collect();
    assert!(refused.is_empty(), "what is listed is not enough: {refused:#?}");
    let is_known = |resource: &str| {
        let (plural, group) = resource.split_once('.').unwrap();
        // Others may be known for a while, to other tests.
        let always = ["", "apps", "autoscaling", "discovery.k8s.io", "networking.k8s.io", "policy"];
        always.contains(&group) || plural == ROUTES
    };
    let mut expected = each(&listed);
    // `create` is asked for by the API server, of an apply (a `patch`) that makes an object; the route never leaves Git here.
    expected.retain(|(verb, resource)| {
        is_known(resource) && verb != "create" && !(verb == "delete" && resource.starts_with(ROUTES))
    });
    wait_until("all that is listed is used", LIMIT, || async {
        let used = |verb: &str, resource: &str| {
            let plural = resource.split('.').next().unwrap();
            requests().iter().any(|r| r.verb == verb && r.resource == plural)
        };
        let unused: Vec<_> = expected.iter().filter(|(verb, resource)| !used(verb, resource)).collect();
        if unused.is_empty() { Ok(()) } else { Err(format!("{unused:?}")) }
    })
    .await;
}

#[tokio::test]
async fn an_account_with_what_is_listed_rolls_out_through_its_own_route() {
    rolls_out("listed-rights", true).await;
}

#[tokio::test]
async fn an_account_with_what_is_listed_rolls_out_through_a_route_of_others() {
    rolls_out("listed-rights-others", false).await;
}

/// Most clusters know few of these kinds, and so does that of the tests.
#[test]
fn every_kind_of_others_that_is_looked_at_is_listed() {
    let listed = each(&listed(&DELIVERS));
    for (group, kind) in minded() {
        let one = kind.to_lowercase();
        let plural = one.strip_suffix('y').map_or_else(|| format!("{one}s"), |stem| format!("{stem}ies"));
        let right = ("list".to_owned(), format!("{plural}.{group}"));
        assert!(listed.contains(&right), "{kind}.{group}: {listed:#?}");
    }
}
