//! Gateway API: classes, gateways, routes, policies.
//!
//! A controller answers for each parent apart, and marks each condition with the generation that it is about.

use super::Verdict;
use super::live::{Condition, Live, counted};

/// A kind of the group `gateway.networking.k8s.io`.
pub(super) fn verdict(live: &Live<'_>, kind: &str) -> Verdict {
    match kind {
        "GatewayClass" => class(live),
        "Gateway" => gateway(live),
        kind if kind.ends_with("Route") => route(live),
        kind if kind.ends_with("Policy") => policy(live),
        "ReferenceGrant" => Verdict::healthy("a ReferenceGrant is healthy by being there"),
        kind => super::custom::verdict(live, "gateway.networking.k8s.io", kind),
    }
}

/// What one condition says about the current generation.
enum Answer<'a> {
    Yes,
    /// Refused for a reason that only a change mends.
    No(Condition<'a>),
    /// Not yet.
    Wait(Condition<'a>),
    /// Not a word, or only about an older generation.
    Silent,
}

fn answer<'a>(conditions: &[Condition<'a>], kind: &str, generation: i64) -> Answer<'a> {
    let Some(condition) = conditions.iter().find(|c| c.kind == kind) else { return Answer::Silent };
    if condition.observed_generation.is_some_and(|seen| seen < generation) {
        return Answer::Silent;
    }
    if condition.is_true() {
        return Answer::Yes;
    }
    // What another object may bring any moment: a backend, a certificate, an address, a controller with time.
    let passing = matches!(
        condition.reason,
        "Pending"
            | "BackendNotFound"
            | "InvalidCertificateRef"
            | "AddressNotAssigned"
            | "NoResources"
            | "NoReadyListeners"
    );
    if condition.is_false() && !passing { Answer::No(*condition) } else { Answer::Wait(*condition) }
}

fn class(live: &Live<'_>) -> Verdict {
    let controller = live.text("/spec/controllerName");
    let conditions: Vec<_> = live.conditions().collect();
    match answer(&conditions, "Accepted", live.generation()) {
        Answer::Yes => Verdict::healthy(format!("is accepted by {controller}")),
        Answer::No(why) => Verdict::degraded(format!("is not accepted by {controller}: {}", why.why())),
        Answer::Wait(_) | Answer::Silent => {
            Verdict::progressing(format!("waits for the controller {controller} to accept it"))
        }
    }
}

fn gateway(live: &Live<'_>) -> Verdict {
    let generation = live.generation();
    let class = live.text("/spec/gatewayClassName");
    let conditions: Vec<_> = live.conditions().collect();
    match answer(&conditions, "Accepted", generation) {
        Answer::No(why) => {
            return Verdict::degraded(format!("is not accepted by class {class}: {}", why.why()));
        }
        Answer::Wait(_) | Answer::Silent => {
            return Verdict::progressing(format!("waits for the controller of class {class} to accept it"));
        }
        Answer::Yes => {}
    }
    let mut waiting = None;
    for listener in live.items("/status/listeners") {
        let name = listener.text("/name");
        let conditions: Vec<_> = listener.conditions_at("/conditions").collect();
        if let Some(conflict) = conditions.iter().find(|c| c.kind == "Conflicted" && c.is_true()) {
            return Verdict::degraded(format!("listener {name} conflicts with another: {}", conflict.why()));
        }
        for kind in ["Accepted", "ResolvedRefs", "Programmed"] {
            match answer(&conditions, kind, generation) {
                Answer::No(why) => {
                    return Verdict::degraded(format!("listener {name} is not {kind}: {}", why.why()));
                }
                Answer::Wait(why) => {
                    waiting
                        .get_or_insert_with(|| format!("listener {name} is not {kind} yet: {}", why.why()));
                }
                Answer::Yes | Answer::Silent => {}
            }
        }
    }
    match answer(&conditions, "Programmed", generation) {
        Answer::No(why) => Verdict::degraded(format!("is not programmed: {}", why.why())),
        Answer::Wait(why) => {
            Verdict::progressing(waiting.unwrap_or_else(|| format!("is not programmed yet: {}", why.why())))
        }
        Answer::Silent => {
            Verdict::progressing(waiting.unwrap_or_else(|| "waits to be programmed".to_owned()))
        }
        Answer::Yes => match waiting {
            Some(waiting) => Verdict::progressing(waiting),
            None => {
                let addresses: Vec<_> = live.items("/status/addresses").map(|a| a.text("/value")).collect();
                Verdict::healthy(match addresses.as_slice() {
                    [] => "is programmed".to_owned(),
                    addresses => format!("is programmed at {}", addresses.join(", ")),
                })
            }
        },
    }
}

