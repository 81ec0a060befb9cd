//! The steps of a rollout as they are gone through: the policy's words, spelled out as one layout after the other.
//!
//! A candidate grows before weight is given to it and shrinks after, so one step may take two layouts. A traffic step
//! (`weight`, `header`, `cookie`, `mirror`) takes the place of the one before, and a `scale` that of the size that the weight would
//! give it. All traffic is for a candidate of full size only, whatever else says its size.

use super::Making;
use crate::api::analysis::{AnalysisPolicy, JobOfStep};
use crate::api::delivery::Problem;
use crate::api::rollout::{
    Base, CandidateSize, Layout, RolloutPolicy, RolloutStatus, RolloutStep, RouteKind, Scale, Size, Stage,
    Strategy,
};
use crate::core::analysis::{StepKind, builtin, policy_of_step};
use jiff::SignedDuration;

/// How long after a router has accepted a change it counts as in effect, if the policy does not say.
pub(super) const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// How long the old pods are kept after a blue-green switch, if the policy does not say.
const SCALE_DOWN_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// How long a share is kept with `stepWeight`, if the policy does not say.
const INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// The largest share with `stepWeight`, if the policy does not say.
const MAX_WEIGHT: u32 = 50;

/// As many pods as the workload.
const WHOLE: Size = Size::Percent(100);

/// A rollout, spelled out.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// The layouts, in order.
    pub all: Vec<Planned>,
    /// How many steps the policy has.
    pub steps: u32,
    /// How long after a router has accepted a change it counts as in effect.
    pub settle: SignedDuration,
    /// How long after pods are ready every proxy counts as knowing them: traffic is sent to them no sooner.
    pub known: SignedDuration,
    /// What is measured while traffic reaches the candidate.
    pub analysis: Option<AnalysisPolicy>,
    /// What the candidate is made by.
    pub making: Making,
    /// Why a rollout that is under way goes no further by itself.
    pub waits: Option<String>,
}

/// One layout, and what is waited for once it is in effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The stage.
    pub stage: Stage,
    /// The step of the policy, from 1; 0 before the first.
    pub step: u32,
    /// The layout.
    pub layout: Layout,
    /// What is waited for.
    pub then: Then,
}

/// What is waited for once a layout is in effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// Nothing.
    Go,
    /// A time; `None` until a person says go.
    Pause(Option<SignedDuration>),
    /// Measurements that pass.
    Analysis(AnalysisPolicy),
    /// A Job that completes.
    Job(JobOfStep),
}

