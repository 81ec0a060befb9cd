//! What must hold of rollouts.

use super::super::gate::Call;
use super::super::model::Cluster;
use super::super::model::gateway::{backends, named};
use super::super::oracle::{Promise, Violation, differs, uid, violated};
use super::super::things::{Directory, Key, Kind, SPACE, Tag};
use super::super::world::{Life, World};
use super::provider::Says;
use super::reached::Reached;
use super::routes::{ROUTES, rules, steers};
use super::{BACK, FRONT, is_candidate, stable_of};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use windlass::api::names;

/// A daemon that was shown for so long that a variant is not well knows it, in milliseconds: what it decided before is
/// done by then.
const KNOWN: u64 = 5_000;

/// A status that was decided so long ago may still be on its way, in milliseconds.
const DECIDED: u64 = 25_000;

/// So long traffic may stay with a candidate that has no pod ready: ten seconds, in which one may be ready again, and what a daemon
/// and a router need, in milliseconds. The longest settle time that is drawn is no longer.
const LEFT: u64 = 25_000;

/// What was seen of rollouts.
#[derive(Default)]
pub struct Rollouts {
    /// Objects that people have touched: what becomes of traffic through them is theirs.
    touched: BTreeSet<Key>,
    /// Services that traffic could reach.
    served: BTreeSet<String>,
    /// What each life of a daemon was shown of workloads.
    shown: BTreeMap<(usize, u32, String), Shown>,
    /// Since when a candidate has traffic and is not well, while stable is.
    suffers: Option<u64>,
    /// The provider did not tell the truth.
    lied: bool,
    /// A person let the rollout under way go on.
    pushed: bool,
    /// A person changed the policy: until what is under way has ended it is no more what its steps say.
    changed: bool,
    /// What was under way has just ended.
    ended: bool,
    /// How far the candidate may be.
    reached: Reached,
    /// The life of a daemon that wrote what steers traffic last.
    wrote: BTreeMap<Key, u32>,
    /// The time, in milliseconds.
    pub now: u64,
}

/// What a life of a daemon was shown of a workload.
#[derive(Clone, Default)]
struct Shown {
    version: u64,
    /// Since when it has no pod that is ready, in milliseconds.
    ill: Option<u64>,
    /// The template.
    template: Value,
    /// Since when it has how many pods of that template that are ready, in milliseconds.
    ready: Vec<(u64, u64)>,
}

/// The largest share of a rule's requests, in percent, that goes to a candidate.
fn share(rules: &Value) -> u64 {
    let of_rule = |rule: &Value| {
        let one = Value::Array(vec![rule.clone()]);
        let (mut all, mut candidate) = (0, 0);
        for (name, weight) in backends(&one) {
            all += weight;
            candidate += if is_candidate(name) { weight } else { 0 };
        }
        (100 * candidate).checked_div(all).unwrap_or(0)
    };
    let all = rules.as_array().into_iter().flatten();
    all.filter(|rule| !is_marked(rule)).map(of_rule).max().unwrap_or(0)
}

/// Whether a rule is for marked requests.
fn is_marked(rule: &Value) -> bool {
    let mut matches = rule["matches"].as_array().into_iter().flatten();
    matches.any(|one| one["headers"].is_array())
}

/// Whether marked requests or copies of any go to a candidate.
fn marks(rules: &Value) -> bool {
    rules.as_array().into_iter().flatten().any(|rule| {
        let one = Value::Array(vec![rule.clone()]);
        let mut filters = rule["filters"].as_array().into_iter().flatten();
        is_marked(rule) && backends(&one).any(|(name, _)| is_candidate(name))
            || filters.any(|f| f["requestMirror"]["backendRef"]["name"].as_str().is_some_and(is_candidate))
    })
}

/// The same of any object that moves traffic.
fn share_of(key: &Key, object: &Value) -> Option<u64> {
    match key.0 {
        kind if ROUTES.contains(&kind) => Some(share(&rules(kind, object))),
        Kind::Service if !is_candidate(&key.1) => {
            let mut selector = object["spec"]["selector"].as_object().into_iter().flatten();
            let candidate = selector.any(|(_, value)| value.as_str().is_some_and(is_candidate));
            Some(if candidate { 100 } else { 0 })
        }
        _ => None,
    }
}

