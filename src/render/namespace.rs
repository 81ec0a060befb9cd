//! The namespace of each object: the Delivery's for those that name none, none for those of the whole cluster.

use crate::core::manifest::Manifest;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the whole cluster.
    Cluster,
}

/// Knows where the objects of a kind live: a cluster's discovery, or [`builtin_scopes`].
pub trait Scopes: Sync {
    /// The scope of a kind (group `""` for the core group), or `None` when it is not known.
    fn scope(&self, group: &str, kind: &str) -> Option<Scope>;
}

/// The kinds of Kubernetes itself and of the Gateway API; for rendering without a cluster.
pub fn builtin_scopes() -> impl Scopes + Copy + 'static {
    Builtin
}

#[derive(Clone, Copy)]
struct Builtin;

impl Scopes for Builtin {
    fn scope(&self, group: &str, kind: &str) -> Option<Scope> {
        let (cluster, namespaced): (&[&str], &[&str]) = match group {
            "" => (
                &["Namespace", "Node", "PersistentVolume", "ComponentStatus"],
                &[
                    "Binding",
                    "ConfigMap",
                    "Endpoints",
                    "Event",
                    "LimitRange",
                    "PersistentVolumeClaim",
                    "Pod",
                    "PodTemplate",
                    "ReplicationController",
                    "ResourceQuota",
                    "Secret",
                    "Service",
                    "ServiceAccount",
                ],
            ),
            "admissionregistration.k8s.io" => (
                &[
                    "MutatingAdmissionPolicy",
                    "MutatingAdmissionPolicyBinding",
                    "MutatingWebhookConfiguration",
                    "ValidatingAdmissionPolicy",
                    "ValidatingAdmissionPolicyBinding",
                    "ValidatingWebhookConfiguration",
                ],
                &[],
            ),
            "apiextensions.k8s.io" => (&["CustomResourceDefinition"], &[]),
            "apiregistration.k8s.io" => (&["APIService"], &[]),
            "apps" => (&[], &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
            "autoscaling" => (&[], &["HorizontalPodAutoscaler"]),
            "batch" => (&[], &["CronJob", "Job"]),
            "certificates.k8s.io" => {
                (&["CertificateSigningRequest", "ClusterTrustBundle"], &["PodCertificateRequest"])
            }
            "coordination.k8s.io" => (&[], &["Lease", "LeaseCandidate"]),
            "discovery.k8s.io" => (&[], &["EndpointSlice"]),
            "events.k8s.io" => (&[], &["Event"]),
            "flowcontrol.apiserver.k8s.io" => (&["FlowSchema", "PriorityLevelConfiguration"], &[]),
            "gateway.networking.k8s.io" => (
                &["GatewayClass"],
                &[
                    "BackendTLSPolicy",
                    "GRPCRoute",
                    "Gateway",
                    "HTTPRoute",
                    "ReferenceGrant",
                    "TCPRoute",
                    "TLSRoute",
                    "UDPRoute",
                ],
            ),
            "networking.k8s.io" => {
                (&["IPAddress", "IngressClass", "ServiceCIDR"], &["Ingress", "NetworkPolicy"])
            }
            "node.k8s.io" => (&["RuntimeClass"], &[]),
            "policy" => (&["PodSecurityPolicy"], &["PodDisruptionBudget"]),
            "rbac.authorization.k8s.io" => (&["ClusterRole", "ClusterRoleBinding"], &["Role", "RoleBinding"]),
            "resource.k8s.io" => (
                &["DeviceClass", "DeviceTaintRule", "ResourceSlice"],
                &["ResourceClaim", "ResourceClaimTemplate"],
            ),
            "scheduling.k8s.io" => (&["PriorityClass"], &["Workload"]),
            "storage.k8s.io" => (
                &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"],
                &["CSIStorageCapacity"],
            ),
            _ => return None,
        };
        if cluster.contains(&kind) {
            Some(Scope::Cluster)
        } else if namespaced.contains(&kind) {
            Some(Scope::Namespaced)
        } else {
            None
        }
    }
}

/// Gives each object its namespace and returns what the reader should know.
///
/// Scopes of kinds come from the CRDs among the objects, then from `scopes`. A kind that is in neither is taken as
/// namespaced. A namespace on an object of the whole cluster is taken away, as the API server does; Kustomize
/// puts one there on every custom resource.
pub(super) fn assign(objects: &mut [Manifest], target: Option<&str>, scopes: &dyn Scopes) -> Vec<String> {
    let defined = defined_scopes(objects);
    let mut unknown: BTreeSet<(String, String)> = BTreeSet::new();
    let mut warnings = Vec::new();
    for object in objects {
        let gvk = object.gvk();
        let key = (gvk.group, gvk.kind);
        let scope = defined.get(&key).copied().or_else(|| scopes.scope(&key.0, &key.1));
        match scope {
            Some(Scope::Cluster) => {
                if !object.namespace().is_empty() {
                    warnings.push(format!(
                        "{}: {} {} lives in the whole cluster; its namespace \"{}\" is left out",
                        object.origin,
                        key.1,
                        object.name(),
                        object.namespace()
                    ));
                }
                if let Some(Value::Object(metadata)) = object.fields_mut().get_mut("metadata") {
                    metadata.remove("namespace");
                }
            }
            Some(Scope::Namespaced) | None => {
                if scope.is_none() && unknown.insert(key.clone()) {
                    let (group, kind) = &key;
                    warnings.push(format!(
                        "{}: the kind {kind} of {} is not known here and taken as namespaced",
                        object.origin,
                        if group.is_empty() { "the core group" } else { group },
                    ));
                }
                if let (true, Some(target)) = (object.namespace().is_empty(), target) {
                    object.set_metadata("namespace", Value::String(target.into()));
                }
            }
        }
    }
    warnings
}

fn defined_scopes(objects: &[Manifest]) -> HashMap<(String, String), Scope> {
    let crds = objects.iter().filter(|object| {
        let gvk = object.gvk();
        gvk.group == "apiextensions.k8s.io" && gvk.kind == "CustomResourceDefinition"
    });
    crds.filter_map(|crd| {
        let spec = crd.fields().get("spec")?;
        let scope = match spec["scope"].as_str()? {
            "Cluster" => Scope::Cluster,
            _ => Scope::Namespaced,
        };
        Some(((spec["group"].as_str()?.into(), spec["names"]["kind"].as_str()?.into()), scope))
    })
    .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::tree::Origin;
    use serde_json::json;

    fn object(api: &str, kind: &str, namespace: Option<&str>) -> Manifest {
        let mut value = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x"}});
        if let Some(namespace) = namespace {
            value["metadata"]["namespace"] = namespace.into();
        }
        Manifest::new(value, Origin { file: "a.yaml".into(), line: 3 }).unwrap()
    }

    #[test]
    fn each_kind_gets_the_namespace_that_it_can_have() {
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "tenants.example.com"},
            "spec": {"group": "example.com", "scope": "Cluster", "names": {"kind": "Tenant"}},
        });
        let mut objects = vec![
            Manifest::new(crd, Origin::default()).unwrap(),
            object("v1", "ConfigMap", None),
            object("v1", "ConfigMap", Some("other")),
            object("v1", "Namespace", None),
            object("example.com/v1", "Tenant", None),
            object("rbac.authorization.k8s.io/v1", "ClusterRole", Some("shop")),
            object("example.com/v1", "Unknown", None),
        ];
        let warnings = assign(&mut objects, Some("shop"), &builtin_scopes());
        let namespaces: Vec<_> = objects.iter().map(Manifest::namespace).collect();
        assert_eq!(namespaces, ["", "shop", "other", "", "", "", "shop"]);
        assert_eq!(
            warnings,
            [
                "a.yaml:3: ClusterRole x lives in the whole cluster; its namespace \"shop\" is left out",
                "a.yaml:3: the kind Unknown of example.com is not known here and taken as namespaced",
            ]
        );
    }

    #[test]
    fn without_a_target_nothing_is_given() {
        let mut objects = vec![object("v1", "ConfigMap", None)];
        assert!(assign(&mut objects, None, &builtin_scopes()).is_empty());
        assert_eq!(objects[0].namespace(), "");
    }
}
