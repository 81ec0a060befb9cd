//! Notes that wait to be written, and those that were written lately: repetitions of both only raise a count.

use super::{Note, event_name};
use crate::lock::lock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Different notes that wait to be written; more are dropped. An outage of the API server with a thousand Deliveries
/// fits; it is a few MiB.
const LARGEST: usize = 4096;

/// Notes that are remembered after they were written, so that their repetitions become a series.
const REMEMBERED: usize = 1024;

/// A series is over when nothing was added for so long.
const SERIES_END: Duration = Duration::from_secs(6 * 60);

/// A series is written at most this often.
const SERIES_PAUSE: Duration = Duration::from_secs(30);

/// What is lost is told in the log at most this often.
const TOLD_PAUSE: Duration = Duration::from_secs(60);

/// Notes on their way to the API server.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    pub(super) changed: Notify,
}

#[derive(Default)]
struct State {
    known: BTreeMap<Arc<Note>, Series>,
    waiting: VecDeque<Arc<Note>>,
    swept: Option<Instant>,
    closed: bool,
    dropped: u64,
    // Lost since that was last told, and when that was.
    untold: u64,
    told: Option<Instant>,
}

/// What became of a note.
struct Series {
    /// The Event's name.
    name: String,
    /// How often it was noted.
    count: u32,
    /// The count that the API server knows; 0 until the Event is there.
    written: u32,
    /// It waits for its turn, or is being written.
    under_way: bool,
    first_noted: Instant,
    last_noted: Instant,
    last_written: Instant,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    /// The note.
    pub note: Arc<Note>,
    /// The Event's name.
    pub name: String,
    /// How often it was noted; 1 makes the Event, more makes it a series.
    pub count: u32,
    /// When what it tells happened: the first time for an Event, the last one for a series.
    pub since: Instant,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Write this.
    Write(Write),
    /// Nothing before then.
    Until(Instant),
    /// Nothing.
    Nothing,
    /// Nothing ever again.
    End,
}

impl Queue {
    /// Takes a note, or counts it as a repetition.
    pub(super) fn note(&self, note: Note) {
        let mut state = self.state();
        if state.take(note, Instant::now()) {
            self.changed.notify_one();
        } else {
            state.lose("too many others wait to be written", Instant::now());
        }
    }

    /// Nothing is noted any more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// What to write now.
    pub(super) fn next(&self, now: Instant) -> Next {
        self.state().next(now)
    }

    /// It was written.
    pub(super) fn written(&self, write: &Write, now: Instant) {
        if let Some(series) = self.state().known.get_mut(&write.note) {
            series.written = write.count;
            series.under_way = false;
            series.last_written = now;
        }
    }

