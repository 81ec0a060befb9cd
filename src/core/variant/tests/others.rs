//! What stands beside the directory, and means the workload otherwise than its candidate.

use super::*;
use crate::core::variant::minded;

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
