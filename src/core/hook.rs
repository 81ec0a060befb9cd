//! Hooks of a bundle: which Jobs are hooks, when they run, and what is made of their manifests.

use super::digest;
use super::manifest::{Manifest, ObjectId};
use crate::api::delivery::Revision;
use crate::api::hook::{HookDelete, HookPoint};
use crate::api::names;
use serde_json::{Value, json};

/// A Job of a bundle that is no object of it, but runs at points of its life.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// The Job as it stands in Git, with its namespace.
    pub manifest: Manifest,
    /// When it runs, each point once.
    pub points: Vec<HookPoint>,
    /// When its Jobs are deleted.
    pub delete: Vec<HookDelete>,
    /// Hooks of one point run in rising waves.
    pub wave: i32,
}

/// Why an annotation makes no hook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id} ({origin}): {problem}")]
pub struct HookError {
    /// The object.
    pub id: ObjectId,
    /// Where it is defined.
    pub origin: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Reads the annotations of a hook; `None` for an object that is none.
pub fn read(manifest: &Manifest, wave: i32) -> Result<Option<Hook>, HookError> {
    let wrong =
        |problem: String| HookError { id: manifest.id(), origin: manifest.origin.to_string(), problem };
    let Some(text) = manifest.annotation(names::HOOK) else {
        return match manifest.annotation(names::HOOK_DELETE_POLICY) {
            None => Ok(None),
            Some(_) => Err(wrong(format!(
                "has the annotation {} without {}",
                names::HOOK_DELETE_POLICY,
                names::HOOK
            ))),
        };
    };
    let gvk = manifest.gvk();
    if (gvk.group.as_str(), gvk.kind.as_str()) != ("batch", "Job") {
        return Err(wrong(format!(
            "has the annotation {}, and only a Job of batch/v1 can be a hook",
            names::HOOK
        )));
    }
    let mut points = Vec::new();
    for word in text.split(',').map(str::trim) {
        let point = match word {
            "before-apply" => HookPoint::BeforeApply,
            "before-traffic" => HookPoint::BeforeTraffic,
            "after-apply" => HookPoint::AfterApply,
            "rollout-step" => HookPoint::RolloutStep,
            "on-failure" => HookPoint::OnFailure,
            "on-rollback" => HookPoint::OnRollback,
            other => {
                return Err(wrong(format!(
                    "the annotation {} holds \"{other}\", and takes before-apply, before-traffic, after-apply, \
                     rollout-step, on-failure and on-rollback",
                    names::HOOK
                )));
            }
        };
        if !points.contains(&point) {
            points.push(point);
        }
    }
    let mut delete = Vec::new();
    let policies = manifest.annotation(names::HOOK_DELETE_POLICY).unwrap_or("before-hook-creation");
    for word in policies.split(',').map(str::trim) {
        delete.push(match word {
            "before-hook-creation" => HookDelete::BeforeHookCreation,
            "hook-succeeded" => HookDelete::HookSucceeded,
            "hook-failed" => HookDelete::HookFailed,
            other => {
                return Err(wrong(format!(
                    "the annotation {} holds \"{other}\", and takes before-hook-creation, hook-succeeded and hook-failed",
                    names::HOOK_DELETE_POLICY
                )));
            }
        });
    }
    Ok(Some(Hook { manifest: manifest.clone(), points, delete, wave }))
}

/// Longest name of a Job: its pods carry it as the value of a label.
const LONGEST: usize = 63;

/// Digits that tell the Jobs of one hook apart.
const DIGITS: usize = 10;

/// The name of a hook's Job for one attempt at a revision.
pub fn job_name(namespace: &str, name: &str, point: HookPoint, revision: &Revision, since: &str) -> String {
    let of = json!([namespace, name, point.as_str(), revision.inputs, revision.settings, since]);
    let digest: String = digest::of_value(&of).chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect();
    let short: String = name.chars().take(LONGEST - DIGITS - 1).collect();
    format!("{}-{digest}", short.trim_end_matches(['-', '.']))
}

/// The Job to be made for a hook: under its own name, and deleted by the hook's policy alone.
pub fn job(hook: &Hook, name: &str, point: HookPoint) -> Value {
    let mut manifest = hook.manifest.clone();
    manifest.set_metadata("name", name.into());
    manifest.set_label(names::HOOK, point.as_str());
    let mut job = manifest.to_value();
    if let Some(spec) = job["spec"].as_object_mut() {
        spec.remove("ttlSecondsAfterFinished");
    }
    job
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::tree::Origin;

    fn object(kind: &str, annotations: Value) -> Manifest {
        let api = if kind == "Job" { "batch/v1" } else { "v1" };
        let value = json!({"apiVersion": api, "kind": kind,
            "metadata": {"name": "migrate", "namespace": "shop", "annotations": annotations},
            "spec": {"ttlSecondsAfterFinished": 5, "template": {}}});
        Manifest::new(value, Origin { file: "jobs.yaml".into(), line: 3 }).unwrap()
    }

    #[test]
    fn annotations_say_when_a_hook_runs_and_when_it_goes() {
        let hook =
            read(&object("Job", json!({names::HOOK: "before-apply, on-failure"})), 2).unwrap().unwrap();
        assert_eq!(hook.points, [HookPoint::BeforeApply, HookPoint::OnFailure]);
        assert_eq!((hook.delete, hook.wave), (vec![HookDelete::BeforeHookCreation], 2));
        assert_eq!(read(&object("Job", json!({})), 0), Ok(None));
        let policy =
            json!({names::HOOK: "after-apply", names::HOOK_DELETE_POLICY: "hook-succeeded,hook-failed"});
        let hook = read(&object("Job", policy), 0).unwrap().unwrap();
        assert_eq!(hook.delete, [HookDelete::HookSucceeded, HookDelete::HookFailed]);
        let job = job(&hook, "migrate-1", HookPoint::AfterApply);
        assert_eq!(job["metadata"]["name"], "migrate-1");
        assert_eq!(job["metadata"]["labels"][names::HOOK], "after-apply");
        assert!(job["spec"]["ttlSecondsAfterFinished"].is_null());
    }

    #[test]
    fn what_is_no_hook_says_where_and_why() {
        let table = [
            ("ConfigMap", json!({names::HOOK: "before-apply"}), "only a Job"),
            ("Job", json!({names::HOOK: "pre-sync"}), "holds \"pre-sync\""),
            (
                "Job",
                json!({names::HOOK: "before-apply", names::HOOK_DELETE_POLICY: "never"}),
                "holds \"never\"",
            ),
            ("Job", json!({names::HOOK_DELETE_POLICY: "hook-failed"}), "without windlass.dev/hook"),
        ];
        for (kind, annotations, expected) in table {
            let told = read(&object(kind, annotations), 0).unwrap_err().to_string();
            assert!(told.contains("shop/migrate (jobs.yaml:3): ") && told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_job_has_one_name_for_one_attempt_and_another_for_each_other() {
        let revision = |inputs: &str| Revision { inputs: inputs.into(), ..Revision::default() };
        let name = |name: &str, point, inputs: &str, since: &str| {
            job_name("shop", name, point, &revision(inputs), since)
        };
        let one = name("migrate", HookPoint::BeforeApply, "a", "t1");
        assert_eq!(one, name("migrate", HookPoint::BeforeApply, "a", "t1"));
        let others = [
            name("migrate", HookPoint::AfterApply, "a", "t1"),
            name("migrate", HookPoint::BeforeApply, "b", "t1"),
            name("migrate", HookPoint::BeforeApply, "a", "t2"),
            name("migrate2", HookPoint::BeforeApply, "a", "t1"),
        ];
        assert!(others.iter().all(|other| *other != one));
        let long = name(&format!("{}-x", "m".repeat(51)), HookPoint::BeforeApply, "a", "t");
        assert!(long.len() <= LONGEST && !long.contains("--"), "{long}");
    }
}
