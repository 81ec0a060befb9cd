//! What must hold of what a revision is begun and ended by: its settings, its hooks, what it depends on, the time for which
//! it is watched on, and the commit that takes it back.

use super::git::Remote;
use super::history::History;
use super::oracle::{Known, Promise, Violation, violated};
use super::run::HINDERED;
use super::things::{Directory, Kind, Settings, Tag};
use super::world::Life;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use windlass::api::names;
use windlass::core::digest;

/// The installation's key, under which digests of settings are made.
const KEY: &[u8] = b"simulation simulation simulation";

/// Between a look at another Delivery and the status that is written after it, in milliseconds: what requests take.
const RECENT: u64 = 1_000;

/// What was seen of all that.
#[derive(Default)]
pub struct Attempts {
    /// Whose settings are what now.
    current: BTreeMap<usize, Option<Settings>>,
    /// All settings that there ever were, by their digest.
    digests: BTreeMap<String, Settings>,
    /// What is kept of settings was lost.
    pub kept_lost: BTreeSet<usize>,
    /// Jobs of hooks that stood in a status.
    recorded: BTreeSet<String>,
    /// Those that were made.
    made: BTreeSet<String>,
    /// Those that one of two daemons deleted while both were at work.
    crossed: BTreeSet<String>,
    /// Which life has taken back which commit.
    reverted: BTreeSet<(usize, u32, usize, String)>,
    /// What Deliveries had settled last, and until when.
    settled: BTreeMap<usize, (Value, u64)>,
    /// Since when Deliveries are ready, in milliseconds.
    ready_since: BTreeMap<usize, u64>,
}

