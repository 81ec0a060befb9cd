//! A directory on disk as a tree of files, for `windlass diff PATH` and `windlass render PATH`.

use crate::core::tree::{Entry, EntryKind, Tree, TreeError, join};
use crate::lock::lock;
use git2::{ObjectType, Oid};
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What Git calls a directory in which nothing is.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// A directory on disk. Links are never followed, so nothing outside is read; `.git` is not part of it.
///
/// Ids are those that Git would give, so that a directory on disk can be recognised in a commit. The id of a directory
/// covers everything below it, and is computed once: a change on disk afterwards does not change it.
#[derive(Debug)]
pub struct DirTree {
    root: PathBuf,
    ids: Mutex<HashMap<String, String>>,
}

impl DirTree {
    /// The tree below a directory, which itself may be a link.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let root = path.canonicalize().map_err(|error| failure(&path.display().to_string(), &error))?;
        if !root.is_dir() {
            return Err(TreeError::WrongKind { path: path.display().to_string(), wanted: "directory" });
        }
        Ok(Self { root, ids: Mutex::new(HashMap::new()) })
    }

    /// Where something stands on disk, unless a link stands on the way there.
    fn locate(&self, path: &str) -> Result<Option<(PathBuf, Metadata)>, TreeError> {
        let mut at = self.root.clone();
        let mut found = fs::symlink_metadata(&at).map_err(|error| failure(path, &error))?;
        for name in path.split('/').filter(|_| !path.is_empty()) {
            if !found.is_dir() || matches!(name, "" | "." | ".." | ".git") {
                return Ok(None);
            }
            at.push(name);
            found = match fs::symlink_metadata(&at) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failure(path, &error)),
            };
        }
        Ok(Some((at, found)))
    }

    fn kind(&self, path: &str, at: &Path, metadata: &Metadata) -> Result<EntryKind, TreeError> {
        let kind = metadata.file_type();
        if kind.is_symlink() {
            Ok(EntryKind::Symlink)
        } else if kind.is_file() {
            Ok(EntryKind::File)
        } else if !kind.is_dir() {
            // Reading a pipe would wait for ever.
            Err(TreeError::Broken {
                path: path.to_owned(),
                message: "is neither a file nor a directory; remove it".to_owned(),
            })
        } else if !path.is_empty() && fs::symlink_metadata(at.join(".git")).is_ok() {
            Ok(EntryKind::Submodule)
        } else {
            Ok(EntryKind::Directory)
        }
    }

    fn id(&self, path: &str, at: &Path, kind: EntryKind) -> Result<String, TreeError> {
        let known = lock(&self.ids).get(path).cloned();
        if let Some(id) = known {
            return Ok(id);
        }
        let unread =
            |error: git2::Error| TreeError::Broken { path: shown(path), message: error.message().to_owned() };
        let id = match kind {
            EntryKind::File => Oid::hash_file(ObjectType::Blob, at).map_err(unread)?,
            EntryKind::Symlink => {
                let target = fs::read_link(at).map_err(|error| failure(path, &error))?;
                Oid::hash_object(ObjectType::Blob, target.as_os_str().as_bytes()).map_err(unread)?
            }
            // Which commit of another repository it is stands elsewhere.
            EntryKind::Submodule => Oid::ZERO_SHA1,
            EntryKind::Directory => {
                let tree = self.tree_object(path)?;
                Oid::hash_object(ObjectType::Tree, &tree).map_err(unread)?
            }
        };
        let id = id.to_string();
        lock(&self.ids).insert(path.to_owned(), id.clone());
        Ok(id)
    }
}

impl DirTree {
    /// A directory as Git writes it: mode, name and id of each entry, and nothing of a directory without any file.
    fn tree_object(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let mut lines: Vec<(String, Vec<u8>)> = Vec::new();
        for entry in self.entries(path)? {
            let below = join(path, &entry.name);
            let mode = match entry.kind {
                EntryKind::Directory if entry.id == EMPTY_TREE => continue,
                EntryKind::Directory => "40000",
                EntryKind::Symlink => "120000",
                EntryKind::Submodule => "160000",
                EntryKind::File => {
                    let found = self.locate(&below)?.map(|(_, metadata)| metadata);
                    let executable = found.is_some_and(|m| m.permissions().mode() & 0o100 != 0);
                    if executable { "100755" } else { "100644" }
                }
            };
            let id = Oid::from_str(&entry.id).map(|id| id.as_bytes().to_vec()).unwrap_or_default();
            let line = [mode.as_bytes(), b" ", entry.name.as_bytes(), b"\0", &id].concat();
            // Git sorts a directory as if its name ended in a slash.
            let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
            lines.push((format!("{}{slash}", entry.name), line));
        }
        lines.sort();
        Ok(lines.into_iter().flat_map(|(_, line)| line).collect())
    }
}

