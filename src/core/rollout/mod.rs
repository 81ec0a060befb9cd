//! The life of a Delivery as a state machine: `next(spec, state, observation, now)` says what the state is now and
//! what is to be done. No IO, no clock, no client, no randomness: the reconciler observes, calls it, writes the new
//! state to status, and then performs the actions, each of which may be repeated.
//!
//! A revision goes through these steps:
//!
//! ```text
//! target differs ── Prepare ──▶ Applying ── Apply ──▶ Waiting ── healthy ──▶ Pruning ── Prune ──▶ effective
//!                      │            │                    │
//!                      │ refused    │ refused            │ broken, or out of time
//!                      ▼            ▼                    ▼
//!                   failure      held, and the effective revision goes through the same steps (Rollback)
//!              (nothing touched)
//! ```

mod bake;
#[cfg(test)]
mod bake_tests;
pub mod brief;
mod deadline;
pub mod dependencies;
mod except;
#[cfg(test)]
mod except_tests;
mod first;
pub mod hooks;
#[cfg(test)]
mod jobs_tests;
pub mod late;
pub mod left;
mod measure;
mod next;
mod progress;
#[cfg(test)]
mod progress_tests;
#[cfg(test)]
mod pruning_tests;
mod put_back;
mod quiet;
mod revert;
pub mod served;
mod serving;
#[cfg(test)]
mod serving_tests;
pub mod status;
#[cfg(test)]
mod step_jobs_tests;
pub mod steps;
#[cfg(test)]
mod tests;

pub use dependencies::Dependencies;
pub use hooks::{Hooks, JobSeen};
pub use measure::{Measure, is_strict, measure, rests};
pub use next::next;
pub use progress::{Measuring, measuring, staging, takes_over};

/// The reason while a daemon that was just started has not read Git yet.
pub const SOURCE_UNKNOWN: &str = "SourceUnknown";

/// The reason while a rule of `spec.drift.ignore` cannot be used, so that it is not known what is left to others.
pub const INVALID_RULE: &str = "InvalidIgnoreRule";

use crate::api::Delivery;
use crate::api::delivery::{
    Attempt, Bake, DeletionPolicy, DeliverySpec, DeliveryStatus, DriftMode, Exception, Failure,
    FirstRevision, Goal, Held, HistoryEntry, InventoryEntry, Problem, RemovedEntry, Revision, RollbackMode,
};
use crate::api::dependency::Waiting;
use crate::api::hook::HookRun;
use crate::api::rollout::{
    Layout, RolloutPolicy, RolloutStatus, Router, Strategy, WorkloadRef, WorkloadSize,
};
use crate::core::analysis::AnalysisSeen;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The reason why a candidate is not removed yet: a route names it, which Git does not.
pub const NAMES_CANDIDATE: &str = "RouteNamesCandidate";

/// The reason of [`Health::Progressing`] while all that is waited for is that somebody looks at what was written.
pub const NOT_OBSERVED: &str = "NotObserved";

/// The reason of [`Health::Degraded`] of an object that was there and is gone.
pub const MISSING: &str = "Missing";

/// The reason of [`Variants::unready`].
pub const UNREADY: &str = "NoPodReady";

/// The reason of [`Health::Broken`] of an object that another Delivery has.
pub const CONFLICT: &str = "Conflict";

/// How many entries of history are kept.
pub const HISTORY: usize = 10;

/// The settings that decide, taken from a Delivery's spec with the defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// How long a revision may take to become healthy.
    pub timeout: SignedDuration,
    /// How soon a failure is tried again at first.
    pub retry_interval: SignedDuration,
    /// Whether what left Git is removed.
    pub prune: bool,
    /// What happens when a revision fails.
    pub rollback: RollbackMode,
    /// How long a revision is watched on after its success; zero for not at all.
    pub bake: SignedDuration,
    /// What becomes of a first revision that fails.
    pub first_revision: FirstRevision,
    /// Nothing is done while it is set.
    pub suspend: bool,
    /// What becomes of the objects when the Delivery is deleted.
    pub deletion: DeletionPolicy,
    /// What is done about drift.
    pub drift: DriftMode,
    /// How a revision that changes a workload reaches traffic; `None` where it is applied at once, or where the policy
    /// cannot be read, which refuses each revision that needs it.
    pub rollout: Option<Arc<steps::Steps>>,
}

