//! What stands in the directories of the simulated repository: objects by kind and name, and their manifests.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use windlass::api::names;

/// The namespace of the objects.
pub const SPACE: &str = "shop";

/// The kinds that are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    ConfigMap,
    Secret,
    Claim,
    Deployment,
    Job,
    Service,
    Route,
    /// A route for gRPC.
    Grpc,
    /// A VirtualService.
    Mesh,
    /// A DestinationRule.
    Rule,
    /// An autoscaler.
    Scaler,
}

impl Kind {
    /// All of them.
    const ALL: [Kind; 11] = [
        Kind::ConfigMap,
        Kind::Secret,
        Kind::Claim,
        Kind::Deployment,
        Kind::Job,
        Kind::Service,
        Kind::Route,
        Kind::Grpc,
        Kind::Mesh,
        Kind::Rule,
        Kind::Scaler,
    ];

    /// Group, kind and plural.
    pub fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Kind::ConfigMap => ("", "ConfigMap", "configmaps"),
            Kind::Secret => ("", "Secret", "secrets"),
            Kind::Claim => ("", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Kind::Deployment => ("apps", "Deployment", "deployments"),
            Kind::Job => ("batch", "Job", "jobs"),
            Kind::Service => ("", "Service", "services"),
            Kind::Route => ("gateway.networking.k8s.io", "HTTPRoute", "httproutes"),
            Kind::Grpc => ("gateway.networking.k8s.io", "GRPCRoute", "grpcroutes"),
            Kind::Mesh => ("networking.istio.io", "VirtualService", "virtualservices"),
            Kind::Rule => ("networking.istio.io", "DestinationRule", "destinationrules"),
            Kind::Scaler => ("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        }
    }

    /// `apiVersion`.
    pub fn api_version(self) -> String {
        match self.names().0 {
            "" => "v1".to_owned(),
            "autoscaling" => "autoscaling/v2".to_owned(),
            group => format!("{group}/v1"),
        }
    }
}

/// Which object: kind and name; all are in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub Kind, pub String);

impl Key {
    /// Its path at the API server.
    pub fn path(&self) -> String {
        let (group, _, plural) = self.0.names();
        let root =
            if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", self.0.api_version()) };
        format!("{root}/namespaces/{SPACE}/{plural}/{}", self.1)
    }

    /// The key of an object at the API server, if it is one of these.
    pub fn of(object: &Value) -> Option<Key> {
        let kind = object["kind"].as_str()?;
        Key::named(kind, object["metadata"]["namespace"].as_str()?, object["metadata"]["name"].as_str()?)
    }

    /// The key for a kind, namespace and name, if it is one of these.
    pub fn named(kind: &str, namespace: &str, name: &str) -> Option<Key> {
        let kind = Kind::ALL.into_iter().find(|k| k.names().1 == kind)?;
        (namespace == SPACE).then(|| Key(kind, name.to_owned()))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.names().1, self.1)
    }
}

/// How the pods of a Deployment or Job behave; the tag of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tag {
    Ok,
    Slow,
    Unready,
    Crash,
    Missing,
    /// Healthy for four seconds.
    Flaky,
    /// Healthy, with wrong answers.
    Wrong,
    /// Healthy as a candidate only.
    Alone,
}

impl Tag {
    pub fn text(self) -> &'static str {
        match self {
            Tag::Flaky => "flaky",
            Tag::Wrong => "wrong",
            Tag::Alone => "alone",
            Tag::Ok => "ok",
            Tag::Slow => "slow",
            Tag::Unready => "unready",
            Tag::Crash => "crash",
            Tag::Missing => "missing",
        }
    }

    /// Whether such pods get healthy.
    pub fn is_good(self) -> bool {
        matches!(self, Tag::Ok | Tag::Slow | Tag::Wrong)
    }
}