/// Whether an entry of a status is about a parent of the specification. What is left out there is filled in
/// by defaults.
fn is_same_parent(wanted: &Live<'_>, entry: &Live<'_>, namespace: &str) -> bool {
    let or =
        |text: &'static str, found: &str| if found.is_empty() { text.to_owned() } else { found.to_owned() };
    let home = |live: &Live<'_>| match live.text("/namespace") {
        "" => namespace.to_owned(),
        other => other.to_owned(),
    };
    wanted.text("/name") == entry.text("/name")
        && home(wanted) == home(entry)
        && or("Gateway", wanted.text("/kind")) == or("Gateway", entry.text("/kind"))
        && wanted.text("/sectionName") == entry.text("/sectionName")
        && wanted.int("/port") == entry.int("/port")
}

fn parent_name(parent: &Live<'_>) -> String {
    let kind = match parent.text("/kind") {
        "" => "Gateway",
        kind => kind,
    };
    match (parent.text("/namespace"), parent.text("/sectionName")) {
        ("", "") => format!("{kind} {}", parent.text("/name")),
        ("", section) => format!("{kind} {} ({section})", parent.text("/name")),
        (namespace, "") => format!("{kind} {namespace}/{}", parent.text("/name")),
        (namespace, section) => format!("{kind} {namespace}/{} ({section})", parent.text("/name")),
    }
}

/// A route is healthy when every parent that it names has accepted its current generation and found its
/// backends.
fn route(live: &Live<'_>) -> Verdict {
    let generation = live.generation();
    let namespace = live.text("/metadata/namespace");
    let wanted: Vec<_> = live.items("/spec/parentRefs").collect();
    let entries: Vec<_> = live.items("/status/parents").collect();
    if wanted.is_empty() {
        return Verdict::healthy("names no parent, so no traffic reaches it");
    }
    let mut waiting: Option<String> = None;
    let mut accepted = 0;
    for parent in &wanted {
        let name = parent_name(parent);
        let mut answers = entries
            .iter()
            .filter(|entry| {
                is_same_parent(
                    parent,
                    &Live::new(entry.get("/parentRef").unwrap_or(&serde_json::Value::Null)),
                    namespace,
                )
            })
            .map(|entry| entry.conditions_at("/conditions").collect::<Vec<_>>())
            .collect::<Vec<_>>();
        // Several controllers may answer for one parent; one that takes the route is enough.
        answers.sort_by_key(|conditions| !matches!(answer(conditions, "Accepted", generation), Answer::Yes));
        let Some(conditions) = answers.first() else {
            waiting.get_or_insert_with(|| format!("waits for an answer of {name}"));
            continue;
        };
        match answer(conditions, "Accepted", generation) {
            Answer::No(why) => return Verdict::degraded(format!("is not accepted by {name}: {}", why.why())),
            Answer::Wait(why) => {
                waiting.get_or_insert_with(|| format!("waits to be accepted by {name}: {}", why.why()));
                continue;
            }
            Answer::Silent => {
                waiting.get_or_insert_with(|| format!("waits for {name} to look at generation {generation}"));
                continue;
            }
            Answer::Yes => {}
        }
        match answer(conditions, "ResolvedRefs", generation) {
            Answer::No(why) => {
                return Verdict::degraded(format!("{name} cannot use what it refers to: {}", why.why()));
            }
            Answer::Wait(why) => {
                waiting.get_or_insert_with(|| format!("{name} waits for what it refers to: {}", why.why()));
                continue;
            }
            // Older controllers leave the condition out when all is well.
            Answer::Yes | Answer::Silent => {}
        }
        accepted += 1;
    }
    match waiting {
        Some(waiting) => Verdict::progressing(format!(
            "accepted by {accepted} of {}: {waiting}",
            counted(wanted.len().try_into().unwrap_or(i64::MAX), "parent")
        )),
        None => Verdict::healthy(format!(
            "accepted by {}",
            wanted.iter().map(parent_name).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// A policy is answered for by each ancestor that it reaches.
fn policy(live: &Live<'_>) -> Verdict {
    let generation = live.generation();
    let ancestors: Vec<_> = live.items("/status/ancestors").collect();
    for ancestor in &ancestors {
        let conditions: Vec<_> = ancestor.conditions_at("/conditions").collect();
        for kind in ["Accepted", "ResolvedRefs"] {
            match answer(&conditions, kind, generation) {
                Answer::No(why) => return Verdict::degraded(format!("is not {kind}: {}", why.why())),
                Answer::Wait(why) => {
                    return Verdict::progressing(format!("is not {kind} yet: {}", why.why()));
                }
                Answer::Yes | Answer::Silent => {}
            }
        }
    }
    if ancestors.is_empty() {
        return Verdict::progressing("waits for a controller to answer");
    }
    Verdict::healthy(format!(
        "accepted by {}",
        counted(ancestors.len().try_into().unwrap_or(i64::MAX), "ancestor")
    ))
}
