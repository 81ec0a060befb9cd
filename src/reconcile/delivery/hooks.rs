//! Hooks of a Delivery in the cluster: their Jobs are made, watched and deleted as its account.

use super::work::Memory;
use super::{Next, Scope, bundle_of, prune};
use crate::api::DeliveryStatus;
use crate::api::delivery::{EntryOrigin, Goal, InventoryEntry, Problem, Revision};
use crate::api::hook::{HookJob, HookPoint, HookRun, HookStep};
use crate::api::names;
use crate::cluster::apply::{Guard, apply, dry_run};
use crate::cluster::{ApplyError, Cause, logs};
use crate::core::bundle::Bundle;
use crate::core::hook::{Hook, job, job_name};
use crate::core::manifest::{Gvk, Manifest, ObjectId};
use crate::core::plan;
use crate::core::rollout::{Hooks, JobSeen, Refusal, hooks::FAILED};
use crate::reconcile::live::version;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// How soon what could not be made or deleted is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// How long the watch may take to show a Job that was made before its silence means that it is gone again.
const LAG: SignedDuration = SignedDuration::from_secs(10);

/// Longest end of a log that is told, in characters.
const LOG: usize = 400;

/// What is remembered of hooks between two rounds.
#[derive(Default)]
pub struct Known {
    /// Jobs that were made in this life of the daemon: the version of the answer, the uid, and when.
    made: BTreeMap<(String, String), (u64, String, Timestamp)>,
    /// Why others could not be made.
    refused: BTreeMap<(String, String), Problem>,
    /// Ends of the logs of those that failed, as they are told.
    logs: BTreeMap<(String, String), String>,
    /// Jobs that were deleted, and why others could not be; shown once.
    removed: Vec<(String, String)>,
    stuck: Option<Refusal>,
    /// When what did not work is tried again.
    retry_at: Option<Timestamp>,
}

impl Known {
    /// Drops what the machine is shown once.
    pub fn forget_what_was_shown(&mut self) {
        self.removed.clear();
        self.stuck = None;
    }
}

fn gvk() -> Gvk {
    Gvk::new("batch/v1", "Job")
}

fn key(run: &HookRun) -> (String, String) {
    (run.namespace.clone(), run.job.clone())
}

fn id(run: &HookRun) -> ObjectId {
    ObjectId {
        group: "batch".into(),
        kind: "Job".into(),
        namespace: run.namespace.clone(),
        name: run.job.clone(),
    }
}

/// Kind and namespaces of the Jobs that run and must be watched.
pub fn watched(status: &DeliveryStatus) -> impl Iterator<Item = (Gvk, String)> {
    let running = |run: &&HookRun| run.step == HookStep::Running && run.state == HookJob::Kept;
    status.hooks.iter().filter(running).map(|run| (gvk(), run.namespace.clone()))
}

/// What is seen of the hooks of a Delivery.
pub async fn observe(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) -> Hooks {
    let mut seen = Hooks {
        planned: memory.work.as_ref().map(|w| w.bundle.hooks().to_vec()).unwrap_or_default(),
        removed: memory.hooks.removed.clone(),
        stuck: memory.hooks.stuck.clone(),
        ..Hooks::default()
    };
    let now = scope.daemon.now();
    let known = |run: &HookRun| status.hooks.iter().any(|other| key(other) == key(run));
    memory.hooks.made.retain(|of, _| status.hooks.iter().any(|run| key(run) == *of));
    memory.hooks.refused.retain(|of, _| status.hooks.iter().any(|run| key(run) == *of));
    memory.hooks.logs.retain(|of, _| status.hooks.iter().any(|run| key(run) == *of));
    let running = |run: &&HookRun| run.step == HookStep::Running && run.state == HookJob::Kept && known(run);
    for run in status.hooks.iter().filter(running) {
        if let Some(problem) = memory.hooks.refused.get(&key(run)) {
            seen.jobs.insert(key(run), JobSeen::Refused(problem.clone()));
            continue;
        }
        let made = memory.hooks.made.get(&key(run));
        let live = scope.live(&gvk(), &id(run));
        let job = match (live, made) {
            (Some(live), made) if made.is_none_or(|(at, ..)| version(&live) >= *at) => {
                let uid = live.uid.to_string();
                let verdict = &live.kept.verdict;
                if let Some(broken) = &verdict.broken {
                    let message = failure(scope, memory, run, &broken.message).await;
                    JobSeen::Failed(uid, Problem { reason: FAILED.into(), object: run.object(), message })
                } else if verdict.status == crate::core::health::Status::Healthy {
                    JobSeen::Succeeded(uid)
                } else {
                    JobSeen::Running(uid)
                }
            }
            (_, Some((_, uid, at))) if *at + LAG > now => JobSeen::Running(uid.clone()),
            (None, _) if scope.synced(&gvk(), &run.namespace) => JobSeen::Absent,
            _ => continue,
        };
        seen.jobs.insert(key(run), job);
    }
    seen
}

