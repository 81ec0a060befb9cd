//! What delivering a bundle would set going: told before anything is.

use super::rollout::Spec;
use super::rollout::status::told;
use crate::api::delivery::{DeliveryStatus, FirstRevision, RollbackMode};
use serde_json::Value;

/// What would become of the pods of a workload. `before` and `after` are the object as it stands (`Null` when it does not) and
/// as it would be. `None` for what has no pods of its own, or changes nothing about them.
pub fn pods(before: &Value, after: &Value) -> Option<String> {
    let spec = &after["spec"];
    let kind = match (after["apiVersion"].as_str()?, after["kind"].as_str()?) {
        ("apps/v1", kind @ ("Deployment" | "StatefulSet" | "DaemonSet")) => kind,
        ("batch/v1", "Job") if before.is_null() => return Some("runs".into()),
        _ => return None,
    };
    let replicas = |object: &Value| object["spec"]["replicas"].as_i64().unwrap_or(1);
    let count = |n: i64| if n == 1 { "1 pod".to_owned() } else { format!("{n} pods") };
    let (had, has) = (replicas(before), replicas(after));
    let whole = if kind == "DaemonSet" { "a pod on each node".to_owned() } else { count(has) };
    if before.is_null() {
        return Some(format!("starts {whole}"));
    }
    let template = |object: &Value| object["spec"]["template"].clone();
    if template(before) == template(after) {
        return (kind != "DaemonSet" && had != has)
            .then(|| format!("scales from {had} to {has}, and replaces no pod"));
    }
    let strategy = match kind {
        "Deployment" => &spec["strategy"],
        _ => &spec["updateStrategy"],
    };
    let rolling = |field: &str, default: &str| {
        let value = &strategy["rollingUpdate"][field];
        value
            .as_str()
            .map_or_else(|| value.as_i64().map_or(default.to_owned(), |n| n.to_string()), str::to_owned)
    };
    let pods =
        if kind == "DaemonSet" { "the pod on each node".to_owned() } else { format!("its {}", count(has)) };
    let how = match (kind, strategy["type"].as_str()) {
        (_, Some("Recreate")) => "all end before new ones start".to_owned(),
        (_, Some("OnDelete")) => {
            return Some("replaces a pod only when somebody deletes it (OnDelete)".into());
        }
        ("Deployment", _) => {
            format!(
                "{} unavailable and {} more at most",
                rolling("maxUnavailable", "25%"),
                rolling("maxSurge", "25%")
            )
        }
        ("StatefulSet", _) => "one after the other, from the last".to_owned(),
        _ => format!("{} unavailable at most", rolling("maxUnavailable", "1")),
    };
    Some(format!("replaces {pods}: {how}"))
}

