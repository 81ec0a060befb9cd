//! `${NAME}` and `${NAME:-default}` in the strings of objects.
//!
//! Values are put into parsed strings, never into YAML text, so no value can add a field. A string written without
//! quotes is read again afterwards as YAML reads a scalar, so that `replicas: ${REPLICAS}` becomes a number;
//! one in quotes stays text. `$${` stands for `${`. A `${` that no name follows (`${1}`, `${#list}`) is left alone.
//! A default applies to a name that is unset or empty, as in a shell. What a value holds is not looked at again.

use super::Draft;
use super::error::RenderError;
use super::yaml::{self, Marks};
use crate::api::names;
use crate::core::tree::Origin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// What variables stand for: merged from values, ConfigMaps and Secrets. Its `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Substitutions {
    /// Values by name.
    pub values: BTreeMap<String, String>,
}

impl fmt::Debug for Substitutions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// Why a string cannot be substituted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    Unset(String),
    Malformed(String),
}

/// Replaces the variables of an object, unless it is annotated otherwise.
pub(super) fn apply(draft: &mut Draft, substitutions: &Substitutions) -> Result<(), RenderError> {
    let off = draft.value["metadata"]["annotations"][names::SUBSTITUTE] == "disabled";
    if off || draft.marks.is_empty() {
        return Ok(());
    }
    let object = describe(&draft.value);
    let marks = std::mem::take(&mut draft.marks);
    let mut path = Vec::new();
    let result = walk(&mut draft.value, &marks, substitutions, &mut path);
    draft.marks = marks;
    result.map_err(|(failure, line)| {
        let origin = Origin { file: draft.origin.file.clone(), line: line.unwrap_or(draft.origin.line) };
        let field = field(&path);
        match failure {
            Failure::Unset(name) => RenderError::Unset { origin, object, field, name },
            Failure::Malformed(name) => RenderError::Malformed { origin, object, field, name },
        }
    })
}

fn walk(
    value: &mut Value,
    marks: &Marks,
    substitutions: &Substitutions,
    path: &mut Vec<Segment>,
) -> Result<(), (Failure, Option<usize>)> {
    if let (Value::String(text), Some(mark)) = (&mut *value, marks.own()) {
        let new = expand(text, substitutions).map_err(|f| (f, (mark.line > 0).then_some(mark.line)))?;
        *value = match new {
            Some(new) if mark.plain => yaml::plain_scalar(&new),
            Some(new) => Value::String(new),
            None => return Ok(()),
        };
        return Ok(());
    }
    for (segment, below) in marks.branches() {
        let (child, step) = match &mut *value {
            Value::Object(map) => (map.get_mut(segment), Segment::Key(segment.to_owned())),
            Value::Array(items) => {
                let Ok(i) = segment.parse::<usize>() else { continue };
                (items.get_mut(i), Segment::Index(i))
            }
            _ => continue,
        };
        let Some(child) = child else { continue };
        path.push(step);
        walk(child, below, substitutions, path)?;
        path.pop();
    }
    Ok(())
}

#[derive(Debug)]
enum Segment {
    Key(String),
    Index(usize),
}

/// `spec.containers[0].image`.
fn field(path: &[Segment]) -> String {
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Index(i) => out.push_str(&format!("[{i}]")),
            Segment::Key(key) if key.contains(['.', '/']) => out.push_str(&format!("[\"{key}\"]")),
            Segment::Key(key) if out.is_empty() => out.push_str(key),
            Segment::Key(key) => out.push_str(&format!(".{key}")),
        }
    }
    out
}

