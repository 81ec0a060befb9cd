//! The files of a tree, with symbolic links followed as long as they stay inside.

use super::error::{LinkProblem, RenderError};
use super::{Limits, yaml};
use crate::core::digest;
use crate::core::tree::{EntryKind, Tree, join};
use std::cell::Cell;
use std::collections::VecDeque;

/// Links that one path may lead through; what Linux allows.
const MAX_HOPS: usize = 40;

/// What stands at a path once links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Path without links.
    pub path: String,
    /// What it is; never a link.
    pub kind: EntryKind,
    /// Identity of the content.
    pub id: String,
}

/// Access to the files of a tree, within limits over all of them.
pub(super) struct Files<'t> {
    pub tree: &'t dyn Tree,
    pub limits: &'t Limits,
    read: Cell<u64>,
}

impl<'t> Files<'t> {
    pub fn new(tree: &'t dyn Tree, limits: &'t Limits) -> Self {
        Files { tree, limits, read: Cell::new(0) }
    }

    /// What stands at a path, or `None`. A link that cannot be followed is an error.
    pub fn find(&self, path: &str) -> Result<Option<Found>, RenderError> {
        let mut todo: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut found = Found { path: String::new(), kind: EntryKind::Directory, id: String::new() };
        let mut link: Option<(String, String)> = None;
        let mut hops = 0;
        let broken = |link: &Option<(String, String)>, problem| match link {
            Some((path, target)) => RenderError::Link { path: path.clone(), target: target.clone(), problem },
            None => RenderError::PathOutside(path.to_owned()),
        };
        while let Some(segment) = todo.pop_front() {
            match segment.as_str() {
                "" | "." => continue,
                ".." => {
                    if found.path.is_empty() {
                        return Err(broken(&link, LinkProblem::Outside));
                    }
                    let parent = found.path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
                    found = Found { path: parent, kind: EntryKind::Directory, id: String::new() };
                    continue;
                }
                _ => {}
            }
            let at = join(&found.path, &segment);
            let entry = match found.kind {
                EntryKind::Directory => self.tree.entry(&at)?,
                EntryKind::Submodule => return Err(RenderError::Submodule(found.path)),
                _ => None,
            };
            let Some(entry) = entry else {
                return match link {
                    Some(_) => Err(broken(&link, LinkProblem::Dangling)),
                    None => Ok(None),
                };
            };
            if entry.kind != EntryKind::Symlink {
                found = Found { path: at, kind: entry.kind, id: entry.id };
                continue;
            }
            let target = String::from_utf8_lossy(&self.tree.read(&at, 4096)?).into_owned();
            hops += 1;
            let absolute = target.starts_with('/');
            for part in target.split('/').rev() {
                todo.push_front(part.to_owned());
            }
            link = Some((at, target));
            if absolute {
                return Err(broken(&link, LinkProblem::Outside));
            }
            if hops > MAX_HOPS {
                return Err(broken(&link, LinkProblem::Cycle));
            }
        }
        if found.id.is_empty() {
            found.id = self.directory_id(&found.path)?;
        }
        Ok(Some(found))
    }

    /// Identity of a directory, the root of the tree included.
    pub fn directory_id(&self, path: &str) -> Result<String, RenderError> {
        if let Some(entry) = self.tree.entry(path)? {
            return Ok(entry.id);
        }
        let mut bytes = Vec::new();
        for entry in self.tree.entries(path)? {
            bytes.extend_from_slice(format!("{}\0{:?}\0{}\0", entry.name, entry.kind, entry.id).as_bytes());
        }
        Ok(digest::of_bytes(&bytes))
    }

    /// The bytes of a file at a path without links. `shown` is the path for errors.
    pub fn read(&self, path: &str, shown: &str) -> Result<Vec<u8>, RenderError> {
        let bytes = self.tree.read(path, self.limits.file_bytes)?;
        let total = self.read.get() + bytes.len() as u64;
        self.read.set(total);
        if total > self.limits.total_bytes {
            let limit = self.limits.total_bytes;
            return Err(RenderError::TooMuch { path: shown.into(), what: "bytes of files", limit });
        }
        if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
            return Err(RenderError::Lfs(shown.into()));
        }
        Ok(bytes)
    }

    /// The documents of a YAML or JSON file.
    pub fn documents(
        &self,
        bytes: &[u8],
        shown: &str,
        keep: yaml::Keep,
    ) -> Result<Vec<yaml::Document>, RenderError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            RenderError::NotUtf8 { file: shown.into(), line }
        })?;
        yaml::parse(text, keep, &self.limits.yaml)
            .map_err(|error| RenderError::Yaml { file: shown.into(), error })
    }
}

/// A path with `.` and `..` resolved by its text alone, or `None` when it leads out of the tree.
pub(super) fn normalise(base: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut segments: Vec<&str> = base.split('/').filter(|s| !s.is_empty()).collect();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            other => segments.push(other),
        }
    }
    Some(segments.join("/"))
}

/// Whether a file holds manifests, by its name.
pub(super) fn is_manifest_name(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}
