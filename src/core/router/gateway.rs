//! HTTPRoute and GRPCRoute of the Gateway API, v1 and the versions before it, which are alike in what is read here.
//!
//! Marked requests get rules of their own at the end of the list. The API takes the most specific match, not the first
//! one: with one header more than the rule that they are made of they win over it from anywhere, at the end they lose ties to
//! everybody else's, and the numbers of the other rules, which proxies use as names, stay.

use super::entries::{self, Dialect, Side};
use super::mark::{Combined, Mark};
use super::why::{Why, rule as numbered};
use super::{Changed, InRule, Split, VariantService};
use serde_json::{Map, Value, json};

/// The API group of the routes.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";

// What the CRDs allow.
const RULES: usize = 16;
const MATCHES: usize = 64;
const ALL_MATCHES: usize = 128;
const BACKENDS: usize = 16;
const FILTERS: usize = 16;
const HEADERS: usize = 16;

/// How a route in a namespace writes its backends.
pub(super) struct Backends<'a> {
    /// The route's namespace, meant where a backend names none.
    pub namespace: &'a str,
}

impl Dialect for Backends<'_> {
    const LIMIT: u64 = 1_000_000;

    fn side(&self, entry: &Value, services: &[VariantService]) -> Side {
        if !is_service(entry) {
            return Side::Other;
        }
        let name = text(entry, "name");
        let namespace = namespace_of(entry, self.namespace);
        let here = |service: &&VariantService| service.namespace == namespace;
        let at = |is: &dyn Fn(&VariantService) -> bool| services.iter().position(|s| here(&s) && is(s));
        match (at(&|s| s.stable == name), at(&|s| s.candidate == name)) {
            (Some(at), _) => Side::Stable(at),
            (None, Some(at)) => Side::Candidate(at),
            (None, None) => Side::Other,
        }
    }

    fn rename(&self, entry: &mut Value, name: &str) {
        entry["name"] = name.into();
    }

    fn weights(&self, entries: &[Value]) -> Vec<u64> {
        // Left out: 1.
        entries.iter().map(|entry| entry.get("weight").and_then(Value::as_u64).unwrap_or(1)).collect()
    }

    fn key(&self, entry: &Value) -> String {
        let kind = if is_service(entry) { "" } else { text(entry, "kind") };
        let port = entry.get("port").and_then(Value::as_u64).unwrap_or_default();
        format!("{kind}/{}/{}:{port}", namespace_of(entry, self.namespace), text(entry, "name"))
    }
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn namespace_of<'a>(entry: &'a Value, home: &'a str) -> &'a str {
    match text(entry, "namespace") {
        "" => home,
        other => other,
    }
}

fn is_service(entry: &Value) -> bool {
    text(entry, "group").is_empty() && matches!(text(entry, "kind"), "" | "Service")
}

/// A list within a rule; empty when it has none.
fn list<'a>(rule: &'a Value, field: &str) -> &'a [Value] {
    rule.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn list_mut<'a>(rule: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    rule.get_mut(field).and_then(Value::as_array_mut)
}

/// Writes a split into a route that is as its owner wrote it.
pub(super) fn transform(route: &mut Value, split: &Split) -> Result<Changed, Why> {
    if split.cookie.is_some() {
        return Err(Why::Cookie);
    }
    let namespace =
        route.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    let dialect = Backends { namespace: &namespace };
    let http = text(route, "kind") != "GRPCRoute";
    let marks = Mark::of(split);
    let mut none = Vec::new();
    let rules = route.pointer_mut("/spec/rules").and_then(Value::as_array_mut).unwrap_or(&mut none);
    let mut changed = Changed::default();
    let mut divided = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        let (heavy, stable, candidate) = entries::names(list(rule, "backendRefs"), &dialect, &split.services);
        if stable && candidate {
            return Err(twice(rule, at, &dialect, split));
        }
        changed.theirs |= candidate;
        divided.push(heavy);
    }
    if !divided.contains(&true) {
        return Err(Why::Unrelated { services: split.stables(), found: found(rules, &dialect, &namespace) });
    }
    let mut added = Vec::new();
    for at in (0..rules.len()).filter(|&at| divided[at]) {
        for mark in &marks {
            not_overtaking(rules, &divided, at, mark, http)?;
            added.extend(marked(&rules[at], at, mark, http, &dialect, split)?);
        }
        let rule = &mut rules[at];
        let matches = list(rule, "matches").to_vec();
        if let Some(percent) = split.mirror.filter(|percent| *percent > 0) {
            mirror(rule, at, percent, &dialect, split)?;
        }
        let Some(refs) = list_mut(rule, "backendRefs") else { continue };
        let written = entries::divide(refs, &dialect, &split.services, split.weight).map_err(|_| {
            Why::Weights { rule: numbered("rules", at), percent: split.weight, limit: Backends::LIMIT }
        })?;
        few(&numbered("rules", at), "backend", refs.len(), BACKENDS)?;
        changed.written.extend(written.map(|written| InRule::new("rules", at, &matches, written)));
    }
    if !added.is_empty() {
        rules.extend(added);
        few("all", "rule", rules.len(), RULES)?;
        let all = rules.iter().map(|rule| list(rule, "matches").len().max(usize::from(http))).sum();
        few("all rules", "match", all, ALL_MATCHES)?;
    }
    Ok(changed)
}

