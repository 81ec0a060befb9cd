//! A manifest: one object as Git wants it, its identity, and where in Git it came from.

use serde_json::{Map, Value};
use std::fmt;

pub use super::tree::Origin;

/// Identity of an object in a cluster. The version is not part of it: `apps/v1` and `apps/v1beta1` show one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// API group, `""` for the core group.
    pub group: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Namespace, `""` for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectId {
    /// `Deployment shop/web`, and `Deployment.example.com` for a group that is not Kubernetes' own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if self.group.contains('.') && !self.group.ends_with(".k8s.io") {
            write!(f, ".{}", self.group)?;
        }
        if self.namespace.is_empty() {
            write!(f, " {}", self.name)
        } else {
            write!(f, " {}/{}", self.namespace, self.name)
        }
    }
}

impl ObjectId {
    /// Of an object as the API server has it. What is missing is empty.
    pub fn of(object: &Value) -> Self {
        let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let gvk = Gvk::new(text("/apiVersion"), text("/kind"));
        ObjectId {
            group: gvk.group,
            kind: gvk.kind,
            namespace: text("/metadata/namespace").into(),
            name: text("/metadata/name").into(),
        }
    }
}

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// API group, `""` for the core group.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
}

impl Gvk {
    /// From `apiVersion` and `kind`.
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Gvk { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)
    }
}

/// One object as Git wants it. `apiVersion`, `kind` and `metadata.name` are there (checked by
/// [`Manifest::new`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    value: Map<String, Value>,
    /// Where in Git it came from.
    pub origin: Origin,
}

/// Why a document is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The document is not a mapping.
    #[error("a manifest is a mapping with apiVersion, kind and metadata.name; this is {0}")]
    NotAnObject(&'static str),
    /// A required field is not there or not text.
    #[error("{0} is missing or not a string")]
    Missing(&'static str),
    /// `generateName` makes a new object at each apply.
    #[error("metadata.generateName makes a new object at each apply; give it a metadata.name")]
    GenerateName,
}

impl Manifest {
    /// Checks the fields that every object needs.
    pub fn new(value: Value, origin: Origin) -> Result<Self, ManifestError> {
        let value = match value {
            Value::Object(map) => map,
            Value::Array(_) => return Err(ManifestError::NotAnObject("a list")),
            Value::Null => return Err(ManifestError::NotAnObject("empty")),
            _ => return Err(ManifestError::NotAnObject("a scalar")),
        };
        let text = |v: Option<&Value>| v.and_then(Value::as_str).is_some_and(|s| !s.is_empty());
        if !text(value.get("apiVersion")) {
            return Err(ManifestError::Missing("apiVersion"));
        }
        if !text(value.get("kind")) {
            return Err(ManifestError::Missing("kind"));
        }
        let meta = value.get("metadata");
        if !text(meta.and_then(|m| m.get("name"))) {
            if text(meta.and_then(|m| m.get("generateName"))) {
                return Err(ManifestError::GenerateName);
            }
            return Err(ManifestError::Missing("metadata.name"));
        }
        Ok(Manifest { value, origin })
    }

    /// The object's fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.value
    }

    /// The object's fields, to be changed. `apiVersion`, `kind` and `metadata.name` must stay.
    pub fn fields_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.value
    }

    /// The object as a JSON value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.value.clone())
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.text("apiVersion"), self.text("kind"))
    }

    /// Identity in the cluster. A namespaced object that names no namespace has `""` here until the renderer
    /// has given it one.
    pub fn id(&self) -> ObjectId {
        let gvk = self.gvk();
        ObjectId {
            group: gvk.group,
            kind: gvk.kind,
            namespace: self.namespace().into(),
            name: self.name().into(),
        }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.metadata_text("name")
    }

    /// `metadata.namespace`, or `""`.
    pub fn namespace(&self) -> &str {
        self.metadata_text("namespace")
    }

    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.value.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// Sets a field of `metadata`.
    pub fn set_metadata(&mut self, field: &str, value: Value) {
        let meta = self.value.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(meta) = meta {
            meta.insert(field.into(), value);
        }
    }

    /// Sets a label.
    pub fn set_label(&mut self, name: &str, label: &str) {
        let meta = self.value.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(meta) = meta {
            let labels = meta.entry("labels").or_insert_with(|| Value::Object(Map::new()));
            if !labels.is_object() {
                *labels = Value::Object(Map::new());
            }
            if let Value::Object(labels) = labels {
                labels.insert(name.into(), Value::String(label.into()));
            }
        }
    }

    fn text(&self, field: &str) -> &str {
        self.value.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn metadata_text(&self, field: &str) -> &str {
        self.value.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
    }
}
