//! A tree in memory: for tests, and for what never stood in a repository.

use super::{Entry, EntryKind, Tree, TreeError};
use crate::core::digest;
use std::collections::BTreeMap;

/// What stands at a path of a [`MemTree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file with its content.
    File(Vec<u8>),
    /// A link with its target.
    Symlink(String),
    /// A submodule with its commit.
    Submodule(String),
}

/// A tree of files in memory. Directories are there as long as something stands in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemTree {
    /// Each with its id, since hashing large files again and again takes long.
    nodes: BTreeMap<String, (Node, String)>,
}

impl MemTree {
    /// Files by path and content.
    pub fn new<P: Into<String>, C: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, C)>) -> Self {
        let node = |content: C| Node::File(content.into());
        files
            .into_iter()
            .fold(MemTree::default(), |tree, (path, content)| tree.with(&path.into(), node(content)))
    }

    /// With one thing more, or another one in its place.
    #[must_use]
    pub fn with(mut self, path: &str, node: Node) -> Self {
        let id = node.id();
        self.nodes.insert(path.to_owned(), (node, id));
        self
    }

    fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a str, &'a Node, &'a str)> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        self.nodes
            .iter()
            .filter_map(move |(path, (node, id))| Some((path.strip_prefix(&prefix)?, node, id.as_str())))
    }

    fn directory_id(&self, dir: &str) -> String {
        let mut bytes = Vec::new();
        for (path, _, id) in self.below(dir) {
            bytes.extend_from_slice(path.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(id.as_bytes());
            bytes.push(0);
        }
        digest::of_bytes(&bytes)
    }
}

impl Node {
    fn kind(&self) -> EntryKind {
        match self {
            Node::File(_) => EntryKind::File,
            Node::Symlink(_) => EntryKind::Symlink,
            Node::Submodule(_) => EntryKind::Submodule,
        }
    }

    fn id(&self) -> String {
        match self {
            Node::File(content) => digest::of_bytes(content),
            Node::Symlink(target) => digest::of_bytes(target.as_bytes()),
            Node::Submodule(commit) => commit.clone(),
        }
    }
}

impl Tree for MemTree {
    fn blocks(&self) -> bool {
        false
    }

    fn entries(&self, dir: &str) -> Result<Vec<Entry>, TreeError> {
        if self.nodes.contains_key(dir) {
            return Err(TreeError::WrongKind { path: dir.into(), wanted: "directory" });
        }
        let mut entries: BTreeMap<&str, Entry> = BTreeMap::new();
        for (path, node, id) in self.below(dir) {
            match path.split_once('/') {
                Some((name, _)) => {
                    entries.entry(name).or_insert_with(|| Entry {
                        name: name.into(),
                        kind: EntryKind::Directory,
                        id: self.directory_id(&super::join(dir, name)),
                    });
                }
                None => {
                    entries.insert(path, Entry { name: path.into(), kind: node.kind(), id: id.into() });
                }
            }
        }
        if entries.is_empty() && !dir.is_empty() {
            return Err(TreeError::NotFound(dir.into()));
        }
        Ok(entries.into_values().collect())
    }

    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some((node, id)) = self.nodes.get(path) {
            return Ok(Some(Entry { name, kind: node.kind(), id: id.clone() }));
        }
        let exists = path.is_empty() || self.below(path).next().is_some();
        Ok(exists.then(|| Entry { name, kind: EntryKind::Directory, id: self.directory_id(path) }))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        let content = match self.nodes.get(path).map(|(node, _)| node) {
            Some(Node::File(content)) => content.as_slice(),
            Some(Node::Symlink(target)) => target.as_bytes(),
            Some(Node::Submodule(_)) => {
                return Err(TreeError::WrongKind { path: path.into(), wanted: "file" });
            }
            None if self.below(path).next().is_some() => {
                return Err(TreeError::WrongKind { path: path.into(), wanted: "file" });
            }
            None => return Err(TreeError::NotFound(path.into())),
        };
        let size = content.len() as u64;
        if size > limit {
            return Err(TreeError::TooLarge { path: path.into(), size, limit });
        }
        Ok(content.to_vec())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_tree_like_others() {
        let tree = MemTree::new([("a/b.yaml", "x"), ("a/c/d.yaml", "y"), ("e", "z")])
            .with("l", Node::Symlink("a".into()));
        let names =
            |dir| tree.entries(dir).unwrap().into_iter().map(|e| (e.name, e.kind)).collect::<Vec<_>>();
        assert_eq!(
            names(""),
            [
                ("a".into(), EntryKind::Directory),
                ("e".into(), EntryKind::File),
                ("l".into(), EntryKind::Symlink)
            ]
        );
        assert_eq!(names("a"), [("b.yaml".into(), EntryKind::File), ("c".into(), EntryKind::Directory)]);
        assert_eq!(tree.entry("x").unwrap(), None);
        assert_eq!(tree.entries("x"), Err(TreeError::NotFound("x".into())));
        assert_eq!(tree.read("e", 0), Err(TreeError::TooLarge { path: "e".into(), size: 1, limit: 0 }));
        let before = tree.entry("a").unwrap().unwrap().id;
        let after = tree.clone().with("a/c/d.yaml", Node::File(b"other".to_vec()));
        assert_ne!(after.entry("a").unwrap().unwrap().id, before);
        assert_eq!(after.entry("e"), tree.entry("e"));
    }
}
