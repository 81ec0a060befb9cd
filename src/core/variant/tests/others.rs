//! What stands beside the directory, and means the workload otherwise than its candidate.

use super::*;
use crate::api::delivery::{EntryOrigin, InventoryEntry};
use crate::core::variant::{is_others, minded};

/// What is said of objects of others: the reason and the message of a refusal, or notices.
fn said(documents: &[(&str, &str, &str)], policy: &RolloutPolicy) -> (String, String) {
    let yaml: Vec<String> = documents
        .iter()
        .enumerate()
        .map(|(at, (api, kind, spec))| {
            format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: it{at}}}\nspec: {spec}\n")
        })
        .collect();
    let target = bundle(&WEB.replacen("web:1", "web:2", 1));
    match followed(&bundle(WEB), &target, policy, &objects(&yaml.join("---\n"))) {
        Ok(notices) => (String::new(), notices.join("; ")),
        Err(problem) => (problem.reason, problem.message),
    }
}

const MONITORING: &str = "monitoring.coreos.com/v1";
const SECURITY: &str = "security.istio.io/v1";
const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const ISTIO: &str = "networking.istio.io/v1";
const SCALING: &str = "autoscaling/v2";
const KEDA: &str = "keda.sh/v1alpha1";

#[test]
fn what_would_leave_the_candidate_out_is_refused_or_told() {
    let web = "{selector: {matchLabels: {app: web}}}";
    let others = "{selector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}";
    let team = "{selector: {matchLabels: {team: shop}}}";
    let follow = "CannotFollowCandidate";
    let measured = "it measures them, and would not measure the candidate's";
    let held = "what it says of them would not hold for the candidate's";
    let table = [
        (MONITORING, "PodMonitor", web, follow, measured),
        (MONITORING, "PodMonitor", others, "", ""),
        (MONITORING, "PodMonitor", team, "", ""),
        (
            MONITORING,
            "PodMonitor",
            "{namespaceSelector: {matchNames: [cache]}, selector: {matchLabels: {app: web}}}",
            "",
            "",
        ),
        ("monitoring.googleapis.com/v1", "PodMonitoring", web, follow, measured),
        (MONITORING, "ServiceMonitor", web, follow, "the candidate's, web-canary, does not have"),
        (MONITORING, "ServiceMonitor", others, "", ""),
        (SECURITY, "AuthorizationPolicy", web, follow, held),
        (
            SECURITY,
            "AuthorizationPolicy",
            others,
            follow,
            "it leaves them out, and would hold for the candidate's",
        ),
        (SECURITY, "AuthorizationPolicy", team, "", ""),
        (SECURITY, "AuthorizationPolicy", "{rules: []}", "", ""),
        (ISTIO, "EnvoyFilter", "{workloadSelector: {labels: {app: web}}}", follow, held),
        (
            ISTIO,
            "DestinationRule",
            "{host: web}",
            follow,
            "is about Service shop/web by its name, while the candidate has a Service of its own, web-canary,",
        ),
        (
            ISTIO,
            "DestinationRule",
            "{host: web.shop.svc.cluster.local}",
            follow,
            "have one for web-canary beside it",
        ),
        (ISTIO, "DestinationRule", "{host: web.elsewhere.svc.cluster.local}", "", ""),
        (ISTIO, "DestinationRule", "{host: '*.shop.svc.cluster.local'}", "", ""),
        (
            ISTIO,
            "DestinationRule",
            "{host: cache, workloadSelector: {matchLabels: {app: web}}}",
            follow,
            "what it says of calls that they make would not hold for the candidate's",
        ),
        (
            GATEWAY,
            "BackendTLSPolicy",
            "{targetRefs: [{group: '', kind: Service, name: web}]}",
            follow,
            "by its name",
        ),
        (GATEWAY, "BackendTLSPolicy", "{targetRefs: [{group: '', kind: Service, name: cache}]}", "", ""),
        (
            GATEWAY,
            "BackendTLSPolicy",
            "{targetRefs: [{kind: Service, name: web}, {kind: Service, name: web-canary}]}",
            "",
            "",
        ),
        (
            SECURITY,
            "AuthorizationPolicy",
            "{targetRefs: [{group: '', kind: Service, name: web}]}",
            follow,
            "by its name",
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            web,
            "",
            "PodDisruptionBudget shop/it0, which is not in the directory, covers the pods of Deployment shop/web and not the candidate's",
        ),
        ("policy/v1", "PodDisruptionBudget", team, "", ""),
        (
            "v1",
            "Service",
            "{selector: {app: web}}",
            "",
            "sends requests to the pods of Deployment shop/web and none to the candidate's",
        ),
        (
            "v1",
            "Service",
            "{selector: {team: shop}}",
            "ServiceSeesBothVariants",
            "add app: web to its selector",
        ),
        (
            "v1",
            "Service",
            "{selector: {app: web-canary}}",
            "",
            "sends requests to the pods of Deployment shop/web's candidate, whatever its share is",
        ),
        ("v1", "Service", "{selector: {app: cache}}", "", ""),
        ("v1", "Service", "{ports: []}", "", ""),
        (
            SCALING,
            "HorizontalPodAutoscaler",
            "{scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 3, maxReplicas: 9}",
            follow,
            "scales Deployment shop/web: it could take away the pods that going back needs, and would not scale the candidate. Add it to \
             the directory in a change of its own before, where rollouts hold and copy it, or take it away for the rollout",
        ),
        (SCALING, "HorizontalPodAutoscaler", "{scaleTargetRef: {kind: Deployment, name: cache}}", "", ""),
        (
            SCALING,
            "HorizontalPodAutoscaler",
            "{scaleTargetRef: {kind: Deployment, name: web-canary}}",
            "",
            "",
        ),
        (SCALING, "HorizontalPodAutoscaler", "{scaleTargetRef: {kind: StatefulSet, name: web}}", "", ""),
        (
            SCALING,
            "HorizontalPodAutoscaler",
            "{scaleTargetRef: {apiVersion: example.com/v1, kind: Deployment, name: web}}",
            "",
            "",
        ),
        (KEDA, "ScaledObject", "{scaleTargetRef: {name: web}}", follow, "scales Deployment shop/web: "),
        (KEDA, "ScaledObject", "{scaleTargetRef: {name: cache}}", "", ""),
        ("example.com/v1", "Other", web, "", ""),
    ];
    for (api, kind, spec, reason, message) in table {
        let (why, text) = said(&[(api, kind, spec)], &policy());
        assert_eq!(why, reason, "{kind} {spec}: {text}");
        assert!(text.contains(message) && text.is_empty() == message.is_empty(), "{kind} {spec}: {text}");
        let place = "shop/it0 (app.yaml:1) is in the cluster and not in the directory";
        assert!(reason.is_empty() || text.starts_with(kind) && text.contains(place), "{text}");
        let known = minded().any(|(group, named)| {
            named == kind && (api == "v1" && group.is_empty() || api.starts_with(&format!("{group}/")))
        });
        assert!(known || message.is_empty(), "{kind} is never looked at");
    }
}