/// Whether an object is the Job of a hook.
pub fn is_hook(object: &Value) -> bool {
    object["kind"] == "Job" && !object["metadata"]["labels"][names::HOOK].is_null()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// The Delivery of the same namespace that one depends on.
fn depends(delivery: &Value) -> Option<usize> {
    delivery["spec"]["dependsOn"][0]["name"].as_str()?.strip_prefix('d')?.parse().ok()
}

/// Whether a Delivery depends on itself over another.
fn in_cycle(all: &[Option<Arc<Value>>], d: usize) -> bool {
    let on = |d: usize| all.get(d).and_then(Option::as_ref).and_then(|delivery| depends(delivery));
    on(d).is_some_and(|other| other == d || on(other) == Some(d))
}

impl Attempts {
    /// What there is at the beginning.
    pub fn new(history: &History) -> Self {
        let mut attempts = Attempts::default();
        for (d, setup) in history.deliveries.iter().enumerate() {
            if let Some(settings) = &setup.settings {
                attempts.set(d, Some(settings.clone()));
            }
        }
        attempts
    }

    /// Settings are others now.
    pub fn set(&mut self, d: usize, settings: Option<Settings>) {
        if let Some(settings) = &settings {
            self.digests.insert(digest::of_value_keyed(&settings.values(), KEY), settings.clone());
        }
        self.current.insert(d, settings);
    }

    /// The settings that a revision was rendered with.
    pub fn of(&self, revision: &Value) -> Option<&Settings> {
        self.digests.get(revision["settings"].as_str()?)
    }

    /// Whether the settings of now are those of a revision, or cannot be.
    pub fn are_current(&self, d: usize, revision: &Value) -> bool {
        match self.current.get(&d) {
            None | Some(None) => true,
            Some(Some(current)) => self.of(revision) == Some(current),
        }
    }

    /// Whether what a Delivery reads is not there.
    pub fn are_missing(&self, d: usize) -> bool {
        self.current.get(&d) == Some(&None)
    }

    /// A Job of a hook was made.
    pub fn hook_made(&mut self, life: &Life, job: &Value, two: bool) -> Option<Violation> {
        let name = name(job);
        // What a daemon that died sent comes late.
        if !life.works() {
            return None;
        }
        if !self.recorded.contains(&name) {
            return violated(Promise::HooksOnce, format!("{life} made {name}, which no status tells of"));
        }
        // What two send crosses: one that has run and is deleted comes once more, also by one that has slept meanwhile.
        if !self.made.insert(name.clone()) && !two && !self.crossed.contains(&name) {
            return violated(Promise::HooksOnce, format!("{life} made {name} once more"));
        }
        None
    }

    /// A Job of a hook was deleted by a daemon.
    pub fn hook_deleted(&mut self, life: &Life, job: &Value, two: bool) -> Option<Violation> {
        let name = name(job);
        if two {
            self.crossed.insert(name.clone());
        }
        if self.recorded.contains(&name) {
            return None;
        }
        violated(Promise::OnlyInventory, format!("{life} deleted {name}, which stood in no status"))
    }

    /// A commit was taken back in Git.
    pub fn reverted(
        &mut self,
        life: &Life,
        d: usize,
        bad: &str,
        status: &Value,
        two: bool,
    ) -> Option<Violation> {
        if !life.works() || status["held"]["revision"]["commit"] != bad {
            return None;
        }
        let again = !self.reverted.insert((life.slot, life.number, d, bad.to_owned()));
        // What another daemon has written meanwhile is not known to this one.
        let recorded = !two && !status["held"]["revert"]["commit"].is_null();
        (again || recorded).then(|| Violation {
            promise: Promise::RevertsOnce,
            what: format!("{life} takes {bad} back once more for d{d}"),
        })
    }

    /// A person has what is held tried again: it may be taken back again.
    pub fn released(&mut self, d: usize) {
        self.reverted.retain(|(_, _, of, _)| *of != d);
    }

    /// A status was written.
    pub fn status_written(
        &mut self,
        d: usize,
        known: Known<'_>,
        old: &Value,
        after: &Value,
    ) -> Option<Violation> {
        let Known { remote, two, at, .. } = known;
        let new = &after["status"];
        let settled = |status: &Value| (status["phase"] == "Ready").then(|| status["effective"].clone());
        if let Some(before) = settled(old)
            && settled(new).as_ref() != Some(&before)
        {
            self.settled.insert(d, (before, at.millis));
        }
        for run in new["hooks"].as_array().into_iter().flatten() {
            if run["step"] != "Planned" {
                self.recorded.insert(run["job"].as_str().unwrap_or_default().to_owned());
            }
        }
        let directory = |r: &Value| -> Option<&Directory> { remote.at(r["commit"].as_str()?, d) };
        if let Some(effective) = directory(&new["effective"])
            && let Some((name, _)) = effective.hooks.iter().find(|(_, hook)| !hook.lets_pass())
        {
            let what =
                format!("d{d}: {} is taken for good, and {name} never passes", new["effective"]["commit"]);
            return violated(Promise::OnlyGoodIsGood, what);
        }
        // Kept for good, though it was healthy for a while only.
        let kept = !old["bake"].is_null()
            && new["bake"].is_null()
            && new["attempt"].is_null()
            && new["effective"] == old["effective"];
        if kept && let Some(effective) = directory(&new["effective"]) {
            let settings = self.of(&new["effective"]);
            let flaky = effective.things.iter().find(|(key, thing)| {
                key.0 == Kind::Deployment && thing.tag(settings) == Tag::Flaky && thing.replicas > 0
            });
            if let Some((key, _)) = flaky {
                let what =
                    format!("d{d}: {key} has crashed while its revision was watched on, which is kept");
                return violated(Promise::WatchedOn, what);
            }
        }
        let begun = new["attempt"]["goal"] == "Deploy"
            && new["attempt"]["startedAt"] != old["attempt"]["startedAt"]
            && new["attempt"]["revision"] != old["attempt"]["revision"];
        if begun
            && !two
            && new["observedGeneration"] == after["metadata"]["generation"]
            && let Some(on) = depends(after)
            && on != d
            && let Some(status) = known.others.get(&on)
        {
            let commit = new["attempt"]["revision"]["commit"].as_str().unwrap_or_default();
            // With that of its own commit, or of one that came a moment after.
            let wanted = [remote.at(commit, on), remote.at(known.view, on)];
            let runs = |r: &Value| r["commit"].as_str().is_some_and(|c| wanted.contains(&remote.at(c, on)));
            let recent = if at.hindered { HINDERED } else { RECENT };
            let was = self.settled.get(&on).filter(|(_, until)| at.millis < until + recent);
            if !settled(status).is_some_and(|r| runs(&r)) && !was.is_some_and(|(r, _)| runs(r)) {
                let what = format!(
                    "d{d}: {commit} is begun, and d{on}, which it depends on, is {} and runs {}",
                    status["phase"], status["effective"]["commit"]
                );
                return violated(Promise::DependencyFirst, what);
            }
        }
        None
    }

    /// Whether what waits for another waits on although that is ready.
    pub fn time(
        &mut self,
        remote: &Remote,
        all: &[Option<Arc<Value>>],
        newest: &str,
        at: u64,
        limit: u64,
    ) -> Option<Violation> {
        for (d, delivery) in all.iter().enumerate() {
            match delivery {
                Some(delivery) if is_ready(remote, d, delivery, newest) => {
                    self.ready_since.entry(d).or_insert(at);
                }
                _ => drop(self.ready_since.remove(&d)),
            }
        }
        for (d, delivery) in all.iter().enumerate() {
            let Some(delivery) = delivery else { continue };
            let waits = &delivery["status"]["waiting"];
            if waits.is_null() || in_cycle(all, d) || !delivery["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let Some(on) = depends(delivery) else { continue };
            if let Some(since) = self.ready_since.get(&on)
                && at > since + limit
            {
                let what = format!("d{d} waits for d{on}, which has been ready for {} ms", at - since);
                return violated(Promise::NewerGoesFirst, what);
            }
        }
        None
    }

    /// Nothing hinders anybody since then.
    pub fn hindered(&mut self, at: u64) {
        self.ready_since.values_mut().for_each(|since| *since = at);
    }

    /// What waits for something that is not ready, or for itself.
    pub fn waits(&self, all: &[Option<Arc<Value>>], d: usize) -> bool {
        let Some(delivery) = all.get(d).and_then(Option::as_ref) else { return false };
        let ready = |on: usize| {
            let phase = all.get(on).and_then(Option::as_ref).map(|d| &d["status"]["phase"]);
            phase.is_some_and(|phase| phase == "Ready") && self.ready_since.contains_key(&on)
        };
        !delivery["status"]["waiting"].is_null()
            && (in_cycle(all, d) || depends(delivery).is_some_and(|on| !ready(on)))
    }
}

/// Whether others may begin after a Delivery.
fn is_ready(remote: &Remote, d: usize, delivery: &Value, newest: &str) -> bool {
    let status = &delivery["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let is = |kind: &str| conditions.clone().any(|c| c["type"] == kind && c["status"] == "True");
    let runs = status["effective"]["commit"].as_str().and_then(|c| remote.at(c, d));
    status["phase"] == "Ready"
        && is("Ready")
        && delivery["metadata"]["deletionTimestamp"].is_null()
        && status["observedGeneration"] == delivery["metadata"]["generation"]
        && runs.is_some()
        && runs == remote.at(newest, d)
}
