//! Faults of everything around the daemon, for real: storage that hangs, a Git server that dies, clocks that jump, a
//! status that somebody else wrote, and more daemons than one.

use crate::support::cluster::{Cluster, Stopped, suffix, wait_until};
use crate::support::daemon::{LIMIT, World, config_map, deployment};
use crate::support::git::Repo;
use crate::support::git_https::{Access, GitServer, Mood};
use crate::the_daemon_dies_in_hooks_reverts_and_repairs::{gated, open_gates};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use windlass::api::delivery::{Goal, Outcome, Phase, Step};
use windlass::api::{Delivery, names};

/// Longer than a Lease lives, and than the timeout of what waits meanwhile.
const PAUSE: Duration = Duration::from_secs(25);

/// Objects of a bundle whose apply has a middle.
const MANY: usize = 300;

fn outcomes(delivery: &Delivery) -> Vec<Outcome> {
    delivery.status.iter().flat_map(|s| &s.history).map(|h| h.outcome).collect()
}

fn web(tag: &str) -> String {
    deployment("web", tag, 1)
}

async fn deployed(world: &World) -> String {
    let files = [("shop/web.yaml", &*web("ok")), ("shop/settings.yaml", &*config_map("settings", "blue"))];
    let good = world.commit("Good", &files);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    good
}

#[tokio::test]
async fn storage_that_hangs_costs_only_time() {
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "etcd").await;
    world.start();
    deployed(&world).await;
    world.give_time(20, json!({})).await;
    // Its pod is ready when this test says so.
    let slow =
        world.commit("Slow", &[("shop/web.yaml", &gated("ok")), ("shop/new.yaml", &config_map("new", "1"))]);
    world.wait_for("shop", Phase::Waiting, &slow).await;
    cluster.signal("etcd", "STOP");
    let pods = cluster.kill_pod_player();
    // That it hangs so long is the point.
    tokio::time::sleep(PAUSE).await;
    cluster.signal("etcd", "CONT");
    let pods = pods.start();
    world.wait_object("v1", "configmaps", "new", "is read again", Value::is_object).await;
    open_gates(&world).await;
    let delivery = world.wait_for("shop", Phase::Ready, &slow).await;
    assert_eq!(outcomes(&delivery), [Outcome::Deployed, Outcome::Deployed]);
    assert_eq!(world.names("v1", "configmaps").await, ["new", "settings"]);
    drop((world, pods));
    cluster.stop();
}

