//! What must hold of rollouts.

use super::super::gate::Call;
use super::super::model::{Cluster, backends};
use super::super::oracle::{Promise, Violation, violated};
use super::super::things::{Key, Kind, SPACE};
use super::super::world::Life;
use super::is_candidate;
use serde_json::Value;
use std::collections::BTreeSet;

/// What was seen of rollouts.
#[derive(Default)]
pub struct Rollouts {
    /// Objects that people have touched: what becomes of traffic through them is theirs.
    touched: BTreeSet<Key>,
    /// Services that traffic could reach.
    served: BTreeSet<String>,
}

/// The largest share of a rule's requests, in percent, that goes to a candidate.
fn share(rules: &Value) -> u64 {
    let of_rule = |rule: &Value| {
        let one = Value::Array(vec![rule.clone()]);
        let (mut all, mut candidate) = (0, 0);
        for (name, weight) in backends(&one) {
            all += weight;
            candidate += if is_candidate(name) { weight } else { 0 };
        }
        (100 * candidate).checked_div(all).unwrap_or(0)
    };
    rules.as_array().into_iter().flatten().map(of_rule).max().unwrap_or(0)
}

/// The share that a rollout's step allows, by the status of its Delivery.
fn allowed(status: &Value) -> u64 {
    let rollout = &status["attempt"]["rollout"];
    match rollout["stage"].as_str() {
        None | Some("Returning") => 0,
        Some(_) => rollout["layout"]["weight"].as_u64().unwrap_or(0),
    }
}

/// Whether traffic is being taken back from a candidate: a newer revision waits for that.
pub fn is_leaving(status: &Value) -> bool {
    let attempt = &status["attempt"];
    attempt["goal"] == "Rollback" && !attempt["rollout"].is_null()
}

/// Whether a rollout goes on only when a person says so.
pub fn waits_for_people(status: &Value) -> bool {
    let paused = status["attempt"]["rollout"]["paused"]["reason"].as_str();
    matches!(paused, Some("PausedByHand" | "AwaitsPromotion" | "StableUnhealthy"))
}

impl Rollouts {
    /// A person did something with an object.
    pub fn person_touched(&mut self, key: &Key) {
        self.touched.insert(key.clone());
    }

    /// A daemon wrote something.
    pub fn written(
        &mut self,
        life: &Life,
        call: &Call,
        status: Option<&Value>,
        after: Option<&Value>,
    ) -> Option<Violation> {
        let after = after?;
        let key = Key::of(after)?;
        if !life.is_alive() {
            // What a daemon that died had sent. The next one looks at it.
            self.touched.insert(key);
            return None;
        }
        if key.0 == Kind::Route && call.method != "DELETE" {
            let (share, allowed) = (share(&after["spec"]["rules"]), status.map_or(0, allowed));
            if share > allowed {
                let what =
                    format!("{life} gives the candidate {share}% in {key}, and {allowed}% is its step's");
                return violated(Promise::CandidateShare, what);
            }
        }
        None
    }

    /// What must hold at every moment: requests arrive somewhere.
    pub fn moment(&mut self, cluster: &Cluster) -> Option<Violation> {
        for route in cluster.of_kind("HTTPRoute") {
            let Some(key) = Key::of(route) else { continue };
            let tables =
                [("", Some(&route["spec"]["rules"])), (" as it is in effect", cluster.programmed(route))];
            for (how, rules) in tables {
                for (name, _) in rules.into_iter().flat_map(backends) {
                    let ends = serves(cluster, name);
                    if ends.is_none() {
                        self.served.insert(name.to_owned());
                    }
                    let theirs =
                        [(Kind::Route, key.1.as_str()), (Kind::Service, name), (Kind::Deployment, name)]
                            .into_iter()
                            .any(|(kind, name)| self.touched.contains(&Key(kind, name.to_owned())));
                    if let Some(why) = ends.filter(|_| !theirs && self.served.contains(name)) {
                        let what = format!("{key}{how} sends traffic to {name}: {why}");
                        return violated(Promise::RouteToNothing, what);
                    }
                }
            }
        }
        None
    }
}

/// Why requests to a Service arrive nowhere; `None` if they do, once pods are ready.
fn serves(cluster: &Cluster, name: &str) -> Option<&'static str> {
    let Some(service) = cluster.get("Service", SPACE, name) else { return Some("there is no such Service") };
    let selector = service["spec"]["selector"].as_object();
    let fits = |workload: &Value| {
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        selector.is_some_and(|s| s.iter().all(|(key, value)| labels.get(key) == Some(value)))
    };
    let mut workloads = cluster.of_kind("Deployment").filter(|w| w["metadata"]["namespace"] == SPACE);
    match workloads.any(fits) {
        true => None,
        false => Some("it selects the pods of no workload"),
    }
}