#[test]
fn what_somebody_says_of_the_candidate_too_is_enough() {
    let host = |name: &str| format!("{{host: {name}}}");
    let (web, canary) = (host("web"), host("web-canary.shop.svc"));
    let both = [(ISTIO, "DestinationRule", web.as_str()), (ISTIO, "DestinationRule", canary.as_str())];
    assert_eq!(said(&both, &policy()), Default::default());
    // Of another kind it says something else.
    let other = "{targetRefs: [{kind: Service, name: web-canary}]}";
    let both = [(ISTIO, "DestinationRule", web.as_str()), (GATEWAY, "BackendTLSPolicy", other)];
    assert_eq!(said(&both, &policy()).0, "CannotFollowCandidate");
}

#[test]
fn where_counts_are_the_shares_a_service_of_others_may_reach_both() {
    let web = WEB
        .replacen(
            "matchLabels: {app: web}\n  template",
            "matchLabels: {app: web, tier: front}\n  template",
            1,
        )
        .replacen("labels: {app: web, team: shop}", "labels: {app: web, team: shop, tier: front}", 1);
    let target = web.replacen("web:1", "web:2", 1);
    let of = |selector: &str| {
        let yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: it}}\nspec: {{selector: {selector}}}\n"
        );
        followed(&bundle(&web), &bundle(&target), &by_counts(), &objects(&yaml)).unwrap()
    };
    assert!(of("{team: shop}").is_empty());
    assert_eq!(of("{tier: front}").len(), 1);
}

/// An autoscaler of the workload `web`.
fn scaler(api: &str, kind: &str, name: &str, more: &str) -> String {
    let target = "scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}";
    format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}{more}}}\nspec: {{{target}}}\n")
}

/// As its controller marks what it makes.
fn made_by(api: &str, kind: &str, name: &str) -> String {
    format!(
        ", ownerReferences: [{{apiVersion: example.com/v1, kind: Other, name: it}}, \
         {{apiVersion: {api}, kind: {kind}, name: {name}, controller: true}}]"
    )
}

