//! Objects of many kinds and edits that others make to them, with raw requests: `kubectl --server-side` repairs ownership on the
//! client and would hide the problem.
#![allow(dead_code)]

use super::cluster::{SOON, Space, try_send, wait_until};
use serde_json::{Value, json};
use windlass::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use windlass::core::diff::{FieldChange, changes_between};
use windlass::core::fields::{Path, PathSet};

pub const LABEL: &str = "0123456789abcdef0123456789abcdef";

/// One object of a test and the requests that concern it.
pub struct Target<'a> {
    pub space: &'a Space,
    pub path: String,
}

impl<'a> Target<'a> {
    pub fn new(space: &'a Space, object: &Value, plural: &str) -> Self {
        let collection = space.path(object["apiVersion"].as_str().unwrap(), plural);
        let name = object["metadata"]["name"].as_str().unwrap();
        Target { space, path: format!("{collection}/{name}") }
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> Result<Value, kube::Error> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(body)
            .unwrap();
        self.space.connection.client.request(request).await
    }

    pub async fn get(&self) -> Value {
        self.ask("GET", &self.path, "application/json", &Value::Null).await.unwrap()
    }

    pub async fn apply(&self, manager: &str, object: &Value, dry: bool) -> Result<Value, kube::Error> {
        let dry = if dry { "&dryRun=All" } else { "" };
        let path = format!("{}?fieldManager={manager}&force=true{dry}", self.path);
        unless_a_quota_is_busy(|| self.ask("PATCH", &path, "application/apply-patch+yaml", object)).await
    }

    pub async fn create(&self, manager: &str, object: &Value) {
        let collection = self.path.rsplit_once('/').unwrap().0;
        let path = format!("{collection}?fieldManager={manager}");
        unless_a_quota_is_busy(|| self.ask("POST", &path, "application/json", object)).await.unwrap();
    }

    /// A change to the object as it is, by PUT; refused when it is not valid.
    pub async fn put(&self, manager: &str, change: impl Fn(&mut Value)) -> Result<(), kube::Error> {
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

    pub async fn merge(&self, manager: &str, sub: &str, patch: &Value) -> Result<Value, kube::Error> {
        let path = format!("{}{sub}?fieldManager={manager}", self.path);
        self.ask("PATCH", &path, "application/merge-patch+json", patch).await
    }

    /// The live object and the answer to a dry-run of our apply to exactly that state.
    pub async fn live_and_answer(&self, desired: &Value) -> Result<(Value, Value), kube::Error> {
        loop {
            let live = self.get().await;
            let answer = self.apply(FIELD_MANAGER, desired, true).await?;
            if version(&self.get().await) == version(&live) {
                return Ok((live, answer));
            }
        }
    }

    /// The same where the object may be gone.
    pub async fn live_or_none(&self, desired: &Value) -> Result<(Option<Value>, Value), kube::Error> {
        match self.ask("GET", &self.path, "application/json", &Value::Null).await {
            Err(kube::Error::Api(e)) if e.code == 404 => {
                Ok((None, self.apply(FIELD_MANAGER, desired, true).await?))
            }
            _ => self.live_and_answer(desired).await.map(|(live, answer)| (Some(live), answer)),
        }
    }

    /// Deletes the object, if it is there, and waits until it is gone.
    pub async fn delete(&self) {
        let free = json!({"metadata": {"finalizers": null}});
        let there = self.merge("test", "", &free).await;
        if matches!(&there, Err(kube::Error::Api(e)) if e.code == 404) {
            return;
        }
        there.unwrap();
        let options = json!({"propagationPolicy": "Background"});
        self.ask("DELETE", &self.path, "application/json", &options).await.unwrap();
        wait_until("the object is gone", SOON, || async {
            match self.ask("GET", &self.path, "application/json", &Value::Null).await {
                Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
                other => Err(format!("{:?}", other.map(|_| ()))),
            }
        })
        .await;
    }
}

/// Asks again where admission could not count what was sent in a ResourceQuota, which something else has just written.
async fn unless_a_quota_is_busy<F: Future<Output = Result<Value, kube::Error>>>(
    ask: impl Fn() -> F,
) -> Result<Value, kube::Error> {
    let is_busy = |e: &kube::core::Status| {
        e.code == 409 && e.details.as_ref().is_some_and(|d| d.kind == "resourcequotas")
    };
    wait_until("the quota is counted", SOON, || async {
        match ask().await {
            Err(kube::Error::Api(e)) if is_busy(&e) => Err(e.message),
            answer => Ok(answer),
        }
    })
    .await
}

pub fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// The pods of a Deployment with much that the server adds to and spells in its own way.
pub fn pod_template() -> Value {
    json!({"metadata": {"labels": {"app": "web", "tier": "front"}}, "spec": {
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
    }})
}

pub fn deployment(space: &Space, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": space.name, "labels": {DELIVERY_LABEL: LABEL, "app": "web"}, "annotations": {"a": "1"}},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"rollingUpdate": {"maxSurge": 2}},
            "template": pod_template(),
        },
    })
}

