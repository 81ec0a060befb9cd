//! What runs to an end: Job, CronJob.

use super::Verdict;
use super::live::{Condition, Live, counted};
use serde_json::Value;

/// A Job is healthy when it has completed: what follows it in the bundle may need what it did.
pub(super) fn job(live: &Live<'_>) -> Verdict {
    let succeeded = live.count("/status/succeeded");
    let failed = live.count("/status/failed");
    let completions = live.int("/spec/completions");
    let wanted = match completions {
        Some(completions) => format!("{succeeded} of {}", counted(completions, "completion")),
        None => counted(succeeded, "completion"),
    };
    if live.condition("Complete").is_some_and(|c| c.is_true()) {
        return Verdict::healthy(format!("completed: {wanted}"));
    }
    // FailureTarget comes first, while pods are still terminating; nothing leads back from it.
    for kind in ["Failed", "FailureTarget"] {
        if let Some(failure) = live.condition(kind).filter(Condition::is_true) {
            return Verdict::broken(
                "JobFailed",
                format!("failed after {}: {}", counted(failed, "failed pod"), failure.why()),
            );
        }
    }
    if live.is_set("/spec/suspend") || live.condition("Suspended").is_some_and(|c| c.is_true()) {
        return Verdict::suspended(format!("is suspended at {wanted}"));
    }
    if live.condition("SuccessCriteriaMet").is_some_and(|c| c.is_true()) {
        return Verdict::progressing(format!("succeeded ({wanted}) and waits for its pods to end"));
    }
    if live.text("/status/startTime").is_empty() {
        return Verdict::progressing("has not started yet");
    }
    let active = counted(live.count("/status/active"), "pod");
    let failures = match failed {
        0 => String::new(),
        _ => format!(", {failed} failed (backoffLimit {})", live.int("/spec/backoffLimit").unwrap_or(6)),
    };
    Verdict::progressing(format!("{wanted}, {active} active{failures}"))
}

/// Whether a Job has completed, be it marked for deletion or not; `None` for what is no Job.
pub fn job_completed(object: &Value) -> Option<bool> {
    let live = Live::new(object);
    let is_job = live.text("/apiVersion").starts_with("batch/") && live.text("/kind") == "Job";
    is_job.then(|| live.condition("Complete").is_some_and(|c| c.is_true()))
}

/// A CronJob is healthy by being there: its runs are judged when they come, and say nothing about the commit.
pub(super) fn cron_job(live: &Live<'_>) -> Verdict {
    if live.is_set("/spec/suspend") {
        return Verdict::suspended("is suspended: no run is started");
    }
    let active = live.items("/status/active").count();
    let last = match (live.text("/status/lastSuccessfulTime"), live.text("/status/lastScheduleTime")) {
        ("", "") => "no run yet".to_owned(),
        ("", scheduled) => format!("last run at {scheduled}, none succeeded yet"),
        (success, _) => format!("last success at {success}"),
    };
    Verdict::healthy(format!("runs at \"{}\"; {active} active, {last}", live.text("/spec/schedule")))
}
