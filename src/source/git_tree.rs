//! A commit as a tree of files, read from Git's object store without a checkout.

use super::commit::CommitId;
use super::store::Store;
use crate::core::tree::{Entry, EntryKind, Tree, TreeError, join};
use git2::{ErrorCode, ObjectType, Oid, Repository};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The files of a commit. Cheap to clone; reads take a lock for a moment, and block.
#[derive(Clone)]
pub struct GitTree {
    store: Arc<Store>,
    commit: CommitId,
    root: Oid,
}

impl GitTree {
    pub(super) fn new(store: Arc<Store>, commit: &CommitId) -> Result<Self, git2::Error> {
        let root =
            store.with(|repository| repository.find_commit(commit.oid()).map(|found| found.tree_id()))?;
        Ok(Self { store, commit: commit.clone(), root })
    }

    /// The commit.
    pub fn commit(&self) -> &CommitId {
        &self.commit
    }

    /// An object that a tree names and that cannot be read: the mirror is damaged, and the next poll mends it.
    fn broken(&self, path: &str, error: &git2::Error) -> TreeError {
        self.store.mark_damaged();
        TreeError::Broken {
            path: shown(path),
            message: format!("the mirror is damaged ({}); it is made anew at the next poll", error.message()),
        }
    }

    fn lookup(&self, repository: &Repository, path: &str) -> Result<Option<(EntryKind, Oid)>, TreeError> {
        if path.is_empty() {
            return Ok(Some((EntryKind::Directory, self.root)));
        }
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Ok(None);
        }
        let root = repository.find_tree(self.root).map_err(|error| self.broken("", &error))?;
        match root.get_path(Path::new(path)) {
            Ok(entry) => Ok(Some((kind_of(entry.filemode(), entry.kind()), entry.id()))),
            Err(error) if error.code() != ErrorCode::NotFound => Err(self.broken(path, &error)),
            // A damaged store answers the same as a tree without the entry. Walking again costs little and is rare.
            Err(error) => match missing_tree(repository, self.root, path) {
                true => Err(self.broken(path, &error)),
                false => Ok(None),
            },
        }
    }

    fn found(&self, repository: &Repository, path: &str) -> Result<(EntryKind, Oid), TreeError> {
        self.lookup(repository, path)?.ok_or_else(|| TreeError::NotFound(shown(path)))
    }
}

/// True when a tree on the way to `path` is named and not there.
fn missing_tree(repository: &Repository, root: Oid, path: &str) -> bool {
    let mut id = root;
    for name in path.split('/') {
        let Ok(tree) = repository.find_tree(id) else { return true };
        match tree.get_name(name) {
            Some(entry) if entry.kind() == Some(ObjectType::Tree) => id = entry.id(),
            _ => return false,
        }
    }
    false
}

impl Tree for GitTree {
    fn entries(&self, dir: &str) -> Result<Vec<Entry>, TreeError> {
        self.store.with(|repository| {
            let (kind, id) = self.found(repository, dir)?;
            if kind != EntryKind::Directory {
                return Err(TreeError::WrongKind { path: shown(dir), wanted: "directory" });
            }
            let tree = repository.find_tree(id).map_err(|error| self.broken(dir, &error))?;
            let mut entries = Vec::with_capacity(tree.len());
            for entry in tree.iter() {
                let bytes = entry.name_bytes();
                let name = std::str::from_utf8(bytes).map_err(|_| TreeError::NotUtf8 {
                    dir: shown(dir),
                    name: String::from_utf8_lossy(bytes).into_owned(),
                })?;
                // Git itself never writes such names; a tree made by hand could lead out of a directory with them.
                if matches!(name, "" | "." | "..")
                    || name.contains(['/', '\0'])
                    || name.eq_ignore_ascii_case(".git")
                {
                    return Err(TreeError::Broken {
                        path: join(dir, name),
                        message: "no file can have this name in Git; the commit was not made by Git"
                            .to_owned(),
                    });
                }
                entries.push(Entry {
                    name: name.to_owned(),
                    kind: kind_of(entry.filemode(), entry.kind()),
                    id: entry.id().to_string(),
                });
            }
            // Git orders directories as if their names ended in `/`.
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
    }

    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let found = self.store.with(|repository| self.lookup(repository, path))?;
        Ok(found.map(|(kind, id)| Entry { name, kind, id: id.to_string() }))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        self.store.with(|repository| {
            let (kind, id) = self.found(repository, path)?;
            if !matches!(kind, EntryKind::File | EntryKind::Symlink) {
                return Err(TreeError::WrongKind { path: shown(path), wanted: "file" });
            }
            let broken = |error: git2::Error| self.broken(path, &error);
            // The size first, so that a file above the limit is never in memory.
            let size = repository.odb().and_then(|odb| odb.read_header(id)).map_err(broken)?.0 as u64;
            if size > limit {
                return Err(TreeError::TooLarge { path: shown(path), size, limit });
            }
            repository.find_blob(id).map(|blob| blob.content().to_vec()).map_err(broken)
        })
    }
}

fn kind_of(mode: i32, kind: Option<ObjectType>) -> EntryKind {
    match (mode, kind) {
        (0o120_000, _) => EntryKind::Symlink,
        (0o160_000, _) | (_, Some(ObjectType::Commit)) => EntryKind::Submodule,
        (_, Some(ObjectType::Tree)) => EntryKind::Directory,
        _ => EntryKind::File,
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

impl fmt::Debug for GitTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GitTree").field(&self.commit.as_str()).finish()
    }
}
