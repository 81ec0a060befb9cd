//! A commit: its id, and what people are told about it.

use std::fmt;
use std::str::FromStr;

/// The id of a commit: 40 lower-case hexadecimal digits (SHA-1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(String);

/// The text is no full id of a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no commit id: write all 40 hexadecimal digits, as `git rev-parse` prints them")]
pub struct InvalidCommitId(pub String);

impl CommitId {
    /// All 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }

    pub(super) fn oid(&self) -> git2::Oid {
        git2::Oid::from_str(&self.0).unwrap_or(git2::Oid::ZERO_SHA1)
    }
}

impl From<git2::Oid> for CommitId {
    fn from(oid: git2::Oid) -> Self {
        Self(oid.to_string())
    }
}

impl FromStr for CommitId {
    type Err = InvalidCommitId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidCommitId(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What people are told about a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// Who wrote it; what is not UTF-8 is replaced.
    pub author_name: String,
    /// The author's address, as it stands in the commit.
    pub author_email: String,
    /// The first paragraph of its message on one line.
    pub subject: String,
    /// When it was committed, by the committer's clock.
    pub time: jiff::Timestamp,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_full_ids_are_ids() {
        let id: CommitId = "C0FFEE00c0ffee00c0ffee00c0ffee00c0ffee00".parse().unwrap();
        assert_eq!(id.as_str(), "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00");
        assert_eq!(id.short(), "c0ffee00c0ff");
        for text in ["", "c0ffee", "main", "g0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", &"0".repeat(64)] {
            assert!(text.parse::<CommitId>().is_err(), "{text}");
        }
    }
}
