//! Istio's VirtualService: traffic is divided between hosts, the stable Service and the candidate's own. Rules are tried in
//! their order, so a rule for marked requests stands right before the rule that it is made of.

use super::entries::{self, Dialect, Side};
use super::mark::{Combined, Mark};
use super::why::{Why, rule as numbered};
use super::{Changed, InRule, Split, VariantService};
use serde_json::{Map, Value, json};

/// The API group of VirtualServices and DestinationRules.
pub(super) const GROUP: &str = "networking.istio.io";

/// The lists of rules of a VirtualService.
const LISTS: [&str; 3] = ["http", "tls", "tcp"];

/// How a VirtualService in a namespace writes its destinations.
pub(super) struct Destinations<'a> {
    /// Its namespace, meant by a host without one.
    pub namespace: &'a str,
}

impl Dialect for Destinations<'_> {
    const LIMIT: u64 = i32::MAX as u64;

    fn side(&self, entry: &Value, services: &[VariantService]) -> Side {
        side_of(entry.pointer("/destination/host"), self.namespace, services)
    }

    fn rename(&self, entry: &mut Value, name: &str) {
        if let Some(host) = entry.pointer_mut("/destination/host") {
            *host = renamed(host.as_str().unwrap_or_default(), name).into();
        }
    }

    fn weights(&self, entries: &[Value]) -> Vec<u64> {
        // One destination has everything; among several, what is left out is 0.
        match entries {
            [_] => vec![1],
            _ => entries.iter().map(|e| e.get("weight").and_then(Value::as_u64).unwrap_or(0)).collect(),
        }
    }

    fn key(&self, entry: &Value) -> String {
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let port = entry.pointer("/destination/port/number").and_then(Value::as_u64).unwrap_or_default();
        format!("{}:{port}/{}", text("/destination/host"), text("/destination/subset"))
    }
}

/// Whose name a host is: `web` in its own namespace, `web.shop`, `web.shop.svc` or with a domain after that.
pub(super) fn names(host: &str, name: &str, namespace: &str, home: &str) -> bool {
    let Some(rest) = host.strip_prefix(name) else { return false };
    let Some(rest) = rest.strip_prefix('.') else { return rest.is_empty() && namespace == home };
    let Some(rest) = rest.strip_prefix(namespace) else { return false };
    rest.is_empty() || rest == ".svc" || rest.starts_with(".svc.")
}

fn side_of(host: Option<&Value>, home: &str, services: &[VariantService]) -> Side {
    let host = host.and_then(Value::as_str).unwrap_or_default();
    let at = |name: &dyn Fn(&VariantService) -> &String| {
        services.iter().position(|s| names(host, name(s), &s.namespace, home))
    };
    match (at(&|s| &s.stable), at(&|s| &s.candidate)) {
        (Some(at), _) => Side::Stable(at),
        (None, Some(at)) => Side::Candidate(at),
        (None, None) => Side::Other,
    }
}

/// Another Service's host, in the form that this one has.
pub(super) fn renamed(host: &str, name: &str) -> String {
    match host.split_once('.') {
        Some((_, rest)) => format!("{name}.{rest}"),
        None => name.to_owned(),
    }
}

fn list<'a>(rule: &'a Value, field: &str) -> &'a [Value] {
    rule.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn home(route: &Value) -> String {
    route.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn rules_mut<'a>(route: &'a mut Value, list: &str) -> Option<&'a mut Vec<Value>> {
    route.get_mut("spec")?.get_mut(list)?.as_array_mut()
}

