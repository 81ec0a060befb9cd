//! Status, drift, history, differences and trees as people and programs read them. Values in, text out: no client, no clock.
//!
//! Texts hold colours always; whoever prints them takes the colours out where nobody sees them.

pub mod age;
pub mod diff;
pub mod drift;
pub mod endpoints;
pub mod history;
pub mod junit;
pub mod markdown;
pub mod rollout;
pub mod status;
pub mod table;
pub mod tree;

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

/// A word of a message, which is shortened if it is a revision, with or without a mark behind it.
pub fn short_word(word: &str) -> String {
    let bare = word.trim_end_matches([':', ';', ',', '.', ')']);
    let is_revision = bare
        .rsplit_once("sha1:")
        .is_some_and(|(_, commit)| commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()));
    match is_revision {
        true => format!("{}{}", short_revision(bare), &word[bare.len()..]),
        false => word.to_owned(),
    }
}

/// A revision's branch and the first digits of its commit.
pub fn short(revision: &crate::api::delivery::Revision) -> String {
    short_revision(&revision.to_string())
}

#[cfg(test)]
mod tests;
