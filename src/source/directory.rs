//! A directory on disk as a tree of files, for `windlass diff PATH` and `windlass render PATH`.

use crate::core::digest;
use crate::core::tree::{Entry, EntryKind, Tree, TreeError, join};
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A directory on disk. Links are never followed, so nothing outside is read; `.git` is not part of it.
///
/// The id of a directory covers everything below it, and is computed once: a change on disk afterwards does not
/// change it.
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
        let known = self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(id) = known {
            return Ok(id);
        }
        let id = match kind {
            EntryKind::File => digest_of_file(at).map_err(|error| failure(path, &error))?,
            EntryKind::Symlink => {
                let target = fs::read_link(at).map_err(|error| failure(path, &error))?;
                digest::of_bytes(target.as_os_str().as_bytes())
            }
            EntryKind::Submodule => digest::of_bytes(b"submodule"),
            EntryKind::Directory => {
                let entries = self.entries(path)?;
                let lines: Vec<String> = entries
                    .iter()
                    .map(|entry| format!("{:?} {} {:?}\n", entry.kind, entry.id, entry.name))
                    .collect();
                digest::of_bytes(lines.concat().as_bytes())
            }
        };
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), id.clone());
        Ok(id)
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

/// In parts, so that a large file is never in memory.
fn digest_of_file(path: &Path) -> io::Result<String> {
    use sha2::{Digest, Sha256};
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut part = vec![0; 64 << 10];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(digest::hex(&hash.finalize()[..16])),
            read => hash.update(&part[..read]),
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