impl From<&DeliverySpec> for Spec {
    fn from(spec: &DeliverySpec) -> Self {
        let policy = spec.template.rollout.as_ref();
        Spec::with(spec, policy.and_then(|policy| steps::Steps::new(policy).ok().flatten()))
    }
}

impl Spec {
    fn with(spec: &DeliverySpec, steps: Option<steps::Steps>) -> Self {
        let t = &spec.template;
        let or = |d: Option<crate::api::Duration>, secs| {
            d.map_or(SignedDuration::from_secs(secs), crate::api::Duration::signed)
        };
        Spec {
            timeout: or(t.timeout, 300),
            retry_interval: or(t.retry_interval, 60).max(SignedDuration::from_secs(1)),
            prune: t.prune.unwrap_or(true),
            rollback: t.rollback.as_ref().map(|r| r.mode).unwrap_or_default(),
            bake: or(t.rollback.as_ref().and_then(|r| r.bake), 0),
            first_revision: t.rollback.as_ref().map(|r| r.first_revision).unwrap_or_default(),
            suspend: t.suspend,
            deletion: t.deletion_policy.unwrap_or_default(),
            drift: t.drift.as_ref().map(|d| d.mode).unwrap_or_default(),
            rollout: steps.map(Arc::new),
        }
    }

    /// What a Delivery's spec says of it in the state that it is in. A rollout that is under way keeps what its candidate is made by;
    /// where the spec says that otherwise, or cannot be read, it goes no further by itself.
    pub fn of(delivery: &Delivery) -> Self {
        let attempt = delivery.status.as_ref().and_then(|status| status.attempt.as_ref());
        let rollout = attempt.and_then(|attempt| attempt.rollout.as_ref());
        let policy = delivery.spec.template.rollout.as_ref();
        let (Some(rollout), Some(policy)) = (rollout, policy) else { return Spec::from(&delivery.spec) };
        let making = Making::of(rollout);
        let staying = |why: String| steps::Steps::staying(&making.keep(policy), rollout, why);
        let steps = match steps::Steps::new(policy) {
            // Without any it was switched off.
            Ok(steps) if steps.as_ref().is_none_or(|steps| making.is_kept_by(&steps.making)) => steps,
            Ok(_) => staying(
                "spec.rollout names another router, strategy or workload, which is for the next rollout"
                    .into(),
            ),
            Err(problem) => staying(format!("spec.rollout cannot be carried out: {}", problem.message)),
        };
        Spec::with(&delivery.spec, steps)
    }
}

/// What must survive a restart: the part of a Delivery's status that decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What the cluster should be running.
    pub effective: Option<Revision>,
    /// What is being put in place.
    pub attempt: Option<Attempt>,
    /// The revision that failed and is not tried again.
    pub held: Option<Held>,
    /// The effective revision is watched on.
    pub bake: Option<Bake>,
    /// What the last rollback did not undo.
    pub except: Vec<Exception>,
    /// Why the wanted revision could not be begun.
    pub failure: Option<Failure>,
    /// The revision that waits for what the Delivery depends on.
    pub waiting: Option<Waiting>,
    /// The hooks of the attempt, and those whose Jobs are still there.
    pub hooks: Vec<HookRun>,
    /// The objects that the Delivery owns.
    pub inventory: Vec<InventoryEntry>,
    /// What left the inventory a short while ago.
    pub removed: Vec<RemovedEntry>,
    /// The last revisions, newest first.
    pub history: Vec<HistoryEntry>,
    /// The request to look again that was acted on.
    pub handled_request: Option<String>,
    /// The release request that was acted on.
    pub handled_release: Option<String>,
    /// The rollback request that was acted on.
    pub handled_rollback: Option<String>,
    /// The request about a rollout that was acted on.
    pub handled_rollout: Option<String>,
}

impl From<&DeliveryStatus> for State {
    fn from(status: &DeliveryStatus) -> Self {
        State {
            effective: status.effective.clone(),
            attempt: status.attempt.clone(),
            held: status.held.clone(),
            bake: status.bake.clone(),
            except: status.rolled_back_except.clone(),
            failure: status.failure.clone(),
            waiting: status.waiting.clone(),
            hooks: status.hooks.clone(),
            inventory: status.inventory.clone(),
            removed: status.removed.clone(),
            history: status.history.clone(),
            handled_request: status.handled_request.clone(),
            handled_release: status.handled_release.clone(),
            handled_rollback: status.handled_rollback.clone(),
            handled_rollout: status.handled_rollout.clone(),
        }
    }
}

