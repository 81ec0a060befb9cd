//! With `rollback.mode: Revert` a failed commit is taken back in Git, too: once, never by force, and on a branch of its own
//! where the one that is followed is protected.

use crate::support::daemon::{World, condition, config_map, deployment};
use crate::support::git::git;
use crate::support::git_https::{Access, GitServer};
use crate::support::sshd::Sshd;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::{Outcome, Phase, Revert};
use windlass::api::names;

fn revert(delivery: &Delivery) -> Option<Revert> {
    delivery.status.as_ref()?.held.as_ref()?.revert.clone()
}

fn template() -> Value {
    json!({"rollback": {"mode": "Revert"}, "retryInterval": "1s"})
}

/// A bare repository that takes pushes, with what was committed so far.
pub fn served(world: &World) -> PathBuf {
    let bare = world.repo.bare_copy("served.git");
    git(&bare, &["config", "http.receivepack", "true"]);
    git(&bare, &["config", "http.uploadpack", "true"]);
    bare
}

/// Has it served to anyone, and delivered from there. It is served for as long as the answer is held.
async fn to_anyone(world: &World) -> GitServer {
    let server = GitServer::start(world.repo.root(), Access::Anyone);
    world.texts("Secret", "authority", json!({"ca.crt": server.ca()})).await;
    world.remote("config", &server.url("served.git"), Some("authority"), json!({"interval": "1s"})).await;
    world.delivery("config", "shop", template()).await;
    server
}

pub fn push(world: &World, bare: &Path) {
    world.repo.git(&["push", "--quiet", &bare.to_string_lossy(), "HEAD:refs/heads/main"]);
}

/// The server lets nobody but people change some branches: a hook, as hosts of repositories do it.
fn protect(bare: &Path, branches: &str) {
    let hook = bare.join("hooks/update");
    std::fs::create_dir_all(bare.join("hooks")).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in refs/heads/{branches}) echo \"$1 is protected\" >&2; exit 1;; esac\n"
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn subjects(bare: &Path, branch: &str) -> Vec<String> {
    git(bare, &["log", "--format=%s", branch]).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn over_https_the_branch_gets_it_and_the_delivery_is_ready_without_a_rollout() {
    let mut world = World::new("revert").await;
    let good = world.commit(
        "Good",
        &[("shop/web.yaml", &deployment("web", "ok", 1)), ("other/map.yaml", &config_map("other", "1"))],
    );
    let bare = served(&world);
    let server = GitServer::start(world.repo.root(), Access::Basic("bot", "s3cret+horse"));
    let login = json!({"username": "bot", "password": "s3cret+horse", "ca.crt": server.ca()});
    world.texts("Secret", "login", login).await;
    // What is pushed here is looked for when that is asked; the revert is found by itself.
    world.remote("config", &server.url("served.git"), Some("login"), json!({"interval": "1h"})).await;
    world.delivery("config", "shop", template()).await;
    world.wait_for("shop", Phase::Ready, &good).await;

    // Two commits arrive together; the one to blame is not the last one.
    let bad = world.commit("Breaks the shop", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    let last = world.commit("Elsewhere", &[("other/map.yaml", &config_map("other", "2"))]);
    push(&world, &bare);
    let now = json!({"metadata": {"annotations": {names::RECONCILE_REQUEST: "pushed"}}});
    world.patch("windlass.dev/v1alpha1", "repositories", "config", now).await;
    let taken_back = |d: &Delivery| {
        d.status
            .as_ref()
            .is_some_and(|s| s.phase == Phase::Ready && s.history[0].outcome == Outcome::Restored)
    };
    let delivery = world.wait("shop", "is ready since Git went back", taken_back).await;
    let status = delivery.status.unwrap();
    assert!(status.held.is_none());
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(subjects(&bare, "main"), ["Revert \"Elsewhere\"", "Elsewhere", "Breaks the shop", "Good"]);
    let message = git(&bare, &["log", "-1", "--format=%an%n%B", "main"]);
    assert!(message.starts_with("Windlass\n"), "{message}");
    assert!(message.contains("by Ada") && message.contains("Deployment"), "{message}");
    assert!(message.contains(&format!("Windlass-Delivery: {}/shop\n", world.space.name)), "{message}");
    assert!(
        message.contains("Windlass-Reason: ErrImagePull") || message.contains("ImagePullBackOff"),
        "{message}"
    );
    assert!(message.trim_end().ends_with(&format!("Windlass-Revert: {last}")), "{message}");
    // Only the commit to blame came out.
    assert_eq!(
        git(&bare, &["show", "main:shop/web.yaml"]),
        git(&bare, &["show", &format!("{good}:shop/web.yaml")])
    );
    assert!(git(&bare, &["show", "main:other/map.yaml"]).contains("\"2\""));
    assert_ne!(bad, last);
    world.wait_event("shop", "Reverted").await;

    // Neither a restart nor a look makes a second one.
    world.restart().await;
    world.annotate("shop", names::RECONCILE_REQUEST, "again").await;
    world
        .wait("shop", "was looked at", |d| {
            d.status.as_ref().is_some_and(|s| s.handled_request.as_deref() == Some("again"))
        })
        .await;
    assert_eq!(subjects(&bare, "main").len(), 4);
    assert_eq!(git(&bare, &["branch", "--list", "windlass/*"]), "");
    assert!(!world.log().contains("s3cret+horse"));
}

#[tokio::test]
async fn over_ssh_a_protected_branch_is_left_and_a_branch_of_its_own_is_made_once() {
    let mut world = World::new("protected").await;
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    let bare = served(&world);
    protect(&bare, "main");
    let sshd = Sshd::start();
    let key = json!({"identity": sshd.identity(), "known_hosts": sshd.known_hosts()});
    world.texts("Secret", "key", key).await;
    world.remote("config", &sshd.url(&bare), Some("key"), json!({"interval": "1s"})).await;
    world.delivery("config", "shop", template()).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let bad = world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    // People may change the branch: on the server itself no hook is asked.
    git(&bare, &["fetch", "--quiet", &world.repo.path().to_string_lossy(), "HEAD:refs/heads/main"]);
    let branch = format!("windlass/revert-shop-{}", &bad[..12]);
    let delivery = world
        .wait("shop", "is taken back on a branch", |d| revert(d).is_some_and(|r| r.branch == branch))
        .await;
    assert_eq!(delivery.status.as_ref().unwrap().phase, Phase::Held);
    let (_, _, message) = condition(&delivery, kind::HELD);
    assert!(message.contains(&branch), "{message}");
    assert_eq!(subjects(&bare, "main"), ["Bad", "Good"]);
    assert_eq!(subjects(&bare, &branch), ["Revert \"Bad\"", "Bad", "Good"]);
    let made = git(&bare, &["rev-parse", &branch]);

    // Another daemon that knows nothing of it finds the branch.
    world.kill();
    // Whatever the dead one sent last, and however late it arrives.
    let forgotten = json!({"status": {"held": {"revert": null}}});
    let answer = world.patch("windlass.dev/v1alpha1", "deliveries", "shop/status", forgotten).await;
    assert!(answer["status"]["held"].is_object() && answer["status"]["held"]["revert"].is_null(), "{answer}");
    world.restart().await;
    world.wait("shop", "knows of the branch again", |d| revert(d).is_some_and(|r| r.branch == branch)).await;
    assert_eq!(git(&bare, &["rev-parse", &branch]), made);
    // People merge it.
    std::fs::remove_file(bare.join("hooks/update")).unwrap();
    git(&bare, &["update-ref", "refs/heads/main", &made]);
    let delivery =
        world.wait("shop", "is ready", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)).await;
    assert!(delivery.status.unwrap().held.is_none());
}

#[tokio::test]
async fn without_the_right_to_push_it_says_so_and_goes_on_holding() {
    let world = World::new("readonly").await;
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    let bare = served(&world);
    git(&bare, &["config", "http.receivepack", "false"]);
    let _server = to_anyone(&world).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let bad = world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    push(&world, &bare);
    let forbidden =
        |d: &Delivery| revert(d).is_some_and(|r| r.problem.is_some_and(|p| p.reason == "RevertForbidden"));
    let delivery = world.wait("shop", "may not push", forbidden).await;
    assert_eq!(delivery.status.as_ref().unwrap().held.as_ref().unwrap().revision.commit, bad);
    let (_, _, message) = condition(&delivery, kind::HELD);
    assert!(message.contains("write access"), "{message}");
    let told = world.wait_event("shop", "RevertForbidden").await;
    assert!(told.contains("write access"), "{told}");
    assert_eq!(subjects(&bare, "main"), ["Bad", "Good"]);
    // The right is given, and it is tried again by itself.
    git(&bare, &["config", "http.receivepack", "true"]);
    world
        .wait("shop", "is ready", |d| {
            d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready && s.held.is_none())
        })
        .await;
    assert_eq!(subjects(&bare, "main"), ["Revert \"Bad\"", "Bad", "Good"]);
}

