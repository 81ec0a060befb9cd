//! Waiting for what a Delivery depends on: a revision is not begun before all of it is ready.
//!
//! A Delivery that is depended on counts as ready only once it has settled the newest commit of its Repository. So where
//! both change with one commit, the dependent does not start against the old one. What becomes unready later undoes
//! nothing, and a rollback waits for nothing.

use super::next::Machine;
use super::{Health, Notice, Observation, Spec, State, Target, status};
use crate::api::delivery::{Goal, Phase, Problem, Revision};
use crate::api::dependency::{Dependency, Waiting};
use crate::api::names;
use crate::core::expression::Expression;
use crate::core::manifest::Gvk;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The reason while something is not ready.
pub const NOT_READY: &str = "DependencyNotReady";

/// The reason when Deliveries wait for each other.
pub const CYCLE: &str = "DependencyCycle";

/// The reason when an entry of `dependsOn` says nothing that can be waited for.
pub const INVALID: &str = "InvalidDependency";

/// What a Delivery's dependencies say.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Dependencies {
    /// All are ready, or there are none.
    #[default]
    Ready,
    /// One is not ready.
    Waiting(Problem),
    /// They will never be: a person has to mend them.
    Refused(Problem),
}

/// Namespace and name of a Delivery.
pub type Key = (String, String);

/// An entry of `dependsOn`, with what it leaves out filled in.
#[derive(Clone, Debug)]
pub enum On {
    /// A Delivery.
    Delivery(Key),
    /// A Repository of the Delivery's own namespace.
    Repository(Key),
    /// An object of the cluster.
    Object {
        /// `apiVersion` and kind.
        gvk: Gvk,
        /// Its namespace; of no matter where the kind has none.
        namespace: String,
        /// Its name.
        name: String,
        /// When it is ready; by our own verdict without.
        rule: Option<Arc<Expression>>,
    },
}

/// Reads the entries of `dependsOn` of a Delivery in a namespace. One that says nothing that can be waited for is
/// refused.
pub fn read(dependencies: &[Dependency], namespace: &str) -> Result<Vec<On>, Problem> {
    let mut read = Vec::with_capacity(dependencies.len());
    for (at, entry) in dependencies.iter().enumerate() {
        let invalid = |message: String| Problem {
            reason: INVALID.into(),
            object: String::new(),
            message: format!("spec.dependsOn[{at}] ({}): {message}", entry.name),
        };
        let kind = entry.kind.as_deref().unwrap_or("Delivery");
        let group = entry.api_version.as_deref().and_then(|v| v.split_once('/')).map(|(group, _)| group);
        let ours = group == Some(names::GROUP) || entry.api_version.is_none();
        let key = (entry.namespace.clone().unwrap_or_else(|| namespace.to_owned()), entry.name.clone());
        if ours && entry.ready.is_some() && matches!(kind, "Delivery" | "Repository") {
            return Err(invalid(format!(
                "ready is for other objects; a {kind} is ready when its condition Ready says so"
            )));
        }
        read.push(match (ours, kind, &entry.api_version) {
            (true, "Delivery", _) => On::Delivery(key),
            (true, "Repository", _) => {
                if key.0 != namespace {
                    return Err(invalid(format!("a Repository must be in the namespace {namespace}")));
                }
                On::Repository(key)
            }
            (_, _, None) => return Err(invalid(format!("{kind} needs an apiVersion"))),
            (_, _, Some(api_version)) => {
                let rule = entry.ready.as_deref().map(Expression::parse).transpose();
                let rule = rule.map_err(|e| invalid(format!("ready: {e}")))?.map(Arc::new);
                On::Object { gvk: Gvk::new(api_version, kind), namespace: key.0, name: key.1, rule }
            }
        });
    }
    Ok(read)
}

/// The Deliveries that the entries of `dependsOn` name.
pub fn deliveries(dependencies: &[Dependency], namespace: &str) -> Vec<Key> {
    let ours = |d: &&Dependency| {
        d.kind.as_deref().is_none_or(|kind| kind == "Delivery")
            && d.api_version
                .as_deref()
                .is_none_or(|v| v.split_once('/').map(|(g, _)| g) == Some(names::GROUP))
    };
    let key = |d: &Dependency| (d.namespace.clone().unwrap_or_else(|| namespace.to_owned()), d.name.clone());
    dependencies.iter().filter(ours).map(key).collect()
}

/// How a Delivery stands, for those that depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The generation of the spec that it stands by.
    pub generation: i64,
    /// The commit that it was last compared with.
    pub commit: String,
    /// It has settled that commit, and is healthy.
    pub ready: bool,
    /// What it is doing.
    pub phase: Phase,
}

