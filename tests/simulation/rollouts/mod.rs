//! Rollouts with a candidate in the simulation: what stands in Git, how it is rolled out, and what happens meanwhile,
//! from a seed.

mod more;
pub mod oracle;
pub mod planted;
pub mod provider;
mod reached;
pub mod routes;
pub mod search;
pub mod wide;

use super::history::{Edit, Fault, History, Lag, Setup, Step, What};
use super::things::{Directory, Hook, Key, Kind, SPACE, Tag, Thing};
use super::world::World;
use provider::Says;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use wide::Wide;

/// The workload that is rolled out, its Service and its route.
pub const FRONT: &str = "front";

/// A second workload that may be rolled out with it, and its Service.
pub const BACK: &str = "back";

/// A Service that reaches the pods of both variants.
const SHARED: &str = "shared";

/// The ConfigMap that it reads.
const READ: &str = "words";

/// The labels that a workload selects its pods by: fixed by its name.
pub fn labels(workload: &str) -> Value {
    match workload == FRONT || workload == more::RENAMED {
        true => json!({"app": FRONT, "tier": "front"}),
        false => json!({"app": workload}),
    }
}

/// Whether a name is one of a candidate's objects.
pub fn is_candidate(name: &str) -> bool {
    stable_of(name) != name
}

/// The name in Git of what a candidate's object stands beside.
pub fn stable_of(name: &str) -> &str {
    let cut = name.strip_suffix("-canary").or_else(|| name.strip_suffix("-preview"));
    cut.unwrap_or(name)
}

/// Makes the pods of a workload not well, or well again.
pub fn make_sick(world: &World, name: &str, sick: bool) {
    let all = format!("/api/v1/namespaces/{SPACE}/pods");
    let patch = json!({"metadata": {"annotations": {"example.com/sick": if sick { "yes" } else { "no" }}}});
    for pod in world.list(&all) {
        // The names of its ReplicaSet and of the pod come after its own.
        let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
        if pod.rsplitn(3, '-').nth(2) == Some(name) {
            world.person("PATCH", &format!("{all}/{pod}"), "application/merge-patch+json", &patch);
        }
    }
}

/// What moves traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Router {
    /// A route in the directory.
    Route,
    /// A route of somebody else.
    Theirs,
    Service,
    Replicas,
    /// A route for gRPC in the directory.
    Grpc,
    /// A VirtualService in the directory.
    Mesh,
    /// One that is made.
    Made,
}

impl Router {
    /// The kind of route that it is.
    fn kind(self) -> Option<Kind> {
        match self {
            Router::Route | Router::Theirs => Some(Kind::Route),
            Router::Grpc => Some(Kind::Grpc),
            Router::Mesh | Router::Made => Some(Kind::Mesh),
            Router::Service | Router::Replicas => None,
        }
    }
}

/// The history of a seed.
pub fn history(seed: u64) -> History {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x726f_6c6c);
    let router = match random.u32(0..8) {
        0..=3 => Router::Route,
        4 => Router::Theirs,
        5 | 6 => Router::Service,
        _ => Router::Replicas,
    };
    let mut history = Maker { random, value: 0, router, wide: Wide::default() }.history(seed);
    more::add(&mut history);
    history
}

/// A history without faults: a workload, and commits of it at these times, in milliseconds.
fn plain(router: Router, rollout: Value, commits: &[(u64, Tag)]) -> History {
    let random = fastrand::Rng::with_seed(1);
    let mut maker = Maker { random, value: 0, router, wide: Wide::default() };
    let mut first = maker.directory();
    let front = Key(Kind::Deployment, FRONT.into());
    let first_thing = Thing { reads: Some(READ.into()), ..maker.thing(Tag::Ok) };
    let mut steps = Vec::new();
    for (at, tag) in commits {
        let next = Thing { reads: Some(READ.into()), ..maker.thing(*tag) };
        let mut edits = vec![Edit::Put(0, front.clone(), next), maker.other(Kind::ConfigMap, READ)];
        if router == Router::Route {
            edits.push(maker.other(Kind::Route, FRONT));
        }
        steps.push(Step { at: *at, what: What::Commit(edits) });
    }
    first.things.insert(front, first_thing);
    let mut before = Vec::new();
    if router == Router::Theirs {
        before.push((Key(Kind::Route, FRONT.into()), maker.thing(Tag::Ok)));
    }
    History {
        seed: 1,
        jitter: true,
        by_id: true,
        both: false,
        lease: false,
        protected: false,
        deliveries: vec![Setup { prune: true, first, rollout: Some(rollout), ..Setup::default() }],
        before,
        steps,
        faults: BTreeMap::new(),
        lags: BTreeMap::new(),
    }
}