/// One object in Git, besides its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Unlike that of every other version of every object.
    pub value: u32,
    pub tag: Tag,
    pub replicas: u32,
    #[serde(default)]
    pub prune: Option<String>,
    #[serde(default)]
    pub wave: Option<i32>,
    #[serde(default)]
    pub recreate: bool,
    /// A field more than usual, so that fields come and go.
    #[serde(default)]
    pub more: bool,
    /// The API server refuses it.
    #[serde(default)]
    pub invalid: bool,
    /// So many seconds after its end a Job is cleaned up.
    #[serde(default)]
    pub ttl: Option<u32>,
    /// It takes a value from the settings of its Delivery.
    #[serde(default)]
    pub setting: bool,
    /// The ConfigMap that the pods of a Deployment read; the Service that a route leads to besides.
    #[serde(default)]
    pub reads: Option<String>,
    /// An autoscaler decides how many pods a Deployment has, not Git.
    #[serde(default)]
    pub scaled: bool,
}

/// What the settings of a Delivery say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Unlike that of every other version.
    pub value: u32,
    /// How the pods behave that take their image from it.
    pub tag: Tag,
}

impl Settings {
    /// As `substitute` reads them.
    pub fn values(&self) -> Value {
        json!({"setting": self.value.to_string(), "tag": self.tag.text()})
    }
}

/// A Job that runs at a point of a revision's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub value: u32,
    /// How its pod behaves.
    pub tag: Tag,
    /// When it runs: the annotation.
    pub point: String,
    /// When it is deleted: the annotation.
    pub delete: Option<String>,
}

impl Hook {
    /// The manifest, as it stands in Git.
    pub fn manifest(&self, name: &str) -> Value {
        let mut object = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "annotations": {(names::HOOK): self.point}},
            "spec": {"backoffLimit": 0, "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "app", "image": image(self.tag.text()), "args": [self.value.to_string()]}],
                },
            }},
        });
        if let Some(delete) = &self.delete {
            object["metadata"]["annotations"][names::HOOK_DELETE_POLICY] = delete.as_str().into();
        }
        object
    }

    /// Whether a revision with it can be deployed: what runs after a failure decides nothing.
    pub fn lets_pass(&self) -> bool {
        self.tag.is_good() || !matches!(self.point.as_str(), "before-apply" | "after-apply")
    }
}

fn image(tag: &str) -> String {
    format!("registry.example.com/app:{tag}")
}

/// How many pods of a Deployment may be away during an update: fixed by its name.
pub fn max_unavailable(name: &str) -> i64 {
    i64::from(name.starts_with("api"))
}