/// Objects of several kinds, with their plurals.
pub fn objects(space: &Space) -> Vec<(Value, &'static str)> {
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
                "list": [{"id": "x"}, {"id": "y", "v": "w"}], "every": "60s", "none": null, "tags": ["t", "u"], "empty": {}, "quantity": {"limits": {"cpu": "1000m"}}}}),
            "things",
        ),
    ]
}

/// Objects of more kinds.
pub fn more_objects(space: &Space) -> Vec<(Value, &'static str)> {
    let meta = |name: &str| json!({"name": name, "namespace": space.name, "labels": {DELIVERY_LABEL: LABEL, "app": name}});
    let pod = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"nodeSelector": {"none": "such"}, "containers": [{
        "name": "app", "image": "app:1", "resources": {"requests": {"cpu": "0.10", "memory": "1Gi"}},
        "readinessProbe": {"tcpSocket": {"port": 80}, "failureThreshold": 3}, "envFrom": [{"configMapRef": {"name": "none"}}]}]}});
    let selector = json!({"matchLabels": {"app": "x"}});
    vec![
        (
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta("state"), "spec": {
                "replicas": 0, "serviceName": "state", "selector": selector, "template": pod,
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1024Mi"}}}}]}}),
            "statefulsets",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta("each"), "spec": {
                "selector": selector, "template": pod, "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}}}}),
            "daemonsets",
        ),
        (
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta("way"), "spec": {
                "tls": [{"hosts": ["a.example.com"], "secretName": "tls"}], "rules": [{"host": "a.example.com", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
                    {"path": "/b", "pathType": "Exact", "backend": {"service": {"name": "b", "port": {"name": "http"}}}}]}}]}}),
            "ingresses",
        ),
        (
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta("budget"), "spec": {
                "minAvailable": "50%", "selector": {"matchLabels": {"app": "none"}, "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["a", "b"]}]}}}),
            "poddisruptionbudgets",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("who"), "automountServiceAccountToken": false,
                "imagePullSecrets": [{"name": "a"}, {"name": "b"}]}),
            "serviceaccounts",
        ),
        (
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta("may"), "rules": [
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"], "verbs": ["get"]}]}),
            "roles",
        ),
        (
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("disk"), "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "2048Mi"}}}}),
            "persistentvolumeclaims",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta("quota"), "spec": {
                // Of nothing that the other objects ask for: an edit of it would have them refused.
                "hard": {"count/widgets.example.com": "10", "gold.storageclass.storage.k8s.io/requests.storage": "1000Gi",
                    "limits.cpu": "400000m"}}}),
            "resourcequotas",
        ),
        (
            json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta("range"), "spec": {"limits": [
                // As above.
                {"type": "example.com/disk", "max": {"storage": "4096Gi"}, "min": {"storage": "1024"}}]}}),
            "limitranges",
        ),
        (
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta("once"), "spec": {
                "suspend": true, "backoffLimit": 2, "template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "job", "image": "job:1"}]}}}}),
            "jobs",
        ),
        (
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("slice"), "addressType": "IPv4",
                "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
                "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
            "endpointslices",
        ),
    ]
}

pub fn thing_definition() -> Value {
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
                "every": text, "none": {"type": "string", "nullable": true},
                "quantity": {"type": "object", "properties": {"limits": {"type": "object", "additionalProperties": text}}},
            }}}}},
        }],
    }})
}

