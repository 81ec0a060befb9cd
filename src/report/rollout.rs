//! `windlass rollout`: how far a rollout is.

use super::age::{since, span};
use super::table::{lines, tame};
use super::{BAD, FAINT, GOOD, STRONG, UNSURE, paint, short};
use crate::api::Delivery;
use crate::api::analysis::{MetricRun, Outcome};
use crate::api::delivery::{Goal, Held, InventoryEntry, Phase, Revision};
use crate::api::rollout::{Base, Layout, RolloutStatus, Size, Stage, WorkloadKind, WorkloadRef};
use crate::core::manifest::ObjectId;
use crate::core::rollout::left::left;
use crate::core::rollout::status::told;
use crate::core::rollout::steps::{Planned, Then};
use crate::core::rollout::{Making, Spec};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;

/// Characters of a bar of 100 percent.
const BAR: usize = 40;

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Namespace of the Delivery.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Whether nothing waits for a person.
    pub well: bool,
    /// The last good revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<Revision>,
    /// The revision that is rolled out, or taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Revision>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RolloutStatus>,
    /// The candidate's share of traffic, in percent.
    pub weight: u32,
    /// The steps, one line each, as they are gone through.
    pub steps: Vec<StepLine>,
    /// The candidate's objects.
    pub objects: Vec<String>,
    /// The pods of the workloads that are rolled out, stable's and the candidate's. Empty until somebody has counted them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<Pods>,
    /// When what is under way has to be healthy (RFC 3339), while it is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// When the step may be over (RFC 3339), where it waits for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goes_on_at: Option<String>,
    /// How long the steps after it take until promotion, at least, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after: Option<i64>,
    /// Whether a person has to say go before promotion.
    pub asks: bool,
    /// The revision that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// The pods of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pods {
    /// The workload.
    pub workload: String,
    /// How many are ready.
    pub ready: i32,
    /// How many there are to be.
    pub wanted: i32,
}

/// One layout on the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepLine {
    /// In words.
    pub text: String,
    /// Whether it is behind (`done`), under way (`now`) or ahead (`next`).
    pub state: &'static str,
}

/// How far a Delivery's rollout is.
pub fn report(delivery: &Delivery) -> Rollout {
    let status = delivery.status.clone().unwrap_or_default();
    let progress = status.attempt.as_ref().and_then(|a| a.rollout.clone());
    let goal = status.attempt.as_ref().map(|a| a.goal);
    let steps = Spec::of(delivery).rollout;
    let at = progress.as_ref().filter(|_| goal == Some(Goal::Deploy));
    let line = |(number, planned): (usize, &Planned)| {
        let state = match at {
            Some(r) if is_over(r) || number < r.at as usize => "done",
            Some(r) if number == r.at as usize => "now",
            _ => "next",
        };
        StepLine { text: words(planned), state }
    };
    let weight = progress.as_ref().map_or(0, |r| match r.stage {
        Stage::Draining | Stage::Returning => 0,
        _ => r.layout.weight,
    });
    let left = steps.as_ref().zip(at).and_then(|(steps, progress)| left(progress, steps));
    let awaited = |r: &RolloutStatus| r.settled.is_none() || r.unwell.is_some();
    let deadline = status.attempt.as_ref().filter(|a| a.rollout.as_ref().is_some_and(awaited));
    let deadline = deadline.map(|a| a.deadline.clone());
    Rollout {
        namespace: delivery.namespace().unwrap_or_default(),
        name: delivery.name_any(),
        phase: status.phase,
        well: status.held.is_none() && progress.as_ref().is_none_or(|r| r.paused.is_none()),
        stable: status.effective,
        candidate: progress.as_ref().map(|r| r.candidate.clone()),
        weight,
        steps: steps.iter().flat_map(|s| s.all.iter().enumerate()).map(line).collect(),
        objects: status
            .inventory
            .iter()
            .filter(|e| e.candidate)
            .map(|e| InventoryEntry::id(e).to_string())
            .collect(),
        held: status.held,
        progress,
        pods: Vec::new(),
        deadline,
        goes_on_at: left.as_ref().and_then(|l| l.goes_on_at).map(|at| at.to_string()),
        seconds_after: left.as_ref().map(|l| l.then.as_secs()),
        asks: left.is_some_and(|l| l.asks),
    }
}