/// Writes a split into a VirtualService that is as its owner wrote it.
pub(super) fn transform(route: &mut Value, split: &Split) -> Result<Changed, Why> {
    let namespace = home(route);
    let dialect = Destinations { namespace: &namespace };
    let marks = Mark::of(split);
    let mirrored = split.mirror.filter(|percent| *percent > 0);
    let mut changed = Changed::default();
    let mut named = Vec::new();
    let (mut http, mut any) = (false, false);
    for kind in LISTS {
        let Some(rules) = rules_mut(route, kind) else { continue };
        let mut out = Vec::with_capacity(rules.len() + 1);
        for (at, mut rule) in rules.drain(..).enumerate() {
            let number = numbered(kind, at);
            let (heavy, stable, candidate) = entries::names(list(&rule, "route"), &dialect, &split.services);
            checked(&rule, &number, stable && candidate, &dialect, split)?;
            changed.theirs |= candidate;
            let hosts = list(&rule, "route").iter().filter_map(|e| e.pointer("/destination/host"));
            named.extend(hosts.filter_map(Value::as_str).map(str::to_owned));
            if !heavy {
                out.push(rule);
                continue;
            }
            any = true;
            if kind == "http" {
                http = true;
                for mark in &marks {
                    out.extend(marked(&rule, &number, mark, &dialect, split)?);
                }
                if let Some(percent) = mirrored {
                    mirror(&mut rule, &number, percent, &dialect, split)?;
                }
            }
            let matches = list(&rule, "match").to_vec();
            if let Some(route) = rule.get_mut("route").and_then(Value::as_array_mut) {
                let limit = Destinations::LIMIT;
                let written = entries::divide(route, &dialect, &split.services, split.weight)
                    .map_err(|_| Why::Weights { rule: number, percent: split.weight, limit })?;
                changed.written.extend(written.map(|written| InRule::new(kind, at, &matches, written)));
            }
            out.push(rule);
        }
        *rules = out;
    }
    let services = split.stables();
    if !any {
        named.sort_unstable();
        named.dedup();
        let found = if named.is_empty() { "nothing".into() } else { named.join(", ") };
        return Err(Why::Unrelated { services, found });
    }
    match (http, marks.is_empty(), mirrored.is_some()) {
        (false, false, _) => Err(Why::OnlyStreams { services, asked: "told apart" }),
        (false, true, true) => Err(Why::OnlyStreams { services, asked: "mirrored" }),
        _ => Ok(changed),
    }
}

