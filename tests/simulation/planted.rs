//! Bugs that are put in on purpose: in the gate or in the driver, so that the product carries none. Each is found.

use super::gate::Call;
use super::model::Answer;
use super::oracle::Promise;
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
}

impl Planted {
    /// All of them, and the promises that each may break.
    pub const ALL: [(Planted, &'static [Promise]); 13] = [
        (Planted::PruneSkipped, &[Promise::NothingIsLeft]),
        (Planted::FieldForgotten, &[Promise::FieldsHold]),
        (Planted::DriftUnseen, &[Promise::FieldsHold]),
        (Planted::AdoptionForgotten, &[Promise::AdoptedStays]),
        (Planted::HoldForgotten, &[Promise::HeldStaysHeld]),
        (Planted::PodsUnguarded, &[Promise::PodsServe]),
        (Planted::NewerWaits, &[Promise::NewerGoesFirst]),
        (Planted::PruneByLabel, &[Promise::OnlyInventory]),
        (Planted::GuardsDropped, &[Promise::NothingUnseen]),
        (Planted::NeverWritten, &[Promise::Ends, Promise::NewerGoesFirst]),
        (Planted::FinalizerStays, &[Promise::Ends]),
        (Planted::ProgressIsHealth, &[Promise::OnlyGoodIsGood]),
        (Planted::CommitsUnseen, &[Promise::GitWins]),
    ];

    /// What is sent instead of a request.
    pub fn change(self, call: &Call, _: &Life) -> Option<Call> {
        let mut body = call.json();
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
            _ => {}
        }
        (body != old).then(|| Call { body: serde_json::to_vec(&body).unwrap_or_default(), ..call.clone() })
    }

    /// What is answered to a request that is not carried out.
    pub fn swallow(self, call: &Call, state: &mut State, now: Timestamp) -> Option<Answer> {
        match self {
            Planted::PruneSkipped if call.method == "DELETE" => {
                let there = state.get(now, call.place())?;
                Key::of(&there)?;
                let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
                Some(Answer::Object { status: 200, body })
            }
            Planted::FinalizerStays
                if call.method == "PATCH"
                    && call.place().contains("/deliveries/")
                    && call.json()["metadata"]["finalizers"].as_array().is_some_and(Vec::is_empty) =>
            {
                Some(Answer::Object { status: 200, body: state.get(now, call.place())? })
            }
            Planted::NeverWritten
                if is_status(call) && call.json()["status"]["attempt"]["step"] == "Applying" =>
            {
                let body = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409,
                    "reason": "Conflict", "message": "planted",
                });
                Some(Answer::Object { status: 409, body })
            }
            _ => None,
        }
    }

    /// What a daemon is shown instead of an object.
    pub fn shows(self, object: &mut Value) {
        if self == Planted::ProgressIsHealth && object["kind"] == "Deployment" {
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

    /// Whether an event is not seen.
    pub fn hides(self, event: &Value) -> bool {
        self == Planted::DriftUnseen
            && event["type"] == "MODIFIED"
            && event["object"]["kind"] == "ConfigMap"
            && event["object"]["metadata"]["managedFields"]
                .as_array()
                .is_some_and(|all| all.iter().any(|m| m["manager"] != names::FIELD_MANAGER))
    }
}

fn is_status(call: &Call) -> bool {
    call.method == "PUT" && call.place().ends_with("/status") && call.place().contains("/deliveries/")
}

fn is_apply(call: &Call) -> bool {
    call.method == "PATCH" && call.content_type.starts_with("application/apply-patch")
}
