//! What would become of the hooks of a bundle if it were delivered: told before anything is.

use super::hook::Hook;
use crate::api::delivery::{DeliveryStatus, Revision};
use crate::api::hook::{HookPoint, HookRun, HookStep};
use serde::Serialize;

/// What becomes of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fate {
    /// It would run.
    Runs,
    /// It runs.
    Running,
    /// It ran for this revision, and does not again.
    Ran,
    /// It ran for this revision, and failed.
    Failed,
    /// Its revision failed and is held: it does not run until that is released.
    Held,
    /// It would run if something else happens.
    Waits,
    /// It ran for the same files. Whether with the same values of `substitute` could not be found out.
    Unknown,
}

/// A hook at one of its points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// The Job as it stands in Git, such as `Job shop/migrate`.
    pub object: String,
    /// Where it is defined; empty where that is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// When it runs.
    pub point: HookPoint,
    /// What becomes of it.
    pub fate: Fate,
}

impl Outlook {
    /// In words.
    pub fn told(&self) -> &'static str {
        match (self.fate, self.point) {
            (Fate::Runs, HookPoint::BeforeApply) => "would run before anything is applied",
            (Fate::Runs | Fate::Waits, HookPoint::BeforeTraffic) => {
                "would run before a candidate gets traffic, if there is a rollout"
            }
            (Fate::Runs | Fate::Waits, HookPoint::RolloutStep) => {
                "would run in each step of a rollout that names it"
            }
            (Fate::Runs, HookPoint::AfterApply) => "would run when all is applied and healthy",
            (Fate::Runs | Fate::Waits, HookPoint::OnFailure) => "would run if the revision failed",
            (Fate::Runs | Fate::Waits, HookPoint::OnRollback) => {
                "would run if the revision were brought back"
            }
            (Fate::Running, _) => "runs for this revision",
            (Fate::Ran, _) => "ran for this revision, and does not again",
            (Fate::Failed, _) => "ran for this revision, and failed",
            (Fate::Held, _) => "does not run: this revision is held",
            (Fate::Waits, _) => "would run",
            (Fate::Unknown, _) => {
                "ran for the same files: it would run again if a value of substitute is another by now, which could not be read"
            }
        }
    }
}