    /// It could not be written: the next one like it begins anew.
    pub(super) fn lost(&self, write: &Write, why: &str, now: Instant) {
        let mut state = self.state();
        state.known.remove(&write.note);
        state.lose(why, now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// `false` where there is no room.
    fn take(&mut self, note: Note, now: Instant) -> bool {
        self.sweep(now);
        if let Some(series) = self.known.get_mut(&note)
            && (series.under_way || now < series.last_noted + SERIES_END)
        {
            series.count = series.count.saturating_add(1);
            series.last_noted = now;
            return true;
        }
        if self.waiting.len() >= LARGEST {
            return false;
        }
        let note = Arc::new(note);
        let series = Series {
            name: event_name(&note.regarding.id.name),
            count: 1,
            written: 0,
            under_way: true,
            first_noted: now,
            last_noted: now,
            last_written: now,
        };
        // The key is the same note: the old one keeps its place otherwise.
        self.known.remove(&note);
        self.known.insert(note.clone(), series);
        self.waiting.push_back(note);
        true
    }

    /// Forgets series that are over, and the oldest where there are too many.
    fn sweep(&mut self, now: Instant) {
        let many = self.known.len() >= REMEMBERED + self.waiting.len();
        if !many && self.swept.is_some_and(|at| now < at + SERIES_PAUSE) {
            return;
        }
        self.swept = Some(now);
        let needed = |s: &Series| s.under_way || s.written < s.count;
        self.known.retain(|_, s| needed(s) || now < s.last_noted + SERIES_END);
        if self.known.len() < REMEMBERED + self.waiting.len() {
            return;
        }
        let mut rest: Vec<(Instant, Arc<Note>)> =
            self.known.iter().filter(|(_, s)| !needed(s)).map(|(n, s)| (s.last_noted, n.clone())).collect();
        rest.sort_by_key(|(at, _)| *at);
        // A quarter at once, or each further note would look at all of them again.
        for (_, note) in rest.iter().take(REMEMBERED / 4) {
            self.known.remove(note);
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        if let Some(note) = self.waiting.pop_front()
            && let Some(series) = self.known.get_mut(&note)
        {
            // Repetitions that came while it waited are told with the series.
            return Next::Write(Write {
                note,
                name: series.name.clone(),
                count: 1,
                since: series.first_noted,
            });
        }
        let due = |s: &Series| if self.closed { now } else { s.last_written + SERIES_PAUSE };
        let first = self
            .known
            .iter_mut()
            .filter(|(_, s)| !s.under_way && s.written < s.count)
            .min_by_key(|(_, s)| s.last_written);
        match first {
            Some((note, series)) if due(series) <= now => {
                series.under_way = true;
                let (name, count, since) = (series.name.clone(), series.count, series.last_noted);
                Next::Write(Write { note: note.clone(), name, count, since })
            }
            Some((_, series)) => Next::Until(due(series)),
            None if self.closed => Next::End,
            None => Next::Nothing,
        }
    }

    fn lose(&mut self, why: &str, now: Instant) {
        self.dropped += 1;
        self.untold += 1;
        if self.told.is_none_or(|at| now >= at + TOLD_PAUSE) {
            let lost = std::mem::take(&mut self.untold);
            self.told = Some(now);
            tracing::warn!(lost, why, "Kubernetes Events are lost; what they tell stands in the log");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::cluster::events::Regarding;
    use crate::core::manifest::ObjectId;

    fn note(text: &str) -> Note {
        let id = ObjectId {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: "a".into(),
            name: "b".into(),
        };
        Note {
            regarding: Regarding { api_version: "v1".into(), id, uid: None },
            related: None,
            warning: true,
            reason: "Held".into(),
            action: "Reconcile".into(),
            text: text.into(),
        }
    }

    fn write(next: Next) -> Write {
        match next {
            Next::Write(write) => write,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn repetitions_cost_no_room_and_become_a_series() {
        let queue = Queue::default();
        for _ in 0..LARGEST * 2 {
            queue.note(note("same"));
        }
        assert_eq!(queue.dropped(), 0);
        let now = Instant::now();
        let first = write(queue.next(now));
        assert_eq!(first.count, 1);
        assert_eq!(queue.next(now), Next::Nothing, "it is under way");
        queue.written(&first, now);
        assert_eq!(queue.next(now), Next::Until(now + SERIES_PAUSE));
        let series = write(queue.next(now + SERIES_PAUSE));
        assert_eq!((series.count as usize, &series.name), (LARGEST * 2, &first.name));
        queue.written(&series, now + SERIES_PAUSE);
        assert_eq!(queue.next(now + SERIES_PAUSE * 2), Next::Nothing);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_the_rest_is_written_in_order() {
        let queue = Queue::default();
        for n in 0..LARGEST + 7 {
            queue.note(note(&n.to_string()));
        }
        assert_eq!(queue.dropped(), 7);
        let now = Instant::now();
        let texts: Vec<String> = (0..LARGEST).map(|_| write(queue.next(now)).note.text.clone()).collect();
        assert!(texts.iter().enumerate().all(|(n, text)| *text == n.to_string()));
    }

    #[tokio::test]
    async fn what_was_lost_begins_anew_and_no_more_is_remembered_than_allowed() {
        let queue = Queue::default();
        queue.note(note("lost"));
        let now = Instant::now();
        let first = write(queue.next(now));
        queue.lost(&first, "no server", now);
        assert_eq!((queue.dropped(), queue.next(now)), (1, Next::Nothing));
        queue.note(note("lost"));
        assert_ne!(write(queue.next(now)).name, first.name);
        for n in 0..REMEMBERED * 3 {
            queue.note(note(&n.to_string()));
            queue.written(&write(queue.next(now)), now);
        }
        assert!(queue.state().known.len() <= REMEMBERED + 1, "{}", queue.state().known.len());
    }

    #[tokio::test]
    async fn a_closed_queue_ends_when_everything_is_written() {
        let queue = Queue::default();
        queue.note(note("a"));
        queue.note(note("a"));
        queue.close();
        let now = Instant::now();
        let first = write(queue.next(now));
        queue.written(&first, now);
        assert_eq!(write(queue.next(now)).count, 2, "the series is not waited for");
    }
}