impl Steps {
    /// Spells out a policy; `None` for one that applies revisions at once.
    pub fn new(policy: &RolloutPolicy) -> Result<Option<Self>, Problem> {
        let Some(router) = policy.router.clone().filter(|_| policy.strategy != Strategy::Rolling) else {
            return Ok(None);
        };
        let pods = router.replicas.is_some();
        let invalid = |place: &str, message: String| Problem {
            reason: "InvalidRollout".into(),
            object: String::new(),
            message: format!("spec.rollout.{place}: {message}"),
        };
        if let Some(why) = unheeded(policy, pods) {
            return Err(invalid("candidate", why.into()));
        }
        let workloads = policy.named().cloned().collect();
        let making = Making { router, strategy: Some(policy.strategy), workloads };
        let size_for = |weight: u32| match policy.candidate.clone().unwrap_or_default() {
            _ if pods => Size::OfAll(weight),
            c if c.size == CandidateSize::Fixed => Size::Replicas(c.replicas.unwrap_or(1)),
            c if c.size == CandidateSize::Share => Size::Percent(weight.max(1)),
            _ => WHOLE,
        };
        let given = given(policy);
        let first = given.iter().find_map(|s| s.weight.filter(|w| *w > 0)).unwrap_or(100);
        // What the steps make of its size, but for all traffic.
        let mut size = match (given.first().and_then(|step| step.scale.as_ref()), policy.strategy) {
            (Some(scale), _) => asked(scale),
            (None, Strategy::BlueGreen) => WHOLE,
            (None, _) => size_for(first),
        };
        let mut scaled = false;
        // Where pods are the traffic, the first one that is ready gets some.
        let weight = if pods { first } else { 0 };
        let mut layout = Layout { base: Base::Stable, size: Some(size), weight, ..Layout::default() };
        let mut all =
            vec![Planned { stage: Stage::Starting, step: 0, layout: layout.clone(), then: Then::Go }];
        for (at, step) in given.iter().enumerate() {
            let number = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
            let then = then(step, pods).map_err(|message| invalid(&format!("steps[{at}]"), message))?;
            let mut next = layout.clone();
            let blank = |next: &mut Layout| {
                (next.weight, next.header, next.cookie, next.mirror) = (0, None, None, None);
            };
            if let Some(weight) = step.weight {
                blank(&mut next);
                next.weight = weight;
                if weight > 0 && policy.strategy == Strategy::Canary && !scaled {
                    size = size_for(weight);
                }
            } else if let Some(header) = &step.header {
                blank(&mut next);
                next.header = Some(header.clone());
            } else if let Some(cookie) = &step.cookie {
                blank(&mut next);
                next.cookie = Some(cookie.clone());
            } else if let Some(mirror) = &step.mirror {
                blank(&mut next);
                next.mirror = Some(mirror.percent.unwrap_or(100)).filter(|p| *p > 0);
            } else if let Some(scale) = &step.scale {
                (size, scaled) = (asked(scale), true);
            }
            next.size = Some(if next.weight == 100 && !pods { WHOLE } else { size });
            push(&mut all, Stage::Stepping, number, &layout, &next, then, pods);
            layout = next;
        }
        if !pods {
            let full = Layout { base: Base::Stable, size: Some(WHOLE), weight: 100, ..Layout::default() };
            let then = match policy.strategy {
                Strategy::BlueGreen => Then::Pause(Some(
                    policy.scale_down_delay.map_or(SCALE_DOWN_DELAY, crate::api::Duration::signed),
                )),
                _ => Then::Go,
            };
            let step = u32::try_from(given.len()).unwrap_or(u32::MAX);
            if layout != full || then != Then::Go {
                push(&mut all, Stage::Switching, step, &layout, &full, then, pods);
            }
            layout = full;
        }
        let step = u32::try_from(given.len()).unwrap_or(u32::MAX);
        let layout = Layout { base: Base::Target, ..layout };
        all.push(Planned { stage: Stage::Promoting, step, layout, then: Then::Go });
        let settle = policy.settle.map_or(SETTLE, crate::api::Duration::signed);
        Ok(Some(Steps {
            all,
            steps: step,
            settle,
            known: settle,
            analysis: policy.analysis.clone(),
            making,
            waits: None,
        }))
    }

    /// The steps of a rollout that is under way and whose policy says them no more, `why`: it stays as it is, measured as before, until
    /// a person says go; then all traffic moves as its router and strategy have it. `policy` is the one that its candidate
    /// [keeps](Making::keep).
    pub(super) fn staying(policy: &RolloutPolicy, rollout: &RolloutStatus, why: String) -> Option<Self> {
        let strategy = match policy.strategy {
            Strategy::BlueGreen => Strategy::BlueGreen,
            _ => Strategy::Canary,
        };
        let (steps, step_weight, ab, candidate) = (Vec::new(), None, None, None);
        let bare = RolloutPolicy { strategy, steps, step_weight, ab, candidate, ..policy.clone() };
        let mut all = Steps::new(&bare).ok().flatten()?;
        let mut tail = all.all.split_off(1);
        if all.making.router.replicas.is_some() {
            // Its pods are its traffic: it has what it has to the end.
            for planned in &mut tail {
                planned.layout = Layout { base: planned.layout.base, ..rollout.layout.clone() };
            }
        }
        let as_it_is = |stage: Stage, then: Then| {
            let (step, layout) = (rollout.step, rollout.layout.clone());
            Planned { stage, step, layout, then }
        };
        let asks = || as_it_is(Stage::Stepping, Then::Pause(None));
        let at = |stage: Stage| tail.iter().position(|planned| planned.stage == stage);
        let here = match rollout.stage {
            Stage::Starting => vec![as_it_is(Stage::Starting, Then::Go), asks()],
            Stage::Stepping => vec![asks()],
            Stage::Switching => {
                // What is between two layouts is not gone back from.
                let same =
                    |planned: &Planned| planned.stage == Stage::Switching && planned.layout == rollout.layout;
                let found = tail.iter().position(same);
                let first = at(Stage::Switching).or(at(Stage::Promoting)).unwrap_or(0);
                tail.drain(..found.unwrap_or(first));
                if found.is_some() { Vec::new() } else { vec![as_it_is(Stage::Switching, Then::Go)] }
            }
            _ => {
                tail.drain(..at(Stage::Promoting).unwrap_or(0));
                Vec::new()
            }
        };
        let behind = (0..rollout.at).map(|_| asks());
        all.all = behind.chain(here).chain(tail).collect();
        all.steps = rollout.steps;
        all.making.strategy = Some(policy.strategy);
        all.waits = Some(why);
        Some(all)
    }