#[tokio::test]
async fn where_no_branch_takes_it_that_is_told_and_it_is_tried_again() {
    let world = World::new("allprotected").await;
    let good = world.commit("Good", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    let bare = served(&world);
    let _server = to_anyone(&world).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    let bad = world.commit("Bad", &[("shop/web.yaml", &deployment("web", "missing", 1))]);
    // Before it is there: a fetch asks no hook.
    protect(&bare, "*");
    git(&bare, &["fetch", "--quiet", &world.repo.path().to_string_lossy(), "HEAD:refs/heads/main"]);
    let refused =
        |d: &Delivery| revert(d).is_some_and(|r| r.problem.is_some_and(|p| p.reason == "RevertRefused"));
    let delivery = world.wait("shop", "is refused", refused).await;
    assert_eq!(delivery.status.as_ref().unwrap().held.as_ref().unwrap().revision.commit, bad);
    let told = world.wait_event("shop", "RevertRefused").await;
    assert!(told.contains("is protected") && told.contains("by hand"), "{told}");
    let (_, _, message) = condition(&delivery, kind::HELD);
    assert!(message.contains("Git still has it"), "{message}");
    assert_eq!(subjects(&bare, "main"), ["Bad", "Good"]);
    assert_eq!(git(&bare, &["branch", "--list", "windlass/*"]), "");
    std::fs::remove_file(bare.join("hooks/update")).unwrap();
    let ready = |d: &Delivery| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready && s.held.is_none());
    world.wait("shop", "is ready", ready).await;
    assert_eq!(subjects(&bare, "main"), ["Revert \"Bad\"", "Bad", "Good"]);
}
