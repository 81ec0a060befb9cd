//! Bugs that are put in on purpose: in the gate or in the driver, so that the product carries none. Each is found.

use super::gate::Call;
use super::model::Answer;
use super::oracle::Promise;
use super::rollouts::planted as rollouts;
use super::things::Key;
use super::world::{Life, State};
use jiff::Timestamp;
use serde_json::{Value, json};
use windlass::api::names;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Removing an object is reported and not done.
    PruneSkipped,
    /// A field of the manifest is not sent.
    FieldForgotten,
    /// Changes by others are not noticed.
    DriftUnseen,
    /// What was found is taken for what was made.
    AdoptionForgotten,
    /// That a revision is held is not written down.
    HoldForgotten,
    /// All pods are replaced at once.
    PodsUnguarded,
    /// A newer commit waits until the one before is done.
    NewerWaits,
    /// Data that is to be let go is deleted.
    DataDeleted,
    /// What carries the label is removed, whether it is in the inventory or not.
    PruneByLabel,
    /// What is meant is named by its name only, not by its uid.
    GuardsDropped,
    /// A state is decided on and never written.
    NeverWritten,
    /// What is deleted is never let go.
    FinalizerStays,
    /// A Deployment that is on its way is taken for a healthy one.
    ProgressIsHealth,
    /// No commit but the first is seen.
    CommitsUnseen,
    /// A rollback renders with the settings of now.
    SettingsMixedUp,
    /// New settings are not noticed.
    SettingsUnseen,
    /// That a hook ran is not written down.
    HooksForgotten,
    /// A hook that runs has succeeded.
    HooksSucceed,
    /// What a Delivery depends on is not looked at.
    DependencyIgnored,
    /// What becomes ready wakes nobody who waits for it.
    WaitsOn,
    /// What was healthy and crashes is taken for healthy still.
    CrashesUnseen,
    /// That a commit was taken back is not written down.
    RevertForgotten,
    /// A commit is never taken back.
    NothingReverted,
    /// It is not seen that a pod is taken away through no fault of its own.
    NodesUnseen,
    /// What another Delivery has is taken for one's own.
    ConflictUnsaid,
    /// A Lease that is lost stops nobody.
    LeaseIgnored,
    /// A candidate gets more traffic than its step says.
    TooMuchWeight,
    /// A step's share is doubled when it is decided, so that the status says so too.
    WeightDoubled,
    /// Stable takes the new template in a step, and the status says so.
    PromotedEarly,
    /// Stable is taken for healthy, however it is.
    StableTrusted,
    /// Since when a candidate has no pod ready is forgotten over and over.
    IllnessUnseen,
    /// Traffic is not taken back from a candidate.
    RouteLeft,
    /// A candidate's configuration is written to stable's.
    CopyMissed,
    /// A candidate that is not well is taken for a healthy one.
    CandidateTrusted,
    /// A candidate that has ended is not removed.
    CandidateKept,
    /// A revision counts as ended before its candidate is removed.
    EndedEarly,
    /// Measurements succeed, whatever they come to.
    MeasuresPass,
    /// A candidate gets all traffic, and one pod.
    SwitchedSmall,
    /// What steers traffic is written whatever was written to it meanwhile.
    LateSteers,
    /// An autoscaler may take stable's pods away while a candidate stands beside it.
    CapacityLost,
}