/// The share that the status of a Delivery tells of.
fn told(status: &Value) -> u64 {
    let rollout = &status["attempt"]["rollout"];
    match rollout["stage"].as_str() {
        None | Some("Draining" | "Returning") => 0,
        Some(_) => rollout["layout"]["weight"].as_u64().unwrap_or(0),
    }
}

/// How many pods a workload had before a rollout in which something else than Git decides that.
fn size_before(status: &Value, workload: &str) -> Option<u64> {
    let sizes = status["attempt"]["rollout"]["sizes"].as_array();
    sizes.into_iter().flatten().find(|s| s["workload"]["name"] == workload)?["replicas"].as_u64()
}

/// How many it has since a step began.
pub fn size_now(status: &Value, workload: &str) -> Option<u64> {
    let sizes = status["attempt"]["rollout"]["sizes"].as_array();
    let size = sizes.into_iter().flatten().find(|s| s["workload"]["name"] == workload)?;
    size["now"].as_u64().or_else(|| size["replicas"].as_u64())
}

/// How many pods a candidate has by the status, beside so many of stable's.
fn size_told(status: &Value, pods: u64) -> Option<u64> {
    let size = &status["attempt"]["rollout"]["layout"]["size"];
    match (size["percent"].as_u64(), size["replicas"].as_u64()) {
        (Some(percent), _) => Some((pods * percent).div_ceil(100).max(1)),
        (None, replicas) => replicas,
    }
}

/// Whether a revision is rolled out with a candidate beside stable, not taken back and not applied at once.
pub fn is_rolled_out(status: &Value) -> bool {
    let attempt = &status["attempt"];
    attempt["goal"] == "Deploy" && !attempt["rollout"]["layout"]["size"].is_null()
}

/// Whether a directory has the workloads that a policy names.
pub fn are_there(policy: &Value, directory: &Directory) -> bool {
    let one = policy["workload"]["name"].as_str();
    let several = policy["workloads"].as_array().into_iter().flatten().filter_map(|w| w["name"].as_str());
    one.into_iter()
        .chain(several)
        .all(|name| directory.things.contains_key(&Key(Kind::Deployment, name.into())))
}

/// Whether a revision is not begun for want of a route that is really nowhere: somebody has deleted one of others.
pub fn lacks_its_route(status: &Value, directory: &Directory, is_there: impl Fn(&Key) -> bool) -> bool {
    let problem = &status["failure"]["problem"];
    let mut routes = ROUTES.into_iter().filter_map(|kind| {
        let name = problem["object"].as_str()?.strip_prefix(&format!("{} {SPACE}/", kind.names().1))?;
        Some(Key(kind, name.to_owned()))
    });
    matches!(problem["reason"].as_str(), Some("RouteNotFound" | "RouteMissing"))
        && routes.any(|key| !directory.things.contains_key(&key) && !is_there(&key))
}

/// Whether stable is to be left alone, by the status.
fn stands_as_told(status: &Value) -> bool {
    let rollout = &status["attempt"]["rollout"];
    rollout["layout"]["base"] == "Stable"
        && !matches!(rollout["stage"].as_str(), Some("Draining" | "Returning"))
}

/// Whether traffic is being taken back from a candidate: a newer revision waits for that.
pub fn is_leaving(status: &Value) -> bool {
    let attempt = &status["attempt"];
    attempt["goal"] == "Rollback" && !attempt["rollout"].is_null()
}

/// Whether a rollout goes on only when a person says so.
pub fn waits_for_people(status: &Value) -> bool {
    let paused = status["attempt"]["rollout"]["paused"]["reason"].as_str();
    matches!(paused, Some("PausedByHand" | "AwaitsPromotion" | "PolicyChanged" | "StableUnhealthy"))
}

fn has_ready_pod(workload: &Value) -> bool {
    workload["status"]["readyReplicas"].as_u64().unwrap_or(0) > 0
}

/// How many pods of the template that a workload has now are ready.
fn ready_pods(workload: &Value) -> u64 {
    let of = |field: &str| workload["status"][field].as_u64().unwrap_or(0);
    let seen = workload["status"]["observedGeneration"] == workload["metadata"]["generation"];
    if seen { of("readyReplicas").min(of("updatedReplicas")) } else { 0 }
}

