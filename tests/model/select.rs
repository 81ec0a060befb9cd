//! Label and field selectors.

use serde_json::{Map, Value};

/// Which objects are meant.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    There,
    Missing,
}

impl Selector {
    /// From the query's texts.
    pub fn parse(labels: &str, fields: &str) -> Result<Selector, String> {
        let mut out = Selector::default();
        for part in parts(labels) {
            out.labels.push(requirement(part.trim())?);
        }
        for part in fields.split(',').filter(|p| !p.is_empty()) {
            let (name, same, value) = match (part.split_once("!="), part.split_once('=')) {
                (Some((name, value)), _) => (name, false, value),
                (_, Some((name, value))) => (name, true, value.trim_start_matches('=')),
                _ => return Err(format!("invalid selector: {fields:?}; can't understand {part:?}")),
            };
            out.fields.push((name.trim().into(), same, value.trim().into()));
        }
        Ok(out)
    }

    /// A `LabelSelector` of a workload.
    pub fn of_workload(selector: &Value) -> Selector {
        let mut out = Selector::default();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            out.labels.push((key.clone(), Test::In(vec![value.as_str().unwrap_or_default().into()])));
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_string).collect();
            let test = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::There,
                _ => Test::Missing,
            };
            out.labels.push((expression["key"].as_str().unwrap_or_default().into(), test));
        }
        out
    }

    /// Whether it means everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether labels fit.
    pub fn fits_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.labels.iter().all(|(key, test)| {
            let value = labels.and_then(|l| l.get(key)).and_then(Value::as_str);
            match test {
                Test::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
                Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
                Test::There => value.is_some(),
                Test::Missing => value.is_none(),
            }
        })
    }

    /// Whether an object is meant.
    pub fn fits(&self, object: &Value) -> bool {
        self.fits_labels(object["metadata"]["labels"].as_object())
            && self.fields.iter().all(|(path, same, wanted)| {
                let found = path.split('.').try_fold(object, |value, name| value.get(name));
                (found.and_then(Value::as_str).unwrap_or_default() == wanted) == *same
            })
    }
}

/// Parts between commas that are not in parentheses.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .filter(|part| !part.is_empty())
}

fn requirement(part: &str) -> Result<(String, Test), String> {
    let values = |text: &str| -> Vec<String> {
        text.trim()
            .trim_start_matches('(')
            .trim_end_matches(')')
            .split(',')
            .map(|v| v.trim().into())
            .collect()
    };
    if let Some((key, list)) = part.split_once(" notin ") {
        return Ok((key.trim().into(), Test::NotIn(values(list))));
    }
    if let Some((key, list)) = part.split_once(" in ") {
        return Ok((key.trim().into(), Test::In(values(list))));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok((key.trim().into(), Test::NotIn(vec![value.trim().into()])));
    }
    if let Some((key, value)) = part.split_once('=') {
        return Ok((key.trim().into(), Test::In(vec![value.trim_start_matches('=').trim().into()])));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok((key.trim().into(), Test::Missing)),
        None => Ok((part.into(), Test::There)),
    }
}
