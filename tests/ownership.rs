//! Diff without asking: what we tell from ownership alone is what the API server would answer.
//!
//! Edits are made with raw requests: `kubectl --server-side` repairs ownership on the client and would hide the problem.

use crate::support::cluster::{SOON, Space, try_send, wait_until};
use serde_json::{Value, json};
use windlass::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use windlass::core::diff::{Certainty, ChangeKind, FieldChange, changes_between, diff};
use windlass::core::drift::{ObjectDrift, drift};
use windlass::core::fields::{Path, PathSet, owned_by, owned_digest};
use windlass::core::removal::{removal_patch, removals};

const LABEL: &str = "0123456789abcdef0123456789abcdef";

/// One object of a test and the requests that concern it.
struct Target<'a> {
    space: &'a Space,
    path: String,
}

impl<'a> Target<'a> {
    fn new(space: &'a Space, object: &Value, plural: &str) -> Self {
        let collection = space.path(object["apiVersion"].as_str().unwrap(), plural);
        let name = object["metadata"]["name"].as_str().unwrap();
        Target { space, path: format!("{collection}/{name}") }
    }

    async fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Value, kube::Error> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body)
            .unwrap();
        self.space.connection.client.request(request).await
    }

    async fn get(&self) -> Value {
        self.ask("GET", &self.path, "application/json", &Value::Null).await.unwrap()
    }

    async fn apply(&self, manager: &str, object: &Value, dry: bool) -> Result<Value, kube::Error> {
        let dry = if dry { "&dryRun=All" } else { "" };
        let path = format!("{}?fieldManager={manager}&force=true{dry}", self.path);
        self.ask("PATCH", &path, "application/apply-patch+yaml", object).await
    }

    async fn create(&self, manager: &str, object: &Value) {
        let collection = self.path.rsplit_once('/').unwrap().0;
        let path = format!("{collection}?fieldManager={manager}");
        self.ask("POST", &path, "application/json", object).await.unwrap();
    }

    /// A change to the object as it is, by PUT; refused when it is not valid.
    async fn put(&self, manager: &str, change: impl Fn(&mut Value)) -> Result<(), kube::Error> {
        let path = format!("{}?fieldManager={manager}", self.path);
        loop {
            let mut object = self.get().await;
            change(&mut object);
            match self.ask("PUT", &path, "application/json", &object).await {
                Err(kube::Error::Api(e)) if e.code == 409 => {}
                other => return other.map(|_| ()),
            }
        }
    }

    async fn merge(&self, manager: &str, sub: &str, patch: &Value) -> Result<Value, kube::Error> {
        let path = format!("{}{sub}?fieldManager={manager}", self.path);
        self.ask("PATCH", &path, "application/merge-patch+json", patch).await
    }

    /// The live object and the answer to a dry-run of our apply to exactly that state.
    async fn live_and_answer(&self, desired: &Value) -> Result<(Value, Value), kube::Error> {
        loop {
            let live = self.get().await;
            let answer = self.apply(FIELD_MANAGER, desired, true).await?;
            if version(&self.get().await) == version(&live) {
                return Ok((live, answer));
            }
        }
    }

    async fn delete(&self) {
        let free = json!({"metadata": {"finalizers": null}});
        self.merge("test", "", &free).await.unwrap();
        self.ask("DELETE", &self.path, "application/json", &Value::Null).await.unwrap();
        wait_until("the object is gone", SOON, || async {
            match self.ask("GET", &self.path, "application/json", &Value::Null).await {
                Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
                other => Err(format!("{:?}", other.map(|_| ()))),
            }
        })
        .await;
    }
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn deployment(space: &Space, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": space.name, "labels": {DELIVERY_LABEL: LABEL, "app": "web"}, "annotations": {"a": "1"}},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"rollingUpdate": {"maxSurge": 2}},
            "template": {"metadata": {"labels": {"app": "web", "tier": "front"}}, "spec": {
                "terminationGracePeriodSeconds": 5, "nodeSelector": {"disk": "ssd"}, "securityContext": {},
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "conf"}}],
                "initContainers": [{"name": "init", "image": "init:1"}],
                "containers": [
                    {"name": "web", "image": "web:1", "args": ["serve", "-q"],
                     "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}, {"name": "C", "value": "$(A)"},
                             {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                     "ports": [{"containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}],
                     "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}},
                     "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                     "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 7}},
                    {"name": "log", "image": "log:1"},
                ],
            }},
        },
    })
}

