//! What must hold, written down as somebody who sees everything would check it.

use super::attempts::{Attempts, is_hook};
use super::gate::Call;
use super::git::Remote;
use super::history::{History, Setup};
use super::model::Cluster;
use super::rollouts::oracle::{self as rollouts, Rollouts, Standing};
use super::rollouts::stable_of;
use super::things::{Directory, Key, Kind, Settings, Tag, Thing, max_unavailable};
use super::world::{INSTALLATION, Life, TEAM, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use windlass::api::names;
use windlass::source::RevertOrder;

/// Something that must hold and did not.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// What was seen.
    pub what: String,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Once quiet, no object that only a failed commit created is left.
    NothingIsLeft,
    /// Once quiet, every field that the effective bundle names has its value.
    FieldsHold,
    /// What was only adopted is not deleted.
    AdoptedStays,
    /// A held revision is not applied again.
    HeldStaysHeld,
    /// Healthy pods serve at all times.
    PodsServe,
    /// A newer commit is acted on at once.
    NewerGoesFirst,
    /// Nothing outside the inventory is deleted.
    OnlyInventory,
    /// No data is deleted unless that is asked for, and none to roll back.
    DataStays,
    /// Every run ends.
    Ends,
    /// What does not get healthy is not taken for good.
    OnlyGoodIsGood,
    /// A daemon deletes only what it has seen, not what took its place.
    NothingUnseen,
    /// Once quiet, Git's newest commit runs, or it is said why not.
    GitWins,
    /// Once quiet, the newest settings are in use, or it is said why not.
    SettingsWin,
    /// A hook runs once for an attempt at a revision.
    HooksOnce,
    /// A Delivery is not begun before the one that it depends on.
    DependencyFirst,
    /// What loses its health while it is watched on is not kept.
    WatchedOn,
    /// A commit is taken back once.
    RevertsOnce,
    /// What does not fail by itself is not rolled back while it is watched on: a lost node is no reason.
    GoodIsKept,
    /// Once quiet, of two Deliveries that name one object one has it, and the other one says so.
    OneOwner,
    /// Of two daemons with a Lease, the one that does not hold it begins no write.
    OneWorks,
    /// Once quiet, what is held is taken back in Git where that is asked for, or it is said why not.
    Reverts,
    /// A candidate never gets more than its step's weight.
    CandidateShare,
    /// No route is left pointing at nothing.
    RouteToNothing,
    /// Stable is not touched before promotion.
    StableUntouched,
    /// No traffic is sent to a variant that is known not to be well while the other one is.
    TrafficHealthy,
    /// Once a revision has ended, and once quiet, one variant is there and has all traffic.
    OneVariant,
    /// No late request turns traffic that a newer daemon has turned.
    NewestSteers,
    /// While a candidate stands beside it, stable keeps the pods that it had.
    CapacityKept,
    /// No variant gets a larger share of traffic than of the pods that there would be without a rollout.
    CapacityServes,
}

impl std::fmt::Display for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// When something happens, in milliseconds, and whether something else went wrong shortly before.
#[derive(Clone, Copy)]
pub struct Moment {
    pub millis: u64,
    pub hindered: bool,
}

/// What is known besides when a status is written.
pub struct Known<'a> {
    pub remote: &'a Remote,
    /// The status of each Delivery as it was written last.
    pub others: &'a BTreeMap<usize, Value>,
    /// The commit that the daemon saw last.
    pub view: &'a str,
    pub two: bool,
    pub at: Moment,
}

pub fn violated(promise: Promise, what: impl Into<String>) -> Option<Violation> {
    Some(Violation { promise, what: what.into() })
}

/// How soon a newer commit must show in status when nothing goes wrong, in milliseconds.
const AT_ONCE: u64 = 20_000;

/// What was seen, as far as the promises need it.
pub struct Oracle {
    setups: Vec<Setup>,
    labels: Vec<String>,
    /// What a daemon made and is still there, by uid: what it is, and for which Delivery.
    made: BTreeMap<String, (Key, Option<usize>)>,
    /// What people made.
    stood: BTreeSet<String>,
    /// What was nobody's, and was made anew since: what stands there now is given back in its place.
    replaced: BTreeSet<Key>,
    /// What a good revision of a Delivery had.
    good: BTreeSet<(usize, Key)>,
    /// All that ever stood in an inventory.
    inventoried: HashSet<(Key, Option<String>)>,
    /// Claims whose deletion was asked for, by uid; by what they are where that was not known.
    deletable: BTreeSet<String>,
    /// Those that good revisions had.
    good_data: BTreeSet<String>,
    /// Those that a rollback left.
    spared: BTreeSet<String>,
    /// Objects that people did something with.
    touched: BTreeSet<Key>,
    /// Objects whose labels people changed.
    relabelled: BTreeSet<Key>,
    /// Jobs that had completed when a person deleted them, and their value.
    ran: BTreeSet<(Key, String)>,
    /// The commit that is held, by Delivery, and its settings.
    held: BTreeMap<usize, (String, String)>,
    attempts: Attempts,
    /// What was seen of rollouts.
    pub rollouts: Rollouts,
    /// The status that was written last.
    status: BTreeMap<usize, Value>,
    deleting: BTreeSet<usize>,
    /// The version of the workloads that was looked at last.
    looked: u64,
    /// How many pods must serve.
    guaranteed: BTreeMap<Key, i64>,
    /// Deployments whose pods people make not well.
    sick: BTreeSet<Key>,
    /// What each life of a daemon was shown.
    seen: BTreeMap<(usize, u32), HashSet<String>>,
    /// The commit that each daemon saw last.
    views: BTreeMap<usize, String>,
    /// Two daemons are at work: what one has not seen yet of Git, it takes back.
    pub two: bool,
    /// They were at some time.
    pub mixed: bool,
    /// The newest commit that the daemon knows, and since when nothing kept it from acting.
    newest: Option<(String, u64)>,
    /// When the status of each Delivery named which of these last.
    named: BTreeMap<usize, (String, u64)>,
}

