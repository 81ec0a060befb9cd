//! What is known of the Repositories: shared between their controller, which writes it, and the Deliveries, which read.

use crate::api::delivery::Problem;
use crate::core::tree::Tree;
use crate::lock::lock;
use crate::source::{
    CommitId, CommitInfo, Credentials, Limits, Mirror, RevertError, RevertOrder, RevertedAt, SourceError,
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Namespace and name of a Repository.
pub type RepositoryKey = (String, String);

/// What was fetched of a Repository.
#[derive(Clone)]
pub struct Fetched {
    /// The branch or tag, empty for a commit by its id.
    pub branch: String,
    /// The commit.
    pub commit: CommitInfo,
}

/// What Deliveries need of a Repository's commits: a [`Mirror`]'s, or a history in memory.
pub trait Commits: Send + Sync {
    /// The files of a commit that is here.
    fn tree(&self, id: &CommitId) -> BoxFuture<'_, Result<Arc<dyn Tree>, SourceError>>;
    /// Sees to it that a commit is here, from the remote where it is not.
    fn fetch<'a>(
        &'a self,
        id: &'a CommitId,
        credentials: &'a Credentials,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<(), SourceError>>;
    /// Keeps a commit under a name, whatever happens to its branch. A name that is kept already moves.
    fn keep(&self, name: &str, id: &CommitId) -> BoxFuture<'_, Result<(), SourceError>>;
    /// Keeps what stands under a name no longer.
    fn forget(&self, name: &str) -> BoxFuture<'_, Result<(), SourceError>>;
    /// Sees to it that the remote has a commit that takes another one back. Without a remote there is none.
    fn revert<'a>(
        &'a self,
        order: &'a RevertOrder,
        _credentials: &'a Credentials,
        _limits: &'a Limits,
    ) -> BoxFuture<'a, Result<RevertedAt, RevertError>> {
        let name = order.branch.clone();
        Box::pin(async move { Err(RevertError::NoBranch { url: "the history".into(), name }) })
    }
}

/// Git's object store is read on threads of its own: it waits for the disk and for other readers.
impl Commits for Mirror {
    fn tree(&self, id: &CommitId) -> BoxFuture<'_, Result<Arc<dyn Tree>, SourceError>> {
        let id = id.clone();
        self.apart(move |mirror| Ok(Arc::new(mirror.tree(&id)?) as Arc<dyn Tree>))
    }

    fn fetch<'a>(
        &'a self,
        id: &'a CommitId,
        credentials: &'a Credentials,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move { self.fetch_commit(id, credentials, limits).await.map(|_| ()) })
    }

    fn keep(&self, name: &str, id: &CommitId) -> BoxFuture<'_, Result<(), SourceError>> {
        let (name, id) = (name.to_owned(), id.clone());
        self.apart(move |mirror| mirror.keep(&name, &id))
    }

    fn forget(&self, name: &str) -> BoxFuture<'_, Result<(), SourceError>> {
        let name = name.to_owned();
        self.apart(move |mirror| mirror.forget(&name))
    }

    fn revert<'a>(
        &'a self,
        order: &'a RevertOrder,
        credentials: &'a Credentials,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<RevertedAt, RevertError>> {
        Box::pin(Mirror::revert(self, order, credentials, limits))
    }
}

impl Mirror {
    /// Does something with the mirror on a thread of its own.
    fn apart<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Mirror) -> Result<T, SourceError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, SourceError>> {
        let mirror = self.clone();
        let ended = |url: String, e: &dyn std::fmt::Display| SourceError::Git {
            url,
            what: "reading the mirror",
            detail: e.to_string(),
        };
        Box::pin(async move {
            let url = mirror.url().to_string();
            let done = tokio::task::spawn_blocking(move || act(&mirror)).await;
            // It ends early only with the process.
            done.unwrap_or_else(|e| Err(ended(url, &e)))
        })
    }
}

/// Where a Repository's objects are, and how to get more of them. There also while the remote is away.
#[derive(Clone)]
pub struct Store {
    /// Its commits.
    pub mirror: Arc<dyn Commits>,
    /// For fetching a commit by its id.
    pub credentials: Credentials,
    /// Limits of a remote call.
    pub limits: Limits,
}

impl Fetched {
    /// `branch@sha1:<commit>`, as Deliveries show it.
    pub fn revision(&self) -> String {
        let commit = self.commit.id.as_str();
        if self.branch.is_empty() {
            format!("sha1:{commit}")
        } else {
            format!("{}@sha1:{commit}", self.branch)
        }
    }
}

