//! What is known of the Repositories: shared between their controller, which writes it, and the Deliveries, which read.

use crate::api::delivery::Problem;
use crate::source::{CommitInfo, Credentials, Limits, Mirror};
use std::collections::HashMap;
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

/// What is known of a Repository.
#[derive(Clone, Default)]
pub struct Known {
    /// What was fetched last; it stays in use while the remote is away.
    pub fetched: Option<Fetched>,
    /// Where its objects are.
    pub store: Option<Store>,
    /// Why the last poll failed.
    pub problem: Option<Problem>,
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