/// Takes what a split wrote out of a route again.
pub(super) fn restore(route: &mut Value, services: &[VariantService], marks: &[Mark], record: &Changed) {
    let namespace =
        route.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    let dialect = Backends { namespace: &namespace };
    let Some(rules) = route.pointer_mut("/spec/rules").and_then(Value::as_array_mut) else { return };
    rules.retain(|rule| {
        let (_, stable, candidate) = entries::names(list(rule, "backendRefs"), &dialect, services);
        let matches = list(rule, "matches");
        let asks = |wanted: &Value| marks.iter().any(|mark| matches!(combined(wanted, mark), Combined::Same));
        let ours = candidate && !stable && !matches.is_empty() && matches.iter().all(asks);
        !ours
    });
    let mut record = record.clone();
    for (at, rule) in rules.iter_mut().enumerate() {
        let ours = |filter: &Value| {
            filter
                .pointer("/requestMirror/backendRef")
                .is_some_and(|to| matches!(dialect.side(to, services), Side::Candidate(_)))
        };
        if list(rule, "filters").iter().any(ours) {
            if let Some(filters) = list_mut(rule, "filters") {
                filters.retain(|filter| !ours(filter));
            }
            if list(rule, "filters").is_empty()
                && let Some(fields) = rule.as_object_mut()
            {
                fields.remove("filters");
            }
        }
        let matches = list(rule, "matches").to_vec();
        if let Some(refs) = list_mut(rule, "backendRefs") {
            let written = record.take("rules", at, &matches, |w| w.fits(refs, &dialect, services));
            entries::join(refs, &dialect, services, written.as_ref(), record.theirs);
        }
    }
}

/// Whether a route sends or copies requests to a candidate.
pub(super) fn points_at(route: &Value, services: &[VariantService]) -> bool {
    let namespace = route.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let dialect = Backends { namespace };
    let ours = |to: &Value| matches!(dialect.side(to, services), Side::Candidate(_));
    route.pointer("/spec/rules").and_then(Value::as_array).is_some_and(|rules| {
        rules.iter().any(|rule| {
            list(rule, "backendRefs").iter().any(ours)
                || list(rule, "filters")
                    .iter()
                    .filter_map(|f| f.pointer("/requestMirror/backendRef"))
                    .any(ours)
        })
    })
}

/// The stable Services that a route sends traffic to, by their places, each with the port that is named.
pub(super) fn named(route: &Value, services: &[VariantService]) -> Vec<(usize, Option<u64>)> {
    let namespace = route.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let dialect = Backends { namespace };
    let rules = route.pointer("/spec/rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let stable = |entry: &Value| match dialect.side(entry, services) {
        Side::Stable(at) => Some((at, entry.get("port").and_then(Value::as_u64))),
        _ => None,
    };
    rules.iter().flat_map(|rule| list(rule, "backendRefs")).filter_map(stable).collect()
}

