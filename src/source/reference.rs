//! What is followed in a repository, and which of the refs that a remote lists is meant.

use super::commit::CommitId;
use super::error::SourceError;
use super::url::RemoteUrl;
use semver::{Version, VersionReq};
use std::fmt;

/// What is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reference {
    /// The branch that the remote's HEAD points to.
    #[default]
    Default,
    /// A branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// The highest tag within a range of versions: `1.x`, `>=1.2 <2`, `~1.4.0`, `1.2 || 2.x`. A version alone means
    /// exactly that one. A leading `v` of tags is not part of the version. Pre-releases only count where the range
    /// names one, as in npm and Cargo.
    Semver(String),
    /// A commit, by its full id.
    Commit(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default branch"),
            Self::Branch(name) => write!(f, "branch {name}"),
            Self::Tag(name) => write!(f, "tag {name}"),
            Self::Semver(range) => write!(f, "versions {range}"),
            Self::Commit(id) => write!(f, "commit {id}"),
        }
    }
}

/// The refs that a remote lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Advertised {
    /// What HEAD points to, unless it points to a commit itself.
    pub(super) head: Option<String>,
    /// Full names with the object that each points to (for a tag object: the commit).
    pub(super) refs: Vec<(String, CommitId)>,
}

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What people call it: `main`, `v1.2.0`, `HEAD`.
    pub(super) name: String,
    /// The full name of the ref at the remote.
    pub(super) remote_ref: String,
    /// The commit that it points to.
    pub(super) commit: CommitId,
}

/// Reads what `git ls-remote` prints.
pub(super) fn parse_listing(stdout: &[u8], url: &RemoteUrl) -> Result<Advertised, SourceError> {
    let mut advertised = Advertised::default();
    for line in stdout.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let Some((left, name)) = line.split_once('\t') else { continue };
        if let Some(target) = left.strip_prefix("ref: ") {
            if name == "HEAD" {
                advertised.head = Some(target.to_owned());
            }
            continue;
        }
        if left.len() == 64 {
            return Err(SourceError::ObjectFormat { url: url.to_string() });
        }
        let Ok(id) = left.parse::<CommitId>() else { continue };
        match name.strip_suffix("^{}") {
            // The line before it names the tag object; this one says what that points to.
            Some(tag) => match advertised.refs.last_mut() {
                Some(last) if last.0 == tag => last.1 = id,
                _ => {}
            },
            None => advertised.refs.push((name.to_owned(), id)),
        }
    }
    Ok(advertised)
}

impl Advertised {
    fn commit(&self, name: &str) -> Option<&CommitId> {
        self.refs.iter().find(|(known, _)| known == name).map(|(_, id)| id)
    }

    /// What the remote's HEAD means.
    pub(super) fn default_branch(&self, url: &RemoteUrl) -> Result<Wanted, SourceError> {
        let Some(commit) = self.commit("HEAD").cloned() else {
            return Err(SourceError::Empty { url: url.to_string() });
        };
        let remote_ref = self.head.clone().unwrap_or_else(|| "HEAD".to_owned());
        let name = remote_ref.strip_prefix("refs/heads/").unwrap_or(&remote_ref).to_owned();
        Ok(Wanted { name, remote_ref, commit })
    }

    /// A branch (`refs/heads/`) or tag (`refs/tags/`) by its name.
    pub(super) fn named(&self, prefix: &str, name: &str) -> Option<Wanted> {
        let remote_ref = format!("{prefix}{name}");
        let commit = self.commit(&remote_ref)?.clone();
        Some(Wanted { name: name.to_owned(), remote_ref, commit })
    }

    /// The names below a prefix that look most like `name`: at most five.
    pub(super) fn near(&self, prefix: &str, name: &str) -> Vec<String> {
        let mut names: Vec<(u64, &str)> = self
            .refs
            .iter()
            .filter_map(|(known, _)| known.strip_prefix(prefix))
            // Negated and scaled, so that the most similar comes first in an ordering of integers.
            .map(|known| (u64::MAX - (strsim::jaro_winkler(known, name) * 1e9) as u64, known))
            .collect();
        names.sort_unstable();
        names.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
    }

