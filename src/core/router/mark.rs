//! What tells the requests that see the candidate whatever the weight: a header, or a cookie as a pattern of one.

use super::Split;
use serde::{Deserialize, Serialize};

/// A header that requests carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its name; case does not matter.
    pub name: String,
    /// Its value, or a pattern that all of it must match.
    pub value: String,
    /// Whether the value is a pattern.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regex: bool,
}

impl Mark {
    /// What a split asks for. A request with any of them is meant.
    pub(super) fn of(split: &Split) -> Vec<Mark> {
        let header = split.header.iter().map(|header| Mark {
            name: header.name.clone(),
            value: header.value.clone(),
            regex: header.regex,
        });
        let cookie = split.cookie.iter().map(|cookie| Mark {
            name: "cookie".into(),
            value: format!(
                "(?:.*;)?[ \\t]*{}={}[ \\t]*(?:;.*)?",
                literal(&cookie.name),
                literal(&cookie.value)
            ),
            regex: true,
        });
        header.chain(cookie).collect()
    }
}

/// What combining a mark with a match that a rule has comes to.
pub(super) enum Combined {
    /// The rule's match says nothing about this header.
    Free,
    /// It asks for the very same already.
    Same,
    /// No request can meet both.
    Never,
    /// Both are patterns, or one is: one match cannot say both.
    Taken,
}

impl Mark {
    /// Combines the mark with what a rule asks of the same header: `(value, whether it is a pattern)`.
    pub(super) fn with(&self, found: Option<(&str, bool)>) -> Combined {
        match found {
            None => Combined::Free,
            Some((value, regex)) if value == self.value && regex == self.regex => Combined::Same,
            Some((_, false)) if !self.regex => Combined::Never,
            Some(_) => Combined::Taken,
        }
    }
}

/// A text as a pattern (RE2) that matches it and nothing else.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_punctuation() && letter != '_' && letter != '-' {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn what_means_something_in_a_pattern_is_escaped() {
        assert_eq!(literal("beta_a-1"), "beta_a-1");
        assert_eq!(literal("a.b*(c)|é"), "a\\.b\\*\\(c\\)\\|é");
    }
}