#[test]
fn an_autoscaler_of_a_held_one_is_none_of_others() {
    let of_keda =
        scaler(SCALING, "HorizontalPodAutoscaler", "keda-hpa-web", &made_by(KEDA, "ScaledObject", "web"));
    let by_keda = scaler(KEDA, "ScaledObject", "web", "");
    let with_keda = web_and(&format!("\n{by_keda}"));
    let next = |yaml: &str| yaml.replacen("web:1", "web:2", 1);
    let said = |stable: &str, target: &str, others: &[&str]| {
        let others = objects(&others.join("---\n"));
        followed(&bundle(stable), &bundle(&next(target)), &policy(), &others)
            .map_err(|problem| problem.message)
    };
    let table: [(&str, &str, Vec<&str>, &str); 5] = [
        (&with_keda, &with_keda, vec![&of_keda], ""),
        // It is held until promotion takes it away.
        (&with_keda, WEB, vec![&of_keda], ""),
        // The one that has to be minded is named, whatever is looked at first.
        (WEB, WEB, vec![&of_keda, &by_keda], "ScaledObject.keda.sh shop/web (app.yaml:"),
        (WEB, WEB, vec![&by_keda, &of_keda], "ScaledObject.keda.sh shop/web (app.yaml:"),
        // Where those may not be looked at.
        (
            WEB,
            WEB,
            vec![&of_keda],
            "It belongs to ScaledObject.keda.sh shop/web. Add that to the directory in a change of its own before",
        ),
    ];
    for (stable, target, others, message) in table {
        match said(stable, target, &others) {
            Ok(notices) => assert!(message.is_empty() && notices.is_empty(), "{message}"),
            Err(text) => assert!(!message.is_empty() && text.contains(message), "{text}"),
        }
    }
    // Whose maker is held by nothing.
    let of_other =
        scaler(SCALING, "HorizontalPodAutoscaler", "web", &made_by("example.com/v1", "App", "web"));
    let app = "apiVersion: example.com/v1\nkind: App\nmetadata: {name: web}\n";
    let with_app = web_and(&format!("\n{app}"));
    let text = said(&with_app, &with_app, &[&of_other]).unwrap_err();
    assert!(
        text.contains("It belongs to App.example.com shop/web: have that make none for the rollout"),
        "{text}"
    );
}

#[test]
fn an_autoscaler_that_only_the_new_revision_has_is_not_held_yet() {
    let by_keda = scaler(KEDA, "ScaledObject", "web", "");
    let target = web_and(&format!("\n{by_keda}")).replacen("web:1", "web:2", 1);
    let problem = followed(&bundle(WEB), &bundle(&target), &policy(), &objects(&by_keda)).unwrap_err();
    assert_eq!(problem.reason, "CannotFollowCandidate");
    let said = "not in the directory of the last good revision, and scales Deployment shop/web: it could take away the pods that going \
                back needs, as long as this revision, which adds it, is not promoted. Add it in a change of its own before";
    assert!(problem.message.contains(said), "{}", problem.message);
}

#[test]
fn of_others_is_what_a_rollout_neither_copies_nor_holds() {
    let marked = ", labels: {windlass.dev/delivery: ours}";
    let of = |kind: &str, more: &str| match kind {
        "Service" => format!("apiVersion: v1\nkind: Service\nmetadata: {{name: it{more}}}\n"),
        _ => scaler(SCALING, kind, "it", more),
    };
    // The kind, the label, whether the last good bundle, the new one and the inventory have it.
    let table = [
        ("Service", "", [false, false, false], true),
        ("Service", ", labels: {windlass.dev/delivery: theirs}", [false, false, false], true),
        ("Service", marked, [false, false, false], false),
        ("Service", "", [true, false, false], false),
        ("Service", "", [false, true, false], false),
        ("HorizontalPodAutoscaler", "", [false, false, false], true),
        ("HorizontalPodAutoscaler", "", [true, true, true], false),
        ("HorizontalPodAutoscaler", "", [true, false, true], false),
        // Not ours before the new revision is promoted. What `windlass diff` takes for the last good one is what is there.
        ("HorizontalPodAutoscaler", "", [false, true, false], true),
        ("HorizontalPodAutoscaler", "", [true, true, false], true),
        // It left Git while nothing was pruned. An autoscaler that KEDA made carries the labels of what it was made for, too.
        ("HorizontalPodAutoscaler", marked, [false, false, true], true),
    ];
    for (kind, more, [stable, target, inventory], expected) in table {
        let yaml = of(kind, more);
        let with = |has: bool| {
            bundle(if has { &yaml } else { "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n" })
        };
        let object = objects(&yaml).remove(0);
        let entry = InventoryEntry::intent(&object, EntryOrigin::Created);
        let entries = if inventory { vec![entry] } else { Vec::new() };
        let is = is_others(&object, [&with(stable), &with(target)], &entries, "ours");
        assert_eq!(is, expected, "{kind} {more} {stable} {target} {inventory}");
    }
}
