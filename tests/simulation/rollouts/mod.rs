//! Rollouts with a candidate in the simulation: what stands in Git, how it is rolled out, and what happens meanwhile,
//! from a seed.

pub mod oracle;
pub mod planted;
pub mod search;

use super::history::{Edit, Fault, History, Lag, Setup, Step, What};
use super::things::{Directory, Key, Kind, Tag, Thing};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The workload that is rolled out, its Service and its route.
pub const FRONT: &str = "front";

/// The ConfigMap that it reads.
const READ: &str = "words";

/// The labels that a workload selects its pods by: fixed by its name.
pub fn labels(workload: &str) -> Value {
    match workload == FRONT {
        true => json!({"app": workload, "tier": "front"}),
        false => json!({"app": workload}),
    }
}

/// Whether a name is one of a candidate's objects.
pub fn is_candidate(name: &str) -> bool {
    name.ends_with("-canary") || name.ends_with("-preview")
}

/// What of a manifest is peculiar to Services and routes.
pub fn manifest(key: &Key, thing: &Thing, object: &mut Value) {
    object["metadata"]["labels"] = json!({"value": thing.value.to_string()});
    if key.0 == Kind::Service {
        object["spec"] = json!({"selector": labels(FRONT), "ports": [{"port": 80, "targetPort": 8080}]});
        return;
    }
    let backend = json!({"name": FRONT, "port": 80});
    let mut rules = vec![json!({"backendRefs": [backend]})];
    if thing.more {
        let matches = json!([{"path": {"type": "PathPrefix", "value": "/more"}}]);
        rules.push(json!({"matches": matches, "backendRefs": [backend]}));
    }
    object["spec"] = json!({"parentRefs": [{"name": "gateway"}], "rules": rules});
}

/// What a person makes of a route: all traffic for stable, under a name of his own.
pub fn edited() -> Value {
    json!({"spec": {
        "hostnames": ["edited.example.com"],
        "rules": [{"backendRefs": [{"name": FRONT, "port": 80, "weight": 7}]}],
    }})
}

/// The history of a seed.
pub fn history(seed: u64) -> History {
    Maker { random: fastrand::Rng::with_seed(seed ^ 0x726f_6c6c), value: 0 }.history(seed)
}

struct Maker {
    random: fastrand::Rng,
    value: u32,
}

