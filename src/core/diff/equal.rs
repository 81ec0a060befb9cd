//! Whether two values are one to the API server, which writes some in a spelling of its own.

use super::{KindOf, defaults, quantity};
use crate::core::fields::{Segment, same_scalar};
use serde_json::Value;

/// Whether two values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Same {
    /// They are.
    Yes,
    /// They may be: only the API server can tell.
    Perhaps,
    /// They are not.
    No,
}

/// Compares values that count as one: scalars, and lists and maps that have no items or fields of their own.
pub(super) fn same(of: KindOf, at: &mut Vec<Segment>, desired: &Value, live: &Value) -> Same {
    match (desired, live) {
        // "No value of ours": nothing, or the default.
        (Value::Null, Value::Null) => Same::Yes,
        (Value::Null, found) if of.is_built_in() && defaults::is_default(of, at, found) => Same::Yes,
        (Value::Null, _) => Same::Perhaps,
        (Value::Object(wanted), Value::Object(found)) => {
            let mut verdict = Same::Yes;
            for (name, value) in wanted {
                at.push(Segment::field(name.as_str()));
                let one = match found.get(name) {
                    Some(other) => same(of, at, value, other),
                    None if value.is_null() => Same::Yes,
                    // No built-in type writes an empty list; an empty map or text may be a choice.
                    None if of.is_built_in() && value.as_array().is_some_and(Vec::is_empty) => Same::Yes,
                    None if is_zero(value) => Same::Perhaps,
                    None => Same::No,
                };
                at.pop();
                verdict = verdict.max(one);
                if verdict == Same::No {
                    return verdict;
                }
            }
            for (name, value) in found.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                at.push(Segment::field(name.as_str()));
                if !value.is_null() && !defaults::is_default(of, at, value) {
                    verdict = verdict.max(Same::Perhaps);
                }
                at.pop();
            }
            verdict
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            wanted.iter().zip(found).map(|(a, b)| same(of, at, a, b)).max().unwrap_or(Same::Yes)
        }
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => Same::No,
        // Empty is none to some fields of built-in types, which then have their default.
        _ if of.is_built_in()
            && defaults::is_unset(at, desired)
            && defaults::is_default(of, at, live)
            && desired != live =>
        {
            Same::Perhaps
        }
        _ => same_text(of, at, desired, live),
    }
}

/// Whether a value is what the API server's own types leave out when they write it.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn same_text(of: KindOf, at: &[Segment], desired: &Value, live: &Value) -> Same {
    if same_scalar(desired, live) {
        return Same::Yes;
    }
    let equal_amounts = || {
        let wanted = quantity::parse(desired);
        wanted.is_some() && wanted == quantity::parse(live)
    };
    if is_quantity(at) && equal_amounts() {
        return if of.is_built_in() { Same::Yes } else { Same::Perhaps };
    }
    if let (Value::String(wanted), Value::String(found)) = (desired, live) {
        let folded = |text: &str| text.replace(['\r', '\n'], "");
        if is_base64(of, at) && folded(wanted) == folded(found) {
            return Same::Yes;
        }
        if durations_equal(wanted, found) || times_equal(wanted, found) || folded(wanted) == folded(found) {
            return Same::Perhaps;
        }
    }
    if equal_amounts() { Same::Perhaps } else { Same::No }
}

/// Whether a path holds a quantity in the built-in kinds (and in the pod templates of others).
fn is_quantity(at: &[Segment]) -> bool {
    let mut names = at.iter().rev().filter_map(|step| match step {
        Segment::Field(name) => Some(name.as_str()),
        _ => None,
    });
    let (Some(last), parent) = (names.next(), names.next().unwrap_or_default()) else { return false };
    matches!(
        parent,
        "limits"
            | "requests"
            | "capacity"
            | "hard"
            | "overhead"
            | "podFixed"
            | "min"
            | "max"
            | "default"
            | "defaultRequest"
            | "maxLimitRequestRatio"
            | "allocatable"
    ) || matches!(last, "sizeLimit" | "averageValue" | "divisor" | "maximumVolumeSize")
        || (last == "value" && matches!(parent, "target" | "sampleUsage"))
}

