//! A directory on disk as `diff` and `render` take it: within its Git repository, so that it reaches what it refers to.

use crate::api::delivery::DeliverySpec;
use crate::api::repository::DeliverySet;
use crate::core::tree::{Entry, Tree, TreeError, join};
use crate::reconcile::directories;
use crate::source::{CommitId, Credentials, DirTree, Limits, Mirror, RemoteUrl, resolve};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory on disk.
pub struct Directory {
    /// The repository that it is in, or the directory itself.
    pub root: PathBuf,
    /// What stands there.
    pub tree: Arc<dyn Tree>,
    /// Where in it the directory is; empty for the root.
    pub path: String,
    /// Whether it is in a Git repository.
    pub in_git: bool,
}

impl Directory {
    /// Opens a directory. Its repository is the nearest one around it that has a `.git`.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let full = path.canonicalize().with_context(|| format!("{shown} cannot be read"))?;
        if !full.is_dir() {
            bail!("{shown} is not a directory");
        }
        let root = full.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(&full).to_path_buf();
        let inside = full.strip_prefix(&root).unwrap_or(Path::new(""));
        let inside = inside.to_str().with_context(|| format!("{shown}: its name is not UTF-8"))?.to_owned();
        let in_git = root.join(".git").exists();
        Ok(Directory { tree: Arc::new(DirTree::open(&root)?), root, path: inside, in_git })
    }

    /// The same directory as a commit of its repository has it; nothing is checked out.
    pub async fn at(path: &Path, revision: &str, cache: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let full = path.canonicalize().with_context(|| format!("{shown} cannot be read"))?;
        let Some(root) = full.ancestors().find(|dir| dir.join(".git").exists()) else {
            bail!("{shown} is in no Git repository, which --revision needs");
        };
        let inside = full.strip_prefix(root).unwrap_or(Path::new(""));
        let inside = inside.to_str().with_context(|| format!("{shown}: its name is not UTF-8"))?.to_owned();
        let commit = resolve(root, revision).map_err(anyhow::Error::msg)?;
        let url = RemoteUrl::parse(&root.to_string_lossy(), true)?;
        Self::from_mirror(url, &commit, inside, &Credentials::default(), cache).await
    }

    /// A directory as a commit of a remote repository has it.
    pub async fn from_mirror(
        url: RemoteUrl,
        commit: &CommitId,
        path: String,
        credentials: &Credentials,
        cache: &Path,
    ) -> anyhow::Result<Self> {
        let mirror = Mirror::open(cache, url)?;
        mirror.fetch_commit(commit, credentials, &Limits::default()).await?;
        let tree = Arc::new(mirror.tree(commit)?);
        Ok(Directory { root: cache.to_owned(), tree, path, in_git: true })
    }

    /// Goes from the top of a repository to the directory that a Delivery delivers. Answers whether it is another one.
    pub fn enter(&mut self, delivered: &str) -> bool {
        let delivered = delivered.trim_matches('/');
        let enters = self.in_git && self.path.is_empty() && !delivered.is_empty();
        if enters {
            delivered.clone_into(&mut self.path);
        }
        enters
    }

    /// What the Delivery of this directory would be if the Repository's sets were expanded over what stands on disk.
    pub fn delivery(&self, repository: &str, sets: &[DeliverySet]) -> anyhow::Result<Option<DeliverySpec>> {
        let only = Only { tree: self.tree.as_ref(), path: &self.path };
        let wanted = directories::wanted(repository, sets, &only).map_err(|p| anyhow::anyhow!(p.message))?;
        // Only this directory was looked at.
        if let Some(unusable) = wanted.unusable.into_values().next() {
            anyhow::bail!(unusable.problem.message);
        }
        Ok(wanted.specs.into_values().find(|spec| spec.source.path.trim_matches('/') == self.path))
    }
}

/// A tree in which nothing stands beside the way to one directory: looking for it does not read the rest.
struct Only<'a> {
    tree: &'a dyn Tree,
    path: &'a str,
}

impl Tree for Only<'_> {
    fn entries(&self, dir: &str) -> Result<Vec<Entry>, TreeError> {
        let below = match dir {
            "" => Some(self.path),
            dir => self.path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')),
        };
        match below.and_then(|rest| rest.split('/').next()).filter(|next| !next.is_empty()) {
            Some(next) => Ok(self.tree.entry(&join(dir, next))?.into_iter().collect()),
            None => self.tree.entries(dir),
        }
    }

    fn entry(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        self.tree.entry(path)
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        self.tree.read(path, limit)
    }
}

/// `NAME=VALUE` of `--set`.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// The values of `--set` by name; a later one wins.
pub fn assigned(set: &[(String, String)]) -> BTreeMap<String, String> {
    set.iter().cloned().collect()
}
