//! Reading an Application from a manifest: every field is known, there where it must be, and of its type.
//!
//! What the schema says is checked here by itself, since the API server has not seen the document: a field that is misspelt would
//! be dropped without a word otherwise, and an error of the types names no field.

use super::error::{ApplicationError, Invalid};
use crate::api::Application;
use crate::api::application::definition;
use crate::api::names::GROUP;
use crate::core::expression::Expression;
use crate::core::manifest::Gvk;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Made once: it takes longer than to check a document.
static DEFINITION: LazyLock<Value> = LazyLock::new(definition);

/// Whether a document says that it is an Application, of whatever version.
pub fn is_application(document: &Value) -> bool {
    let text = |field: &str| document[field].as_str().unwrap_or_default();
    let gvk = Gvk::new(text("apiVersion"), text("kind"));
    gvk.group == GROUP && gvk.kind == "Application"
}

/// Reads an Application. Fields that are null count as left out, as the API server has it.
pub fn read(document: &Value) -> Result<Application, Invalid> {
    let mut document = document.clone();
    without_nulls(&mut document);
    let errors = check(&document);
    let invalid = |errors| {
        let name = document["metadata"]["name"].as_str().unwrap_or("without a name");
        let namespace = document["metadata"]["namespace"].as_str().map(|n| format!("{n}/"));
        let application = format!("Application {}{name}", namespace.unwrap_or_default());
        Invalid { application, errors }
    };
    if !errors.is_empty() {
        return Err(invalid(errors));
    }
    serde_json::from_value(document.clone()).map_err(|error| {
        let problem = format!("cannot be read: {error}");
        invalid(vec![ApplicationError::Value { path: "spec".into(), problem }])
    })
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn check(document: &Value) -> Vec<ApplicationError> {
    let version = &DEFINITION["spec"]["versions"][0];
    let api = document["apiVersion"].as_str().unwrap_or_default();
    if Some(api) != version["name"].as_str().map(|name| format!("{GROUP}/{name}")).as_deref() {
        return vec![ApplicationError::Version(api.into())];
    }
    let mut errors = Vec::new();
    let fields = document.as_object().into_iter().flat_map(|map| map.keys());
    for field in
        fields.filter(|f| !["apiVersion", "kind", "metadata", "spec", "status"].contains(&f.as_str()))
    {
        errors
            .push(ApplicationError::Unknown { path: field.clone(), nearest: Some(format!("spec.{field}")) });
    }
    let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    match document.get("spec") {
        Some(spec) => field(spec, schema, "spec", &mut errors),
        None => errors.push(ApplicationError::Missing { path: "spec".into() }),
    }
    errors
}

/// Checks a value against its part of the schema.
fn field(value: &Value, schema: &Value, path: &str, errors: &mut Vec<ApplicationError>) {
    if let Some(problem) = wrong_type(value, schema).or_else(|| wrong_value(value, schema)) {
        errors.push(ApplicationError::Value { path: path.into(), problem });
        return;
    }
    // What any value fits is looked at by whoever reads it.
    if schema["x-kubernetes-preserve-unknown-fields"] == true && !schema["properties"].is_object() {
        return;
    }
    match value {
        Value::Object(map) => {
            let known = schema["properties"].as_object();
            for (name, below) in map {
                let path = format!("{path}.{name}");
                if let Some(schema) = known.and_then(|known| known.get(name)) {
                    field(below, schema, &path, errors);
                } else if schema["additionalProperties"].is_object() {
                    field(below, &schema["additionalProperties"], &path, errors);
                } else {
                    let names = known.into_iter().flat_map(|known| known.keys());
                    errors.push(ApplicationError::Unknown { path, nearest: nearest(name, names) });
                }
            }
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for name in required.filter(|name| !map.contains_key(*name)) {
                errors.push(ApplicationError::Missing { path: format!("{path}.{name}") });
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                field(item, &schema["items"], &format!("{path}[{at}]"), errors);
            }
        }
        _ => {}
    }
}

/// Why a value is not of the type that the schema says. Values are not quoted: they may be secret.
fn wrong_type(value: &Value, schema: &Value) -> Option<String> {
    let is = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    };
    if schema["x-kubernetes-int-or-string"] == true {
        let fits = value.is_string() || value.is_i64() || value.is_u64();
        let hint = if value.is_number() { "; put it in quotes" } else { "" };
        return (!fits).then(|| format!("is {is}, and must be a whole number or text{hint}"));
    }
    let (fits, wanted) = match schema["type"].as_str() {
        Some("object") => (value.is_object(), "a mapping"),
        Some("array") => (value.is_array(), "a list"),
        Some("string") => (value.is_string(), "text"),
        Some("boolean") => (value.is_boolean(), "true or false"),
        Some("integer") => (value.is_i64() || value.is_u64(), "a whole number"),
        Some("number") => (value.is_number(), "a number"),
        _ => return None,
    };
    let quote = wanted == "text" && (value.is_number() || value.is_boolean());
    let hint = if quote { "; put it in quotes" } else { "" };
    (!fits).then(|| format!("is {is}, and must be {wanted}{hint}"))
}

/// Why a value of the right type is not one that the schema allows.
fn wrong_value(value: &Value, schema: &Value) -> Option<String> {
    if let Some(known) = schema["enum"].as_array() {
        let names: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
        return (!known.contains(value)).then(|| format!("must be one of {}", names.join(", ")));
    }
    let bound = |name: &str| schema[name].as_f64();
    match value {
        Value::Number(number) => {
            let number = number.as_f64()?;
            let least = bound("minimum").filter(|least| number < *least);
            let most = bound("maximum").filter(|most| number > *most);
            least
                .map(|least| format!("is {number}, and must be {least} at least"))
                .or_else(|| most.map(|most| format!("is {number}, and can be {most} at most")))
        }
        Value::String(text) => {
            let letters = text.chars().count() as f64;
            let short = bound("minLength").filter(|least| letters < *least);
            let long = bound("maxLength").filter(|most| letters > *most);
            match (short, long) {
                (Some(1.0), _) => Some("is empty".into()),
                (Some(least), _) => Some(format!("must have {least} letters at least")),
                (_, Some(most)) => Some(format!("can have {most} letters at most")),
                _ => {
                    let pattern = schema["pattern"].as_str().filter(|pattern| !matches(text, pattern));
                    pattern.map(|pattern| format!("does not match {pattern}"))
                }
            }
        }
        Value::Array(items) => {
            let most = bound("maxItems").filter(|most| items.len() as f64 > *most);
            most.map(|most| format!("can have {most} items at most"))
        }
        _ => None,
    }
}

/// Whether a text matches a pattern, as CEL has it: both are RE2's.
fn matches(text: &str, pattern: &str) -> bool {
    let expression = Expression::parse("object.text.matches(object.pattern)");
    let holds =
        expression.and_then(|expression| expression.holds(&json!({"text": text, "pattern": pattern})));
    // A pattern that cannot be tried is for the API server to try.
    holds.unwrap_or(true)
}

/// The name that somebody may have meant.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    let distance = |known: &String| strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
    let best = names.map(|known| (distance(known), known)).min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, _)| *distance <= 2.max(name.len() / 3)).map(|(_, known)| known.clone())
}
