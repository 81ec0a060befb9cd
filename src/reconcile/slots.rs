//! How many Deliveries put a revision in place at a time: each holds its bundle, and what is to be done with each object, meanwhile.
//! Who takes long gives its place on, since it may wait for something that never answers, such as an admission webhook: one
//! bad Delivery does not slow the others. Whoever has one or waits for one is about to ask the cluster for much, which what may come
//! later (Events) goes by.

use crate::cluster::limit::{Asking, Limit};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Deliveries that put a revision in place at a time: enough to keep the API server busy with bundles of one object each. Each
/// takes some hundred kilobytes. Going back waits for nobody.
pub const PLACES: usize = 64;

/// How long one counts.
const COUNTS: Duration = Duration::from_secs(10);

/// The places.
#[derive(Clone, Debug)]
pub struct Slots {
    places: Arc<Semaphore>,
    limit: Limit,
}

/// A place that is taken, until this is dropped or for so long as one counts.
#[derive(Debug)]
pub struct Slot(AbortHandle);

impl Slots {
    /// Places for revisions of a cluster with this limit.
    pub fn new(limit: Limit) -> Self {
        Slots { places: Arc::new(Semaphore::new(PLACES)), limit }
    }

    /// Whether all are taken.
    pub fn are_taken(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Waits for one and takes it.
    pub async fn take(&self) -> Option<Slot> {
        let asking: Asking = self.limit.stand();
        // Never closed.
        let permit = self.places.clone().acquire_owned().await.ok()?;
        let held = tokio::spawn(async move {
            tokio::time::sleep(COUNTS).await;
            drop((permit, asking));
        });
        Some(Slot(held.abort_handle()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn who_hangs_holds_nobody_up_for_long() {
        let slots = Slots::new(Limit::new(PLACES));
        let mut hanging = Vec::new();
        for _ in 0..PLACES {
            hanging.push(slots.take().await.unwrap());
        }
        assert!(slots.are_taken());
        let since = Instant::now();
        let _next = slots.take().await.unwrap();
        assert!(since.elapsed() <= COUNTS + Duration::from_secs(1), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_come_later_waits_until_few_have_a_place_and_no_longer_than_they_count() {
        let limit = Limit::new(PLACES);
        let slots = Slots::new(limit.clone());
        let mut held = Vec::new();
        for _ in 0..PLACES / 2 {
            held.push(slots.take().await.unwrap());
        }
        let (long, share) = (COUNTS * 10, limit.share());
        assert!(timeout(COUNTS / 2, share.gap(long)).await.is_err());
        held.pop();
        assert!(timeout(COUNTS / 10, share.gap(long)).await.is_ok());
        held.push(slots.take().await.unwrap());
        assert!(timeout(COUNTS / 10, share.gap(long)).await.is_err());
        assert!(timeout(COUNTS, share.gap(long)).await.is_ok(), "who hangs does not count");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_done_gives_its_place_on_at_once() {
        let slots = Slots::new(Limit::new(PLACES));
        let mut held = Vec::new();
        for _ in 0..PLACES {
            held.push(slots.take().await.unwrap());
        }
        assert!(timeout(COUNTS / 2, slots.take()).await.is_err());
        held.pop();
        let since = Instant::now();
        let _next = slots.take().await.unwrap();
        assert!(since.elapsed() < Duration::from_millis(100), "{:?}", since.elapsed());
    }
}
