//! How a new revision reaches traffic: the policy (`spec.rollout`), and how far a rollout is (in status).

use super::Duration;
use super::analysis::{AnalysisPolicy, JobOfStep, MetricRun};
use super::delivery::{Empty, Problem, Revision};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a revision that changes a workload reaches traffic. A revision that changes neither the pods of the workloads named
/// here nor what they read is applied directly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.strategy == 'Rolling' || has(self.workload) != has(self.workloads)").message("Canary, BlueGreen and AB need one of workload and workloads"),
    validation = Rule::new("self.strategy != 'Canary' || has(self.steps) != has(self.stepWeight)").message("Canary needs one of steps and stepWeight"),
    validation = Rule::new("self.strategy == 'Rolling' || has(self.router)").message("Canary, BlueGreen and AB need a router; router: {replicas: {}} needs nothing installed"),
    validation = Rule::new("self.strategy != 'BlueGreen' || !has(self.router) || !has(self.router.replicas)").message("BlueGreen switches all traffic at once, which replica counts cannot do; use service, gatewayAPI or istio"),
    validation = Rule::new("(self.strategy == 'AB') == has(self.ab)").message("AB needs ab, which says whose requests see the candidate and for how long; no other strategy takes it"),
    validation = Rule::new("self.strategy != 'AB' || !has(self.steps) && !has(self.stepWeight)").message("AB has no steps and no stepWeight; use Canary with a header step for more than one"),
    validation = Rule::new("self.strategy != 'AB' || !has(self.router) || has(self.router.gatewayAPI) || has(self.router.istio)").message("AB tells requests apart, which only gatewayAPI and istio can"),
    validation = Rule::new("!has(self.ab) || !has(self.ab.cookie) || !has(self.router) || has(self.router.istio)").message("only istio can tell requests by a cookie; use a header"),
    validation = Rule::new("self.strategy != 'Canary' || !has(self.router) || !has(self.router.replicas) || !has(self.steps) || !self.steps.exists(step, has(step.scale))").message("scale does not go with the replicas router: the share of pods is the share of traffic there, and weight says it; leave scale out, or use gatewayAPI or istio"),
    validation = Rule::new("self.strategy != 'Canary' || !has(self.router) || !has(self.router.replicas) || !has(self.candidate) || self.candidate.size == 'Share'").message("with the replicas router the candidate has the share of pods that it has of traffic, and no other size; leave candidate out, or use gatewayAPI or istio"),
    validation = Rule::new("self.strategy != 'BlueGreen' || !has(self.candidate) || self.candidate.size == 'Full'").message("BlueGreen starts a full copy, which gets all traffic at once; leave candidate out, or make it another size before that with a scale step")
)]
pub struct RolloutPolicy {
    /// `Rolling` (default) applies a revision at once and lets the workload's own strategy replace pods; `Canary` gives a
    /// renamed copy of the workload a growing share of traffic; `BlueGreen` tests a full copy and switches once; `AB` gives
    /// the copy the requests with a header or cookie for a time.
    #[serde(default)]
    pub strategy: Strategy,
    /// The workload that is rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadRef>,
    /// Several that are rolled out together, such as a frontend with its backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub workloads: Vec<WorkloadRef>,
    /// What moves traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// What happens between the first candidate pod and promotion, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub steps: Vec<RolloutStep>,
    /// Instead of `steps`: the share that is added each `interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub step_weight: Option<u32>,
    /// With `stepWeight`: the largest share before promotion, 50 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_weight: Option<u32>,
    /// With `stepWeight`: how long each share is kept, 1m by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// With AB: whose requests see the candidate, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ab: Option<AbTest>,
    /// How many pods the candidate has: a full copy by default, and always with BlueGreen; with the replicas router the share of pods
    /// is the share of traffic. For all traffic it has as many as the workload, whatever this or a `scale` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidatePolicy>,
    /// How long is waited after a router has accepted a change before what traffic may still reach is removed, before a step
    /// counts as begun, and after pods are ready before traffic is sent to them; 5s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Duration>,
    /// With BlueGreen: how long the old pods are kept after the switch, in which going back is one switch; 30s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down_delay: Option<Duration>,
    /// What is measured while traffic reaches the candidate. The health of its pods always counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisPolicy>,
}

impl RolloutPolicy {
    /// The workloads that it names.
    pub fn named(&self) -> impl Iterator<Item = &WorkloadRef> {
        self.workload.iter().chain(&self.workloads)
    }
}

/// How a new revision reaches traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Applied at once.
    #[default]
    Rolling,
    /// A growing share of traffic for a copy.
    Canary,
    /// One switch to a full copy.
    BlueGreen,
    /// Marked requests for a copy, for a time.
    AB,
}

