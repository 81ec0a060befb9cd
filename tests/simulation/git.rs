//! The remote repository and the daemon's mirror of it, in memory: a history that grows, is rewritten and disappears.

use super::history::{Edit, History};
use super::things::Directory;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use windlass::core::tree::Tree;
use windlass::core::tree::memory::MemTree;
use windlass::reconcile::sources::{Commits, Fetched};
use windlass::source::{
    CommitId, CommitInfo, Credentials, Limits, RevertError, RevertOrder, RevertedAt, SourceError,
};

/// What stands in all directories at one commit.
pub type Content = Vec<Directory>;

/// The remote.
pub struct Remote {
    /// The branch, the oldest commit first.
    pub branch: Vec<CommitId>,
    /// Whether the branch is there.
    pub there: bool,
    /// Whether the remote answers.
    pub reachable: bool,
    /// Whether it gives away commits by their id.
    pub by_id: bool,
    /// All commits that were ever made.
    pub commits: BTreeMap<CommitId, (Content, Arc<MemTree>)>,
    /// Whether the branch takes no pushes.
    pub protected: bool,
    /// What was taken back: the commit, and where.
    pub reverts: BTreeMap<CommitId, (String, CommitId)>,
    /// What the mirror holds.
    mirrored: BTreeSet<CommitId>,
    kept: BTreeMap<String, CommitId>,
}

/// Shared by all daemons: they have one cache.
#[derive(Clone)]
pub struct Git(pub Arc<Mutex<Remote>>);

impl Git {
    /// A repository with one commit.
    pub fn new(history: &History) -> Self {
        let remote = Remote {
            branch: Vec::new(),
            there: true,
            reachable: true,
            by_id: history.by_id,
            commits: BTreeMap::new(),
            protected: history.protected,
            reverts: BTreeMap::new(),
            mirrored: BTreeSet::new(),
            kept: BTreeMap::new(),
        };
        let git = Git(Arc::new(Mutex::new(remote)));
        git.lock().add(history.deliveries.iter().map(|d| d.first.clone()).collect());
        git
    }

    /// The state behind.
    pub fn lock(&self) -> std::sync::MutexGuard<'_, Remote> {
        self.0.lock().unwrap()
    }

    /// What a poll of the branch brings.
    pub fn poll(&self) -> Result<Fetched, &'static str> {
        let mut remote = self.lock();
        if !remote.reachable {
            return Err("Unreachable");
        }
        let Some(head) = remote.branch.last().filter(|_| remote.there).cloned() else {
            return Err("ReferenceNotFound");
        };
        remote.mirrored.insert(head.clone());
        let commit = CommitInfo {
            id: head,
            author_name: "Ada".into(),
            author_email: String::new(),
            subject: "A change".into(),
            time: Timestamp::UNIX_EPOCH,
        };
        Ok(Fetched { branch: "main".into(), commit })
    }
}

impl Remote {
    /// A commit on the branch.
    pub fn add(&mut self, content: Content) -> CommitId {
        let id = self.make(content);
        self.branch.push(id.clone());
        id
    }

    /// A commit on no branch.
    fn make(&mut self, content: Content) -> CommitId {
        let id: CommitId = format!("{:040x}", 0xc0ffee_u64 * 0x1_0000_0000 + self.commits.len() as u64 + 1)
            .chars()
            .rev()
            .collect::<String>()
            .parse()
            .unwrap();
        let tree = Arc::new(tree(&content));
        self.commits.insert(id.clone(), (content, tree));
        id
    }

    /// Takes back what `bad` changed since `good`: on the branch if it can be, else on a branch of its own.
    pub fn take_back(&mut self, order: &RevertOrder) -> Result<RevertedAt, RevertError> {
        if !self.reachable {
            let detail = "simulated".to_owned();
            return Err(SourceError::Unreachable { host: "git".into(), detail }.into());
        }
        if !self.there || !self.branch.contains(&order.bad) {
            return Err(RevertError::NotThere {
                branch: order.branch.clone(),
                commit: order.bad.to_string(),
            });
        }
        if let Some((branch, commit)) = self.reverts.get(&order.bad) {
            return Ok(RevertedAt { branch: branch.clone(), commit: commit.clone() });
        }
        let (good, bad) = (self.commits[&order.good].0.clone(), self.commits[&order.bad].0.clone());
        let mut content = self.head();
        let mut conflict = false;
        for (d, directory) in content.iter_mut().enumerate() {
            match directory == &bad[d] {
                true => *directory = good[d].clone(),
                false => conflict |= good[d] != bad[d],
            }
        }
        let (branch, commit) = match self.protected || conflict {
            true => (order.side_branch.clone(), self.make(content)),
            false => (order.branch.clone(), self.add(content)),
        };
        self.reverts.insert(order.bad.clone(), (branch.clone(), commit.clone()));
        Ok(RevertedAt { branch, commit })
    }

