//! `Delivery`: one directory of a Repository kept running in one namespace.

use super::dependency::{Dependency, Waiting};
use super::hook::HookRun;
use super::ignore::IgnoreRule;
use super::rollout::{RolloutPolicy, RolloutStatus};
use super::{Condition, Duration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One directory of a Repository kept running in one namespace: the unit of sync, rollout, rollback and drift.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "Delivery",
    plural = "deliveries",
    shortname = "dlv",
    category = "windlass",
    namespaced,
    status = "DeliveryStatus",
    doc = "One directory of a Repository kept running in one namespace: the unit of sync, rollout, rollback and drift.",
    validation = Rule::new("!has(self.spec.source.application) || self.metadata.name == self.spec.source.application + '.application'").message("source.application stands in the Delivery that Windlass makes of an Application itself, named NAME.application; write the Application, or name a repository"),
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".status.revision"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Drift","type":"integer","jsonPath":".status.drift"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySpec {
    /// Where the manifests are.
    pub source: Source,
    /// How they are delivered.
    #[serde(flatten)]
    pub template: DeliveryTemplate,
}

/// Where the manifests of a Delivery are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.repository) != has(self.application)").message("source takes one of repository and application"))]
pub struct Source {
    /// Name of a Repository in the same namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 253))]
    pub repository: String,
    /// Name of an Application in the same namespace, instead of a Repository: its spec is what is delivered. Windlass makes such
    /// a Delivery of each Application itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub application: Option<String>,
    /// The directory in it; empty for the root.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !('..' in self.split('/'))").message("path is relative to the root of the repository and cannot leave it"))]
    #[schemars(length(max = 1024))]
    pub path: String,
}

impl Source {
    /// What tells sources of one namespace apart: the name of the Repository, or `Application NAME`, which is no name of one.
    pub fn name(&self) -> String {
        match &self.application {
            Some(application) => application_source(application),
            None => self.repository.clone(),
        }
    }
}

/// What an Application is called among the sources of its namespace.
pub fn application_source(application: &str) -> String {
    format!("Application {application}")
}

impl Delivery {
    /// Its namespace, and what tells its source from others there ([`Source::name`]).
    pub fn source_key(&self) -> (String, String) {
        (self.metadata.namespace.clone().unwrap_or_default(), self.spec.source.name())
    }

    /// Whether it delivers this directory of a Repository.
    pub fn delivers(&self, path: &str) -> bool {
        let source = &self.spec.source;
        source.application.is_none() && source.path.trim_matches('/') == path
    }
}

/// How a directory is delivered: the fields of a Delivery besides its source. A Repository's `deliveries` give them
/// in `template`, and a directory's `windlass.yaml` overrides them except for what decides what a tenant may do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryTemplate {
    /// The namespace of objects that name none. It must exist, or be made with `createNamespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub target_namespace: Option<String>,
    /// Makes the target namespace when it is not there. It is never removed again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_namespace: bool,
    /// The service account in this namespace as which everything is read and written; the daemon's default without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// How often everything is compared again in full, 10m by default. Changes and drift are seen long before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How soon a failure is tried again at first, 1m by default; it backs off from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_interval: Option<Duration>,
    /// How long one revision may take to become healthy, 5m by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether objects that left Git are removed, true by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<bool>,
    /// What becomes of the objects when the Delivery is deleted: `Prune` (default) or `Orphan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// What must be ready before a new revision is begun. A rollback waits for nothing, and what becomes unready later
    /// undoes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub depends_on: Vec<Dependency>,
    /// The namespaces whose Deliveries may depend on this one; `*` for all. They learn whether it is ready, and nothing
    /// else. Deliveries of its own namespace always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub allow_dependents_from: Vec<String>,
    /// How manifests are made; found by itself without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub render: Option<Render>,
    /// Replaces `${NAME}` in the manifests. Without it nothing is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substitute: Option<Substitute>,
    /// What is done about changes that nobody made in Git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftPolicy>,
    /// When a new revision counts as broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthPolicy>,
    /// How a revision that changes a workload reaches traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutPolicy>,
    /// What happens when a revision fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackPolicy>,
    /// What may become of the pods of a workload that is there already and is adopted, `Restart` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// Stops everything but reports.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What may become of the pods of a workload that is there already and is adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Adopt {
    /// They are replaced where their template becomes another one, as with any change of it.
    #[default]
    Restart,
    /// They stay: a workload whose pods would be replaced is not adopted, and what would differ is told.
    KeepPods,
}

