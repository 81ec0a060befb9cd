//! Every text of the golden table is read as `sigs.k8s.io/yaml` reads it, document by document. Where it is read
//! otherwise on purpose, the table below says why, and is held to be complete.

use serde_json::Value;
use std::path::Path;
use windlass::render::yaml::{Keep, Limits, parse};

/// Cases that are read otherwise on purpose: name of the file, and why.
const ON_PURPOSE: &[(&str, &str)] = &[
    // Strictness takes a key that overrides a merged one for a duplicate; overriding is what merges are for. These are
    // held to what the lenient reader says.
    ("merge-list-inline.yaml", "override"),
    ("merge-list.yaml", "override"),
    ("merge-not-deep.yaml", "override"),
    ("merge-override.yaml", "override"),
    ("merge-same-key-twice.yaml", "override"),
    // Go splits a file at lines before it knows of YAML.
    ("document-content-after-marker.yaml", "`--- {a: 1}` is YAML"),
    ("document-content-after-second-marker.yaml", "`--- {a: 1}` is YAML"),
    ("document-end-marker-only.yaml", "a file of `...` is empty"),
    ("document-end-marker-then-more.yaml", "Go drops what follows `...` without a word"),
    ("document-json-stream.yaml", "Go drops the second object without a word"),
    ("document-bom-in-second.yaml", "a byte order mark within a file is refused"),
    ("document-yaml-directive.yaml", "directives are YAML"),
    ("document-yaml-directive-1-2.yaml", "directives are YAML"),
    ("document-unknown-directive.yaml", "directives are YAML"),
    ("tag-percent-directive.yaml", "directives are YAML"),
    ("key-block-scalar.yaml", "a key over several lines is refused"),
    ("string-surrogate-escapes.yaml", "JSON has these escapes"),
    ("string-yaml-escapes.yaml", "JSON has `\\/`"),
    ("tab-empty-line.yaml", "a tab in an otherwise empty line indents nothing"),
    ("tag-binary-not-text.yaml", "Go changes the data"),
];

fn ours(text: &str) -> Result<Vec<Value>, String> {
    let documents = parse(text, Keep::Variables, &Limits::default()).map_err(|e| e.to_string())?;
    Ok(documents.into_iter().map(|d| d.value).filter(|v| !v.is_null()).collect())
}

/// Numbers are equal as what they count: Go writes 1e20 with all its digits, and the last bit of a float can get lost where
/// the table itself is read.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (x, y) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a.is_f64() || b.is_f64()) && (x - y).abs() <= x.abs() * f64::EPSILON
        }
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
    let expected = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&expected).unwrap();
    assert!(!expected.is_empty());
    let mut wrong = Vec::new();
    for (name, case) in &expected {
        let bytes = std::fs::read(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ours = String::from_utf8(bytes).map_err(|e| e.to_string()).and_then(|text| ours(&text));
        let want: Option<Vec<&Value>> =
            case.get("documents").map(|d| d.as_array().unwrap().iter().filter(|d| !d.is_null()).collect());
        assert_eq!(want.is_none(), case.get("error").is_some(), "{name}");
        let alike = match (&ours, &want) {
            (Err(_), None) => true,
            (Ok(ours), Some(want)) => {
                ours.len() == want.len() && ours.iter().zip(want).all(|(a, b)| same(a, b))
            }
            _ => false,
        };
        if let (Ok(ours), Some(lenient)) = (&ours, case.get("lenient")) {
            let lenient = lenient.as_array().unwrap();
            let alike = ours.len() == lenient.len() && ours.iter().zip(lenient).all(|(a, b)| same(a, b));
            assert!(alike, "{name}: {case}\n{ours:?}");
        }
        let on_purpose = ON_PURPOSE.iter().any(|(case, _)| case == name);
        if alike == on_purpose {
            wrong.push(format!(
                "{name}: alike {alike}, on purpose {on_purpose}\n  Go:   {case}\n  ours: {ours:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), expected.len(), wrong.join("\n"));
    for (name, _) in ON_PURPOSE {
        assert!(expected.contains_key(*name), "{name} is not in the golden table");
    }
}