/// Makes the CRD of `Thing` if no other test has, and waits until it is served.
pub async fn define_thing(space: &Space) {
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
pub fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
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

/// Puts something empty in a value's place.
fn empty(value: &mut Value, random: &mut fastrand::Rng) {
    *value = match value {
        _ if random.u8(..4) == 0 => Value::Null,
        Value::Object(_) => json!({}),
        Value::Array(_) => json!([]),
        Value::String(_) => json!(""),
        Value::Number(_) => json!(0),
        Value::Bool(_) => json!(false),
        Value::Null => Value::Null,
    }
}

/// Writes a value as somebody else may: the same amount, span or bytes in other letters, or nearly the same.
fn spell_anew(value: &mut Value, place: &str, random: &mut fastrand::Rng) {
    let spelt = match &*value {
        Value::Number(n) if random.bool() => json!(n.to_string()),
        Value::Number(n) => json!(n.as_f64()),
        Value::String(text) if place.contains("ata/") => json!(format!("{text}\n")),
        Value::String(text) => {
            let amount = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<u64>();
            match (text.parse::<i64>(), amount, text.as_str()) {
                (Ok(n), _, _) => {
                    random.choice([json!(n), json!(format!("{n}000m")), json!(format!("{n}.0"))]).unwrap()
                }
                (_, Ok(n), t) if t.ends_with("Mi") => json!(format!("{}Ki", n * 1024)),
                (_, Ok(n), t) if t.ends_with("Gi") => json!(format!("{}Mi", n * 1024)),
                (_, Ok(n), t) if t.ends_with('m') && n % 1000 == 0 => json!((n / 1000).to_string()),
                (_, Ok(n), t) if t.ends_with('m') => json!(format!("{}u", n * 1000)),
                (_, Ok(n), t) if t.ends_with('s') => json!(format!("{}ms", n * 1000)),
                (_, _, t) => json!(format!("{t} ")),
            }
        }
        _ => return,
    };
    *value = spelt;
}

/// Changes one random place: another value, nothing, one more, another order.
///
/// `wide`: something empty and other spellings as well.
pub fn mutate(object: &mut Value, random: &mut fastrand::Rng, wide: bool) {
    let mut places = Vec::new();
    for part in [
        "spec",
        "data",
        "binaryData",
        "subjects",
        "rules",
        "endpoints",
        "ports",
        "imagePullSecrets",
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
    match (random.u8(..if wide { 6 } else { 4 }), &mut *value) {
        (4, value) => empty(value, random),
        (5, value) => spell_anew(value, &place, random),
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
pub fn part_of(desired: &Value, random: &mut fastrand::Rng) -> Value {
    // Odd spellings in what is wanted are for long searches: that a field of which we own nothing changes is then sure, and
    // whether only its owner does is not.
    let wide = std::env::var_os("WINDLASS_TEST_EDITS").is_some();
    let mut part = desired.clone();
    for _ in 0..random.u8(..6) {
        mutate(&mut part, random, wide);
    }
    if let Some(labels) = part.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(DELIVERY_LABEL);
    }
    part
}

/// The set without empty maps, empty lists and nulls of the manifest: whose they are is nobody's business.
pub fn without_empty(owned: &PathSet, desired: &Value) -> PathSet {
    owned
        .paths()
        .into_iter()
        .filter(|p: &Path| !p.get(desired).is_some_and(|v| [json!({}), json!([]), json!(null)].contains(v)))
        .collect()
}

/// What differs between two states of an object. A null is no value: a custom resource that keeps nulls may have one, or nothing.
pub fn real_changes(before: &Value, after: &Value) -> Vec<FieldChange> {
    let nothing = |v: &Option<Value>| v.as_ref().is_none_or(Value::is_null);
    let mut changes = changes_between(before, after);
    changes.retain(|c| !(nothing(&c.desired) && nothing(&c.live)));
    changes
}

pub fn lines(changes: &[FieldChange]) -> String {
    let text = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), Value::to_string);
    let line = |c: &FieldChange| {
        format!("  {:?} {:?} {}: {} -> {}\n", c.certainty, c.kind, c.path, text(&c.live), text(&c.desired))
    };
    changes.iter().map(line).collect()
}

/// What becomes of a value, as a JSON patch.
pub fn json_patch(before: &Value, after: &Value, at: &str, out: &mut Vec<Value>) {
    match (before, after) {
        (Value::Object(was), Value::Object(is)) => {
            for (name, value) in was {
                let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                match is.get(name) {
                    Some(now) => json_patch(value, now, &place, out),
                    None => out.push(json!({"op": "remove", "path": place})),
                }
            }
            for (name, value) in is.iter().filter(|(name, _)| !was.contains_key(*name)) {
                let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                out.push(json!({"op": "add", "path": place, "value": value}));
            }
        }
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            for (nth, (value, now)) in was.iter().zip(is).enumerate() {
                json_patch(value, now, &format!("{at}/{nth}"), out);
            }
        }
        (was, is) if was == is => {}
        (_, is) => out.push(json!({"op": "replace", "path": at, "value": is})),
    }
}