/// When a Job that was made must have been shown by the watch.
pub fn looks_again(memory: &Memory, now: Timestamp) -> Option<Timestamp> {
    memory.hooks.made.values().map(|(_, _, at)| *at + LAG).filter(|at| *at > now).min()
}

/// Why a hook failed, with the end of its log.
async fn failure(scope: &Scope<'_>, memory: &mut Memory, run: &HookRun, message: &str) -> String {
    if let Some(told) = memory.hooks.logs.get(&key(run)) {
        return told.clone();
    }
    let tail = logs::tail(&scope.access, &scope.daemon.discovery, &run.namespace, &run.job).await;
    let end = match tail {
        Ok(text) if text.trim().is_empty() => "its log is empty".to_owned(),
        Ok(text) => format!("its log ends: {}", end_of(&memory.redact(&text))),
        Err(error) => format!("of its log nothing is shown, {}", memory.redact(&error.to_string())),
    };
    let told = format!("the {} hook {message}; {end}", run.point);
    memory.hooks.logs.insert(key(run), told.clone());
    told
}

/// The last characters of a log, in one line.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" | ");
    let count = line.chars().count();
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if count <= LOG {
        return line.chars().map(clean).collect();
    }
    format!("…{}", line.chars().skip(count - LOG).map(clean).collect::<String>())
}

/// Tries the hooks of a bundle by a dry-run, before anything of its revision is begun.
pub async fn try_out(
    scope: &Scope<'_>,
    bundle: &Bundle,
    revision: &Revision,
    goal: Goal,
) -> Result<(), Refusal> {
    if goal != Goal::Deploy || bundle.hooks().is_empty() {
        return Ok(());
    }
    let brings = plan::brings(bundle.objects());
    for hook in bundle.hooks() {
        let manifest = &hook.manifest;
        let Some(point) = hook.points.first().copied() else { continue };
        let name = job_name(manifest.namespace(), manifest.name(), point, revision, "");
        let tried = send(scope, hook, &name, point, true).await;
        match tried.map(|_| ()) {
            Ok(()) => {}
            // Its namespace comes with the same commit.
            Err(ApplyError { cause: Cause::NamespaceMissing { namespace }, .. })
                if brings.namespaces.contains(&namespace) => {}
            Err(ApplyError { cause: Cause::WebhookNoDryRun { .. }, .. }) => {}
            Err(error) => return Err(refused(manifest, &error)),
        }
    }
    Ok(())
}

fn refused(manifest: &Manifest, error: &ApplyError) -> Refusal {
    super::prepare::refused(manifest, error)
}

async fn send(
    scope: &Scope<'_>,
    hook: &Hook,
    name: &str,
    point: HookPoint,
    dry: bool,
) -> Result<crate::cluster::Applied, ApplyError> {
    let value = job(hook, name, point);
    let missing = || ApplyError::new(hook.manifest.id(), Cause::KindUnknown { kind: gvk().to_string() });
    let resource = scope.daemon.discovery.resource(&gvk()).ok_or_else(missing)?;
    match dry {
        true => dry_run(&scope.access, &resource, &value, Guard::Any).await,
        false => apply(&scope.access, &resource, &value, Guard::Absent).await,
    }
}

