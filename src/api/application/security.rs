//! What the pods of an Application may do, and who may reach them.

use k8s_openapi::api::core::v1::SeccompProfile;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a pod may do, and who may reach it. The defaults pass the Pod Security Standard `restricted`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.runAsNonRoot || !has(self.runAsUser) || self.runAsUser != 0").message("runAsUser 0 is root, which runAsNonRoot refuses; set runAsNonRoot: false too, or another user"),
    validation = Rule::new("self.allowPrivilegeEscalation || !self.capabilities.add.exists(c, c in ['SYS_ADMIN', 'CAP_SYS_ADMIN', 'ALL'])").message("SYS_ADMIN lets a process gain any privilege; set allowPrivilegeEscalation: true too, or leave it out of capabilities.add")
)]
pub struct Security {
    /// Refuses to start a container as root. An image whose user is a name needs `runAsUser`, for a name cannot be checked.
    #[serde(default = "yes")]
    pub run_as_non_root: bool,
    /// The user's number, that of the image by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647i64))]
    pub run_as_user: Option<i64>,
    /// The group's number, that of the image by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647i64))]
    pub run_as_group: Option<i64>,
    /// The group that owns the files of volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647i64))]
    pub fs_group: Option<i64>,
    /// Nothing can be written but in `writablePaths`.
    #[serde(default = "yes")]
    pub read_only_root_filesystem: bool,
    /// Directories that can be written; each is empty at first, and gone with the pod.
    #[serde(default = "temporary")]
    #[schemars(length(max = 16), inner(length(min = 2, max = 1024), regex(pattern = "^/")))]
    pub writable_paths: Vec<String>,
    /// Whether a process may gain more privileges than the one that started it.
    #[serde(default)]
    pub allow_privilege_escalation: bool,
    /// Capabilities of the kernel.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Which calls of the kernel are let through.
    #[serde(default = "runtime_default")]
    pub seccomp_profile: SeccompProfile,
    /// The account that pods have at the API server.
    #[serde(default)]
    pub service_account: ServiceAccountUse,
    /// Who may reach the pods. Without it there is no NetworkPolicy, and everybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkAccess>,
}

impl Default for Security {
    fn default() -> Self {
        Security {
            run_as_non_root: yes(),
            run_as_user: None,
            run_as_group: None,
            fs_group: None,
            read_only_root_filesystem: yes(),
            writable_paths: temporary(),
            allow_privilege_escalation: false,
            capabilities: Capabilities::default(),
            seccomp_profile: runtime_default(),
            service_account: ServiceAccountUse::default(),
            network_policy: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn temporary() -> Vec<String> {
    vec!["/tmp".into()]
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }
}

/// Capabilities of the kernel, as in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Those that are taken away.
    #[serde(default = "all")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub drop: Vec<String>,
    /// Those that are given.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub add: Vec<String>,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities { drop: all(), add: Vec::new() }
    }
}

fn all() -> Vec<String> {
    vec!["ALL".into()]
}

/// The account that pods have at the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.create || !has(self.annotations)").message("annotations are for an account that is made; set create: true"))]
pub struct ServiceAccountUse {
    /// Its name: the Application's own where it is made, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Whether it is made.
    #[serde(default)]
    pub create: bool,
    /// Annotations of an account that is made, which clouds tie identities to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Whether pods get its token, with which they can ask the API server.
    #[serde(default)]
    pub mount_token: bool,
}

/// Who may reach the pods, and whom they may reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAccess {
    /// Who may reach the ports, as peers of a NetworkPolicy: the pods of the namespace by default. The namespace of a
    /// Gateway in `expose` may as well.
    #[serde(default = "same_namespace")]
    #[schemars(length(max = 64))]
    pub allow_from: Vec<NetworkPolicyPeer>,
    /// Whom the pods may reach besides DNS; everybody when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub allow_to: Option<Vec<NetworkPolicyPeer>>,
}

/// The pods of the namespace.
pub fn same_namespace() -> Vec<NetworkPolicyPeer> {
    vec![NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }]
}
