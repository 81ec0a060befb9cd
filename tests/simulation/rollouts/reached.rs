//! How far a rollout may be: by its policy, and by when its candidate was made and its routers were written. What the daemon says
//! of it in the status is not looked at.

use super::super::things::{Key, Kind};
use super::is_candidate;
use super::routes::ROUTES;
use serde_json::Value;
use std::collections::BTreeSet;

/// What a step leads to.
#[derive(Clone, Debug, Default)]
struct Stop {
    /// The candidate's share of traffic, in percent.
    weight: u64,
    /// Whether marked requests or copies of some go to it.
    marked: bool,
    /// Its size.
    size: Size,
    /// Others that it gets before the share changes.
    also: Vec<Size>,
    /// How long it stays so at least, in milliseconds.
    keeps: u64,
    /// It goes on only when a person says so.
    asks: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Size {
    /// As many pods as stable has.
    #[default]
    Full,
    /// A share of them, in percent.
    Share(u64),
    /// A share of all pods.
    OfAll(u64),
    /// A number of pods.
    Fixed(u64),
}

impl Size {
    fn pods(self, stable: u64) -> u64 {
        match self {
            Size::Full => stable,
            Size::Fixed(pods) => pods,
            Size::Share(percent) => (stable * percent).div_ceil(100).max(1),
            Size::OfAll(percent) => match 100_u64.checked_sub(percent).filter(|rest| *rest > 0) {
                Some(rest) => (stable * percent / rest).clamp(1, stable.max(1)),
                None => stable,
            },
        }
    }
}

/// How long after a change was accepted it counts as in effect, in milliseconds, if the policy does not say.
const SETTLE: u64 = 5_000;

/// How long old pods are kept after a switch, in milliseconds, if the policy does not say.
const SCALE_DOWN: u64 = 30_000;

fn millis(time: &Value) -> Option<u64> {
    let text = time.as_str()?;
    Some(text.strip_suffix('s')?.parse::<u64>().ok()? * 1_000)
}

/// The steps of a share that grows by itself.
fn grows(policy: &Value) -> Vec<Value> {
    let by = policy["stepWeight"].as_u64().unwrap_or(1).max(1);
    let most = policy["maxWeight"].as_u64().unwrap_or(50).min(100);
    let mut steps = Vec::new();
    let mut weight = by.min(most);
    loop {
        steps.push(serde_json::json!({"weight": weight}));
        steps.push(serde_json::json!({"pause": policy["interval"]}));
        if weight >= most {
            return steps;
        }
        weight = (weight + by).min(most);
    }
}

/// Where a policy leads to, one after the other.
fn stops(policy: &Value) -> Vec<Stop> {
    let settle = millis(&policy["settle"]).unwrap_or(SETTLE);
    let pods = policy["router"]["replicas"].is_object();
    let (canary, switch) = (policy["strategy"] == "Canary", policy["strategy"] == "BlueGreen");
    let given: Vec<Value> = match policy["strategy"].as_str() {
        Some("AB") => {
            let time = policy["ab"]["duration"].clone();
            vec![serde_json::json!({"header": {}}), serde_json::json!({"pause": time})]
        }
        _ if policy["stepWeight"].is_u64() => grows(policy),
        _ => policy["steps"].as_array().cloned().unwrap_or_default(),
    };
    let size = |weight: u64| match policy["candidate"]["size"].as_str() {
        _ if pods => Size::OfAll(weight),
        Some("Share") => Size::Share(weight.max(1)),
        Some("Fixed") => Size::Fixed(policy["candidate"]["replicas"].as_u64().unwrap_or(1)),
        _ => Size::Full,
    };
    let first = given.iter().find_map(|s| s["weight"].as_u64().filter(|w| *w > 0)).unwrap_or(100);
    let asked = |step: &Value| {
        let scale = step["scale"].as_object()?;
        let percent = || scale.get("percent").and_then(Value::as_u64).unwrap_or(100);
        Some(
            scale.get("replicas").and_then(Value::as_u64).map_or_else(|| Size::Share(percent()), Size::Fixed),
        )
    };
    let begin = match given.first().and_then(asked) {
        Some(size) => size,
        None if switch => Size::Full,
        None => size(first),
    };
    let weight = if pods { first } else { 0 };
    let mut all = vec![Stop { weight, size: begin, keeps: settle, ..Stop::default() }];
    let go = |all: &mut Vec<Stop>, weight: u64, marked: bool, size: Size| match all
        .last_mut()
        .filter(|last| (last.weight, last.marked) == (weight, marked))
    {
        Some(last) => last.also.push(size),
        None => {
            // It shrinks after it has less traffic.
            let shrinks = all.last().filter(|last| last.weight > weight);
            let also =
                shrinks.into_iter().flat_map(|last| last.also.iter().copied().chain([last.size])).collect();
            all.push(Stop { weight, marked, size, also, keeps: settle, ..Stop::default() });
        }
    };
    let (mut is, mut scaled) = (begin, false);
    // All traffic is for a candidate of full size only.
    let with = |weight: u64, is: Size| if weight == 100 && !pods { Size::Full } else { is };
    for step in &given {
        let last = all.last().cloned().unwrap_or_default();
        if let Some(weight) = step["weight"].as_u64() {
            is = if canary && weight > 0 && !scaled { size(weight) } else { is };
            go(&mut all, weight, false, with(weight, is));
        } else if ["header", "cookie", "mirror"].iter().any(|how| step[*how].is_object()) {
            go(&mut all, 0, true, is);
        } else if let Some(size) = asked(step) {
            (is, scaled) = (size, true);
            go(&mut all, last.weight, last.marked, with(last.weight, is));
        } else if let Some(last) = all.last_mut().filter(|_| !step["pause"].is_null()) {
            match millis(&step["pause"]) {
                Some(time) => last.keeps += time,
                None => last.asks = true,
            }
        }
    }
    if !pods {
        go(&mut all, 100, false, Size::Full);
        if let Some(last) = all.last_mut().filter(|_| switch) {
            last.keeps = settle.max(millis(&policy["scaleDownDelay"]).unwrap_or(SCALE_DOWN));
        }
    }
    all
}

/// How far a candidate has come.
#[derive(Debug, Default)]
pub struct Reached {
    /// The candidates' workloads that are there.
    there: BTreeSet<Key>,
    /// Where it is in what the policy leads to.
    at: usize,
    /// Since when, in milliseconds.
    since: u64,
    /// Traffic was taken back before promotion: it gets none any more.
    left: bool,
    /// When it was removed, the new revision might have taken stable's place.
    done: bool,
}

impl Reached {
    /// Nothing stands beside stable from now on.
    pub fn nothing(now: u64) -> Self {
        Reached { since: now, ..Reached::default() }
    }

