//! What a candidate consists of.

use super::*;
use serde_json::json;

#[test]
fn a_canary_of_a_new_image_and_a_new_configuration() {
    let target = WEB.replacen("web:1", "web:2", 1).replacen("LEVEL: info", "LEVEL: debug", 1);
    let stage = made(WEB, &target, &policy());
    insta::assert_snapshot!(added(&stage, &bundle(WEB)));
    assert_eq!(stage.services.len(), 1);
    assert_eq!(
        (stage.services[0].stable.as_str(), stage.services[0].candidate.as_str()),
        ("web", "web-canary")
    );
    let variant = &stage.variants[0];
    assert_eq!((variant.label.key.as_str(), variant.label.stable.as_str()), ("app", "web"));
    assert_eq!(variant.label.candidate, "web-canary");
    assert_eq!(stage.services[0].label, variant.label);
}

#[test]
fn a_preview_has_its_own_suffix() {
    let policy = RolloutPolicy { strategy: Strategy::BlueGreen, ..policy() };
    let stage = made(WEB, &WEB.replacen("web:1", "web:2", 1), &policy);
    let names: Vec<String> = stage.ids().into_iter().filter(|id| id.contains("preview")).collect();
    assert_eq!(
        names,
        ["Service shop/web-preview", "Deployment shop/web-preview", "PodDisruptionBudget shop/web-preview"]
    );
}

#[test]
fn what_was_read_is_copied_when_it_changed_and_shared_when_it_did_not() {
    let target = WEB
        .replacen("hidden-one", "hidden-two", 1)
        .replacen("- configMapRef: {name: web-env}", "- configMapRef: {name: web-env-2}", 1)
        .replacen("metadata: {name: web-env}", "metadata: {name: web-env-2}", 1);
    let stage = made(WEB, &target, &policy());
    let pod = &stage.object("apps", "Deployment", "web-canary")["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["envFrom"],
        json!([{"configMapRef": {"name": "web-env-2"}}, {"secretRef": {"name": "web-keys-canary"}}])
    );
    assert_eq!(
        pod["volumes"][0]["projected"]["sources"],
        json!([{"configMap": {"name": "web-files"}}, {"secret": {"name": "web-keys-canary"}}])
    );
    assert_eq!(pod["containers"][0]["env"][0]["valueFrom"]["configMapKeyRef"]["name"], "shared");
    assert_eq!(pod["serviceAccountName"], "web");
    // The one with a new name is there under it; the one that leaves Git waits for promotion.
    for name in ["web-env", "web-env-2"] {
        assert_eq!(stage.object("", "ConfigMap", name)["data"]["LEVEL"], "info", "{name}");
    }
    let kept = stage.object("", "Secret", "web-keys");
    assert_eq!(kept, bundle(WEB).get(&id("", "Secret", "web-keys")).unwrap().to_value());
}

#[test]
fn a_name_that_old_pods_read_already_is_not_made_under_it_before_promotion() {
    let stable = WEB.replacen(
        "---
apiVersion: v1
kind: ConfigMap
metadata: {name: web-env}
data: {LEVEL: info}
",
        "",
        1,
    );
    let stage = made(&stable, WEB, &policy());
    assert_eq!(stage.object("", "ConfigMap", "web-env"), Value::Null);
    assert_eq!(stage.object("", "ConfigMap", "web-env-canary")["data"]["LEVEL"], "info");
}

#[test]
fn images_can_be_pulled_with_a_secret_that_comes_with_the_image() {
    let pulls = |data: &str| {
        WEB.replacen("      containers:", "      imagePullSecrets: [{name: registry}]\n      containers:", 1)
            + &format!(
                "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: registry}}\ndata: {{a: {data}}}\n"
            )
    };
    // By itself it is no reason for a rollout: running pods need it no more.
    let decision = needs_rollout(&bundle(&pulls("MQ==")), &bundle(&pulls("Mg==")), &policy()).unwrap();
    assert!(matches!(decision, Decision::Direct { .. }));
    let stage = made(&pulls("MQ=="), &pulls("Mg==").replacen("web:1", "web:2", 1), &policy());
    let pod = &stage.object("apps", "Deployment", "web-canary")["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry-canary"}]));
}