fn describe(value: &Value) -> String {
    let kind = value["kind"].as_str().unwrap_or("object");
    let name = value["metadata"]["name"].as_str().unwrap_or("without name");
    match value["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// The text with its variables replaced; `None` when it holds nothing to replace.
fn expand(text: &str, substitutions: &Substitutions) -> Result<Option<String>, Failure> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            changed = true;
            continue;
        }
        out.push_str(before);
        let inner = &from[2..];
        let name_end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
        let (name, tail) = inner.split_at(name_end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            out.push_str("${");
            rest = inner;
            continue;
        }
        let value = substitutions.values.get(name).map(String::as_str);
        if let Some(after) = tail.strip_prefix('}') {
            out.push_str(value.ok_or_else(|| Failure::Unset(name.to_owned()))?);
            rest = after;
        } else if let Some((default, after)) = tail.strip_prefix(":-").and_then(|t| t.split_once('}')) {
            out.push_str(value.filter(|v| !v.is_empty()).unwrap_or(default));
            rest = after;
        } else {
            return Err(Failure::Malformed(name.to_owned()));
        }
        changed = true;
    }
    out.push_str(rest);
    Ok(changed.then_some(out))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::render::yaml::{Keep, Limits, parse};
    use proptest::prelude::*;
    use serde_json::json;

    fn with(values: &[(&str, &str)]) -> Substitutions {
        Substitutions { values: values.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect() }
    }

    fn draft(text: &str) -> Draft {
        let document = parse(text, Keep::Variables, &Limits::default()).unwrap().remove(0);
        let origin = Origin { file: "a.yaml".into(), line: document.line };
        Draft { value: document.value, marks: document.strings, origin }
    }

    #[test]
    fn texts_are_replaced() {
        let values = with(&[("A", "1"), ("_b2", "${A}"), ("EMPTY", "")]);
        for (text, want) in [
            ("x", None),
            ("${A}", Some("1")),
            ("x${A}y${A}", Some("x1y1")),
            ("${_b2}", Some("${A}")),
            ("${EMPTY}", Some("")),
            ("${EMPTY:-d}", Some("d")),
            ("${NOT:-d e:f}", Some("d e:f")),
            ("${NOT:-}", Some("")),
            ("$${A}", Some("${A}")),
            ("$$${A}", Some("$${A}")),
            ("$${A} ${A}", Some("${A} 1")),
            ("$A $(A) ${1} ${#x} ${", None),
        ] {
            assert_eq!(expand(text, &values).unwrap().as_deref(), want, "{text}");
        }
        assert_eq!(expand("${NOT}", &values), Err(Failure::Unset("NOT".into())));
        for text in ["${A", "${A:=x}", "${A:-x", "${A%x}"] {
            assert_eq!(expand(text, &values), Err(Failure::Malformed("A".into())), "{text}");
        }
    }

    #[test]
    fn a_plain_scalar_is_read_again_and_a_quoted_one_is_text() {
        let values = with(&[("N", "3"), ("T", "on"), ("EVIL", "1\nkind: Secret")]);
        let mut d = draft(
            "a: ${N}\nb: '${N}'\nc: ${T}\nd: ${N}0\ne: x${N}\nf: ${EVIL}\ng: |\n  ${N}\nh: [\"${N}\"]\n",
        );
        apply(&mut d, &values).unwrap();
        assert_eq!(
            d.value,
            json!({"a": 3, "b": "3", "c": true, "d": 30, "e": "x3", "f": "1\nkind: Secret", "g": "3\n", "h": ["3"]})
        );
    }

    #[test]
    fn an_object_can_switch_it_off() {
        let text = format!("metadata: {{annotations: {{{}: disabled}}}}\na: ${{X}}\n", names::SUBSTITUTE);
        let mut d = draft(&text);
        apply(&mut d, &with(&[])).unwrap();
        assert_eq!(d.value["a"], "${X}");
    }

    #[test]
    fn an_unset_name_says_object_field_and_line_and_no_value() {
        let mut d = draft(
            "kind: Pod\nmetadata: {name: web, namespace: shop}\nspec:\n  containers:\n  - image: ${A}${B}\n",
        );
        let error = apply(&mut d, &with(&[("A", "s3cret")])).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "a.yaml:5: Pod shop/web: spec.containers[0].image names ${B}, which has no value"
            ),
            "{error}"
        );
        assert!(!error.contains("s3cret"));
        assert_eq!(format!("{:?}", with(&[("A", "s3cret")])), "{\"A\"}");
    }

    proptest! {
        #[test]
        fn text_without_variables_is_left_alone(text in "[a-z$ }:{-]{0,30}") {
            prop_assume!(!text.contains("${"));
            prop_assert_eq!(expand(&text, &with(&[])), Ok(None));
        }

        #[test]
        fn an_escaped_text_comes_back(text in "\\PC{0,30}") {
            prop_assume!(!text.contains("$"));
            let escaped = format!("$${{{text}");
            prop_assert_eq!(expand(&escaped, &with(&[])), Ok(Some(format!("${{{text}"))));
        }
    }
}