/// Objects of several kinds, with their plurals.
fn objects(space: &Space) -> Vec<(Value, &'static str)> {
    let meta = |name: &str| json!({"name": name, "namespace": space.name, "labels": {DELIVERY_LABEL: LABEL}});
    vec![
        (deployment(space, "web"), "deployments"),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"), "spec": {
                "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
            "services",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
                "name": "conf", "namespace": space.name, "labels": {DELIVERY_LABEL: LABEL}, "finalizers": ["example.com/a", "example.com/b"]},
                "data": {"a": "1", "b": "", "c": "x\ny"}, "binaryData": {"bin": "AAEC\nAwQ="}}),
            "configmaps",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("secret"), "type": "Opaque", "data": {"a": "eA==", "b": ""}}),
            "secrets",
        ),
        (
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta("net"), "spec": {
                "podSelector": {}, "egress": [], "ingress": [{"ports": [{"port": 80}, {"port": "http", "protocol": "TCP"}], "from": [{"namespaceSelector": {}}]}]}}),
            "networkpolicies",
        ),
        (
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta("job"), "spec": {
                "schedule": "0 0 * * *", "suspend": true, "jobTemplate": {"spec": {"template": {"spec": {
                    "restartPolicy": "Never", "containers": [{"name": "job", "image": "job:1", "command": ["run"]}]}}}}}}),
            "cronjobs",
        ),
        (
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta("bind"),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
                "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "a", "namespace": space.name}]}),
            "rolebindings",
        ),
        (
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta("scale"), "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}, "minReplicas": 1, "maxReplicas": 3,
                "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1000m"}}}]}}),
            "horizontalpodautoscalers",
        ),
        (
            json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": meta("thing"), "spec": {
                "any": {"a": {"b": [1, {"c": 2}], "d": {}}, "e": "x"}, "port": "80", "mode": "fast",
                "list": [{"id": "x"}, {"id": "y", "v": "w"}], "tags": ["t", "u"], "empty": {}, "quantity": {"limits": {"cpu": "1000m"}}}}),
            "things",
        ),
    ]
}

fn thing_definition() -> Value {
    let text = json!({"type": "string"});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}, "versions": [{
            "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "port": {"x-kubernetes-int-or-string": true},
                "mode": {"type": "string", "default": "slow"},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                    "items": {"type": "object", "required": ["id"], "properties": {"id": text, "v": {"type": "string", "default": "d"}}}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
                "empty": {"type": "object", "properties": {"x": text}},
                "quantity": {"type": "object", "properties": {"limits": {"type": "object", "additionalProperties": text}}},
            }}}}},
        }],
    }})
}

