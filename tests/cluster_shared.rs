//! What daemons share: the Lease, Events, definitions; and how a busy server is treated.

use crate::support::cluster::{Space, wait_until};
use crate::support::daemon::LIMIT;
use crate::support::faults::{Fault, Faults};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use windlass::api::names;
use windlass::cluster::apply::{apply, get};
use windlass::cluster::crds::{Installed, install, look_again};
use windlass::cluster::events::{Note, Recorder, Regarding};
use windlass::cluster::lease::{Candidate, Leadership, LeaseError, LeaseOptions, Step, decide};
use windlass::cluster::{Cause, ConnectOptions, Connection, Guard, ServiceAccount};

fn options(space: &Space, identity: &str) -> LeaseOptions {
    LeaseOptions::new(&space.name, "windlass", identity)
}

/// Whether one gets it. A daemon ends when the server does not answer in time; here it is asked again.
async fn got_or_held(space: &Space, who: &str) -> Result<Leadership, LeaseError> {
    wait_until("the Lease is got, or another's", LIMIT, || async {
        match Candidate::new(&space.connection, options(space, who)).acquire_unless_held().await {
            Err(LeaseError::Failed(e)) => Err(e.to_string()),
            got => Ok(got),
        }
    })
    .await
}

#[tokio::test]
async fn one_holds_the_lease_and_the_other_learns_who() {
    let space = Space::new("lease").await;
    let candidate = |who: &str| Candidate::new(&space.connection, options(&space, who));
    let first = got_or_held(&space, "first").await.unwrap();
    assert!(first.is_held());
    let error = got_or_held(&space, "second").await.err().unwrap();
    let LeaseError::Held { holder, .. } = &error else { panic!("{error}") };
    assert_eq!(holder, "first");
    assert!(error.to_string().contains("first"), "{error}");

    // Given back, it is free at once.
    first.release().await;
    let record = candidate("any").read().await.unwrap();
    assert_eq!(decide(record.as_ref(), "second", Duration::ZERO), Step::Take, "no waiting for it to run out");
    // It holds for a second, and is not renewed any more soon.
    let short = LeaseOptions { duration: Duration::from_secs(1), ..options(&space, "second") };
    let second = Candidate::new(&space.connection, short).acquire().await;
    let record = candidate("any").read().await.unwrap().unwrap();
    assert_eq!((record.holder.as_str(), record.transitions), ("second", 1));

    // Dropped, as in a crash, it runs out; then it is another's.
    drop(second);
    let third = got_or_held(&space, "third").await.unwrap();
    assert!(third.is_held());

    // Taken away (a person's edit), its holder notices.
    let lease = format!("{}/windlass", space.path("coordination.k8s.io/v1", "leases"));
    space
        .send("PATCH", &lease, &json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60}}))
        .await;
    tokio::time::timeout(LIMIT, third.lost()).await.expect("the loss is noticed");
    assert!(!third.is_held());
}

#[tokio::test]
async fn the_lease_waits_behind_nothing() {
    let space = Space::new("busy").await;
    // Everything that may be asked at once is asked already, and not answered.
    let mut held = Vec::new();
    let mut full = false;
    while !full {
        let share = space.connection.share();
        let turn = tokio::time::timeout(Duration::from_millis(100), share.permit()).await;
        full = turn.is_err();
        held.extend(turn);
    }
    let candidate = Candidate::new(&space.connection, options(&space, "busy"));
    let lease = tokio::time::timeout(LIMIT, candidate.acquire()).await.expect("it is got");
    let reader = Candidate::new(&space.connection, options(&space, "reader"));
    let first = reader.read().await.unwrap().unwrap().renewed;
    wait_until("it is renewed", LIMIT, || async {
        let renewed = reader.read().await.map_err(|e| e.to_string())?.unwrap().renewed;
        if renewed == first { Err("not yet".into()) } else { Ok(()) }
    })
    .await;
    assert!(lease.is_held());
    drop(held);
}