impl Planted {
    /// All of them, and the promises that each may break.
    pub const ALL: [(Planted, &'static [Promise]); 26] = [
        (Planted::PruneSkipped, &[Promise::NothingIsLeft]),
        (Planted::FieldForgotten, &[Promise::FieldsHold]),
        (Planted::DriftUnseen, &[Promise::FieldsHold]),
        (Planted::AdoptionForgotten, &[Promise::AdoptedStays]),
        (Planted::HoldForgotten, &[Promise::HeldStaysHeld]),
        (Planted::PodsUnguarded, &[Promise::PodsServe]),
        (Planted::NewerWaits, &[Promise::NewerGoesFirst]),
        (Planted::PruneByLabel, &[Promise::OnlyInventory]),
        (Planted::DataDeleted, &[Promise::DataStays]),
        (Planted::GuardsDropped, &[Promise::NothingUnseen]),
        (Planted::NeverWritten, &[Promise::Ends, Promise::NewerGoesFirst]),
        (Planted::FinalizerStays, &[Promise::Ends]),
        (Planted::ProgressIsHealth, &[Promise::OnlyGoodIsGood]),
        (Planted::CommitsUnseen, &[Promise::GitWins]),
        (Planted::SettingsMixedUp, &[Promise::FieldsHold, Promise::Ends]),
        (Planted::SettingsUnseen, &[Promise::SettingsWin]),
        (Planted::HooksForgotten, &[Promise::HooksOnce]),
        (Planted::HooksSucceed, &[Promise::OnlyGoodIsGood]),
        (Planted::DependencyIgnored, &[Promise::DependencyFirst]),
        (Planted::WaitsOn, &[Promise::NewerGoesFirst]),
        (Planted::CrashesUnseen, &[Promise::WatchedOn]),
        (Planted::RevertForgotten, &[Promise::RevertsOnce]),
        (Planted::NothingReverted, &[Promise::Reverts]),
        (Planted::NodesUnseen, &[Promise::GoodIsKept]),
        (Planted::ConflictUnsaid, &[Promise::OneOwner]),
        (Planted::LeaseIgnored, &[Promise::OneWorks]),
    ];

    /// All of them, those of rollouts too.
    pub fn every() -> impl Iterator<Item = Planted> {
        Planted::ALL
            .into_iter()
            .chain(rollouts::ALL)
            .chain(rollouts::WIDE)
            .chain([rollouts::LATE])
            .map(|(planted, _)| planted)
    }

    /// What is sent instead of a request.
    pub fn change(self, call: &Call, _: &Life) -> Option<Call> {
        if let Some(other) = rollouts::redirect(self, call) {
            return Some(other);
        }
        let mut body = call.json();
        if self == Planted::DataDeleted && call.writes() && lets_go(call, &body) {
            let (method, content_type) = ("DELETE".into(), "application/json".into());
            let body = json!({"kind": "DeleteOptions", "apiVersion": "v1"}).to_string().into_bytes();
            return Some(Call { method, content_type, body, ..call.clone() });
        }
        let old = body.clone();
        match self {
            Planted::AdoptionForgotten if is_status(call) => {
                let entries = body.pointer_mut("/status/inventory").and_then(Value::as_array_mut);
                for entry in entries.into_iter().flatten() {
                    entry["origin"] = "Created".into();
                }
            }
            Planted::FieldForgotten if is_apply(call) => {
                if let Some(data) = body.get_mut("data").and_then(Value::as_object_mut) {
                    data.remove("more");
                }
            }
            Planted::HoldForgotten if is_status(call) => {
                if let Some(status) = body.get_mut("status").and_then(Value::as_object_mut) {
                    status.remove("held");
                }
            }
            Planted::ConflictUnsaid if is_status(call) => {
                let failure =
                    body.pointer("/status/failure").filter(|f| f["problem"]["reason"] == "Conflict");
                if let Some(revision) = failure.and_then(|f| f.get("revision")).cloned() {
                    let status = &mut body["status"];
                    status["effective"] = revision;
                    status["phase"] = "Ready".into();
                    let conditions = status["conditions"].as_array_mut();
                    for condition in conditions.into_iter().flatten().filter(|c| c["type"] == "Ready") {
                        condition["status"] = "True".into();
                    }
                }
            }
            Planted::HooksForgotten if is_status(call) => {
                let runs = body.pointer_mut("/status/hooks").and_then(Value::as_array_mut);
                for run in runs.into_iter().flatten().filter(|run| run["step"] == "Succeeded") {
                    run["step"] = "Running".into();
                    if let Some(run) = run.as_object_mut() {
                        run.remove("uid");
                        run.remove("state");
                    }
                }
            }
            Planted::RevertForgotten if is_status(call) => {
                if let Some(held) = body.pointer_mut("/status/held").and_then(Value::as_object_mut) {
                    held.remove("revert");
                }
            }
            Planted::PodsUnguarded if is_apply(call) && body["kind"] == "Deployment" => {
                body["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = "100%".into();
            }
            Planted::GuardsDropped if call.method == "DELETE" => {
                if let Some(options) = body.as_object_mut() {
                    options.remove("preconditions");
                }
            }
            Planted::GuardsDropped if is_apply(call) => {
                if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("uid");
                }
            }
            _ => rollouts::change(self, call, &mut body),
        }
        (body != old).then(|| Call { body: serde_json::to_vec(&body).unwrap_or_default(), ..call.clone() })
    }

    /// What is answered to a request that is not carried out.
    pub fn swallow(self, call: &Call, state: &mut State, now: Timestamp) -> Option<Answer> {
        match self {
            Planted::SettingsMixedUp
                if call.method == "GET" && call.place().ends_with(".windlass-settings") =>
            {
                let mut body = state.get(now, call.place())?;
                let data = body["data"].as_object_mut()?;
                // The last one by its name, for all.
                let some = data.values().next_back()?.clone();
                data.values_mut().for_each(|value| *value = some.clone());
                Some(Answer::Object { status: 200, body: body.into() })
            }
            Planted::PruneSkipped if call.method == "DELETE" => {
                let there = state.get(now, call.place())?;
                Key::of(&there)?;
                let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
                Some(Answer::Object { status: 200, body: body.into() })
            }
            Planted::FinalizerStays
                if call.method == "PATCH"
                    && call.place().contains("/deliveries/")
                    && call.json()["metadata"]["finalizers"].as_array().is_some_and(Vec::is_empty) =>
            {
                Some(Answer::Object { status: 200, body: state.get(now, call.place())?.into() })
            }
            Planted::NeverWritten
                if is_status(call) && call.json()["status"]["attempt"]["step"] == "Applying" =>
            {
                let body = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409,
                    "reason": "Conflict", "message": "planted",
                });
                Some(Answer::Object { status: 409, body: body.into() })
            }
            _ => rollouts::swallow(self, call, state, now),
        }
    }

    /// What a daemon is shown instead of an object.
    pub fn shows(self, object: &mut Value) {
        rollouts::shows(self, object);
        if self == Planted::HooksSucceed && super::attempts::is_hook(object) {
            object["status"] =
                json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]});
        }
        if self == Planted::NodesUnseen && object["kind"] == "Pod" {
            as_by_itself(object);
        }
        let image = |spec: &Value| spec["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
        let crashes = self == Planted::CrashesUnseen
            && (image(&object["spec"]).ends_with(":flaky")
                || image(&object["spec"]["template"]["spec"]).ends_with(":flaky"));
        if crashes && object["kind"] == "Pod" {
            for status in object["status"]["containerStatuses"].as_array_mut().into_iter().flatten() {
                status["restartCount"] = 0.into();
                status["state"] = json!({"running": {}});
                status["lastState"] = json!({});
                status["ready"] = true.into();
            }
        }
        if (crashes || self == Planted::ProgressIsHealth) && object["kind"] == "Deployment" {
            let replicas = object["spec"]["replicas"].clone();
            object["status"] = json!({
                "observedGeneration": object["metadata"]["generation"],
                "conditions": [{"type": "Available", "status": "True"}],
            });
            for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
                object["status"][count] = replicas.clone();
            }
        }
    }

    /// What a daemon is answered instead of a list.
    pub fn lists(self, list: &mut Value) {
        if self == Planted::NodesUnseen && list["kind"] == "PodList" {
            list["items"].as_array_mut().into_iter().flatten().for_each(as_by_itself);
        }
    }

    /// Whether an event is not seen.
    pub fn hides(self, kind: &str, object: &Value) -> bool {
        let settings = object["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("vars-"));
        self == Planted::SettingsUnseen && settings && kind != "ADDED"
            || self == Planted::DriftUnseen
                && kind == "MODIFIED"
                && object["kind"] == "ConfigMap"
                && object["metadata"]["managedFields"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|m| m["manager"] != names::FIELD_MANAGER))
    }
}