/// The candidates' workloads.
fn candidates(cluster: &Cluster) -> impl Iterator<Item = &Value> {
    let all = cluster.of_kind("Deployment").filter(|w| w["metadata"]["namespace"] == SPACE);
    all.filter(|w| w["metadata"]["name"].as_str().is_some_and(is_candidate))
}

/// What a write of a daemon is judged by.
pub struct Standing<'a> {
    /// The status of the Delivery.
    pub status: Option<&'a Value>,
    /// What the effective revision has, as it is with its settings.
    pub effective: Option<&'a Value>,
    /// How many pods the workload has in the effective revision or the one under way.
    pub pods: u64,
    /// `spec.rollout`.
    pub policy: &'a Value,
}

impl Rollouts {
    /// A person did something with an object.
    pub fn person_touched(&mut self, key: &Key) {
        self.touched.insert(key.clone());
    }

    /// A person let a rollout go on.
    pub fn person_pushed(&mut self) {
        self.pushed = true;
    }

    /// A first revision that failed is removed: what sent traffic to it leads nowhere until there is another one.
    pub fn served_no_more(&mut self) {
        self.served.clear();
    }

    /// A person changed the policy, or took it out.
    pub fn person_changed(&mut self) {
        self.changed = true;
    }

    /// A status was written. Between two revisions nothing is left of what people did to a rollout, but for what the daemon has not
    /// seen yet.
    pub fn attempted(&mut self, old: &Value, delivery: &Value) {
        let status = &delivery["status"];
        let (was, is) = (!old["attempt"].is_null(), !status["attempt"].is_null());
        if was && is {
            return;
        }
        if status["observedGeneration"] == delivery["metadata"]["generation"] {
            self.changed = false;
        }
        if is {
            return;
        }
        self.ended |= was;
        let asked = &delivery["metadata"]["annotations"][names::ROLLOUT_REQUEST];
        self.pushed &= status["handledRollout"] != *asked;
        self.reached = Reached::nothing(self.now);
    }

    /// The provider answers so from now on.
    pub fn provider_says(&mut self, says: Says) {
        self.lied |= says != Says::True;
    }

    /// A life of a daemon was shown a Deployment.
    pub fn shown(&mut self, life: &Life, object: &Value) {
        if object["metadata"]["namespace"] != SPACE {
            return;
        }
        let at = self.now;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
        let version = version.unwrap_or(0);
        let shown = self.shown.entry((life.slot, life.number, name)).or_default();
        if version > shown.version {
            let ill = (!has_ready_pod(object)).then(|| shown.ill.unwrap_or(at));
            let template = object["spec"]["template"].clone();
            let mut ready = std::mem::take(&mut shown.ready);
            if template != shown.template {
                ready.clear();
            }
            ready.push((at, ready_pods(object)));
            *shown = Shown { version, ill, template, ready };
        }
    }

    /// The most pods of its template that it was shown to be ready, of late.
    fn knows_ready(&self, life: &Life, name: &str) -> Option<u64> {
        let ready = &self.shown.get(&(life.slot, life.number, name.to_owned()))?.ready;
        let until = ready.iter().skip(1).map(|(at, _)| *at).chain([self.now]);
        let of_late = ready.iter().zip(until).filter(|(_, until)| until + DECIDED >= self.now);
        of_late.map(|((_, pods), _)| *pods).max()
    }

    fn knows_ill(&self, life: &Life, name: &str, at: u64) -> bool {
        let shown = self.shown.get(&(life.slot, life.number, name.to_owned()));
        shown.and_then(|s| s.ill).is_some_and(|since| at >= since + KNOWN)
    }

    fn knows_well(&self, life: &Life, name: &str) -> bool {
        self.shown.get(&(life.slot, life.number, name.to_owned())).is_some_and(|s| s.ill.is_none())
    }

