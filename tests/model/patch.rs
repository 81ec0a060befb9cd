//! JSON patches (RFC 6902) and merge patches (RFC 7386).

use serde_json::{Map, Value};

/// What a merge patch makes of a value.
pub fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Some(fields) = value.as_object_mut() else { return };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Why a JSON patch failed.
pub enum Failed {
    /// An operation could not be carried out, or a test failed.
    Operation(String),
    /// It is no patch.
    Malformed(String),
}

/// What a JSON patch makes of a value.
pub fn json(value: &mut Value, patch: &Value) -> Result<(), Failed> {
    let Some(operations) = patch.as_array() else { return Err(Failed::Malformed("not a list".into())) };
    for operation in operations {
        let text = |name: &str| operation[name].as_str().unwrap_or_default();
        let path = text("path");
        let missing = |verb: &str| {
            let said =
                format!("{verb} operation does not apply: doc is missing path: {path:?}: missing value");
            Failed::Operation(said)
        };
        match text("op") {
            "add" => add(value, path, operation["value"].clone()).ok_or_else(|| missing("add"))?,
            "remove" => drop(remove(value, path).ok_or_else(|| missing("remove"))?),
            // In a map it sets what is not there as well: the server's library does.
            "replace" => {
                let new = operation["value"].clone();
                let (parent, last) = path.rsplit_once('/').unwrap_or_default();
                match value.pointer_mut(parent) {
                    Some(Value::Object(fields)) if !path.is_empty() => drop(fields.insert(token(last), new)),
                    _ => *value.pointer_mut(path).ok_or_else(|| missing("replace"))? = new,
                }
            }
            "test" => {
                let found = value.pointer(path).unwrap_or(&Value::Null);
                if *found != operation["value"] {
                    return Err(Failed::Operation(format!("testing value {path} failed: test failed")));
                }
            }
            "move" => {
                let moved = remove(value, text("from")).ok_or_else(|| missing("move"))?;
                add(value, path, moved).ok_or_else(|| missing("move"))?;
            }
            "copy" => {
                let copied = value.pointer(text("from")).cloned().ok_or_else(|| missing("copy"))?;
                add(value, path, copied).ok_or_else(|| missing("copy"))?;
            }
            other => return Err(Failed::Malformed(format!("Unexpected kind: {other}"))),
        }
    }
    Ok(())
}

fn token(text: &str) -> String {
    text.replace("~1", "/").replace("~0", "~")
}

fn add(value: &mut Value, path: &str, new: Value) -> Option<()> {
    let Some((parent, last)) = path.rsplit_once('/') else {
        *value = new;
        return Some(());
    };
    match value.pointer_mut(parent)? {
        Value::Object(fields) => drop(fields.insert(token(last), new)),
        Value::Array(items) if last == "-" => items.push(new),
        Value::Array(items) => {
            let index = last.parse::<usize>().ok().filter(|i| *i <= items.len())?;
            items.insert(index, new);
        }
        _ => return None,
    }
    Some(())
}

fn remove(value: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = path.rsplit_once('/')?;
    match value.pointer_mut(parent)? {
        Value::Object(fields) => fields.remove(&token(last)),
        Value::Array(items) => {
            let index = last.parse::<usize>().ok().filter(|i| *i < items.len())?;
            Some(items.remove(index))
        }
        _ => None,
    }
}