/// What was seen. Everything in it may be out of date or lost; the machine only needs that it comes again. An outcome
/// that is a failure, a block or a prune is shown once and then forgotten, so that the act is tried again when it is
/// due; that a revision is prepared or fully applied is shown for as long as the daemon knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The Delivery is being deleted.
    pub deleting: bool,
    /// What Git wants.
    pub target: Target,
    /// What the Delivery's dependencies say.
    pub dependencies: Dependencies,
    /// A Delivery that depends on this one and is being deleted too: it goes first.
    pub dependent: Option<String>,
    /// What is seen of hooks.
    pub hooks: Hooks,
    /// What became of preparing a revision.
    pub prepared: Option<Prepared>,
    /// What became of the last apply of the attempt.
    pub applied: Option<Applied>,
    /// What became of the last prune.
    pub pruned: Option<Pruned>,
    /// The health of the objects in the inventory that are not stale, but for those that are
    /// [excused](crate::api::rollout::RolloutStatus::excused).
    pub health: Health,
    /// The objects of the inventory that are degraded or broken, those that are excused among them.
    pub ill: Vec<Problem>,
    /// The same two without the Deployment whose pods an Application tells of; `None` where none does.
    pub besides_pods: Option<(Health, Vec<Problem>)>,
    /// Since when this life of the daemon has been in contact with the API server without a gap; `None` while it is not.
    pub in_contact_since: Option<Timestamp>,
    /// Since when the objects are seen without a gap, where that is known.
    pub seen_since: Option<Timestamp>,
    /// What drift was measured against; `None` while it is not.
    pub measured: Option<Measure>,
    /// How many objects differ from that, or carry our label and are in no bundle.
    pub drifted: usize,
    /// How many of them can be written back.
    pub correctable: usize,
    /// One of them that steers traffic, a route or a Service.
    pub misdirected: Option<String>,
    /// Why it is not known of all objects whether they differ.
    pub uncompared: Option<String>,
    /// Fields that are left to others who keep writing them, in words.
    pub contested: Vec<String>,
    /// The inventory after what drifted was written back; shown once.
    pub corrected: Option<Vec<InventoryEntry>>,
    /// What left the inventory a short while ago and stands there with our label.
    pub late: Vec<RemovedEntry>,
    /// Broken pods of an older revision that keep the one under way from getting through.
    pub in_the_way: Vec<PodRef>,
    /// Why objects that are not healthy are not the revision's fault: their nodes are lost, they were evicted, or somebody
    /// changed them. Only told when that explains all of them.
    pub disturbed: Option<Problem>,
    /// Pods of a workload that is not healthy are not seen yet, and with them what may explain it: a daemon that was just
    /// started sees workloads first.
    pub pods_unseen: bool,
    /// What the rollback under way cannot undo, as far as its plan shows.
    pub except: Vec<Exception>,
    /// What became of reverting the held commit; shown once.
    pub reverted: Option<Reverted>,
    /// The value of the annotation that asks to look again.
    pub reconcile: Option<String>,
    /// The value of the release annotation.
    pub release: Option<String>,
    /// The value of the rollback annotation.
    pub rollback: Option<String>,
    /// The value of the rollout annotation.
    pub rollout: Option<String>,
    /// The health of both variants apart, during a rollout.
    pub variants: Variants,
    /// What was measured in the step that is under way.
    pub analysis: Option<AnalysisSeen>,
    /// How many pods the workloads that an autoscaler sizes have now, in the order of the rollout's `sizes`; `None` for one that is
    /// not seen.
    pub sizes: Vec<Option<i64>>,
}

/// The health of a rollout's two variants apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variants {
    /// Of what stands under the names of Git.
    pub named: Health,
    /// Of what is there for the rollout only.
    pub candidate: Health,
    /// A workload of the candidate that wants pods and has none that is ready, while each workload that is rolled out has some
    /// under its name in Git. `None` also while that cannot be seen.
    pub unready: Option<Problem>,
}

/// One pod, the very one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: one of the same name that came after it is another.
    pub uid: String,
}

/// What Git wants of a Delivery.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Target {
    /// Not known yet.
    #[default]
    Unknown,
    /// It cannot be known: the remote is gone, the directory is not there, the settings are missing.
    Failed(Problem),
    /// This revision.
    Known(Revision),
}