/// What becomes of a Delivery's objects when it is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They are removed, in reverse order.
    #[default]
    Prune,
    /// They stay.
    Orphan,
}

/// How manifests are made from a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!(has(self.kustomize) && has(self.plain))").message("render takes one of kustomize and plain"))]
pub struct Render {
    /// With Kustomize, even if the directory does not look like it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kustomize: Option<Empty>,
    /// As plain YAML and JSON, even if the directory holds a kustomization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<Empty>,
}

/// A choice without settings: `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Empty {}

/// Values for `${NAME}` and `${NAME:-default}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Substitute {
    /// Values given here; they win over `from`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// ConfigMaps and Secrets of this namespace; later ones win over earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub from: Vec<SubstituteFrom>,
}

/// A ConfigMap or a Secret to read values from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMap) != has(self.secret)").message("from takes one of configMap and secret"))]
pub struct SubstituteFrom {
    /// Name of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// Name of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What is done about changes that nobody made in Git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftPolicy {
    /// `Correct` (default) writes back what Git wants, `Report` only reports, `Ignore` does neither. The annotation
    /// `windlass.dev/drift` on an object in Git says otherwise for that object.
    #[serde(default)]
    pub mode: DriftMode,
    /// Fields that others are in charge of: neither reported, nor corrected, nor overwritten by a new revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ignore: Vec<IgnoreRule>,
}

/// What is done about drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftMode {
    /// Reported, and what Git wants is written back.
    #[default]
    Correct,
    /// Reported.
    Report,
    /// Neither reported nor corrected.
    Ignore,
}

/// When a new revision counts as broken before its time is up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthPolicy {
    /// Restarts of one new pod's container after which the revision counts as broken, 3 by default. Raise it for an
    /// app that restarts while it waits for its database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_restarts: Option<u32>,
}

/// What happens when a revision fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackPolicy {
    /// `Hold` (default) goes back to the last good revision and holds the failed one; `Revert` does so and pushes a
    /// commit that takes the failed one back; `Off` leaves it in place.
    #[serde(default)]
    pub mode: RollbackMode,
    /// How long a revision is watched on after it was healthy: health lost within this time takes it back like any
    /// other failure. Off by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Duration>,
    /// What becomes of a first revision that fails, before which there is none to go back to: `Keep` (default) leaves it
    /// in place to be looked at; `Remove` removes what it made.
    #[serde(default)]
    pub first_revision: FirstRevision,
}

/// What becomes of a first revision that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FirstRevision {
    /// It stays in place.
    #[default]
    Keep,
    /// What it made is removed.
    Remove,
}

/// What happens when a revision fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackMode {
    /// The last good revision is brought back, and the failed one is held.
    #[default]
    Hold,
    /// As `Hold`; then a commit that reverts the failed one is pushed, to a branch of its own where the branch that is
    /// followed is protected.
    Revert,
    /// The failed revision stays in place.
    Off,
}

/// What a Delivery is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing was deployed yet, or the newest revision waits for what it depends on.
    #[default]
    Pending,
    /// Objects are being written.
    Applying,
    /// All is written; it is not healthy yet.
    Waiting,
    /// A candidate gets traffic, step by step, before the new revision takes the place of the last good one.
    RollingOut,
    /// A rollout goes no further for now: a step waits for a person, or something has to be decided.
    Paused,
    /// All is as Git says and was healthy.
    Ready,
    /// The last good revision is being brought back.
    RollingBack,
    /// The last revision failed and was rolled back; it is held.
    Held,
    /// The last good revision could not be brought back; tried again.
    RollbackFailed,
    /// The revision could not be deployed, and there was nothing to go back to or nothing was touched.
    Failed,
    /// `spec.suspend` is set.
    Suspended,
    /// The Delivery is being deleted.
    Deleting,
}

