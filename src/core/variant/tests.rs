//! The candidate over manifests as people write them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod decisions;
mod laws;
mod objects;
mod others;
mod real;
mod refusals;
mod sizes;

use super::{Decision, StageObjects, followed, needs_rollout, stage};
use crate::api::delivery::{Empty, Problem};
use crate::api::rollout::{
    Base, GatewayRouter, Layout, RolloutPolicy, Router, Size, Strategy, WorkloadKind, WorkloadRef,
    WorkloadSize,
};
use crate::core::bundle::Bundle;
use crate::core::manifest::{Manifest, ObjectId};
use crate::core::tree::Origin;
use serde_json::Value;

/// Objects of a stream of YAML documents. One without a namespace is in `shop`, unless its kind has none.
fn objects(yaml: &str) -> Vec<Manifest> {
    let (mut all, mut line) = (Vec::new(), 1);
    for document in yaml.split("\n---") {
        let mut value: Value = serde_saphyr::from_str(document).unwrap();
        let begins = line + document.lines().take_while(|l| l.trim().is_empty()).count();
        line += document.matches('\n').count() + 1;
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let scoped =
            ["Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "PriorityClass"];
        if value["metadata"]["namespace"].is_null()
            && !scoped.contains(&kind.as_str())
            && !kind.ends_with("Configuration")
        {
            value["metadata"]["namespace"] = "shop".into();
        }
        all.push(Manifest::new(value, Origin { file: "app.yaml".into(), line: begins }).unwrap());
    }
    all
}

fn bundle(yaml: &str) -> Bundle {
    Bundle::new(objects(yaml)).unwrap()
}

/// A Deployment with a Service, as a tutorial has them.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
  annotations: {windlass.dev/prune: disabled}
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web, team: shop}
    spec:
      serviceAccountName: web
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm:
              topologyKey: kubernetes.io/hostname
              labelSelector: {matchLabels: {app: web}}
        podAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: topology.kubernetes.io/zone
            labelSelector: {matchLabels: {app: cache}}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: topology.kubernetes.io/zone
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchExpressions: [{key: app, operator: In, values: [web]}]
      containers:
      - name: app
        image: web:1
        envFrom:
        - configMapRef: {name: web-env}
        - secretRef: {name: web-keys}
        env:
        - name: MODE
          valueFrom: {configMapKeyRef: {name: shared, key: mode}}
      volumes:
      - name: config
        projected:
          sources:
          - configMap: {name: web-files}
          - secret: {name: web-keys}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web-env}
data: {LEVEL: info}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web-files}
data: {a.conf: one}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shared}
data: {mode: fast}
---
apiVersion: v1
kind: Secret
metadata: {name: web-keys}
stringData: {key: hidden-one}
---
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: {app: web}
  annotations: {external-dns.alpha.kubernetes.io/hostname: shop.example.com, prometheus.io/scrape: \"true\"}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [10.0.0.0/8]
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  minAvailable: 2
  selector: {matchLabels: {app: web}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache}
spec:
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec: {containers: [{name: cache, image: cache:1}]}
---
apiVersion: v1
kind: Service
metadata: {name: cache}
spec: {selector: {app: cache}, ports: [{port: 6379}]}
";

/// [`WEB`] and more documents.
fn web_and(more: &str) -> String {
    if more.is_empty() { WEB.into() } else { format!("{WEB}---{more}") }
}

fn workload(name: &str) -> WorkloadRef {
    WorkloadRef { kind: WorkloadKind::Deployment, name: name.into() }
}

fn policy() -> RolloutPolicy {
    RolloutPolicy {
        strategy: Strategy::Canary,
        workload: Some(workload("web")),
        router: Some(Router {
            gateway_api: Some(GatewayRouter { route: "web".into(), ..Default::default() }),
            ..Default::default()
        }),
        step_weight: Some(10),
        ..Default::default()
    }
}

fn by_counts() -> RolloutPolicy {
    RolloutPolicy {
        router: Some(Router { replicas: Some(Empty::default()), ..Default::default() }),
        ..policy()
    }
}

fn layout(base: Base, size: Option<Size>) -> Layout {
    Layout { base, size, ..Default::default() }
}

/// A layout with a candidate of full size beside the last good bundle.
fn full() -> Layout {
    layout(Base::Stable, Some(Size::Percent(100)))
}

fn sizes(replicas: i64) -> Vec<WorkloadSize> {
    vec![WorkloadSize { workload: workload("web"), replicas, now: None }]
}

/// What a stage has that stands in neither bundle, as YAML.
fn added(stage: &StageObjects, stable: &Bundle) -> String {
    let new = stage.objects.iter().filter(|object| stable.get(&object.id()).is_none());
    new.map(|object| serde_saphyr::to_string(&object.to_value()).unwrap()).collect::<Vec<_>>().join("---\n")
}

fn refused(stable: &str, target: &str, policy: &RolloutPolicy) -> Problem {
    match stage(&bundle(stable), &bundle(target), policy, &full(), &[]) {
        Err(problem) => problem,
        Ok(stage) => panic!("not refused:\n{}", added(&stage, &bundle(stable))),
    }
}

fn made(stable: &str, target: &str, policy: &RolloutPolicy) -> StageObjects {
    stage(&bundle(stable), &bundle(target), policy, &full(), &[]).unwrap()
}

fn id(group: &str, kind: &str, name: &str) -> ObjectId {
    ObjectId { group: group.into(), kind: kind.into(), namespace: "shop".into(), name: name.into() }
}

impl StageObjects {
    fn object(&self, group: &str, kind: &str, name: &str) -> Value {
        let id = id(group, kind, name);
        self.objects.iter().find(|object| object.id() == id).map_or(Value::Null, Manifest::to_value)
    }

    fn ids(&self) -> Vec<String> {
        self.objects.iter().map(|object| object.id().to_string()).collect()
    }
}