/// Makes the CRD of `Thing` if no other test has, and waits until it is served.
async fn define_thing(space: &Space) {
    let client = &space.connection.client;
    let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let _ = try_send(client, "POST", collection, &thing_definition()).await;
    let things = space.path("example.com/v1", "things");
    wait_until("the CRD is served", SOON, || async {
        let list = try_send(client, "GET", &things, &Value::Null).await;
        list.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
}

/// Every place in a value, as JSON pointers.
fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, below) in fields {
                pointers(below, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(items) => {
            for (index, below) in items.iter().enumerate() {
                pointers(below, format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
    if !at.is_empty() {
        out.push(at);
    }
}

/// Changes one random place: another value, nothing, one more, another order.
fn mutate(object: &mut Value, random: &mut fastrand::Rng) {
    let mut places = Vec::new();
    for part in [
        "spec",
        "data",
        "binaryData",
        "subjects",
        "metadata/labels",
        "metadata/annotations",
        "metadata/finalizers",
    ] {
        if let Some(value) = object.pointer(&format!("/{part}")) {
            pointers(value, format!("/{part}"), &mut places);
        }
    }
    let Some(place) = random.choice(places) else { return };
    let fresh = format!("x{}", random.u8(..));
    let Some(value) = object.pointer_mut(&place) else { return };
    match (random.u8(..4), &mut *value) {
        (0, _) => {
            let (parent, token) = place.rsplit_once('/').unwrap();
            match object.pointer_mut(parent) {
                Some(Value::Object(fields)) => {
                    fields.remove(&token.replace("~1", "/").replace("~0", "~"));
                }
                Some(Value::Array(items)) => drop(items.remove(token.parse().unwrap())),
                _ => {}
            }
        }
        (1, Value::Array(items)) => random.shuffle(items),
        (_, Value::Array(items)) => {
            if let Some(mut item) = random.choice(items.clone()) {
                match &mut item {
                    Value::Object(fields) => {
                        for key in ["name", "id", "containerPort", "port", "mountPath"] {
                            match fields.get_mut(key) {
                                Some(Value::String(text)) => text.push_str(&fresh),
                                Some(Value::Number(n)) => {
                                    *n = (n.as_i64().unwrap() + 1000 + i64::from(random.u8(..))).into()
                                }
                                _ => {}
                            }
                        }
                    }
                    other => *other = json!(fresh),
                }
                let place = random.usize(..=items.len());
                items.insert(place, item);
            }
        }
        (_, Value::Object(fields)) => drop(fields.insert(fresh.clone(), json!(fresh))),
        (_, Value::Bool(set)) => *set = !*set,
        (_, Value::Number(n)) => *n = (n.as_i64().unwrap_or(0) + 1).into(),
        (_, Value::String(text)) => {
            *text = match text.as_str() {
                "1" => "1000m".to_owned(),
                "1000m" => "1".to_owned(),
                other => format!("{other}1"),
            }
        }
        (_, Value::Null) => {}
    }
}

/// What another manager might apply: some part of the manifest, perhaps with other values.
fn part_of(desired: &Value, random: &mut fastrand::Rng) -> Value {
    let mut part = desired.clone();
    for _ in 0..random.u8(..6) {
        mutate(&mut part, random);
    }
    if let Some(labels) = part.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(DELIVERY_LABEL);
    }
    part
}

/// The set without empty maps, empty lists and nulls of the manifest: whose they are is nobody's business.
fn without_empty(owned: &PathSet, desired: &Value) -> PathSet {
    owned
        .paths()
        .into_iter()
        .filter(|p: &Path| !p.get(desired).is_some_and(|v| [json!({}), json!([]), json!(null)].contains(v)))
        .collect()
}

fn lines(changes: &[FieldChange]) -> String {
    let text = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), Value::to_string);
    let line = |c: &FieldChange| {
        format!("  {:?} {:?} {}: {} -> {}\n", c.certainty, c.kind, c.path, text(&c.live), text(&c.desired))
    };
    changes.iter().map(line).collect()
}

/// One random edit by somebody else. `false` when the server refused it.
async fn edit(target: &Target<'_>, desired: &Value, random: &mut fastrand::Rng) -> bool {
    let manager = ["kubectl-edit", "someone", "controller"][random.usize(..3)];
    match random.u8(..20) {
        0 => target.merge(manager, "", &json!({"metadata": {"managedFields": [{}]}})).await.is_ok(),
        1 | 2 if desired["kind"] == "Deployment" => {
            let scale = json!({"spec": {"replicas": random.u8(..2)}});
            target.merge("kubectl", "/scale", &scale).await.is_ok()
        }
        1..=5 => target.apply(manager, &part_of(desired, random), false).await.is_ok(),
        6 => {
            // Back to what Git wants, by somebody else.
            let wanted = desired.clone();
            target
                .put(manager, |object| {
                    for part in ["spec", "data"] {
                        if let Some(value) = wanted.get(part) {
                            object[part] = value.clone();
                        }
                    }
                })
                .await
                .is_ok()
        }
        _ => {
            let seed = random.u64(..);
            target.put(manager, |object| mutate(object, &mut fastrand::Rng::with_seed(seed))).await.is_ok()
        }
    }
}

#[tokio::test]
async fn verdicts_without_asking_are_those_of_the_api_server() {
    let space = Space::new("verdicts").await;
    define_thing(&space).await;
    let seed = std::env::var("WINDLASS_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let rounds: usize = std::env::var("WINDLASS_TEST_EDITS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let tries = objects(&space).into_iter().enumerate().map(|(i, (desired, plural))| {
        let space = &space;
        async move { try_object(space, &desired, plural, seed.wrapping_add(i as u64), rounds).await }
    });
    let counts = futures::future::join_all(tries).await;
    let (edits, doubtful) = counts.iter().fold((0, 0), |(a, b), (c, d, _)| (a + c, b + d));
    let drifted: usize = counts.iter().map(|(_, _, drifted)| drifted).sum();
    println!("{edits} edits, {drifted} drifts, {doubtful} doubtful, seed {seed}");
    assert!(edits > rounds * 4, "most edits were refused: {counts:?}");
    assert!(doubtful * 3 < edits, "{doubtful} of {edits} would have to be asked");
}

/// Edits an object at random and compares our verdict with the server's after each edit. Returns how many edits were made,
/// how many verdicts were doubtful, and how many drift.
async fn try_object(
    space: &Space,
    desired: &Value,
    plural: &str,
    seed: u64,
    rounds: usize,
) -> (usize, usize, usize) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let target = Target::new(space, desired, plural);
    let key = Some(&b"key"[..]);
    let mut applied = owned_digest(&target.apply(FIELD_MANAGER, desired, false).await.unwrap(), key);
    let (mut edits, mut doubtful, mut drifted) = (0, 0, 0);
    for round in 0..rounds {
        if !edit(&target, desired, random).await {
            continue;
        }
        let (live, answer) = match target.live_and_answer(desired).await {
            Ok(both) => both,
            // What was put beside ours makes the whole invalid (two ports of one name): begin anew.
            Err(kube::Error::Api(e)) if e.code == 422 => {
                target.delete().await;
                applied = owned_digest(&target.apply(FIELD_MANAGER, desired, false).await.unwrap(), key);
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        edits += 1;
        let verdict = drift(desired, Some(&live));
        let owned = |object: &Value| without_empty(&owned_by(object, FIELD_MANAGER), desired);
        let changes = changes_between(&live, &answer);
        let moved = !changes.is_empty() || owned(&live) != owned(&answer);
        let said = || {
            format!(
                "{} round {round} seed {seed}\nverdict {verdict:#?}\nthe server would change\n{}owned {}\nthen {}",
                desired["kind"],
                lines(&changes),
                owned(&live).encode(),
                owned(&answer).encode(),
            )
        };
        match &verdict {
            ObjectDrift::InSync => assert!(!moved, "{}", said()),
            other if other.is_doubtful() => doubtful += 1,
            other => {
                drifted += 1;
                assert!(moved, "{}", said());
                assert!(
                    other.fields().iter().any(|f| f.certainty == Certainty::Sure)
                        || other.fields().is_empty()
                );
            }
        }
        if owned_digest(&live, key) == applied {
            assert!(!moved, "the digest is the same: {}", said());
        }
        // Another manifest, as a new commit brings it: does it differ from what stands there?
        let next = part_of(desired, random);
        if let Ok((live, answer)) = target.live_and_answer(&next).await {
            let owned = owned_by(&live, FIELD_MANAGER);
            let said = diff(&next, &live, &owned);
            let changes = changes_between(&live, &answer);
            let moved = !changes.is_empty()
                || without_empty(&owned, &next) != without_empty(&owned_by(&answer, FIELD_MANAGER), &next);
            let told = || {
                format!(
                    "{} round {round} seed {seed}\nnext {next}\nsaid\n{}the server would change\n{}owned {}\nthen {}",
                    desired["kind"],
                    lines(&said),
                    lines(&changes),
                    owned.encode(),
                    owned_by(&answer, FIELD_MANAGER).encode(),
                )
            };
            let sure = said.iter().any(|c| c.certainty == Certainty::Sure);
            assert!(moved || !sure, "{}", told());
            assert!(!moved || !said.is_empty(), "{}", told());
            // What is said to change does, and nothing else.
            for change in
                said.iter().filter(|c| c.certainty == Certainty::Sure && c.kind == ChangeKind::Changed)
            {
                assert!(
                    changes.iter().any(|c| c.path.covers(&change.path) || change.path.covers(&c.path)),
                    "{}: {}",
                    change.path,
                    told()
                );
            }
        }
        if random.u8(..3) == 0 {
            let object = target.apply(FIELD_MANAGER, desired, false).await.unwrap();
            let after = drift(desired, Some(&object));
            assert!(after == ObjectDrift::InSync || after.is_doubtful(), "after an apply: {after:#?}");
            applied = owned_digest(&object, key);
        }
    }
    // Finalizers would keep the namespace.
    target.delete().await;
    (edits, doubtful, drifted)
}

/// Takes optional parts out of a manifest.
fn leave_out(manifest: &Value, random: &mut fastrand::Rng) -> Value {
    let mut out = manifest.clone();
    let optional = [
        "/spec/strategy",
        "/spec/replicas",
        "/metadata/labels/app",
        "/metadata/annotations",
        "/spec/template/metadata/labels/tier",
        "/spec/template/spec/nodeSelector",
        "/spec/template/spec/tolerations",
        "/spec/template/spec/terminationGracePeriodSeconds",
        "/spec/template/spec/initContainers",
        "/spec/template/spec/volumes/1",
        "/spec/template/spec/containers/1",
        "/spec/template/spec/containers/0/args",
        "/spec/template/spec/containers/0/env/3",
        "/spec/template/spec/containers/0/env/0",
        "/spec/template/spec/containers/0/ports/1",
        "/spec/template/spec/containers/0/resources/limits/memory",
        "/spec/template/spec/containers/0/resources",
        "/spec/template/spec/containers/0/livenessProbe/periodSeconds",
        "/spec/template/spec/containers/0/livenessProbe",
    ];
    for place in optional.iter().filter(|_| random.bool()) {
        let (parent, token) = place.rsplit_once('/').unwrap();
        let index = token.parse::<usize>().unwrap_or(0);
        match out.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.remove(token)),
            Some(Value::Array(items)) if index < items.len() => drop(items.remove(index)),
            _ => {}
        }
    }
    out
}

/// What can be compared between two objects that should be the same but for their names.
fn content(object: &Value) -> Value {
    let mut annotations = object["metadata"]["annotations"].clone();
    if let Some(map) = annotations.as_object_mut() {
        map.remove("deployment.kubernetes.io/revision");
        if map.is_empty() {
            annotations = Value::Null;
        }
    }
    json!({"labels": object["metadata"]["labels"], "annotations": annotations, "spec": object["spec"]})
}

/// Brings an object to what Git wants, as the daemon does: a dry-run, the removals, the apply.
async fn settle(target: &Target<'_>, previous: Option<&Value>, desired: &Value, adopting: bool) -> Value {
    loop {
        let (live, answer) = target.live_and_answer(desired).await.unwrap();
        let patch = removal_patch(&live, &removals(previous, desired, &answer, adopting));
        let sent = if patch.is_empty() {
            Ok(live)
        } else {
            let path = format!("{}?fieldManager={FIELD_MANAGER}", target.path);
            target.ask("PATCH", &path, "application/json-patch+json", &json!(patch)).await
        };
        match sent {
            // It changed meanwhile: look again.
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            Err(e) => panic!("{e}\n{patch:#?}"),
            Ok(_) => return target.apply(FIELD_MANAGER, desired, false).await.unwrap(),
        }
    }
}

/// Somebody with an interest of his own.
async fn inject(target: &Target<'_>) {
    target
        .put("injector", |o| {
            o["metadata"]["annotations"]["injector"] = json!("was here");
            let containers = o["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
            containers.push(json!({"name": "proxy", "image": "proxy:1"}));
        })
        .await
        .unwrap();
}

/// How a settled object differs from one that was made anew from the same manifest, and then injected into.
async fn unlike_fresh(space: &Space, settled: &Value, desired: &Value) -> Vec<String> {
    let mut wanted = desired.clone();
    wanted["metadata"]["name"] = json!(format!("fresh-{}", desired["metadata"]["name"].as_str().unwrap()));
    let fresh = Target::new(space, &wanted, "deployments");
    fresh.apply(FIELD_MANAGER, &wanted, false).await.unwrap();
    fresh
        .put("injector", |o| {
            if o["metadata"]["annotations"].is_null() {
                o["metadata"]["annotations"] = json!({});
            }
        })
        .await
        .unwrap();
    inject(&fresh).await;
    let expected = fresh.get().await;
    fresh.delete().await;
    let changes = changes_between(&content(&expected), &content(settled));
    // Where an injected container stands among ours is nobody's business.
    changes.iter().map(|c| lines(std::slice::from_ref(c))).collect()
}

#[tokio::test]
async fn what_left_git_is_gone_whoever_wrote_it_before() {
    let space = Space::new("adoption").await;
    let seed = std::env::var("WINDLASS_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let writers = [
        ("kubectl-client-side-apply", "annotated"),
        ("kubectl-create", "create"),
        ("helm", "create"),
        ("kubectl", "apply"),
        ("helm", "apply"),
    ];
    for (i, (manager, how)) in writers.iter().cycle().take(writers.len() * 2).enumerate() {
        let said = format!("{manager} {how} seed {seed} try {i}");
        let random = &mut fastrand::Rng::with_seed(seed.wrapping_add(i as u64));
        let mut old = deployment(&space, &format!("web-{i}"));
        old["metadata"]["labels"].as_object_mut().unwrap().remove(DELIVERY_LABEL);
        let mut adopted = leave_out(&old, random);
        adopted["metadata"]["labels"][DELIVERY_LABEL] = json!(LABEL);
        let target = Target::new(&space, &old, "deployments");
        match *how {
            "apply" => drop(target.apply(manager, &old, false).await.unwrap()),
            "create" => target.create(manager, &old).await,
            _ => {
                let text = old.to_string();
                let mut sent = old.clone();
                sent["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
                    json!(text);
                target.create(manager, &sent).await;
            }
        }
        inject(&target).await;

        let live = settle(&target, None, &adopted, true).await;
        let unlike = unlike_fresh(&space, &live, &adopted).await;
        assert!(unlike.is_empty(), "adopted: {said}: {unlike:#?}");
        assert_eq!(drift(&adopted, Some(&live)), ObjectDrift::InSync, "adopted: {said}");

        // A later commit drops more, which the former writer still has.
        let desired = leave_out(&adopted, random);
        if random.bool() {
            target.merge("someone", "", &json!({"metadata": {"managedFields": [{}]}})).await.unwrap();
        }
        let live = settle(&target, Some(&adopted), &desired, false).await;
        let unlike = unlike_fresh(&space, &live, &desired).await;
        assert!(unlike.is_empty(), "a later commit: {said}: {unlike:#?}");
        assert_eq!(drift(&desired, Some(&live)), ObjectDrift::InSync, "a later commit: {said}");
    }
}