/// The Services, other than in the route's own namespace, to which a split has it send traffic.
pub(super) fn abroad<'a>(route: &Value, split: &'a Split) -> Vec<&'a VariantService> {
    let namespace = route.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let dialect = Backends { namespace };
    let rules = route.pointer("/spec/rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = |service: &&VariantService| {
        rules
            .iter()
            .flat_map(|rule| list(rule, "backendRefs"))
            .any(|entry| matches!(dialect.side(entry, std::slice::from_ref(*service)), Side::Stable(_)))
    };
    split.services.iter().filter(|service| service.namespace != namespace).filter(named).collect()
}

fn few(place: &str, what: &'static str, count: usize, limit: usize) -> Result<(), Why> {
    if count > limit { Err(Why::TooMany { place: place.to_owned(), what, count, limit }) } else { Ok(()) }
}

fn twice(rule: &Value, at: usize, dialect: &Backends<'_>, split: &Split) -> Why {
    let side = |entry: &Value| match dialect.side(entry, &split.services) {
        Side::Candidate(service) => Some(&split.services[service]),
        _ => None,
    };
    let service = list(rule, "backendRefs").iter().find_map(side);
    Why::NamesCandidate {
        rule: numbered("rules", at),
        stable: service.map(|s| s.stable.clone()).unwrap_or_default(),
        candidate: service.map(|s| s.candidate.clone()).unwrap_or_default(),
    }
}

