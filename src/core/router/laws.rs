//! What holds for any route, any split and whatever is edited in between.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::tests::{gateway, istio, live, patched, route, virtual_service, web};
use super::*;
use proptest::prelude::*;
use serde_json::json;

/// `(name, port, weight)` of each backend of a rule, and whether the rule copies requests to somebody else.
type Backends = (Vec<(String, u16, Option<u64>)>, bool);

/// The two dialects, as these laws see them.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Gateway,
    Istio,
}

impl Kind {
    fn router(self) -> Router {
        match self {
            Kind::Gateway => gateway(),
            Kind::Istio => istio(),
        }
    }

    fn path(self) -> (&'static str, &'static str) {
        match self {
            Kind::Gateway => ("/spec/rules", "backendRefs"),
            Kind::Istio => ("/spec/http", "route"),
        }
    }

    fn entry(self, name: &str, port: u16, weight: Option<u64>) -> Value {
        let mut entry = match self {
            Kind::Gateway => json!({"name": name, "port": port}),
            Kind::Istio => json!({"destination": {"host": name, "port": {"number": port}}}),
        };
        if let Some(weight) = weight {
            entry["weight"] = weight.into();
        }
        entry
    }

    fn name(self, entry: &Value) -> String {
        let name = match self {
            Kind::Gateway => &entry["name"],
            Kind::Istio => &entry["destination"]["host"],
        };
        name.as_str().unwrap().to_owned()
    }

    fn weights(self, rule: &Value) -> Vec<(String, u64)> {
        let entries = rule[self.path().1].as_array().cloned().unwrap_or_default();
        let sole = entries.len() == 1;
        let weight = |entry: &Value| match (self, entry["weight"].as_u64()) {
            (Kind::Gateway, weight) => weight.unwrap_or(1),
            (Kind::Istio, _) if sole => 1,
            (Kind::Istio, weight) => weight.unwrap_or(0),
        };
        entries.iter().map(|entry| (self.name(entry), weight(entry))).collect()
    }

    fn rules(self, route: &Value) -> Vec<Value> {
        route.pointer(self.path().0).unwrap().as_array().unwrap().clone()
    }

    /// A route of these rules.
    fn route(self, rules: &[Backends]) -> Value {
        let rules: Vec<Value> = rules
            .iter()
            .enumerate()
            .map(|(at, (entries, extra))| {
                let entries: Vec<Value> =
                    entries.iter().map(|(name, port, weight)| self.entry(name, *port, *weight)).collect();
                let mut rule = match self {
                    Kind::Gateway => json!({
                        "matches": [{"path": {"type": "PathPrefix", "value": format!("/{at}")}}],
                        "backendRefs": entries,
                    }),
                    Kind::Istio => json!({"match": [{"uri": {"prefix": format!("/{at}")}}], "route": entries}),
                };
                match (self, extra) {
                    (_, false) => {}
                    (Kind::Gateway, true) => {
                        rule["filters"] = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "audit", "port": 1}}}]);
                    }
                    (Kind::Istio, true) => rule["mirrors"] = json!([{"destination": {"host": "audit"}}]),
                }
                rule
            })
            .collect();
        match self {
            Kind::Gateway => live(&route(&json!({"hostnames": ["a.example.com"], "rules": rules}))),
            Kind::Istio => live(&virtual_service(&json!({"hosts": ["web"], "http": rules}))),
        }
    }
}

fn any_rule() -> impl Strategy<Value = Backends> {
    let name = prop_oneof![Just("web"), Just("other"), Just("third")];
    let weight = prop_oneof![Just(None), Just(Some(0)), (1_u64..200).prop_map(Some)];
    (proptest::collection::vec((name, weight), 1..4), any::<bool>()).prop_map(|(entries, extra)| {
        let numbered = entries.into_iter().enumerate();
        // Different ports tell entries of one name apart.
        (numbered.map(|(at, (name, weight))| (name.to_owned(), 80 + at as u16, weight)).collect(), extra)
    })
}

