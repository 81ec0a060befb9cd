//! What an Application asks for and may not get.

use std::fmt;

/// Something in a spec that is right, and may not do what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A short CamelCase word, for programs.
    pub reason: &'static str,
    /// The field, what comes of it, and what to do.
    pub text: String,
}

/// What the router that the spec names cannot do.
pub(super) const NOT_CARRIED_OUT: &str = "UnsupportedByRouter";

impl Notice {
    pub(super) fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Notice { reason, text: text.into() }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Says that these fields of `traffic` are not carried out, and why.
pub(super) fn cannot(fields: &[&str], why: &str) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!("spec.traffic.{field}")).collect();
    format!("{} cannot be carried out: {why}", fields.join(", "))
}

/// Characters of what a condition says of all notices. Each has a few hundred.
const LONGEST: usize = 2000;

/// All of them as sentences, for a condition.
pub(super) fn sentences(notices: &[Notice]) -> String {
    let all = notices.iter().map(|notice| notice.text.as_str()).collect::<Vec<_>>().join(". ");
    if all.chars().count() <= LONGEST {
        return all;
    }
    let cut: String = all.chars().take(LONGEST - 1).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_condition_says_is_bounded() {
        let notice = |text: String| Notice::new("Reason", text);
        assert_eq!(sentences(&[notice("one".into()), notice("two".into())]), "one. two");
        let long = sentences(&[notice("é".repeat(1500)), notice("é".repeat(1500))]);
        assert_eq!(long.chars().count(), 2000);
        assert!(long.ends_with('…'));
    }
}
