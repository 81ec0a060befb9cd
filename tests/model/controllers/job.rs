//! Jobs: Pods until enough have succeeded or too many failed.

use super::*;

/// The first wait after a failure, in seconds; doubled each time.
const BACK_OFF: i64 = 10;

/// One step for each.
pub fn run(cluster: &mut Cluster, now: Timestamp) {
    for (key, job) in snapshot(cluster, at::JOB) {
        let over = ["Complete", "Failed"].iter().any(|kind| is_true(&job, kind));
        if over {
            expire(cluster, &key, &job, now);
        } else if !is_deleting(&job) {
            step(cluster, &key, &job, now);
        }
    }
}

fn is_true(job: &Value, kind: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == kind && c["status"] == "True")
}

fn expire(cluster: &mut Cluster, key: &Key, job: &Value, now: Timestamp) {
    let Some(keep) = job["spec"]["ttlSecondsAfterFinished"].as_i64() else { return };
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    let ended = conditions.into_iter().filter_map(|c| parsed(&c["lastTransitionTime"])).max();
    let Some(ended) = ended else { return };
    let due = ended + seconds(keep);
    if due <= now {
        delete(cluster, key, now, "Foreground");
    } else {
        cluster.controllers.at(due);
    }
}

fn step(cluster: &mut Cluster, key: &Key, job: &Value, now: Timestamp) {
    let spec = &job["spec"];
    let old = &job["status"];
    let pods = controlled(cluster, at::POD, &key.1, text(job, "uid"));
    let phase = |wanted: &str| pods.iter().filter(|(_, p)| p["status"]["phase"] == wanted).count() as i64;
    // Pods that somebody removed stay counted.
    let succeeded = phase("Succeeded").max(number(old, "succeeded"));
    let failed = phase("Failed").max(number(old, "failed"));
    let active: Vec<&(Key, Arc<Value>)> = pods
        .iter()
        .filter(|(_, p)| {
            let phase = p["status"]["phase"].as_str().unwrap_or_default();
            !is_deleting(p) && phase != "Succeeded" && phase != "Failed"
        })
        .collect();
    let restarts: i64 = active
        .iter()
        .flat_map(|(_, p)| p["status"]["containerStatuses"].as_array().into_iter().flatten())
        .map(|c| number(c, "restartCount"))
        .sum();
    let completions = spec["completions"].as_i64().unwrap_or(1);
    let limit = spec["backoffLimit"].as_i64().unwrap_or(6);
    let started = parsed(&old["startTime"]).unwrap_or(now);
    let deadline = spec["activeDeadlineSeconds"].as_i64().map(|s| started + seconds(s));
    let suspended = spec["suspend"] == true;
    let mut status = json!({});
    if let Some(conditions) = old.get("conditions") {
        status["conditions"] = conditions.clone();
    }
    let mut end: Option<(&str, &str, &str, String)> = None;
    if suspended {
        if !is_true(job, "Suspended") {
            push(
                &mut status,
                condition(&old["conditions"], "Suspended", "True", "JobSuspended", "Job suspended", now),
            );
        }
    } else if is_true(job, "Suspended") {
        push(
            &mut status,
            condition(&old["conditions"], "Suspended", "False", "JobResumed", "Job resumed", now),
        );
    }
    if succeeded >= completions {
        let said = "Reached expected number of succeeded pods".to_string();
        end = Some(("SuccessCriteriaMet", "Complete", "CompletionsReached", said));
    } else if failed > limit || spec["template"]["spec"]["restartPolicy"] == "OnFailure" && restarts > limit {
        let said = "Job has reached the specified backoff limit".to_string();
        end = Some(("FailureTarget", "Failed", "BackoffLimitExceeded", said));
    } else if !suspended && deadline.is_some_and(|at| at <= now) {
        let said = "Job was active longer than specified deadline".to_string();
        end = Some(("FailureTarget", "Failed", "DeadlineExceeded", said));
    }
    if let Some(at) = deadline.filter(|at| *at > now) {
        cluster.controllers.at(at);
    }
    let mut running = active.len() as i64;
    if end.is_some() || suspended {
        for (key, _) in &active {
            delete(cluster, key, now, "Background");
        }
        running = 0;
    } else {
        let wanted = spec["parallelism"].as_i64().unwrap_or(1).min(completions - succeeded);
        let last = pods.iter().filter(|(_, p)| p["status"]["phase"] == "Failed");
        let last = last.filter_map(|(_, p)| finished(p)).max();
        let pause = seconds(BACK_OFF << (failed - 1).clamp(0, 6));
        let from = last.map_or(now, |at| at + pause);
        if running < wanted && failed > 0 && from > now {
            cluster.controllers.at(from);
        } else {
            for _ in running..wanted {
                make_pod(cluster, job, "Job", "batch/v1", now);
            }
            running = running.max(wanted);
        }
    }
    if !suspended {
        status["startTime"] = time(started);
    }
    let ready = active.iter().filter(|(_, p)| super::replica_set::ready_since(p).is_some()).count();
    status["ready"] = ready.into();
    status["terminating"] = 0.into();
    status["uncountedTerminatedPods"] = json!({});
    for (field, count) in [("active", running), ("succeeded", succeeded), ("failed", failed)] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    if let Some((before, kind, reason, said)) = end {
        for kind in [before, kind] {
            push(&mut status, condition(&old["conditions"], kind, "True", reason, &said, now));
        }
        if kind == "Complete" {
            status["completionTime"] = time(now);
        }
        status["ready"] = 0.into();
    }
    let mut new = job.clone();
    new["status"] = status;
    write(cluster, key, job, new);
}

/// Sets a condition of a Job, which has a time of probing too.
fn push(status: &mut Value, mut condition: Value) {
    condition["lastProbeTime"] = condition["lastTransitionTime"].clone();
    let mut all = status["conditions"].as_array().cloned().unwrap_or_default();
    all.retain(|c| c["type"] != condition["type"]);
    all.push(condition);
    status["conditions"] = all.into();
}

fn finished(pod: &Value) -> Option<Timestamp> {
    let containers = pod["status"]["containerStatuses"].as_array()?;
    containers.iter().filter_map(|c| parsed(&c["state"]["terminated"]["finishedAt"])).max()
}