/// Whose requests see the candidate of an A/B test, and for how long. It is short for a step with `header` or `cookie` and a
/// `pause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.header) != has(self.cookie)").message("ab takes one of header and cookie"))]
pub struct AbTest {
    /// Requests with this header see the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderMatch>,
    /// Requests with this cookie see the candidate; only with Istio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieMatch>,
    /// For how long, before the candidate is promoted; until a person says go (`windlass promote`) when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// A workload of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadRef {
    /// `Deployment` (default), or `StatefulSet` with BlueGreen.
    #[serde(default)]
    pub kind: WorkloadKind,
    /// Its name in Git.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kinds of workload that can be rolled out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment.
    #[default]
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl WorkloadKind {
    /// As manifests name it.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkloadKind::Deployment => "Deployment",
            WorkloadKind::StatefulSet => "StatefulSet",
        }
    }
}

/// What moves traffic between the two variants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.gatewayAPI), has(self.istio), has(self.service), has(self.replicas)].filter(x, x).size() == 1").message("router takes one of gatewayAPI, istio, service and replicas"))]
pub struct Router {
    /// The weights of a Gateway API route.
    #[serde(default, rename = "gatewayAPI", skip_serializing_if = "Option::is_none")]
    pub gateway_api: Option<GatewayRouter>,
    /// The weights of an Istio VirtualService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub istio: Option<IstioRouter>,
    /// The selector of a Service, with BlueGreen: a switch without a mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRouter>,
    /// The share of pods behind one Service, with Canary: for plain clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Empty>,
}

impl Router {
    /// Whether it divides traffic between backends that it names: one may stay named with no share.
    pub fn names_backends(&self) -> bool {
        self.gateway_api.is_some() || self.istio.is_some()
    }
}

/// A route of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayRouter {
    /// Name of the route. Each of its rules that sends traffic to a Service of the workload is split.
    #[schemars(length(min = 1, max = 253))]
    pub route: String,
    /// Its kind.
    #[serde(default)]
    pub kind: RouteKind,
}

/// Kinds of route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteKind {
    /// HTTP.
    #[default]
    HTTPRoute,
    /// gRPC.
    GRPCRoute,
}

impl RouteKind {
    /// As manifests name it.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteKind::HTTPRoute => "HTTPRoute",
            RouteKind::GRPCRoute => "GRPCRoute",
        }
    }
}

/// An Istio VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IstioRouter {
    /// Its name. Made with the Service's host when the bundle has none of this name.
    #[schemars(length(min = 1, max = 253))]
    pub virtual_service: String,
}

/// A Service whose selector is switched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceRouter {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// How many pods the candidate has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.replicas) || self.size == 'Fixed'").message("replicas is a number of pods for size: Fixed; write that, or leave replicas out"))]
pub struct CandidatePolicy {
    /// `Full`: as many as the workload; `Share`: the same share of them as of traffic, at least one; `Fixed`: `replicas`.
    #[serde(default)]
    pub size: CandidateSize,
    /// With `Fixed`: how many, 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub replicas: Option<u32>,
}

/// How many pods the candidate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CandidateSize {
    /// As many as the workload.
    #[default]
    Full,
    /// As the weight says.
    Share,
    /// A number.
    Fixed,
}

/// One step of a rollout: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.weight), has(self.header), has(self.cookie), has(self.mirror), has(self.scale), has(self.analysis), has(self.job)].filter(x, x).size() <= 1").message("a step takes one of weight, pause, header, cookie, mirror, scale, analysis and job"))]
pub struct RolloutStep {
    /// The candidate's share of traffic from here on, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub weight: Option<u32>,
    /// Waits: `5m` or `{duration: 5m}` for a time, `{}` until a person says go (`windlass promote`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Requests with this header see the candidate, whatever the weight; all others see stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderMatch>,
    /// Requests with this cookie see the candidate; only with Istio, Gateway API has no portable match for cookies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieMatch>,
    /// The share of requests, in percent, that the candidate gets a copy of; its answers are thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// The candidate's size from here on, until the next `scale`: weights do not change it, but for all traffic, which is for a
    /// candidate of full size. As the first step it is the size that the candidate starts with. Not with the replicas router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Goes on when the measurements have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisPolicy>,
    /// Runs a Job of the revision, and goes on when it has completed. When it fails, the rollout does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOfStep>,
}

/// How long a step waits, as it is written: a duration, or an object with or without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pause(pub serde_json::Value);

/// A pause that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pause is {0}; write a duration such as 5m, {{duration: 5m}}, or {{}} to wait until a person says go"
)]
pub struct PauseError(String);