#[tokio::test]
async fn of_many_candidates_one_leads() {
    let space = Space::new("race").await;
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    let mut leaders = Vec::new();
    for got in futures::future::join_all(names.iter().map(|name| got_or_held(&space, name))).await {
        match got {
            Ok(leader) => leaders.push(leader),
            Err(LeaseError::Held { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(leaders.len(), 1);
}

#[tokio::test]
async fn events_tell_once_and_count() {
    let space = Space::new("events").await;
    let recorder = Recorder::start(&space.connection, "test-0");
    let maps = space.resource("v1", "ConfigMap");
    let regarding = Regarding { api_version: "v1".into(), id: maps.id(&space.name, "it"), uid: None };
    let note = |text: &str| Note {
        regarding: regarding.clone(),
        related: None,
        warning: true,
        reason: "RevisionHeld".into(),
        action: "RolledBack".into(),
        text: text.into(),
    };
    for text in ["commit a", "commit a", "commit b", &"x".repeat(3000)] {
        recorder.note(note(text));
    }
    let events = wait_until("the events are there", LIMIT, async || {
        let list = space.send("GET", &space.path("events.k8s.io/v1", "events"), &Value::Null).await;
        let items = list["items"].as_array().unwrap().clone();
        if items.len() == 3 { Ok(items) } else { Err(format!("{} of {}", items.len(), recorder.dropped())) }
    })
    .await;
    let one = events.iter().find(|e| e["note"] == "commit a").unwrap();
    assert_eq!(one["reportingController"], "windlass.dev/windlass");
    assert_eq!((&one["type"], &one["reason"]), (&json!("Warning"), &json!("RevisionHeld")));
    assert!(events.iter().any(|e| e["note"] == "commit b"), "another text is another event");
    assert_eq!(recorder.dropped(), 0);
}

#[tokio::test]
async fn five_hundred_notes_at_once_are_all_written() {
    const NOTES: usize = 500;
    let space = Space::new("events-burst").await;
    let recorder = Recorder::start(&space.connection, "test-0");
    let maps = space.resource("v1", "ConfigMap");
    let note = |n: usize| Note {
        regarding: Regarding { api_version: "v1".into(), id: maps.id(&space.name, "it"), uid: None },
        related: None,
        warning: false,
        reason: "Deployed".into(),
        action: "Reconcile".into(),
        text: format!("commit {n}"),
    };
    let audit = space.cluster.audit();
    for n in 0..NOTES {
        recorder.note(note(n));
        // Said again while the first one waits: no second Event.
        recorder.note(note(n));
    }
    let path = format!("{}?limit={}", space.path("events.k8s.io/v1", "events"), 2 * NOTES);
    let texts = wait_until("all events are there", LIMIT, async || {
        let list = space.send("GET", &path, &Value::Null).await;
        let items = list["items"].as_array().unwrap();
        let texts: BTreeSet<String> =
            items.iter().filter_map(|e| e["note"].as_str()).map(str::to_owned).collect();
        if items.len() >= NOTES { Ok(texts) } else { Err(format!("{} of {NOTES}", items.len())) }
    })
    .await;
    assert_eq!(texts.len(), NOTES, "each text once");
    assert_eq!(recorder.dropped(), 0);
    // An Event that was not answered in time is sent once more, and is there already.
    let written =
        || audit.in_namespace(&space.name).iter().filter(|r| r.verb == "create" && r.code == 201).count();
    wait_until("all are in the audit log", LIMIT, async || {
        if written() >= NOTES { Ok(()) } else { Err(written().to_string()) }
    })
    .await;
    assert_eq!(written(), NOTES, "a repetition makes no Event of its own");
}

#[tokio::test]
async fn an_event_comes_after_the_objects_that_wait_for_their_turn() {
    let space = Space::new("events-behind").await;
    let faults = Faults::before(space.cluster).await;
    let options = ConnectOptions {
        kubeconfig: Some(faults.kubeconfig.clone()),
        concurrency: Some(2),
        ..ConnectOptions::default()
    };
    let connection = Connection::open(&options).await.unwrap();
    let recorder = Recorder::start(&connection, "test-0");
    let maps = space.resource("v1", "ConfigMap");
    // Each of the objects is carried out when this test says so.
    let told: Vec<Arc<Notify>> = (0..4).map(|_| Arc::default()).collect();
    let mut held = told.clone().into_iter();
    faults.set(
        move |request| {
            if request.method() == "PATCH" { held.next().map(Fault::PassLater) } else { None }
        },
    );
    let (patches, posts) = (|| faults.times("PATCH").len(), || faults.times("POST").len());
    let arrived = async |count: usize| {
        wait_until("they are sent", LIMIT, async || {
            if patches() >= count { Ok(()) } else { Err(patches().to_string()) }
        })
        .await;
    };
    let object = |n: usize| {
        let (access, maps, name) = (connection.access(None), maps.clone(), format!("c{n}"));
        let namespace = space.name.clone();
        tokio::spawn(async move {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
            });
            apply(&access, &maps, &object, Guard::Any).await.unwrap();
        })
    };
    let mut objects = vec![object(0), object(1)];
    arrived(2).await;
    // All that can be under way at once is. One more stands in the queue, then an Event is noted, then there is another object.
    objects.push(object(2));
    settle().await;
    recorder.note(Note {
        regarding: Regarding { api_version: "v1".into(), id: maps.id(&space.name, "it"), uid: None },
        related: None,
        warning: false,
        reason: "Deployed".into(),
        action: "Reconcile".into(),
        text: "commit a".into(),
    });
    settle().await;
    objects.push(object(3));
    settle().await;
    told[0].notify_one();
    told[1].notify_one();
    arrived(4).await;
    assert_eq!(posts(), 0, "all objects were sent, and they take all that there is");
    told[2].notify_one();
    told[3].notify_one();
    for object in objects {
        object.await.unwrap();
    }
    wait_until(
        "the Event is there",
        LIMIT,
        async || {
            if posts() == 1 { Ok(()) } else { Err(posts().to_string()) }
        },
    )
    .await;
}

/// Lets the tasks of this runtime, which has one thread, go as far as they come by themselves.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_event_waits_for_a_server_that_is_away_and_is_made_once() {
    let space = Space::new("events-away").await;
    let faults = Faults::before(space.cluster).await;
    let recorder = Recorder::start(&faults.connect().await, "test-0");
    let mut posts = 0;
    faults.set(move |request| {
        posts += usize::from(request.method() == "POST");
        match (request.method().as_str(), posts) {
            ("POST", 1 | 2) => Some(Fault::Status(503, None)),
            // Carried out without an answer: tried again, it is there already.
            ("POST", 3) => Some(Fault::LoseAnswer),
            _ => None,
        }
    });
    let note = |text: &str| Note {
        regarding: Regarding {
            api_version: "v1".into(),
            id: space.resource("v1", "ConfigMap").id(&space.name, "it"),
            uid: None,
        },
        related: None,
        warning: false,
        reason: "Deployed".into(),
        action: "Reconcile".into(),
        text: text.into(),
    };
    let posts = || faults.times("POST").len();
    let posted = async |count: usize| {
        wait_until("it is tried again", LIMIT, async || {
            if posts() >= count {
                Ok(())
            } else {
                Err(format!("{} times, {} lost", posts(), recorder.dropped()))
            }
        })
        .await;
    };
    recorder.note(note("commit a"));
    posted(4).await;
    recorder.note(note("commit b"));
    posted(5).await;
    let events = wait_until("both are there", LIMIT, async || {
        let list = space.send("GET", &space.path("events.k8s.io/v1", "events"), &Value::Null).await;
        let events = list["items"].as_array().unwrap().clone();
        if events.len() >= 2 { Ok(events) } else { Err(format!("{}", events.len())) }
    })
    .await;
    assert_eq!((events.len(), posts(), recorder.dropped()), (2, 5, 0));
}

#[tokio::test]
async fn definitions_are_installed_once() {
    let mut space = Space::new("install").await;
    let group = format!("{}.example.com", space.name);
    let definition = |kind: &str, plural: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        })
    };
    for plural in ["ones", "twos", "others"] {
        space.forget_later(&format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}"
        ));
    }
    let mut wanted = vec![definition("One", "ones"), definition("Two", "twos")];
    let answers = install(&space.access, &space.discovery, &wanted, LIMIT).await.unwrap();
    assert_eq!(answers, [Installed::Created, Installed::Created]);
    assert_eq!(space.discovery.scope(&group, "Two"), Some(true));
    wanted[1]["spec"]["names"]["shortNames"] = json!(["tw"]);
    let answers = install(&space.access, &space.discovery, &wanted, LIMIT).await.unwrap();
    assert_eq!(answers, [Installed::Unchanged, Installed::Updated]);
    let error =
        install(&space.access, &space.discovery, &[definition("One", "others")], LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("names are taken"), "{error}");
}