    /// A daemon wrote something.
    pub fn written(
        &mut self,
        life: &Life,
        call: &Call,
        standing: &Standing<'_>,
        before: Option<&Value>,
        after: Option<&Value>,
        two: bool,
    ) -> Option<Violation> {
        let key = Key::of(after.or(before)?)?;
        let (policy, lives) = (standing.policy, life.is_alive());
        let stays = |object: &Value| object["metadata"]["deletionTimestamp"].is_null();
        self.reached.note_workload(policy, &key, before.is_some(), after.is_some_and(stays), self.now);
        if let Some((share, after)) = after.and_then(|after| Some((share_of(&key, after)?, after))) {
            let marked = ROUTES.contains(&key.0) && marks(&rules(key.0, after));
            self.reached.note_share(policy, &key, (share, marked), lives, self.now);
        }
        if !life.is_alive() {
            let changed = before.zip(after).is_some_and(|(before, after)| before["spec"] != after["spec"]);
            if changed && self.wrote.get(&key).is_some_and(|last| *last > life.number) {
                let what =
                    format!("a late request of {life} changes {key}, which a newer daemon has written");
                return violated(Promise::NewestSteers, what);
            }
            // What a daemon that died had sent. The next one looks at it.
            self.touched.insert(key);
            return None;
        }
        if steers(key.0) && !two {
            self.wrote.insert(key.clone(), life.number);
        }
        // What one has not seen yet of the other's it takes back.
        if two {
            self.touched.insert(key);
            return None;
        }
        if self.changed {
            return None;
        }
        let status = standing.status.unwrap_or(&Value::Null);
        let by_policy = self.reached.allowed(policy, self.now);
        // A person's word goes on earlier than the policy would.
        let stands =
            is_rolled_out(status) && if self.pushed { stands_as_told(status) } else { !by_policy.promotion };
        if let Some(wanted) = standing.effective
            && stands
            && matches!(key.0, Kind::Deployment | Kind::ConfigMap)
        {
            let stable = |what: String| violated(Promise::StableUntouched, format!("{life} {what}"));
            let Some(after) = after.filter(|_| call.method != "DELETE") else {
                return stable(format!("deleted {key} while a candidate stands beside it"));
            };
            if let Some(path) = differs(wanted, after, "") {
                return stable(format!("changed {path} of {key} while a candidate stands beside it"));
            }
            if before.is_some_and(|before| uid(before) != uid(after)) {
                return stable(format!("made {key} anew while a candidate stands beside it"));
            }
        }
        let after = after.filter(|_| call.method != "DELETE")?;
        let allowed = if self.pushed { told(status) } else { by_policy.weight };
        if let Some(share) = share_of(&key, after)
            && share > allowed
        {
            let what = format!("{life} gives the candidate {share}% of {key}, and {allowed}% is its step's");
            return violated(Promise::CandidateShare, what);
        }
        let layout = &status["attempt"]["rollout"]["layout"];
        let marked = match self.pushed {
            true => ["header", "cookie", "mirror"].iter().any(|how| !layout[*how].is_null()),
            false => by_policy.marked,
        };
        if ROUTES.contains(&key.0) && marks(&rules(key.0, after)) && !marked {
            let what = format!("{life} has marked requests or copies go to the candidate in {key}");
            return violated(Promise::CandidateShare, what);
        }
        let stable = size_now(status, stable_of(&key.1)).unwrap_or(standing.pods);
        let most = if self.pushed { size_told(status, stable) } else { by_policy.pods(stable) };
        if key.0 == Kind::Deployment
            && is_candidate(&key.1)
            && let Some(allowed) = most
            && after["spec"]["replicas"].as_u64().unwrap_or(1) > allowed
        {
            let what =
                format!("{life} gives {key} {} pods, and {allowed} is its step's", after["spec"]["replicas"]);
            return violated(Promise::CandidateShare, what);
        }
        // Going back has to find the capacity.
        if key.0 == Kind::Scaler
            && !is_candidate(&key.1)
            && stands
            // A Delivery that goes writes no status any more by which it could be told whether the candidate is there.
            && standing.effective.is_some()
            && let Some(before) = size_before(status, &key.1)
        {
            let of = |field: &str| after["spec"][field].as_u64().unwrap_or(1);
            let (least, floor) = (of("minReplicas"), before.min(of("maxReplicas")));
            if least < floor {
                let what = format!("{life} lets {key} go down to {least} pods, and stable had {before}");
                return violated(Promise::CapacityKept, what);
            }
        }
        None
    }

