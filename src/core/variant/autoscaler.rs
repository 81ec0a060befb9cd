//! Autoscalers during a rollout: the workload's is kept from taking the capacity away that going back needs, and a candidate
//! of full size has a copy.

use super::build::{Candidate, Of, Twin, copy};
use super::names::Names;
use super::{at, at_mut};
use crate::api::rollout::Size;
use crate::core::autoscale;
use crate::core::manifest::{Manifest, ObjectId};
use serde_json::{Value, json};

/// The workload that an autoscaler of a bundle scales.
pub(super) fn scales(autoscaler: &Manifest) -> Option<ObjectId> {
    let kind = autoscaler.gvk().kind;
    // Asked first: an object may be large, and most are none.
    autoscale::AUTOSCALERS.iter().find(|(_, known)| *known == kind)?;
    autoscale::target(&autoscaler.to_value())
}

/// Fields of the least and the largest size, each with its value where it is left out.
fn bounds(autoscaler: &Manifest) -> [(&'static str, i64); 2] {
    match autoscaler.gvk().kind.as_str() {
        "ScaledObject" => [("minReplicaCount", 0), ("maxReplicaCount", 100)],
        _ => [("minReplicas", 1), ("maxReplicas", i64::MAX)],
    }
}

/// The size of a ScaledObject's workload where no trigger is active.
const IDLE: &str = "idleReplicaCount";

/// An autoscaler that does not go below a number of pods, as far as its largest size allows.
pub(super) fn held(autoscaler: &Manifest, least: i64) -> Manifest {
    let [(min, least_now), (_, most)] = bounds(autoscaler)
        .map(|(field, default)| (field, at(autoscaler, &["spec", field]).as_i64().unwrap_or(default)));
    let floor = least.min(most);
    let mut held = autoscaler.clone();
    if let Some(Value::Object(spec)) = at_mut(&mut held, &["spec"]) {
        if least_now < floor {
            spec.insert(min.into(), json!(floor));
        }
        // Below the least size KEDA goes to this one, where nothing is to be done.
        if spec.get(IDLE).and_then(Value::as_i64).is_some_and(|idle| idle < floor) {
            spec.remove(IDLE);
        }
    }
    held
}

/// Copies the autoscalers of the workloads for a candidate of full size. Below that they would scale by a share of the traffic
/// as if it were all of it. A copy does not go below the size that the candidate was given: traffic comes later than pods.
pub(super) fn copies(of: &Of, names: &mut Names, made: &mut Candidate) {
    let full = match of.layout.size {
        Some(Size::Percent(percent)) => percent >= 100,
        // As many as stable has.
        Some(Size::OfAll(percent)) => percent >= 50,
        Some(Size::Replicas(_)) | None => false,
    };
    if !full {
        return;
    }
    for autoscaler in of.target.objects() {
        let Some(scaled) = scales(autoscaler) else { continue };
        let Some(twin) = of.twins.iter().find(|twin| twin.new.id() == scaled) else { continue };
        let name = names.fresh(&autoscaler.id());
        let mut copied = held(&copy(autoscaler, &name), twin.replicas);
        point(&mut copied, twin, made, &name);
        made.objects.push(copied);
    }
}

/// Makes a copied autoscaler scale the candidate.
fn point(autoscaler: &mut Manifest, twin: &Twin, made: &Candidate, name: &str) {
    let Some(spec) = at_mut(autoscaler, &["spec"]) else { return };
    spec["scaleTargetRef"]["name"] = json!(twin.name);
    if let Some(own) = spec.pointer_mut("/advanced/horizontalPodAutoscalerConfig/name") {
        *own = json!(name);
    }
    for metric in super::items_mut(spec.get_mut("metrics")) {
        let Some(object) = metric.pointer_mut("/object/describedObject") else { continue };
        let pair = made.services.iter().find(|pair| {
            pair.namespace == twin.namespace()
                && object["kind"] == "Service"
                && object["name"] == pair.stable.as_str()
        });
        if let Some(pair) = pair {
            object["name"] = json!(pair.candidate);
        }
    }
}
