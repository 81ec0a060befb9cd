//! What `windlass install --daemon` puts into a cluster, as values: `manifests/install.yaml` is these, printed.
//!
//! The daemon's own account may handle Windlass' resources, its Lease, its key and Events, read the Secrets that
//! Repositories name, and impersonate service accounts. It can neither write nor list anything that is delivered: that
//! is done as `windlass-deployer`, or as the account that a Delivery names, with the rights that these were given.

use crate::api::{crds, names};
use serde_json::{Value, json};

/// The service account of Deliveries that name none. It is looked up in the namespace of the Delivery.
pub const DEPLOYER: &str = "windlass-deployer";

/// Numeric, since a kubelet can prove of no name that it is not root. The image's user.
pub const UID: i64 = 65532;

/// The port of health and metrics.
pub const PORT: i64 = 8080;

/// What the installer chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its name: several can share a cluster.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The image of the daemon.
    pub image: String,
    /// Daemons; one works, the others wait for its Lease.
    pub replicas: u32,
    /// The only namespace whose Repositories and Deliveries it acts on; all without. Its rights end there then.
    pub watch_namespace: Option<String>,
    /// Names of the service accounts that it may impersonate; any without.
    pub accounts: Vec<String>,
    /// The ClusterRole that `windlass-deployer` is bound to; it can do nothing without.
    pub deployer_role: Option<String>,
}

impl Default for Installation {
    fn default() -> Self {
        Installation {
            name: "default".into(),
            namespace: "windlass-system".into(),
            image: concat!("windlass:", env!("CARGO_PKG_VERSION")).into(),
            replicas: 1,
            watch_namespace: None,
            accounts: Vec::new(),
            deployer_role: None,
        }
    }
}

impl Installation {
    /// The name of its objects, and of its service account.
    pub fn object_name(&self) -> String {
        if self.name == "default" { "windlass".into() } else { format!("windlass-{}", self.name) }
    }

    /// The name of the binding of `windlass-deployer`.
    pub fn deployer_binding(&self) -> String {
        format!("{}-deployer", self.object_name())
    }

    /// All objects, in the order in which they are to be applied.
    pub fn objects(&self) -> Vec<Value> {
        let mut objects = vec![self.namespace_object()];
        objects.extend(crds());
        objects.extend(own_names());
        objects.push(self.service_account(&self.object_name(), "daemon"));
        objects.push(self.service_account(DEPLOYER, "deployer"));
        objects.extend(self.roles());
        objects.extend(self.deployer());
        objects.push(self.service());
        objects.push(self.deployment());
        objects
    }

    fn selector(&self) -> Value {
        json!({
            "app.kubernetes.io/name": "windlass",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": "daemon",
        })
    }

    fn labels(&self, component: &str) -> Value {
        json!({
            "app.kubernetes.io/name": "windlass",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/part-of": "windlass",
            "app.kubernetes.io/managed-by": "windlass-install",
        })
    }

    fn namespaced(&self, name: &str, component: &str) -> Value {
        json!({"name": name, "namespace": self.namespace, "labels": self.labels(component)})
    }