/// What becomes of a value, as a merge patch; nothing where it stays. A strategic one adds to the lists that it can instead of
/// replacing them.
pub fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    match (before, after) {
        (Value::Object(was), Value::Object(is)) => {
            let gone =
                was.keys().filter(|name| !is.contains_key(*name)).map(|name| (name.clone(), Value::Null));
            let changed = is.iter().filter_map(|(name, now)| match was.get(name) {
                Some(value) => Some((name.clone(), merge_patch(value, now)?)),
                None => Some((name.clone(), now.clone())),
            });
            let patch: serde_json::Map<String, Value> = gone.chain(changed).collect();
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (was, is) => (was != is).then(|| is.clone()),
    }
}

/// Changes one random place by a patch of one of three kinds. Answers which, and whether the server took it.
async fn patch(
    target: &Target<'_>,
    manager: &str,
    desired: &Value,
    random: &mut fastrand::Rng,
) -> (&'static str, bool) {
    let before = target.get().await;
    let mut after = before.clone();
    mutate(&mut after, random, true);
    let (verb, kind, body) = match random.u8(..3) {
        0 => {
            let mut operations = Vec::new();
            json_patch(&before, &after, "", &mut operations);
            ("json-patch", "application/json-patch+json", Value::Array(operations))
        }
        // Custom resources know no lists by key.
        1 if desired["kind"] != "Thing" => {
            let patch = merge_patch(&before, &after).unwrap_or_else(|| json!({}));
            ("strategic-patch", "application/strategic-merge-patch+json", patch)
        }
        _ => {
            let patch = merge_patch(&before, &after).unwrap_or_else(|| json!({}));
            ("merge-patch", "application/merge-patch+json", patch)
        }
    };
    let path = format!("{}?fieldManager={manager}", target.path);
    (verb, target.ask("PATCH", &path, kind, &body).await.is_ok())
}

/// One random edit by somebody else: how, and whether the server took it.
pub async fn edit(target: &Target<'_>, desired: &Value, random: &mut fastrand::Rng) -> (&'static str, bool) {
    let manager = ["kubectl-edit", "someone", "controller"][random.usize(..3)];
    match random.u8(..24) {
        0 => {
            let none = json!({"metadata": {"managedFields": [{}]}});
            ("forget", target.merge(manager, "", &none).await.is_ok())
        }
        1 | 2 if desired["kind"] == "Deployment" => {
            let scale = json!({"spec": {"replicas": random.u8(..2)}});
            ("scale", target.merge("kubectl", "/scale", &scale).await.is_ok())
        }
        1..=5 => ("apply", target.apply(manager, &part_of(desired, random), false).await.is_ok()),
        6 => {
            // Back to what Git wants, by somebody else.
            let wanted = desired.clone();
            let back = target.put(manager, |object| {
                for part in ["spec", "data"] {
                    if let Some(value) = wanted.get(part) {
                        object[part] = value.clone();
                    }
                }
            });
            ("update", back.await.is_ok())
        }
        7..=14 => patch(target, manager, desired, random).await,
        _ => {
            let seed = random.u64(..);
            let change = |object: &mut Value| mutate(object, &mut fastrand::Rng::with_seed(seed), true);
            ("update", target.put(manager, change).await.is_ok())
        }
    }
}