impl Oracle {
    pub fn new(history: &History) -> Self {
        let label = |d: usize| names::delivery_label(INSTALLATION, TEAM, &format!("d{d}"));
        Oracle {
            setups: history.deliveries.clone(),
            labels: (0..history.deliveries.len()).map(label).collect(),
            made: BTreeMap::new(),
            stood: BTreeSet::new(),
            replaced: BTreeSet::new(),
            good: BTreeSet::new(),
            inventoried: HashSet::new(),
            deletable: BTreeSet::new(),
            good_data: BTreeSet::new(),
            spared: BTreeSet::new(),
            touched: BTreeSet::new(),
            relabelled: BTreeSet::new(),
            ran: BTreeSet::new(),
            held: BTreeMap::new(),
            attempts: Attempts::new(history),
            rollouts: Rollouts::default(),
            status: BTreeMap::new(),
            deleting: BTreeSet::new(),
            looked: 0,
            guaranteed: BTreeMap::new(),
            sick: BTreeSet::new(),
            seen: BTreeMap::new(),
            views: BTreeMap::new(),
            two: false,
            mixed: false,
            newest: None,
            named: BTreeMap::new(),
        }
    }

    /// An object was made by a person.
    pub fn stood_there(&mut self, object: &Value) {
        self.stood.insert(uid(object));
    }

    /// A person did something with an object: what becomes of its pods is his business.
    pub fn person_touched(&mut self, key: &Key, relabelled: bool) {
        self.guaranteed.remove(key);
        self.touched.insert(key.clone());
        if relabelled {
            self.relabelled.insert(key.clone());
        }
    }

    /// The pods of a Deployment are not well, which is nobody's fault.
    pub fn made_sick(&mut self, key: &Key) {
        self.guaranteed.remove(key);
        self.sick.insert(key.clone());
    }

    /// A person deletes an object, as it stands there now. A Job that has completed is not run again.
    pub fn person_deletes(&mut self, key: &Key, there: &Value) {
        let mut conditions = there["status"]["conditions"].as_array().into_iter().flatten();
        if conditions.any(|c| c["type"] == "Complete" && c["status"] == "True") {
            self.ran.insert((key.clone(), value_of(there)));
        }
    }

    /// A person changes settings. What they were to blame for may be tried again.
    pub fn person_sets(&mut self, d: usize, settings: Option<Settings>) {
        self.attempts.set(d, settings);
    }

    /// A person changes `spec.rollout`, or takes it out.
    pub fn person_changes_policy(&mut self, d: usize, policy: Option<Value>) {
        self.setups[d].rollout = policy;
        self.rollouts.person_changed();
    }

    /// What is kept of settings is lost.
    pub fn person_loses_kept(&mut self, d: usize) {
        self.attempts.kept_lost.insert(d);
    }

    /// A commit was taken back in Git.
    pub fn reverted(&mut self, life: &Life, order: &RevertOrder) -> Option<Violation> {
        let of = |d: &usize| order.side_branch.starts_with(&format!("windlass/revert-d{d}-"));
        let d = (0..self.setups.len()).find(of)?;
        self.attempts.reverted(life, d, order.bad.as_str(), self.status.get(&d)?, self.two)
    }

    /// A person deletes a Delivery.
    pub fn person_deleted(&mut self, d: usize) {
        self.deleting.insert(d);
    }

    /// The label of a Delivery.
    pub fn label(&self, d: usize) -> &str {
        &self.labels[d]
    }

    /// A life of a daemon was shown an answer or an event.
    pub fn shown(&mut self, life: &Life, object: &Value) {
        let seen = self.seen.entry((life.slot, life.number)).or_default();
        let mut take = |object: &Value| {
            seen.insert(uid(object));
            for entry in object["status"]["inventory"].as_array().into_iter().flatten() {
                seen.insert(entry["uid"].as_str().unwrap_or_default().to_owned());
            }
        };
        take(object);
        for item in object["items"].as_array().into_iter().flatten() {
            take(item);
        }
        let list = object["kind"] == "DeploymentList";
        let items = object["items"].as_array().into_iter().flatten().filter(|_| list);
        for one in items.chain(Some(object).filter(|o| o["kind"] == "Deployment")) {
            self.rollouts.shown(life, one);
        }
    }

