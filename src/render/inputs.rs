//! What a directory is rendered from: equal inputs, equal objects. Cheap enough to be asked at every commit.

use super::error::RenderError;
use super::files::{Files, normalise};
use super::{Limits, kustomize};
use crate::core::tree::{EntryKind, Tree, join};
use std::collections::{BTreeMap, BTreeSet};

/// Paths and identities of what the objects of a directory are rendered from: the directory itself, the directories that its
/// kustomizations name, and what links in them point to. Sorted; what stands below another entry is not repeated.
///
/// Reads only kustomizations and links. Where these are not understood, the whole tree is named: then a
/// change is never missed, and rendering says what is wrong.
///
/// Errors: the directory does not exist, or the tree cannot be read.
pub fn inputs(tree: &dyn Tree, path: &str) -> Result<Vec<(String, String)>, RenderError> {
    let limits = Limits::default();
    let files = Files::new(tree, &limits);
    let path = normalise("", path).ok_or_else(|| RenderError::PathOutside(path.into()))?;
    let whole = || Ok(vec![(String::new(), files.directory_id("")?)]);
    let found = match files.find(&path) {
        Ok(Some(found)) => found,
        Ok(None) => return Err(RenderError::NoSuchDirectory(path)),
        Err(RenderError::Tree(error)) => return Err(error.into()),
        Err(_) => return whole(),
    };
    if found.kind != EntryKind::Directory {
        return Err(RenderError::NotADirectory(path));
    }
    let mut gathered =
        Gathered { files: &files, named: BTreeMap::new(), seen: BTreeSet::new(), left: limits.files };
    match gathered.directory(&path) {
        Ok(()) => Ok(gathered.finish()),
        Err(RenderError::Tree(error)) => Err(error.into()),
        Err(_) => whole(),
    }
}

struct Gathered<'f, 't> {
    files: &'f Files<'t>,
    named: BTreeMap<String, String>,
    seen: BTreeSet<String>,
    left: u64,
}

impl Gathered<'_, '_> {
    /// A directory that is rendered from, with all that leads out of it.
    fn directory(&mut self, path: &str) -> Result<(), RenderError> {
        let Some(found) = self.files.find(path)? else {
            return Err(RenderError::NoSuchDirectory(path.into()));
        };
        // The path is resolved through links, so where it leads is part of the answer.
        let real = found.path;
        self.named.insert(real.clone(), found.id);
        self.walk(&real, &real, true)
    }

    /// Looks for links, and while `plain` for kustomizations, below a directory that is named already. Below a
    /// kustomization only what it names counts.
    fn walk(&mut self, named: &str, dir: &str, plain: bool) -> Result<(), RenderError> {
        if !self.seen.insert(dir.to_owned()) {
            return Ok(());
        }
        let entries = self.files.tree.entries(dir)?;
        let by_kustomize = plain && kustomize::is_kustomization(&entries);
        let plain = plain && !by_kustomize;
        if by_kustomize {
            let closure = kustomize::closure::follow(self.files, dir, false)?;
            for root in closure.roots.keys() {
                if !self.seen.contains(root) {
                    self.directory(root)?;
                }
            }
        }
        for entry in entries {
            self.left = self.left.checked_sub(1).ok_or_else(|| RenderError::TooMuch {
                path: dir.into(),
                what: "files",
                limit: self.files.limits.files,
            })?;
            let at = join(dir, &entry.name);
            match entry.kind {
                EntryKind::Directory => self.walk(named, &at, plain)?,
                EntryKind::Symlink => {
                    let Some(found) = self.files.find(&at)? else { continue };
                    if found.kind == EntryKind::Directory {
                        self.directory(&at)?;
                    } else if !is_below(&found.path, named) {
                        self.named.insert(found.path, found.id);
                    }
                }
                EntryKind::File | EntryKind::Submodule => {}
            }
        }
        Ok(())
    }

    fn finish(self) -> Vec<(String, String)> {
        let mut kept: Vec<(String, String)> = Vec::new();
        for (path, id) in self.named {
            if !kept.iter().any(|(above, _)| is_below(&path, above)) {
                kept.push((path, id));
            }
        }
        kept
    }
}

fn is_below(path: &str, dir: &str) -> bool {
    dir.is_empty() || path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}