/// What is known of a Delivery. Everything that a restarted daemon needs to go on stands here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What it is doing.
    #[serde(default)]
    pub phase: Phase,
    /// The revision that was last tried: `branch@sha1:<commit>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How many objects differ from the effective revision, or from the one that is being put in place. While objects are being
    /// applied this is what was measured last, and the condition `Drifted` is `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<i64>,
    /// What the cluster should be running now. Not always the newest commit: see `held`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Revision>,
    /// What is being put in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// The revision that failed and is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// The effective revision is watched on (`rollback.bake`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Bake>,
    /// What the last rollback did not undo.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolled_back_except: Vec<Exception>,
    /// Why the wanted revision could not even be begun; nothing was touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The wanted revision that waits for what the Delivery depends on; nothing of it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// The objects that this Delivery owns: the only source for pruning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inventory: Vec<InventoryEntry>,
    /// The hooks of the attempt that is under way, and those that ran and whose Jobs are still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRun>,
    /// The InventoryShards that hold the inventory instead, when it is large.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inventory_shards: Vec<String>,
    /// What left the inventory a short while ago: should one of these stand there again as our own apply makes it, a
    /// late request of a daemon that works no more left it behind, and it is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedEntry>,
    /// The last revisions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// The value of the reconcile annotation that was acted on: what Git wanted then is under way or settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_request: Option<String>,
    /// The value of the release annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_release: Option<String>,
    /// The value of the rollback annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_rollback: Option<String>,
    /// The value of the rollout annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_rollout: Option<String>,
    /// Ready, Reconciling, Stalled, Healthy, Drifted, Held.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A revision of a Delivery: a commit, and what of it matters for this Delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The branch or tag that was followed, empty for a commit by its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub branch: String,
    /// The commit's full id.
    pub commit: String,
    /// The directory that was rendered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Digest of what the bundle is rendered from: the ids of the trees, and the fields of the spec that matter for it.
    pub inputs: String,
    /// Digest of the settings that `substitute` read; empty when it reads none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub settings: String,
    /// Author of the commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// First line of the commit's message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
}

impl std::fmt::Display for Revision {
    /// `branch@sha1:<commit>`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.branch.is_empty() {
            write!(f, "sha1:{}", self.commit)
        } else {
            write!(f, "{}@sha1:{}", self.branch, self.commit)
        }
    }
}

impl Revision {
    /// The first seven digits of the commit.
    pub fn short(&self) -> &str {
        self.commit.get(..7).unwrap_or(&self.commit)
    }
}

/// A revision being put in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// What for.
    pub goal: Goal,
    /// Which revision.
    pub revision: Revision,
    /// How far it is.
    pub step: Step,
    /// When it began.
    pub started_at: String,
    /// When it must be healthy.
    pub deadline: String,
    /// How often it was tried again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// How often it was written again, since somebody had written over it before it was known to be healthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overwritten: u32,
    /// Objects that were ill before the rollout that it takes back, as `Kind namespace/name`: they are not held against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excused: Vec<String>,
    /// When it is tried again; absent while nothing went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// How far its rollout is, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Goal {
    /// A new revision.
    Deploy,
    /// Back to the last good revision.
    Rollback,
    /// The effective revision with new settings, while a newer one is held.
    Refresh,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Step {
    /// Objects are being written.
    Applying,
    /// All is written; waiting for health.
    Waiting,
    /// Healthy; what left Git is being removed.
    Pruning,
    /// It failed, and stays in place: there was nothing to go back to, or rollback is off. Should it become healthy
    /// after all, it counts as deployed.
    Failed,
    /// It was the first revision and failed; what it made is being removed.
    Removing,
}

/// What went wrong, with which object, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// In CamelCase; for programs.
    pub reason: String,
    /// The object, such as `Deployment shop/web`; empty when it is not about one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// A sentence; for people.
    pub message: String,
}