/// The workloads that are rolled out: those under the names of Git first, then their candidates.
pub fn workloads(delivery: &Delivery) -> Vec<ObjectId> {
    let (Some(policy), Some(status)) = (&delivery.spec.template.rollout, &delivery.status) else {
        return Vec::new();
    };
    let rollout = status.attempt.as_ref().and_then(|attempt| attempt.rollout.as_ref());
    let policy = rollout.map_or_else(|| policy.clone(), |rollout| Making::of(rollout).keep(policy));
    let named: Vec<&WorkloadRef> = policy.named().collect();
    let meant = |e: &InventoryEntry| named.iter().any(|w| w.kind.as_str() == e.kind && w.name == e.name);
    let kinds = [WorkloadKind::Deployment, WorkloadKind::StatefulSet].map(WorkloadKind::as_str);
    let of = |candidate: bool| {
        status.inventory.iter().filter(move |e| {
            e.group == "apps" && e.candidate == candidate && kinds.contains(&e.kind.as_str())
        })
    };
    of(false).filter(|e| meant(e)).chain(of(true)).map(InventoryEntry::id).collect()
}

/// The time that is left, in words.
fn ahead(rollout: &Rollout, progress: &RolloutStatus, now: Timestamp) -> Vec<String> {
    let until = |at: &String| at.parse::<Timestamp>().map(|at| at.duration_since(now)).unwrap_or_default();
    let effect = match &progress.settled {
        None => format!("not in effect yet, since {}", since(&progress.since, now)),
        Some(at) => format!("in effect since {}", since(at, now)),
    };
    let goes_on = rollout.goes_on_at.as_ref().map(until);
    let more = match (&rollout.deadline, goes_on) {
        (Some(deadline), _) => format!(", {} left", span(until(deadline))),
        (None, Some(time)) if time.is_positive() => format!(", goes on in {}", span(time)),
        (None, _) => String::new(),
    };
    let mut out = vec![effect + &more];
    if let Some(after) = rollout.seconds_after {
        let time = goes_on.unwrap_or_default().max(SignedDuration::ZERO);
        let time = span(time.saturating_add(SignedDuration::from_secs(after)));
        let person = if rollout.asks { ", once a person has said go" } else { "" };
        out.push(format!("promotion in {time} at the earliest{person}"));
    }
    out
}

/// Whether all traffic is with the names that stand in Git again.
fn is_over(progress: &RolloutStatus) -> bool {
    matches!(progress.stage, Stage::Draining | Stage::Returning)
}

/// A layout, and what is waited for.
fn words(planned: &Planned) -> String {
    let then = match &planned.then {
        Then::Go => String::new(),
        Then::Pause(Some(time)) => format!(" for {}", crate::api::Duration(time.unsigned_abs())),
        Then::Pause(None) => " until a person says go".into(),
        Then::Analysis(_) => " until the measurements have passed".into(),
        Then::Job(job) => format!(" until the Job {} is done", job.name),
    };
    match planned.stage {
        Stage::Starting => format!("start the candidate ({})", size(&planned.layout)),
        Stage::Promoting => {
            "promote: the new revision takes its place, traffic stays with the candidate".into()
        }
        _ => format!("{} ({}){then}", traffic(&planned.layout), size(&planned.layout)),
    }
}

fn size(layout: &Layout) -> String {
    match layout.size {
        Some(Size::Percent(100)) => "full size".into(),
        Some(Size::Percent(percent)) => format!("{percent}% of its size"),
        Some(Size::OfAll(percent)) => format!("{percent}% of all pods"),
        Some(Size::Replicas(1)) => "1 pod".into(),
        Some(Size::Replicas(n)) => format!("{n} pods"),
        None => "no candidate".into(),
    }
}

fn traffic(layout: &Layout) -> String {
    if let Some(header) = &layout.header {
        return format!("requests with header {}: {}", header.name, header.value);
    }
    if let Some(cookie) = &layout.cookie {
        return format!("requests with cookie {}={}", cookie.name, cookie.value);
    }
    match layout.mirror.unwrap_or(0) {
        0 => format!("{}% of traffic", layout.weight),
        percent => format!("copies of {percent}% of requests"),
    }
}