impl Tree for DirTree {
    fn entries(&self, dir: &str) -> Result<Vec<Entry>, TreeError> {
        let (at, metadata) = self.locate(dir)?.ok_or_else(|| TreeError::NotFound(shown(dir)))?;
        if self.kind(dir, &at, &metadata)? != EntryKind::Directory {
            return Err(TreeError::WrongKind { path: shown(dir), wanted: "directory" });
        }
        let mut entries = Vec::new();
        for found in fs::read_dir(&at).map_err(|error| failure(dir, &error))? {
            let found = found.map_err(|error| failure(dir, &error))?;
            let name = found.file_name().into_string().map_err(|name| TreeError::NotUtf8 {
                dir: shown(dir),
                name: name.to_string_lossy().into_owned(),
            })?;
            if name == ".git" {
                continue;
            }
            let path = join(dir, &name);
            // Of the entry itself: this does not follow links.
            let metadata = found.metadata().map_err(|error| failure(&path, &error))?;
            let kind = self.kind(&path, &found.path(), &metadata)?;
            let id = self.id(&path, &found.path(), kind)?;
            entries.push(Entry { name, kind, id });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let Some((at, metadata)) = self.locate(path)? else { return Ok(None) };
        let kind = self.kind(path, &at, &metadata)?;
        let id = self.id(path, &at, kind)?;
        Ok(Some(Entry { name: path.rsplit('/').next().unwrap_or_default().to_owned(), kind, id }))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        let (at, metadata) = self.locate(path)?.ok_or_else(|| TreeError::NotFound(shown(path)))?;
        match self.kind(path, &at, &metadata)? {
            EntryKind::Symlink => {
                let target = fs::read_link(&at).map_err(|error| failure(path, &error))?;
                Ok(target.as_os_str().as_bytes().to_vec())
            }
            EntryKind::File => {
                let too_large = |size| TreeError::TooLarge { path: path.to_owned(), size, limit };
                if metadata.len() > limit {
                    return Err(too_large(metadata.len()));
                }
                let mut content = Vec::new();
                // It may have grown since.
                let file = fs::File::open(&at).map_err(|error| failure(path, &error))?;
                file.take(limit.saturating_add(1))
                    .read_to_end(&mut content)
                    .map_err(|error| failure(path, &error))?;
                let size = content.len() as u64;
                if size > limit { Err(too_large(size)) } else { Ok(content) }
            }
            EntryKind::Directory | EntryKind::Submodule => {
                Err(TreeError::WrongKind { path: shown(path), wanted: "file" })
            }
        }
    }
}

fn failure(path: &str, error: &io::Error) -> TreeError {
    match error.kind() {
        io::ErrorKind::NotFound => TreeError::NotFound(shown(path)),
        _ => TreeError::Broken { path: shown(path), message: error.to_string() },
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_pipes_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        assert_eq!(tree.entry("out").unwrap().unwrap().kind, EntryKind::Symlink);
        assert_eq!(tree.entry("out/secret").unwrap(), None);
        assert_eq!(tree.read("out/secret", 10), Err(TreeError::NotFound("out/secret".to_owned())));
        assert_eq!(tree.read("out", 1000).unwrap(), outside.path().as_os_str().as_bytes());
        for path in ["..", "../x", "./out", "a//b", ".git"] {
            assert_eq!(tree.entry(path).unwrap(), None, "{path}");
        }
    }

    #[test]
    fn ids_name_content() {
        let make = |content: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("a/b")).unwrap();
            fs::create_dir_all(dir.path().join(".git")).unwrap();
            fs::write(dir.path().join("a/b/f"), content).unwrap();
            let tree = DirTree::open(dir.path()).unwrap();
            assert_eq!(tree.entries("").unwrap().len(), 1, ".git is not shown");
            (tree.entry("").unwrap().unwrap().id, tree.entry("a/b/f").unwrap().unwrap().id)
        };
        assert_eq!(make("x"), make("x"));
        assert_ne!(make("x").0, make("y").0);
        assert_ne!(make("x").1, make("y").1);
    }

    #[test]
    fn ids_are_those_that_git_gives() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("apps/shop/deep")).unwrap();
        fs::create_dir_all(at("apps/empty/very")).unwrap();
        for (name, text) in
            [("apps/shop/a.yaml", "a"), ("apps/shop/deep/b", ""), ("apps/shop.yaml", "x"), ("run", "#!")]
        {
            fs::write(at(name), text).unwrap();
        }
        fs::set_permissions(at("run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("shop", at("apps/link")).unwrap();
        let repository = git2::Repository::init(dir.path()).unwrap();
        let mut index = repository.index().unwrap();
        index.add_all(["*"], git2::IndexAddOption::DEFAULT, None).unwrap();
        let git = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        assert_eq!(tree.entry("").unwrap().unwrap().id, git.id().to_string());
        for path in ["apps", "apps/shop", "apps/shop/a.yaml", "apps/shop/deep/b", "apps/link", "run"] {
            let theirs = git.get_path(Path::new(path)).unwrap().id().to_string();
            assert_eq!(tree.entry(path).unwrap().unwrap().id, theirs, "{path}");
        }
    }

    #[test]
    fn files_above_the_limit_and_wrong_kinds_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("f"), "12345").unwrap();
        let tree = DirTree::open(dir.path()).unwrap();
        assert_eq!(tree.read("f", 5).unwrap(), b"12345");
        assert!(matches!(tree.read("f", 4), Err(TreeError::TooLarge { size: 5, limit: 4, .. })));
        assert!(matches!(tree.read("d", 4), Err(TreeError::WrongKind { .. })));
        assert!(matches!(tree.entries("f"), Err(TreeError::WrongKind { .. })));
        assert!(matches!(DirTree::open(&dir.path().join("none")), Err(TreeError::NotFound(_))));
    }
}