    /// A daemon polled the repository.
    pub fn polled(&mut self, slot: usize, remote: &Remote, commit: &str, at: u64) {
        self.views.insert(slot, commit.to_owned());
        self.held.retain(|d, (held, _)| remote.at(held, *d) == remote.at(commit, *d));
        if self.newest.as_ref().is_none_or(|(known, _)| known != commit) {
            self.newest = Some((commit.to_owned(), at));
        }
    }

    /// Something kept a daemon from acting.
    pub fn hindered(&mut self, at: u64) {
        self.rollouts.hindered();
        self.attempts.hindered(at);
        if let Some((_, since)) = &mut self.newest {
            *since = at;
        }
    }

    /// No daemon knows anything of commits.
    pub fn forgot(&mut self) {
        self.newest = None;
    }

    /// Whether the newest commit was acted on, if there was time.
    pub fn time(&mut self, remote: &Remote, specs: &[Option<Arc<Value>>], at: u64) -> Option<Violation> {
        let (commit, since) = self.newest.as_ref()?;
        let waits = self.attempts.time(remote, specs, commit, at, AT_ONCE);
        if waits.is_some() {
            return waits;
        }
        if at < since + AT_ONCE {
            return None;
        }
        for (d, spec) in specs.iter().enumerate() {
            let Some(delivery) = spec else { continue };
            let off = self.deleting.contains(&d) || delivery["spec"]["suspend"] == true;
            if off {
                continue;
            }
            let status = &delivery["status"];
            let wanted = remote.at(commit, d);
            let named = [
                &status["attempt"]["revision"],
                &status["effective"],
                &status["held"]["revision"],
                &status["failure"]["revision"],
                &status["waiting"]["revision"],
            ];
            let is_named =
                named.iter().filter_map(|r| r["commit"].as_str()).any(|c| remote.at(c, d) == wanted);
            let cannot = !status["failure"].is_null() && status["failure"]["revision"].is_null();
            if is_named {
                self.named.insert(d, (commit.clone(), at));
                continue;
            }
            // One that was held and is released is to be acted on from then on.
            let named = self.named.get(&d).filter(|(named, _)| named == commit).map_or(0, |(_, at)| *at);
            if at >= named + AT_ONCE && !cannot && !rollouts::is_leaving(status) {
                let text = format!("d{d}: {commit} is known for {} ms and not acted on", at - since);
                return violated(Promise::NewerGoesFirst, text);
            }
        }
        None
    }

    /// A daemon wrote something.
    #[allow(clippy::too_many_arguments)]
    pub fn written(
        &mut self,
        life: &Life,
        call: &Call,
        remote: &Remote,
        before: Option<&Value>,
        after: Option<&Value>,
        status: u16,
        at: Moment,
    ) -> Option<Violation> {
        if call.place().contains("/deliveries/") {
            return after.and_then(|after| self.status_written(life, remote, before, after, at));
        }
        let violation = self.rollout_written(life, call, remote, before, after);
        if violation.is_some() {
            return violation;
        }
        if call.method == "DELETE" {
            let before = before?;
            if is_hook(before) {
                return self.attempts.hook_deleted(life, before, self.two);
            }
            let left = after.filter(|a| uid(a) == uid(before));
            let marked = |o: &Value| !o["metadata"]["deletionTimestamp"].is_null();
            if left.is_some_and(|a| !marked(a) || marked(before)) {
                return None;
            }
            return self.deleted(life, remote, before);
        }
        if status == 201
            && let Some(after) = after.filter(|a| is_hook(a))
        {
            return self.attempts.hook_made(life, after, self.two);
        }
        if status == 201
            && let Some(after) = after
            && let Some(key) = Key::of(after)
        {
            self.made.insert(uid(after), (key, self.owner(after)));
        }
        None
    }