/// In the middle of the writes of a rollback, and in the wait that follows them.
#[tokio::test]
async fn storage_that_hangs_in_a_rollback_costs_only_time() {
    let cluster = Cluster::own();
    let mut world = World::stopped_in(cluster, "etcd-back").await;
    world.start();
    let maps = |value: &str| -> Vec<(String, String)> {
        (0..MANY).map(|n| (format!("shop/it-{n}.yaml"), config_map(&format!("it-{n}"), value))).collect()
    };
    let commit = |world: &World, subject: &str, web: String, value: &str| {
        let mut files = maps(value);
        files.push(("shop/web.yaml".into(), web));
        let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
        world.commit(subject, &files)
    };
    // Its pod is ready when this test says so.
    let good = commit(&world, "Good", gated("ok"), "good");
    world.deliver("shop", json!({})).await;
    open_gates(&world).await;
    world.wait_for("shop", Phase::Ready, &good).await;
    world.give_time(20, json!({})).await;
    let bad = commit(&world, "Bad", gated("missing"), "bad");
    let with = async |value: &str| {
        let list = world.space.send("GET", &world.space.path("v1", "configmaps"), &Value::Null).await;
        list["items"].as_array().unwrap().iter().filter(|o| o["data"]["key"] == value).count()
    };
    let attempt = |d: &Delivery| d.status.as_ref().and_then(|s| s.attempt.clone());
    let goes_back = |d: &Delivery| attempt(d).is_some_and(|a| a.goal == Goal::Rollback);
    world.wait("shop", "goes back", goes_back).await;
    wait_until("the first objects are back", LIMIT, || async {
        let back = with("good").await;
        if back > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    let hang = async |pods: Stopped| {
        // That it hangs so long is the point.
        tokio::time::sleep(PAUSE).await;
        cluster.signal("etcd", "CONT");
        pods.start()
    };
    cluster.signal("etcd", "STOP");
    let pods = hang(cluster.kill_pod_player()).await;
    let waits =
        |d: &Delivery| attempt(d).is_some_and(|a| (a.goal, a.step) == (Goal::Rollback, Step::Waiting));
    world.wait("shop", "waits for what is back", waits).await;
    assert_eq!(with("good").await, MANY);
    cluster.signal("etcd", "STOP");
    let pods = hang(pods.kill()).await;
    world.wait_object("apps/v1", "deployments", "web", "is read again", Value::is_object).await;
    open_gates(&world).await;
    let delivery = world.wait_for("shop", Phase::Held, &bad).await;
    assert_eq!(outcomes(&delivery), [Outcome::Restored, Outcome::RolledBack, Outcome::Deployed]);
    let status = delivery.status.unwrap();
    assert_eq!(status.effective.unwrap().commit, good);
    assert_eq!(status.inventory.len(), MANY + 1);
    let told = world.events("shop").await;
    assert!(told.iter().all(|(reason, _)| reason != "RollbackFailed"), "{told:?}");
    drop((world, pods));
    cluster.stop();
}

#[tokio::test]
async fn a_git_server_that_dies_in_the_middle_of_a_poll_is_followed_when_it_is_back() {
    let world = World::new("git-dies").await;
    let mut server = GitServer::start(world.repo.root(), Access::Anyone);
    world.texts("Secret", "authority", json!({"ca.crt": server.ca()})).await;
    let first = world.commit("First", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    let often = json!({"interval": "1s", "timeout": "5m"});
    world.remote("config", &server.url(Repo::NAME), Some("authority"), often).await;
    world.delivery("config", "shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;

    // The refs are listed, the commit is on its way, and never comes.
    server.set_mood(Mood::NeverSends);
    let before = server.requests().len();
    let second = world.commit("Second", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    wait_until("it sends nothing", LIMIT, || async {
        let asked = server.requests().split_off(before);
        // The first of a poll asks for the refs, the second for the commit.
        if asked.iter().filter(|r| r.starts_with("POST")).count() >= 2 {
            Ok(())
        } else {
            Err(format!("{asked:?}"))
        }
    })
    .await;
    server.kill();
    world.wait_remote("config", "Unreachable").await;
    // What runs goes on, and is kept as it is.
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "red"}})).await;
    world.wait_value("settings", "blue").await;
    let delivery = world.deliveries().get("shop").await.unwrap();
    assert_eq!(delivery.status.as_ref().unwrap().phase, Phase::Ready);

    server.set_mood(Mood::Well);
    server.begin();
    let delivery = world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(outcomes(&delivery), [Outcome::Deployed, Outcome::Deployed]);
}

/// Has the machine's clock off by so many hours.
fn set_clock(world: &World, hours: i64) {
    // Written beside and moved there: the daemon may read it at any moment.
    fs::write(world.file("clock-new"), (hours * 3600).to_string()).unwrap();
    fs::rename(world.file("clock-new"), world.file("clock")).unwrap();
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_wait_and_prolongs_none() {
    let mut world = World::stopped("clock").await;
    world.environment.push(("WINDLASS_CLOCK_OFFSET", world.file("clock").display().to_string()));
    world.start();
    let mut expected = vec![Outcome::Deployed];
    deployed(&world).await;
    // While it runs, and between two lives; forward and back.
    for (number, (hours, restart)) in [(5, false), (-5, false), (5, true), (-5, true)].into_iter().enumerate()
    {
        let slow = world.commit(
            &format!("Slow {number}"),
            &[
                // Its pod is ready when this test says so.
                ("shop/web.yaml", &gated("ok")),
                ("shop/number.yaml", &config_map("number", &number.to_string())),
            ],
        );
        world.wait_for("shop", Phase::Waiting, &slow).await;
        set_clock(&world, hours);
        if restart {
            world.restart().await;
        }
        let look = format!("look {number}");
        world.annotate("shop", names::RECONCILE_REQUEST, &look).await;
        let looked =
            |d: &Delivery| d.status.as_ref().is_some_and(|s| s.handled_request == Some(look.clone()));
        world.wait("shop", "is looked at by that clock", looked).await;
        open_gates(&world).await;
        let delivery = world.wait_for("shop", Phase::Ready, &slow).await;
        expected.insert(0, Outcome::Deployed);
        assert_eq!(outcomes(&delivery), expected, "{hours} h, restarted: {restart}");
        let ok = world.commit(&format!("Back {number}"), &[("shop/web.yaml", &web("ok"))]);
        world.wait_for("shop", Phase::Ready, &ok).await;
        expected.insert(0, Outcome::Deployed);
    }
    // What never becomes ready is taken back in its time all the same.
    world.give_time(8, json!({})).await;
    for (number, (hours, restart)) in [(0, false), (-5, true)].into_iter().enumerate() {
        let never = world.commit(
            "Never",
            &[
                ("shop/web.yaml", &web("unready")),
                ("shop/number.yaml", &config_map("number", &format!("never {number}"))),
            ],
        );
        // Its time may be up already when this test is late.
        let tried = |d: &Delivery| {
            let status = d.status.as_ref();
            status.is_some_and(|s| {
                s.revision.as_ref().is_some_and(|r| r.ends_with(&never)) && s.phase != Phase::Applying
            })
        };
        world.wait("shop", "waits", tried).await;
        set_clock(&world, hours);
        if restart {
            world.restart().await;
        }
        let delivery = world.wait_for("shop", Phase::Held, &never).await;
        assert_eq!(delivery.status.unwrap().held.unwrap().problem.reason, "Timeout");
    }
}

/// Writes over the status as somebody else would: with whatever version stands there.
async fn write_status(world: &World, change: impl Fn(&mut Value)) {
    let path = world.space.path("windlass.dev/v1alpha1", "deliveries");
    wait_until("the status is written over", LIMIT, || async {
        let mut delivery = world.get("windlass.dev/v1alpha1", "deliveries", "shop").await;
        change(&mut delivery["status"]);
        let client = &world.space.connection.client;
        let path = format!("{path}/shop/status");
        let answer = crate::support::cluster::try_send(client, "PUT", &path, &delivery).await;
        answer.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_deletes_nothing_and_is_put_right() {
    let world = World::new("status").await;
    deployed(&world).await;
    let old = world.get("windlass.dev/v1alpha1", "deliveries", "shop").await["status"].clone();
    let files = [
        ("shop/settings.yaml", &*config_map("settings", "green")),
        ("shop/new.yaml", &*config_map("new", "1")),
    ];
    let second = world.commit("Second", &files);
    world.wait_for("shop", Phase::Ready, &second).await;
    let uid = world.get("v1", "configmaps", "new").await["metadata"]["uid"].clone();
    let right = |world: &World| {
        let (second, uid) = (second.clone(), uid.clone());
        let found = world.deliveries();
        let new = world.space.path("v1", "configmaps");
        let client = world.space.connection.client.clone();
        async move {
            wait_until("it is right again", LIMIT, || async {
                let status = found.get("shop").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
                let well = status.phase == Phase::Ready
                    && status.attempt.is_none()
                    && status.effective.as_ref().is_some_and(|e| e.commit == second)
                    && status.inventory.len() == 3
                    && status.inventory.iter().all(|e| e.uid.is_some());
                if well { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .await;
            let path = format!("{new}/new");
            let object =
                crate::support::cluster::try_send(&client, "GET", &path, &Value::Null).await.unwrap();
            assert_eq!(object["metadata"]["uid"], uid, "it is the very object");
        }
    };

    // As it was before the last commit, as from a backup.
    write_status(&world, |status| *status = old.clone()).await;
    right(&world).await;
    // Without some of what it says.
    write_status(&world, |status| status["conditions"] = json!([])).await;
    write_status(&world, |status| status["history"] = json!([])).await;
    right(&world).await;
    // An attempt of nothing, with times that are none.
    let nonsense = json!({
        "goal": "Deploy", "step": "Waiting", "startedAt": "soon", "deadline": "never", "retryAt": "?", "retries": 9,
        "revision": {"branch": "x", "commit": "nonsense", "path": "nowhere", "inputs": "?", "author": "", "subject": ""},
    });
    write_status(&world, |status| status["attempt"] = nonsense.clone()).await;
    right(&world).await;
    // In the middle of a wait, times that passed long ago or never come.
    for deadline in ["", "1970-01-01T00:00:00Z", "9999-12-31T00:00:00Z"] {
        let slow = world.commit(
            &format!("Slow, {deadline}"),
            &[
                // Its pod is ready when this test says so.
                ("shop/web.yaml", &gated("ok")),
                ("shop/settings.yaml", &config_map("settings", &format!("until {deadline}"))),
            ],
        );
        world.wait_for("shop", Phase::Waiting, &slow).await;
        write_status(&world, |status| {
            if status["attempt"].is_object() {
                status["attempt"]["deadline"] = json!(deadline);
            }
        })
        .await;
        open_gates(&world).await;
        let delivery = world
            .wait("shop", "settled", |d| {
                d.status.as_ref().is_some_and(|s| {
                    s.attempt.is_none() && s.revision.as_ref().is_some_and(|r| r.ends_with(&slow))
                })
            })
            .await;
        assert_eq!(
            delivery.status.as_ref().unwrap().phase,
            Phase::Ready,
            "{deadline}: {:?}",
            outcomes(&delivery)
        );
        let ok = world.commit("Back", &[("shop/web.yaml", &web("ok"))]);
        world.wait_for("shop", Phase::Ready, &ok).await;
    }
    assert_eq!(world.names("v1", "configmaps").await, ["new", "settings"]);
}

#[tokio::test]
async fn a_second_daemon_started_by_mistake_says_who_works_and_ends() {
    let world = World::new("twice").await;
    let good = deployed(&world).await;
    let mut second = world.spawn(&world.installation, "cache-of-another");
    let ended = wait_until("the second one ends", LIMIT, || {
        let ended = second.try_wait().unwrap().ok_or_else(|| "it runs".to_owned());
        async { ended }
    })
    .await;
    assert_eq!(ended.code(), Some(2));
    assert!(world.log().contains("another windlass holds the Lease"), "{}", world.log());
    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "by hand"}})).await;
    world.wait_object("v1", "configmaps", "settings", "mended", |o| o["data"]["key"] == "blue").await;
    let delivery = world.wait_for("shop", Phase::Ready, &good).await;
    assert_eq!(outcomes(&delivery), [Outcome::Deployed]);
}

#[tokio::test]
async fn another_installation_on_the_same_deliveries_takes_and_deletes_nothing() {
    let world = World::new("strangers").await;
    deployed(&world).await;
    let uid = |o: &Value| o["metadata"]["uid"].clone();
    let before = (
        uid(&world.get("v1", "configmaps", "settings").await),
        uid(&world.get("apps/v1", "deployments", "web").await),
    );
    let audit = world.space.cluster.audit();
    let mut second = world.spawn(&suffix(), "cache-of-another");
    // A commit while both work: whoever is first has the objects.
    let next = world.commit("Next", &[("shop/settings.yaml", &config_map("settings", "green"))]);
    world.wait_object("v1", "configmaps", "settings", "changed", |o| o["data"]["key"] == "green").await;
    second.kill().unwrap();
    second.wait().unwrap();
    world.wait_for("shop", Phase::Ready, &next).await;
    let label = names::delivery_label(&world.installation, &world.space.name, "shop");
    let settings = world.get("v1", "configmaps", "settings").await;
    assert_eq!(settings["metadata"]["labels"][names::DELIVERY_LABEL], label);
    let after = (uid(&settings), uid(&world.get("apps/v1", "deployments", "web").await));
    assert_eq!(before, after, "nothing was made anew");
    let deleted: Vec<_> = world.writes(&audit).into_iter().filter(|r| r.verb == "delete").collect();
    assert!(deleted.is_empty(), "{deleted:#?}");
}

#[tokio::test]
async fn a_daemon_that_slept_through_its_lease_breaks_nothing_when_it_wakes() {
    let mut world = World::stopped("sleeper").await;
    world.patient = false;
    world.start();
    deployed(&world).await;
    // Many objects, so that it falls asleep between two of them.
    let many = |value: &str| -> Vec<(String, String)> {
        let it = |n: usize| (format!("shop/it-{n}.yaml"), config_map(&format!("it-{n}"), value));
        (0..120).map(it).collect()
    };
    let commit = |world: &World, subject: &str, files: &[(String, String)]| {
        let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
        world.commit(subject, &files)
    };
    commit(&world, "Many", &many("1"));
    wait_until("the first objects are there", LIMIT, || async {
        let there = world.names("v1", "configmaps").await.len();
        if there > 1 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    world.signal("STOP");
    let mut sleeper = world.take();
    world.give_away().await;
    world.start();
    let mut fewer = many("2");
    for (_, content) in fewer.iter_mut().skip(60) {
        content.clear();
    }
    // What is to go must be there first.
    let second = commit(&world, "Fewer", &fewer);
    world.wait_for("shop", Phase::Ready, &second).await;
    let uids = |list: Value| -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let items = list["items"].as_array().unwrap().iter();
        let all = items.map(|o| (text(&o["metadata"]["name"]), text(&o["metadata"]["uid"])));
        all.filter(|(name, _)| name.starts_with("it-")).collect()
    };
    let path = world.space.path("v1", "configmaps");
    // What the sleeper had sent may come late, and is removed then.
    let before = wait_until("those that Git names are left", LIMIT, || async {
        let before = uids(world.space.send("GET", &path, &Value::Null).await);
        if before.len() == 60 { Ok(before) } else { Err(before.len().to_string()) }
    })
    .await;

    let pid = sleeper.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "CONT", &pid]).status().unwrap().success());
    let ended = wait_until("the sleeper learns that it does not work any more, and ends", LIMIT, || {
        let ended = sleeper.try_wait().unwrap().ok_or_else(|| "it runs".to_owned());
        async { ended }
    })
    .await;
    assert_eq!(ended.code(), Some(2));
    // What it still had under way is cleared away, and nothing was made anew.
    wait_until("all is as the second commit says", LIMIT, || async {
        let list = world.space.send("GET", &path, &Value::Null).await;
        let values = list["items"].as_array().unwrap().iter();
        let mut wrong = values.filter(|o| {
            o["metadata"]["name"].as_str().unwrap().starts_with("it-") && o["data"]["key"] != "2"
        });
        let wrong = wrong.next().cloned();
        let after = uids(list.clone());
        if after == before && wrong.is_none() {
            Ok(())
        } else {
            Err(format!("{} objects, {wrong:?}", after.len()))
        }
    })
    .await;
    let delivery = world.wait_for("shop", Phase::Ready, &second).await;
    assert!(outcomes(&delivery).iter().all(|o| !matches!(o, Outcome::RolledBack)));
}
