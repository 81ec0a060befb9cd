//! A bundle: the rendered objects of one Delivery at one revision, in the order in which they are applied.

use super::digest;
use super::hook::{self, Hook, HookError};
use super::manifest::{Manifest, ObjectId};
use crate::api::delivery::DriftMode;
use crate::api::names;
use std::collections::BTreeMap;

/// The rendered objects of one Delivery at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bundle {
    objects: Vec<Manifest>,
    // Where in `objects` each stands: a plan asks for all of them, and there may be thousands.
    places: BTreeMap<ObjectId, usize>,
    hooks: Vec<Hook>,
    digest: String,
}

/// Why objects make no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Two documents define one object.
    #[error("{id} is defined twice: in {first} and in {second}; remove one")]
    Duplicate {
        /// The object.
        id: ObjectId,
        /// Where it is defined first.
        first: String,
        /// And again.
        second: String,
    },
    /// An annotation makes no hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// What is to be done about an object's drift cannot be read.
    #[error(
        "{id} ({origin}): the annotation {} is \"{value}\", and must be correct, report or ignore",
        names::DRIFT
    )]
    Drift {
        /// The object.
        id: ObjectId,
        /// Where it is defined.
        origin: String,
        /// What stands in the annotation.
        value: String,
    },
    /// The wave of an object is not a whole number.
    #[error("{id} ({origin}): the annotation {} is \"{value}\", and must be a whole number", names::WAVE)]
    Wave {
        /// The object.
        id: ObjectId,
        /// Where it is defined.
        origin: String,
        /// What stands in the annotation.
        value: String,
    },
}

/// When an object is applied: first by the wave that it names, then by what its kind is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wave {
    /// The annotation `windlass.dev/wave`, 0 without.
    pub number: i32,
    /// What the kind is needed for.
    pub stage: Stage,
}

/// What a kind is needed for. Objects of a stage are applied together, stages one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Namespaces, CRDs and classes: others cannot exist without.
    Definitions,
    /// Accounts, roles, configuration, volumes, quotas, Services: pods cannot start, or reach each other, without.
    Prerequisites,
    /// Bindings: who may not `bind` roles can bind only one that is there, with rights that he has.
    Bindings,
    /// What runs pods.
    Workloads,
    /// Everything else, such as routes and custom resources.
    Rest,
    /// Admission webhooks: they can refuse everything that comes after them, so their backends are healthy before.
    Admission,
}

/// The stage of a kind.
pub fn stage(group: &str, kind: &str) -> Stage {
    match (group, kind) {
        ("", "Namespace")
        | ("apiextensions.k8s.io", "CustomResourceDefinition")
        | ("storage.k8s.io", "StorageClass" | "CSIDriver")
        | ("scheduling.k8s.io", "PriorityClass")
        | ("networking.k8s.io", "IngressClass")
        | ("gateway.networking.k8s.io", "GatewayClass")
        | ("node.k8s.io", "RuntimeClass") => Stage::Definitions,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => Stage::Bindings,
        (
            "",
            "ServiceAccount"
            | "Secret"
            | "ConfigMap"
            | "PersistentVolume"
            | "PersistentVolumeClaim"
            | "ResourceQuota"
            | "LimitRange"
            | "Service",
        )
        | ("rbac.authorization.k8s.io", _)
        | ("networking.k8s.io", "NetworkPolicy") => Stage::Prerequisites,
        ("", "Pod" | "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job" | "CronJob") => Stage::Workloads,
        ("admissionregistration.k8s.io", _) => Stage::Admission,
        _ => Stage::Rest,
    }
}