    /// The highest tag within a range.
    pub(super) fn highest(&self, range: &str, url: &RemoteUrl) -> Result<Wanted, SourceError> {
        let alternatives = parse_range(range)?;
        let mut versions: Vec<(Version, &str)> = self
            .refs
            .iter()
            .filter_map(|(known, _)| known.strip_prefix("refs/tags/"))
            .filter_map(|tag| Some((version_of(tag)?, tag)))
            .collect();
        versions.sort_unstable();
        versions.reverse();
        let best =
            versions.iter().find(|(version, _)| alternatives.iter().any(|range| range.matches(version)));
        match best.and_then(|(_, tag)| self.named("refs/tags/", tag)) {
            Some(wanted) => Ok(wanted),
            None => Err(SourceError::NoVersion {
                url: url.to_string(),
                range: range.to_owned(),
                near: versions.into_iter().take(5).map(|(_, tag)| tag.to_owned()).collect(),
            }),
        }
    }
}

/// `v1.2.3` and `1.2.3` are versions, and so are `v1.2` and `1`: many tag like that.
fn version_of(tag: &str) -> Option<Version> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    let numbers = text.split(['-', '+']).next()?;
    let missing = 2usize.checked_sub(numbers.matches('.').count())?;
    let rest = text.get(numbers.len()..)?;
    Version::parse(&format!("{numbers}{}{rest}", ".0".repeat(missing))).ok()
}

/// Ranges as people know them from npm, Helm and Flux, on top of what the `semver` crate reads: `||`, blanks between
/// comparisons, `1.2 - 1.4`, and a version alone for exactly that one.
fn parse_range(text: &str) -> Result<Vec<VersionReq>, SourceError> {
    let invalid =
        |reason: &str| SourceError::InvalidRange { range: text.to_owned(), reason: reason.to_owned() };
    if text.trim().is_empty() {
        return Err(invalid("it is empty"));
    }
    text.split("||")
        .map(|part| {
            let part = match part.split_once(" - ") {
                Some((low, high)) => format!(">={} <={}", low.trim(), high.trim()),
                None => part.to_owned(),
            };
            VersionReq::parse(&comparisons(&part)).map_err(|error| invalid(&error.to_string()))
        })
        .collect()
}