/// What became of preparing a revision: rendering it, and trying each object by a dry-run.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The revision.
    pub revision: Revision,
    /// What the cluster is to be made like.
    pub staging: Staging,
    /// How the revision is begun, where that was asked.
    pub begin: Option<Begin>,
    /// The inventory that its apply needs recorded before it begins, or why it must not begin.
    pub outcome: Result<Vec<InventoryEntry>, Refusal>,
    /// When.
    pub at: Timestamp,
}

/// What the cluster is to be made like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Staging {
    /// As the revision says.
    #[default]
    Whole,
    /// With a candidate beside it.
    Staged(Box<Staged>),
}

/// A stage of a rollout: two revisions, and how they stand beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The last good revision.
    pub stable: Revision,
    /// The revision that the candidate runs.
    pub candidate: Revision,
    /// Another revision that takes the place of stable, while a candidate of neither has traffic still.
    pub over: Option<Revision>,
    /// How they stand beside each other.
    pub layout: Layout,
    /// How many pods the workloads have, where Git leaves that to an autoscaler.
    pub sizes: Vec<WorkloadSize>,
    /// What the candidate is made by: as the rollout began, whatever `spec.rollout` says by now.
    pub making: Making,
    /// The route that would be made is there, and somebody else's.
    pub others_route: bool,
}

/// What of a policy a candidate is made by. A rollout keeps it to its end: made of another policy, what has traffic now would be
/// taken away, or would stand there twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Making {
    /// What moves traffic.
    pub router: Router,
    /// What the names of a candidate hang on; `None` where an older version of the daemon began the rollout.
    pub strategy: Option<Strategy>,
    /// The workloads that have a candidate; none likewise.
    pub workloads: Vec<WorkloadRef>,
}

impl Making {
    /// What the candidate of a rollout that is under way is made by.
    pub fn of(rollout: &RolloutStatus) -> Self {
        Making {
            router: rollout.router.clone(),
            strategy: rollout.strategy,
            workloads: rollout.workloads.clone(),
        }
    }

    /// Whether a policy makes a candidate like this.
    fn is_kept_by(&self, other: &Making) -> bool {
        self.router == other.router
            && (self.strategy.is_none() || self.strategy == other.strategy)
            && (self.workloads.is_empty() || self.workloads == other.workloads)
    }

    /// A policy that makes a candidate like this, and is like another in everything else.
    pub fn keep(&self, policy: &RolloutPolicy) -> RolloutPolicy {
        let mut kept = RolloutPolicy { router: Some(self.router.clone()), ..policy.clone() };
        kept.strategy = self.strategy.unwrap_or(policy.strategy);
        if !self.workloads.is_empty() {
            (kept.workload, kept.workloads) = (None, self.workloads.clone());
        }
        kept
    }
}

/// How a revision is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At once, and why, where it might have been otherwise.
    Direct(String),
    /// By a rollout: its first layout was prepared.
    Rollout {
        /// What of it needs one.
        why: String,
        /// What was found out before.
        known: Foreknown,
    },
}

/// What is found out before a rollout begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreknown {
    /// How many pods the workloads have, where Git leaves that to an autoscaler.
    pub sizes: Vec<WorkloadSize>,
    /// The route would be made where there is none, and somebody has one of its name: that is divided instead.
    pub others_route: bool,
    /// The objects that it is about: those that the revision changes, and what traffic reaches the workloads by.
    pub concerns: BTreeSet<String>,
    /// What could not be looked at, a sentence each.
    pub unchecked: Vec<String>,
    /// What objects of others do with the variants that a rollout bears, and people may not expect, a sentence each.
    pub notices: Vec<String>,
}

/// Why a revision cannot be begun, or goes no further.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What, and with which object.
    pub problem: Problem,
    /// Whether trying again may help without a change in Git: the API server was away, a namespace is missing.
    pub transient: bool,
}

/// What became of applying the attempt's revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The revision.
    pub revision: Revision,
    /// What the cluster was to be made like.
    pub staging: Staging,
    /// The inventory with what was written so far.
    pub inventory: Vec<InventoryEntry>,
    /// How it ended.
    pub end: ApplyEnd,
    /// When.
    pub at: Timestamp,
}

/// How an apply ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyEnd {
    /// All is written.
    Done,
    /// A wave waits until the ones before it are healthy; to be called again when health changes.
    Blocked(String),
    /// Refused.
    Failed(Refusal),
}

