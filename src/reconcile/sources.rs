//! What is known of the Repositories: shared between their controller, which writes it, and the Deliveries, which read.

use crate::api::delivery::Problem;
use crate::source::{CommitInfo, Credentials, Limits, Mirror};
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
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

/// Where a Repository's objects are, and how to get more of them. There also while the remote is away.
#[derive(Clone)]
pub struct Store {
    /// The mirror.
    pub mirror: Arc<Mirror>,
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

    /// Forgets a Repository that was deleted.
    pub fn forget(&self, key: &RepositoryKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RepositoryKey, Known>> {
        // A panic elsewhere does not make the map wrong.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