impl Bundle {
    /// Sorts the objects into the order of their waves (equal ones by identity) and refuses an object defined twice.
    pub fn new(mut objects: Vec<Manifest>) -> Result<Self, BundleError> {
        let mut hooks = Vec::new();
        let mut waves = Vec::with_capacity(objects.len());
        let mut seen: BTreeMap<ObjectId, String> = BTreeMap::new();
        for object in &objects {
            let id = object.id();
            if let Some(first) = seen.get(&id) {
                return Err(BundleError::Duplicate {
                    id,
                    first: first.clone(),
                    second: object.origin.to_string(),
                });
            }
            hooks.extend(hook::read(object, wave(object)?.number)?);
            seen.insert(id, object.origin.to_string());
        }
        objects.retain(|object| object.annotation(names::HOOK).is_none());
        for object in &objects {
            waves.push(wave(object)?);
            drift_mode(object)?;
        }
        hooks.sort_by_key(|hook: &Hook| (hook.wave, hook.manifest.id()));
        let mut order: Vec<usize> = (0..objects.len()).collect();
        order.sort_by(|&a, &b| waves[a].cmp(&waves[b]).then_with(|| objects[a].id().cmp(&objects[b].id())));
        let mut slots: Vec<Option<Manifest>> = objects.drain(..).map(Some).collect();
        let objects: Vec<Manifest> = order.into_iter().filter_map(|i| slots[i].take()).collect();
        let mut bytes = Vec::new();
        for object in objects.iter().chain(hooks.iter().map(|hook| &hook.manifest)) {
            digest::write_canonical(&object.to_value(), &mut bytes);
            bytes.push(0);
        }
        let digest = digest::of_bytes(&bytes);
        let places = objects.iter().enumerate().map(|(at, object)| (object.id(), at)).collect();
        Ok(Bundle { objects, places, hooks, digest })
    }

    /// The objects, in the order in which they are applied.
    pub fn objects(&self) -> &[Manifest] {
        &self.objects
    }

    /// The Jobs that are no objects of it but run at points of its life, in the order of their waves.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Identity of the bundle: equal digests, equal objects.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The object with an identity.
    pub fn get(&self, id: &ObjectId) -> Option<&Manifest> {
        self.objects.get(*self.places.get(id)?)
    }

    /// Whether nothing was rendered.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// The number of a wave, as the annotation says it.
pub fn wave_of(text: &str) -> Option<i32> {
    text.trim().parse().ok()
}

/// What an object says by annotation about its drift; `None` when it leaves that to the Delivery.
pub fn drift_mode(object: &Manifest) -> Result<Option<DriftMode>, BundleError> {
    Ok(match object.annotation(names::DRIFT) {
        None => None,
        Some("correct") => Some(DriftMode::Correct),
        Some("report") => Some(DriftMode::Report),
        Some("ignore") => Some(DriftMode::Ignore),
        Some(text) => {
            return Err(BundleError::Drift {
                id: object.id(),
                origin: object.origin.to_string(),
                value: text.into(),
            });
        }
    })
}

/// The wave of an object.
pub fn wave(object: &Manifest) -> Result<Wave, BundleError> {
    let gvk = object.gvk();
    let number = match object.annotation(names::WAVE) {
        None => 0,
        Some(text) => wave_of(text).ok_or_else(|| BundleError::Wave {
            id: object.id(),
            origin: object.origin.to_string(),
            value: text.into(),
        })?,
    };
    Ok(Wave { number, stage: stage(&gvk.group, &gvk.kind) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::tree::Origin;
    use serde_json::json;

    fn object(api: &str, kind: &str, name: &str, wave: Option<&str>) -> Manifest {
        let mut value = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}});
        if let Some(wave) = wave {
            value["metadata"]["annotations"] = json!({names::WAVE: wave});
        }
        Manifest::new(value, Origin { file: format!("{name}.yaml"), line: 1 }).unwrap()
    }

    #[test]
    fn definitions_come_first_and_admission_last_and_a_wave_overrides() {
        let bundle = Bundle::new(vec![
            object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "hook", None),
            object("apps/v1", "Deployment", "web", None),
            object("v1", "ConfigMap", "web", None),
            object("v1", "ConfigMap", "early", Some("-1")),
            object("v1", "Namespace", "shop", None),
        ])
        .unwrap();
        let names: Vec<_> = bundle.objects().iter().map(|o| o.id().to_string()).collect();
        assert_eq!(
            names,
            [
                "ConfigMap early",
                "Namespace shop",
                "ConfigMap web",
                "Deployment web",
                "ValidatingWebhookConfiguration hook"
            ]
        );
    }

    #[test]
    fn an_object_defined_twice_names_both_places() {
        let mut second = object("v1", "ConfigMap", "web", None);
        second.origin = Origin { file: "b.yaml".into(), line: 7 };
        let error = Bundle::new(vec![object("v1", "ConfigMap", "web", None), second]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ConfigMap web is defined twice: in web.yaml:1 and in b.yaml:7; remove one"
        );
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_files() {
        let (a, b) = (object("v1", "ConfigMap", "a", None), object("v1", "ConfigMap", "b", None));
        assert_eq!(
            Bundle::new(vec![a.clone(), b.clone()]).unwrap().digest(),
            Bundle::new(vec![b, a]).unwrap().digest()
        );
    }
}