/// Whether a path holds bytes, which the API server reads with line breaks and writes without.
fn is_base64(of: KindOf, at: &[Segment]) -> bool {
    match at {
        [Segment::Field(top), Segment::Field(_)] => {
            (of.is_secret() && top == "data") || (of.kind == "ConfigMap" && top == "binaryData")
        }
        [.., Segment::Field(last)] => last == "caBundle" && of.is_built_in(),
        _ => false,
    }
}

/// `60s` and `1m0s`: the API server writes durations as Go does.
fn durations_equal(a: &str, b: &str) -> bool {
    let nanos = go_duration(a);
    nanos.is_some() && nanos == go_duration(b)
}

fn go_duration(text: &str) -> Option<i128> {
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        // Fractions of a nanosecond do not matter here: an equality taken for doubtful is settled by the API server.
        #[allow(clippy::cast_possible_truncation)]
        let part = (number.parse::<f64>().ok()? * scale).round() as i128;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn times_equal(a: &str, b: &str) -> bool {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    time(a).is_some_and(|a| Some(a) == time(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(api: &str, kind: &str, path: &[&str], desired: Value, live: Value) -> Same {
        let object = json!({"apiVersion": api, "kind": kind});
        let mut at = path.iter().map(|p| Segment::field(*p)).collect();
        same(KindOf::new(&object), &mut at, &desired, &live)
    }

    #[test]
    fn spellings() {
        let limits = ["spec", "containers", "resources", "limits", "cpu"];
        let table = [
            ("v1", "Pod", &limits[..], json!("1000m"), json!("1"), Same::Yes),
            ("v1", "Pod", &limits[..], json!(0.5), json!("500m"), Same::Yes),
            ("v1", "Pod", &limits[..], json!("1"), json!("2"), Same::No),
            ("example.com/v1", "Thing", &limits[..], json!("1000m"), json!("1"), Same::Perhaps),
            ("v1", "ConfigMap", &["data", "k"], json!("1000m"), json!("1"), Same::Perhaps),
            ("v1", "ConfigMap", &["data", "k"], json!("a"), json!("b"), Same::No),
            ("v1", "Secret", &["data", "k"], json!("YWJj\nZGVm\n"), json!("YWJjZGVm"), Same::Yes),
            ("v1", "Service", &["spec", "ports", "targetPort"], json!("80"), json!(80), Same::Perhaps),
            ("example.com/v1", "Thing", &["spec", "every"], json!("60s"), json!("1m0s"), Same::Perhaps),
            (
                "v1",
                "Thing",
                &["spec", "at"],
                json!("2026-01-01T01:00:00+01:00"),
                json!("2026-01-01T00:00:00Z"),
                Same::Perhaps,
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                &["spec", "ingress"],
                json!([{"ports": [{"port": 80}]}]),
                json!([{"ports": [{"port": 80, "protocol": "TCP"}]}]),
                Same::Yes,
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                &["spec", "ingress"],
                json!([{"ports": [{"port": 80}]}]),
                json!([{"ports": [{"port": 80, "protocol": "UDP"}]}]),
                Same::Perhaps,
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                &["spec", "ingress"],
                json!([{"from": []}]),
                json!([{}]),
                Same::Yes,
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                &["spec", "ingress"],
                json!([{"from": [{"podSelector": {}}]}]),
                json!([{"from": [{}]}]),
                Same::Perhaps,
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                &["spec", "ingress"],
                json!([{"ports": [{"port": 80, "protocol": null}]}]),
                json!([{"ports": [{"port": 80, "protocol": "TCP"}]}]),
                Same::Yes,
            ),
            (
                "networking.k8s.io/v1",
                "NetworkPolicy",
                &["spec", "ingress"],
                json!([{"ports": [{"port": 80, "protocol": ""}]}]),
                json!([{"ports": [{"port": 80, "protocol": "TCP"}]}]),
                Same::Perhaps,
            ),
            ("v1", "Pod", &["spec", "containers", "args"], json!(["a", "b"]), json!(["b", "a"]), Same::No),
        ];
        for (api, kind, path, desired, live, expected) in table {
            assert_eq!(
                verdict(api, kind, path, desired.clone(), live.clone()),
                expected,
                "{kind} {path:?} {desired} {live}"
            );
        }
    }
}