/// A Pod without the signs that tell whose fault it is that it is not ready.
fn as_by_itself(pod: &mut Value) {
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    conditions.retain(|c| c["type"] != "DisruptionTarget");
    let ready = conditions.iter().find(|c| c["type"] == "Ready").map(|c| c["status"].clone());
    for condition in conditions {
        match condition["type"].as_str() {
            Some("ContainersReady") => condition["status"] = ready.clone().unwrap_or_default(),
            Some("PodScheduled") => condition["reason"] = "".into(),
            _ => {}
        }
    }
}

/// Whether a request takes our label from a claim.
fn lets_go(call: &Call, body: &Value) -> bool {
    let label = format!("/metadata/labels/{}", names::DELIVERY_LABEL.replace('/', "~1"));
    let mut operations = body.as_array().into_iter().flatten();
    call.place().contains("/persistentvolumeclaims/")
        && operations.any(|o| o["op"] == "remove" && o["path"] == label.as_str())
}

/// Whether a request writes the status of a Delivery.
pub fn is_status(call: &Call) -> bool {
    call.method == "PUT" && call.place().ends_with("/status") && call.place().contains("/deliveries/")
}

/// Whether a request is an apply.
pub fn is_apply(call: &Call) -> bool {
    call.method == "PATCH" && call.content_type.starts_with("application/apply-patch")
}
