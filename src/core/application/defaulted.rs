//! What an Application did not say, and is so all the same.

use crate::api::application::ApplicationSpec;
use serde_json::Value;
use std::fmt;

/// A field that was left out, and the value that it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaulted {
    /// The field, which changes it.
    pub path: String,
    /// Its value.
    pub value: Value,
}

impl fmt::Display for Defaulted {
    /// `spec.security.runAsNonRoot: true`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.value)
    }
}

/// The fields of an Application that its document leaves out and that have a value, in the order of their names.
///
/// It reads the document rather than the expansion: every default is a field, so none can be missing here.
pub fn defaulted(document: &Value, spec: &ApplicationSpec) -> Vec<Defaulted> {
    let mut found = Vec::new();
    let spec = super::value(&super::completed(spec.clone()));
    compare(&document["spec"], &spec, "spec", &mut found);
    found
}

fn compare(said: &Value, is: &Value, path: &str, found: &mut Vec<Defaulted>) {
    match is {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                compare(&said[name.as_str()], value, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) if said.is_array() => {
            for (at, item) in items.iter().enumerate() {
                compare(&said[at], item, &format!("{path}[{at}]"), found);
            }
        }
        value if said.is_null() => found.push(Defaulted { path: path.into(), value: value.clone() }),
        _ => {}
    }
}
