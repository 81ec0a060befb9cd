//! What histories have besides: settings, hooks, Deliveries that wait for another, revisions that are watched on, commits
//! that are taken back. Drawn apart, so that what a seed is otherwise stays as it was.

use super::history::{Edit, History, Step, What};
use super::things::{Hook, Kind, Settings, Tag, Thing};

/// Draws them.
struct More {
    random: fastrand::Rng,
    value: u32,
}

/// Adds them to a history.
pub fn add(history: &mut History) {
    let mut more = More { random: fastrand::Rng::with_seed(history.seed ^ 0x6d6f_7265), value: 10_000 };
    let count = history.deliveries.len();
    for d in 0..count {
        if more.one_in(4) {
            more.settings(history, d);
        }
        if more.one_in(4) {
            more.hooks(history, d);
        }
        if more.one_in(4) {
            more.watched(history, d);
        }
        history.deliveries[d].revert = more.one_in(5);
    }
    history.protected = more.one_in(4);
    if count > 1 && more.one_in(2) {
        let d = more.random.usize(0..2);
        history.deliveries[d].depends = Some(1 - d);
        if more.one_in(4) {
            let on = if more.one_in(2) { Some(d) } else { None };
            more.step(history, What::Depends(if on.is_some() { 1 - d } else { d }, on));
        }
    }
    history.steps.sort_by_key(|step| step.at);
    // Drawn apart once more.
    let mut more = More { random: fastrand::Rng::with_seed(history.seed ^ 0x6e6f_6465), value: 20_000 };
    if history.deliveries.iter().any(|d| d.bake.is_some()) && more.one_in(2) {
        more.nodes(history);
    }
    history.lease = more.one_in(2);
    match history.lease {
        true => more.leaders(history),
        // Started by mistake, and not kept apart.
        false => {
            let at = more.random.u64(0..30_000);
            history.steps.push(Step { at, what: What::Second(true) });
            history.both |= more.random.bool();
        }
    }
    history.steps.sort_by_key(|step| step.at);
}

impl More {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.u32(0..n) == 0
    }

    fn value(&mut self) -> u32 {
        self.value += 1;
        self.value
    }

    /// Something that happens a while after one of the other things.
    fn step(&mut self, history: &mut History, what: What) {
        let after = match history.steps.len() {
            0 => 1_000,
            steps => history.steps[self.random.usize(0..steps)].at,
        };
        let at = after + self.random.u64(1..30_000);
        history.steps.push(Step { at, what });
    }

    fn tag(&mut self) -> Tag {
        [Tag::Ok, Tag::Ok, Tag::Slow, Tag::Unready, Tag::Missing][self.random.usize(0..5)]
    }

    fn settings(&mut self, history: &mut History, d: usize) {
        history.deliveries[d].settings = Some(Settings { value: self.value(), tag: Tag::Ok });
        let takes = |thing: &mut Thing, kind: Kind, yes: bool| {
            thing.setting = yes && !thing.recreate && matches!(kind, Kind::ConfigMap | Kind::Deployment);
        };
        for (key, thing) in &mut history.deliveries[d].first.things {
            let yes = self.random.bool();
            takes(thing, key.0, yes);
        }
        for step in &mut history.steps {
            let (What::Commit(edits) | What::Rewrite(_, edits)) = &mut step.what else { continue };
            for edit in edits {
                if let Edit::Put(of, key, thing) = edit
                    && *of == d
                {
                    let yes = self.random.bool();
                    takes(thing, key.0, yes);
                }
            }
        }
        for _ in 0..self.random.usize(1..4) {
            let new = Settings { value: self.value(), tag: self.tag() };
            self.step(history, What::Settings(d, Some(new)));
        }
        if self.one_in(4) {
            self.step(history, What::Settings(d, None));
        }
        if self.one_in(8) {
            self.step(history, What::KeptLost(d));
        }
    }

    fn hook(&mut self, good: bool) -> Hook {
        let point = ["before-apply", "before-apply", "after-apply", "on-failure", "on-rollback"];
        let delete = [None, Some("hook-succeeded"), Some("hook-succeeded,hook-failed")];
        let bad = [Tag::Crash, Tag::Unready, Tag::Missing];
        Hook {
            value: self.value(),
            tag: match good || self.one_in(2) {
                true => [Tag::Ok, Tag::Slow][self.random.usize(0..2)],
                false => bad[self.random.usize(0..3)],
            },
            point: point[self.random.usize(0..5)].into(),
            delete: delete[self.random.usize(0..3)].map(str::to_owned),
        }
    }

    fn hooks(&mut self, history: &mut History, d: usize) {
        let name = |random: &mut fastrand::Rng| {
            ["prepare", "tell"][random.usize(0..2)].to_owned() + &format!("-{d}")
        };
        for _ in 0..self.random.usize(1..3) {
            let hook = self.hook(true);
            history.deliveries[d].first.hooks.insert(name(&mut self.random), hook);
        }
        for at in 0..history.steps.len() {
            if !matches!(history.steps[at].what, What::Commit(_)) || !self.one_in(2) {
                continue;
            }
            let hook = if self.one_in(5) { None } else { Some(self.hook(false)) };
            let edit = Edit::Hook(d, name(&mut self.random), hook);
            if let What::Commit(edits) = &mut history.steps[at].what {
                edits.push(edit);
            }
        }
    }

    /// Nodes are lost, or full, while a revision is watched on; sometimes for longer than it has to become healthy.
    fn nodes(&mut self, history: &mut History) {
        for _ in 0..self.random.usize(1..3) {
            let node = self.random.bool();
            let what = |fine: bool| if node { What::Node(fine) } else { What::Room(fine) };
            let after = match history.steps.len() {
                0 => 1_000,
                steps => history.steps[self.random.usize(0..steps)].at,
            };
            let at = after + self.random.u64(3_000..25_000);
            let long = if self.one_in(2) { 60_000..200_000 } else { 5_000..60_000 };
            history.steps.push(Step { at, what: what(false) });
            history.steps.push(Step { at: at + self.random.u64(long), what: what(true) });
        }
    }

    /// The one that works is killed or cannot be heard for a while, now and then for longer than its Lease holds.
    fn leaders(&mut self, history: &mut History) {
        for _ in 0..self.random.usize(1..4) {
            let slot = usize::from(self.one_in(3));
            let what = match self.random.u32(0..4) {
                0 => What::Killed(slot),
                1 => What::Asleep(slot, self.random.u32(1_000..12_000)),
                _ => What::Asleep(slot, self.random.u32(12_000..50_000)),
            };
            self.step(history, what);
        }
    }

    /// Revisions are watched on, and some Deployments are healthy for a while only.
    fn watched(&mut self, history: &mut History, d: usize) {
        history.deliveries[d].bake = Some(self.random.u32(10..60));
        for step in &mut history.steps {
            let What::Commit(edits) = &mut step.what else { continue };
            for edit in edits {
                if let Edit::Put(of, key, thing) = edit
                    && *of == d
                    && key.0 == Kind::Deployment
                    && thing.tag.is_good()
                    && self.random.u32(0..3) == 0
                {
                    thing.tag = Tag::Flaky;
                }
            }
        }
    }
}
