//! Label selectors as `kubectl -l` takes them: `app=web,tier in (a, b),!old`.

use serde_json::{Map, Value};

/// A label selector: all of its requirements must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no part of a label selector; it takes key=value, key!=value, key in (a, b), key notin (a, b), key and !key"
)]
pub struct SelectorError(String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// `None`: any value.
    values: Option<Vec<String>>,
    /// Whether it must not be met.
    not: bool,
}

impl Selector {
    /// Reads a selector.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parts(text).into_iter().map(requirement).collect::<Result<_, _>>().map(Selector)
    }

    /// Whether an object with these labels is meant. As in Kubernetes, `!=` and `notin` are met by an object without the label.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.0.iter().all(|wanted| {
            let found = labels.and_then(|l| l.get(&wanted.key)).and_then(Value::as_str);
            let met = match &wanted.values {
                None => found.is_some(),
                Some(values) => found.is_some_and(|found| values.iter().any(|v| v == found)),
            };
            met != wanted.not
        })
    }
}

/// The text between commas that are not in brackets.
fn parts(text: &str) -> Vec<&str> {
    let (mut out, mut begin, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[begin..]);
    out
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let text = text.trim();
    let wrong = || SelectorError(text.to_owned());
    let of = |key: &str, values: Option<Vec<&str>>, not: bool| {
        let plain = |t: &str| t.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        let (key, values) = (key.trim(), values.map(|v| v.into_iter().map(str::trim).collect::<Vec<_>>()));
        let well = !key.is_empty() && plain(key) && values.iter().flatten().all(|v| plain(v));
        let values = values.map(|v| v.into_iter().map(str::to_owned).collect());
        if well { Ok(Requirement { key: key.to_owned(), values, not }) } else { Err(wrong()) }
    };
    if let Some(list) = text.strip_suffix(')') {
        let (head, list) = list.split_once('(').ok_or_else(wrong)?;
        let (key, word) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
        let not = match word {
            "in" => false,
            "notin" => true,
            _ => return Err(wrong()),
        };
        return of(key, Some(list.split(',').collect()), not);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return of(key, Some(vec![value]), true);
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return of(key, Some(vec![value]), false);
    }
    match text.strip_prefix('!') {
        Some(key) => of(key, None, true),
        None => of(text, None, false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select_as_those_of_kubectl_do() {
        let labels = json!({"app": "web", "example.com/tier": "a"});
        let table = [
            ("app=web", true),
            ("app==web", true),
            ("app = db", false),
            ("app!=db", true),
            ("gone!=db", true),
            ("app", true),
            ("!app", false),
            ("!gone", true),
            ("example.com/tier in (a, b),app=web", true),
            ("example.com/tier notin (a,b)", false),
            ("gone notin (a)", true),
            ("app=web,gone", false),
        ];
        for (text, expected) in table {
            assert_eq!(Selector::parse(text).unwrap().matches(labels.as_object()), expected, "{text}");
        }
        for text in ["", "app=web,", "app within (a)", "app in (a", "a b", "app=we b", "=web", "app in a)"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}
