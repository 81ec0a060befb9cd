//! Status, drift, history and differences as people and programs read them. Values in, text out: no client, no clock.
//!
//! Texts hold colours always; whoever prints them takes the colours out where nobody sees them.

pub mod age;
pub mod diff;
pub mod drift;
pub mod history;
pub mod status;
pub mod table;

use anstyle::{AnsiColor, Style};

/// What is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What is not well.
pub const BAD: Style = AnsiColor::Red.on_default();
/// What is under way, or not known.
pub const UNSURE: Style = AnsiColor::Yellow.on_default();
/// What is said in passing.
pub const FAINT: Style = Style::new().dimmed();
/// What a text is about.
pub const STRONG: Style = Style::new().bold();

/// A text in a style.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A revision as people say it: `main@1a2b3c4` for `main@sha1:1a2b3c4d…`; what is no revision stays as it is.
pub fn short_revision(revision: &str) -> String {
    let (branch, commit) = match revision.rsplit_once("sha1:") {
        Some((branch, commit)) => (branch, commit),
        None => return revision.to_owned(),
    };
    format!("{branch}{}", commit.get(..7).unwrap_or(commit))
}

/// A revision's branch and the first digits of its commit.
pub fn short(revision: &crate::api::delivery::Revision) -> String {
    short_revision(&revision.to_string())
}

#[cfg(test)]
mod tests {
    use super::short_revision;

    #[test]
    fn revisions_are_shortened_and_other_texts_are_not() {
        let table = [
            ("main@sha1:1a2b3c4d5e6f", "main@1a2b3c4"),
            ("sha1:1a2b3c4d5e6f", "1a2b3c4"),
            ("main@sha1:1a2", "main@1a2"),
            ("feature/a@b@sha1:1a2b3c4d", "feature/a@b@1a2b3c4"),
            ("", ""),
        ];
        for (long, short) in table {
            assert_eq!(short_revision(long), short);
        }
    }
}