    /// Where it may be at this time: what is written is no more than one further, but for what is counted in pods, which is not
    /// always a write.
    fn may_be(&self, stops: &[Stop], pods: bool, now: u64) -> usize {
        let (mut at, mut since) = (self.at, self.since);
        while let Some(stop) = stops.get(at).filter(|stop| !stop.asks && at + 1 < stops.len()) {
            if now < since + stop.keeps || !pods && at > self.at {
                break;
            }
            (at, since) = (at + 1, since + stop.keeps);
        }
        at
    }

    /// What a policy allows at this time.
    pub fn allowed(&self, policy: &Value, now: u64) -> Allowed {
        if self.there.is_empty() || self.left {
            return Allowed { promotion: self.done, ..Allowed::default() };
        }
        let (stops, pods) = (stops(policy), policy["router"]["replicas"].is_object());
        let may_be = self.may_be(&stops, pods, now);
        let (Some(is), Some(next)) = (stops.get(self.at), stops.get(may_be)) else {
            return Allowed::default();
        };
        let last = may_be + 1 == stops.len();
        let since = match may_be == self.at {
            true => Some(self.since),
            // It may have got there without a write.
            false if pods => Some(stops[self.at..may_be].iter().map(|s| s.keeps).sum::<u64>() + self.since),
            false => None,
        };
        let mut sizes = Vec::new();
        // It grows before.
        let grows = stops.get(may_be + 1).filter(|_| !pods && !next.asks);
        for stop in [is, next].into_iter().chain(grows) {
            sizes.push(stop.size);
            sizes.extend(&stop.also);
        }
        Allowed {
            weight: is.weight.max(next.weight),
            marked: is.marked || next.marked,
            sizes,
            promotion: last && !next.asks && since.is_some_and(|since| now >= since + next.keeps),
        }
    }

    /// A candidate's workload was made, or removed.
    pub fn note_workload(&mut self, policy: &Value, key: &Key, was: bool, is: bool, now: u64) {
        if key.0 != Kind::Deployment || !is_candidate(&key.1) {
            return;
        }
        if is && !was && (self.there.is_empty() || self.there.contains(key)) {
            *self = Reached::nothing(now);
        }
        match is {
            true => drop(self.there.insert(key.clone())),
            false => {
                self.done |= self.allowed(policy, now).promotion;
                self.there.remove(key);
            }
        }
    }

    /// What moves traffic was written: the share that the candidate has, and whether marked requests see it. One that `lives` does not
    /// take it back by chance.
    pub fn note_share(&mut self, policy: &Value, key: &Key, share: (u64, bool), lives: bool, now: u64) {
        let moves = match policy["router"]["service"]["name"].as_str() {
            Some(name) => key.0 == Kind::Service && key.1 == name,
            None => ROUTES.contains(&key.0),
        };
        if !moves || self.there.is_empty() {
            return;
        }
        let stops = stops(policy);
        let at = |n: usize| stops.get(n).map(|stop| (stop.weight, stop.marked));
        let may_be = self.may_be(&stops, false, now);
        if Some(share) == at(self.at) {
            return;
        }
        if Some(share) == at(may_be) {
            (self.at, self.since) = (may_be, now);
        } else if share == (0, false) && self.at > 0 && self.at + 1 < stops.len() && lives {
            self.left = true;
        }
    }
}

/// What a policy allows at some time.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// The largest share of traffic that a candidate may have, in percent.
    pub weight: u64,
    /// Whether marked requests and copies may go to it.
    pub marked: bool,
    /// The sizes that it may have.
    sizes: Vec<Size>,
    /// Whether the new revision may take stable's place.
    pub promotion: bool,
}

impl Allowed {
    /// The most pods that a candidate may have beside so many of stable's; `None` where it may not be there at all.
    pub fn pods(&self, stable: u64) -> Option<u64> {
        self.sizes.iter().map(|size| size.pods(stable)).max()
    }
}
