//! A tree of files to render from: a commit's in Git, or a directory on disk.

pub mod memory;

use std::fmt;

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, executable or not.
    File,
    /// A symbolic link; its content is the target.
    Symlink,
    /// A directory.
    Directory,
    /// A Git submodule: its files are not in this repository.
    Submodule,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last segment of its path.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Identity of the content: equal ids, equal content (Git's object id, or a hash on disk).
    pub id: String,
}

/// Read access to a tree. Paths are relative to the root of the repository, with `/` between segments, no leading
/// or trailing `/`, no `.` and `..`; the root is `""`.
pub trait Tree: Send + Sync {
    /// Whether reading waits for a disk or a lock, and so belongs on a thread where that holds up nobody.
    fn blocks(&self) -> bool {
        true
    }
    /// The entries of a directory, in order of their names.
    fn entries(&self, dir: &str) -> Result<Vec<Entry>, TreeError>;
    /// The entry at a path, or `None`. Links are not followed.
    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError>;
    /// The content of a file (of a link: its target). A file above `limit` bytes is an error.
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError>;
}

/// Why a tree could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Nothing stands at the path.
    #[error("{0}: no such file or directory")]
    NotFound(String),
    /// A file was asked for and something else stands there, or the other way round.
    #[error("{path}: is not a {wanted}")]
    WrongKind {
        /// Path in the tree.
        path: String,
        /// `file` or `directory`.
        wanted: &'static str,
    },
    /// The file is above the limit.
    #[error("{path}: {size} bytes is above the limit of {limit}")]
    TooLarge {
        /// Path in the tree.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A name in the tree is not UTF-8, so no path can name it.
    #[error("{dir}: holds a name that is not UTF-8: {name}; rename the file")]
    NotUtf8 {
        /// The directory.
        dir: String,
        /// The name with what is not UTF-8 replaced.
        name: String,
    },
    /// The store behind the tree failed.
    #[error("{path}: {message}")]
    Broken {
        /// Path in the tree.
        path: String,
        /// What the store said.
        message: String,
    },
}

/// Joins a directory and a name of the tree.
pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// Where in Git an object came from: shown in every error about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Path of the file in the repository.
    pub file: String,
    /// First line of the document in the file, from 1; 0 when unknown (made by a generator).
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}
