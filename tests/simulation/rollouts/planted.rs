//! Bugs of rollouts that are put in on purpose. Each is found.

use super::super::gate::Call;
use super::super::model::Answer;
use super::super::oracle::Promise;
use super::super::planted::{Planted, is_apply, is_status};
use super::super::world::State;
use super::is_candidate;
use jiff::Timestamp;
use serde_json::{Value, json};

/// All of them, and the promises that each may break.
pub const ALL: [(Planted, &[Promise]); 12] = [
    (Planted::TooMuchWeight, &[Promise::CandidateShare]),
    (Planted::WeightDoubled, &[Promise::CandidateShare]),
    (Planted::PromotedEarly, &[Promise::StableUntouched]),
    (Planted::StableTrusted, &[Promise::TrafficHealthy]),
    (Planted::IllnessUnseen, &[Promise::TrafficHealthy]),
    (Planted::RouteLeft, &[Promise::RouteToNothing]),
    (Planted::CopyMissed, &[Promise::StableUntouched]),
    (Planted::CandidateTrusted, &[Promise::TrafficHealthy]),
    (Planted::CandidateKept, &[Promise::OneVariant]),
    (Planted::EndedEarly, &[Promise::OneVariant]),
    (Planted::MeasuresPass, &[Promise::OnlyGoodIsGood]),
    (Planted::SwitchedSmall, &[Promise::CapacityServes]),
];

/// Those that are found where there is more in rollouts.
pub const WIDE: [(Planted, &[Promise]); 2] =
    [(Planted::CapacityLost, &[Promise::CapacityKept]), (Planted::HooksSucceed, &[Promise::OnlyGoodIsGood])];

/// One that is found by a request that comes late.
pub const LATE: (Planted, &[Promise]) = (Planted::LateSteers, &[Promise::NewestSteers]);

fn is_route(call: &Call) -> bool {
    call.place().contains("/httproutes/")
}

/// Changes the body of a request.
pub fn change(planted: Planted, call: &Call, body: &mut Value) {
    change_wide(planted, call, body);
    // The daemon believes what it has written.
    if is_status(call) && body["status"]["attempt"]["rollout"]["stage"] == "Stepping" {
        let layout = &mut body["status"]["attempt"]["rollout"]["layout"];
        let weight = layout["weight"].as_u64().unwrap_or(0);
        match planted {
            Planted::WeightDoubled => layout["weight"] = (weight * 2).min(100).into(),
            Planted::PromotedEarly => layout["base"] = "Target".into(),
            _ => {}
        }
    }
    if planted == Planted::IllnessUnseen
        && is_status(call)
        && let Some(rollout) = body.pointer_mut("/status/attempt/rollout").and_then(Value::as_object_mut)
    {
        rollout.remove("unready");
    }
    let named = call.place().rsplit_once("/deployments/").is_some_and(|(_, name)| is_candidate(name));
    // The daemon takes the number that stands there for the one that it asked for.
    if planted == Planted::SwitchedSmall && is_apply(call) && named && body["spec"]["replicas"].is_u64() {
        body["spec"]["replicas"] = 1.into();
    }
    let returns = body["status"]["attempt"]["rollout"]["stage"] == "Returning";
    if planted == Planted::EndedEarly
        && is_status(call)
        && returns
        && let Some(status) = body.get_mut("status").and_then(Value::as_object_mut)
    {
        status.remove("attempt");
    }
    if planted == Planted::TooMuchWeight && is_apply(call) && is_route(call) {
        for backend in backends(body) {
            if backend["name"].as_str().is_some_and(is_candidate) {
                backend["weight"] = (backend["weight"].as_u64().unwrap_or(1) * 2).into();
            }
        }
    }
}

/// Changes what there is more of.
fn change_wide(planted: Planted, call: &Call, body: &mut Value) {
    let places = ["/httproutes/", "/grpcroutes/", "/virtualservices/", "/services/"];
    if planted == Planted::LateSteers
        && is_apply(call)
        && places.iter().any(|place| call.place().contains(place))
        && let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.remove("resourceVersion");
    }
    let scaler = call.place().ends_with("/horizontalpodautoscalers/front");
    // No directory asks for more.
    if planted == Planted::CapacityLost
        && is_apply(call)
        && scaler
        && body["spec"]["minReplicas"].as_u64() > Some(3)
    {
        body["spec"]["minReplicas"] = 3.into();
    }
}

/// What is sent instead of a request to another place.
pub fn redirect(planted: Planted, call: &Call) -> Option<Call> {
    let copy = call.place().ends_with("/configmaps/words-canary");
    if planted != Planted::CopyMissed || !is_apply(call) || !call.writes() || !copy {
        return None;
    }
    let mut body = call.json();
    body["metadata"]["name"] = "words".into();
    let path = call.path.replace("/words-canary", "/words");
    Some(Call { path, body: serde_json::to_vec(&body).unwrap_or_default(), ..call.clone() })
}

/// What a daemon is shown instead of an object.
pub fn shows(planted: Planted, object: &mut Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if planted == Planted::StableTrusted && object["kind"] == "Deployment" && !is_candidate(name) {
        return Planted::ProgressIsHealth.shows(object);
    }
    let candidate = is_candidate(name) || name.contains("-canary-") || name.contains("-preview-");
    if planted != Planted::CandidateTrusted || !candidate {
        return;
    }
    match object["kind"].as_str() {
        Some("Deployment") => Planted::ProgressIsHealth.shows(object),
        Some("Pod") => {
            for status in object["status"]["containerStatuses"].as_array_mut().into_iter().flatten() {
                status["restartCount"] = 0.into();
                status["state"] = json!({"running": {}});
            }
        }
        _ => {}
    }
}

fn backends(route: &mut Value) -> impl Iterator<Item = &mut Value> {
    let rules = route.pointer_mut("/spec/rules").and_then(Value::as_array_mut);
    rules.into_iter().flatten().filter_map(|rule| rule["backendRefs"].as_array_mut()).flatten()
}

/// What is answered to a request that is not carried out.
pub fn swallow(planted: Planted, call: &Call, state: &mut State, now: Timestamp) -> Option<Answer> {
    let leaves = || {
        let mut body = call.json();
        !backends(&mut body).any(|b| b["name"].as_str().is_some_and(is_candidate))
    };
    if planted == Planted::CandidateKept
        && call.method == "DELETE"
        && call.place().rsplit('/').next().is_some_and(is_candidate)
    {
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        return Some(Answer::Object { status: 200, body: body.into() });
    }
    if planted == Planted::RouteLeft && is_apply(call) && call.writes() && is_route(call) && leaves() {
        return Some(Answer::Object { status: 200, body: state.get(now, call.place())?.into() });
    }
    None
}