/// What is refused in a rule whatever is asked.
fn checked(
    rule: &Value,
    number: &str,
    twice: bool,
    dialect: &Destinations<'_>,
    split: &Split,
) -> Result<(), Why> {
    for entry in list(rule, "route") {
        let side = dialect.side(entry, &split.services);
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let subset = text("/destination/subset");
        match side {
            Side::Stable(_) if !subset.is_empty() => {
                let (rule, host) = (number.to_owned(), text("/destination/host"));
                return Err(Why::Subset { rule, host, subset });
            }
            Side::Candidate(service) if twice => {
                let service = &split.services[service];
                let (stable, candidate) = (service.stable.clone(), service.candidate.clone());
                return Err(Why::NamesCandidate { rule: number.to_owned(), stable, candidate });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes what a split wrote out of a VirtualService again.
pub(super) fn restore(route: &mut Value, services: &[VariantService], marks: &[Mark], record: &Changed) {
    let namespace = home(route);
    let dialect = Destinations { namespace: &namespace };
    let mut record = record.clone();
    for kind in LISTS {
        let Some(rules) = rules_mut(route, kind) else { continue };
        rules.retain(|rule| {
            let (_, stable, candidate) = entries::names(list(rule, "route"), &dialect, services);
            let matches = list(rule, "match");
            let asks = |wanted: &Value| marks.iter().any(|m| matches!(combined(wanted, m), Combined::Same));
            let ours = candidate && !stable && !matches.is_empty() && matches.iter().all(asks);
            !ours
        });
        for (at, rule) in rules.iter_mut().enumerate() {
            unmirror(rule, &namespace, services);
            let matches = list(rule, "match").to_vec();
            if let Some(route) = rule.get_mut("route").and_then(Value::as_array_mut) {
                let written = record.take(kind, at, &matches, |w| w.fits(route, &dialect, services));
                entries::join(route, &dialect, services, written.as_ref(), record.theirs);
            }
        }
    }
}

/// Whether a VirtualService sends or copies requests to a candidate.
pub(super) fn points_at(route: &Value, services: &[VariantService]) -> bool {
    let namespace = home(route);
    let ours = |host: Option<&Value>| matches!(side_of(host, &namespace, services), Side::Candidate(_));
    let spec = route.get("spec").cloned().unwrap_or_default();
    LISTS.iter().flat_map(|kind| list(&spec, kind)).any(|rule| {
        list(rule, "route").iter().any(|entry| ours(entry.pointer("/destination/host")))
            || ours(rule.pointer("/mirror/host"))
            || list(rule, "mirrors").iter().any(|entry| ours(entry.pointer("/destination/host")))
    })
}

/// The stable Services that a VirtualService sends traffic to, by their places, each with the port that is named.
pub(super) fn named(route: &Value, services: &[VariantService]) -> Vec<(usize, Option<u64>)> {
    let namespace = home(route);
    let spec = route.get("spec").cloned().unwrap_or_default();
    let stable = |entry: &Value| match side_of(entry.pointer("/destination/host"), &namespace, services) {
        Side::Stable(at) => Some((at, entry.pointer("/destination/port/number").and_then(Value::as_u64))),
        _ => None,
    };
    let entries = LISTS.iter().flat_map(|kind| list(&spec, kind)).flat_map(|rule| list(rule, "route"));
    entries.filter_map(stable).collect()
}

/// The rule for marked requests: the same with the header in each match, and the candidates in the place of their stable
/// Services. `None` when no request of the rule can carry the mark.
fn marked(
    rule: &Value,
    number: &str,
    mark: &Mark,
    dialect: &Destinations<'_>,
    split: &Split,
) -> Result<Option<Value>, Why> {
    let everything = [json!({})];
    let matches = match list(rule, "match") {
        [] => &everything,
        matches => matches,
    };
    let mut with = Vec::new();
    for wanted in matches {
        match combined(wanted, mark) {
            Combined::Free | Combined::Same => {}
            Combined::Never => continue,
            Combined::Taken => {
                return Err(Why::HeaderTaken { rule: number.to_owned(), header: mark.name.clone() });
            }
        }
        let mut wanted = wanted.as_object().cloned().unwrap_or_default();
        let kind = if mark.regex { "regex" } else { "exact" };
        let headers = wanted.entry("headers").or_insert_with(|| json!({}));
        if let Some(headers) = headers.as_object_mut() {
            headers.insert(mark.name.to_ascii_lowercase(), json!({kind: mark.value}));
        }
        with.push(Value::Object(wanted));
    }
    if with.is_empty() {
        return Ok(None);
    }
    let mut fields: Map<String, Value> = rule.as_object().cloned().unwrap_or_default();
    fields.remove("name");
    fields.insert("match".into(), with.into());
    let mut rule = Value::Object(fields);
    for entry in rule.get_mut("route").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Side::Stable(service) = dialect.side(entry, &split.services) {
            dialect.rename(entry, &split.services[service].candidate);
        }
    }
    Ok(Some(rule))
}

/// What a match says about a mark's header. A prefix is a pattern that is not ours.
fn combined(wanted: &Value, mark: &Mark) -> Combined {
    let headers = wanted.get("headers").and_then(Value::as_object);
    let found = headers.and_then(|h| h.iter().find(|(name, _)| name.eq_ignore_ascii_case(&mark.name)));
    let text = |value: &Value, kind: &str| value.get(kind).and_then(Value::as_str).map(str::to_owned);
    let found = found.map(|(_, value)| match text(value, "exact") {
        Some(exact) => (exact, false),
        None => (text(value, "regex").unwrap_or_default(), true),
    });
    mark.with(found.as_ref().map(|(value, regex)| (value.as_str(), *regex)))
}

/// Has a rule copy requests to the candidates.
fn mirror(
    rule: &mut Value,
    number: &str,
    percent: u32,
    dialect: &Destinations<'_>,
    split: &Split,
) -> Result<(), Why> {
    let mut to: Vec<Value> = Vec::new();
    let entries = list(rule, "route");
    for (entry, weight) in entries.iter().zip(dialect.weights(entries)) {
        let Side::Stable(service) = dialect.side(entry, &split.services) else { continue };
        let mut copy = entry.clone();
        dialect.rename(&mut copy, &split.services[service].candidate);
        let destination = copy["destination"].take();
        if weight > 0 && !to.contains(&destination) {
            to.push(destination);
        }
    }
    let Some(fields) = rule.as_object_mut() else { return Ok(()) };
    if fields.contains_key("mirror") {
        return Err(Why::MirrorTaken { rule: number.to_owned() });
    }
    if to.len() == 1 && !fields.contains_key("mirrors") {
        fields.insert("mirror".into(), to.remove(0));
        fields.insert("mirrorPercentage".into(), json!({"value": percent}));
        return Ok(());
    }
    let mirrors = fields.entry("mirrors").or_insert_with(|| json!([]));
    if let Some(mirrors) = mirrors.as_array_mut() {
        mirrors.extend(to.into_iter().map(|to| json!({"destination": to, "percentage": {"value": percent}})));
    }
    Ok(())
}

fn unmirror(rule: &mut Value, home: &str, services: &[VariantService]) {
    let ours = |host: Option<&Value>| matches!(side_of(host, home, services), Side::Candidate(_));
    let Some(fields) = rule.as_object_mut() else { return };
    if fields.get("mirror").is_some_and(|to| ours(to.get("host"))) {
        for field in ["mirror", "mirrorPercentage", "mirrorPercent", "mirror_percent"] {
            fields.remove(field);
        }
    }
    let Some(mirrors) = fields.get_mut("mirrors").and_then(Value::as_array_mut) else { return };
    let before = mirrors.len();
    mirrors.retain(|entry| !ours(entry.pointer("/destination/host")));
    if mirrors.is_empty() && before > 0 {
        fields.remove("mirrors");
    }
}