#[tokio::test]
async fn a_definition_that_takes_long_to_go_is_shown_to_the_server_again_each_time() {
    let mut space = Space::new("again").await;
    let (group, path) =
        (format!("{}.example.com", space.name), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
    let name = format!("ones.{group}");
    // A hold of somebody else, so that it stays for a while.
    let definition = json!({
        "metadata": {"name": name, "finalizers": ["example.com/hold"]},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "ones", "kind": "One"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    space.make_cluster_object(path, &definition).await;
    let path = format!("{path}/{name}");
    space.send("DELETE", &path, &Value::Null).await;
    let seen = Mutex::new(BTreeSet::new());
    wait_until("it was changed three times", LIMIT, async || {
        let there = space.send("GET", &path, &Value::Null).await;
        look_again(&space.access, &there).await.map_err(|e| e.to_string())?;
        let after = space.send("GET", &path, &Value::Null).await;
        // By who looked at it before somebody else wrote: that change woke the server, too.
        look_again(&space.access, &there).await.map_err(|e| e.to_string())?;
        let mut seen = seen.lock().unwrap();
        seen.extend(after["metadata"]["annotations"][names::REMOVAL].as_str().map(str::to_owned));
        if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let last = space.send("PATCH", &path, &json!({"metadata": {"finalizers": null}})).await;
    look_again(&space.access, &last).await.unwrap();
}

fn map(space: &Space, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": space.name}})
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it_from_everybody() {
    let space = Space::new("busy").await;
    let faults = Faults::before(space.cluster).await;
    let connection = faults.connect().await;
    let maps = space.resource("v1", "ConfigMap");
    let (one, other) = (connection.access(None), connection.access(None));
    faults.next("PATCH", 1, Fault::Status(429, Some(1)));
    let begin = Instant::now();
    apply(&one, &maps, &map(&space, "one"), Guard::Any).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1), "Retry-After is obeyed");
    assert_eq!(faults.times("PATCH").len(), 2, "once refused, once carried out");

    faults.next("PATCH", usize::MAX, Fault::Status(429, Some(1)));
    let begin = Instant::now();
    let wanted = map(&space, "one");
    let (refused, waited) = tokio::join!(apply(&one, &maps, &wanted, Guard::Any), async {
        // Asked while the first is held off.
        wait_until("the first was refused", LIMIT, async || match faults.times("PATCH").len() {
            0..=2 => Err("not yet".into()),
            _ => Ok(()),
        })
        .await;
        tokio::task::yield_now().await;
        get(&other, &maps, &space.name, "one").await.map(|_| faults.times("GET").len())
    });
    assert!(begin.elapsed() >= Duration::from_secs(2), "three attempts, two pauses");
    let error = refused.unwrap_err();
    assert_eq!(error.cause, Cause::Throttled { retry_after: Duration::from_secs(1) });
    assert!(error.is_transient());
    assert_eq!(waited.unwrap(), 1);
}

#[tokio::test]
async fn errors_of_the_server_are_told_and_not_hidden_by_repeating() {
    let space = Space::new("errors").await;
    let faults = Faults::before(space.cluster).await;
    let connection = faults.connect().await;
    let maps = space.resource("v1", "ConfigMap");
    let access = connection.access(None);
    for code in [500, 502, 503, 504] {
        let before = faults.times("PATCH").len();
        faults.next("PATCH", usize::MAX, Fault::Status(code, None));
        let error = apply(&access, &maps, &map(&space, "one"), Guard::Any).await.unwrap_err();
        assert!(error.is_transient(), "{code}: {error:?}");
        assert_eq!(faults.times("PATCH").len() - before, 1, "{code}");
    }
    faults.next("PATCH", 1, Fault::Hang);
    let hasty = access.clone().with_limit(Duration::from_millis(300));
    let error = apply(&hasty, &maps, &map(&space, "one"), Guard::Any).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Timeout { .. }) && error.is_transient(), "{error:?}");
    assert!(get(&access, &maps, &space.name, "one").await.unwrap().is_none());

    faults.next("PATCH", 1, Fault::LoseAnswer);
    let error = apply(&access, &maps, &map(&space, "one"), Guard::Absent).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    // It was carried out: the next try finds it, and is told that it did not make it.
    let again = apply(&access, &maps, &map(&space, "one"), Guard::Absent).await.unwrap();
    assert!(!again.created);
}

#[tokio::test]
async fn tenants_share_the_connections() {
    let space = Space::new("share").await;
    let faults = Faults::before(space.cluster).await;
    let connection = faults.connect().await;
    let maps = space.resource("v1", "ConfigMap");
    let users = Arc::new(Mutex::new(BTreeSet::new()));
    {
        let users = users.clone();
        faults.set(move |request| {
            let user = request.headers().get("impersonate-user").map(|v| v.to_str().unwrap().to_string());
            let groups = request.headers().get_all("impersonate-group").iter().count();
            users.lock().unwrap().insert((user, groups));
            None
        });
    }
    for name in ["a", "b"] {
        let account = ServiceAccount { namespace: space.name.clone(), name: name.into() };
        let error = get(&connection.access(Some(&account)), &maps, &space.name, "x").await.unwrap_err();
        assert_eq!(error.cause.reason(), "Forbidden");
    }
    get(&connection.access(None), &maps, &space.name, "x").await.unwrap();
    // Without groups the server gives the account its own, and no right to impersonate groups is needed.
    let user = |name: &str| (Some(format!("system:serviceaccount:{}:{name}", space.name)), 0);
    assert_eq!(*users.lock().unwrap(), BTreeSet::from([(None, 0), user("a"), user("b")]));
    let nobody = ServiceAccount { namespace: space.name.clone(), name: "line\nbreak".into() };
    let error = get(&connection.access(Some(&nobody)), &maps, &space.name, "x").await.unwrap_err();
    assert!(error.to_string().contains("service account"), "nothing is asked as somebody else: {error}");
}

#[tokio::test]
async fn a_proxy_of_the_kubeconfig_is_used() {
    let space = Space::new("proxy").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let used = Arc::new(Mutex::new(Vec::new()));
    let asked = used.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_string();
            let target = line.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_string();
            asked.lock().unwrap().push(target.clone());
            let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    let mut config = kube::config::Kubeconfig::read_from(&space.cluster.kubeconfig).unwrap();
    config.clusters[0].cluster.as_mut().unwrap().proxy_url = Some(proxy);
    // JSON is YAML.
    std::fs::write(&file, serde_json::to_string(&config).unwrap()).unwrap();
    let options = ConnectOptions { kubeconfig: Some(file), ..ConnectOptions::default() };
    let connection = Connection::open(&options).await.unwrap();
    let maps = space.resource("v1", "ConfigMap");
    get(&connection.access(None), &maps, &space.name, "x").await.unwrap();
    assert_eq!(used.lock().unwrap().len(), 1);
}