/// Makes sure that the Job of a hook is there. It may be there already: its name is that of this attempt alone.
pub(super) async fn run(scope: &Scope<'_>, memory: &mut Memory, run: &HookRun) -> Next {
    if memory.hooks.made.contains_key(&key(run)) || memory.hooks.refused.contains_key(&key(run)) {
        return Next::Done;
    }
    let now = scope.daemon.now();
    if let Some(at) = memory.hooks.retry_at.filter(|at| *at > now) {
        return Next::Wake(at);
    }
    let refusal = match bundle_of(scope, memory, &run.revision).await {
        Ok(bundle) => {
            let is = |h: &&Hook| h.manifest.name() == run.name && h.manifest.namespace() == run.namespace;
            match bundle.hooks().iter().find(is) {
                Some(hook) => match send(scope, hook, &run.job, run.point, false).await {
                    Ok(applied) => {
                        let text = |field: &str| {
                            applied.object["metadata"][field].as_str().unwrap_or_default().to_owned()
                        };
                        let ours = applied.object["metadata"]["labels"][names::DELIVERY_LABEL].as_str();
                        if ours == Some(&scope.label) {
                            let version = text("resourceVersion").parse().unwrap_or(0);
                            memory.hooks.made.insert(key(run), (version, text("uid"), scope.daemon.now()));
                            tracing::info!(job = %run.object(), point = %run.point, "hook");
                            return Next::Again;
                        }
                        refusal("belongs to somebody else", false)
                    }
                    Err(error) => refused(&hook.manifest, &error),
                },
                None => refusal("is not in its revision", false),
            }
        }
        Err(refusal) => refusal,
    };
    let refusal = memory.redacted(refusal);
    if refusal.transient {
        let at = now + RETRY;
        tracing::warn!(job = %run.object(), "{}", refusal.problem.message);
        memory.hooks.retry_at = Some(at);
        return Next::Wake(at);
    }
    let message = format!("the {} hook could not be run: {}", run.point, refusal.problem.message);
    let problem = Problem { reason: FAILED.into(), object: run.object(), message };
    memory.hooks.refused.insert(key(run), problem);
    Next::Again
}

fn refusal(message: &str, transient: bool) -> Refusal {
    super::bundle::refusal(FAILED, message, transient)
}

/// Deletes the Jobs of hooks.
pub(super) async fn remove(scope: &Scope<'_>, memory: &mut Memory, runs: &[HookRun]) -> Next {
    let now = scope.daemon.now();
    if let Some(at) = memory.hooks.retry_at.filter(|at| *at > now) {
        return Next::Wake(at);
    }
    let entries: Vec<InventoryEntry> = runs
        .iter()
        .map(|run| InventoryEntry {
            group: "batch".into(),
            version: "v1".into(),
            kind: "Job".into(),
            namespace: run.namespace.clone(),
            name: run.job.clone(),
            uid: run.uid.clone(),
            origin: EntryOrigin::Created,
            applied: String::new(),
            digest: String::new(),
            prune: None,
            kept: false,
            stale: true,
            settled_by: None,
            unfinished: false,
            candidate: false,
            config: None,
            replicas: None,
            wave: run.wave,
        })
        .collect();
    let (access, discovery) = (&scope.access, &scope.daemon.discovery);
    let none = super::adopted::Befores::new();
    let left = prune::run(access, discovery, &scope.label, &entries, prune::What::All, |_| true, &none).await;
    let gone =
        |run: &&HookRun| !left.inventory.iter().any(|e| e.name == run.job && e.namespace == run.namespace);
    memory.hooks.removed = runs.iter().filter(gone).map(key).collect();
    memory.hooks.stuck = left.refusal;
    if let Some(refusal) = &memory.hooks.stuck {
        tracing::debug!(object = %refusal.problem.object, "{}", refusal.problem.message);
        memory.hooks.retry_at = Some(now + RETRY);
    }
    Next::Again
}

#[cfg(test)]
mod tests {
    use super::end_of;

    #[test]
    fn of_a_log_the_end_is_told_in_one_line() {
        assert_eq!(end_of("one\n\n  two\u{1b}[0m\n"), "one | two [0m");
        let long = end_of(&"x".repeat(1000));
        assert!(long.starts_with('…') && long.chars().count() == 401);
    }
}
