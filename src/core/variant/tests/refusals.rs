//! What cannot be rolled out, and what is said of it.

use super::*;

/// What it is, the manifests before and after, the policy; the reason, and a part of the message.
type Case = (&'static str, (String, String), RolloutPolicy, &'static str, &'static str);

#[test]
fn what_cannot_be_done_names_the_object_its_place_and_what_to_do() {
    let new = |yaml: &str| yaml.replacen("web:1", "web:2", 1);
    let with = |more: &str| {
        let stable = web_and(more);
        let target = new(&stable);
        (stable, target)
    };
    let document = |api: &str, kind: &str, spec: &str| {
        with(&format!("\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: it}}\nspec: {spec}\n"))
    };
    let blue_green = RolloutPolicy { strategy: Strategy::BlueGreen, ..policy() };
    let set = WEB.replacen("kind: Deployment", "kind: StatefulSet", 1);
    let named_set = |policy: RolloutPolicy| RolloutPolicy {
        workload: Some(WorkloadRef { kind: WorkloadKind::StatefulSet, name: "web".into() }),
        ..policy
    };
    let expressions = WEB.replacen(
        "matchLabels: {app: web}\n  template",
        "matchExpressions: [{key: app, operator: Exists}]\n  template",
        1,
    );
    let both_workloads =
        RolloutPolicy { workload: None, workloads: vec![workload("web"), workload("worker")], ..policy() };
    let worker = |image: &str| {
        web_and(&format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: worker}}
spec:
  selector: {{matchLabels: {{app: web, role: worker}}}}
  template:
    metadata: {{labels: {{app: web, role: worker}}}}
    spec: {{containers: [{{name: app, image: '{image}'}}]}}
"
        ))
    };
    let cases: Vec<Case> = vec![
        (
            "the selector changes",
            (
                WEB.into(),
                new(&WEB.replacen(
                    "matchLabels: {app: web}\n  template",
                    "matchLabels: {team: shop}\n  template",
                    1,
                )),
            ),
            policy(),
            "SelectorChanged",
            "Deployment shop/web (app.yaml:2) changes spec.selector",
        ),
        (
            "a canary of a StatefulSet",
            (set.clone(), new(&set)),
            named_set(policy()),
            "WorkloadNotSupported",
            "use strategy BlueGreen",
        ),
        (
            "volumes of a StatefulSet change",
            (set.clone(), new(&set.replacen("  replicas: 3", "  serviceName: other\n  replicas: 3", 1))),
            named_set(blue_green),
            "ImmutableFieldChanged",
            "spec.serviceName",
        ),
        (
            "no label to rewrite",
            (expressions.clone(), new(&expressions)),
            policy(),
            "NoVariantLabel",
            "spec.selector needs one",
        ),
        (
            "a Service over the whole team",
            document("v1", "Service", "{selector: {team: shop}}"),
            policy(),
            "ServiceSeesBothVariants",
            "add app: web to its selector",
        ),
        (
            "a budget over the whole team",
            document(
                "policy/v1",
                "PodDisruptionBudget",
                "{maxUnavailable: 1, selector: {matchLabels: {team: shop}}}",
            ),
            policy(),
            "BudgetSeesBothVariants",
            "add app: web to its selector",
        ),
        (
            "a volume for one pod",
            {
                let claim = "\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: it}\nspec: {accessModes: [ReadWriteOncePod]}\n";
                let volume =
                    "      volumes:\n      - name: it\n        persistentVolumeClaim: {claimName: it}\n";
                let stable = web_and(claim).replacen("      volumes:\n", volume, 1);
                let target = new(&stable);
                (stable, target)
            },
            policy(),
            "ClaimOfOnePod",
            "PersistentVolumeClaim shop/it",
        ),
        (
            "somebody has the candidate's label",
            with("\napiVersion: v1\nkind: Pod\nmetadata: {name: it, labels: {app: web-canary}}\nspec: {}\n"),
            policy(),
            "LabelTaken",
            "Pod shop/it",
        ),
        (
            "counts without a label to spare",
            (WEB.into(), new(WEB)),
            by_counts(),
            "ServiceSeesOneVariant",
            "select by fewer labels",
        ),
        (
            "counts with a label to spare, from this revision on only",
            {
                let stable = WEB
                    .replacen(
                        "matchLabels: {app: web}\n  template",
                        "matchLabels: {app: web, team: shop}\n  template",
                        1,
                    )
                    .replacen("selector: {app: web}\n", "selector: {app: web, team: shop}\n", 1);
                let narrow = "selector: {app: web, team: shop}\n  ports";
                let target = new(&stable.replacen(narrow, "selector: {team: shop}\n  ports", 1));
                (stable, target)
            },
            by_counts(),
            "ServiceSeesOneVariant",
            "in a change of its own before",
        ),
        (
            "one Service of two workloads",
            (worker("web:1"), new(&worker("w:2"))),
            both_workloads,
            "ServiceOfTwoWorkloads",
            "Service shop/web",
        ),
        (
            "a policy for all but the workload",
            document(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}",
            ),
            policy(),
            "CannotFollowCandidate",
            "NetworkPolicy shop/it",
        ),
        (
            "an operator that nobody knows",
            document(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "{podSelector: {matchExpressions: [{key: app, operator: Like, values: [web]}]}}",
            ),
            policy(),
            "SelectorNotUnderstood",
            "NetworkPolicy shop/it",
        ),
        (
            "a policy of Cilium",
            document(
                "cilium.io/v2",
                "CiliumNetworkPolicy",
                "{endpointSelector: {matchLabels: {'k8s:app': web}}}",
            ),
            policy(),
            "CannotFollowCandidate",
            "Leave app out of its selector",
        ),
        (
            "a policy of Calico",
            document("projectcalico.org/v3", "NetworkPolicy", "{selector: \"app == 'web'\"}"),
            policy(),
            "CannotFollowCandidate",
            "NetworkPolicy.projectcalico.org shop/it",
        ),
    ];
    for (name, (stable, target), policy, reason, says) in cases {
        let problem = refused(&stable, &target, &policy);
        assert_eq!(problem.reason, reason, "{name}: {}", problem.message);
        assert!(problem.message.contains(says), "{name}: {}", problem.message);
        assert!(problem.message.contains("(app.yaml:"), "{name}: {}", problem.message);
    }
}