/// A revision that failed, was rolled back and is not tried again until its inputs change or a person releases it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// The revision.
    pub revision: Revision,
    /// Why.
    pub problem: Problem,
    /// Since when.
    pub since: String,
    /// What became of the commit that takes it back (`rollback.mode: Revert`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert: Option<Revert>,
}

/// What became of reverting a commit in Git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revert {
    /// The branch that holds the revert; empty while it could not be pushed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub branch: String,
    /// The commit that takes the held one back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Why it could not be pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// How often it could not be pushed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// When it is tried again; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
}

/// The effective revision is watched on after its success: should it lose its health, it is rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bake {
    /// What the effective revision was put in place for.
    pub goal: Goal,
    /// The revision that was good before, and is gone back to.
    pub good: Revision,
    /// When the effective revision was begun.
    pub since: String,
    /// Until when it is watched.
    pub until: String,
    /// Since when it is not healthy, where nothing else is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<String>,
    /// Why it is not healthy, or what else is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Objects that were not healthy before its rollout began and that it did not change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excused: Vec<String>,
}

/// Something that a rollback did not undo.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Exception {
    /// The object, such as `PersistentVolumeClaim shop/data`.
    pub object: String,
    /// What is left as it is, and why.
    pub message: String,
}

/// Why the wanted revision could not be begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The revision, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Why.
    pub problem: Problem,
    /// Whether it may pass by itself: the API server is away, a namespace is being deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transient: bool,
    /// How often it failed.
    pub retries: u32,
    /// When it is tried again.
    pub retry_at: String,
}

/// An object that a Delivery owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryEntry {
    /// API group, empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Version that the bundle names.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, empty for a cluster-scoped object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The object's uid; absent until it was written (only the intent is recorded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Whether Windlass made it or found it.
    pub origin: EntryOrigin,
    /// Digest of the manifest that was applied last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub applied: String,
    /// Digest of the fields that we own, with their values, as the API server answered; keyed for Secrets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Version of the API server whose dry-run said that the object is as the manifest wants, though it reads otherwise. One
    /// of another version is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<String>,
    /// `windlass.dev/prune` of the manifest that was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<String>,
    /// Not in the bundle that is being put in place: removed once that is healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// It left Git with a revision that became healthy while nothing was pruned: a rollback leaves it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// A Job that was not seen to complete: when it is gone, it counts as missing. One that is gone without this has done its
    /// work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// It is there for a rollout only: a copy of the new revision beside the last good one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub candidate: bool,
    /// Digest of the configuration that its pods read, once that has changed: the pod template carries it, so that pods
    /// restart with the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Replicas that are applied although Git names none: an autoscaler was added and has not taken over yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// `windlass.dev/wave` of the manifest that was applied last.
    #[serde(default, skip_serializing_if = "is_zero_wave")]
    pub wave: i32,
}

fn is_zero_wave(n: &i32) -> bool {
    *n == 0
}

/// An object that a Delivery owned until a short while ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedEntry {
    /// API group, empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Version that the bundle named.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, empty for a cluster-scoped object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The uid of the object that was removed or let go; absent when it was never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Whether Windlass had made it or found it.
    pub origin: EntryOrigin,
    /// `windlass.dev/prune` of the manifest that was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<String>,
    /// When it left the inventory.
    pub at: String,
}

/// Whether Windlass made an object or found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EntryOrigin {
    /// Nothing stood there before.
    Created,
    /// It was there before; it is released, not deleted, when a failed commit had named it first.
    Adopted,
}

/// One entry of a Delivery's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// The revision.
    pub revision: Revision,
    /// What became of it.
    pub outcome: Outcome,
    /// When that was known.
    pub at: String,
    /// Why, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What bringing it back did not undo of the revision that had failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Exception>,
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// Deployed and healthy.
    Deployed,
    /// Failed, and rolled back.
    RolledBack,
    /// Failed, and left in place.
    Failed,
    /// A newer one came before it was done, or a person went back.
    Superseded,
    /// Brought back after a newer one failed, or because a person asked.
    Restored,
}