impl Thing {
    /// The manifest, as it stands in Git; or as it is with the values of settings.
    pub fn manifest(&self, key: &Key, settings: Option<&Settings>) -> Value {
        let setting = settings.map_or("${setting}".to_owned(), |s| s.value.to_string());
        let tag = match settings {
            _ if !self.setting || !self.tag.is_good() => self.tag.text(),
            None => "${tag}",
            Some(settings) => settings.tag.text(),
        };
        let kind = key.0.names().1;
        let mut object =
            json!({"apiVersion": key.0.api_version(), "kind": kind, "metadata": {"name": key.1}});
        let mut notes = serde_json::Map::new();
        if let Some(prune) = &self.prune {
            notes.insert(names::PRUNE.into(), prune.as_str().into());
        }
        if let Some(wave) = self.wave {
            notes.insert(names::WAVE.into(), wave.to_string().into());
        }
        if self.recreate {
            notes.insert(names::RECREATE.into(), "enabled".into());
        }
        if self.more {
            notes.insert("example.com/more".into(), self.value.to_string().into());
        }
        if self.setting {
            notes.insert("example.com/setting".into(), setting.as_str().into());
        }
        if !notes.is_empty() {
            object["metadata"]["annotations"] = notes.into();
        }
        let labels = super::rollouts::labels(&key.1);
        let template = |restart: &str| {
            let mut container = json!({"name": "app", "image": image(tag)});
            if let Some(read) = &self.reads {
                container["envFrom"] = json!([{"configMapRef": {"name": read, "optional": true}}]);
            }
            json!({
                "metadata": {"labels": labels, "annotations": {"example.com/value": self.value.to_string()}},
                "spec": {"restartPolicy": restart, "containers": [container]},
            })
        };
        match key.0 {
            Kind::ConfigMap => {
                let mut data = json!({"value": self.value.to_string()});
                if self.more {
                    data["more"] = "1".into();
                }
                if self.setting {
                    data["setting"] = setting.into();
                }
                object["data"] = data;
                if self.invalid {
                    object["data"] = json!({"value": {"not": "text"}});
                }
            }
            Kind::Secret => {
                use base64::Engine;
                let text = base64::engine::general_purpose::STANDARD.encode(self.value.to_string());
                object["data"] = json!({ "value": text });
                if self.invalid {
                    object["data"] = json!({"value": {"not": "text"}});
                }
            }
            Kind::Claim => {
                object["metadata"]["labels"] = json!({"value": self.value.to_string()});
                object["spec"] = json!({
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                });
            }
            Kind::Deployment => {
                object["spec"] = json!({
                    "replicas": self.replicas,
                    "selector": {"matchLabels": labels},
                    "strategy": {
                        "type": "RollingUpdate",
                        "rollingUpdate": {"maxUnavailable": max_unavailable(&key.1), "maxSurge": 1},
                    },
                    "template": template("Always"),
                });
                if self.scaled
                    && let Some(spec) = object["spec"].as_object_mut()
                {
                    spec.remove("replicas");
                }
                if self.recreate {
                    // What cannot be changed: the way to another value leads over a deletion.
                    object["spec"]["selector"]["matchLabels"]["version"] = self.value.to_string().into();
                    object["spec"]["template"]["metadata"]["labels"]["version"] =
                        self.value.to_string().into();
                }
            }
            Kind::Job => {
                object["spec"] = json!({"backoffLimit": 0, "template": template("Never")});
                if let Some(ttl) = self.ttl {
                    object["spec"]["ttlSecondsAfterFinished"] = ttl.into();
                }
            }
            Kind::Service | Kind::Route | Kind::Grpc | Kind::Mesh | Kind::Rule | Kind::Scaler => {
                super::rollouts::routes::manifest(key, self, &mut object);
            }
        }
        object
    }

    /// How its pods behave with these settings.
    pub fn tag(&self, settings: Option<&Settings>) -> Tag {
        match settings {
            Some(settings) if self.setting && self.tag.is_good() => settings.tag,
            _ => self.tag,
        }
    }

    /// Whether it gets healthy.
    pub fn is_good(&self, key: &Key, settings: Option<&Settings>) -> bool {
        let runs = matches!(key.0, Kind::Deployment | Kind::Job);
        !(self.invalid && matches!(key.0, Kind::ConfigMap | Kind::Secret))
            && (!runs || self.tag(settings).is_good())
    }
}

/// What one directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    #[serde(with = "pairs")]
    pub things: BTreeMap<Key, Thing>,
    /// One file is no YAML.
    #[serde(default)]
    pub broken: bool,
    /// By name.
    #[serde(default)]
    pub hooks: BTreeMap<String, Hook>,
}

/// JSON has no keys but texts.
mod pairs {
    use super::{BTreeMap, Key, Thing};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(map: &BTreeMap<Key, Thing>, to: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Key, Thing>, D::Error> {
        Ok(Vec::<(Key, Thing)>::deserialize(from)?.into_iter().collect())
    }
}

impl Directory {
    /// Whether it can be deployed and gets healthy.
    pub fn is_good(&self, settings: Option<&Settings>) -> bool {
        !self.broken
            && !self.things.is_empty()
            && self.hooks.values().all(Hook::lets_pass)
            && self.things.iter().all(|(key, thing)| thing.is_good(key, settings))
    }
}
