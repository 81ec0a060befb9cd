//! Repositories on servers: whatever becomes of the remote, what runs goes on, and the next commit is deployed.

use crate::hooks_run_once::hook;
use crate::support::cluster::wait_until;
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::support::git::Repo;
use crate::support::git_https::{Access, GitServer, Mood};
use crate::support::sshd::Sshd;
use serde_json::json;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use windlass::api::delivery::{Outcome, Phase};

async fn is_ready(world: &World, name: &str) -> bool {
    world.deliveries().get(name).await.unwrap().status.unwrap().phase == Phase::Ready
}

#[tokio::test]
async fn a_wrong_password_loses_nothing_and_the_right_one_is_noticed_at_once() {
    let world = World::new("https").await;
    let server = GitServer::start(world.repo.root(), Access::Basic("ada", "right+horse"));
    let login = |password: &str| json!({"username": "ada", "password": password, "ca.crt": server.ca()});
    let first = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    world.remote("config", &server.url(Repo::NAME), Some("login"), json!({})).await;
    world.delivery("config", "shop", json!({})).await;

    let message = world.wait_remote("config", "SecretMissing").await;
    assert!(message.contains(&format!("Secret {}/login", world.space.name)), "{message}");
    let pending = world.deliveries().get("shop").await.unwrap().status.unwrap_or_default();
    assert!(pending.inventory.is_empty());
    world.texts("Secret", "login", login("right+horse")).await;
    world.wait_for("shop", Phase::Ready, &first).await;

    world.texts("Secret", "login", login("wrong+horse")).await;
    let message = world.wait_remote("config", "Unauthorized").await;
    assert!(message.contains("`username` or `password` is wrong"), "{message}");
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "red"}})).await;
    world.wait_value("settings", "blue").await;
    wait_until("the drift is reported", LIMIT, || async {
        let report = world.reports().get_opt("shop").await.unwrap();
        let episodes = report.map_or(0, |r| r.spec.episodes.len());
        if episodes == 1 { Ok(()) } else { Err(format!("{episodes} episodes")) }
    })
    .await;
    assert!(is_ready(&world, "shop").await);

    let second = world.commit("Second", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    world.texts("Secret", "login", login("right+horse")).await;
    world.wait_for("shop", Phase::Ready, &second).await;
    let events = wait_until("an Event tells of it", LIMIT, || async {
        let path = world.space.path("events.k8s.io/v1", "events");
        let events = world.space.send("GET", &path, &json!(null)).await.to_string();
        if events.contains("\"Unauthorized\"") { Ok(events) } else { Err(events) }
    })
    .await;
    for text in [events, world.log()] {
        assert!(!text.contains("wrong+horse") && !text.contains("right+horse"), "{text}");
    }
}