    /// What is measured once a layout is in effect, whether that is what its step is about, and the Jobs that run in it.
    pub fn measured(&self, planned: &Planned) -> (Option<(AnalysisPolicy, StepKind)>, Vec<JobOfStep>) {
        let (policy, own) = match &planned.then {
            Then::Analysis(own) => {
                (Some((policy_of_step(self.analysis.as_ref(), own), StepKind::Analysis)), None)
            }
            // Until requests reach it there is nothing to measure.
            then => {
                let policy = self.analysis.clone().filter(|_| planned.layout.has_traffic());
                let own = match then {
                    Then::Job(own) => Some(own.clone()),
                    _ => None,
                };
                (policy.map(|policy| (policy, StepKind::Other)), own)
            }
        };
        let mut jobs: Vec<JobOfStep> = own.into_iter().collect();
        let policy = policy.map(|(mut policy, kind)| {
            let (of_jobs, asked): (Vec<_>, Vec<_>) =
                policy.metrics.into_iter().partition(|m| m.job.is_some());
            policy.metrics = asked;
            if self
                .making
                .router
                .gateway_api
                .as_ref()
                .is_some_and(|gateway| gateway.kind == RouteKind::GRPCRoute)
            {
                builtin::of_calls(&mut policy.metrics);
            }
            jobs.extend(of_jobs.into_iter().filter_map(|m| m.job));
            (policy, kind)
        });
        (policy.filter(|(policy, _)| !policy.metrics.is_empty()), jobs)
    }

    /// What has to be between two layouts; `None` where the second may follow at once. Those that are planned follow so; where the
    /// steps were changed in the midst of a rollout, it stands at a layout that is none of theirs.
    pub(super) fn between(&self, before: &Layout, next: &Layout) -> Option<Layout> {
        // Where pods are the traffic there is nothing between the two.
        between(before, next).filter(|_| self.making.router.replicas.is_none())
    }

    /// Where traffic leaves stable for good.
    pub fn promotion(&self) -> usize {
        let of = |stage: Stage| self.all.iter().position(|p| p.stage == stage);
        of(Stage::Switching).or_else(|| of(Stage::Promoting)).unwrap_or(self.all.len())
    }
}

/// The steps as the policy means them.
pub(super) fn given(policy: &RolloutPolicy) -> Vec<RolloutStep> {
    match policy.strategy {
        Strategy::Canary => spelled(policy),
        Strategy::AB => marked(policy),
        Strategy::BlueGreen | Strategy::Rolling => policy.steps.clone(),
    }
}

/// The steps of a canary, also where they are given as `stepWeight`.
fn spelled(policy: &RolloutPolicy) -> Vec<RolloutStep> {
    let Some(by) = policy.step_weight.filter(|_| policy.steps.is_empty()) else {
        return policy.steps.clone();
    };
    let pause = policy.interval.unwrap_or(crate::api::Duration::from_secs(INTERVAL.as_secs().unsigned_abs()));
    let most = policy.max_weight.unwrap_or(MAX_WEIGHT).min(100);
    let mut steps = Vec::new();
    let mut weight = by.clamp(1, 100).min(most);
    loop {
        steps.push(RolloutStep { weight: Some(weight), ..RolloutStep::default() });
        let time = crate::api::rollout::Pause(serde_json::json!(pause));
        steps.push(RolloutStep { pause: Some(time), ..RolloutStep::default() });
        if weight >= most {
            return steps;
        }
        weight = (weight + by.max(1)).min(most);
    }
}