    /// The content of the newest commit.
    pub fn head(&self) -> Content {
        self.branch.last().map(|id| self.commits[id].0.clone()).unwrap_or_default()
    }

    /// The content of a directory at a commit.
    pub fn at(&self, commit: &str, d: usize) -> Option<&Directory> {
        let id: CommitId = commit.parse().ok()?;
        self.commits.get(&id).and_then(|(content, _)| content.get(d))
    }

    /// Makes a commit of changes.
    pub fn commit(&mut self, edits: &[Edit]) {
        let mut content = self.head();
        for edit in edits {
            change(&mut content, edit);
        }
        self.add(content);
    }

    /// Takes the last commits away and makes another in their place.
    pub fn rewrite(&mut self, back: usize, edits: &[Edit]) {
        let left = self.branch.len().saturating_sub(back).max(1);
        let mut content = self.head();
        if self.branch.len() > left {
            self.branch.truncate(left);
            content = self.head();
        }
        for edit in edits {
            change(&mut content, edit);
        }
        self.add(content);
    }

    /// A commit with the content of the one before the newest.
    pub fn revert(&mut self) {
        if let [.., before, _] = self.branch.as_slice() {
            let content = self.commits[before].0.clone();
            self.add(content);
        }
    }

    /// The cache is gone: with it what was kept.
    pub fn lose_cache(&mut self) {
        self.mirrored.clear();
        self.kept.clear();
    }

    /// Whether a commit can still be had.
    pub fn can_be_had(&self, id: &CommitId) -> bool {
        self.mirrored.contains(id)
            || self.kept.values().any(|k| k == id)
            || self.reachable && (self.by_id || self.there && self.branch.contains(id))
    }

    fn has(&self, id: &CommitId) -> bool {
        self.mirrored.contains(id) || self.kept.values().any(|k| k == id)
    }
}

fn change(content: &mut Content, edit: &Edit) {
    let count = content.len();
    match edit {
        Edit::Put(d, key, thing) if *d < count => {
            content[*d].things.insert(key.clone(), thing.clone());
        }
        Edit::Remove(d, key) if *d < count => {
            content[*d].things.remove(key);
        }
        Edit::Move(d, key) if *d < count && count > 1 => {
            if let Some(thing) = content[*d].things.remove(key) {
                content[1 - *d].things.insert(key.clone(), thing);
            }
        }
        Edit::Empty(d) if *d < count => content[*d].things.clear(),
        Edit::Break(d, broken) if *d < count => content[*d].broken = *broken,
        Edit::Hook(d, name, Some(hook)) if *d < count => {
            content[*d].hooks.insert(name.clone(), hook.clone());
        }
        Edit::Hook(d, name, None) if *d < count => {
            content[*d].hooks.remove(name);
        }
        _ => {}
    }
}

fn tree(content: &Content) -> MemTree {
    let mut files = Vec::new();
    for (d, directory) in content.iter().enumerate() {
        files.push((format!("d{d}/README.md"), "Manifests.".to_owned()));
        for (key, thing) in &directory.things {
            let text = thing.manifest(key, None).to_string();
            files.push((format!("d{d}/{}-{}.json", key.0.names().2, key.1), text));
        }
        for (name, hook) in &directory.hooks {
            files.push((format!("d{d}/hook-{name}.json"), hook.manifest(name).to_string()));
        }
        if directory.broken {
            files.push((format!("d{d}/broken.yaml"), "a: [b\n".to_owned()));
        }
    }
    MemTree::new(files)
}

fn missing(id: &CommitId) -> SourceError {
    SourceError::CommitNotFound { url: "memory".into(), id: id.to_string() }
}

impl Commits for Git {
    fn tree(&self, id: &CommitId) -> BoxFuture<'_, Result<Arc<dyn Tree>, SourceError>> {
        let remote = self.lock();
        let found = match remote.has(id) {
            true => Ok(remote.commits[id].1.clone() as Arc<dyn Tree>),
            false => Err(missing(id)),
        };
        Box::pin(std::future::ready(found))
    }

    fn fetch<'a>(
        &'a self,
        id: &'a CommitId,
        _: &'a Credentials,
        _: &'a Limits,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        let mut remote = self.lock();
        let found = match remote.can_be_had(id) {
            true => {
                remote.mirrored.insert(id.clone());
                Ok(())
            }
            false => Err(missing(id)),
        };
        Box::pin(std::future::ready(found))
    }

    fn keep(&self, name: &str, id: &CommitId) -> BoxFuture<'_, Result<(), SourceError>> {
        let mut remote = self.lock();
        let kept = match remote.has(id) {
            true => {
                remote.kept.insert(name.to_owned(), id.clone());
                Ok(())
            }
            false => Err(missing(id)),
        };
        Box::pin(std::future::ready(kept))
    }

    fn forget(&self, name: &str) -> BoxFuture<'_, Result<(), SourceError>> {
        self.lock().kept.remove(name);
        Box::pin(std::future::ready(Ok(())))
    }
}