/// A canary with a step of 30 percent.
fn canary() -> Value {
    json!({
        "strategy": "Canary", "workload": {"name": FRONT}, "router": {"gatewayAPI": {"route": FRONT}},
        "steps": [{"weight": 30}], "settle": "1s", "candidate": {"size": "Share"},
    })
}

/// A canary that is healthy beside stable, and not in its place: it goes through every stage, and back.
pub fn promotion_fails() -> History {
    plain(Router::Route, canary(), &[(6_000, Tag::Alone)])
}

/// The same by a policy that is given to what runs already.
pub fn switched_on(seed: u64) -> History {
    let mut history = promotion_fails();
    history.seed = seed;
    more::switch_on(&mut history, 4_000);
    history.steps.sort_by_key(|step| step.at);
    history
}

/// Histories without faults that end each in another way: a promotion that fails, one by a route of somebody else that does not, a
/// candidate that gets ill when it has all the traffic, one that a newer commit takes the place of, and one that Git takes back while a
/// person is waited for.
pub fn endings() -> Vec<History> {
    let mut switch = json!({
        "strategy": "BlueGreen", "workload": {"name": FRONT}, "router": {"service": {"name": FRONT}},
        "steps": [], "settle": "1s", "scaleDownDelay": "19s",
    });
    let mut ill = plain(Router::Service, switch.clone(), &[(6_000, Tag::Ok)]);
    let sick = What::Sick(more::candidate(&switch), true);
    ill.steps.push(Step { at: 14_000, what: sick });
    let mut paused = canary();
    paused["steps"] = json!([{"weight": 30}, {"pause": {}}]);
    let overtaken = plain(Router::Route, paused.clone(), &[(6_000, Tag::Ok), (13_000, Tag::Crash)]);
    switch["steps"] = json!([{"pause": {}}]);
    let mut taken_back = plain(Router::Service, switch, &[(6_000, Tag::Ok)]);
    taken_back.steps.push(Step { at: 13_000, what: What::Revert });
    let theirs = plain(Router::Theirs, canary(), &[(6_000, Tag::Ok)]);
    vec![promotion_fails(), theirs, ill, overtaken, taken_back]
}

/// A canary that is healthy and answers wrongly, which is measured.
pub fn answers_wrongly(seed: u64) -> History {
    let mut history = promotion_fails();
    history.seed = seed;
    for step in &mut history.steps {
        let What::Commit(edits) = &mut step.what else { continue };
        for edit in edits {
            if let Edit::Put(_, Key(Kind::Deployment, _), thing) = edit {
                thing.tag = Tag::Wrong;
            }
        }
    }
    if let Some(rollout) = &mut history.deliveries[0].rollout {
        rollout["steps"] = json!([{"weight": 30}, {"pause": "10s"}]);
        rollout["analysis"] = measured("2s", 0, 2, "Fail");
    }
    history
}

