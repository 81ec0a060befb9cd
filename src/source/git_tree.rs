//! A commit as a tree of files, read from Git's object store without a checkout.

use super::commit::CommitId;
use super::store::Store;
use crate::core::tree::{Entry, EntryKind, Tree, TreeError, join};
use git2::{ObjectType, Oid, Repository};
use std::collections::{HashMap, VecDeque};
use std::fmt;
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
        let mut found = (EntryKind::Directory, self.root);
        for name in path.split('/') {
            if found.0 != EntryKind::Directory {
                return Ok(None);
            }
            // A tree that is named and not there is no tree without the entry.
            let entry = self.store.large_trees().entry(repository, found.1, name);
            match entry.map_err(|error| self.broken(path, &error))? {
                Some(entry) => found = entry,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    fn found(&self, repository: &Repository, path: &str) -> Result<(EntryKind, Oid), TreeError> {
        self.lookup(repository, path)?.ok_or_else(|| TreeError::NotFound(shown(path)))
    }
}

/// The entries of a directory, by name.
type Entries = HashMap<Box<[u8]>, (EntryKind, Oid)>;

/// The entries of large directories that were read lately. libgit2 keeps no tree above 4 KiB: without this, a directory of a
/// thousand others would be unpacked and hashed again for each path in each of them.
#[derive(Default)]
pub(super) struct LargeTrees(VecDeque<(Oid, Entries)>);

impl LargeTrees {
    /// Entries that make a tree a large one: about 4 KiB of them.
    const LARGE: usize = 64;

    /// One that is larger is not kept.
    const LARGEST: usize = 20_000;

    /// Trees that are kept.
    const KEPT: usize = 4;

    /// An entry of a tree; `None` where the tree has none of this name.
    fn entry(
        &mut self,
        repository: &Repository,
        tree: Oid,
        name: &str,
    ) -> Result<Option<(EntryKind, Oid)>, git2::Error> {
        if let Some((_, entries)) = self.0.iter().find(|(id, _)| *id == tree) {
            return Ok(entries.get(name.as_bytes()).copied());
        }
        let read = repository.find_tree(tree)?;
        let entry = |entry: &git2::TreeEntry<'_>| (kind_of(entry.filemode(), entry.kind()), entry.id());
        if (Self::LARGE..=Self::LARGEST).contains(&read.len()) {
            let entries = read.iter().map(|e| (Box::from(e.name_bytes()), entry(&e))).collect();
            self.0.push_back((tree, entries));
            if self.0.len() > Self::KEPT {
                self.0.pop_front();
            }
        }
        Ok(read.get_name(name).as_ref().map(entry))
    }
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