    /// Whether a variant gets more traffic than its pods were made for: its share is to have as large a share of the pods that there
    /// would be without a rollout. `wanted` tells how many these are: by the revision that runs and the one that is rolled out, or by
    /// the latter alone.
    pub fn serves(
        &self,
        life: &Life,
        old: &Value,
        new: &Value,
        policy: &Value,
        wanted: impl Fn(&str, bool) -> Option<u64>,
    ) -> Option<Violation> {
        let (was, is) = (&old["attempt"]["rollout"], &new["attempt"]["rollout"]);
        let counted = policy["router"]["replicas"].is_object();
        if !life.is_alive() || self.changed || counted || new["attempt"]["goal"] != "Deploy" || was.is_null()
        {
            return None;
        }
        let short = |name: &str, share: u64, alone: bool| {
            let pods = wanted(stable_of(name), alone)?;
            let least = (pods * share).div_ceil(100);
            let knows = self.knows_ready(life, name).filter(|knows| *knows < least)?;
            let what = format!(
                "{life} sends {share}% to {name}, of which it knows {knows} ready pods, and {least} are its share"
            );
            (!self.touched.contains(&Key(Kind::Deployment, name.into())))
                .then(|| violated(Promise::CapacityServes, what))?
        };
        let inventory = new["inventory"].as_array().into_iter().flatten();
        let mine = inventory.filter(|e| e["kind"] == "Deployment" && e["candidate"] == true);
        let mut candidates = mine.filter_map(|e| e["name"].as_str());
        let (before, share) = (told(old), told(new));
        // Who asks for a number of pods has his reasons, but for all traffic.
        let asked = || {
            let mut steps = policy["steps"].as_array().into_iter().flatten();
            policy["candidate"]["size"] == "Fixed" || steps.any(|step| step["scale"].is_object())
        };
        if share > before && (is["stage"] == "Switching" || share == 100 || !asked()) {
            return candidates.find_map(|name| short(name, share, false));
        }
        let returns = was["stage"] == "Promoting" && is["stage"] != "Promoting";
        candidates.filter(|_| returns).find_map(|name| {
            let stable = stable_of(name);
            short(stable, 100, true)
        })
    }