impl Maker {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.u32(0..n) == 0
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.random.usize(0..all.len())].clone()
    }

    fn thing(&mut self, tag: Tag) -> Thing {
        self.value += 1;
        Thing {
            value: self.value,
            tag,
            replicas: self.random.u32(1..4),
            prune: None,
            wave: None,
            recreate: false,
            more: self.one_in(3),
            invalid: false,
            ttl: None,
            setting: false,
            reads: None,
        }
    }

    fn front(&mut self, good: bool) -> Edit {
        let tag = match good {
            true => self.pick(&[Tag::Ok, Tag::Ok, Tag::Slow]),
            false => self.pick(&[Tag::Ok, Tag::Slow, Tag::Crash, Tag::Missing, Tag::Unready, Tag::Flaky]),
        };
        let mut thing = self.thing(tag);
        thing.reads = self.random.bool().then(|| READ.to_owned());
        Edit::Put(0, Key(Kind::Deployment, FRONT.into()), thing)
    }

    fn other(&mut self, kind: Kind, name: &str) -> Edit {
        Edit::Put(0, Key(kind, name.into()), self.thing(Tag::Ok))
    }

    /// A commit: mostly one that changes pods.
    fn edits(&mut self) -> Vec<Edit> {
        let mut edits = match self.random.u32(0..10) {
            0 => vec![self.other(Kind::ConfigMap, READ)],
            1 => vec![self.other(Kind::ConfigMap, "more")],
            2 => vec![Edit::Remove(0, Key(Kind::ConfigMap, "more".into()))],
            _ => vec![self.front(false)],
        };
        if self.one_in(4) {
            let kind = self.pick(&[Kind::Service, Kind::Route]);
            edits.push(self.other(kind, FRONT));
        }
        if self.one_in(4) {
            edits.push(self.other(Kind::ConfigMap, READ));
        }
        edits
    }

    fn directory(&mut self) -> Directory {
        let mut things = BTreeMap::new();
        let edits = [self.front(true), self.other(Kind::Service, FRONT), self.other(Kind::ConfigMap, READ)];
        let route = self.other(Kind::Route, FRONT);
        for edit in edits.into_iter().chain([route]) {
            if let Edit::Put(_, key, thing) = edit {
                things.insert(key, thing);
            }
        }
        Directory { things, ..Directory::default() }
    }

    /// `spec.rollout`.
    fn policy(&mut self) -> Value {
        let mut steps = Vec::new();
        let mut weight = 0;
        for _ in 0..self.random.usize(1..4) {
            weight = (weight + self.random.u32(1..50)).min(100);
            steps.push(json!({"weight": weight}));
            if self.random.bool() {
                steps.push(json!({"pause": format!("{}s", self.random.u32(1..20))}));
            }
        }
        let mut policy = json!({
            "strategy": "Canary", "workload": {"name": FRONT}, "router": {"gatewayAPI": {"route": FRONT}},
            "steps": steps, "candidate": {"size": self.pick(&["Full", "Share"])},
        });
        if self.random.bool() {
            policy["settle"] = format!("{}s", self.random.u32(1..8)).into();
        }
        policy
    }

    fn what(&mut self) -> What {
        match self.random.u32(0..30) {
            0..=19 => What::Commit(self.edits()),
            20 | 21 => What::Revert,
            22 => What::Suspend(0, !self.one_in(3)),
            23 => What::DeliveryDeleted(0),
            24 | 25 => What::Killed(0),
            26 => What::Compacted,
            27 => What::Cut,
            28 => What::Ask(0, self.pick(&["promote", "promote-full", "abort", "retry"]).into()),
            _ => What::CacheLost,
        }
    }

    fn history(mut self, seed: u64) -> History {
        let (first, rollout) = (self.directory(), Some(self.policy()));
        let prune = !self.one_in(8);
        let setup = Setup { prune, first, rollout, orphan: self.one_in(4), ..Setup::default() };
        let mut steps = Vec::new();
        let mut at = self.random.u64(8_000..15_000);
        for _ in 0..self.random.usize(1..6) {
            steps.push(Step { at, what: self.what() });
            at += match self.random.u32(0..4) {
                0 => self.random.u64(1..3_000),
                1 | 2 => self.random.u64(1_000..30_000),
                _ => self.random.u64(20_000..120_000),
            };
        }
        let (mut faults, mut lags) = (BTreeMap::new(), BTreeMap::new());
        if !self.one_in(4) {
            let (from, often) = (self.random.u32(20..150), self.random.u32(6..60));
            for n in from..from + self.random.u32(20..300) {
                if self.one_in(often) {
                    faults.insert(n, self.fault());
                }
            }
            let often = self.random.u32(4..40);
            for n in 0..300 {
                if self.one_in(often) {
                    lags.insert(n, self.lag());
                }
            }
        }
        let (both, protected, before) = (false, false, Vec::new());
        let by_id = !self.one_in(3);
        History {
            seed,
            jitter: true,
            by_id,
            both,
            protected,
            deliveries: vec![setup],
            before,
            steps,
            faults,
            lags,
        }
    }

    fn fault(&mut self) -> Fault {
        match self.random.u32(0..14) {
            0..=2 => Fault::Slow(self.random.u32(20..3_000)),
            3 => Fault::Slow(self.random.u32(3_000..20_000)),
            4 | 5 => Fault::Refused(self.pick(&[409, 429, 500, 503, 504])),
            6 => Fault::Broken,
            7 | 8 => Fault::Lost,
            9 | 10 => Fault::CrashBefore,
            11 | 12 => Fault::CrashAfter,
            _ => Fault::CrashLate(self.random.u32(10..20_000)),
        }
    }

    fn lag(&mut self) -> Lag {
        match self.random.u32(0..5) {
            0 | 1 => Lag::Late(self.random.u32(10..1_500)),
            2 => Lag::Late(self.random.u32(1_500..10_000)),
            3 => Lag::Cut,
            _ => Lag::Twice,
        }
    }
}