    /// A daemon wrote an object that may be part of a rollout.
    fn rollout_written(
        &mut self,
        life: &Life,
        call: &Call,
        remote: &Remote,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Option<Violation> {
        let object = after.or(before)?;
        let key = Key::of(object)?;
        // Routes of others carry no label.
        let d = self.owner(object).unwrap_or(0);
        let status = self.status.get(&d);
        let directory = |r: &Value| remote.at(r["commit"].as_str()?, d);
        let good = status.map(|s| &s["effective"]).and_then(|r| Some((directory(r)?, self.attempts.of(r))));
        let wanted = good
            .filter(|_| status.is_some_and(rollouts::is_rolled_out) && !self.deleting.contains(&d))
            .and_then(|(good, settings)| Some(good.things.get(&key)?.manifest(&key, settings)));
        let next = status.and_then(|s| directory(&s["attempt"]["revision"]));
        let workload = Key(Kind::Deployment, stable_of(&key.1).to_owned());
        let pods = |directory: &Directory| directory.things.get(&workload).map(|t| u64::from(t.replicas));
        // While it is taken back, the attempt is about stable.
        let candidate = status.and_then(|s| directory(&s["attempt"]["rollout"]["candidate"]));
        let pods = [good.map(|(good, _)| good), next, candidate].into_iter().flatten().filter_map(pods).max();
        let policy = self.setups[d].rollout.as_ref().unwrap_or(&Value::Null);
        let standing = Standing { status, effective: wanted.as_ref(), pods: pods.unwrap_or(0), policy };
        self.rollouts.written(life, call, &standing, before, after, self.two)
    }

    fn owner(&self, object: &Value) -> Option<usize> {
        let label = object["metadata"]["labels"][names::DELIVERY_LABEL].as_str()?;
        self.labels.iter().position(|l| l == label)
    }

    fn deleted(&mut self, life: &Life, remote: &Remote, before: &Value) -> Option<Violation> {
        let uid = uid(before);
        let key = Key::of(before)?;
        let seen = self.seen.get(&(life.slot, life.number)).is_some_and(|s| s.contains(&uid));
        if !seen {
            return violated(
                Promise::NothingUnseen,
                format!("{life} deleted {key} (uid {uid}), which took the place of what it had seen"),
            );
        }
        let listed = self.inventoried.contains(&(key.clone(), Some(uid.clone())))
            || self.inventoried.contains(&(key.clone(), None));
        if !listed {
            return violated(
                Promise::OnlyInventory,
                format!("{life} deleted {key} (uid {uid}), which never stood in an inventory"),
            );
        }
        let made_anew = key.0 == Kind::Job || key.1.starts_with("db");
        let owner = self.owner(before);
        let whose: Vec<usize> = owner.map_or((0..self.setups.len()).collect(), |d| vec![d]);
        let going = whose.iter().any(|d| self.deleting.contains(d));
        if key.0 == Kind::Claim && life.works() && !self.two {
            let goes_back = whose.iter().filter_map(|d| self.status.get(d)).any(goes_back);
            let was_good = self.good_data.contains(&uid) || self.touched.contains(&key);
            let asked = self.deletable.contains(&uid) || self.deletable.contains(&key.to_string());
            let why = match () {
                () if !asked => Some("which nobody asked for"),
                () if goes_back && !going => Some("to go back to a good revision"),
                () if !was_good && !going => Some("which no good revision had"),
                () => None,
            };
            if let Some(why) = why {
                return violated(Promise::DataStays, format!("{life} deleted {key} (uid {uid}), {why}"));
            }
        }
        let was_good = (0..self.setups.len()).any(|d| self.good.contains(&(d, key.clone())));
        if self.stood.contains(&uid) && !was_good && !made_anew && !going {
            return violated(
                Promise::AdoptedStays,
                format!("{life} deleted {key} (uid {uid}), which was only adopted"),
            );
        }
        if self.stood.contains(&uid) || owner.is_none() {
            self.replaced.insert(key.clone());
        }
        let wanted = whose.iter().any(|d| {
            let none = Value::Null;
            let status = self.status.get(d).unwrap_or(&none);
            let attempt = status["attempt"]["revision"]["commit"].as_str();
            let commit = attempt.or(status["effective"]["commit"].as_str());
            // A first revision that failed is removed as a whole, where that is asked for.
            status["attempt"]["step"] != "Removing"
                && commit.and_then(|c| remote.at(c, *d)).is_some_and(|dir| dir.things.contains_key(&key))
        });
        if !wanted || made_anew || going {
            self.guaranteed.remove(&key);
        }
        self.made.remove(&uid);
        None
    }

    fn status_written(
        &mut self,
        life: &Life,
        remote: &Remote,
        before: Option<&Value>,
        after: &Value,
        at: Moment,
    ) -> Option<Violation> {
        let d: usize = after["metadata"]["name"].as_str()?.strip_prefix('d')?.parse().ok()?;
        let none = Value::Null;
        let (old, new) = (before.map_or(&none, |b| &b["status"]), &after["status"]);
        for entry in new["inventory"].as_array().into_iter().flatten() {
            let text = |field: &str| entry[field].as_str().unwrap_or_default();
            if let Some(key) = Key::named(text("kind"), text("namespace"), text("name")) {
                if key.0 == Kind::Claim {
                    self.data_listed(&key, entry, new);
                }
                self.inventoried.insert((key, entry["uid"].as_str().map(str::to_owned)));
            }
        }
        // Of two that know different commits or settings, one may take for good what the other wrote.
        if !self.mixed
            && let Some(violation) = self.only_good(remote, d, &new["effective"])
        {
            return Some(violation);
        }
        if let Some(directory) = new["effective"]["commit"].as_str().and_then(|commit| remote.at(commit, d)) {
            self.good.extend(directory.things.keys().map(|key| (d, key.clone())));
        }
        let asked = |field: &str| old[field] != new[field];
        if asked("handledRelease") || asked("handledRollback") || asked("handledRollout") {
            self.held.remove(&d);
            self.attempts.released(d);
        }
        let attempt = &new["attempt"];
        if attempt["goal"] == "Deploy"
            && attempt["revision"] != old["attempt"]["revision"]
            && let Some(commit) = attempt["revision"]["commit"].as_str()
            && let Some((held, settings)) = self.held.get(&d)
            && remote.at(held, d) == remote.at(commit, d)
            // With others it is another one, where only they were to blame.
            && (attempt["revision"]["settings"] == settings.as_str()
                || new["effective"]["commit"].as_str().is_none_or(|e| remote.at(e, d) != remote.at(held, d)))
        {
            return violated(
                Promise::HeldStaysHeld,
                format!("d{d}: {commit} is tried again although {held} with the same content is held"),
            );
        }
        let named = |r: &Value| {
            let settings = r["settings"].as_str().unwrap_or_default();
            Some((r["commit"].as_str()?.to_owned(), settings.to_owned()))
        };
        if let Some(held) = named(&new["held"]["revision"]) {
            self.held.insert(d, held);
        } else if let (Some(view), Some((held, _))) = (self.views.get(&life.slot), self.held.get(&d))
            && remote.at(view, d) != remote.at(held, d)
        {
            // A second daemon that has not seen that commit yet wants another one, and nothing is held then.
            self.held.remove(&d);
        }
        // Where the word itself was lost, history tells.
        if let Some(last) = new["history"].get(0)
            && last["outcome"] == "RolledBack"
            && old["history"].get(0) != Some(last)
            && let Some(held) = named(&last["revision"])
        {
            self.held.insert(d, held);
        }
        let known = Known {
            remote,
            others: &self.status,
            view: self.views.get(&life.slot).map_or("", String::as_str),
            two: self.two,
            at,
        };
        let violation = self
            .attempts
            .status_written(d, known, old, after)
            .or_else(|| self.good_is_kept(d, remote, old, new));
        let directory = new["effective"]["commit"].as_str().and_then(|c| remote.at(c, d));
        let violation = violation
            .or_else(|| self.rollouts.decided(life, old, new))
            .or_else(|| self.serves(life, d, remote, old, after))
            .or_else(|| self.rollouts.promoted(old, new, &after["spec"]["rollout"], directory));
        self.rollouts.attempted(old, after);
        self.status.insert(d, new.clone());
        violation
    }

    /// Whether a status sends no more traffic to a variant than its pods can take.
    fn serves(
        &self,
        life: &Life,
        d: usize,
        remote: &Remote,
        old: &Value,
        delivery: &Value,
    ) -> Option<Violation> {
        let new = &delivery["status"];
        let pods = |revision: &Value, name: &str| {
            let directory = remote.at(revision["commit"].as_str()?, d)?;
            let thing = directory.things.get(&Key(Kind::Deployment, name.to_owned()))?;
            // Where Git does not say, what there was.
            match thing.scaled {
                true => rollouts::size_now(new, name),
                false => Some(u64::from(thing.replicas)),
            }
        };
        let wanted = |name: &str, alone: bool| {
            let next = pods(&new["attempt"]["rollout"]["candidate"], name)?;
            let good = pods(&new["effective"], name).filter(|_| !alone).unwrap_or(next);
            Some(next.min(good).saturating_sub(u64::try_from(max_unavailable(name)).unwrap_or(0)))
        };
        if self.two {
            return None;
        }
        self.rollouts.serves(life, old, new, &delivery["spec"]["rollout"], wanted)
    }

    /// A claim stands in an inventory.
    fn data_listed(&mut self, key: &Key, entry: &Value, status: &Value) {
        let uid = entry["uid"].as_str();
        if entry["prune"] == "enabled" {
            self.deletable.insert(uid.map_or_else(|| key.to_string(), str::to_owned));
        }
        let Some(uid) = uid else { return };
        if goes_back(status) && entry["stale"] == true {
            self.spared.insert(uid.to_owned());
        }
        if status["attempt"].is_null() && entry["stale"] != true {
            self.good_data.insert(uid.to_owned());
        }
    }

    /// Whether a revision is rolled back while it is watched on, and nothing of it fails by itself.
    fn good_is_kept(&self, d: usize, remote: &Remote, old: &Value, new: &Value) -> Option<Violation> {
        let lost = !old["bake"].is_null()
            && old["attempt"].is_null()
            && new["attempt"]["goal"] == "Rollback"
            && old["handledRollback"] == new["handledRollback"];
        if !lost || self.two {
            return None;
        }
        let commit = old["effective"]["commit"].as_str()?;
        let directory = remote.at(commit, d)?;
        let others = self.status.iter().filter(|(other, _)| **other != d).flat_map(|(other, status)| {
            [&status["effective"], &status["attempt"]["revision"]]
                .into_iter()
                .filter_map(|r| remote.at(r["commit"].as_str()?, *other))
        });
        let contested: BTreeSet<&Key> = others.flat_map(|dir| dir.things.keys()).collect();
        let disputed = |key: &&Key| self.touched.contains(*key) || contested.contains(*key);
        let good = directory.is_good(self.attempts.of(&old["effective"]));
        if !good || directory.things.keys().any(|key| disputed(&key)) {
            return None;
        }
        let why = &new["history"][0]["problem"]["message"];
        let what = format!("d{d}: {commit} is rolled back while it is watched on, and is good: {why}");
        violated(Promise::GoodIsKept, what)
    }

    /// What must hold at every moment: healthy pods serve.
    pub fn moment(&mut self, cluster: &Cluster) -> Option<Violation> {
        // What one daemon has ended another one may have begun.
        let ended = self.rollouts.ended(cluster).filter(|_| !self.two);
        if ended.is_some() {
            return ended;
        }
        if self.two || cluster.is_disturbed() {
            self.guaranteed.clear();
            return None;
        }
        let removing = self.status.values().any(|status| status["attempt"]["step"] == "Removing");
        if removing {
            self.rollouts.served_no_more();
        }
        let deleting = removing || !self.deleting.is_empty();
        let stays = self.deleting.iter().any(|d| self.setups[*d].orphan);
        let violation = self.rollouts.moment(cluster, deleting, deleting && !stays);
        if violation.is_some() {
            return violation;
        }
        let version = cluster.workloads_version();
        if std::mem::replace(&mut self.looked, version) == version {
            return None;
        }
        // Such pods fail by themselves.
        let fails = |spec: &Value| {
            let image = spec["containers"][0]["image"].as_str();
            image.is_some_and(|image| image.ends_with(":flaky"))
        };
        let mut deployments: BTreeMap<Key, (String, i64)> = BTreeMap::new();
        let mut sets: BTreeMap<String, (String, i64)> = BTreeMap::new();
        let mut ready: BTreeMap<String, i64> = BTreeMap::new();
        for object in cluster.objects() {
            match object["kind"].as_str() {
                Some("Deployment") => {
                    if let Some(key) = Key::of(object) {
                        if fails(&object["spec"]["template"]["spec"]) || self.sick.contains(&key) {
                            self.guaranteed.remove(&key);
                            continue;
                        }
                        deployments
                            .insert(key, (uid(object), object["spec"]["replicas"].as_i64().unwrap_or(1)));
                    }
                }
                Some("ReplicaSet") => {
                    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
                    sets.insert(uid(object), (controller(object), replicas));
                }
                Some("Pod")
                    if object["metadata"]["deletionTimestamp"].is_null() && !fails(&object["spec"]) =>
                {
                    let conditions = object["status"]["conditions"].as_array();
                    let is_ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
                    if conditions.is_some_and(|all| all.iter().any(is_ready)) {
                        *ready.entry(controller(object)).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        let mut serving: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for (set, (deployment, replicas)) in &sets {
            let ready = ready.get(set).copied().unwrap_or(0);
            let (serve, stay) = serving.entry(deployment.clone()).or_default();
            (*serve, *stay) = (*serve + ready, *stay + ready.min(*replicas));
        }
        for (key, (uid, desired)) in &deployments {
            // Some may be about to go: that was decided by the manifest before, and more of them cannot be counted on.
            let (serve, stay) = serving.get(uid).copied().unwrap_or_default();
            let wanted = (desired - max_unavailable(&key.1)).max(0);
            let floor = self.guaranteed.get(key).copied().unwrap_or(0).min(wanted);
            if serve < floor {
                return violated(
                    Promise::PodsServe,
                    format!("{serve} healthy pods of {key} serve, and {floor} must"),
                );
            }
            self.guaranteed.insert(key.clone(), if stay >= wanted { wanted } else { floor });
        }
        for (key, floor) in &self.guaranteed {
            if *floor > 0 && !deployments.contains_key(key) {
                return violated(
                    Promise::PodsServe,
                    format!("{key} is gone, and {floor} healthy pods must serve"),
                );
            }
        }
        None
    }

    /// Whether what is taken for good has something that never gets healthy.
    fn only_good(&self, remote: &Remote, d: usize, effective: &Value) -> Option<Violation> {
        let commit = effective["commit"].as_str()?;
        let settings = self.attempts.of(effective);
        let never = |(key, thing): &(&Key, &Thing)| match key.0 {
            Kind::Deployment => {
                matches!(thing.tag(settings), Tag::Unready | Tag::Missing | Tag::Alone) && thing.replicas > 0
            }
            // One whose label a person took away is out of sight.
            Kind::Job => !thing.tag.is_good() && !self.relabelled.contains(key),
            _ => false,
        };
        let (key, _) = remote.at(commit, d)?.things.iter().find(never)?;
        let what = format!("d{d}: {commit} is taken for good, and {key} of it never gets healthy");
        violated(Promise::OnlyGoodIsGood, what)
    }

    /// Whether two Deliveries both say that they are ready with one object.
    fn owners(&self, world: &World, deliveries: &[Option<Arc<Value>>], remote: &Remote) -> Option<Violation> {
        let [Some(one), Some(other)] = deliveries else { return None };
        let things = |d: usize, delivery: &Value| {
            let ready = delivery["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Ready")?;
            let commit = delivery["status"]["effective"]["commit"].as_str()?;
            (ready["status"] == "True" && delivery["spec"]["suspend"] != true)
                .then(|| remote.at(commit, d))
                .flatten()
                .map(|directory| &directory.things)
        };
        let (one, other) = (things(0, one)?, things(1, other)?);
        // A person may have taken the label off, which leaves it out of sight where drift is not told.
        let key = one.keys().find(|key| other.contains_key(key) && !self.relabelled.contains(key))?;
        let whose = world.get(&key.path()).and_then(|object| self.owner(&object));
        violated(
            Promise::OneOwner,
            format!("d0 and d1 both say that they are ready with {key}, which is of {whose:?}"),
        )
    }

    /// What must hold when nothing goes wrong any more. What waits for people may be tried over and over; all else has come to
    /// an end, so that nothing is written any more (`writes_on`).
    pub fn quiet(&self, world: &World, writes_on: bool) -> Option<Violation> {
        let deliveries: Vec<Option<Arc<Value>>> = (0..self.setups.len()).map(|d| world.delivery(d)).collect();
        let git = world.lock().git.clone();
        let remote = git.lock();
        // What is named by both is settled between people.
        let contested = |key: &Key, d: usize| {
            deliveries.iter().enumerate().any(|(other, delivery)| {
                let status = delivery.as_ref().map(|d| &d["status"]);
                other != d
                    && status.is_some_and(|s| {
                        ["effective", "attempt"].iter().any(|f| {
                            let r = if *f == "attempt" { &s["attempt"]["revision"] } else { &s[*f] };
                            r["commit"]
                                .as_str()
                                .and_then(|c| remote.at(c, other))
                                .is_some_and(|dir| dir.things.contains_key(key))
                        })
                    })
            })
        };
        let violation = self.owners(world, &deliveries, &remote);
        if violation.is_some() {
            return violation;
        }
        let mut wanted: BTreeSet<Key> = BTreeSet::new();
        let mut undecided = BTreeSet::new();
        for (d, delivery) in deliveries.iter().enumerate() {
            let Some(delivery) = delivery else { continue };
            if self.deleting.contains(&d) {
                return violated(Promise::Ends, format!("d{d} is still being deleted"));
            }
            let status = &delivery["status"];
            let phase = status["phase"].as_str().unwrap_or_default();
            let suspended = delivery["spec"]["suspend"] == true;
            let step = status["attempt"]["step"].as_str();
            let effective = status["effective"]["commit"].as_str();
            let content = |r: &Value| -> Option<&Directory> { remote.at(r["commit"].as_str()?, d) };
            let good = |r: &Value| content(r).map(|dir| dir.is_good(self.attempts.of(r)));
            // A first revision that fails has nothing to go back to: it stays in place and is tried again.
            let first_fails = effective.is_none() && good(&status["attempt"]["revision"]) == Some(false);
            // What ran for a while and crashed then was good when it was looked at.
            let crashes = good(&status["effective"]) == Some(false);
            let waits = self.attempts.waits(&deliveries, d);
            // What it was rendered with is gone, and cannot be had again.
            let unknown = self.attempts.kept_lost.contains(&d);
            let asks = rollouts::waits_for_people(status) || self.rollouts.waits_for_data(status);
            // Pods that are not well for good cannot be brought back.
            let back = ["RollbackFailed", "RollingBack"].contains(&phase);
            let ill = self.sick.iter().any(|key| stable_of(&key.1) == key.1) && back;
            let asks = asks || ill;
            if asks || waits || unknown || suspended || step == Some("Failed") || first_fails || crashes {
                undecided.insert(d);
                continue;
            }
            let lost = effective.is_some_and(|c| c.parse().is_ok_and(|id| !remote.can_be_had(&id)));
            if lost {
                undecided.insert(d);
                continue;
            }
            // What two Deliveries name at once is the one's, and the other tells so for as long as both name it.
            if content(&status["attempt"]["revision"])
                .is_some_and(|dir| dir.things.keys().any(|key| contested(key, d)))
            {
                undecided.insert(d);
                continue;
            }
            if step.is_some() {
                let what = format!("d{d} is still {phase}: {}", ready(delivery));
                return violated(Promise::Ends, what);
            }
            if let Some(head) = remote.branch.last()
                && remote.there
                && remote.reachable
                && let Some(wants) = remote.at(head.as_str(), d)
            {
                let same = |r: &Value| r["commit"].as_str().is_some_and(|c| remote.at(c, d) == Some(wants));
                // Also one that another Delivery has still, which is not well and keeps what left Git so far.
                let others =
                    |key: &Key| world.get(&key.path()).and_then(|o| self.owner(&o)).is_some_and(|of| of != d);
                let disputed = wants.things.keys().any(|key| contested(key, d) || others(key));
                let unnamed = !rollouts::are_there(&delivery["spec"]["rollout"], wants);
                let told = same(&status["held"]["revision"])
                    || !status["failure"].is_null()
                        && (!wants.is_good(None)
                            || disputed
                            || unnamed
                            || rollouts::lacks_its_route(status, wants, |key| {
                                world.get(&key.path()).is_some()
                            })
                            || self.attempts.are_missing(d));
                if !same(&status["effective"]) && !told {
                    let what = format!("d{d} does not run {head}, and is {phase}: {}", ready(delivery));
                    return violated(Promise::GitWins, what);
                }
                // What Git wants runs: what it wanted before is nobody's business any more.
                let held = &status["held"]["revision"];
                if same(&status["effective"])
                    && content(held).is_some_and(|held| held != wants)
                    && status["held"]["problem"]["reason"] != "RolledBackByHand"
                {
                    let what = format!("d{d} runs {head}, and {} is held", held["commit"]);
                    return violated(Promise::GitWins, what);
                }
                let told =
                    status["history"].as_array().into_iter().flatten().any(|h| {
                        h["outcome"] == "RolledBack" && self.attempts.are_current(d, &h["revision"])
                    });
                let told = told
                    || self.attempts.are_current(d, &status["held"]["revision"])
                    || !status["failure"].is_null();
                if !self.attempts.are_current(d, &status["effective"]) && !told {
                    let what =
                        format!("d{d} does not use its newest settings, and is {phase}: {}", ready(delivery));
                    return violated(Promise::SettingsWin, what);
                }
                let held = &status["held"];
                if self.setups[d].revert
                    && !held.is_null()
                    && held["revert"].is_null()
                    && held["problem"]["reason"] != "RolledBackByHand"
                    && content(&held["revision"])
                        .is_some_and(|held| content(&status["effective"]) != Some(held))
                {
                    let what = format!("d{d}: {} is held and not taken back", held["revision"]["commit"]);
                    return violated(Promise::Reverts, what);
                }
            }
            let Some(directory) = effective.and_then(|c| remote.at(c, d)) else { continue };
            for (key, thing) in &directory.things {
                wanted.insert(key.clone());
                if contested(key, d) {
                    continue;
                }
                let settings = self.attempts.of(&status["effective"]);
                let mut manifest = thing.manifest(key, settings);
                manifest["metadata"]["labels"][names::DELIVERY_LABEL] = self.labels[d].as_str().into();
                let Some(live) = world.get(&key.path()) else {
                    let ran = self.ran.contains(&(key.clone(), thing.value.to_string()));
                    if key.0 == Kind::Job && (thing.ttl.is_some() || ran) {
                        continue;
                    }
                    return violated(Promise::FieldsHold, format!("d{d} wants {key}, which is not there"));
                };
                // A Job without its label has run, and is out of sight.
                if key.0 == Kind::Job && self.relabelled.contains(key) {
                    continue;
                }
                if let Some(path) = differs(&manifest, &live, "") {
                    let what = format!("{key}: {path} is not what d{d} wants ({})", thing.value);
                    return violated(Promise::FieldsHold, what);
                }
            }
        }
        // What cannot be done is tried again, each time a little later.
        let tried_again = deliveries.iter().flatten().any(|d| {
            let held = &d["status"]["held"];
            !d["status"]["failure"].is_null() || !held.is_null() && held["revert"]["commit"].is_null()
        });
        if undecided.is_empty() && writes_on && !tried_again {
            return violated(Promise::Ends, "all is as it should be, and something is written over and over");
        }
        // What is let go stays as it is.
        let orphaned = self.deleting.iter().any(|d| self.setups[*d].orphan);
        if undecided.is_empty()
            && !orphaned
            && let Some(violation) = self.rollouts.quiet(world)
        {
            return Some(violation);
        }
        for (uid_, (key, owner)) in &self.made {
            let Some(live) = world.get(&key.path()).filter(|l| uid(l) == *uid_) else { continue };
            if wanted.contains(key) || self.relabelled.contains(key) || self.replaced.contains(key) {
                continue;
            }
            let Some(d) = *owner else { continue };
            if undecided.contains(&d) || undecided.iter().any(|d| self.owner(&live) == Some(*d)) {
                continue;
            }
            let note = live["metadata"]["annotations"][names::PRUNE].as_str();
            // What a revision brought that was never good, or was gone back from, is left whatever is asked for.
            let goes =
                note == Some("enabled") && self.good_data.contains(uid_) && !self.spared.contains(uid_);
            let precious = key.0 == Kind::Claim && !goes || note == Some("disabled");
            let orphaned = self.deleting.contains(&d) && self.setups[d].orphan;
            let unpruned = !self.setups[d].prune && self.good.contains(&(d, key.clone()));
            // Nobody knows what it was part of: nothing of this Delivery was ever good.
            if precious || orphaned || unpruned {
                continue;
            }
            let what = format!("{key} (uid {uid_}), made for d{d}, is still there");
            return violated(Promise::NothingIsLeft, what);
        }
        None
    }
}

fn ready(delivery: &Value) -> String {
    let conditions = delivery["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
    found.map_or_else(String::new, |c| c["message"].as_str().unwrap_or_default().to_owned())
}

/// Whether what a revision brought is taken away, by the status.
fn goes_back(status: &Value) -> bool {
    status["attempt"]["goal"] == "Rollback" || status["attempt"]["step"] == "Removing"
}

/// The uid of an object.
pub fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

/// The value of a workload's manifest.
fn value_of(workload: &Value) -> String {
    let notes = &workload["spec"]["template"]["metadata"]["annotations"];
    notes["example.com/value"].as_str().unwrap_or_default().to_owned()
}

fn controller(object: &Value) -> String {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let owner = owners.and_then(|all| all.iter().find(|o| o["controller"] == true));
    owner.map_or_else(String::new, |o| o["uid"].as_str().unwrap_or_default().to_owned())
}

/// The first field that a manifest names and that has another value.
pub fn differs(wanted: &Value, live: &Value, path: &str) -> Option<String> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().find_map(|(field, value)| {
            let path = format!("{path}/{field}");
            live.get(field).map_or(Some(path.clone()), |live| differs(value, live, &path))
        }),
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => wanted
            .iter()
            .zip(live)
            .enumerate()
            .find_map(|(at, (w, l))| differs(w, l, &format!("{path}/{at}"))),
        _ => (wanted != live).then(|| path.to_owned()),
    }
}
