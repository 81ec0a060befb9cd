//! How many pods there are, and what autoscalers may make of it.

use super::*;
use crate::core::variant::build::replicas;

#[test]
fn a_share_is_rounded_up_and_is_at_least_one() {
    let table = [
        (3, Size::Percent(100), 3),
        (3, Size::Percent(10), 1),
        (3, Size::Percent(34), 2),
        (10, Size::Percent(50), 5),
        (10, Size::Percent(0), 1),
        (0, Size::Percent(100), 1),
        (10, Size::Replicas(2), 2),
        (3, Size::OfAll(40), 2),
        (3, Size::OfAll(5), 1),
        (10, Size::OfAll(50), 10),
    ];
    for (wanted, size, expected) in table {
        assert_eq!(replicas(wanted, size), expected, "{wanted} {size:?}");
    }
}

const HPA: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 10
  metrics:
  - {type: Object, object: {describedObject: {apiVersion: v1, kind: Service, name: web}, metric: {name: rps}}}
";

fn scaled(base: Base, size: Option<Size>, before: i64) -> (StageObjects, Bundle) {
    let stable = web_and(HPA).replacen("  replicas: 3\n", "", 1);
    let target = bundle(&stable.replacen("web:1", "web:2", 1));
    let stage = stage(&bundle(&stable), &target, &policy(), &layout(base, size), &sizes(before)).unwrap();
    (stage, target)
}

fn least(stage: &StageObjects, name: &str) -> Option<i64> {
    stage.object("autoscaling", "HorizontalPodAutoscaler", name)["spec"]["minReplicas"].as_i64()
}

#[test]
fn what_grew_since_counts_for_the_candidate_and_not_for_the_way_back() {
    let grown = [WorkloadSize { now: Some(6), ..sizes(4).remove(0) }];
    let stable = web_and(HPA).replacen("  replicas: 3\n", "", 1);
    let target = bundle(&stable.replacen("web:1", "web:2", 1));
    let of = |base| {
        let layout = layout(base, Some(Size::Percent(50)));
        let stage = stage(&bundle(&stable), &target, &policy(), &layout, &grown).unwrap();
        (least(&stage, "web"), stage.object("apps", "Deployment", "web-canary")["spec"]["replicas"].as_i64())
    };
    assert_eq!(of(Base::Stable), (Some(4), Some(3)));
    assert_eq!(of(Base::Target), (Some(9), Some(3)));
}

#[test]
fn an_autoscaler_is_held_where_going_back_finds_the_capacity() {
    let (half, full) = (Some(Size::Percent(50)), Some(Size::Percent(100)));
    // Base, the candidate's size, pods before; least pods of the workload, least of the candidate, the candidate's pods.
    let table = [
        (Base::Stable, half, 6, Some(6), None, Some(3)),
        (Base::Stable, full, 4, Some(4), Some(4), Some(4)),
        (Base::Stable, full, 1, Some(2), Some(2), Some(1)),
        (Base::Target, half, 4, Some(6), None, Some(2)),
        (Base::Target, full, 8, Some(10), Some(8), Some(8)),
        (Base::Target, None, 8, Some(2), None, None),
        (Base::Stable, None, 8, Some(2), None, None),
    ];
    for (base, size, before, own, copy, pods) in table {
        let (stage, target) = scaled(base, size, before);
        let told = format!("{base:?} {size:?} {before}");
        assert_eq!(least(&stage, "web"), own, "{told}");
        assert_eq!(least(&stage, "web-canary"), copy, "{told}");
        let candidate = stage.object("apps", "Deployment", "web-canary");
        assert_eq!(candidate["spec"]["replicas"].as_i64(), pods, "{told}");
        if base == Base::Target && size.is_none() {
            assert_eq!(stage.objects, target.objects());
        }
    }
    let copy = scaled(Base::Stable, full, 4).0.object("autoscaling", "HorizontalPodAutoscaler", "web-canary");
    assert_eq!(copy["spec"]["scaleTargetRef"]["name"], "web-canary");
    assert_eq!(copy["spec"]["metrics"][0]["object"]["describedObject"]["name"], "web-canary");
}

#[test]
fn a_scaled_object_is_held_and_copied_like_an_autoscaler_of_kubernetes() {
    let keda = "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: queue}
spec:
  scaleTargetRef: {name: web}
  minReplicaCount: 1
  idleReplicaCount: 0
  advanced: {horizontalPodAutoscalerConfig: {name: queue-hpa}}
";
    let stable = bundle(&web_and(keda));
    let target = bundle(&web_and(keda).replacen("web:1", "web:2", 1));
    let stage = stage(&stable, &target, &policy(), &full(), &sizes(4)).unwrap();
    let (own, copy) = ("queue", "queue-canary");
    let spec = |name: &str| stage.object("keda.sh", "ScaledObject", name)["spec"].clone();
    assert_eq!((&spec(own)["minReplicaCount"], &spec(copy)["minReplicaCount"]), (&4.into(), &4.into()));
    // Nor does it go to nothing where it has nothing to do.
    let idle = |name: &str| spec(name).get("idleReplicaCount").cloned();
    assert_eq!((idle(own), idle(copy)), (None, None));
    assert_eq!(spec(copy)["scaleTargetRef"]["name"], "web-canary");
    assert_eq!(spec(copy)["advanced"]["horizontalPodAutoscalerConfig"]["name"], "queue-canary");
}

#[test]
fn without_a_count_the_autoscaler_is_left_alone() {
    let stable = web_and(HPA);
    let target = stable.replacen("web:1", "web:2", 1);
    let stage = made(&stable, &target, &policy());
    assert_eq!(least(&stage, "web"), Some(2));
    assert_eq!(stage.object("apps", "Deployment", "web-canary")["spec"]["replicas"], 3);
}

#[test]
fn a_budget_lets_as_many_pods_of_a_small_candidate_go_as_of_the_workload() {
    let target = bundle(&WEB.replacen("web:1", "web:2", 1));
    for (size, expected) in [(Size::Replicas(1), 0), (Size::Replicas(2), 1), (Size::Percent(100), 2)] {
        let stage = stage(&bundle(WEB), &target, &policy(), &layout(Base::Stable, Some(size)), &[]).unwrap();
        let budget = stage.object("policy", "PodDisruptionBudget", "web-canary");
        assert_eq!(budget["spec"]["minAvailable"], expected, "{size:?}");
    }
}