/// What a Delivery would do with a revision that has these inputs: why it would not begin, and what becomes of it. `removes`: how
/// many objects would be removed.
pub fn delivery(
    name: &str,
    spec: &Spec,
    bake: bool,
    waits_for: &[String],
    status: Option<&DeliveryStatus>,
    inputs: &str,
    removes: usize,
) -> Vec<String> {
    let mut out = Vec::new();
    if spec.suspend {
        out.push(format!("nothing is deployed while the Delivery is suspended (`windlass resume {name}`)"));
    }
    let held = status.and_then(|s| s.held.as_ref());
    match held {
        Some(held) if held.revision.inputs == inputs => out.push(format!(
            "this very revision failed before and is held: {}; it is not tried again until it is released (`windlass release \
             {name}`)",
            told(&held.problem)
        )),
        Some(held) => out.push(format!("{} is held; what is newer is tried", held.revision)),
        None => {}
    }
    if let Some(attempt) = status.and_then(|s| s.attempt.as_ref()).filter(|a| a.revision.inputs != inputs) {
        out.push(format!("{} is being put in place, and is overtaken", attempt.revision));
    }
    if !waits_for.is_empty() {
        out.push(format!("begins when {} is ready", waits_for.join(", ")));
    }
    let limit = spec.timeout.unsigned_abs();
    let limit = if limit.as_secs().is_multiple_of(60) {
        format!("{}m", limit.as_secs() / 60)
    } else {
        format!("{}s", limit.as_secs())
    };
    let good = status.and_then(|s| s.effective.as_ref());
    let fails = match (good, spec.rollback) {
        (_, RollbackMode::Off) => "is left in place".to_owned(),
        (Some(good), RollbackMode::Hold) => format!("{good} is brought back and this one is held"),
        (Some(good), RollbackMode::Revert) => {
            format!("{good} is brought back, this one is held, and a commit that takes it back is pushed")
        }
        (None, _) if spec.first_revision == FirstRevision::Remove => {
            "what it made is removed: it is the first revision".to_owned()
        }
        (None, _) => "it is left in place: it is the first revision".to_owned(),
    };
    out.push(format!("has {limit} to become healthy; otherwise {fails}"));
    if removes > 0 {
        let what = if removes == 1 { "1 object is" } else { &format!("{removes} objects are") };
        out.push(format!("{what} removed when all else is healthy"));
    }
    if bake {
        out.push("is watched on after that: health lost meanwhile takes it back (rollback.bake)".into());
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn web(replicas: i64, image: &str, strategy: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "spec": {"replicas": replicas, "strategy": strategy, "template": {"spec": {"containers": [{"image": image}]}}}})
    }

    #[test]
    fn what_becomes_of_pods_is_told_in_words() {
        let rolling =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "50%"}});
        let table = [
            (Value::Null, web(3, "a", Value::Null), Some("starts 3 pods")),
            (web(1, "a", Value::Null), web(1, "a", Value::Null), None),
            (
                web(1, "a", Value::Null),
                web(2, "a", Value::Null),
                Some("scales from 1 to 2, and replaces no pod"),
            ),
            (
                web(2, "a", Value::Null),
                web(2, "b", Value::Null),
                Some("replaces its 2 pods: 25% unavailable and 25% more at most"),
            ),
            (
                web(1, "a", rolling.clone()),
                web(1, "b", rolling),
                Some("replaces its 1 pod: 0 unavailable and 50% more at most"),
            ),
            (
                web(2, "a", Value::Null),
                web(2, "b", json!({"type": "Recreate"})),
                Some("replaces its 2 pods: all end before new ones start"),
            ),
            (Value::Null, json!({"apiVersion": "v1", "kind": "ConfigMap"}), None),
            (Value::Null, json!({"apiVersion": "batch/v1", "kind": "Job"}), Some("runs")),
        ];
        for (before, after, expected) in table {
            assert_eq!(pods(&before, &after).as_deref(), expected, "{before} {after}");
        }
    }

    #[test]
    fn what_becomes_of_a_revision_is_told_in_words() {
        use crate::api::delivery::{DeliverySpec, Held, Problem, Revision};
        let spec: DeliverySpec =
            serde_json::from_value(json!({"source": {"repository": "r", "path": "shop"}})).unwrap();
        let mut spec = Spec::from(&spec);
        let revision = |inputs: &str| Revision {
            branch: "main".into(),
            commit: inputs.repeat(40),
            inputs: inputs.into(),
            ..Revision::default()
        };
        let first = delivery("shop", &spec, false, &[], None, "b", 0);
        assert_eq!(
            first,
            ["has 5m to become healthy; otherwise it is left in place: it is the first revision"]
        );
        let mut status = DeliveryStatus { effective: Some(revision("a")), ..DeliveryStatus::default() };
        let told = |spec: &Spec, status: &DeliveryStatus| {
            delivery("shop", spec, true, &["Delivery base".into()], Some(status), "b", 2).join("\n")
        };
        let text = told(&spec, &status);
        for part in [
            "begins when Delivery base is ready",
            "is brought back and this one is held",
            "2 objects are removed",
            "bake",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("released") && !text.contains("suspended"), "{text}");
        let problem = Problem {
            reason: "Broken".into(),
            object: "Deployment shop/web".into(),
            message: "crashes".into(),
        };
        status.held = Some(Held { revision: revision("b"), problem, since: String::new(), revert: None });
        spec.suspend = true;
        let text = told(&spec, &status);
        assert!(text.contains("`windlass release shop`") && text.contains("crashes"), "{text}");
        assert!(text.contains("`windlass resume shop`"), "{text}");
    }
}