impl Pause {
    /// How long; `None` until a person says go.
    pub fn time(&self) -> Result<Option<Duration>, PauseError> {
        let wrong = || PauseError(self.0.to_string());
        let text = match &self.0 {
            serde_json::Value::String(text) => text,
            serde_json::Value::Object(map) if map.is_empty() => return Ok(None),
            serde_json::Value::Object(map) if map.len() == 1 => {
                map.get("duration").and_then(|d| d.as_str()).ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        text.parse().map(Some).map_err(|_| wrong())
    }
}

impl JsonSchema for Pause {
    fn schema_name() -> Cow<'static, str> {
        "Pause".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Text or an object: a structural schema cannot say that. What is wrong is told in the Delivery's status.
        json_schema!({"x-kubernetes-preserve-unknown-fields": true})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A header that requests carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeaderMatch {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its value.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
    /// Whether the value is a regular expression of the router's dialect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regex: bool,
}

/// A cookie that requests carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CookieMatch {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its value.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// Copies of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mirror {
    /// The share of requests, 100 by default; 0 ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
}

/// The candidate's size from a step on, until another step says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.replicas) != has(self.percent)").message("scale takes one of replicas and percent"))]
pub struct Scale {
    /// Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub replicas: Option<u32>,
    /// Percent of the workload's pods, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u32>,
}

/// How far the rollout of a revision is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// What is under way.
    pub stage: Stage,
    /// The revision that the candidate runs.
    pub candidate: Revision,
    /// What moves traffic: a route of others is given back whatever becomes of `spec.rollout`.
    pub router: Router,
    /// The strategy that it began with: the names of its candidate hang on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// The workloads that it began with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadRef>,
    /// The step of `spec.rollout` that is under way, from 1; 0 before the first.
    pub step: u32,
    /// How many steps there are.
    pub steps: u32,
    /// Where in the sequence of layouts that the steps lead to.
    pub at: u32,
    /// What the cluster is made like for it.
    pub layout: Layout,
    /// When the stage or step began.
    pub since: String,
    /// When its layout was in effect: pods ready, the route accepted. Pauses and analysis count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<String>,
    /// Since when one of the variants is not healthy, after it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwell: Option<String>,
    /// Since when no pod of the candidate is ready although requests are sent to it, while stable has pods that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<String>,
    /// Why it goes no further for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Problem>,
    /// A person said go: what the step waits for is not waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub go: bool,
    /// A person said that no further step is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// The measurements of this step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analysis: Vec<MetricRun>,
    /// How many pods the workloads have, where Git leaves that to an autoscaler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<WorkloadSize>,
    /// The VirtualService that would be made for the rollout was there, and is somebody else's: it is divided by a patch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others_route: bool,
    /// Objects that were not healthy before the rollout began and that the revision does not change, such as
    /// `Deployment shop/worker`: their health says nothing of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excused: Vec<String>,
}

/// A stage of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stage {
    /// The candidate's pods are started; no traffic reaches them.
    Starting,
    /// The steps are gone through.
    Stepping,
    /// All traffic goes to the candidate, before the stable workload is touched.
    Switching,
    /// The stable workload takes the new template while traffic stays with the candidate.
    Promoting,
    /// Traffic goes back to the names that stand in Git. Routes name the candidate still, with weight 0, until no proxy sends
    /// it anything.
    Draining,
    /// Routes are as they stand in Git; the candidate is removed after it.
    Returning,
    /// Promotion failed: the last good bundle goes back to stable while traffic stays with the candidate.
    Restoring,
}

/// What the cluster is made like in a stage: whose objects stand under the names of Git, how large the candidate is, and
/// who gets which traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// Whose objects stand under the names of Git.
    pub base: Base,
    /// The candidate's size; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// The candidate's share of traffic, in percent.
    #[serde(default)]
    pub weight: u32,
    /// Requests with this header see the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderMatch>,
    /// Requests with this cookie see the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieMatch>,
    /// The share of requests, in percent, that the candidate gets a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<u32>,
}

impl Layout {
    /// The same with no request for the candidate.
    pub fn without_traffic(&self) -> Self {
        Layout { base: self.base, size: self.size, ..Layout::default() }
    }

    /// Whether any request may reach the candidate.
    pub fn has_traffic(&self) -> bool {
        self.weight > 0 || self.header.is_some() || self.cookie.is_some() || self.mirror.unwrap_or(0) > 0
    }
}

/// Whose objects stand under the names of Git.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Base {
    /// Those of the last good revision.
    #[default]
    Stable,
    /// Those of the new one.
    Target,
}

/// The size of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Size {
    /// Percent of the workload's pods, rounded up, at least one.
    Percent(u32),
    /// Percent of all pods, with those of stable, which keeps its own: rounded down, but at least one pod, and at most as many as
    /// stable has.
    OfAll(u32),
    /// A number of pods.
    Replicas(u32),
}

/// How many pods a workload has, where something else than Git decides that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadSize {
    /// The workload.
    pub workload: WorkloadRef,
    /// Its pods when the rollout began.
    pub replicas: i64,
    /// Its pods when the step began, where they have become more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<i64>,
}

impl WorkloadSize {
    /// What a candidate's size is counted by.
    pub fn counted(&self) -> i64 {
        self.now.unwrap_or(self.replicas)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pause_is_a_duration_or_an_object() {
        let time = |value: serde_json::Value| Pause(value).time();
        assert_eq!(time(json!("5m")).unwrap(), Some(Duration::from_secs(300)));
        assert_eq!(time(json!({"duration": "5m"})).unwrap(), Some(Duration::from_secs(300)));
        assert_eq!(time(json!({})).unwrap(), None);
        for wrong in [json!("soon"), json!({"time": "5m"}), json!(5), json!({"duration": 5})] {
            assert!(time(wrong).is_err());
        }
    }
}
