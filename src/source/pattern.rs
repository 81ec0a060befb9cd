//! Which directories of a tree a pattern such as `apps/*` means.

use crate::core::tree::{EntryKind, Tree, TreeError, join};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::BTreeSet;

/// Why a pattern matches nothing: it cannot be read, or the tree cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The pattern cannot be read.
    #[error(
        "the path \"{pattern}\" cannot be used: {reason}; examples: `apps/*`, `apps/shop`, `clusters/**`, `.`"
    )]
    Invalid {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// The tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// One segment of a pattern.
enum Segment {
    Exactly(String),
    Like(GlobMatcher),
    AnyDepth,
}

/// The directories that a pattern means, in order, as paths of the tree.
///
/// `*`, `?`, `[a-z]` and `{a,b}` match within one segment and never a hidden directory; `**` stands for any number of
/// directories, none included. A pattern without these means the directory itself, hidden or not. `.`, `/` and the
/// empty pattern mean the root. Files, links and submodules never match.
pub fn matching_directories(tree: &dyn Tree, pattern: &str) -> Result<Vec<String>, PatternError> {
    let segments = parse(pattern)?;
    let mut found = BTreeSet::new();
    walk(tree, String::new(), &segments, &mut found)?;
    Ok(found.into_iter().collect())
}

fn parse(pattern: &str) -> Result<Vec<Segment>, PatternError> {
    let invalid = |reason: String| PatternError::Invalid { pattern: pattern.to_owned(), reason };
    let mut segments = Vec::new();
    for part in pattern.trim().split('/').filter(|part| !matches!(*part, "" | ".")) {
        segments.push(match part {
            ".." => return Err(invalid("it leads out of the repository".to_owned())),
            // Twice in a row says the same as once, and would be walked many times.
            "**" if matches!(segments.last(), Some(Segment::AnyDepth)) => continue,
            "**" => Segment::AnyDepth,
            part if part.contains(['*', '?', '[', '{']) => {
                let glob = GlobBuilder::new(part).literal_separator(true).build();
                Segment::Like(glob.map_err(|error| invalid(error.kind().to_string()))?.compile_matcher())
            }
            part => Segment::Exactly(part.to_owned()),
        });
    }
    Ok(segments)
}

fn walk(
    tree: &dyn Tree,
    dir: String,
    segments: &[Segment],
    found: &mut BTreeSet<String>,
) -> Result<(), PatternError> {
    let Some((first, rest)) = segments.split_first() else {
        found.insert(dir);
        return Ok(());
    };
    match first {
        Segment::Exactly(name) => {
            let path = join(&dir, name);
            match tree.entry(&path)? {
                Some(entry) if entry.kind == EntryKind::Directory => walk(tree, path, rest, found),
                _ => Ok(()),
            }
        }
        Segment::Like(glob) => {
            for name in shown_directories(tree, &dir)?.iter().filter(|name| glob.is_match(name)) {
                walk(tree, join(&dir, name), rest, found)?;
            }
            Ok(())
        }
        Segment::AnyDepth => {
            for name in shown_directories(tree, &dir)? {
                walk(tree, join(&dir, &name), segments, found)?;
            }
            walk(tree, dir, rest, found)
        }
    }
}

fn shown_directories(tree: &dyn Tree, dir: &str) -> Result<Vec<String>, TreeError> {
    let entries = tree.entries(dir)?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::Directory && !entry.name.starts_with('.'))
        .map(|entry| entry.name)
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::source::DirTree;

    #[test]
    fn patterns_mean_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        for path in
            ["apps/shop/base", "apps/web", "apps/.hidden", "infra/db/prod", ".github/workflows", "shop"]
        {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("apps/README.md"), "").unwrap();
        std::os::unix::fs::symlink("shop", dir.path().join("apps/link")).unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        let all = [
            "",
            "apps",
            "apps/shop",
            "apps/shop/base",
            "apps/web",
            "infra",
            "infra/db",
            "infra/db/prod",
            "shop",
        ];
        for (pattern, expected) in [
            ("apps/*", &["apps/shop", "apps/web"][..]),
            ("/apps/*/", &["apps/shop", "apps/web"]),
            ("./apps/sh?p", &["apps/shop"]),
            ("apps/{web,none}", &["apps/web"]),
            ("*", &["apps", "infra", "shop"]),
            ("*/*", &["apps/shop", "apps/web", "infra/db"]),
            ("**/prod", &["infra/db/prod"]),
            ("**/**/shop", &["apps/shop", "shop"]),
            ("apps/**", &["apps", "apps/shop", "apps/shop/base", "apps/web"]),
            ("**", &all),
            ("", &[""]),
            (".", &[""]),
            ("/", &[""]),
            ("apps/shop", &["apps/shop"]),
            (".github/workflows", &[".github/workflows"]),
            (".github/*", &[".github/workflows"]),
            ("apps/README.md", &[]),
            ("apps/link", &[]),
            ("none/*", &[]),
        ] {
            assert_eq!(matching_directories(&tree, pattern).unwrap(), expected, "{pattern}");
        }
        for pattern in ["../x", "apps/../..", "apps/[", "apps/{a"] {
            assert!(
                matches!(matching_directories(&tree, pattern), Err(PatternError::Invalid { .. })),
                "{pattern}"
            );
        }
    }
}
