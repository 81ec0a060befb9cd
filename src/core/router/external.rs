//! Routes outside of the bundle: their owner writes them, and a split is written in between.
//!
//! What was written is recorded in an annotation of the route, in the same patch: whatever dies in between, one does not stand
//! without the other. From it the owner's own state is read back out of any state of the route, exactly where nobody else
//! has written since, and sensibly where somebody has; the new split is then written into that.

use super::mark::Mark;
use super::why::Why;
use super::{Changed, Split, VariantService, gateway, istio, service, writes};
use crate::api::delivery::Problem;
use crate::api::rollout::Router;
use crate::core::manifest::ObjectId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Annotation on a route outside of the bundle while a rollout has written into it: what, so that it can be taken back.
pub const ANNOTATION: &str = "windlass.dev/split";

/// What stands in the annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    services: Vec<VariantService>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<Mark>,
    #[serde(flatten)]
    changed: Changed,
}

fn record(live: &Value) -> Option<Record> {
    let text = live.pointer("/metadata/annotations")?.get(ANNOTATION)?.as_str()?;
    serde_json::from_str(text).ok()
}

/// A route as its owner has it: what earlier splits wrote is taken out, by the record of it. Where that is gone, a split
/// says whose names are candidates, and whatever only names one is left alone.
pub(super) fn unsplit(router: &Router, live: &Value, split: Option<&Split>) -> Value {
    let mut base = live.clone();
    let lost = || Record { changed: Changed { theirs: true, ..Changed::default() }, ..Record::default() };
    let Some(found) = record(live).or_else(|| split.map(|_| lost())) else { return base };
    let (mut services, mut marks) = (found.services.clone(), found.marks.clone());
    if let Some(split) = split {
        services.extend(split.services.iter().filter(|s| !found.services.contains(s)).cloned());
        marks.extend(Mark::of(split).into_iter().filter(|m| !found.marks.contains(m)));
    }
    if router.gateway_api.is_some() {
        gateway::restore(&mut base, &services, &marks, &found.changed);
    } else if router.istio.is_some() {
        istio::restore(&mut base, &services, &marks, &found.changed);
    } else if let Some(router) = &router.service {
        for of in services.iter().filter(|of| of.stable == router.name) {
            service::restore(&mut base, of);
        }
    }
    base
}

/// The JSON patch that writes a split into a route outside of the bundle, whatever stands in it now; `None` when it stands
/// already. Without a split the route's owner gets it back as it was. The patch names the uid and the `resourceVersion`
/// that it was made for, so that the API server answers 409 when somebody was faster. It wants
/// `fieldValidation=Strict`: an API server whose CRD does not know a field drops it otherwise.
pub fn patch(router: &Router, live: &Value, split: Option<&Split>) -> Result<Option<Value>, Problem> {
    let problem = |why: Why| why.problem(&ObjectId::of(live), None);
    let mut wanted = unsplit(router, live, split);
    let record = match split.filter(|split| writes(router, split)) {
        None => None,
        Some(split) => {
            let changed = super::written(router, &mut wanted, split).map_err(problem)?;
            let theirs = changed.theirs || record(live).is_some_and(|r| r.changed.theirs);
            Some(Record {
                services: split.services.clone(),
                marks: Mark::of(split),
                changed: Changed { theirs, ..changed },
            })
        }
    };
    let mut operations = changes(router, live, &wanted);
    annotate(&mut operations, live, record.as_ref());
    if operations.is_empty() {
        return Ok(None);
    }
    let meta = |field: &str| live.pointer(&format!("/metadata/{field}")).filter(|v| v.is_string());
    let version = meta("resourceVersion").ok_or_else(|| problem(Why::NotLive))?;
    // A test would be answered with 422, like a patch that is wrong; a version that is replaced by itself with 409.
    let mut guarded = vec![json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version})];
    guarded.extend(meta("uid").map(|uid| json!({"op": "test", "path": "/metadata/uid", "value": uid})));
    guarded.extend(operations);
    Ok(Some(guarded.into()))
}

/// The operations that bring what a router writes from one state to the other.
fn changes(router: &Router, live: &Value, wanted: &Value) -> Vec<Value> {
    let paths: &[&str] = if router.gateway_api.is_some() {
        &["/spec/rules"]
    } else if router.istio.is_some() {
        &["/spec/http", "/spec/tls", "/spec/tcp"]
    } else {
        &["/spec/selector"]
    };
    let changed = |path: &&&str| live.pointer(path) != wanted.pointer(path);
    paths
        .iter()
        .filter(changed)
        .map(|path| match wanted.pointer(path) {
            Some(value) => json!({"op": "replace", "path": path, "value": value}),
            None => json!({"op": "remove", "path": path}),
        })
        .collect()
}

fn annotate(operations: &mut Vec<Value>, live: &Value, record: Option<&Record>) {
    let annotations = live.pointer("/metadata/annotations");
    let found = annotations.and_then(|a| a.get(ANNOTATION)).and_then(Value::as_str);
    let text = record.and_then(|record| serde_json::to_string(record).ok());
    let path = format!("/metadata/annotations/{}", ANNOTATION.replace('/', "~1"));
    match (found, text) {
        (Some(found), Some(text)) if found == text => {}
        (None, None) => {}
        (Some(_), None) => {
            let alone = annotations.and_then(Value::as_object).is_some_and(|all| all.len() == 1);
            let path = if alone { "/metadata/annotations" } else { &path };
            operations.push(json!({"op": "remove", "path": path}));
        }
        (_, Some(text)) => {
            if annotations.is_none() {
                operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            }
            operations.push(json!({"op": "add", "path": path, "value": text}));
        }
    }
}
