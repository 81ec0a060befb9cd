//! Whether pods can stay when the workload that has them is adopted.

use super::diff::{FieldChange, changes_between};
use super::fields::{Path, Segment};
use super::removal::without;
use serde_json::{Value, json};

/// Kinds of `apps` that replace their pods when their template changes.
const WORKLOADS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// Differences that are named; the others are counted.
const NAMED: usize = 8;

/// Letters of a value that are shown.
const SHOWN: usize = 80;

/// Whether an object is a workload that replaces its pods when their template changes.
pub fn is_workload(object: &Value) -> bool {
    let group = object["apiVersion"].as_str().and_then(|api| api.split_once('/')).map(|(group, _)| group);
    group == Some("apps") && WORKLOADS.iter().any(|kind| object["kind"] == *kind)
}

/// Why the pods of a workload would be replaced by its adoption, with what differs; `None` where they stay.
///
/// `there` is what stands there, and `tried` what the API server would make of it, both with the server's defaults; `released`
/// is taken out of it before. The order of a list counts: what is equal but for that is another template, too.
pub fn restarts(there: &Value, tried: &Value, released: &[Path]) -> Option<String> {
    if !is_workload(there) {
        return None;
    }
    let after = without(tried, released);
    let template = |object: &Value| object["spec"]["template"].clone();
    if template(there) == template(&after) {
        return None;
    }
    // With the entries of the managers, which tell lists with keys from others.
    let with_template = |object: &Value| {
        json!({
            "metadata": {"managedFields": object["metadata"]["managedFields"]},
            "spec": {"template": template(object)},
        })
    };
    let changes = changes_between(&with_template(there), &with_template(&after));
    let mut lines: Vec<String> = changes.iter().take(NAMED).map(line).collect();
    if changes.len() > NAMED {
        lines.push(format!("{} more", changes.len() - NAMED));
    }
    if lines.is_empty() {
        lines.push("the order of a list".into());
    }
    Some(lines.join("; "))
}

fn line(change: &FieldChange) -> String {
    // People put passwords there, though they should not.
    let hidden = change.path.segments().iter().any(|s| *s == Segment::field("env"));
    let value = |value: &Option<Value>| match value {
        None => "nothing".to_owned(),
        Some(_) if hidden => "(a value)".to_owned(),
        Some(Value::String(text)) => shortened(text),
        Some(value) => shortened(&value.to_string()),
    };
    let (is, wanted) = (value(&change.live), value(&change.desired));
    let (is, wanted) = if is == wanted { (is, "another one".to_owned()) } else { (is, wanted) };
    format!("{} is {is} and would be {wanted}", change.path)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some(_) => text.chars().take(SHOWN - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn deployment(image: &str, env: Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [
                {"name": "web", "image": image, "env": env},
            ]}}},
        })
    }

    #[test]
    fn only_another_template_replaces_pods() {
        let there = deployment("web:1", json!([]));
        let mut scaled = there.clone();
        scaled["spec"]["replicas"] = json!(4);
        scaled["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(restarts(&there, &scaled, &[]), None);
        let told = restarts(&there, &deployment("web:2", json!([])), &[]).unwrap();
        assert_eq!(told, "spec.template.spec.containers[name=web].image is web:1 and would be web:2");
        let mut config_map = there.clone();
        config_map["kind"] = json!("ConfigMap");
        assert_eq!(restarts(&config_map, &deployment("web:2", json!([])), &[]), None);
    }

    #[test]
    fn what_is_released_counts_and_values_of_variables_are_not_told() {
        let there = deployment("web:1", json!([{"name": "PASSWORD", "value": "hush"}]));
        let path = Path(
            [
                "f:spec",
                "f:template",
                "f:spec",
                "f:containers",
                r#"k:{"name":"web"}"#,
                "f:env",
                r#"k:{"name":"PASSWORD"}"#,
            ]
            .iter()
            .map(|key| Segment::decode(key).unwrap())
            .collect(),
        );
        assert_eq!(restarts(&there, &there, &[]), None);
        let told = restarts(&there, &there, &[path]).unwrap();
        assert!(told.contains("PASSWORD") && !told.contains("hush"), "{told}");
        let other = deployment("web:1", json!([{"name": "PASSWORD", "value": "silence"}]));
        let told = restarts(&there, &other, &[]).unwrap();
        assert!(told.ends_with("is (a value) and would be another one"), "{told}");
    }

    #[test]
    fn many_differences_are_counted() {
        let env = |value: &str| (0..20).map(|n| json!({"name": format!("V{n}"), "value": value})).collect();
        let told = restarts(&deployment("a", env("1")), &deployment("a", env("2")), &[]).unwrap();
        assert!(told.ends_with("; 12 more"), "{told}");
    }
}