#[test]
fn another_workloads_affinity_and_labels_that_are_no_selector_refuse_nothing() {
    let more = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: near}
spec:
  selector: {matchLabels: {app: near}}
  template:
    metadata: {labels: {app: near}}
    spec:
      affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h, labelSelector: {matchLabels: {app: web}}}]}}
      containers: []
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: it}
spec: {target: {template: {metadata: {labels: {app: web}}}}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: it}
spec: {endpointSelector: {matchLabels: {app: cache}}}
";
    let stable = web_and(more);
    let stage = made(&stable, &stable.replacen("web:1", "web:2", 1), &policy());
    assert_eq!(stage.objects.len(), bundle(&stable).objects().len() + 3);
}

#[test]
fn the_next_label_is_taken_where_the_first_does_not_tell_apart() {
    // The Service goes by `tier`, so `app` would leave it with both variants.
    let stable = WEB
        .replacen(
            "matchLabels: {app: web}\n  template",
            "matchLabels: {app: web, tier: front}\n  template",
            1,
        )
        .replacen("labels: {app: web, team: shop}", "labels: {app: web, team: shop, tier: front}", 1)
        .replacen("selector: {app: web}\n", "selector: {tier: front}\n", 1)
        .replacen(
            "selector: {matchLabels: {app: web}}\n---",
            "selector: {matchLabels: {tier: front}}\n---",
            1,
        );
    let stage = made(&stable, &stable.replacen("web:1", "web:2", 1), &policy());
    assert_eq!(stage.variants[0].label.key, "tier");
    assert_eq!(stage.object("", "Service", "web-canary")["spec"]["selector"]["tier"], "web-canary");
}

#[test]
fn a_network_policy_of_others_has_to_mean_both_variants() {
    let target = bundle(&WEB.replacen("web:1", "web:2", 1));
    let said = |spec: &str| {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: fence}}\nspec: {spec}\n"
        );
        let problem = followed(&bundle(WEB), &target, &policy(), &objects(&text)).err();
        problem.map(|p| (p.reason, p.message)).unwrap_or_default()
    };
    let from = |labels: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: cache}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {labels}}}}}]}}]}}"
        )
    };
    for (spec, why) in [
        (
            "{podSelector: {matchLabels: {app: web}}}".to_owned(),
            "it isolates them, and would not isolate the candidate's",
        ),
        (
            "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}".to_owned(),
            "it leaves them out, and would isolate the candidate's",
        ),
        (from("{app: web}"), "it lets them through, and would not let the candidate's"),
        ("{podSelector: {}}".to_owned(), ""),
        ("{podSelector: {matchLabels: {team: shop}}}".to_owned(), ""),
        ("{podSelector: {matchLabels: {app: cache}}}".to_owned(), ""),
        (from("{team: shop}"), ""),
    ] {
        let (reason, message) = said(&spec);
        assert!(message.contains(why) && message.is_empty() == why.is_empty(), "{spec}: {message}");
        assert_eq!(reason, if why.is_empty() { "" } else { "CannotFollowCandidate" });
    }
}