    /// A status was written: what it decides about traffic.
    pub fn decided(&self, life: &Life, old: &Value, new: &Value) -> Option<Violation> {
        if !life.is_alive() {
            return None;
        }
        let rollout = &new["attempt"]["rollout"];
        let (was, is) = (&old["attempt"]["rollout"], rollout);
        if was["stage"].is_null()
            || is["stage"].is_null()
            || was["stage"] == is["stage"] && was["layout"] == is["layout"]
        {
            return None;
        }
        let inventory = new["inventory"].as_array().into_iter().flatten();
        let mine = inventory.filter(|e| e["kind"] == "Deployment" && e["candidate"] == true);
        let known = |name: &&str| self.shown.contains_key(&(life.slot, life.number, (*name).to_owned()));
        let candidates: Vec<&str> = mine.filter_map(|e| e["name"].as_str()).filter(known).collect();
        let ill = candidates.iter().find(|name| self.knows_ill(life, name, self.now));
        let stable_ill =
            candidates.iter().map(|c| stable_of(c)).find(|name| self.knows_ill(life, name, self.now));
        let all_well = |mut names: Box<dyn Iterator<Item = &str> + '_>| {
            !candidates.is_empty() && names.all(|name| self.knows_well(life, name))
        };
        let sends = |to: &str, from: &str| {
            let what =
                format!("{life} sends traffic to {to}, of which it knows that it is not well, and {from} is");
            violated(Promise::TrafficHealthy, what)
        };
        let (before, after) = (told(old), told(new));
        if after > before
            && let Some(ill) = ill
            && all_well(Box::new(candidates.iter().map(|c| stable_of(c))))
        {
            return sends(ill, "stable");
        }
        // What failed is not better than stable, however that is; what a person wants to leave may be.
        let by_hand =
            ["Aborted", "RolledBackByHand"].map(|reason| new["held"]["problem"]["reason"] == reason);
        let failed = new["held"]["revision"] != old["held"]["revision"] && !by_hand.contains(&true);
        if after < before
            && !failed
            && let Some(ill) = stable_ill
            && all_well(Box::new(candidates.iter().copied()))
        {
            return sends(ill, "the candidate");
        }
        None
    }

    /// A rollout ended well.
    pub fn promoted(
        &self,
        old: &Value,
        new: &Value,
        policy: &Value,
        directory: Option<&Directory>,
    ) -> Option<Violation> {
        let rolled = !old["attempt"]["rollout"].is_null()
            && old["attempt"]["goal"] == "Deploy"
            && new["attempt"].is_null()
            && new["effective"] == old["attempt"]["revision"];
        let measured = policy["analysis"].is_object() && !self.lied && !self.pushed;
        let named = |hook: &str| {
            let mut steps = policy["steps"].as_array().into_iter().flatten();
            steps.any(|step| step["job"]["name"] == hook)
        };
        let fails =
            directory.and_then(|d| d.hooks.iter().find(|(name, hook)| named(name) && !hook.tag.is_good()));
        if rolled
            && !self.pushed
            && !self.changed
            && let Some((name, _)) = fails
        {
            let what = format!(
                "{} is promoted, and the Job {name} of a step never passes",
                new["effective"]["commit"]
            );
            return violated(Promise::OnlyGoodIsGood, what);
        }
        let front = Key(Kind::Deployment, FRONT.into());
        let wrong = directory.and_then(|d| d.things.get(&front)).is_some_and(|t| t.tag == Tag::Wrong);
        if rolled && measured && !self.changed && wrong {
            let what =
                format!("{} is promoted, and half of its answers are wrong", new["effective"]["commit"]);
            return violated(Promise::OnlyGoodIsGood, what);
        }
        None
    }

    /// What must hold at every moment: requests arrive somewhere. Where `everything` is deleted, stable goes in the same moment as the
    /// candidate, and no controller is waited for.
    pub fn moment(&mut self, cluster: &Cluster, deleting: bool, everything: bool) -> Option<Violation> {
        for route in routes(cluster) {
            let Some(key) = Key::of(route) else { continue };
            let written = rules(key.0, route);
            let in_effect = cluster.programmed(route).filter(|_| !everything);
            let tables = [("", Some(&*written)), (" as it is in effect", in_effect)];
            for (how, rules) in tables {
                for (name, _) in rules.into_iter().flat_map(named) {
                    if !is_candidate(name) && deleting {
                        continue;
                    }
                    if let Some(why) = self.ends(cluster, &key, name) {
                        let what = format!("{key}{how} sends traffic to {name}: {why}");
                        return violated(Promise::RouteToNothing, what);
                    }
                }
            }
        }
        for service in cluster.of_kind("Service").filter(|_| !deleting) {
            let Some(key) = Key::of(service).filter(|key| !is_candidate(&key.1)) else { continue };
            if let Some(why) = self.ends(cluster, &key, &key.1) {
                return violated(Promise::RouteToNothing, format!("{key} sends traffic nowhere: {why}"));
            }
        }
        None
    }

    /// Why requests to a Service arrive nowhere, unless people are to blame.
    fn ends(&mut self, cluster: &Cluster, router: &Key, name: &str) -> Option<&'static str> {
        let why = serves(cluster, name);
        if why.is_none() {
            self.served.insert(name.to_owned());
        }
        let workload = if is_candidate(name) || name == BACK { name } else { FRONT };
        let theirs =
            [router.clone(), Key(Kind::Service, name.into()), Key(Kind::Deployment, workload.into())];
        why.filter(|_| self.served.contains(name) && !theirs.iter().any(|key| self.touched.contains(key)))
    }

    /// Whether traffic stays with a candidate that is not well.
    pub fn time(&mut self, world: &World, statuses: &[Option<Arc<Value>>], at: u64) -> Option<Violation> {
        let state = world.lock();
        // What is suspended, or let go, stays as it is.
        let stays = statuses.iter().any(|d| {
            let gone = |d: &Arc<Value>| !d["metadata"]["deletionTimestamp"].is_null();
            d.as_ref().is_none_or(|d| d["spec"]["suspend"] == true || gone(d))
        });
        let cluster = &state.cluster;
        let in_effect = |route: &Value, kind: Kind| match cluster.programmed(route) {
            Some(rules) => share(rules),
            None if kind == Kind::Mesh => share(&rules(kind, route)),
            None => 0,
        };
        let by_route = routes(cluster)
            .filter_map(|route| Some((Key::of(route)?, route)))
            .any(|(key, route)| !self.touched.contains(&key) && in_effect(route, key.0) > 0);
        let services = cluster.of_kind("Service").filter_map(|s| Some((Key::of(s)?, s)));
        let by_service = services
            .filter(|(key, _)| !self.touched.contains(key))
            .any(|(key, service)| share_of(&key, service).is_some_and(|share| share > 0));
        let well = |c: &Value| {
            let name = stable_of(c["metadata"]["name"].as_str().unwrap_or_default());
            cluster.get("Deployment", SPACE, name).is_some_and(has_ready_pod)
        };
        let stable = candidates(cluster).all(well);
        let ill = candidates(cluster).any(|c| !has_ready_pod(c));
        if !(by_route || by_service) || !stable || !ill || stays {
            self.suffers = None;
            return None;
        }
        let since = *self.suffers.get_or_insert(at);
        if at < since + LEFT {
            return None;
        }
        let what = format!("the candidate has traffic and no healthy pod for {} ms", at - since);
        violated(Promise::TrafficHealthy, what)
    }

    /// Whether a rollout waits for what is measured, which is not told.
    pub fn waits_for_data(&self, status: &Value) -> bool {
        self.lied && !status["attempt"]["rollout"]["analysis"].is_null()
    }

    /// Something kept daemons from acting.
    pub fn hindered(&mut self) {
        self.suffers = None;
    }

    /// What must hold of a Delivery when nothing happens any more: one variant is there, and has all traffic.
    pub fn quiet(&self, world: &World) -> Option<Violation> {
        one_variant(&world.lock().cluster, |_| false)
    }

    /// The same of a revision that has just ended, well or not; but for what people have touched, or came late.
    pub fn ended(&mut self, cluster: &Cluster) -> Option<Violation> {
        std::mem::take(&mut self.ended).then(|| one_variant(cluster, |key| self.touched.contains(key)))?
    }
}