/// How a Delivery stands after a step of its machine.
pub fn standing(spec: &Spec, state: &State, seen: &Observation, generation: i64) -> Standing {
    let phase = status::phase(spec, state, seen);
    let (commit, settled) = match (&seen.target, &state.effective) {
        (Target::Known(target), Some(effective)) => {
            let same = target.inputs == effective.inputs && target.settings == effective.settings;
            (target.commit.clone(), same)
        }
        (Target::Known(target), None) => (target.commit.clone(), false),
        _ => (String::new(), false),
    };
    Standing {
        generation,
        commit,
        ready: settled && phase == Phase::Ready && seen.health == Health::Healthy && seen.ill.is_empty(),
        phase,
    }
}

/// Why a Delivery that is there is not ready, in words that stay the same while it is on its way. `newest` is the commit
/// of its Repository that was fetched last.
pub fn unready(standing: Option<&Standing>, generation: i64, newest: Option<&str>) -> Option<String> {
    let on_its_way = || Some("is not ready yet".to_owned());
    let Some(standing) = standing else { return on_its_way() };
    if standing.generation != generation {
        return on_its_way();
    }
    let why = match standing.phase {
        Phase::Held => "is not ready: its newest revision failed and is held",
        Phase::Failed => "is not ready: its newest revision failed",
        Phase::RollingBack | Phase::RollbackFailed => "is not ready: it is being rolled back",
        Phase::Suspended => "is not ready: it is suspended",
        Phase::Deleting => "is not ready: it is being deleted",
        _ if newest.is_some_and(|newest| newest != standing.commit) => return on_its_way(),
        Phase::Ready if standing.ready => return None,
        Phase::Ready => "is not ready: it is not healthy",
        _ => return on_its_way(),
    };
    Some(why.into())
}

/// The shortest way from a Delivery back to itself.
pub fn cycle(start: &Key, on: impl Fn(&Key) -> Vec<Key>) -> Option<Vec<Key>> {
    let mut from: BTreeMap<Key, Key> = BTreeMap::new();
    let mut seen: BTreeSet<Key> = BTreeSet::new();
    let mut next = VecDeque::from([start.clone()]);
    while let Some(at) = next.pop_front() {
        for to in on(&at) {
            if to == *start {
                let mut way = vec![to, at.clone()];
                let mut at = &at;
                while let Some(before) = from.get(at) {
                    way.push(before.clone());
                    at = before;
                }
                way.reverse();
                // A Delivery that depends on itself has been put in twice already.
                way.dedup();
                if way.len() == 1 {
                    way.push(start.clone());
                }
                return Some(way);
            }
            if seen.insert(to.clone()) {
                from.insert(to.clone(), at.clone());
                next.push_back(to);
            }
        }
    }
    None
}

/// A cycle as its members are told about it. Of other namespaces only the members that the one who reads depends on by
/// itself are named.
pub fn told_cycle(way: &[Key]) -> Problem {
    let own = way.first().map_or("", |(namespace, _)| namespace);
    let names: Vec<String> = way
        .iter()
        .enumerate()
        .map(|(at, (namespace, name))| match namespace == own {
            true => name.clone(),
            false if at == 1 => format!("{namespace}/{name}"),
            false => "a Delivery of another namespace".into(),
        })
        .collect();
    Problem {
        reason: CYCLE.into(),
        object: String::new(),
        message: format!(
            "the Deliveries wait for each other: {}; take one of these out of spec.dependsOn",
            names.join(" -> ")
        ),
    }
}