/// What a route that does not name the Service names instead.
fn found(rules: &[Value], dialect: &Backends<'_>, home: &str) -> String {
    let mut names: Vec<String> = Vec::new();
    for entry in rules.iter().flat_map(|rule| list(rule, "backendRefs")) {
        let kind = if is_service(entry) { "Service" } else { text(entry, "kind") };
        let name = match namespace_of(entry, home) {
            namespace if namespace == home => format!("{kind} {}", text(entry, "name")),
            namespace => format!("{kind} {namespace}/{}", text(entry, "name")),
        };
        let weightless = dialect.weights(std::slice::from_ref(entry)) == [0];
        let name = if weightless { format!("{name} with weight 0") } else { name };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// The rule for marked requests: the same matches with the header, the same filters, the candidates in the place of their
/// stable Services, everybody else's share as it is. `None` when no request of the rule can carry the mark.
fn marked(
    rule: &Value,
    at: usize,
    mark: &Mark,
    http: bool,
    dialect: &Backends<'_>,
    split: &Split,
) -> Result<Option<Value>, Why> {
    let taken = || Why::HeaderTaken { rule: numbered("rules", at), header: mark.name.clone() };
    let everything = [json!({})];
    let matches = match list(rule, "matches") {
        [] => &everything,
        matches => matches,
    };
    few(&numbered("rules", at), "match", matches.len(), MATCHES)?;
    let mut with = Vec::new();
    for wanted in matches {
        match combined(wanted, mark) {
            Combined::Free => {}
            Combined::Never => continue,
            // The same match again would be as specific as the rule that it is to win over.
            Combined::Same | Combined::Taken => return Err(taken()),
        }
        let mut wanted = wanted.as_object().cloned().unwrap_or_default();
        if http && !wanted.contains_key("path") {
            // The API server's default, written so that the route reads as it was sent.
            wanted.insert("path".into(), json!({"type": "PathPrefix", "value": "/"}));
        }
        let headers = wanted.entry("headers").or_insert_with(|| json!([]));
        if let Some(headers) = headers.as_array_mut() {
            let kind = if mark.regex { "RegularExpression" } else { "Exact" };
            headers.push(json!({"name": mark.name, "type": kind, "value": mark.value}));
            few(&numbered("rules", at), "header", headers.len(), HEADERS)?;
        }
        with.push(Value::Object(wanted));
    }
    if with.is_empty() {
        return Ok(None);
    }
    let mut fields: Map<String, Value> = rule.as_object().cloned().unwrap_or_default();
    // Names of rules are unique within a route.
    fields.remove("name");
    fields.insert("matches".into(), with.into());
    let mut rule = Value::Object(fields);
    for entry in list_mut(&mut rule, "backendRefs").into_iter().flatten() {
        if let Side::Stable(service) = dialect.side(entry, &split.services) {
            dialect.rename(entry, &split.services[service].candidate);
        }
    }
    Ok(Some(rule))
}

/// What a match says about a mark's header.
fn combined(wanted: &Value, mark: &Mark) -> Combined {
    let found = list(wanted, "headers").iter().find(|h| text(h, "name").eq_ignore_ascii_case(&mark.name));
    mark.with(found.map(|header| (text(header, "value"), text(header, "type") == "RegularExpression")))
}

/// Refuses a rule for marked requests that would win over a rule which wins now and goes elsewhere. Of two rules that match a
/// request on equal paths (and methods), the one with more headers wins, then the one with more query parameters, then the
/// first.
fn not_overtaking(rules: &[Value], divided: &[bool], at: usize, mark: &Mark, http: bool) -> Result<(), Why> {
    let rank = |wanted: &Value| (list(wanted, "headers").len(), list(wanted, "queryParams").len());
    let everything = [json!({})];
    let matches_of = |rule: usize| match list(&rules[rule], "matches") {
        [] => everything.to_vec(),
        matches => matches.to_vec(),
    };
    for other in (0..rules.len()).filter(|&other| !divided[other]) {
        for theirs in matches_of(other) {
            for ours in matches_of(at) {
                if place(&ours, http) != place(&theirs, http)
                    || disjoint(&ours, &theirs)
                    || matches!(combined(&theirs, mark), Combined::Never)
                {
                    continue;
                }
                let (before, (headers, parameters)) = (rank(&ours), rank(&theirs));
                let wins_now =
                    before < (headers, parameters) || (before == (headers, parameters) && other < at);
                let wins_then = (before.0 + 1, before.1) > (headers, parameters);
                if wins_now && wins_then {
                    return Err(Why::Overtakes {
                        rule: numbered("rules", at),
                        other: numbered("rules", other),
                        header: mark.name.clone(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// What is compared before headers are.
fn place(wanted: &Value, http: bool) -> Value {
    if !http {
        return wanted.get("method").cloned().unwrap_or_default();
    }
    let path = wanted.get("path").cloned().unwrap_or_default();
    let or =
        |found: &str, default: &str| if found.is_empty() { default.to_owned() } else { found.to_owned() };
    json!([or(text(&path, "type"), "PathPrefix"), or(text(&path, "value"), "/"), wanted.get("method")])
}

/// Whether no request can meet both: they ask one header, or one parameter, for different values.
fn disjoint(a: &Value, b: &Value) -> bool {
    let exact = |entry: &Value| text(entry, "type") != "RegularExpression";
    ["headers", "queryParams"].iter().any(|field| {
        list(a, field).iter().any(|one| {
            list(b, field).iter().any(|other| {
                text(one, "name").eq_ignore_ascii_case(text(other, "name"))
                    && exact(one)
                    && exact(other)
                    && text(one, "value") != text(other, "value")
            })
        })
    })
}

/// Has a rule copy requests to the candidates. `percent` is in the standard channel since v1.3 of the API, experimental
/// since v1.2; without it everything is copied, so it is left out for 100.
fn mirror(
    rule: &mut Value,
    at: usize,
    percent: u32,
    dialect: &Backends<'_>,
    split: &Split,
) -> Result<(), Why> {
    let mut copies: Vec<Value> = Vec::new();
    let refs = list(rule, "backendRefs");
    for (entry, weight) in refs.iter().zip(dialect.weights(refs)) {
        let Side::Stable(service) = dialect.side(entry, &split.services) else { continue };
        if weight == 0 {
            continue;
        }
        let mut to = json!({"group": "", "kind": "Service", "name": split.services[service].candidate});
        for field in ["namespace", "port"] {
            if let Some(value) = entry.get(field) {
                to[field] = value.clone();
            }
        }
        let mut filter = json!({"type": "RequestMirror", "requestMirror": {"backendRef": to}});
        if percent < 100 {
            filter["requestMirror"]["percent"] = percent.into();
        }
        if !copies.contains(&filter) {
            copies.push(filter);
        }
    }
    let Some(fields) = rule.as_object_mut() else { return Ok(()) };
    if let Some(filters) = fields.entry("filters").or_insert_with(|| json!([])).as_array_mut() {
        filters.extend(copies);
        few(&numbered("rules", at), "filter", filters.len(), FILTERS)?;
    }
    Ok(())
}
