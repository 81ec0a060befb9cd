//! NetworkPolicies during a rollout: the candidate is isolated as the workload is, and is let in where the workload is.

use super::build::{Candidate, Of, Twin, copy};
use super::names::Names;
use super::selects::{Form, matches};
use super::{at, at_mut, is, items, items_mut};
use crate::api::rollout::Base;
use crate::core::manifest::Manifest;
use serde_json::{Value, json};

/// Fields of a policy with rules, and of a rule with peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// Whether an object is a NetworkPolicy.
pub(super) fn is_policy(object: &Manifest) -> bool {
    is(&object.id(), "networking.k8s.io", "NetworkPolicy")
}

/// The peers of a policy for a candidate: those that mean the workload's pods and not the candidate's, rewritten.
fn rewritten(peers: &Value, policy: &Manifest, twins: &[Twin]) -> Vec<Value> {
    let mut more = Vec::new();
    for peer in items(peers).filter(|peer| peer.get("podSelector").is_some()) {
        for twin in twins {
            // With a namespaceSelector it may mean the namespace; the rewritten peer has the same one, so it never means more.
            if policy.namespace() != twin.namespace() && peer.get("namespaceSelector").is_none() {
                continue;
            }
            let sees = |labels| matches(Form::Selector, &peer["podSelector"], labels);
            let mut one = peer.clone();
            if let Some(selector) = one.get_mut("podSelector") {
                twin.rewrite().only(Form::Selector, selector);
            }
            let ours = twin.ours.iter().any(|labels| sees(labels) == Some(true));
            if ours && sees(&twin.theirs) == Some(false) && one != *peer {
                more.push(one);
            }
        }
    }
    more
}

/// Adds the candidates to the peers of a policy that has the workloads among them.
pub(super) fn with_peers(policy: &mut Manifest, twins: &[Twin]) {
    let original = policy.clone();
    for (direction, side) in DIRECTIONS {
        for rule in items_mut(at_mut(policy, &["spec", direction])) {
            let more = rewritten(&rule[side], &original, twins);
            if let Some(Value::Array(peers)) = rule.get_mut(side) {
                peers.extend(more);
            }
        }
    }
}

/// Whether a policy has a workload's pods among its peers, and not its candidate's.
pub(super) fn lets_in(policy: &Manifest, twin: &Twin) -> bool {
    let one = std::slice::from_ref(twin);
    DIRECTIONS.into_iter().any(|(direction, side)| {
        items(at(policy, &["spec", direction])).any(|rule| !rewritten(&rule[side], policy, one).is_empty())
    })
}

/// Lets the candidate in where pods of others let the workload in, and out where theirs is the way in: policies add up, so each
/// that names the workload as a peer gets a second one beside it, with the candidate alone. It isolates nothing that
/// is not isolated already, since it stands beside one that is in force at this stage.
pub(super) fn peers(of: &Of, names: &mut Names, made: &mut Candidate) {
    let base = match of.layout.base {
        Base::Stable => of.stable,
        Base::Target => of.target,
    };
    for policy in base.objects().iter().filter(|object| is_policy(object)) {
        let mut rules = [Vec::new(), Vec::new()];
        for (out, (direction, side)) in rules.iter_mut().zip(DIRECTIONS) {
            for rule in items(at(policy, &["spec", direction])) {
                let more = rewritten(&rule[side], policy, &of.twins);
                if !more.is_empty() {
                    let mut rule = rule.clone();
                    rule[side] = Value::Array(more);
                    out.push(rule);
                }
            }
        }
        if rules.iter().all(Vec::is_empty) {
            continue;
        }
        let mut beside = copy(policy, &names.named(&policy.id(), "-peers"));
        if let Some(Value::Object(spec)) = at_mut(&mut beside, &["spec"]) {
            for ((direction, _), rules) in DIRECTIONS.into_iter().zip(rules) {
                spec.remove(direction);
                if !rules.is_empty() {
                    spec.insert(direction.into(), json!(rules));
                }
            }
        }
        made.objects.push(beside);
    }
}
