//! The mirror of the repository as one life of a daemon has it: that of the cache, and a push that takes a while.

use super::git::Git;
use super::planted::Planted;
use super::world::{Life, World};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use windlass::core::tree::Tree;
use windlass::reconcile::sources::Commits;
use windlass::source::{CommitId, Credentials, Limits, RevertError, RevertOrder, RevertedAt, SourceError};

/// How long a push takes.
const PUSH: Duration = Duration::from_millis(400);

/// The mirror of one life.
pub struct Mirror {
    pub git: Git,
    pub world: World,
    pub life: Arc<Life>,
}

impl Commits for Mirror {
    fn tree(&self, id: &CommitId) -> BoxFuture<'_, Result<Arc<dyn Tree>, SourceError>> {
        self.git.tree(id)
    }

    fn fetch<'a>(
        &'a self,
        id: &'a CommitId,
        credentials: &'a Credentials,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        self.git.fetch(id, credentials, limits)
    }

    fn keep(&self, name: &str, id: &CommitId) -> BoxFuture<'_, Result<(), SourceError>> {
        self.git.keep(name, id)
    }

    fn forget(&self, name: &str) -> BoxFuture<'_, Result<(), SourceError>> {
        self.git.forget(name)
    }

    fn revert<'a>(
        &'a self,
        order: &'a RevertOrder,
        _: &'a Credentials,
        _: &'a Limits,
    ) -> BoxFuture<'a, Result<RevertedAt, RevertError>> {
        Box::pin(async move {
            tokio::time::sleep(PUSH).await;
            let never = self.world.lock().planted == Some(Planted::NothingReverted);
            if never || !self.life.is_alive() {
                return std::future::pending().await;
            }
            let outcome = self.git.lock().take_back(order);
            self.world.note(|| format!("{} reverts {}: {outcome:?}", self.life, order.bad));
            if outcome.is_ok() {
                let violation = self.world.lock().oracle.reverted(&self.life, order);
                self.world.fail(violation);
            }
            outcome
        })
    }
}