#[tokio::test]
async fn ssh_is_delivered_and_another_host_key_is_refused() {
    let world = World::new("ssh").await;
    let sshd = Sshd::start();
    let secret = |hosts: String| json!({"identity": sshd.identity(), "known_hosts": hosts});
    let first = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    world.texts("Secret", "key", secret(sshd.known_hosts())).await;
    world.remote("config", &sshd.url(&world.repo.path()), Some("key"), json!({})).await;
    world.delivery("config", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;

    world.texts("Secret", "key", secret(sshd.known_hosts_of_another())).await;
    world.wait_remote("config", "HostKeyChanged").await;
    let second = world.commit("Second", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    assert!(is_ready(&world, "shop").await);
    assert_eq!(world.value("settings").await, "blue");
    world.texts("Secret", "key", secret(sshd.known_hosts())).await;
    world.wait_for("shop", Phase::Ready, &second).await;
    assert!(!world.log().contains("OPENSSH PRIVATE KEY"));
}

#[tokio::test]
async fn a_remote_that_hangs_holds_up_nobody_else() {
    let world = World::new("hang").await;
    let hangs = GitServer::start(world.repo.root(), Access::Anyone);
    hangs.set_mood(Mood::NeverSends);
    let bearer = GitServer::start(world.repo.root(), Access::Bearer("t0ken"));
    world.texts("Secret", "authority", json!({"ca.crt": hangs.ca()})).await;
    world.texts("Secret", "token", json!({"bearerToken": "t0ken", "ca.crt": bearer.ca()})).await;
    let first = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    world.remote("hangs", &hangs.url(Repo::NAME), Some("authority"), json!({"timeout": "5m"})).await;
    wait_until("the remote is asked", LIMIT, || async {
        let asked = hangs.requests();
        if asked.iter().any(|r| r.starts_with("POST")) { Ok(()) } else { Err(format!("{asked:?}")) }
    })
    .await;
    world.remote("config", &bearer.url(Repo::NAME), Some("token"), json!({"interval": "1s"})).await;
    world.delivery("config", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("Second", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert!(!world.log().contains("t0ken"));
}

#[tokio::test]
async fn a_remote_that_is_away_changes_nothing_and_is_followed_when_it_is_back() {
    let mut world = World::new("away").await;
    let server = GitServer::start(world.repo.root(), Access::Anyone);
    world.texts("Secret", "authority", json!({"ca.crt": server.ca()})).await;
    let first = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    let often = json!({"interval": "1s"});
    world.remote("config", &server.url(Repo::NAME), Some("authority"), often).await;
    world.delivery("config", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;

    server.set_mood(Mood::Status(503));
    world.wait_remote("config", "RemoteFailed").await;
    assert!(is_ready(&world, "shop").await);
    // Not even a restart needs the remote.
    world.restart().await;
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "red"}})).await;
    world.wait_value("settings", "blue").await;
    assert!(is_ready(&world, "shop").await);

    server.set_mood(Mood::Well);
    let second = world.commit("Second", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    world.wait_for("shop", Phase::Ready, &second).await;
    world.wait_remote("config", "Fetched").await;
}

#[tokio::test]
async fn a_deleted_branch_changes_nothing_and_rewritten_history_is_deployed() {
    let world = World::new("branches").await;
    let server = GitServer::start(world.repo.root(), Access::Anyone);
    world.texts("Secret", "authority", json!({"ca.crt": server.ca()})).await;
    world.commit("Begin", &[("readme.txt", "config")]);
    world.repo.git(&["checkout", "--quiet", "-b", "live"]);
    let shop = |tag: &str, value: &str| {
        [("shop/web.yaml", deployment("web", tag, 1)), ("shop/settings.yaml", config_map("settings", value))]
    };
    let commit = |subject: &str, tag: &str, value: &str| {
        let files = shop(tag, value);
        let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (*p, c.as_str())).collect();
        world.commit(subject, &files)
    };
    let first = commit("First", "ok", "blue");
    let spec = json!({"interval": "1s", "ref": {"branch": "live"}});
    world.remote("config", &server.url(Repo::NAME), Some("authority"), spec).await;
    world.delivery("config", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;

    world.repo.git(&["checkout", "--quiet", "--detach"]);
    world.repo.git(&["branch", "--quiet", "-D", "live"]);
    let message = world.wait_remote("config", "ReferenceDeleted").await;
    assert!(message.contains(&first[..12]) && message.contains("\"live\""), "{message}");
    assert!(is_ready(&world, "shop").await);

    // The branch comes back with another history, and a commit that is broken.
    world.repo.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    let bad = commit("Rewritten and broken", "crash", "red");
    world.repo.git(&["branch", "--quiet", "live"]);
    let held = world.wait_for("shop", Phase::Held, &bad).await.status.unwrap();
    assert_eq!(held.effective.unwrap().commit, first);
    assert_eq!(held.history[0].outcome, Outcome::Restored);
    assert_eq!(world.value("settings").await, "blue");
    world.repo.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    let good = commit("Rewritten and well", "fixed", "green");
    world.repo.git(&["branch", "--quiet", "--force", "live"]);
    world.wait_for("shop", Phase::Ready, &good).await;
    assert_eq!(world.value("settings").await, "green");
}

#[tokio::test]
async fn tags_and_ranges_of_versions_are_followed() {
    let world = World::new("tags").await;
    let server = GitServer::start(world.repo.root(), Access::Anyone);
    world.texts("Secret", "authority", json!({"ca.crt": server.ca()})).await;
    let commit = |value: &str, tag: &str| {
        let files = [
            ("range/settings.yaml", config_map("range", value)),
            ("tag/settings.yaml", config_map("tag", value)),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (*p, c.as_str())).collect();
        let commit = world.commit(value, &files);
        world.repo.git(&["tag", tag]);
        commit
    };
    let first = commit("one", "v1.0.0");
    for (name, reference) in
        [("range", json!({"semver": ">=1.0.0 <2.0.0"})), ("tag", json!({"tag": "v1.0.0"}))]
    {
        let spec = json!({"interval": "1s", "ref": reference});
        world.remote(name, &server.url(Repo::NAME), Some("authority"), spec).await;
        world.delivery(name, name, json!({})).await;
        world.wait_for(name, Phase::Ready, &first).await;
    }
    commit("three", "v2.0.0");
    let second = commit("two", "v1.1.0");
    let delivery = world.wait_for("range", Phase::Ready, &second).await;
    assert_eq!(delivery.status.unwrap().revision.unwrap(), format!("v1.1.0@sha1:{second}"));
    assert_eq!((world.value("range").await, world.value("tag").await), ("two".into(), "one".into()));
}

/// `windlass run` as somebody starts it at a desk.
struct Desk<'a> {
    world: &'a World,
    installation: String,
    scratch: tempfile::TempDir,
}

impl<'a> Desk<'a> {
    fn new(world: &'a World) -> Self {
        Desk { world, installation: crate::support::cluster::suffix(), scratch: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        let space = &self.world.space.name;
        command
            .args(["run", "--namespace", space, "--watch-namespace", space])
            .args(["--installation", &self.installation, "--cache-dir"])
            .arg(self.scratch.path())
            .args(arguments)
            .env("KUBECONFIG", &self.world.space.cluster.kubeconfig)
            .env("WINDLASS_KUSTOMIZE", crate::support::rendering::kustomize())
            .env("GIT_TOKEN", "t0ken+horse")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs to the end. Answers the exit code, and everything that was printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(!text.contains("t0ken+horse"), "{text}");
        (status.code().unwrap(), text)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn run_with_a_token_shows_asks_and_delivers() {
    let world = World::stopped("desk").await;
    let space = world.space.name.clone();
    let file = format!("{space}/settings.yaml");
    let migrate = (format!("{space}/migrate.yaml"), hook("migrate", "before-apply", "", "ok"));
    let commit = world.commit(
        "First",
        &[(&file, &config_map("settings", "blue")), (&migrate.0, &migrate.1), ("docs/a.txt", "a")],
    );
    let server = GitServer::start(world.repo.root(), Access::Basic("git", "t0ken+horse"));
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), server.ca()).unwrap();
    let (url, authority) = (server.url(Repo::NAME), authority.path().to_str().unwrap().to_owned());
    let desk = Desk::new(&world);
    let with = |more: &[&'static str]| {
        let mut all = vec!["--repo", &url, "--token-env", "GIT_TOKEN", "--ca-file", &authority];
        all.extend(more);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |arguments: Vec<String>| desk.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut here = with(&["--path"]);
    here.push(space.clone());

    let (code, text) = run(with(&["--path", "nowhere/*", "--dry-run"]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("no directory matches \"nowhere/*\"") && text.contains("docs"), "{text}");

    let (code, text) = run([here.clone(), vec!["--dry-run".into()]].concat());
    assert!(text.contains(&format!("ConfigMap {space}/settings")), "{text}");
    let told = format!("hook   Job {space}/migrate (before-apply) would run before anything is applied");
    assert!(text.contains(&told), "{text}");
    assert_eq!(code, 1, "{text}");
    assert!(world.names("v1", "configmaps").await.is_empty(), "a dry-run writes nothing");
    assert!(world.names("batch/v1", "jobs").await.is_empty(), "and runs nothing");

    let (code, text) = run(here.clone());
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--yes"), "{text}");
    assert!(world.names("v1", "configmaps").await.is_empty(), "nothing without a yes");

    let (code, text) = run(vec!["--repo".into(), url.clone(), "--token-env".into(), "UNSET_TOKEN".into()]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("UNSET_TOKEN"), "{text}");

    let yes = [here.clone(), vec!["--yes".into()]].concat();
    let daemon = desk.start(&yes.iter().map(String::as_str).collect::<Vec<_>>());
    world.wait_for(&space, Phase::Ready, &commit).await;
    assert_eq!(world.value("settings").await, "blue");
    let dry = || run([here.clone(), vec!["--dry-run".into()]].concat());
    let (code, text) = dry();
    assert!(text.contains(&format!("keep   ConfigMap {space}/settings")), "{text}");
    assert!(text.contains(&format!("Job {space}/migrate (before-apply) ran for this revision")), "{text}");
    assert_eq!(code, 0, "{text}");
    let (_, text) = run(with(&["--path", "docs", "--dry-run"]));
    assert!(text.contains(&format!("{space} is not delivered any more")), "{text}");
    assert!(text.contains(&format!("remove ConfigMap {space}/settings")), "what goes is told before: {text}");
    let begin = Instant::now();
    let (code, text) = run(yes);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--installation") && text.contains(&daemon.0.id().to_string()), "{text}");
    assert!(begin.elapsed() < LIMIT, "it does not wait for the other one to end");
}

#[tokio::test]
async fn run_with_a_key_delivers_over_ssh() {
    let world = World::stopped("deskssh").await;
    let space = world.space.name.clone();
    let commit =
        world.commit("First", &[(&format!("{space}/settings.yaml"), &config_map("settings", "blue"))]);
    let sshd = Sshd::start();
    let files = tempfile::tempdir().unwrap();
    let (key, hosts) = (files.path().join("key"), files.path().join("hosts"));
    std::fs::write(&key, sshd.identity()).unwrap();
    std::fs::write(&hosts, sshd.known_hosts()).unwrap();
    let desk = Desk::new(&world);
    let url = sshd.url(&world.repo.path());
    let (key, hosts) = (key.to_str().unwrap(), hosts.to_str().unwrap());
    let _daemon =
        desk.start(&["--repo", &url, "--ssh-key", key, "--known-hosts", hosts, "--path", &space, "--yes"]);
    world.wait_for(&space, Phase::Ready, &commit).await;
}