#[test]
fn the_rest_of_the_revision_waits_except_what_the_candidate_needs() {
    let more = "
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec: {group: example.com, names: {kind: Thing}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: web-reads}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web-reads}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web-reads}
subjects: [{kind: ServiceAccount, name: web}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: others}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web-reads}
subjects: [{kind: ServiceAccount, name: cache}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec: {schedule: '@daily', jobTemplate: {spec: {template: {spec: {containers: []}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: unread}
";
    let target = web_and(more).replacen("web:1", "web:2", 1).replacen("cache:1", "cache:2", 1);
    let stage = made(WEB, &target, &policy());
    let new: Vec<String> = stage.ids().into_iter().filter(|id| !WEB_IDS.contains(&id.as_str())).collect();
    assert_eq!(
        new,
        [
            "Role shop/web-reads",
            "RoleBinding shop/web-reads",
            "CustomResourceDefinition things.example.com",
            "ServiceAccount shop/web",
            "Service shop/web-canary",
            "Deployment shop/web-canary",
            "PodDisruptionBudget shop/web-canary",
        ]
    );
    let cache = stage.object("apps", "Deployment", "cache");
    assert_eq!(cache["spec"]["template"]["spec"]["containers"][0]["image"], "cache:1");
}

const WEB_IDS: [&str; 9] = [
    "Deployment shop/web",
    "ConfigMap shop/web-env",
    "ConfigMap shop/web-files",
    "ConfigMap shop/shared",
    "Secret shop/web-keys",
    "Service shop/web",
    "PodDisruptionBudget shop/web",
    "Deployment shop/cache",
    "Service shop/cache",
];

#[test]
fn rights_that_grow_are_added_for_the_candidate_and_the_objects_in_git_stay() {
    let rights = |verbs: &str| {
        web_and(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: web}}
rules: [{{apiGroups: [''], resources: [pods], verbs: {verbs}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: web}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}}
subjects: [{{kind: ServiceAccount, name: web}}, {{kind: User, name: ann}}]
"
        ))
    };
    let stage = made(&rights("[get]"), &rights("[get, list]").replacen("web:1", "web:2", 1), &policy());
    let (rbac, role) =
        ("rbac.authorization.k8s.io", |name| stage.object("rbac.authorization.k8s.io", "Role", name));
    assert_eq!(role("web")["rules"][0]["verbs"], json!(["get"]));
    assert_eq!(role("web-canary")["rules"][0]["verbs"], json!(["get", "list"]));
    let binding = stage.object(rbac, "RoleBinding", "web-canary");
    assert_eq!(binding["roleRef"]["name"], "web-canary");
    assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": "web"}]));
}

#[test]
fn what_goes_by_the_label_or_by_the_service_is_copied() {
    let more = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 7000}]}]
  egress: [{to: [{podSelector: {matchLabels: {app: cache}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: cache}
spec:
  podSelector: {matchLabels: {app: cache}}
  policyTypes: [Ingress, Egress]
  ingress:
  - {from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, batch]}]}}], ports: [{port: 6379}]}
  - {from: [{podSelector: {matchLabels: {app: batch}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: web, namespace: monitoring}
spec: {namespaceSelector: {matchNames: [shop]}, selector: {matchLabels: {app: web}}, podMetricsEndpoints: [{port: http}]}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: web, labels: {app: web}}
spec: {selector: {matchLabels: {app: web}}, endpoints: [{port: http}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web.shop.svc.cluster.local
  subsets: [{name: all, labels: {app: web}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls}
spec:
  targetRefs: [{group: '', kind: Service, name: web, sectionName: https}, {group: '', kind: Service, name: cache}]
  validation: {hostname: web.example.com}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: routes}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: edge}]
  to: [{group: '', kind: Service, name: web}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web}
spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gw]}}]}]}
";
    let (stable, target) = (web_and(more), web_and(more).replacen("web:1", "web:2", 1));
    let stage = made(&stable, &target, &policy());
    let mut policies = stage.objects.clone();
    policies.retain(|object| {
        let name = object.name();
        name.ends_with("-canary")
            && !["Deployment", "Service", "PodDisruptionBudget"].contains(&object.gvk().kind.as_str())
    });
    let policies = StageObjects { objects: policies, ..Default::default() };
    insta::assert_snapshot!(added(&policies, &bundle(&stable)));
}

