//! The kinds that are served, and how each differs from the rest.

use super::canonical::{self, Noticed};
use super::schema::{Type, built_in, of_definition};
use super::set::Set;
use serde_json::{Value, json};
use std::sync::Arc;

/// A kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its group; empty for the core.
    pub group: String,
    /// Its version.
    pub version: String,
    /// Its name.
    pub kind: String,
    /// Its name in paths.
    pub plural: String,
    /// Objects live in namespaces.
    pub namespaced: bool,
    /// What its objects look like.
    pub of: Arc<Type>,
    /// A custom resource.
    pub custom: bool,
    /// It has a status that only its subresource writes.
    pub status: bool,
    /// It has the subresource `scale`.
    pub scale: bool,
    /// PUT makes what is not there.
    pub put_creates: bool,
    /// PUT may leave out the resourceVersion.
    pub put_unconditionally: bool,
    /// An object with nothing in it.
    pub empty: Value,
}

impl Kind {
    /// `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, as the server names it in refusals.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// An object as it is read and written again. `read`: it comes from outside, where a custom resource loses what
    /// is `null`; after an apply it does not.
    pub fn canonical(&self, object: Value, read: bool, noticed: &mut Noticed) -> Value {
        if self.custom {
            canonical::custom(&self.of, object, read, noticed)
        } else {
            let mut object = object;
            if self.kind == "Secret" {
                fold_string_data(&mut object);
            }
            canonical::built_in(&self.of, object, noticed)
        }
    }

    /// What a write through a subresource does not manage.
    pub fn ignored(&self, subresource: &str) -> Set {
        match (subresource, self.kind.as_str()) {
            ("", _) if self.status => Set::of_fields(&[&["status"]]),
            ("status", _) if self.custom => Set::of_fields(&[&["metadata"], &["spec"]]),
            ("status", "Deployment") => Set::of_fields(&[&["spec"], &["metadata", "labels"]]),
            ("status", "Pod") => Set::of_fields(&[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ]),
            ("status", _) => Set::of_fields(&[&["spec"]]),
            _ => Set::default(),
        }
    }

    /// A custom kind, from its definition (one version).
    pub fn of_definition(definition: &Value) -> Kind {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let version = &spec["versions"][0];
        let (group, name, kind) =
            (text(&spec["group"]), text(&version["name"]), text(&spec["names"]["kind"]));
        Kind {
            empty: json!({"apiVersion": format!("{group}/{name}"), "kind": kind}),
            plural: text(&spec["names"]["plural"]),
            namespaced: spec["scope"] == "Namespaced",
            of: of_definition(&version["schema"]["openAPIV3Schema"]),
            custom: true,
            status: version["subresources"]["status"].is_object(),
            scale: false,
            put_creates: false,
            put_unconditionally: false,
            group,
            version: name,
            kind,
        }
    }
}

/// The built-in kinds.
pub fn built_ins() -> Vec<Kind> {
    // group, version, kind, plural, status and scale, PUT creates, PUT unconditionally
    let table = [
        ("", "v1", "Namespace", "namespaces", "status", false, true),
        ("", "v1", "ConfigMap", "configmaps", "", false, true),
        ("", "v1", "Secret", "secrets", "", false, true),
        ("", "v1", "ServiceAccount", "serviceaccounts", "", false, true),
        ("", "v1", "Service", "services", "status", true, true),
        ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "status", false, true),
        ("", "v1", "Pod", "pods", "status", false, true),
        ("apps", "v1", "Deployment", "deployments", "status scale", false, true),
        ("apps", "v1", "ReplicaSet", "replicasets", "status scale", false, true),
        ("batch", "v1", "Job", "jobs", "status", false, true),
        ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "status", false, true),
        ("coordination.k8s.io", "v1", "Lease", "leases", "", true, false),
        ("events.k8s.io", "v1", "Event", "events", "", true, true),
    ];
    let kind = |(group, version, kind, plural, sub, put_creates, put_unconditionally): (
        &str,
        &str,
        &str,
        &str,
        &str,
        bool,
        bool,
    )| {
        let of = built_in(kind);
        let empty = canonical::built_in(&of, json!({}), &mut Noticed::default());
        Kind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: kind != "Namespace",
            of,
            custom: false,
            status: sub.contains("status"),
            scale: sub.contains("scale"),
            put_creates,
            put_unconditionally,
            empty,
        }
    };
    table.into_iter().map(kind).collect()
}

/// Plain text of a Secret becomes data.
fn fold_string_data(object: &mut Value) {
    use base64::Engine;
    let Some(plain) = object.as_object_mut().and_then(|o| o.remove("stringData")) else { return };
    for (name, text) in plain.as_object().into_iter().flatten() {
        let text = text.as_str().unwrap_or_default();
        if !object["data"].is_object() {
            object["data"] = json!({});
        }
        object["data"][name] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}