/// The rollout as a screen.
pub fn text(rollout: &Rollout, wide: bool, now: Timestamp) -> String {
    let mut out = Vec::new();
    let phase = format!("{:?}", rollout.phase);
    let style = match rollout.phase {
        Phase::Ready => GOOD,
        Phase::Held | Phase::Failed | Phase::RollbackFailed => BAD,
        _ => UNSURE,
    };
    out.push(format!(
        "{}  {}",
        paint(STRONG, &format!("{}/{}", rollout.namespace, rollout.name)),
        paint(style, &phase)
    ));
    let revision = |r: &Revision| format!("{}  {} ({})", short(r), tame(&r.subject), tame(&r.author));
    let mut rows = Vec::new();
    if let Some(stable) = &rollout.stable {
        rows.push(vec!["stable".into(), revision(stable), bar(100 - rollout.weight.min(100))]);
    }
    if let Some(candidate) = &rollout.candidate {
        rows.push(vec!["candidate".into(), revision(candidate), bar(rollout.weight)]);
    }
    out.extend(lines(&rows));
    let pods = |p: &Pods| format!("{} {}/{} ready", tame(&p.workload), p.ready, p.wanted);
    if !rollout.pods.is_empty() {
        out.push(format!("pods: {}", rollout.pods.iter().map(pods).collect::<Vec<_>>().join(", ")));
    }
    let Some(progress) = &rollout.progress else {
        if let Some(held) = &rollout.held {
            out.push(format!("held: {}: {}", short(&held.revision), tame(&told(&held.problem))));
        }
        out.push("nothing is rolled out".into());
        return out.join("\n") + "\n";
    };
    out.push(String::new());
    let shown = rollout.steps.iter().map(|step| match step.state {
        "done" => paint(FAINT, &format!("  ✓ {}", step.text)),
        "now" => paint(STRONG, &format!("  ▶ {}", step.text)),
        _ => format!("    {}", step.text),
    });
    out.extend(shown);
    if progress.layout.base == Base::Stable && progress.stage == Stage::Restoring {
        out.push(paint(
            BAD,
            "  ▶ what stands under the stable names is replaced; traffic stays with the candidate",
        ));
    }
    if is_over(progress) {
        out.push(paint(STRONG, "  ▶ traffic is with the stable names; the candidate goes"));
    }
    out.push(String::new());
    out.extend(ahead(rollout, progress, now));
    if let Some(paused) = &progress.paused {
        out.push(paint(UNSURE, &format!("paused: {}", tame(&told(paused)))));
    }
    out.extend(progress.analysis.iter().map(measured));
    if wide && !rollout.objects.is_empty() {
        out.push(format!("candidate's objects: {}", rollout.objects.join(", ")));
    }
    out.join("\n") + "\n"
}

fn measured(run: &MetricRun) -> String {
    let style = match run.outcome {
        Some(Outcome::Success) => GOOD,
        Some(Outcome::Failure | Outcome::Error) => BAD,
        _ => UNSURE,
    };
    let outcome = run.outcome.map_or_else(|| "not measured yet".to_owned(), |o| format!("{o:?}"));
    let value = run.value.as_ref().map_or_else(String::new, |v| format!(" {v}"));
    let failed = if run.failed > 0 { format!(", {} failed", run.failed) } else { String::new() };
    let why = run.message.as_ref().map_or_else(String::new, |m| format!(": {}", tame(m)));
    format!("{}: {}{value}{failed}{why}", tame(&run.name), paint(style, &outcome))
}

fn bar(percent: u32) -> String {
    let full = (percent.min(100) as usize * BAR).div_ceil(100);
    format!("{}{} {percent:>3}%", "█".repeat(full), "░".repeat(BAR - full))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rollout_reads_as_a_screen() {
        let revision = |name: &str| json!({"branch": "main", "commit": name.repeat(40), "inputs": name, "author": "Ada", "subject": format!("Change {name}")});
        let delivery: Delivery = serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery",
            "metadata": {"name": "shop", "namespace": "team"},
            "spec": {"source": {"repository": "config", "path": "shop"}, "rollout": {
                "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
                "steps": [{"weight": 25}, {"pause": {}}],
            }},
            "status": {"phase": "Paused", "effective": revision("a"), "attempt": {
                "goal": "Deploy", "revision": revision("b"), "step": "Waiting",
                "startedAt": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:05:00Z",
                "rollout": {
                    "stage": "Stepping", "candidate": revision("b"), "router": {"gatewayAPI": {"route": "web"}}, "step": 2, "steps": 2, "at": 2,
                    "layout": {"base": "Stable", "size": {"percent": 100}, "weight": 25},
                    "since": "2026-01-01T00:00:00Z", "settled": "2026-01-01T00:00:05Z",
                    "paused": {"reason": "AwaitsPromotion", "message": "waits until a person says go: windlass promote"},
                },
            }},
        }))
        .unwrap();
        let mut report = report(&delivery);
        assert!(!report.well);
        let pods = |workload: &str, ready| Pods { workload: workload.into(), ready, wanted: 2 };
        report.pods = vec![pods("Deployment team/web", 2), pods("Deployment team/web-canary", 1)];
        let text = text(&report, false, "2026-01-01T00:01:05Z".parse().unwrap());
        let plain = anstream::adapter::strip_str(&text).to_string();
        insta::assert_snapshot!(plain, @r"
        team/shop  Paused
        stable      main@aaaaaaa  Change a (Ada)   ██████████████████████████████░░░░░░░░░░  75%
        candidate   main@bbbbbbb  Change b (Ada)   ██████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  25%
        pods: Deployment team/web 2/2 ready, Deployment team/web-canary 1/2 ready

          ✓ start the candidate (full size)
          ✓ 25% of traffic (full size)
          ▶ 25% of traffic (full size) until a person says go
            100% of traffic (full size)
            promote: the new revision takes its place, traffic stays with the candidate

        in effect since 60s
        promotion in 5s at the earliest, once a person has said go
        paused: waits until a person says go: windlass promote
        ");
    }
}
