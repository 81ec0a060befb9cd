//! `windlass endpoints`: who serves, by variant, and by which policy.

use super::table::{head, lines, tame};
use super::{BAD, FAINT, GOOD, STRONG, UNSURE, paint};
use crate::core::serving::{Endpoint, Policy, Serving, Variant};
use std::collections::BTreeMap;

fn variant(variant: Variant) -> &'static str {
    match variant {
        Variant::Stable => "stable",
        Variant::Candidate => "candidate",
    }
}

/// Whether it takes requests, in words.
fn state(endpoint: &Endpoint) -> String {
    match (endpoint.ready, endpoint.terminating, endpoint.serving) {
        (true, false, _) => paint(GOOD, "ready"),
        (_, true, true) => paint(UNSURE, "terminating, serves still"),
        (_, true, false) => paint(UNSURE, "terminating"),
        (false, false, _) => paint(BAD, "not ready"),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { tame(text) }
}

fn said(says: &BTreeMap<&'static str, String>) -> String {
    let each: Vec<String> = says.iter().map(|(name, value)| format!("{name} {}", tame(value))).collect();
    each.join(", ")
}

/// Who serves, as a table, and the policy below it.
pub fn text(serving: &Serving, wide: bool) -> String {
    let mut out = Vec::new();
    let mut rows = vec![head(match wide {
        true => &["VARIANT", "SERVICE", "POD", "NODE", "ZONE", "ADDRESS", "STATE"],
        false => &["VARIANT", "SERVICE", "POD", "NODE", "ADDRESS", "STATE"],
    })];
    for endpoint in &serving.endpoints {
        let mut row =
            vec![variant(endpoint.variant).to_owned(), tame(&endpoint.service), or_dash(&endpoint.pod)];
        row.push(or_dash(&endpoint.node));
        if wide {
            row.push(or_dash(&endpoint.zone));
        }
        row.extend([tame(&endpoint.addresses.join(",")), state(endpoint)]);
        rows.push(row);
    }
    match serving.endpoints.is_empty() {
        true => out.push("no endpoints".to_owned()),
        false => out.extend(lines(&rows)),
    }
    out.extend(
        serving.idle.iter().map(|name| paint(BAD, &format!("Service {} has none that is ready", tame(name)))),
    );
    for policy in &serving.policies {
        out.push(String::new());
        out.extend(of_policy(policy));
    }
    if !serving.not_in_force.is_empty() {
        out.push(String::new());
        out.extend(
            serving.not_in_force.iter().map(|why| paint(UNSURE, &format!("not in force: {}", tame(why)))),
        );
    }
    out.extend(serving.unseen.iter().map(|why| paint(UNSURE, &format!("not shown: {}", tame(why)))));
    out.join("\n") + "\n"
}

fn of_policy(policy: &Policy) -> Vec<String> {
    let hosts = match policy.hosts.is_empty() {
        true => String::new(),
        false => format!("  {}", paint(FAINT, &tame(&policy.hosts.join(", ")))),
    };
    let mut out = vec![format!("{}{hosts}", paint(STRONG, &tame(&policy.object)))];
    if !policy.says.is_empty() {
        out.push(format!("  {}", said(&policy.says)));
    }
    for rule in &policy.rules {
        let backends: Vec<String> = rule
            .backends
            .iter()
            .map(|b| format!("{} {}% ({})", tame(&b.name), b.percent, variant(b.variant)))
            .collect();
        let matches = if rule.matches.is_empty() { "all requests" } else { &tame(&rule.matches) };
        out.push(format!("  {matches} -> {}", backends.join(", ")));
        if !rule.says.is_empty() {
            out.push(format!("    {}", said(&rule.says)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::serving::{Backend, Rule};

    #[test]
    fn who_serves_reads_as_a_table_with_the_policy_below() {
        let endpoint = |of, pod: &str, states: [bool; 3]| Endpoint {
            variant: of,
            service: "web".into(),
            pod: pod.into(),
            node: "node-1".into(),
            zone: String::new(),
            addresses: vec!["10.0.0.1:8080".into()],
            ready: states[0],
            serving: states[1],
            terminating: states[2],
        };
        let backend =
            |name: &str, of, percent| Backend { name: name.into(), variant: of, weight: 1, percent };
        let says = |name, value: &str| BTreeMap::from([(name, value.to_owned())]);
        let serving = Serving {
            kind: "Application".into(),
            namespace: "shop".into(),
            name: "web".into(),
            endpoints: vec![
                endpoint(Variant::Stable, "web-1-a", [true, true, false]),
                endpoint(Variant::Stable, "web-1-b", [false, true, true]),
                endpoint(Variant::Candidate, "", [false, false, false]),
            ],
            idle: vec!["web-canary".into()],
            policies: vec![
                Policy {
                    object: "HTTPRoute shop/web".into(),
                    hosts: vec!["a.test".into()],
                    says: BTreeMap::new(),
                    rules: vec![Rule {
                        matches: "/".into(),
                        backends: vec![
                            backend("web:80", Variant::Stable, 99.5),
                            backend("web-canary:80", Variant::Candidate, 0.5),
                        ],
                        says: says("timeout", "10s"),
                    }],
                },
                Policy {
                    object: "Service shop/web".into(),
                    hosts: Vec::new(),
                    says: says("maxConnections", "9"),
                    rules: Vec::new(),
                },
            ],
            not_in_force: vec!["spec.traffic.mtls".into()],
            unseen: vec!["Pod in namespace shop: Ada may not list pods".into()],
        };
        let plain = anstream::adapter::strip_str(&text(&serving, false)).to_string();
        insta::assert_snapshot!(plain, @r"
        VARIANT     SERVICE   POD       NODE     ADDRESS         STATE
        stable      web       web-1-a   node-1   10.0.0.1:8080   ready
        stable      web       web-1-b   node-1   10.0.0.1:8080   terminating, serves still
        candidate   web       -         node-1   10.0.0.1:8080   not ready
        Service web-canary has none that is ready

        HTTPRoute shop/web  a.test
          / -> web:80 99.5% (stable), web-canary:80 0.5% (candidate)
            timeout 10s

        Service shop/web
          maxConnections 9

        not in force: spec.traffic.mtls
        not shown: Pod in namespace shop: Ada may not list pods
        ");
    }
}
