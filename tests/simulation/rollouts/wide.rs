//! Rollouts with more in them: routes for gRPC, a mesh, several workloads at once, an autoscaler, Jobs of steps, A/B tests, candidates
//! whose size is given, steps that measure or scale, shares that grow by themselves, and a second daemon that is started by mistake.

use super::super::history::{Edit, History, Step, What};
use super::super::planted::Planted;
use super::super::search::{Arguments, found_by, tried};
use super::super::things::Tag;
use super::{BACK, FRONT, Hook, Key, Kind, Maker, Router, planted, search};
use serde_json::{Value, json};

/// The Job that steps run.
pub const SMOKE: &str = "smoke";

/// Seeds that a plain run tries.
const SEEDS: u64 = 60;

/// Seeds that are tried to find one bug that was put in on purpose.
const PLANTED_SEEDS: u64 = 1000;

/// What there is besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wide {
    /// A second workload.
    pub back: bool,
    /// An autoscaler of the first.
    pub scaler: bool,
    /// Steps that run a Job.
    pub job: bool,
    /// A/B tests.
    pub ab: bool,
    /// A second daemon.
    pub two: bool,
}

impl Wide {
    /// What stands in the directory for it, besides workloads.
    pub fn traffic(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let service = self.back.then_some((Kind::Service, BACK));
        service.into_iter().chain(self.scaler.then_some((Kind::Scaler, FRONT)))
    }
}

/// The history of a seed.
pub fn history(seed: u64) -> History {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x7769_6465);
    let router = match random.u32(0..8) {
        0 | 1 => Router::Mesh,
        2 => Router::Made,
        3 | 4 => Router::Grpc,
        5 => Router::Service,
        6 => Router::Replicas,
        _ => Router::Route,
    };
    let wide = Wide {
        back: matches!(router, Router::Route | Router::Grpc | Router::Mesh) && random.bool(),
        scaler: random.u32(0..3) == 0,
        job: random.u32(0..3) == 0,
        ab: random.bool(),
        two: random.u32(0..4) == 0,
    };
    let mut history = Maker { random, value: 0, router, wide }.history(seed);
    if let Some(policy) = &mut history.deliveries[0].rollout {
        sized(policy, seed);
    }
    super::more::add(&mut history);
    history
}

/// What else a policy may say: a candidate of so many pods, steps that make it another size or measure, and a share that grows by
/// itself. Drawn apart, so that what a seed is otherwise stays as it was.
fn sized(policy: &mut Value, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x7369_7a65_6421);
    let mut one_in = |n: u32| random.u32(0..n) == 0;
    let (fixed, grows, scaled, measures) = (one_in(4), one_in(6), one_in(3), one_in(2));
    let canary = policy["strategy"] == "Canary" && !policy["router"]["replicas"].is_object();
    if canary && fixed {
        policy["candidate"] = json!({"size": "Fixed", "replicas": random.u32(1..4)});
    }
    if let Some(fields) = policy.as_object_mut().filter(|_| canary && grows) {
        fields.remove("steps");
        fields.insert("stepWeight".into(), random.u32(15..60).into());
        fields.insert("maxWeight".into(), random.u32(15..=100).into());
        fields.insert("interval".into(), format!("{}s", random.u32(1..10)).into());
    }
    let measured = policy["analysis"].is_object();
    let counted = policy["router"]["replicas"].is_object();
    let Some(steps) = policy.get_mut("steps").and_then(Value::as_array_mut) else { return };
    if scaled && !counted {
        let size = match random.bool() {
            true => json!({"replicas": random.u32(1..5)}),
            false => json!({"percent": random.u32(20..=100)}),
        };
        steps.insert(random.usize(0..=steps.len()), json!({"scale": size}));
    }
    if measures && measured {
        let step = json!({"analysis": {"count": random.u32(1..4)}});
        steps.insert(random.usize(0..=steps.len()), step);
    }
}

impl Maker {
    /// The Job that steps run.
    pub(super) fn smoke(&mut self, good: bool) -> Edit {
        self.value += 1;
        let tag = match good || self.random.bool() {
            true => self.pick(&[Tag::Ok, Tag::Slow]),
            false => self.pick(&[Tag::Crash, Tag::Unready, Tag::Missing]),
        };
        let (value, point, delete) = (self.value, "rollout-step".into(), None);
        Edit::Hook(0, SMOKE.into(), Some(Hook { value, tag, point, delete }))
    }

    /// Makes a policy one of an A/B test.
    pub(super) fn marked(&mut self, policy: &mut Value, mesh: bool) {
        let mark = json!({"name": "tester", "value": "1"});
        policy["strategy"] = "AB".into();
        policy["ab"] = json!({"duration": format!("{}s", self.random.u32(1..20))});
        policy["ab"][if mesh && self.random.bool() { "cookie" } else { "header" }] = mark;
        for field in ["steps", "scaleDownDelay"] {
            if let Some(fields) = policy.as_object_mut() {
                fields.remove(field);
            }
        }
    }

    /// Adds to what happens: load that comes early, and a second daemon that starts and stops now and then. Whether that stays to
    /// the end.
    pub(super) fn more(&mut self, steps: &mut Vec<Step>) -> bool {
        if self.wide.scaler && self.random.bool() {
            let at = self.random.u64(5_000..9_000);
            steps.insert(0, Step { at, what: What::Edited(Key(Kind::Scaler, FRONT.into())) });
            steps.sort_by_key(|step| step.at);
        }
        if !self.wide.two {
            return false;
        }
        for on in [true, false, true] {
            let at = self.random.u64(5_000..120_000);
            steps.push(Step { at, what: What::Second(on) });
        }
        steps.sort_by_key(|step| step.at);
        self.random.bool()
    }
}

/// Seeds, as many as there is time for.
pub fn seeds(arguments: &Arguments) -> Result<String, String> {
    tried(arguments, SEEDS, history)
}

/// Each bug is found, and by a promise that it breaks.
pub fn planted_bugs(arguments: &Arguments) -> Result<String, String> {
    let mut said = Vec::new();
    let (bug, promises) = planted::LATE;
    match search::late(arguments, bug, promises) {
        Some(write) => said.push(format!("{bug:?} by write {write}")),
        None => return Err(format!("{bug:?} was put in, and no write that came late found it")),
    }
    for (bug, promises) in planted::WIDE {
        said.push(found_by(arguments, bug, promises, PLANTED_SEEDS, |seed| {
            let history = history(seed);
            let first = &history.deliveries[0].first;
            let concerned = match bug {
                Planted::CapacityLost => first.things.keys().any(|key| key.0 == Kind::Scaler),
                _ => !first.hooks.is_empty(),
            };
            concerned.then_some(history)
        })?);
    }
    Ok(said.join(", "))
}
