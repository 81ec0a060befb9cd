//! When a request is sent again: what `traffic.retries.retryOn` names, and what routers make of it: those that have Envoy's own words
//! for it, and the `retry` of an HTTPRoute.
//!
//! Of what Envoy knows by a name, an HTTPRoute has status codes. Errors of a connection have no name there: whatever has a
//! `retry` is tried again after them.

use super::notice::cannot;
use super::{App, set};
use crate::api::application::{GatewayChannel, Retries};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Names of failures, and the codes that they are in an HTTPRoute. Of those from 500 on, only these have to be known to every
/// controller: a route that names others may be refused.
const CODES: [(&str, &[u64]); 3] =
    [("5xx", &[500, 502, 503, 504]), ("gateway-error", &[502, 503, 504]), ("retriable-4xx", &[409])];

/// Names of errors of a connection.
const CONNECTION: [&str; 5] =
    ["connect-failure", "http3-post-connect-failure", "refused-stream", "reset", "reset-before-request"];

/// Says that codes are named beside it.
const BY_CODE: &str = "retriable-status-codes";

/// The codes that an HTTPRoute takes.
const TAKEN: RangeInclusive<u64> = 400..=599;

/// What may be named in a `retryOn` of an HTTPProxy, and of a VirtualService; Envoy itself knows some more.
const ENVOY: [&str; 16] = [
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    "retriable-status-codes",
    "unavailable",
];

/// The codes that have a name, which a VirtualService takes: istiod holds one with any other to be invalid.
fn has_a_name(code: u64) -> bool {
    u16::try_from(code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .is_some_and(|code| code.canonical_reason().is_some())
}

/// What a `retryOn` names, with status codes apart: routers have a field of their own for these.
fn named(retries: &Retries) -> (Vec<&str>, Vec<u64>) {
    let words = retries.retry_on.as_deref().unwrap_or_default().split(',').map(str::trim);
    let (codes, words): (Vec<&str>, Vec<&str>) =
        words.filter(|word| !word.is_empty()).partition(|word| word.parse::<u64>().is_ok());
    (words, codes.iter().filter_map(|code| code.parse().ok()).collect())
}

/// A `retryOn` in Envoy's words.
pub(super) struct Named<'a> {
    pub(super) words: Vec<&'a str>,
    pub(super) codes: Vec<u64>,
    /// What there is no word for.
    unknown: Vec<String>,
}

impl<'a> Named<'a> {
    /// For a router that takes these codes.
    pub(super) fn of(asked: &'a Retries, takes: impl Fn(u64) -> bool) -> Self {
        let (named, codes) = named(asked);
        let (words, others): (Vec<&str>, Vec<&str>) =
            named.into_iter().partition(|word| ENVOY.contains(word));
        let (codes, none): (Vec<u64>, Vec<u64>) = codes.into_iter().partition(|code| takes(*code));
        let unknown = others.into_iter().map(str::to_owned).chain(none.iter().map(u64::to_string));
        Named { words, codes, unknown: unknown.collect() }
    }

    /// Whether failures are named, and none that it knows.
    pub(super) fn is_all_unknown(&self) -> bool {
        self.words.is_empty() && self.codes.is_empty() && !self.unknown.is_empty()
    }

    /// What this router cannot say of retries.
    pub(super) fn left_out(&self, asked: &Retries, router: &str) -> Option<String> {
        let each = asked.per_try_timeout.map(|_| "retries.perTryTimeout");
        if asked.attempts == 0 {
            return each
                .map(|field| cannot(&[field], "with one try it would be the limit of the whole request"));
        }
        if self.unknown.is_empty() {
            return None;
        }
        let why = format!(
            "{router} knows no {}; it knows {}, and status codes",
            self.unknown.join(", "),
            ENVOY.join(", ")
        );
        let mut fields = vec!["retries.retryOn"];
        if self.is_all_unknown() {
            fields.insert(0, "retries.attempts");
            fields.extend(each);
        }
        Some(cannot(&fields, &why))
    }
}

/// The `retries` of a VirtualService. istiod holds one to be invalid that has 0 attempts and says more, or names what it does not know.
pub(super) fn mesh_retries(asked: &Retries) -> Value {
    let named = Named::of(asked, has_a_name);
    // Without words Istio would take its own.
    if asked.attempts == 0 || named.is_all_unknown() {
        return json!({"attempts": 0});
    }
    let mut retries = json!({"attempts": asked.attempts});
    set(&mut retries, "perTryTimeout", asked.per_try_timeout.map(|time| time.to_string().into()));
    let words = named.words.into_iter().map(str::to_owned).chain(named.codes.iter().map(u64::to_string));
    let words: Vec<String> = words.collect();
    set(&mut retries, "retryOn", (!words.is_empty()).then(|| words.join(",").into()));
    retries
}

/// What a VirtualService cannot say of retries.
pub(super) fn left_out_of_the_mesh(asked: &Retries) -> Option<String> {
    Named::of(asked, has_a_name).left_out(asked, "Istio")
}