/// What became of removing objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// The inventory with what is left.
    pub inventory: Vec<InventoryEntry>,
    /// Why something is left that should be gone.
    pub refusal: Option<Refusal>,
}

/// What became of reverting a commit in Git.
#[derive(Clone, Debug, PartialEq)]
pub struct Reverted {
    /// The commit that was to be reverted.
    pub commit: String,
    /// The branch that takes it back and the commit there that does, or why there is none.
    pub outcome: Result<(String, String), Refusal>,
}

/// The health of a Delivery's objects together.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Health {
    /// Not all of them have been seen since they were written.
    #[default]
    Unknown,
    /// All are healthy, or have no health to speak of.
    Healthy,
    /// Some are on their way.
    Progressing(Problem),
    /// Some are not healthy; time may heal it.
    Degraded(Problem),
    /// Some are broken beyond doubt.
    Broken(Problem),
}

/// What the reconciler is to do. Each may be repeated.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Render the revision, compare it with the cluster, try it by dry-run; answer with [`Prepared`]. Without a staging the
    /// revision is new: whether it needs a rollout is found out, and what it begins with is prepared.
    Prepare(Revision, Goal, Option<Staging>),
    /// Write what differs, in waves; answer with [`Applied`].
    Apply(Revision, Goal, Staging),
    /// Make sure that the Job of a hook runs; what becomes of it is seen in [`Hooks`].
    RunHook(Box<HookRun>),
    /// Delete the Jobs of hooks; answer in [`Hooks`].
    RemoveHooks(Vec<HookRun>),
    /// Remove the stale objects of the inventory (release those that were adopted); answer with [`Pruned`].
    Prune,
    /// Remove all objects of the inventory; answer with [`Pruned`].
    PruneAll,
    /// Take our label from all objects and leave them.
    OrphanAll,
    /// Remove what late requests of a daemon that works no more left behind.
    RemoveLate(Vec<RemovedEntry>),
    /// Delete pods of an older revision that keep the one under way from getting through.
    Evict(Vec<PodRef>),
    /// Write back what drifted.
    Correct(Revision),
    /// See to it that Git has a commit that takes the held one back; answer with [`Reverted`].
    Revert(Box<Held>),
    /// Keep this commit in the mirror, whatever happens to the branch.
    Keep(Revision),
    /// Tell people.
    Notify(Notice),
    /// Let the Delivery go.
    RemoveFinalizer,
    /// Look again at this time, if nothing happens before.
    Wake(Timestamp),
}

impl Action {
    /// The action in two words at most, such as `Apply Rollback`.
    pub fn name(&self) -> String {
        match self {
            Action::Prepare(_, goal, _) => format!("Prepare {goal:?}"),
            Action::Apply(_, goal, _) => format!("Apply {goal:?}"),
            Action::Prune => "Prune".into(),
            Action::PruneAll => "PruneAll".into(),
            Action::OrphanAll => "OrphanAll".into(),
            Action::RemoveLate(_) => "RemoveLate".into(),
            Action::Revert(_) => "Revert".into(),
            Action::RunHook(_) => "RunHook".into(),
            Action::RemoveHooks(_) => "RemoveHooks".into(),
            Action::Evict(_) => "Evict".into(),
            Action::Correct(_) => "Correct".into(),
            Action::Keep(_) => "Keep".into(),
            Action::Notify(notice) => format!("Notify {}", notice.reason),
            Action::RemoveFinalizer => "RemoveFinalizer".into(),
            Action::Wake(_) => "Wake".into(),
        }
    }
}

/// A Kubernetes event on the Delivery, and on the object concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// In CamelCase.
    pub reason: String,
    /// The object concerned besides the Delivery, such as `Deployment shop/web`.
    pub object: String,
    /// A sentence.
    pub message: String,
}

/// What [`next`] answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The new state, to be written before any action.
    pub state: State,
    /// What to do then.
    pub actions: Vec<Action>,
}

/// The time until a failure is tried again: the interval, doubled for each retry, at most ten times as long.
pub fn back_off(interval: SignedDuration, retries: u32) -> SignedDuration {
    let factor = 1_i32.checked_shl(retries.min(8)).unwrap_or(256).min(10);
    interval.checked_mul(factor).unwrap_or(interval)
}

/// A time as it is kept in status.
pub fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A time read from status; the beginning of time when it is none, so that what hangs on it is due.
pub fn read_stamp(text: &str) -> Timestamp {
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}