fn any_route() -> impl Strategy<Value = (Kind, Value)> {
    let kind = prop_oneof![Just(Kind::Gateway), Just(Kind::Istio)];
    (kind, proptest::collection::vec(any_rule(), 0..4)).prop_map(|(kind, mut rules)| {
        rules.push((vec![("web".into(), 80, None)], false));
        (kind, kind.route(&rules))
    })
}

fn any_split() -> impl Strategy<Value = Split> {
    let header = HeaderMatch { name: "x-canary".into(), value: "yes".into(), regex: false };
    let headers = prop_oneof![Just(None), Just(Some(header))];
    let mirror = prop_oneof![Just(None), (0_u32..=100).prop_map(Some)];
    (0_u32..=100, headers, mirror).prop_map(|(weight, header, mirror)| Split {
        services: vec![web()],
        weight,
        header,
        cookie: None,
        mirror,
    })
}

/// What somebody else does to a route while it is divided.
#[derive(Clone, Debug)]
enum Edit {
    /// Another weight for an entry of a rule.
    Weight(usize, usize, u64),
    /// An entry less.
    Remove(usize, usize),
    /// A rule of their own at the beginning.
    Insert,
    /// The rules the other way round.
    Reverse,
    /// A rule less.
    Drop(usize),
    /// Their manifest again.
    Apply,
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0_usize..4, 0_usize..4, 0_u64..50)
            .prop_map(|(rule, entry, weight)| Edit::Weight(rule, entry, weight)),
        (0_usize..4, 0_usize..4).prop_map(|(rule, entry)| Edit::Remove(rule, entry)),
        Just(Edit::Insert),
        Just(Edit::Reverse),
        (0_usize..4).prop_map(Edit::Drop),
        Just(Edit::Apply),
    ]
}

fn edited(kind: Kind, route: &Value, original: &Value, edit: &Edit) -> Value {
    let mut out = route.clone();
    let (path, list) = kind.path();
    let rules = out.pointer_mut(path).unwrap().as_array_mut().unwrap();
    let count = rules.len();
    match edit {
        Edit::Weight(rule, entry, weight) => {
            let entries = rules[rule % count][list].as_array_mut().unwrap();
            let at = entry % entries.len();
            entries[at]["weight"] = (*weight).into();
        }
        Edit::Remove(rule, entry) => {
            let entries = rules[rule % count][list].as_array_mut().unwrap();
            if entries.len() > 1 {
                entries.remove(entry % entries.len());
            }
        }
        Edit::Insert => rules.insert(0, json!({list: [kind.entry("fourth", 80, None)]})),
        Edit::Reverse => rules.reverse(),
        Edit::Drop(rule) if count > 1 => drop(rules.remove(rule % count)),
        Edit::Drop(_) => {}
        Edit::Apply => *out.pointer_mut(path).unwrap() = original.pointer(path).unwrap().clone(),
    }
    out
}

