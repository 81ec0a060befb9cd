//! How much a cluster is asked at once, and when it asked to be left alone.
//!
//! Two bounds: one for the cluster, and a smaller one for each [`Share`] of it (a Delivery has one). Both queues
//! are first come, first served, so a Delivery of a thousand objects stands in the common queue with no more than
//! its share, and one with a single object waits for a few requests, not for a thousand. What may come later than
//! anything else, such as Events, waits for a [gap](Share::gap) before it takes its place in the queue.

use crate::lock::lock;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// No server keeps everybody waiting for longer than this, whatever its `Retry-After` says.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The bound for one cluster.
#[derive(Clone, Debug)]
pub struct Limit {
    all: Arc<Semaphore>,
    /// How many have a turn, or stand in the common queue for one.
    asking: Arc<watch::Sender<usize>>,
    share: usize,
    not_before: Arc<Mutex<Option<Instant>>>,
}

/// One caller's part of a [`Limit`]: at most half of it at once.
#[derive(Clone, Debug)]
pub struct Share {
    limit: Limit,
    own: Arc<Semaphore>,
}

/// The right to have one request under way; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
    _asking: Asking,
}

impl Limit {
    /// At most `concurrency` requests at once (at least one).
    pub fn new(concurrency: usize) -> Self {
        let concurrency = concurrency.max(1);
        Limit {
            all: Arc::new(Semaphore::new(concurrency)),
            asking: Arc::default(),
            share: concurrency.div_ceil(2),
            not_before: Arc::default(),
        }
    }

    /// Another bound for the same cluster, whose pauses hold for both.
    pub fn beside(&self, concurrency: usize) -> Self {
        Limit { not_before: self.not_before.clone(), ..Limit::new(concurrency) }
    }

    /// A new share.
    pub fn share(&self) -> Share {
        Share { limit: self.clone(), own: Arc::new(Semaphore::new(self.share)) }
    }

    /// Counts as one who stands in the common queue, until the answer is dropped: who will ask for much and waits for something else
    /// first.
    pub fn stand(&self) -> Asking {
        Asking::new(&self.asking)
    }

    fn pause(&self) -> Option<Instant> {
        *lock(&self.not_before)
    }
}

/// One who has a turn or stands in the queue for one, until this is dropped.
#[derive(Debug)]
pub struct Asking(Arc<watch::Sender<usize>>);

impl Asking {
    fn new(all: &Arc<watch::Sender<usize>>) -> Self {
        all.send_modify(|asking| *asking += 1);
        Asking(all.clone())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.send_modify(|asking| *asking -= 1);
    }
}

impl Share {
    /// Waits until less than half of what the cluster takes at once is asked of it, but no longer than this.
    pub async fn gap(&self, at_most: Duration) {
        let mut asking = self.limit.asking.subscribe();
        // Whether the gap or the time came does not matter.
        let _ = tokio::time::timeout(at_most, asking.wait_for(|asking| *asking < self.limit.share)).await;
    }

    /// Waits for its turn, and until the server wants to be asked again.
    pub async fn permit(&self) -> Permit {
        // The semaphores are never closed; if they were, an unbounded call is better than none.
        let own = self.own.clone().acquire_owned().await.ok();
        let asking = Asking::new(&self.limit.asking);
        let all = self.limit.all.clone().acquire_owned().await.ok();
        while let Some(until) = self.limit.pause().filter(|until| *until > Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        Permit { _own: own, _all: all, _asking: asking }
    }

    /// The server answered 429: nobody asks again before that time is over. Never shortens a pause.
    pub fn hold_off(&self, retry_after: Duration) {
        let until = Instant::now() + retry_after.min(LONGEST_PAUSE);
        let mut slot = lock(&self.limit.not_before);
        *slot = Some(slot.map_or(until, |old| old.max(until)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_greedy_share_leaves_room_for_the_others() {
        let limit = Limit::new(4);
        let (greedy, modest) = (limit.share(), limit.share());
        let held = [greedy.permit().await, greedy.permit().await];
        assert!(greedy.permit().now_or_never().is_none(), "half is all that one share gets");
        assert!(modest.permit().now_or_never().is_some());
        drop(held);
        assert!(greedy.permit().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_come_later_waits_for_a_gap_and_not_for_ever() {
        let (limit, long) = (Limit::new(4), Duration::from_secs(60));
        let (one, other) = (limit.share(), limit.share());
        let mut held = vec![one.permit().await];
        assert!(other.gap(long).now_or_never().is_some(), "less than half is taken");
        for share in [&one, &other, &other] {
            held.push(share.permit().await);
        }
        let since = Instant::now();
        other.gap(Duration::from_secs(10)).await;
        assert_eq!(since.elapsed(), Duration::from_secs(10));
        let third = limit.share();
        let mut standing = Box::pin(third.permit());
        assert!(futures::poll!(&mut standing).is_pending());
        let mut gap = Box::pin(third.gap(long));
        held.truncate(1);
        assert!(futures::poll!(&mut gap).is_pending(), "who stands in the queue counts");
        // Who gave up does not stand there any more.
        drop(standing);
        gap.await;
        assert_eq!(since.elapsed(), Duration::from_secs(10), "it came at once");
        let stands = limit.stand();
        assert!(other.gap(long).now_or_never().is_none(), "who will ask counts as well");
        drop(stands);
        assert!(other.gap(long).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_429_pauses_everybody_and_a_shorter_one_does_not_end_it() {
        let limit = Limit::new(4);
        let (one, other) = (limit.share(), limit.share());
        let start = Instant::now();
        one.hold_off(Duration::from_millis(200));
        one.hold_off(Duration::from_millis(10));
        other.permit().await;
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
}
