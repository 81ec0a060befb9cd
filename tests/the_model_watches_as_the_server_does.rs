//! Lists and watches of the modelled cluster show what those of the real API server show.

use crate::model::{Answer, Cluster, Request, Watch};
use crate::support::cluster::Space;
use crate::support::daemon::LIMIT;
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;

/// The two, and where their watches began.
struct Both {
    space: Space,
    model: Cluster,
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

impl Both {
    async fn new(test: &str) -> Self {
        let space = Space::new(test).await;
        let mut model = Cluster::new();
        model.make(now(), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name}}));
        Both { space, model }
    }

    fn path(&self) -> String {
        self.space.path("v1", "configmaps")
    }

    /// The same request to both, which must be possible; both answers.
    async fn send(&mut self, method: &str, path: &str, body: &Value) -> (Value, Value) {
        let real = self.space.send(method, path, body).await;
        let (status, model) = self.model.act(now(), method, path, body);
        assert!(status < 300, "{model}");
        (real, model)
    }

    async fn make(&mut self, name: &str, label: &str) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"app": label}}, "data": {"key": "1"}});
        self.send("POST", &self.path(), &object).await;
    }

    /// Opens a watch of the model.
    fn watch(&mut self, path: &str) -> Watch {
        let request =
            Request { method: "GET", path_and_query: path, content_type: "", user: None, body: b"" };
        match self.model.handle(now(), &request) {
            Answer::Watch(watch) => watch,
            other => panic!("{other:?}"),
        }
    }

    /// What a watch of the server tells: so many events, and what comes right after them.
    async fn told(&self, path: &str, count: usize) -> Vec<String> {
        use http_body_util::BodyExt;
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        let answer = self.space.connection.client.send(request).await.unwrap();
        let mut stream = answer.into_body().into_data_stream();
        let (mut text, mut out) = (Vec::new(), Vec::new());
        loop {
            // What is missing shows in the comparison, and so does what is too much.
            let limit = if out.len() < count { LIMIT } else { Duration::from_secs(1) };
            let Ok(Some(Ok(bytes))) = tokio::time::timeout(limit, stream.next()).await else { return out };
            text.extend_from_slice(&bytes);
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event = told(&serde_json::from_slice(&line).unwrap());
                // The namespace's own ConfigMap may come at any time.
                if !event.contains("kube-root-ca.crt") {
                    out.push(event);
                }
            }
        }
    }
}

/// What an event says, without what differs from server to server.
fn told(event: &Value) -> String {
    let object = &event["object"];
    format!(
        "{} {} {} {} {}",
        event["type"],
        object["metadata"]["name"],
        object["metadata"]["labels"],
        object["data"],
        object["code"]
    )
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn a_watch_tells_what_came_into_sight_and_what_went_out_of_it() {
    let mut both = Both::new("model-watch").await;
    both.make("old", "web").await;
    let (real, model) = both.send("GET", &both.path(), &Value::Null).await;
    let base = both.path();
    let at = |version: String, query: &str| format!("{base}?watch=true&resourceVersion={version}{query}");
    let filters =
        ["", "&labelSelector=app%3Dweb", "&labelSelector=app", "&fieldSelector=metadata.name%3Done"];
    let mut watches: Vec<Watch> =
        filters.iter().map(|filter| both.watch(&at(version(&model), filter))).collect();

    both.make("one", "web").await;
    both.make("two", "other").await;
    let label = |value: Value| json!({"metadata": {"labels": {"app": value}}});
    for (name, patch) in [
        ("one", json!({"data": {"key": "2"}})),
        ("two", label(json!("web"))),
        ("one", label(json!("other"))),
        ("two", label(Value::Null)),
        ("one", json!({"data": {"key": "2"}})),
        ("one", label(json!("web"))),
    ] {
        both.send("PATCH", &format!("{base}/{name}"), &patch).await;
    }
    for name in ["one", "old"] {
        both.send("DELETE", &format!("{base}/{name}"), &Value::Null).await;
    }
    for (filter, watch) in filters.iter().zip(&mut watches) {
        let ours: Vec<String> = both.model.events(watch).iter().map(told).collect();
        let path = at(version(&real), filter);
        let theirs = both.told(&path, ours.len()).await;
        assert_eq!(ours, theirs, "{filter}");
        assert!(!ours.is_empty() && !both.model.has_events(watch));
    }
}

/// Not compared: a server forgets when its store does, minutes after. It answers such a watch with one event and
/// the end of the stream.
#[test]
fn a_version_that_is_forgotten_ends_a_watch() {
    let mut cluster = Cluster::new();
    let path = "/api/v1/configmaps?watch=true&resourceVersion=1";
    let request = Request { method: "GET", path_and_query: path, content_type: "", user: None, body: b"" };
    let Answer::Watch(mut watch) = cluster.handle(now(), &request) else { panic!("no watch") };
    cluster.compact();
    let events = cluster.events(&mut watch);
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["type"], &events[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(events[0]["object"]["reason"], "Expired");
    assert!(watch.is_ended() && cluster.events(&mut watch).is_empty());
}

#[tokio::test]
async fn pages_show_one_moment() {
    let mut both = Both::new("model-pages").await;
    for name in ["a", "b", "c", "d", "e"] {
        both.make(name, "web").await;
    }
    let base = format!("{}?labelSelector=app%3Dweb&limit=2", both.path());
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|i| format!("{} {}", i["metadata"]["name"], i["kind"])).collect()
    };
    let token = |list: &Value| list["metadata"]["continue"].as_str().unwrap_or_default().to_string();
    let (real, model) = both.send("GET", &base, &Value::Null).await;
    assert_eq!(names(&real), names(&model));
    let (mut theirs, mut ours) = (token(&real), token(&model));
    // What happens between two pages is in neither of them.
    both.make("bb", "web").await;
    both.send("DELETE", &format!("{}/d", both.path()), &Value::Null).await;
    let mut pages = 0;
    while !theirs.is_empty() {
        let real = both.space.send("GET", &format!("{base}&continue={theirs}"), &Value::Null).await;
        let (status, model) = both.model.act(now(), "GET", &format!("{base}&continue={ours}"), &Value::Null);
        assert_eq!((status, names(&real)), (200, names(&model)));
        (theirs, ours) = (token(&real), token(&model));
        pages += 1;
    }
    assert_eq!((pages, ours.as_str()), (2, ""));
}