/// The steps of an A/B test.
fn marked(policy: &RolloutPolicy) -> Vec<RolloutStep> {
    let test = policy.ab.clone().unwrap_or_default();
    let time = test.duration.map_or(serde_json::json!({}), |time| serde_json::json!(time));
    vec![
        RolloutStep { header: test.header, cookie: test.cookie, ..RolloutStep::default() },
        RolloutStep { pause: Some(crate::api::rollout::Pause(time)), ..RolloutStep::default() },
    ]
}

/// The size that a step asks for.
fn asked(scale: &Scale) -> Size {
    match (scale.replicas, scale.percent) {
        (Some(replicas), _) => Size::Replicas(replicas),
        (None, percent) => Size::Percent(percent.unwrap_or(100)),
    }
}

/// Why nothing would come of what a policy says of the candidate's size.
fn unheeded(policy: &RolloutPolicy, pods: bool) -> Option<&'static str> {
    let candidate = policy.candidate.as_ref()?;
    match candidate.size {
        CandidateSize::Full | CandidateSize::Share if candidate.replicas.is_some() => {
            Some("replicas is a number of pods for size: Fixed; write that, or leave replicas out")
        }
        CandidateSize::Full | CandidateSize::Fixed if pods => Some(
            "with the replicas router the candidate has the share of pods that it has of traffic, and no other size; leave \
             candidate out, or use gatewayAPI or istio",
        ),
        CandidateSize::Share | CandidateSize::Fixed if policy.strategy == Strategy::BlueGreen => Some(
            "BlueGreen starts a full copy, which gets all traffic at once; leave candidate out, or make it another size before \
             that with a scale step",
        ),
        _ => None,
    }
}

fn then(step: &RolloutStep, pods: bool) -> Result<Then, String> {
    // The schema cannot count a pause, which is text or an object.
    let given = [
        step.weight.is_some(),
        step.pause.is_some(),
        step.header.is_some(),
        step.cookie.is_some(),
        step.mirror.is_some(),
        step.scale.is_some(),
        step.analysis.is_some(),
        step.job.is_some(),
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err("takes one of weight, pause, header, cookie, mirror, scale, analysis and job".into());
    }
    if pods && step.scale.is_some() {
        return Err(
            "scale does not go with the replicas router: the share of pods is the share of traffic there, and weight says it; \
             leave scale out, or use gatewayAPI or istio"
                .into(),
        );
    }
    if let Some(pause) = &step.pause {
        return pause
            .time()
            .map(|t| Then::Pause(t.map(crate::api::Duration::signed)))
            .map_err(|e| e.to_string());
    }
    Ok(match (&step.analysis, &step.job) {
        (Some(analysis), _) => Then::Analysis(analysis.clone()),
        (None, Some(job)) => Then::Job(job.clone()),
        (None, None) => Then::Go,
    })
}

/// One step: grown first, given traffic then; or given traffic first, and shrunk then.
fn push(
    all: &mut Vec<Planned>,
    stage: Stage,
    step: u32,
    before: &Layout,
    next: &Layout,
    then: Then,
    pods: bool,
) {
    let mut add = |layout: Layout, then: Then| all.push(Planned { stage, step, layout, then });
    if let Some(between) = between(before, next).filter(|_| !pods) {
        add(between, Then::Go);
    }
    add(next.clone(), then);
}

/// What is between two layouts that differ in size and traffic: one of them has changed.
fn between(before: &Layout, next: &Layout) -> Option<Layout> {
    let traffic = Layout { size: before.size, ..next.clone() };
    if before.size == next.size || traffic == *before {
        return None;
    }
    Some(match grows(before, next) {
        true => Layout { size: next.size, ..before.clone() },
        false => traffic,
    })
}