/// A `retryOn` in the words of an HTTPRoute.
struct Failures {
    codes: BTreeSet<u64>,
    /// Whether errors of a connection are meant: by their names, or because nothing is named.
    connection: bool,
    /// What it has no word for.
    unknown: Vec<String>,
}

impl Failures {
    fn of(retries: &Retries) -> Self {
        let (words, numbers) = named(retries);
        let mut found = Failures {
            codes: BTreeSet::new(),
            connection: words.is_empty() && numbers.is_empty(),
            unknown: Vec::new(),
        };
        for word in words {
            match CODES.iter().find(|(name, _)| *name == word) {
                Some((_, codes)) => found.codes.extend(*codes),
                None if CONNECTION.contains(&word) => found.connection = true,
                None if word == BY_CODE && !numbers.is_empty() => {}
                None => found.unknown.push(word.into()),
            }
        }
        for code in numbers {
            match TAKEN.contains(&code) {
                true => drop(found.codes.insert(code)),
                false => found.unknown.push(code.to_string()),
            }
        }
        found
    }

    /// Whether anything is left that a request would be sent again for.
    fn any(&self) -> bool {
        self.connection || !self.codes.is_empty()
    }
}

/// The retries that an HTTPRoute is to say: those of a Gateway whose HTTPRoute has the field.
fn by_route<'a>(app: &'a App) -> Option<&'a Retries> {
    let gateway = app.spec.expose.as_ref()?.gateway.as_ref()?;
    let retries = app.spec.traffic.as_ref()?.retries.as_ref()?;
    (gateway.channel == GatewayChannel::Experimental).then_some(retries)
}

/// The `retry` of an HTTPRoute's rule. Time limits, also that of each try, are another field of it.
pub(super) fn route_retry(app: &App) -> Option<Value> {
    let retries = by_route(app)?;
    let failures = Failures::of(retries);
    // It takes no 0: what is not to be tried again has none.
    if retries.attempts == 0 || !failures.any() {
        return None;
    }
    let mut retry = json!({"attempts": retries.attempts});
    set(&mut retry, "codes", (!failures.codes.is_empty()).then(|| json!(failures.codes)));
    Some(retry)
}

/// What an HTTPRoute that has the field cannot say of retries: fields of `traffic.retries`, and why.
pub(super) fn left_out(app: &App) -> Option<(Vec<&'static str>, String)> {
    let retries = by_route(app)?;
    // What has no retry has no limit for each try, either.
    let without = |mut fields: Vec<&'static str>| {
        fields.extend(retries.per_try_timeout.map(|_| "retries.perTryTimeout"));
        fields
    };
    if retries.attempts == 0 {
        let why = "an HTTPRoute cannot say 0, so it has no retry, and whether a request is sent again is up to the gateway's controller";
        return Some((without(vec!["retries.attempts"]), why.into()));
    }
    let failures = Failures::of(retries);
    if failures.unknown.is_empty() {
        return None;
    }
    let names: Vec<&str> = CODES.iter().map(|(name, _)| *name).chain(CONNECTION).collect();
    let (from, to) = (TAKEN.start(), TAKEN.end());
    let why = format!(
        "an HTTPRoute knows no {}; it knows {}, and codes from {from} to {to}",
        failures.unknown.join(", "),
        names.join(", ")
    );
    let fields = match failures.any() {
        true => vec!["retries.retryOn"],
        false => without(vec!["retries.attempts", "retries.retryOn"]),
    };
    Some((fields, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes, whether errors of a connection are meant, and what there is no word for.
    fn read(retry_on: Option<&str>) -> (Vec<u64>, bool, Vec<String>) {
        let retries = Retries { attempts: 1, per_try_timeout: None, retry_on: retry_on.map(str::to_owned) };
        let failures = Failures::of(&retries);
        (failures.codes.into_iter().collect(), failures.connection, failures.unknown)
    }

    #[test]
    fn names_of_failures_are_codes_of_a_route_or_its_connection_errors_or_unknown_to_it() {
        let cases: [(&str, &[u64], bool, &[&str]); 12] = [
            ("5xx", &[500, 502, 503, 504], false, &[]),
            ("gateway-error", &[502, 503, 504], false, &[]),
            ("retriable-4xx", &[409], false, &[]),
            // Once each, in order, whatever names them.
            ("503, gateway-error ,429,,429", &[429, 502, 503, 504], false, &[]),
            ("400,599", &[400, 599], false, &[]),
            ("200,399,600,503", &[503], false, &["200", "399", "600"]),
            ("connect-failure", &[], true, &[]),
            ("reset,reset-before-request,refused-stream,http3-post-connect-failure", &[], true, &[]),
            ("retriable-status-codes,418", &[418], false, &[]),
            ("retriable-status-codes", &[], false, &["retriable-status-codes"]),
            ("unavailable,5XX,connect-failure", &[], true, &["unavailable", "5XX"]),
            (" , ", &[], true, &[]),
        ];
        for (retry_on, codes, connection, unknown) in cases {
            let unknown: Vec<String> = unknown.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(read(Some(retry_on)), (codes.to_vec(), connection, unknown), "{retry_on}");
        }
        assert_eq!(read(None), (vec![], true, vec![]));
    }
}