    fn namespace_object(&self) -> Value {
        // Installations may share it: no label that only one of them would set.
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": {
                "app.kubernetes.io/name": "windlass",
                "app.kubernetes.io/part-of": "windlass",
            }},
        })
    }

    fn service_account(&self, name: &str, component: &str) -> Value {
        let mut account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": self.namespaced(name, component),
            "automountServiceAccountToken": false,
        });
        if component == "deployer" {
            // Installations may share it.
            account["metadata"]["labels"] = json!({
                "app.kubernetes.io/name": "windlass",
                "app.kubernetes.io/component": "deployer",
                "app.kubernetes.io/part-of": "windlass",
            });
        }
        account
    }

    /// The rights where Repositories and Deliveries are.
    pub fn rules(&self) -> Value {
        let mut impersonate = json!({
            "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"],
        });
        if !self.accounts.is_empty() {
            impersonate["resourceNames"] = json!(self.accounts);
        }
        // What Repositories name in `secretRef`. In all namespaces not list: a name has to be known there, and a new
        // version is seen at the next poll. In one namespace it is watched.
        let secrets = match self.watch_namespace {
            None => vec!["get"],
            Some(_) => vec!["get", "list", "watch"],
        };
        json!([
            {
                "apiGroups": [names::GROUP],
                "resources": ["repositories", "applications"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "apiGroups": [names::GROUP],
                "resources": ["deliveries", "driftreports", "inventoryshards"],
                "verbs": ["get", "list", "watch", "create", "patch", "delete"],
            },
            {
                "apiGroups": [names::GROUP],
                "resources": ["repositories/status", "deliveries/status", "applications/status"],
                "verbs": ["get", "patch", "update"],
            },
            // Only asked for where owner references that block deletion are checked
            // (OwnerReferencesPermissionEnforcement).
            {
                "apiGroups": [names::GROUP],
                "resources": ["repositories/finalizers", "deliveries/finalizers", "applications/finalizers"],
                "verbs": ["update"],
            },
            // What the specs of Applications became. Nothing runs by them but what the deployer may apply, and only as long as
            // they say what they said when they were written.
            {
                "apiGroups": ["apps"],
                "resources": ["controllerrevisions"],
                "verbs": ["get", "list", "watch", "create", "patch", "delete"],
            },
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": secrets},
            impersonate,
        ])
    }

    /// The rights in its own namespace.
    pub fn home_rules(&self) -> Value {
        let (lease, key) = (format!("windlass-{}", self.name), format!("windlass-{}-key", self.name));
        json!([
            // The name of what is created cannot be restricted.
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [lease],
                "verbs": ["get", "update"],
            },
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [key], "verbs": ["get"]},
        ])
    }

    fn roles(&self) -> Vec<Value> {
        let name = self.object_name();
        let labels = self.labels("daemon");
        let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": self.namespace});
        let role = |kind: &str, name: &str, namespace: Option<&str>, rules: Value| {
            let mut role = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
                "metadata": {"name": name, "labels": labels}, "rules": rules,
            });
            let mut binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
                "metadata": {"name": name, "labels": labels},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                "subjects": [subject],
            });
            if let Some(namespace) = namespace {
                role["metadata"]["namespace"] = namespace.into();
                binding["metadata"]["namespace"] = namespace.into();
            }
            [role, binding]
        };
        let mut roles = match &self.watch_namespace {
            None => role("ClusterRole", &name, None, self.rules()).to_vec(),
            Some(watched) => role("Role", &name, Some(watched), self.rules()).to_vec(),
        };
        let home = format!("{name}-home");
        roles.extend(role("Role", &home, Some(&self.namespace), self.home_rules()));
        roles
    }

    fn deployer(&self) -> Option<Value> {
        let role = self.deployer_role.as_ref()?;
        Some(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": self.deployer_binding(), "labels": self.labels("deployer")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": DEPLOYER, "namespace": self.namespace}],
        }))
    }

    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": self.namespaced(&self.object_name(), "daemon"),
            "spec": {
                "selector": self.selector(),
                "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
            },
        })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "run".to_owned(),
            format!("--namespace={}", self.namespace),
            format!("--installation={}", self.name),
            format!("--default-service-account={DEPLOYER}"),
            "--cache-dir=/var/cache/windlass".to_owned(),
            format!("--listen=:{PORT}"),
        ];
        if let Some(watched) = &self.watch_namespace {
            arguments.push(format!("--watch-namespace={watched}"));
        }
        arguments
    }

    fn deployment(&self) -> Value {
        let mut labels = self.labels("daemon");
        if let Some(labels) = labels.as_object_mut() {
            labels.remove("app.kubernetes.io/managed-by");
        }
        let probe = |path: &str, failures: i64| {
            json!({
                "httpGet": {"path": path, "port": "http"},
                "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": failures,
            })
        };
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": self.namespaced(&self.object_name(), "daemon"),
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": self.selector()},
                // The new one waits for the Lease, which the old one gives back when it ends.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {
                        "labels": labels,
                        "annotations": {
                            "prometheus.io/scrape": "true",
                            "prometheus.io/port": PORT.to_string(),
                        },
                    },
                    "spec": {
                        "serviceAccountName": self.object_name(),
                        "automountServiceAccountToken": true,
                        "terminationGracePeriodSeconds": 60,
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "nodeSelector": {"kubernetes.io/os": "linux"},
                        "topologySpreadConstraints": [{
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": self.selector()},
                        }],
                        "containers": [{
                            "name": "windlass",
                            "image": self.image,
                            "imagePullPolicy": "IfNotPresent",
                            "args": self.arguments(),
                            "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
                            "livenessProbe": probe("/livez", 6),
                            "readinessProbe": probe("/readyz", 3),
                            "resources": {
                                "requests": {"cpu": "50m", "memory": "64Mi"},
                                "limits": {"memory": "512Mi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [
                                {"name": "cache", "mountPath": "/var/cache/windlass"},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                        }],
                        "volumes": [
                            {"name": "cache", "emptyDir": {"sizeLimit": "8Gi"}},
                            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                        ],
                    },
                },
            },
        })
    }
}

