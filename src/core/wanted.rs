//! A live object with its drifted fields as Git wants them, from what the DriftReport tells.
//!
//! The report names what differs and nothing else: the rest of the object is as it stands. Values that the report had to cut come
//! from the manifest; without it they stay cut, and are marked so.

use crate::api::drift_report::{DriftedField, DriftedObject};
use crate::core::drift::drift;
use crate::core::ignore::pointer;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Ends a value that the report had to cut.
const CUT: char = '…';

/// Whether the report had to cut a value of an object.
pub fn is_cut(drifted: &DriftedObject) -> bool {
    drifted.fields.iter().any(|f| is_cut_value(f.desired.as_deref()))
}

fn is_cut_value(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.ends_with(CUT) && serde_json::from_str::<Value>(text).is_err())
}

/// The object as Git wants it. `manifest`: what Git has of it, where that could be read.
pub fn as_wanted(live: &Value, drifted: &DriftedObject, manifest: Option<&Value>) -> Value {
    let found = manifest.map(|manifest| drift(manifest, Some(live)));
    let whole: BTreeMap<String, Option<Value>> = found
        .iter()
        .flat_map(|found| found.fields())
        .map(|f| (pointer(&f.path), f.desired.clone()))
        .collect();
    let mut fields: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for field in &drifted.fields {
        let cut = is_cut_value(field.desired.as_deref());
        let known = whole.get(&field.pointer).filter(|_| cut).cloned();
        fields.insert(field.pointer.clone(), known.unwrap_or_else(|| desired(field)));
    }
    let mut wanted = live.clone();
    for (pointer, desired) in fields {
        let steps: Vec<String> =
            pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
        if !steps.is_empty() {
            put(&mut wanted, &steps, desired.as_ref());
        }
    }
    wanted
}

fn desired(field: &DriftedField) -> Option<Value> {
    // What was cut or redacted is no JSON any more.
    field
        .desired
        .as_ref()
        .map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str())))
}

fn put(at: &mut Value, steps: &[String], desired: Option<&Value>) {
    let Some((step, rest)) = steps.split_first() else {
        match (desired, &*at) {
            // The order of items, told by their keys.
            (Some(Value::Array(keys)), Value::Array(items)) if is_order(keys, items) => {}
            (Some(value), _) => *at = value.clone(),
            (None, _) => {}
        }
        return;
    };
    if at.is_null() && desired.is_some() {
        *at = Value::Object(Map::new());
    }
    match at {
        Value::Object(fields) => match (rest.is_empty(), desired) {
            (true, None) => drop(fields.remove(step)),
            (_, None) if !fields.contains_key(step) => {}
            _ => put(fields.entry(step.clone()).or_insert(Value::Null), rest, desired),
        },
        Value::Array(items) => match (items.iter().position(|item| meets(item, step)), desired) {
            (Some(place), None) if rest.is_empty() => drop(items.remove(place)),
            (Some(place), _) => put(&mut items[place], rest, desired),
            (None, Some(value)) if rest.is_empty() => items.push(value.clone()),
            (None, _) => {}
        },
        _ => {}
    }
}

fn is_order(keys: &[Value], items: &[Value]) -> bool {
    keys.len() <= items.len()
        && items.iter().any(Value::is_object)
        && keys.iter().all(|key| match key {
            Value::Object(parts) => items.iter().any(|i| parts.iter().all(|(k, v)| i.get(k) == Some(v))),
            key => items.iter().any(|i| i.as_object().is_some_and(|i| i.values().any(|v| v == key))),
        })
}

/// Whether a step of a pointer names an item: by its keys (`name=web`), or by itself.
fn meets(item: &Value, step: &str) -> bool {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match item {
        Value::Object(fields) => step.split(',').all(|pair| {
            pair.split_once('=')
                .is_some_and(|(key, value)| fields.get(key).is_some_and(|v| plain(v) == value))
        }),
        item => plain(item) == step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_field_is_put_back_where_it_stands() {
        let live = json!({"metadata": {"name": "web"}, "spec": {"replicas": 5, "paused": true, "containers": [
            {"name": "proxy", "image": "proxy:1"}, {"name": "web", "image": "web:2", "args": ["a"]}]}});
        let field = |pointer: &str, desired: Option<&str>| DriftedField {
            pointer: pointer.into(),
            desired: desired.map(Into::into),
            ..DriftedField::default()
        };
        let fields = vec![
            field("/spec/replicas", Some("1")),
            field("/spec/paused", None),
            field("/spec/containers/name=web/image", Some("\"web:1\"")),
            field("/spec/containers/name=log", Some("{\"name\":\"log\"}")),
            field("/metadata/annotations/a~1b", Some("\"long…")),
            field("/spec/containers", Some("[\"web\",\"proxy\"]")),
            field("/spec/nothing/there", None),
        ];
        assert_eq!(
            as_wanted(&live, &DriftedObject { fields, ..DriftedObject::default() }, None),
            json!({"metadata": {"name": "web", "annotations": {"a/b": "\"long…"}}, "spec": {"replicas": 1, "containers": [
                {"name": "proxy", "image": "proxy:1"}, {"name": "web", "image": "web:1", "args": ["a"]}, {"name": "log"}]}})
        );
    }

    #[test]
    fn what_the_report_had_to_cut_comes_from_git() {
        let long = |end: &str| format!("{}{end}", "line\n".repeat(100));
        let config = |value: String| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "it"}, "data": {"a": value, "b": "2"}});
        let mut live = config(long("by hand"));
        live["data"]["b"] = json!("3");
        let cut = DriftedField {
            pointer: "/data/a".into(),
            desired: Some(format!("\"{}…", &long("")[..250])),
            ..DriftedField::default()
        };
        let drifted = DriftedObject { fields: vec![cut], ..DriftedObject::default() };
        assert!(is_cut(&drifted));
        let wanted = as_wanted(&live, &drifted, Some(&config(long("end"))));
        assert_eq!(wanted["data"], json!({"a": long("end"), "b": "3"}), "b is left to somebody");
    }
}
