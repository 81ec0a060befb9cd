//! The weighted list of a rule, in whatever dialect: dividing it between the variants, and putting it together again.

use super::VariantService;
use super::weights::{self, Part, TooLarge};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whom an entry of a rule sends traffic to. The number is the Service's place in the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Stable(usize),
    Candidate(usize),
    Other,
}

/// How a kind of route writes its backends.
pub(super) trait Dialect {
    /// The largest weight that its schema allows.
    const LIMIT: u64;
    /// Whom an entry sends traffic to.
    fn side(&self, entry: &Value, services: &[VariantService]) -> Side;
    /// Gives an entry another Service's name, in the form that it has.
    fn rename(&self, entry: &mut Value, name: &str);
    /// What the entries weigh; what is left out has a meaning of its own in each dialect.
    fn weights(&self, entries: &[Value]) -> Vec<u64>;
    /// What tells an entry from others of its rule.
    fn key(&self, entry: &Value) -> String;
}

/// What was written into a rule that is not ours alone: enough to take it back exactly, and to see whether somebody else
/// has written since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    /// The entries that the rule had.
    refs: Vec<String>,
    /// Their weights, null where none was written.
    had: Vec<Option<u64>>,
    /// Their weights since.
    wrote: Vec<u64>,
}

/// Whether a rule names a variant: `(stable with weight, stable, candidate)`.
pub(super) fn names(
    entries: &[Value],
    dialect: &impl Dialect,
    services: &[VariantService],
) -> (bool, bool, bool) {
    let (mut heavy, mut stable, mut candidate) = (false, false, false);
    for (entry, weight) in entries.iter().zip(dialect.weights(entries)) {
        match dialect.side(entry, services) {
            Side::Stable(_) => {
                stable = true;
                heavy |= weight > 0;
            }
            Side::Candidate(_) => candidate = true,
            Side::Other => {}
        }
    }
    (heavy, stable, candidate)
}

/// Divides what each stable Service has with its candidate, which is written right after it with the same filters. The order
/// of what was there stays. `None` when there was nothing to divide.
pub(super) fn divide<D: Dialect>(
    entries: &mut Vec<Value>,
    dialect: &D,
    services: &[VariantService],
    percent: u32,
) -> Result<Option<Written>, TooLarge> {
    let weights = dialect.weights(entries);
    let parts: Vec<Part> = entries
        .iter()
        .zip(&weights)
        .map(|(entry, &weight)| match dialect.side(entry, services) {
            Side::Stable(_) => Part::Stable(weight),
            _ => Part::Other(weight),
        })
        .collect();
    let Some(shares) = weights::divide(&parts, percent, D::LIMIT)? else { return Ok(None) };
    let mut written = Written::default();
    let mut out = Vec::with_capacity(entries.len() + 1);
    for ((mut entry, share), weight) in entries.drain(..).zip(shares).zip(weights) {
        written.refs.push(dialect.key(&entry));
        written.had.push(entry.get("weight").and_then(Value::as_u64));
        written.wrote.push(share.own);
        let added = share.candidate.and_then(|candidate| match dialect.side(&entry, services) {
            Side::Stable(at) => {
                let mut added = entry.clone();
                dialect.rename(&mut added, &services[at].candidate);
                set_weight(&mut added, Some(candidate));
                Some(added)
            }
            _ => None,
        });
        if share.own != weight || added.is_some() {
            set_weight(&mut entry, Some(share.own));
        }
        out.push(entry);
        out.extend(added);
    }
    *entries = out;
    Ok(Some(written))
}

/// Takes the candidates out of a rule again. Where nobody else has written into it since, which is when there is a
/// `written` that [fits](Written::fits), it is as it was; otherwise
/// each candidate's weight goes back to its stable Service and what others wrote stays. A candidate whose stable Service has
/// gone from the rule becomes it, unless such an entry was there before us (`theirs`): it would soon point at nothing.
pub(super) fn join<D: Dialect>(
    entries: &mut Vec<Value>,
    dialect: &D,
    services: &[VariantService],
    written: Option<&Written>,
    theirs: bool,
) {
    let sides: Vec<Side> = entries.iter().map(|entry| dialect.side(entry, services)).collect();
    let weights = dialect.weights(entries);
    if let Some(written) = written {
        let mut kept = sides.iter().map(|side| !matches!(side, Side::Candidate(_)));
        entries.retain(|_| kept.next().unwrap_or(true));
        for (entry, had) in entries.iter_mut().zip(&written.had) {
            set_weight(entry, *had);
        }
        return;
    }
    let has = |wanted: fn(&Side) -> bool| sides.iter().any(wanted);
    let preview = theirs && !has(|side| matches!(side, Side::Stable(_)));
    if preview || !has(|side| matches!(side, Side::Candidate(_))) {
        return;
    }
    let mut stables: Vec<(usize, usize, u64)> = Vec::new();
    let mut out: Vec<(Value, u64)> = Vec::new();
    for ((entry, side), weight) in entries.iter().zip(&sides).zip(&weights) {
        if let Side::Stable(service) = side {
            stables.push((*service, out.len(), 0));
        }
        match side {
            Side::Candidate(_) => {}
            _ => out.push((entry.clone(), *weight)),
        }
    }
    for ((entry, side), weight) in entries.iter().zip(&sides).zip(&weights) {
        let Side::Candidate(service) = side else { continue };
        let mut back = entry.clone();
        dialect.rename(&mut back, &services[*service].stable);
        let key = dialect.key(&back);
        let mut same = stables.iter().filter(|(of, ..)| of == service);
        let exact = same.clone().find(|(_, at, _)| dialect.key(&out[*at].0) == key);
        match exact.or_else(|| same.next()) {
            Some((_, at, _)) => out[*at].1 += weight,
            None if theirs => out.push((entry.clone(), *weight)),
            None => out.push((back, *weight)),
        }
    }
    let common = out.iter().fold(0, |known, (_, weight)| weights::gcd(known, *weight)).max(1);
    *entries = out
        .into_iter()
        .map(|(mut entry, weight)| {
            set_weight(&mut entry, Some(weight / common));
            entry
        })
        .collect();
}

impl Written {
    /// Whether a rule is still as it was written, but for how stable and candidate share: those two are ours.
    pub(super) fn fits(
        &self,
        entries: &[Value],
        dialect: &impl Dialect,
        services: &[VariantService],
    ) -> bool {
        let sides: Vec<Side> = entries.iter().map(|entry| dialect.side(entry, services)).collect();
        let weights = dialect.weights(entries);
        let mut ours = self.refs.iter().zip(&self.wrote);
        let divided = sides.iter().any(|side| matches!(side, Side::Candidate(_)));
        for ((entry, side), weight) in entries.iter().zip(&sides).zip(&weights) {
            if matches!(side, Side::Candidate(_)) {
                continue;
            }
            let Some((key, wrote)) = ours.next() else { return false };
            // Somebody who takes the candidate out leaves the rest; somebody who applies the manifest again does not.
            let free = divided && matches!(side, Side::Stable(_));
            if *key != dialect.key(entry) || (!free && wrote != weight) {
                return false;
            }
        }
        ours.next().is_none()
    }
}

/// Sets or removes the weight of an entry.
fn set_weight(entry: &mut Value, weight: Option<u64>) {
    if let Some(fields) = entry.as_object_mut() {
        match weight {
            Some(weight) => fields.insert("weight".into(), weight.into()),
            None => fields.remove("weight"),
        };
    }
}