/// Comparisons with commas between, each with its operator in front.
fn comparisons(part: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    for word in part.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
        let is_operator = |word: &str| word.chars().all(|c| "<>=^~".contains(c));
        match out.last_mut() {
            Some(last) if is_operator(last) => last.push_str(word.strip_prefix('v').unwrap_or(word)),
            _ => out.push(word.to_owned()),
        }
    }
    for comparison in &mut out {
        let digits = comparison.find(|c: char| !"<>=^~".contains(c)).unwrap_or(comparison.len());
        let (operator, version) = comparison.split_at(digits);
        let version = version.strip_prefix('v').unwrap_or(version);
        // `1.x` and `*` are ranges by themselves; in the crate `1.2` alone would mean `^1.2`.
        let wild = version.contains(['*', 'x', 'X']) && !version.contains(['-', '+']);
        let operator = if operator.is_empty() && !wild { "=" } else { operator };
        *comparison = format!("{operator}{version}");
    }
    out.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url() -> RemoteUrl {
        RemoteUrl::parse("https://h.example/a", false).unwrap()
    }

    fn id(digit: u32) -> String {
        format!("{digit:040x}")
    }

    fn tags(names: &[&str]) -> Advertised {
        let listing: String =
            names.iter().zip(1..).map(|(name, n)| format!("{}\trefs/tags/{name}\n", id(n))).collect();
        parse_listing(listing.as_bytes(), &url()).unwrap()
    }

    #[test]
    fn reads_a_listing() {
        let text = format!(
            "ref: refs/heads/trunk\tHEAD\n{}\tHEAD\n{}\trefs/heads/trunk\n{}\trefs/tags/v1\n{}\trefs/tags/v1^{{}}\n",
            id(1),
            id(1),
            id(2),
            id(3)
        );
        let listing = parse_listing(text.as_bytes(), &url()).unwrap();
        let head = listing.default_branch(&url()).unwrap();
        assert_eq!((head.name.as_str(), head.remote_ref.as_str()), ("trunk", "refs/heads/trunk"));
        assert_eq!(
            listing.named("refs/tags/", "v1").unwrap().commit.as_str(),
            id(3),
            "a tag object is peeled"
        );
        assert_eq!(listing.named("refs/heads/", "main"), None);

        let detached = parse_listing(format!("{}\tHEAD\n", id(1)).as_bytes(), &url()).unwrap();
        assert_eq!(detached.default_branch(&url()).unwrap().name, "HEAD");
        assert!(matches!(
            parse_listing(b"", &url()).unwrap().default_branch(&url()),
            Err(SourceError::Empty { .. })
        ));
        let sha256 = format!("{}\tHEAD\n", "0".repeat(64));
        assert!(matches!(parse_listing(sha256.as_bytes(), &url()), Err(SourceError::ObjectFormat { .. })));
    }

    #[test]
    fn the_highest_version_in_a_range() {
        let listed = tags(&[
            "v1.0.0",
            "1.2.3",
            "v1.10.0",
            "v2.0.0-rc.1",
            "v2.0.0",
            "v2.1",
            "3.0.0-beta.1",
            "latest",
            "4",
        ]);
        for (range, tag) in [
            ("*", "4"),
            ("1.x", "v1.10.0"),
            ("^1.0", "v1.10.0"),
            (">=1.0 <1.5", "1.2.3"),
            (">= 1.0, < 1.5", "1.2.3"),
            ("1.0 - 1.5", "1.2.3"),
            ("1.2.3", "1.2.3"),
            ("v1.2.3", "1.2.3"),
            ("~1.2", "1.2.3"),
            ("2", "v2.1"),
            ("2.0.0-rc.1", "v2.0.0-rc.1"),
            (">=3.0.0-alpha <3.1", "3.0.0-beta.1"),
            ("1.0.x || 2.0.x", "v2.0.0"),
        ] {
            assert_eq!(listed.highest(range, &url()).unwrap().name, tag, "{range}");
        }
        let error = listed.highest("5.x", &url()).unwrap_err().to_string();
        assert!(error.contains("it has 4, 3.0.0-beta.1, v2.1"), "{error}");
        for range in ["", "latest", ">=", "1.2.3.4", "||"] {
            assert!(
                matches!(listed.highest(range, &url()), Err(SourceError::InvalidRange { .. })),
                "{range}"
            );
        }
    }

    #[test]
    fn near_matches_come_nearest_first() {
        let listed = tags(&["v1.0", "release-2", "v1.1", "zzz"]);
        assert_eq!(listed.near("refs/tags/", "v1.2")[..2], ["v1.0", "v1.1"]);
    }

    proptest! {
        #[test]
        fn any_listing_and_any_range_is_read_without_panic(listing in any::<Vec<u8>>(), range in ".{0,40}") {
            let _ = parse_listing(&listing, &url());
            let _ = tags(&["v1.0.0", "2"]).highest(&range, &url());
        }

        #[test]
        fn the_order_of_a_listing_does_not_matter(mut names in proptest::collection::vec("v?[0-3](\\.[0-3]){0,2}", 1..8)) {
            let listed = tags(&names.iter().map(String::as_str).collect::<Vec<_>>()).highest("*", &url()).unwrap().name;
            names.reverse();
            let reversed = tags(&names.iter().map(String::as_str).collect::<Vec<_>>()).highest("*", &url()).unwrap().name;
            prop_assert_eq!(listed, reversed);
        }
    }
}
