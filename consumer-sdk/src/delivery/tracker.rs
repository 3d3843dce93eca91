//! Which of the records handed out are done: the low watermark of a shard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::lease::checkpointer::Progress;
use crate::position::Position;
use crate::sync::lock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Done,
    // Dropped without being acknowledged: nothing after it can be checkpointed.
    Dropped,
}

/// Counts that others wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Handed out and neither acknowledged nor dropped.
    pub(super) open: usize,
    /// From the first that is not acknowledged on: what has to be remembered.
    pub(super) held: usize,
    /// Dropped without being acknowledged.
    pub(super) dropped: usize,
}

#[derive(Debug)]
struct Inner {
    entries: VecDeque<(Position, State)>,
    // The number of the first entry.
    first: u64,
    open: usize,
    dropped: usize,
    progress: Progress,
    // Somebody waits for other counts. Without, nobody is woken: most records are acknowledged one by one.
    awaited: bool,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Notify,
}

/// The records of one shard in order, from the first that is not done.
#[derive(Debug, Clone)]
pub(super) struct Tracker(Arc<Shared>);

impl Tracker {
    pub(super) fn new(progress: Progress) -> Self {
        let (entries, first, open, dropped) = (VecDeque::new(), 0, 0, 0);
        let inner = Inner { entries, first, open, dropped, progress, awaited: false };
        Self(Arc::new(Shared { inner: Mutex::new(inner), changed: Notify::new() }))
    }

    /// More records, each done up to its position when its ticket is acknowledged.
    pub(super) fn add(&self, positions: impl IntoIterator<Item = Position>) -> impl Iterator<Item = Ticket> {
        let (first, next) = self.change(|inner| {
            let first = inner.next();
            inner.entries.extend(positions.into_iter().map(|position| (position, State::Open)));
            let next = inner.next();
            inner.open += (next - first) as usize;
            (first, next)
        });
        let tracker = self.clone();
        (first..next).map(move |number| Ticket { tracker: tracker.clone(), number, state: State::Dropped })
    }

    /// Nothing is handed out up to `position`.
    pub(super) fn skip(&self, position: Position) {
        self.change(|inner| {
            inner.entries.push_back((position, State::Done));
            inner.advance();
        });
    }

    /// Waits until the counts are as wanted.
    pub(super) async fn wait_for(&self, mut wanted: impl FnMut(&Counts) -> bool) -> Counts {
        loop {
            // Made before the look at the counts, so that no change falls between the two.
            let changed = self.0.changed.notified();
            {
                let mut inner = lock(&self.0.inner);
                let counts = inner.counts();
                if wanted(&counts) {
                    return counts;
                }
                inner.awaited = true;
            }
            changed.await;
        }
    }

    fn close(&self, number: u64, state: State) {
        self.change(|inner| {
            let place = number.checked_sub(inner.first).map(|place| place as usize);
            let entry = place.and_then(|place| inner.entries.get_mut(place));
            if let Some(entry) = entry.filter(|entry| entry.1 == State::Open) {
                entry.1 = state;
                inner.open -= 1;
                inner.dropped += usize::from(state == State::Dropped);
                inner.advance();
            }
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let (changed, awaited) = {
            let mut inner = lock(&self.0.inner);
            (change(&mut inner), std::mem::take(&mut inner.awaited))
        };
        if awaited {
            self.0.changed.notify_waiters();
        }
        changed
    }
}

impl Inner {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn counts(&self) -> Counts {
        Counts { open: self.open, held: self.entries.len(), dropped: self.dropped }
    }

    fn advance(&mut self) {
        let mut last = None;
        while let Some((_, State::Done)) = self.entries.front() {
            last = self.entries.pop_front();
            self.first += 1;
        }
        if let Some((position, _)) = last {
            self.progress.done(position);
        }
    }
}

/// One record's place in the tracker; dropping it says that the record was not done.
#[derive(Debug)]
pub(super) struct Ticket {
    tracker: Tracker,
    number: u64,
    state: State,
}

impl Ticket {
    pub(super) fn acknowledge(mut self) {
        self.state = State::Done;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tracker.close(self.number, self.state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lease::checkpointer;
    use crate::position::SequenceNumber;

    fn position(n: usize) -> Position {
        Position::new(SequenceNumber::new((n + 1).to_string()).unwrap(), 0)
    }

    proptest! {
        #[test]
        fn the_watermark_lies_before_the_first_that_is_not_done(
            acknowledged in proptest::collection::vec(any::<bool>(), 1..40),
            order in any::<u64>(),
        ) {
            let (progress, reached) = checkpointer::tests::progress();
            let tracker = Tracker::new(progress);
            let mut tickets: Vec<_> = tracker.add((0..acknowledged.len()).map(position)).enumerate().collect();
            // Any order of acknowledging.
            tickets.sort_by_key(|(i, _)| (*i as u64).wrapping_mul(order | 1) % 101);
            for (i, ticket) in tickets {
                if acknowledged[i] { ticket.acknowledge() } else { drop(ticket) }
            }
            let done = acknowledged.iter().take_while(|done| **done).count();
            prop_assert_eq!(reached(), done.checked_sub(1).map(position));
            let dropped = acknowledged.iter().filter(|done| !**done).count();
            let held = acknowledged.len() - done;
            prop_assert_eq!(lock(&tracker.0.inner).counts(), Counts { open: 0, held, dropped });
        }
    }

    #[test]
    fn what_is_skipped_waits_for_what_came_before() {
        let (progress, reached) = checkpointer::tests::progress();
        let tracker = Tracker::new(progress);
        let ticket = tracker.add([position(0)]).next().unwrap();
        tracker.skip(position(1));
        assert_eq!(reached(), None);
        ticket.acknowledge();
        assert_eq!(reached(), Some(position(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_of_every_change() {
        let (progress, _) = checkpointer::tests::progress();
        let tracker = Tracker::new(progress);
        let mut tickets: Vec<_> = tracker.add((0..3).map(position)).collect();
        let waiting = [1, 0].map(|open| {
            let tracker = tracker.clone();
            tokio::spawn(async move { tracker.wait_for(|counts| counts.open <= open).await })
        });
        for left in [2, 1, 0] {
            tokio::task::yield_now().await;
            assert_eq!(waiting.each_ref().map(|task| task.is_finished()), [left < 1, false]);
            tickets.pop().unwrap().acknowledge();
        }
        for task in waiting {
            assert_eq!(task.await.unwrap().dropped, 0);
        }
    }
}