/// Whether a candidate has to have another size before it has other traffic. Between a number and a share it is not known here which is
/// more: what gets more traffic may need the pods, and what gets less does not.
fn grows(before: &Layout, next: &Layout) -> bool {
    match (next.size, before.size) {
        (Some(Size::Percent(a)), Some(Size::Percent(b)))
        | (Some(Size::Replicas(a)), Some(Size::Replicas(b))) => a > b,
        _ => next.weight >= before.weight,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::analysis::Provider;
    use serde_json::json;

    fn told(policy: serde_json::Value) -> Vec<String> {
        let policy: RolloutPolicy = serde_json::from_value(policy).unwrap();
        let steps = Steps::new(&policy).unwrap().unwrap();
        let one = |p: &Planned| {
            let size = match p.layout.size {
                Some(Size::Percent(p)) => format!("{p}%"),
                Some(Size::OfAll(p)) => format!("{p}% of all"),
                Some(Size::Replicas(n)) => format!("{n} pods"),
                None => "none".into(),
            };
            let then = match &p.then {
                Then::Go => String::new(),
                Then::Pause(Some(t)) => format!(" for {}s", t.as_secs()),
                Then::Pause(None) => " until told".into(),
                Then::Analysis(_) => " until measured".into(),
                Then::Job(job) => format!(" until {} is done", job.name),
            };
            let base = if p.layout.base == Base::Target { " new" } else { "" };
            let header = p.layout.header.as_ref().map_or_else(String::new, |h| format!(" {}", h.name));
            format!("{:?} {}: {size} gets {}{header}{base}{then}", p.stage, p.step, p.layout.weight)
        };
        steps.all.iter().map(one).collect()
    }

    #[test]
    fn a_canary_grows_before_it_gets_weight_and_is_whole_before_promotion() {
        let steps = json!([{"weight": 10}, {"pause": "5m"}, {"weight": 50}, {"pause": {}}]);
        let policy = json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
            "candidate": {"size": "Share"}, "steps": steps});
        assert_eq!(
            told(policy),
            [
                "Starting 0: 10% gets 0",
                "Stepping 1: 10% gets 10",
                "Stepping 2: 10% gets 10 for 300s",
                "Stepping 3: 50% gets 10",
                "Stepping 3: 50% gets 50",
                "Stepping 4: 50% gets 50 until told",
                "Switching 4: 100% gets 50",
                "Switching 4: 100% gets 100",
                "Promoting 4: 100% gets 100 new",
            ]
        );
    }

    #[test]
    fn shorthands_are_spelled_out() {
        let policy = json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
            "stepWeight": 20, "interval": "30s"});
        assert_eq!(
            told(policy),
            [
                "Starting 0: 100% gets 0",
                "Stepping 1: 100% gets 20",
                "Stepping 2: 100% gets 20 for 30s",
                "Stepping 3: 100% gets 40",
                "Stepping 4: 100% gets 40 for 30s",
                "Stepping 5: 100% gets 50",
                "Stepping 6: 100% gets 50 for 30s",
                "Switching 6: 100% gets 100",
                "Promoting 6: 100% gets 100 new",
            ]
        );
    }

    #[test]
    fn blue_green_switches_once_and_keeps_the_old_for_a_while() {
        let policy = json!({"strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"service": {"name": "web"}},
            "scaleDownDelay": "1m", "steps": [{"pause": {}}]});
        assert_eq!(
            told(policy),
            [
                "Starting 0: 100% gets 0",
                "Stepping 1: 100% gets 0 until told",
                "Switching 1: 100% gets 100 for 60s",
                "Promoting 1: 100% gets 100 new",
            ]
        );
    }

    #[test]
    fn with_replicas_the_share_of_pods_is_the_share_of_traffic() {
        let policy = json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"replicas": {}},
            "steps": [{"weight": 25}, {"weight": 50}]});
        assert_eq!(
            told(policy),
            [
                "Starting 0: 25% of all gets 25",
                "Stepping 1: 25% of all gets 25",
                "Stepping 2: 50% of all gets 50",
                "Promoting 2: 50% of all gets 50 new",
            ]
        );
    }

    #[test]
    fn a_scale_stays_until_the_next_one() {
        let steps = json!([
            {"scale": {"replicas": 1}}, {"weight": 10}, {"pause": {}}, {"weight": 50}, {"scale": {"percent": 60}},
            {"header": {"name": "x-test", "value": "1"}}, {"weight": 70},
        ]);
        for size in [json!(null), json!({"size": "Share"}), json!({"size": "Fixed", "replicas": 5})] {
            let policy = json!({"strategy": "Canary", "workload": {"name": "web"}, "candidate": size,
                "router": {"gatewayAPI": {"route": "web"}}, "steps": steps});
            assert_eq!(
                told(policy),
                [
                    "Starting 0: 1 pods gets 0",
                    "Stepping 1: 1 pods gets 0",
                    "Stepping 2: 1 pods gets 10",
                    "Stepping 3: 1 pods gets 10 until told",
                    "Stepping 4: 1 pods gets 50",
                    "Stepping 5: 60% gets 50",
                    "Stepping 6: 60% gets 0 x-test",
                    "Stepping 7: 60% gets 70",
                    "Switching 7: 100% gets 70",
                    "Switching 7: 100% gets 100",
                    "Promoting 7: 100% gets 100 new",
                ],
                "{size}"
            );
        }
        let switch = json!({"strategy": "BlueGreen", "workload": {"name": "web"}, "router": {"service": {"name": "web"}},
            "scaleDownDelay": "1m", "steps": [{"pause": {}}, {"scale": {"replicas": 1}}]});
        assert_eq!(
            told(switch),
            [
                "Starting 0: 100% gets 0",
                "Stepping 1: 100% gets 0 until told",
                "Stepping 2: 1 pods gets 0",
                "Switching 2: 100% gets 0",
                "Switching 2: 100% gets 100 for 60s",
                "Promoting 2: 100% gets 100 new",
            ]
        );
    }

    #[test]
    fn all_traffic_is_for_a_candidate_of_full_size_only() {
        let policy = |candidate: serde_json::Value, first: serde_json::Value| {
            let steps = [first, json!({"weight": 100}), json!({"pause": "1m"}), json!({"weight": 20})];
            told(json!({"strategy": "Canary", "workload": {"name": "web"}, "candidate": candidate,
                "router": {"gatewayAPI": {"route": "web"}}, "steps": steps}))
        };
        let rest = [
            "Stepping 2: 100% gets 100",
            "Stepping 3: 100% gets 100 for 60s",
            "Stepping 4: 100% gets 20",
            "Stepping 4: 1 pods gets 20",
            "Switching 4: 100% gets 20",
            "Switching 4: 100% gets 100",
            "Promoting 4: 100% gets 100 new",
        ];
        let fixed = policy(json!({"size": "Fixed"}), json!({"weight": 10}));
        assert_eq!(
            fixed[..3],
            ["Starting 0: 1 pods gets 0", "Stepping 1: 1 pods gets 10", "Stepping 2: 100% gets 10"]
        );
        assert_eq!(fixed[3..], rest);
        let scaled = policy(json!(null), json!({"scale": {"replicas": 1}}));
        assert_eq!(
            scaled[..3],
            ["Starting 0: 1 pods gets 0", "Stepping 1: 1 pods gets 0", "Stepping 2: 100% gets 0"]
        );
        assert_eq!(scaled[3..], rest);
    }

    #[test]
    fn a_size_of_which_nothing_would_come_is_refused() {
        let refused = |strategy: &str,
                       router: serde_json::Value,
                       candidate: serde_json::Value,
                       steps: serde_json::Value| {
            let policy = json!({"strategy": strategy, "workload": {"name": "web"}, "router": router, "candidate": candidate,
                "steps": steps});
            Steps::new(&serde_json::from_value(policy).unwrap())
                .err()
                .map(|problem| problem.message)
                .unwrap_or_default()
        };
        let (route, pods) = (json!({"gatewayAPI": {"route": "web"}}), json!({"replicas": {}}));
        let (full, share, fixed) =
            (json!({}), json!({"size": "Share"}), json!({"size": "Fixed", "replicas": 2}));
        let numbered = json!({"replicas": 2});
        let (weight, scale) = (json!([{"weight": 10}]), json!([{"weight": 10}, {"scale": {"percent": 100}}]));
        for (strategy, router, candidate, steps, expected) in [
            ("Canary", &route, &fixed, &scale, ""),
            ("Canary", &route, &share, &weight, ""),
            (
                "Canary",
                &route,
                &numbered,
                &weight,
                "spec.rollout.candidate: replicas is a number of pods for size: Fixed",
            ),
            ("Canary", &pods, &share, &weight, ""),
            (
                "Canary",
                &pods,
                &json!(null),
                &scale,
                "spec.rollout.steps[1]: scale does not go with the replicas router",
            ),
            ("Canary", &pods, &full, &weight, "spec.rollout.candidate: with the replicas router"),
            ("Canary", &pods, &fixed, &weight, "spec.rollout.candidate: with the replicas router"),
            ("BlueGreen", &route, &full, &scale, ""),
            ("BlueGreen", &route, &share, &weight, "spec.rollout.candidate: BlueGreen starts a full copy"),
            ("BlueGreen", &route, &fixed, &weight, "spec.rollout.candidate: BlueGreen starts a full copy"),
            ("Rolling", &pods, &fixed, &scale, ""),
        ] {
            let told = refused(strategy, router.clone(), candidate.clone(), steps.clone());
            assert_eq!(told.is_empty(), expected.is_empty(), "{strategy} {router} {candidate}: {told}");
            assert!(told.starts_with(expected), "{strategy} {router} {candidate}: {told}");
        }
    }

    #[test]
    fn a_header_takes_the_place_of_a_weight() {
        let policy = json!({"strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
            "steps": [{"weight": 5}, {"header": {"name": "x-test", "value": "1"}}]});
        assert_eq!(told(policy)[2], "Stepping 2: 100% gets 0 x-test");
    }

    #[test]
    fn an_ab_test_is_a_match_for_a_time() {
        let policy = |ab: serde_json::Value| json!({"strategy": "AB", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}}, "ab": ab});
        let beta = json!({"name": "x-beta", "value": "1"});
        assert_eq!(
            told(policy(json!({"header": beta, "duration": "1h"}))),
            [
                "Starting 0: 100% gets 0",
                "Stepping 1: 100% gets 0 x-beta",
                "Stepping 2: 100% gets 0 x-beta for 3600s",
                "Switching 2: 100% gets 100",
                "Promoting 2: 100% gets 100 new",
            ]
        );
        let told = told(policy(json!({"cookie": beta})));
        assert!(told[2].ends_with("until told"), "{told:?}");
    }

    #[test]
    fn calls_of_grpc_are_judged_by_their_own_statuses() {
        let provider = |kind: &str| {
            let policy = json!({
                "strategy": "Canary", "workload": {"name": "web"}, "steps": [{"weight": 5}, {"analysis": {"count": 2}}],
                "router": {"gatewayAPI": {"route": "web", "kind": kind}},
                "analysis": {"metrics": [
                    {"name": "rate", "prometheus": {"address": "http://p", "builtin": "request-success-rate"}},
                    {"name": "own", "prometheus": {"address": "http://p", "builtin": "request-duration", "provider": "http"}},
                    {"name": "query", "prometheus": {"address": "http://p", "query": "up"}, "success": "result > 0"},
                ]},
            });
            let steps = Steps::new(&serde_json::from_value(policy).unwrap()).unwrap().unwrap();
            let asked = |at: usize| {
                let (policy, _) = steps.measured(&steps.all[at]).0.unwrap();
                policy.metrics.iter().map(|m| m.prometheus.as_ref().unwrap().provider).collect::<Vec<_>>()
            };
            assert_eq!(asked(1), asked(2), "in a step that is about it, too");
            asked(1)
        };
        let (http, calls) = (Some(Provider::Http), Some(Provider::EnvoyGrpc));
        assert_eq!(provider("HTTPRoute"), [None, http, None]);
        assert_eq!(provider("GRPCRoute"), [calls, http, None]);
    }

    #[test]
    fn a_pause_that_cannot_be_read_is_told_with_its_place() {
        let policy: RolloutPolicy =
            serde_json::from_value(json!({"strategy": "Canary", "workload": {"name": "web"},
            "router": {"replicas": {}}, "steps": [{"weight": 5}, {"pause": "soon"}]}))
            .unwrap();
        let problem = Steps::new(&policy).unwrap_err();
        assert!(
            problem.message.starts_with("spec.rollout.steps[1]: pause is \"soon\""),
            "{}",
            problem.message
        );
    }
}
