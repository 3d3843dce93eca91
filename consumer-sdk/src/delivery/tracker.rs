//! Which of the records handed out are done: the low watermark of a shard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

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
    counts: Counts,
    progress: Progress,
}

/// The records of one shard in order, from the first that is not done.
#[derive(Debug, Clone)]
pub(super) struct Tracker {
    inner: Arc<Mutex<Inner>>,
    counts: Arc<watch::Sender<Counts>>,
}

impl Tracker {
    pub(super) fn new(progress: Progress) -> Self {
        let inner = Inner { entries: VecDeque::new(), first: 0, counts: Counts::default(), progress };
        Self { inner: Arc::new(Mutex::new(inner)), counts: Arc::new(watch::channel(Counts::default()).0) }
    }

    /// Another record, done up to `position` when it is acknowledged.
    pub(super) fn add(&self, position: Position) -> Ticket {
        let mut inner = lock(&self.inner);
        let number = inner.first + inner.entries.len() as u64;
        inner.entries.push_back((position, State::Open));
        inner.counts.open += 1;
        self.publish(&mut inner);
        Ticket { tracker: self.clone(), number, state: State::Dropped }
    }

    /// Nothing is handed out up to `position`.
    pub(super) fn skip(&self, position: Position) {
        let mut inner = lock(&self.inner);
        inner.entries.push_back((position, State::Done));
        inner.advance();
        self.publish(&mut inner);
    }

    fn publish(&self, inner: &mut Inner) {
        inner.counts.held = inner.entries.len();
        self.counts.send_replace(inner.counts);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    fn close(&self, number: u64, state: State) {
        let mut inner = lock(&self.inner);
        let Some(place) = number.checked_sub(inner.first).map(|place| place as usize) else { return };
        let Some(entry) = inner.entries.get_mut(place).filter(|entry| entry.1 == State::Open) else { return };
        entry.1 = state;
        inner.counts.open -= 1;
        inner.counts.dropped += usize::from(state == State::Dropped);
        inner.advance();
        self.publish(&mut inner);
    }
}

impl Inner {
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
            let mut tickets: Vec<_> =
                (0..acknowledged.len()).map(|i| (i, tracker.add(position(i)))).collect();
            // Any order of acknowledging.
            tickets.sort_by_key(|(i, _)| (*i as u64).wrapping_mul(order | 1) % 101);
            for (i, ticket) in tickets {
                if acknowledged[i] { ticket.acknowledge() } else { drop(ticket) }
            }
            let done = acknowledged.iter().take_while(|done| **done).count();
            prop_assert_eq!(reached(), done.checked_sub(1).map(position));
            let dropped = acknowledged.iter().filter(|done| !**done).count();
            let held = acknowledged.len() - done;
            prop_assert_eq!(*tracker.watch().borrow(), Counts { open: 0, held, dropped });
        }
    }

    #[test]
    fn what_is_skipped_waits_for_what_came_before() {
        let (progress, reached) = checkpointer::tests::progress();
        let tracker = Tracker::new(progress);
        let ticket = tracker.add(position(0));
        tracker.skip(position(1));
        assert_eq!(reached(), None);
        ticket.acknowledge();
        assert_eq!(reached(), Some(position(1)));
    }
}
