//! What of the configuration a pod template reads.

use crate::core::bundle::Bundle;
use crate::core::diff::fold_string_data;
use crate::core::manifest::{Manifest, ObjectId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Something that a pod template names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    /// A ConfigMap or Secret whose content reaches the containers.
    Config(&'static str),
    /// A Secret that images are pulled with: what is in it does not reach the containers.
    Pull,
}

impl Named {
    fn kind(self) -> &'static str {
        match self {
            Named::Config(kind) => kind,
            Named::Pull => "Secret",
        }
    }
}

/// Kinds of volume with a Secret at `secretRef`, or at another field.
const SECRET_VOLUMES: [(&str, &str); 8] = [
    ("csi", "nodePublishSecretRef"),
    ("cephfs", "secretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
    ("cinder", "secretRef"),
];

/// Shows each name of a ConfigMap or Secret in a pod's `spec`, to be read or changed.
pub(super) fn visit(spec: &mut Value, see: &mut dyn FnMut(Named, &mut Value)) {
    const CONFIG_MAP: Named = Named::Config("ConfigMap");
    const SECRET: Named = Named::Config("Secret");
    let mut name = |named: Named, of: Option<&mut Value>, field: &str| {
        if let Some(value) = of.and_then(|of| of.get_mut(field)) {
            see(named, value);
        }
    };
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in super::items_mut(spec.get_mut(list)) {
            for variable in super::items_mut(container.get_mut("env")) {
                if let Some(from) = variable.get_mut("valueFrom") {
                    name(CONFIG_MAP, from.get_mut("configMapKeyRef"), "name");
                    name(SECRET, from.get_mut("secretKeyRef"), "name");
                }
            }
            for from in super::items_mut(container.get_mut("envFrom")) {
                name(CONFIG_MAP, from.get_mut("configMapRef"), "name");
                name(SECRET, from.get_mut("secretRef"), "name");
            }
        }
    }
    for volume in super::items_mut(spec.get_mut("volumes")) {
        name(CONFIG_MAP, volume.get_mut("configMap"), "name");
        name(SECRET, volume.get_mut("secret"), "secretName");
        name(SECRET, volume.get_mut("azureFile"), "secretName");
        for (kind, field) in SECRET_VOLUMES {
            name(SECRET, volume.get_mut(kind).and_then(|v| v.get_mut(field)), "name");
        }
        for source in super::items_mut(volume.get_mut("projected").and_then(|p| p.get_mut("sources"))) {
            name(CONFIG_MAP, source.get_mut("configMap"), "name");
            name(SECRET, source.get_mut("secret"), "name");
        }
    }
    for pull in super::items_mut(spec.get_mut("imagePullSecrets")) {
        name(Named::Pull, Some(pull), "name");
    }
}

/// The ConfigMaps and Secrets that a pod template of a namespace names, and whether what is in them reaches its containers.
pub(super) fn reads(template: &Value, namespace: &str) -> BTreeMap<ObjectId, bool> {
    let mut spec = template["spec"].clone();
    let mut all = BTreeMap::new();
    visit(&mut spec, &mut |named, name| {
        let Some(name) = name.as_str() else { return };
        let reaches = matches!(named, Named::Config(_));
        *all.entry(config_id(named.kind(), namespace, name)).or_insert(false) |= reaches;
    });
    all
}

/// The identity of a ConfigMap or Secret.
pub(super) fn config_id(kind: &str, namespace: &str, name: &str) -> ObjectId {
    ObjectId { group: String::new(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
}

/// What a ConfigMap or Secret says: its data and type, whoever wrote them in which spelling.
pub(super) fn content(config: &Manifest) -> Value {
    let mut fields = config.fields().clone();
    fold_string_data(&mut fields);
    let mut take = |field: &str| {
        let value = fields.remove(field).unwrap_or(Value::Null);
        if value.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { value }
    };
    let kind = match take("type") {
        Value::String(kind) if kind == "Opaque" => Value::Null,
        other => other,
    };
    json!({"data": take("data"), "binaryData": take("binaryData"), "stringData": take("stringData"), "type": kind})
}

/// How a ConfigMap or Secret that a target's workload names stands to the last good bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The bundle does not have it: somebody else's.
    Foreign,
    /// It says what it said.
    Same,
    /// The last good bundle does not have it.
    New,
    /// It says something else.
    Changed,
}

/// How a ConfigMap or Secret stands.
pub(super) fn standing(stable: &Bundle, target: &Bundle, id: &ObjectId) -> Standing {
    match (stable.get(id), target.get(id)) {
        (_, None) => Standing::Foreign,
        (None, Some(_)) => Standing::New,
        (Some(old), Some(new)) if content(old) == content(new) => Standing::Same,
        _ => Standing::Changed,
    }
}