#[test]
fn the_replicas_router_keeps_the_labels_of_the_service() {
    let two = |yaml: &str| {
        yaml.replacen(
            "matchLabels: {app: web}\n  template",
            "matchLabels: {app: web, release: main}\n  template",
            1,
        )
        .replacen(
            "labels: {app: web, team: shop}",
            "labels: {app: web, team: shop, release: main}",
            1,
        )
    };
    let stage = made(&two(WEB), &two(WEB).replacen("web:1", "web:2", 1), &by_counts());
    assert!(stage.services.is_empty());
    assert_eq!(stage.object("", "Service", "web-canary"), Value::Null);
    // The budget counts the pods behind the Service, as before.
    assert_eq!(stage.object("policy", "PodDisruptionBudget", "web-canary"), Value::Null);
    let candidate = stage.object("apps", "Deployment", "web-canary");
    assert_eq!(candidate["spec"]["selector"]["matchLabels"], json!({"app": "web", "release": "web-canary"}));
    assert_eq!(
        candidate["spec"]["template"]["metadata"]["labels"],
        json!({"app": "web", "release": "web-canary", "team": "shop"})
    );
}

#[test]
fn a_statefulset_has_its_own_headless_service_and_volumes_that_go_with_it() {
    let set = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app.kubernetes.io/name: db, app.kubernetes.io/instance: shop}}
  template:
    metadata: {labels: {app.kubernetes.io/name: db, app.kubernetes.io/instance: shop}}
    spec: {containers: [{name: db, image: 'db:1'}]}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app.kubernetes.io/name: db}, ports: [{port: 5432}]}
";
    let named = WorkloadRef { kind: WorkloadKind::StatefulSet, name: "db".into() };
    let policy = RolloutPolicy { strategy: Strategy::BlueGreen, workload: Some(named), ..policy() };
    let stage = made(set, &set.replacen("db:1", "db:2", 1), &policy);
    let preview = &stage.object("apps", "StatefulSet", "db-preview")["spec"];
    assert_eq!(preview["serviceName"], "db-preview");
    assert_eq!(preview["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Delete");
    let service = &stage.object("", "Service", "db-preview")["spec"];
    assert_eq!(service["clusterIP"], "None");
    assert_eq!(service["selector"], json!({"app.kubernetes.io/name": "db-preview"}));
}

#[test]
fn workloads_that_are_rolled_out_together_have_a_candidate_each_when_they_change() {
    let policy =
        RolloutPolicy { workload: None, workloads: vec![workload("web"), workload("cache")], ..policy() };
    let one = made(WEB, &WEB.replacen("web:1", "web:2", 1), &policy);
    assert_eq!(one.variants.len(), 1);
    let both = made(WEB, &WEB.replacen("web:1", "web:2", 1).replacen("cache:1", "cache:2", 1), &policy);
    let names: Vec<&str> = both.variants.iter().map(|variant| variant.candidate.name.as_str()).collect();
    assert_eq!(names, ["cache-canary", "web-canary"]);
    assert_eq!(both.services.len(), 2);
    let twice = RolloutPolicy { workload: None, workloads: vec![workload("web"), workload("web")], ..policy };
    assert_eq!(made(WEB, &WEB.replacen("web:1", "web:2", 1), &twice).variants.len(), 1);
}
