//! A Service whose selector is switched: all of its traffic goes to one variant or to the other.

use super::why::Why;
use super::{Split, VariantService};
use serde_json::Value;

/// Refuses what a selector cannot do, and says whether the candidate is to be selected.
pub(super) fn switched(split: &Split) -> Result<bool, Why> {
    let cannot = |what: &'static str| Why::Cannot {
        what,
        because: "a Service sends everything to the pods that it selects",
        instead: "gatewayAPI or istio",
    };
    if split.header.is_some() {
        return Err(cannot("tell requests by a header"));
    }
    if split.cookie.is_some() {
        return Err(cannot("tell requests by a cookie"));
    }
    if split.mirror.is_some_and(|percent| percent > 0) {
        return Err(cannot("copy requests"));
    }
    match split.weight {
        0 => Ok(false),
        100.. => Ok(true),
        weight => Err(Why::Switch(weight)),
    }
}

/// The Service of the split that has this name.
pub(super) fn named<'a>(name: &str, split: &'a Split) -> Result<&'a VariantService, Why> {
    let found = split.services.iter().find(|service| service.stable == name);
    found.ok_or_else(|| Why::NoService(split.stables()))
}

/// Has a Service that is as its owner wrote it select the candidate's pods.
pub(super) fn switch(object: &mut Value, service: &VariantService) -> Result<(), Why> {
    let label = &service.label;
    let selector = object.pointer_mut("/spec/selector").and_then(Value::as_object_mut);
    match selector.and_then(|selector| selector.get_mut(&label.key)) {
        Some(value) if value.as_str() == Some(&label.stable) => {
            *value = label.candidate.clone().into();
            Ok(())
        }
        _ => Err(Why::BroadSelector { key: label.key.clone(), stable: label.stable.clone() }),
    }
}

/// Has a Service select the stable pods again.
pub(super) fn restore(object: &mut Value, service: &VariantService) {
    let label = &service.label;
    let selector = object.pointer_mut("/spec/selector").and_then(Value::as_object_mut);
    if let Some(value) = selector.and_then(|selector| selector.get_mut(&label.key))
        && value.as_str() == Some(&label.candidate)
    {
        *value = label.stable.clone().into();
    }
}
