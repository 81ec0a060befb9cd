//! ReferenceGrants: whether a route may send traffic to a candidate in another namespace.

use super::why::Why;
use super::{Split, gateway};
use crate::api::delivery::Problem;
use crate::core::manifest::{Manifest, ObjectId};
use serde_json::Value;

/// The group and kind of ReferenceGrants.
pub const GRANTS: (&str, &str) = (gateway::GROUP, "ReferenceGrant");

/// A permission that a route needs in another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The route.
    pub route: ObjectId,
    /// The namespace in which a ReferenceGrant is looked for.
    pub namespace: String,
    /// The candidate's Service.
    pub service: String,
    stable: String,
}

/// What a Gateway API route needs before a split may have it send traffic to candidates in other namespaces. Nothing for
/// candidates in its own, and nothing for a kind of route that knows no grants.
pub fn grants_needed(route: &Manifest, split: &Split) -> Vec<Grant> {
    let id = route.id();
    if id.group != gateway::GROUP {
        return Vec::new();
    }
    gateway::abroad(&route.to_value(), split)
        .into_iter()
        .map(|service| Grant {
            route: id.clone(),
            namespace: service.namespace.clone(),
            service: service.candidate.clone(),
            stable: service.stable.clone(),
        })
        .collect()
}

/// Checks that each is covered by one of these ReferenceGrants, of whichever namespaces.
pub fn grants_checked(needed: &[Grant], grants: &[Value]) -> Result<(), Problem> {
    for need in needed {
        if grants.iter().any(|grant| covers(grant, need, &need.service)) {
            continue;
        }
        let for_stable = grants.iter().find(|grant| covers(grant, need, &need.stable));
        let name = |grant: &Value| grant.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        let advice = match for_stable.and_then(name) {
            Some(name) => format!(
                "ReferenceGrant {}/{name} covers Service {} alone; add {{group: \"\", kind: Service, name: {}}} to its spec.to, or leave the name out there",
                need.namespace, need.stable, need.service
            ),
            None => format!(
                "Add one with from {{group: {}, kind: {}, namespace: {}}} and to {{group: \"\", kind: Service}}",
                need.route.group, need.route.kind, need.route.namespace
            ),
        };
        let why = Why::Grant {
            from: need.route.namespace.clone(),
            service: need.service.clone(),
            to: need.namespace.clone(),
            advice,
        };
        return Err(why.problem(&need.route, None));
    }
    Ok(())
}

fn covers(grant: &Value, need: &Grant, service: &str) -> bool {
    let text = |value: &Value, path: &str| {
        value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let items = |path: &str| grant.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    text(grant, "/metadata/namespace") == need.namespace
        && items("/spec/from").iter().any(|from| {
            text(from, "/group") == need.route.group
                && text(from, "/kind") == need.route.kind
                && text(from, "/namespace") == need.route.namespace
        })
        && items("/spec/to").iter().any(|to| {
            let name = text(to, "/name");
            text(to, "/group").is_empty()
                && text(to, "/kind") == "Service"
                && (name.is_empty() || name == service)
        })
}