/// `analysis` with one metric.
fn measured(interval: &str, failures: u32, errors: u32, no_data: &str) -> Value {
    json!({
        "interval": interval, "failureLimit": failures, "consecutiveErrorLimit": errors, "onNoData": no_data,
        "metrics": [{
            "name": "rate", "success": "result >= 0.99",
            "prometheus": {"address": "http://prometheus:9090", "query": r#"rate{workload="{{ candidate }}"}"#},
        }],
    })
}

struct Maker {
    router: Router,
    random: fastrand::Rng,
    value: u32,
    /// What there is besides.
    wide: Wide,
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
            scaled: false,
        }
    }

    fn front(&mut self, good: bool) -> Edit {
        self.workload(FRONT, good)
    }

    fn workload(&mut self, name: &str, good: bool) -> Edit {
        const BAD: [Tag; 6] = [Tag::Crash, Tag::Missing, Tag::Unready, Tag::Flaky, Tag::Wrong, Tag::Alone];
        let tag = match good || self.random.bool() {
            true => self.pick(&[Tag::Ok, Tag::Ok, Tag::Slow]),
            false => self.pick(&BAD),
        };
        let mut thing = self.thing(tag);
        thing.reads = self.random.bool().then(|| READ.to_owned());
        thing.scaled = self.wide.scaler && name == FRONT;
        Edit::Put(0, Key(Kind::Deployment, name.into()), thing)
    }

    fn other(&mut self, kind: Kind, name: &str) -> Edit {
        let mut thing = self.thing(Tag::Ok);
        thing.reads = (self.wide.back && self.router.kind() == Some(kind)).then(|| BACK.to_owned());
        Edit::Put(0, Key(kind, name.into()), thing)
    }

    /// What moves traffic, and stands in the directory besides the workload.
    fn traffic(&self) -> Vec<(Kind, &'static str)> {
        let mut all = match self.router {
            Router::Route => vec![(Kind::Service, FRONT), (Kind::Route, FRONT)],
            Router::Grpc => vec![(Kind::Service, FRONT), (Kind::Grpc, FRONT)],
            Router::Mesh => vec![(Kind::Service, FRONT), (Kind::Mesh, FRONT), (Kind::Rule, FRONT)],
            Router::Made => vec![(Kind::Service, FRONT), (Kind::Rule, FRONT)],
            Router::Theirs | Router::Service => vec![(Kind::Service, FRONT)],
            Router::Replicas => vec![(Kind::Service, SHARED)],
        };
        all.extend(self.wide.traffic());
        all
    }

    /// A commit: mostly one that changes pods.
    fn edits(&mut self) -> Vec<Edit> {
        let mut edits = match self.random.u32(0..10) {
            0 => vec![self.other(Kind::ConfigMap, READ)],
            1 => vec![self.other(Kind::ConfigMap, "more")],
            2 => vec![Edit::Remove(0, Key(Kind::ConfigMap, "more".into()))],
            _ if self.wide.back && self.one_in(2) => vec![self.workload(BACK, false)],
            _ => vec![self.front(false)],
        };
        if self.wide.back && self.one_in(3) {
            edits.push(self.workload(BACK, false));
        }
        if self.wide.job && self.one_in(3) {
            edits.push(self.smoke(false));
        }
        if self.one_in(4) {
            let traffic = self.traffic();
            let (kind, name) = self.pick(&traffic);
            edits.push(self.other(kind, name));
        }
        if self.one_in(4) {
            edits.push(self.other(Kind::ConfigMap, READ));
        }
        edits
    }

    fn directory(&mut self) -> Directory {
        let mut edits = vec![self.front(true), self.other(Kind::ConfigMap, READ)];
        if self.wide.back {
            edits.push(self.workload(BACK, true));
        }
        for (kind, name) in self.traffic() {
            edits.push(self.other(kind, name));
        }
        let put = |edit| match edit {
            Edit::Put(_, key, thing) => Some((key, thing)),
            _ => None,
        };
        let things = edits.into_iter().filter_map(put).collect();
        let mut directory = Directory { things, ..Directory::default() };
        if self.wide.job
            && let Edit::Hook(_, name, Some(hook)) = self.smoke(true)
        {
            directory.hooks.insert(name, hook);
        }
        directory
    }

    fn pause(&mut self) -> Value {
        match self.one_in(12) {
            true => json!({"pause": {}}),
            false => json!({"pause": format!("{}s", self.random.u32(1..20))}),
        }
    }

    /// `spec.rollout`.
    fn policy(&mut self) -> Value {
        let routed = self.router.kind().is_some();
        let mesh = self.router.kind() == Some(Kind::Mesh);
        let canary = self.router == Router::Replicas || routed && !self.one_in(3);
        let mut steps = Vec::new();
        if canary {
            let mut weight = 0;
            for _ in 0..self.random.usize(1..4) {
                if routed && self.one_in(8) {
                    let cookie = json!({"cookie": {"name": "tester", "value": "1"}});
                    let header = json!({"header": {"name": "x-test", "value": "1"}});
                    let marked = [if mesh { cookie } else { header }, json!({"mirror": {}})];
                    steps.push(self.pick(&marked));
                } else {
                    weight = (weight + self.random.u32(1..50)).min(100);
                    steps.push(json!({"weight": weight}));
                }
                if self.random.bool() {
                    steps.push(self.pause());
                }
                if self.wide.job && self.one_in(2) {
                    steps.push(json!({"job": {"name": wide::SMOKE, "timeout": "20s"}}));
                }
            }
        } else if self.wide.job && self.one_in(2) {
            steps.push(json!({"job": {"name": wide::SMOKE, "timeout": "20s"}}));
        } else if self.random.bool() {
            steps.push(self.pause());
        }
        let router = match self.router {
            Router::Route | Router::Theirs => json!({"gatewayAPI": {"route": FRONT}}),
            Router::Grpc => json!({"gatewayAPI": {"route": FRONT, "kind": "GRPCRoute"}}),
            Router::Mesh | Router::Made => json!({"istio": {"virtualService": FRONT}}),
            Router::Service => json!({"service": {"name": FRONT}}),
            Router::Replicas => json!({"replicas": {}}),
        };
        let mut policy = json!({
            "strategy": if canary { "Canary" } else { "BlueGreen" }, "workload": {"name": FRONT},
            "router": router, "steps": steps,
        });
        if canary {
            let size = self.pick(&["Full", "Share"]);
            // Where pods are the traffic there is no other.
            policy["candidate"] =
                json!({"size": if self.router == Router::Replicas { "Share" } else { size }});
        } else {
            policy["scaleDownDelay"] = format!("{}s", self.random.u32(1..20)).into();
        }
        if self.random.bool() {
            policy["settle"] = format!("{}s", self.random.u32(1..8)).into();
        }
        if self.wide.back {
            policy["workload"] = Value::Null;
            policy["workloads"] = json!([{"name": FRONT}, {"name": BACK}]);
        }
        if self.wide.ab && routed && self.one_in(2) {
            self.marked(&mut policy, mesh);
        }
        if !self.wide.back && self.one_in(3) {
            let interval = format!("{}s", self.random.u32(2..10));
            let (failures, errors) = (self.random.u32(0..3), self.random.u32(1..3));
            policy["analysis"] = measured(&interval, failures, errors, self.pick(&["Pause", "Fail", "Pass"]));
        }
        policy
    }

    /// The object that moves traffic.
    fn routing(&mut self) -> Key {
        match self.router {
            Router::Route | Router::Theirs => Key(Kind::Route, FRONT.into()),
            Router::Grpc => Key(Kind::Grpc, FRONT.into()),
            Router::Mesh | Router::Made => Key(Kind::Mesh, FRONT.into()),
            Router::Service => Key(Kind::Service, FRONT.into()),
            Router::Replicas => Key(Kind::Service, SHARED.into()),
        }
    }

    fn what(&mut self) -> What {
        const VERBS: [&str; 6] = ["promote", "promote-full", "abort", "retry", "pause", "resume"];
        const SAID: [Says; 7] =
            [Says::True, Says::True, Says::Nothing, Says::NaN, Says::Error, Says::Down, Says::Late];
        match self.random.u32(0..40) {
            0..=19 => What::Commit(self.edits()),
            20..=22 => What::Revert,
            23 | 24 => What::Suspend(0, !self.one_in(3)),
            25 => What::DeliveryDeleted(0),
            26 | 27 => What::Killed(0),
            28 => What::Compacted,
            29 => What::Cut,
            30..=32 => What::Ask(0, self.pick(&VERBS).into()),
            33 => What::Policy(0, None),
            34 => What::Policy(0, Some(self.policy())),
            35 => What::Sick(FRONT.into(), !self.one_in(3)),
            36 => What::Provider(self.pick(&SAID)),
            37 if self.wide.scaler => What::Edited(Key(Kind::Scaler, FRONT.into())),
            37 => What::Edited(self.routing()),
            38 => What::Deleted(self.routing()),
            _ => What::CacheLost,
        }
    }

    fn history(mut self, seed: u64) -> History {
        let (first, rollout) = (self.directory(), Some(self.policy()));
        let prune = !self.one_in(8);
        let setup = Setup { prune, first, rollout, orphan: self.one_in(4), ..Setup::default() };
        let mut steps: Vec<Step> = Vec::new();
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
        let mut before = Vec::new();
        if self.router == Router::Theirs {
            before.push((Key(Kind::Route, FRONT.into()), self.thing(Tag::Ok)));
        }
        let (both, protected) = (self.more(&mut steps), false);
        let by_id = !self.one_in(3);
        History {
            seed,
            jitter: true,
            by_id,
            both,
            lease: false,
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
