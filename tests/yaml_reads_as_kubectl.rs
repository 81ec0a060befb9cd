//! Every text of the golden table is read as `sigs.k8s.io/yaml` reads it, document by document. Where it is read
//! otherwise on purpose, the table below says why, and is held to be complete.

use serde_json::Value;
use std::path::Path;
use windlass::render::yaml::{Keep, Limits, parse};

/// Cases that are read otherwise on purpose: name of the file, and why.
const ON_PURPOSE: &[(&str, &str)] = &[];

fn ours(text: &str) -> Result<Vec<Value>, String> {
    let documents = parse(text, Keep::Variables, &Limits::default()).map_err(|e| e.to_string())?;
    Ok(documents.into_iter().map(|d| d.value).filter(|v| !v.is_null()).collect())
}

/// Numbers are equal as what they count: Go writes 1e20 with all its digits.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn every_case_of_the_golden_table_is_read_alike() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/yaml");
    let Ok(expected) = std::fs::read_to_string(dir.join("expected.json")) else {
        eprintln!("SKIPPED: there is no golden table in {}", dir.display());
        return;
    };
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&expected).unwrap();
    assert!(!expected.is_empty());
    let mut wrong = Vec::new();
    for (name, documents) in &expected {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let documents = documents.as_array().unwrap();
        let refused =
            documents.iter().any(|d| d.get("error").is_some_and(|_| d.as_object().unwrap().len() == 1));
        let want: Vec<&Value> = documents.iter().filter(|d| !d.is_null()).collect();
        let ours = ours(&text);
        let alike = match &ours {
            Err(_) => refused,
            Ok(values) => {
                !refused && values.len() == want.len() && values.iter().zip(&want).all(|(a, b)| same(a, b))
            }
        };
        let on_purpose = ON_PURPOSE.iter().any(|(case, _)| case == name);
        if alike == on_purpose {
            wrong.push(format!(
                "{name}: alike {alike}, on purpose {on_purpose}\n  Go:   {want:?}\n  ours: {ours:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), expected.len(), wrong.join("\n"));
    for (name, _) in ON_PURPOSE {
        assert!(expected.contains_key(*name), "{name} is not in the golden table");
    }
}