/// What becomes of each hook, in the order in which they run. `inputs` tells the revision
/// ([`Revision::inputs`](crate::api::delivery::Revision)); `status` is that of the Delivery, if there is one already;
/// `same_values` whether the values of `substitute` are those with this digest
/// ([`Revision::settings`](crate::api::delivery::Revision)), where that is known.
pub fn outlook(
    hooks: &[Hook],
    inputs: &str,
    status: Option<&DeliveryStatus>,
    same_values: &dyn Fn(&str) -> Option<bool>,
) -> Vec<Outlook> {
    let all = hooks.iter().flat_map(|hook| hook.points.iter().map(move |point| (*point, hook.wave, hook)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(point, wave, hook)| (*point, *wave, hook.manifest.id()));
    let is = |r: &Revision| r.inputs == inputs && same_values(&r.settings) != Some(false);
    let surely =
        |r: &Revision, fate: Fate| if same_values(&r.settings).is_some() { fate } else { Fate::Unknown };
    let fate = |point: HookPoint, hook: &Hook| {
        let known = status.and_then(|s| {
            let of = |run: &&HookRun| {
                run.point == point
                    && run.namespace == hook.manifest.namespace()
                    && run.name == hook.manifest.name()
                    && is(&run.revision)
            };
            s.hooks.iter().rev().find(of)
        });
        let goes_with_it = matches!(point, HookPoint::BeforeApply | HookPoint::AfterApply);
        let ran = known.and_then(|run| match run.step {
            HookStep::Running => Some(surely(&run.revision, Fate::Running)),
            HookStep::Succeeded => Some(surely(&run.revision, Fate::Ran)),
            HookStep::Failed => Some(surely(&run.revision, Fate::Failed)),
            _ => None,
        });
        let effective = status.and_then(|s| s.effective.as_ref()).filter(|r| is(r));
        // A hold is one of the files, whatever the values are.
        let held = status.and_then(|s| s.held.as_ref()).is_some_and(|held| held.revision.inputs == inputs);
        match (ran, effective) {
            (Some(fate), _) => fate,
            _ if !goes_with_it => Fate::Waits,
            (None, Some(effective)) => surely(effective, Fate::Ran),
            _ if held => Fate::Held,
            _ => Fate::Runs,
        }
    };
    all.into_iter()
        .map(|(point, _, hook)| Outlook {
            object: hook.manifest.id().to_string(),
            file: hook.manifest.origin.to_string(),
            point,
            fate: fate(point, hook),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::delivery::{Held, Problem};
    use crate::api::hook::HookDelete;
    use crate::core::manifest::Manifest;
    use crate::core::tree::Origin;
    use serde_json::json;

    fn hook(name: &str, points: &[HookPoint], wave: i32) -> Hook {
        let job =
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "shop"}});
        Hook {
            manifest: Manifest::new(job, Origin::default()).unwrap(),
            points: points.to_vec(),
            delete: vec![HookDelete::BeforeHookCreation],
            wave,
        }
    }

    fn revision(inputs: &str) -> Revision {
        Revision { inputs: inputs.into(), ..Revision::default() }
    }

    #[test]
    fn they_are_told_in_the_order_in_which_they_run_and_once_for_a_revision() {
        use HookPoint::{AfterApply, BeforeApply, OnFailure};
        let hooks = [
            hook("test", &[AfterApply, OnFailure], 0),
            hook("second", &[BeforeApply], 1),
            hook("first", &[BeforeApply], 0),
        ];
        let fates = |inputs: &str, status: Option<&DeliveryStatus>| -> Vec<(String, Fate)> {
            let all = outlook(&hooks, inputs, status, &|settings| Some(settings.is_empty()));
            all.into_iter().map(|o| (format!("{} {}", o.object, o.point), o.fate)).collect()
        };
        let of = |fates: [Fate; 4]| {
            let order = ["first before-apply", "second before-apply", "test after-apply", "test on-failure"];
            order.map(|name| format!("Job shop/{name}")).into_iter().zip(fates).collect::<Vec<_>>()
        };
        let new = of([Fate::Runs, Fate::Runs, Fate::Runs, Fate::Waits]);
        assert_eq!(fates("b", None), new);
        let mut status = DeliveryStatus { effective: Some(revision("a")), ..DeliveryStatus::default() };
        assert_eq!(fates("b", Some(&status)), new);
        assert_eq!(fates("a", Some(&status)), of([Fate::Ran, Fate::Ran, Fate::Ran, Fate::Waits]));
        let run = |name: &str, point, step| HookRun {
            point,
            namespace: "shop".into(),
            name: name.into(),
            job: name.into(),
            wave: 0,
            revision: revision("b"),
            since: String::new(),
            step,
            at: None,
            state: crate::api::hook::HookJob::Kept,
            uid: None,
            delete: Vec::new(),
            problem: None,
        };
        status.hooks = vec![
            run("first", BeforeApply, HookStep::Succeeded),
            run("second", BeforeApply, HookStep::Failed),
            run("test", AfterApply, HookStep::Planned),
            run("test", OnFailure, HookStep::Running),
        ];
        let problem = Problem { reason: "HookFailed".into(), object: String::new(), message: String::new() };
        status.held = Some(Held { revision: revision("b"), problem, since: String::new(), revert: None });
        assert_eq!(fates("b", Some(&status)), of([Fate::Ran, Fate::Failed, Fate::Held, Fate::Running]));
        assert_eq!(fates("c", Some(&status)), new);
    }

    #[test]
    fn other_values_are_another_revision_and_unknown_ones_are_said_to_be() {
        let hooks = [hook("test", &[HookPoint::AfterApply], 0)];
        let effective = Revision { settings: "values".into(), ..revision("a") };
        let mut status = DeliveryStatus { effective: Some(effective.clone()), ..DeliveryStatus::default() };
        let fate =
            |status: &DeliveryStatus, same| outlook(&hooks, "a", Some(status), &move |_| same).remove(0).fate;
        let fates = |status: &DeliveryStatus| [Some(true), Some(false), None].map(|same| fate(status, same));
        assert_eq!(fates(&status), [Fate::Ran, Fate::Runs, Fate::Unknown]);
        status.hooks = vec![HookRun {
            point: HookPoint::AfterApply,
            namespace: "shop".into(),
            name: "test".into(),
            job: "test".into(),
            wave: 0,
            revision: effective,
            since: String::new(),
            at: None,
            step: HookStep::Failed,
            state: crate::api::hook::HookJob::Kept,
            uid: None,
            delete: Vec::new(),
            problem: None,
        }];
        status.effective = None;
        assert_eq!(fates(&status), [Fate::Failed, Fate::Runs, Fate::Unknown]);
    }
}
