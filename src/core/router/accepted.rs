//! Whether a controller has taken what a route says now.

use super::why::Why;
use crate::api::delivery::Problem;
use crate::core::health;
use crate::core::manifest::ObjectId;
use serde_json::Value;

/// What a route's controller says about its current generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is taken. That is not yet in effect in every proxy.
    Accepted,
    /// No answer yet, or one about an older generation; why, as a sentence. A controller that never answers leaves it at
    /// this: the wait needs a limit.
    Waiting(String),
    /// It is refused, and more time does not mend that.
    Refused(Problem),
}

/// Reads the answer of whoever steers by this object. A Gateway API route is accepted when each parent that it names has
/// accepted this generation and found its backends. Istio answers only to say what is wrong, and what knows no
/// answer (a Service) is accepted by being there.
pub fn accepted(route: &Value) -> Acceptance {
    let id = ObjectId::of(route);
    let refused = |message: String| Acceptance::Refused(Why::Refused(message).problem(&id, None));
    match id.group.as_str() {
        super::gateway::GROUP => {
            let parents = route.pointer("/spec/parentRefs").and_then(Value::as_array).map_or(0, Vec::len);
            if parents == 0 {
                return refused("names no Gateway in spec.parentRefs, so no traffic follows it".into());
            }
            let verdict = health::verdict(route);
            match verdict.status {
                health::Status::Healthy => Acceptance::Accepted,
                health::Status::Degraded => refused(verdict.message),
                _ => Acceptance::Waiting(format!("{id} {}", verdict.message)),
            }
        }
        super::istio::GROUP => {
            let generation = |path: &str| match route.pointer(path) {
                // Istio writes it as text.
                Some(Value::String(text)) => text.parse().ok(),
                Some(number) => number.as_i64(),
                None => None,
            };
            let seen: Option<i64> = generation("/status/observedGeneration");
            if seen.is_some() && seen < generation("/metadata/generation") {
                return Acceptance::Accepted;
            }
            let errors: Vec<String> = route
                .pointer("/status/validationMessages")
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter()
                .filter(|said| said.get("level").and_then(Value::as_str) == Some("ERROR"))
                .map(about)
                .collect();
            if errors.is_empty() {
                Acceptance::Accepted
            } else {
                refused(format!("is refused by Istio: {}", errors.join("; ")))
            }
        }
        _ => Acceptance::Accepted,
    }
}

fn about(said: &Value) -> String {
    let text = |path: &str| said.pointer(path).and_then(Value::as_str).unwrap_or_default();
    match (text("/type/name"), text("/type/code"), text("/documentationUrl")) {
        (name, code, "") => format!("{name} {code}").trim().to_owned(),
        (name, code, url) => format!("{name} {code} ({url})").trim().to_owned(),
    }
}

/// `1 rule`, `3 rules`, `2 matches`.
pub(super) fn counted(count: usize, what: &str) -> String {
    match (count, what) {
        (1, what) => format!("1 {what}"),
        (count, what) if what.ends_with("ch") => format!("{count} {what}es"),
        (count, what) => format!("{count} {what}s"),
    }
}