proptest! {
    #[test]
    fn shares_are_exact_and_nothing_is_left_without_a_backend(
        (kind, route) in any_route(), split in any_split(),
    ) {
        let after = patched(&kind.router(), &route, Some(&split));
        let mut rules = kind.rules(&after);
        rules.retain(|rule| {
            let names: Vec<String> = kind.weights(rule).into_iter().map(|(name, _)| name).collect();
            names.contains(&"web".into()) || !names.contains(&"web-canary".into())
        });
        let before = kind.rules(&route);
        prop_assert_eq!(rules.len(), before.len());
        for (old, new) in before.iter().zip(&rules) {
            let (old, mut new) = (kind.weights(old), kind.weights(new));
            let total = |list: &[(String, u64)]| list.iter().map(|(_, weight)| weight).sum::<u64>();
            let (all, all_new) = (total(&old), total(&new));
            prop_assert_eq!(all > 0, all_new > 0);
            let mut entries = Vec::new();
            while !new.is_empty() {
                let (name, weight) = new.remove(0);
                let next = new.first().filter(|(next, _)| name == "web" && next == "web-canary").cloned();
                if next.is_some() {
                    new.remove(0);
                }
                entries.push((name, weight, next.map(|(_, weight)| weight)));
            }
            prop_assert_eq!(entries.len(), old.len());
            for ((name, share), (new_name, own, candidate)) in old.iter().zip(entries) {
                prop_assert_eq!(name, &new_name);
                let together = own + candidate.unwrap_or(0);
                prop_assert_eq!(together * all, share * all_new);
                let due = if name == "web" { together * u64::from(split.weight) } else { 0 };
                prop_assert_eq!(candidate.unwrap_or(0) * 100, due);
            }
        }
    }

    #[test]
    fn a_split_depends_on_no_split_before_and_ends_without_a_trace(
        (kind, route) in any_route(), a in any_split(), b in any_split(),
    ) {
        let router = kind.router();
        let first = patched(&router, &route, Some(&a));
        prop_assert_eq!(patch(&router, &first, Some(&a)).unwrap(), None);
        let second = patched(&router, &first, Some(&b));
        prop_assert_eq!(&second, &patched(&router, &route, Some(&b)));
        prop_assert_eq!(patched(&router, &second, None), route.clone());
        prop_assert!(points_at_candidate(&router, &second, &b.services), "with or without a share");
        let object = Manifest::new(route, crate::core::manifest::Origin::default()).unwrap();
        let shaped = shape(&router, "shop", vec![object], Some(&b)).unwrap();
        prop_assert_eq!(&shaped.objects[0].to_value()["spec"], &second["spec"]);
    }

    #[test]
    fn whatever_is_edited_meanwhile_the_end_names_no_candidate(
        (kind, route) in any_route(), a in any_split(), b in any_split(), edit in any_edit(),
    ) {
        let router = kind.router();
        let edit_of = |value: &Value| edited(kind, value, &route, &edit);
        let divided = edit_of(&patched(&router, &route, Some(&a)));
        // An edit may take the last rule for the Service; that is refused, and ends as well as any.
        if let Ok(Some(_)) = patch(&router, &divided, Some(&b)) {
            let again = patched(&router, &divided, Some(&b));
            prop_assert_eq!(patch(&router, &again, Some(&b)).unwrap(), None);
        }
        let end = patched(&router, &divided, None);
        prop_assert!(!points_at_candidate(&router, &end, &a.services));
        prop_assert!(end.pointer("/metadata/annotations").is_none());
        for rule in kind.rules(&end) {
            prop_assert!(!kind.weights(&rule).is_empty());
        }
        if matches!(edit, Edit::Apply) {
            prop_assert_eq!(&end, &route);
        }
        if matches!(edit, Edit::Insert | Edit::Reverse) {
            prop_assert_eq!(&end, &edit_of(&route));
        }
    }

    #[test]
    fn a_lost_record_leaves_the_shares_right(
        (kind, route) in any_route(), percent in 0_u32..=100,
    ) {
        let router = kind.router();
        let split = |weight: u32| Split { services: vec![web()], weight, ..Split::default() };
        let mut divided = patched(&router, &route, Some(&split(percent)));
        divided["metadata"].as_object_mut().unwrap().remove("annotations");
        let end = patched(&router, &divided, Some(&split(0)));
        for (old, new) in kind.rules(&route).iter().zip(kind.rules(&end)) {
            let (old, mut new) = (kind.weights(old), kind.weights(&new));
            new.retain(|(name, weight)| name != "web-canary" || *weight > 0);
            let total = |list: &[(String, u64)]| list.iter().map(|(_, weight)| weight).sum::<u64>();
            for ((name, weight), (new_name, new_weight)) in old.iter().zip(&new) {
                prop_assert_eq!(name, new_name);
                prop_assert_eq!(weight * total(&new), new_weight * total(&old));
            }
        }
    }
}