/// What is known of a Repository.
#[derive(Clone, Default)]
pub struct Known {
    /// What was fetched last; it stays in use while the remote is away.
    pub fetched: Option<Fetched>,
    /// Where its objects are.
    pub store: Option<Store>,
    /// Why the last poll failed.
    pub problem: Option<Problem>,
    /// When each of the last commits was first seen, the newest last: what commit-to-healthy is counted from.
    pub seen: VecDeque<(String, Timestamp)>,
    /// The Deliveries, by name, whose specs have changed with a commit: neither is taken without the other.
    pub awaited: Arc<BTreeMap<String, Awaited>>,
    /// Why it cannot be told what the commit fetched last makes of the Deliveries: none that the Repository made takes it.
    pub unexpanded: Option<Problem>,
}

/// How far the spec of a Delivery is that the commit fetched last gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// It is about to be written.
    Writing,
    /// It was written, as this version.
    Written(u64),
    /// It cannot be used, or the API server did not take it: the Delivery stays at the commit that it has.
    Refused(Problem),
}

/// Commits whose time of arrival is remembered.
const SEEN: usize = 16;

impl Known {
    /// Notes that a poll saw a commit; the first time counts.
    pub fn saw(&mut self, commit: &str, now: Timestamp) {
        if self.seen.iter().any(|(known, _)| known == commit) {
            return;
        }
        self.seen.push_back((commit.to_owned(), now));
        while self.seen.len() > SEEN {
            self.seen.pop_front();
        }
    }

    /// Whether a Delivery as it is at this version has the spec that the commit fetched last gives it.
    pub fn gives(&self, delivery: &str, version: u64) -> bool {
        match self.awaited.get(delivery) {
            None => true,
            Some(Awaited::Writing | Awaited::Refused(_)) => false,
            Some(Awaited::Written(at)) => version >= *at,
        }
    }

    /// Why a Delivery has to go without the commit fetched last.
    pub fn refused(&self, delivery: &str) -> Option<&Problem> {
        match self.awaited.get(delivery) {
            Some(Awaited::Refused(problem)) => Some(problem),
            _ => None,
        }
    }

    /// Notes how far the spec of a Delivery is.
    pub fn awaits(&mut self, delivery: &str, how_far: Awaited) {
        Arc::make_mut(&mut self.awaited).insert(delivery.to_owned(), how_far);
    }

    /// When a poll first saw a commit, if that was lately and in this life of the daemon.
    pub fn seen_at(&self, commit: &str) -> Option<Timestamp> {
        self.seen.iter().find(|(known, _)| known == commit).map(|(_, at)| *at)
    }
}

/// All that is known of the Repositories.
#[derive(Clone, Default)]
pub struct Sources(Arc<Mutex<HashMap<RepositoryKey, Known>>>);

impl Sources {
    /// What is known of a Repository; `None` when it was never seen.
    pub fn get(&self, key: &RepositoryKey) -> Option<Known> {
        self.lock().get(key).cloned()
    }

    /// Changes what is known.
    pub fn update(&self, key: &RepositoryKey, change: impl FnOnce(&mut Known)) {
        change(self.lock().entry(key.clone()).or_default());
    }

    /// Changes what is known of a source, if it is known: one that is gone is not made again by who is late.
    pub fn amend(&self, key: &RepositoryKey, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.lock().get_mut(key) {
            change(known);
        }
    }

    /// Forgets a Repository that was deleted.
    pub fn forget(&self, key: &RepositoryKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RepositoryKey, Known>> {
        // A panic elsewhere does not make the map wrong.
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_made_again_by_who_is_late() {
        let (sources, key) = (Sources::default(), ("shop".to_owned(), "Application web".to_owned()));
        sources.amend(&key, |_| {});
        assert!(sources.get(&key).is_none());
        sources.update(&key, |_| {});
        sources.amend(&key, |known| known.saw("1", Timestamp::UNIX_EPOCH));
        assert!(sources.get(&key).is_some_and(|known| known.seen.len() == 1));
        sources.forget(&key);
        sources.amend(&key, |_| {});
        assert!(sources.get(&key).is_none());
    }

    #[test]
    fn a_commit_is_taken_with_the_spec_that_it_brings() {
        let mut known = Known::default();
        assert!(known.gives("shop", 7), "it brings none");
        known.awaits("shop", Awaited::Writing);
        assert!(!known.gives("shop", 7) && known.gives("blog", 7));
        known.awaits("shop", Awaited::Written(9));
        assert!(!known.gives("shop", 8), "the watch is behind");
        assert!(known.gives("shop", 9) && known.gives("shop", 12));
    }
}