/// Objects do not record who wrote an annotation: whoever asks something of a rollout writes his name into it, and the API
/// server makes sure that it is his own. All installations share it.
fn own_names() -> [Value; 2] {
    let name = "windlass-rollout-requests";
    let labels = json!({"app.kubernetes.io/name": "windlass", "app.kubernetes.io/part-of": "windlass"});
    let key = names::ROLLOUT_REQUEST;
    let of = |object: &str| format!("{object}.metadata.?annotations[?'{key}'].orValue('')");
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [names::GROUP], "apiVersions": ["*"], "resources": ["deliveries"],
                    "operations": ["CREATE", "UPDATE"],
                }]},
                "variables": [
                    {"name": "asked", "expression": of("object")},
                    {"name": "before", "expression": format!("oldObject == null ? '' : {}", of("oldObject"))},
                ],
                "validations": [{
                    "expression": "variables.asked == '' || variables.asked == variables.before || \
                        variables.asked.split(':', 4).size() == 4 && \
                        variables.asked.split(':', 4)[3] == request.userInfo.username",
                    "messageExpression": format!(
                        "'{key} is <verb>:<commit>:<time>:<user>, and the user must be who asks: ' + request.userInfo.username"
                    ),
                    "reason": "Forbidden",
                }],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name, "labels": labels},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        }),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn of<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
        objects.iter().filter(move |o| o["kind"] == kind)
    }

    #[test]
    fn the_deployer_has_no_rights_that_nobody_chose() {
        let none = Installation::default().objects();
        let bound = |objects: &[Value]| {
            ["ClusterRoleBinding", "RoleBinding"]
                .iter()
                .flat_map(|kind| of(objects, kind).cloned().collect::<Vec<_>>())
                .filter(|b| b["subjects"].as_array().unwrap().iter().any(|s| s["name"] == DEPLOYER))
                .collect::<Vec<_>>()
        };
        assert!(bound(&none).is_empty());
        let chosen = Installation { deployer_role: Some("edit".into()), ..Installation::default() }.objects();
        assert_eq!(bound(&chosen).len(), 1);
        assert_eq!(bound(&chosen)[0]["roleRef"]["name"], "edit");
    }

    #[test]
    fn the_daemon_may_impersonate_accounts_only_and_write_only_what_is_its_own() {
        let installation = Installation::default();
        let all: Vec<Value> = [installation.rules(), installation.home_rules()]
            .iter()
            .flat_map(|r| r.as_array().unwrap().clone())
            .collect();
        for rule in &all {
            let text = rule.to_string();
            assert!(!text.contains('*'), "{text}");
            if text.contains("impersonate") {
                assert_eq!(
                    rule["resources"],
                    json!(["serviceaccounts"]),
                    "groups would allow system:masters"
                );
                assert_eq!(rule["verbs"], json!(["impersonate"]));
            } else if rule["apiGroups"] == json!([""]) {
                assert_eq!(rule["resources"], json!(["secrets"]));
                assert!(rule["verbs"] == json!(["get"]) || rule["verbs"] == json!(["create"]), "{text}");
            }
        }
    }

    #[test]
    fn rights_end_where_the_installer_says() {
        let narrow = Installation {
            watch_namespace: Some("team".into()),
            accounts: vec![DEPLOYER.into()],
            ..Installation::default()
        };
        let objects = narrow.objects();
        assert_eq!(of(&objects, "ClusterRole").count(), 0);
        assert_eq!(of(&objects, "ClusterRoleBinding").count(), 0);
        assert!(of(&objects, "Role").any(|r| r["metadata"]["namespace"] == "team"
            && r["rules"].as_array().unwrap().iter().any(|r| r["resourceNames"] == json!([DEPLOYER]))));
    }

    #[test]
    fn two_installations_meet_in_nothing_but_definitions_namespace_and_deployer() {
        let one = Installation::default().objects();
        let other = Installation { name: "blue".into(), ..Installation::default() }.objects();
        for object in &one {
            let same = other
                .iter()
                .find(|o| o["kind"] == object["kind"] && o["metadata"]["name"] == object["metadata"]["name"]);
            if let Some(same) = same {
                assert_eq!(same, object, "one would undo the other");
            }
        }
    }
}
