//! Bugs of rollouts that are put in on purpose. Each is found.

use super::super::gate::Call;
use super::super::model::Answer;
use super::super::oracle::Promise;
use super::super::planted::{Planted, is_apply};
use super::super::world::State;
use super::is_candidate;
use jiff::Timestamp;
use serde_json::Value;

/// All of them, and the promises that each may break.
pub const ALL: [(Planted, &[Promise]); 2] =
    [(Planted::TooMuchWeight, &[Promise::CandidateShare]), (Planted::RouteLeft, &[Promise::RouteToNothing])];

fn is_route(call: &Call) -> bool {
    call.place().contains("/httproutes/")
}

/// Changes the body of a request.
pub fn change(planted: Planted, call: &Call, body: &mut Value) {
    if planted == Planted::TooMuchWeight && is_apply(call) && is_route(call) {
        for backend in backends(body) {
            if backend["name"].as_str().is_some_and(is_candidate) {
                backend["weight"] = (backend["weight"].as_u64().unwrap_or(1) * 2).into();
            }
        }
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
    if planted == Planted::RouteLeft && is_apply(call) && call.writes() && is_route(call) && leaves() {
        return Some(Answer::Object { status: 200, body: state.get(now, call.place())? });
    }
    None
}