/// Whether only one variant is there, and has all traffic.
fn one_variant(cluster: &Cluster, excused: impl Fn(&Key) -> bool) -> Option<Violation> {
    for object in cluster.objects() {
        let Some(key) = Key::of(object).filter(|key| !excused(key)) else { continue };
        if is_candidate(&key.1) && object["metadata"]["deletionTimestamp"].is_null() {
            return violated(Promise::OneVariant, format!("{key} is still there"));
        }
        let rules = ROUTES.contains(&key.0).then(|| cluster.programmed(object)).flatten();
        if share_of(&key, object).unwrap_or(0) > 0 || rules.is_some_and(|rules| share(rules) > 0) {
            return violated(Promise::OneVariant, format!("{key} still sends traffic to a candidate"));
        }
        if !object["metadata"]["annotations"]["windlass.dev/split"].is_null() {
            return violated(Promise::OneVariant, format!("{key} still tells of a split"));
        }
    }
    None
}

/// What sends traffic to Services by their names.
fn routes(cluster: &Cluster) -> impl Iterator<Item = &Value> {
    ROUTES.into_iter().flat_map(|kind| cluster.of_kind(kind.names().1))
}

/// Why requests to a Service arrive nowhere; `None` if they do, once pods are ready.
fn serves(cluster: &Cluster, name: &str) -> Option<&'static str> {
    let Some(service) = cluster.get("Service", SPACE, name) else { return Some("there is no such Service") };
    let selector = service["spec"]["selector"].as_object();
    let fits = |workload: &Value| {
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        selector.is_some_and(|s| s.iter().all(|(key, value)| labels.get(key) == Some(value)))
    };
    let mut workloads = cluster.of_kind("Deployment").filter(|w| w["metadata"]["namespace"] == SPACE);
    match workloads.any(fits) {
        true => None,
        false => Some("it selects the pods of no workload"),
    }
}