impl Machine<'_> {
    /// Whether a revision may be begun; if not, notes what it waits for.
    pub(super) fn may_begin(&mut self, goal: Goal, revision: &Revision) -> bool {
        let (problem, refused) = match &self.seen.dependencies {
            // What ran before does not hang on what a newer revision needs.
            _ if goal != Goal::Deploy => return self.waits_for_nothing(),
            Dependencies::Ready => return self.waits_for_nothing(),
            Dependencies::Waiting(problem) => (problem.clone(), false),
            Dependencies::Refused(problem) => (problem.clone(), true),
        };
        let told = self.state.waiting.as_ref().is_some_and(|w| w.problem == problem);
        if refused && !told {
            self.actions.push(super::Action::Notify(Notice {
                warning: true,
                reason: problem.reason.clone(),
                object: problem.object.clone(),
                message: format!("{revision}: {}; nothing was changed", problem.message),
            }));
        }
        // What was found out about an older revision says nothing about this one.
        self.state.failure = None;
        self.state.waiting = Some(Waiting { revision: revision.clone(), problem });
        false
    }

    fn waits_for_nothing(&mut self) -> bool {
        self.state.waiting = None;
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{World, revision};
    use super::*;

    fn key(name: &str) -> Key {
        match name.split_once('/') {
            Some((namespace, name)) => (namespace.into(), name.into()),
            None => ("shop".into(), name.into()),
        }
    }

    fn cycle_of(edges: &[(&str, &str)], start: &str) -> Option<String> {
        let on =
            |of: &Key| edges.iter().filter(|(from, _)| key(from) == *of).map(|(_, to)| key(to)).collect();
        cycle(&key(start), on).map(|way| told_cycle(&way).message)
    }

    #[test]
    fn cycles_are_named_by_each_of_their_members_and_by_nobody_else() {
        let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("x", "a"), ("c", "y"), ("me", "me")];
        assert!(cycle_of(&edges, "a").unwrap().contains("a -> b -> c -> a"));
        assert!(cycle_of(&edges, "b").unwrap().contains("b -> c -> a -> b"));
        assert!(cycle_of(&edges, "me").unwrap().contains(": me -> me;"));
        assert_eq!((cycle_of(&edges, "x"), cycle_of(&edges, "y")), (None, None));
        let far = [("a", "one/b"), ("one/b", "two/c"), ("two/c", "a")];
        let told = cycle_of(&far, "a").unwrap();
        assert!(told.contains("a -> one/b -> a Delivery of another namespace -> a"), "{told}");
    }

    fn waiting() -> Dependencies {
        Dependencies::Waiting(Problem {
            reason: NOT_READY.into(),
            object: "Delivery shop/db".into(),
            message: "is not ready yet".into(),
        })
    }

    #[test]
    fn a_revision_is_not_begun_before_its_dependencies_are_ready_and_says_so() {
        let mut world = World::deployed(&["web"]);
        world.seen.dependencies = waiting();
        world.push("b", &["web"]);
        assert!(!world.round(), "nothing is prepared");
        world.pass(100_000);
        assert_eq!((world.phase(), world.runs()), (Phase::Pending, vec!["web=a".to_owned()]));
        assert_eq!(world.state.waiting.as_ref().unwrap().revision, revision("b"));
        let (status, reason, message) = world.condition("Ready");
        assert_eq!((status.as_str(), reason.as_str()), ("False", NOT_READY));
        assert!(message.contains("waits: Delivery shop/db: is not ready yet; main@sha1:a000"), "{message}");
        assert_eq!(world.condition("Reconciling").0, "True");
        assert_eq!(world.condition("Stalled").0, "False");
        // A newer one takes its place, and waits as well.
        world.push("c", &["web"]);
        world.settle();
        assert_eq!(world.state.waiting.as_ref().unwrap().revision, revision("c"));
        world.seen.dependencies = Dependencies::Ready;
        world.settle();
        assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=c".to_owned()]));
        assert!(world.state.waiting.is_none());
        assert_eq!(world.applied, ["a", "c"]);
    }

    #[test]
    fn what_becomes_unready_later_undoes_nothing_and_a_rollback_waits_for_nothing() {
        let mut world = World::deployed(&["web"]);
        world.slow.insert("b".into());
        world.push("b", &["web"]);
        world.settle();
        world.pass(10);
        world.seen.dependencies = waiting();
        world.settle();
        assert_eq!((world.phase(), world.runs()), (Phase::Waiting, vec!["web=b".to_owned()]));
        // A newer one waits; what is under way goes on meanwhile, and back if it fails.
        world.push("c", &["web"]);
        world.settle();
        assert_eq!((world.phase(), world.runs()), (Phase::Waiting, vec!["web=b".to_owned()]));
        world.pass(301);
        assert_eq!(world.runs(), ["web=a"]);
        assert_eq!(world.phase(), Phase::Pending, "c waits still");
        world.seen.dependencies = Dependencies::Ready;
        world.settle();
        assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=c".to_owned()]));
        world.seen.dependencies = waiting();
        world.pass(100_000);
        assert_eq!((world.phase(), world.runs()), (Phase::Ready, vec!["web=c".to_owned()]));
    }

    #[test]
    fn suspending_and_deleting_do_not_wait() {
        let mut world = World::deployed(&["web"]);
        world.seen.dependencies = waiting();
        world.push("b", &["web"]);
        world.settle();
        world.spec.suspend = true;
        world.settle();
        assert_eq!((world.phase(), world.state.waiting.is_none()), (Phase::Suspended, true));
        world.spec.suspend = false;
        world.settle();
        assert_eq!(world.phase(), Phase::Pending);
        world.seen.deleting = true;
        world.settle();
        assert!(world.gone && world.cluster.is_empty());
    }

    #[test]
    fn a_dependent_that_is_deleted_too_goes_first() {
        let mut world = World::deployed(&["web"]);
        world.seen.deleting = true;
        world.seen.dependent = Some("Delivery shop/web".into());
        world.settle();
        assert!(!world.gone && !world.cluster.is_empty());
        assert!(world.condition("Ready").2.contains("after Delivery shop/web"));
        world.seen.dependent = None;
        world.settle();
        assert!(world.gone && world.cluster.is_empty());
    }

    #[test]
    fn what_will_never_be_ready_is_told_once_and_stalls() {
        let mut world = World::deployed(&["web"]);
        world.seen.dependencies = Dependencies::Refused(told_cycle(&[key("a"), key("b"), key("a")]));
        world.settle();
        assert_eq!(world.phase(), Phase::Ready, "what runs is right");
        assert_eq!(world.condition("Stalled").1, CYCLE);
        world.push("b", &["web"]);
        world.settle();
        world.pass(100_000);
        assert_eq!((world.phase(), world.runs()), (Phase::Failed, vec!["web=a".to_owned()]));
        assert_eq!(world.condition("Ready").1, CYCLE);
        assert!(
            world
                .condition("Ready")
                .2
                .contains("was not begun: the Deliveries wait for each other: a -> b -> a")
        );
        assert_eq!(world.notices.iter().filter(|n| n.reason == CYCLE).count(), 1);
    }

    #[test]
    fn how_a_delivery_stands_is_about_the_newest_commit() {
        let mut world = World::deployed(&["web"]);
        let stands = |world: &World| standing(&world.spec, &world.state, &world.seen, 1);
        world.settle();
        assert!(stands(&world).ready);
        world.push("b", &["web"]);
        assert!(!stands(&world).ready, "not looked at yet");
        world.settle();
        let now = stands(&world);
        assert!(now.ready && now.commit == revision("b").commit);
        world.broken.insert("c".into());
        world.push("c", &["web"]);
        world.settle();
        assert_eq!((stands(&world).ready, stands(&world).phase), (false, Phase::Held));
    }

    #[test]
    fn a_delivery_is_ready_only_for_the_newest_commit_and_its_newest_spec() {
        let ready = Standing { generation: 2, commit: "new".into(), ready: true, phase: Phase::Ready };
        assert_eq!(unready(Some(&ready), 2, Some("new")), None);
        assert_eq!(unready(Some(&ready), 2, None), None, "its Repository is not known any more");
        for (standing, generation, newest) in
            [(Some(&ready), 3, "new"), (Some(&ready), 2, "newer"), (None, 2, "new")]
        {
            assert_eq!(unready(standing, generation, Some(newest)).unwrap(), "is not ready yet");
        }
        let table = [
            (Phase::Pending, "is not ready yet"),
            (Phase::Applying, "is not ready yet"),
            (Phase::Waiting, "is not ready yet"),
            (Phase::Ready, "is not ready: it is not healthy"),
            (Phase::Held, "is not ready: its newest revision failed and is held"),
            (Phase::Suspended, "is not ready: it is suspended"),
        ];
        for (phase, expected) in table {
            let standing = Standing { phase, ready: false, ..ready.clone() };
            assert_eq!(unready(Some(&standing), 2, Some("new")).unwrap(), expected);
        }
    }

    #[test]
    fn entries_are_read_with_what_they_leave_out_and_mistakes_say_where() {
        let entry = |text: &str| serde_json::from_str::<Dependency>(text).unwrap();
        let one = |text: &str| read(&[entry(text)], "shop").map(|mut on| on.remove(0));
        assert!(matches!(one(r#"{"name": "db"}"#), Ok(On::Delivery(k)) if k == key("db")));
        assert!(
            matches!(one(r#"{"name": "db", "namespace": "data"}"#), Ok(On::Delivery(k)) if k == key("data/db"))
        );
        assert!(
            matches!(one(r#"{"kind": "Repository", "name": "config"}"#), Ok(On::Repository(k)) if k == key("config"))
        );
        let object =
            r#"{"apiVersion": "apps/v1", "kind": "Deployment", "name": "db", "ready": "object.a == 1"}"#;
        assert!(matches!(one(object), Ok(On::Object { gvk, namespace, rule: Some(_), .. })
            if gvk.kind == "Deployment" && namespace == "shop"));
        let mistakes = [
            (r#"{"kind": "Deployment", "name": "db"}"#, "Deployment needs an apiVersion"),
            (
                r#"{"kind": "Repository", "name": "config", "namespace": "far"}"#,
                "must be in the namespace shop",
            ),
            (r#"{"name": "db", "ready": "true"}"#, "ready is for other objects"),
            (
                r#"{"apiVersion": "v1", "kind": "Pod", "name": "db", "ready": "ready"}"#,
                "ready: the expression names \"ready\"",
            ),
        ];
        for (text, expected) in mistakes {
            let problem = one(text).unwrap_err();
            assert_eq!(problem.reason, INVALID);
            assert!(problem.message.contains(expected), "{}", problem.message);
            assert!(problem.message.starts_with("spec.dependsOn[0] ("), "{}", problem.message);
        }
    }
}
