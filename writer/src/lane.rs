//! One lane: records that wait, at most one aggregate that is sealed, and whether it is in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use bytestring::ByteString;
use headworks_record::aggregate::{self, Origin};
use headworks_record::{HashKey, HashRange, Record, ShardId};
use tokio::time::Instant;

use crate::handle::weight;
use crate::stream::Entry;

/// A record that is taken and not yet answered.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) record: Record,
    pub(crate) origin: Option<Arc<Origin>>,
    pub(crate) hash: HashKey,
    pub(crate) deadline: Instant,
    /// Where its outcome goes: a batch, and a place in it.
    pub(crate) batch: usize,
    pub(crate) place: usize,
    pub(crate) attempts: u32,
    /// A put of it was not answered, or landed where readers skip it.
    pub(crate) maybe_stored: bool,
    /// What went wrong last.
    pub(crate) last: Option<Arc<str>>,
}

/// An aggregate ready to be put; kept whole until it is settled, so that a retry
/// puts the same bytes.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) entry: Entry,
    pub(crate) items: Vec<Item>,
}

impl Sealed {
    /// The latest deadline of its members: after that, nobody waits for it.
    pub(crate) fn latest_deadline(&self) -> Option<Instant> {
        self.items.iter().map(|item| item.deadline).max()
    }
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) shard: ShardId,
    pub(crate) range: HashRange,
    label: ByteString,
    pub(crate) waiting: VecDeque<Item>,
    waiting_bytes: usize,
    /// Sealed and to be put again.
    pub(crate) front: Option<Sealed>,
    pub(crate) in_flight: bool,
    /// Until when a failed aggregate pauses.
    pub(crate) not_before: Option<Instant>,
    pub(crate) failures: u32,
    last_sent: Option<Instant>,
    /// No item's deadline is earlier than this; `None` while there are none.
    earliest: Option<Instant>,
    /// When the schedule's timer looks at the lane again.
    pub(crate) timer: Option<Instant>,
    /// Whether the lane stands in the schedule's ready queue.
    pub(crate) queued: bool,
}

impl Lane {
    pub(crate) fn new(lane: headworks_record::Lane, range: HashRange) -> Self {
        Self {
            label: lane.label().into(),
            shard: lane.shard,
            range,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            front: None,
            in_flight: false,
            not_before: None,
            failures: 0,
            last_sent: None,
            earliest: None,
            timer: None,
            queued: false,
        }
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.expect(item.deadline);
        self.waiting_bytes += weight(&item.record);
        self.waiting.push_back(item);
    }

    /// Puts items before all others, keeping their order.
    pub(crate) fn push_front(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.expect(item.deadline);
            self.waiting_bytes += weight(&item.record);
            self.waiting.push_front(item);
        }
    }

    /// Everything that is not in flight, oldest first.
    pub(crate) fn take_all(&mut self) -> Vec<Item> {
        self.waiting_bytes = 0;
        let front = self.front.take().map(|sealed| sealed.items).unwrap_or_default();
        front.into_iter().chain(self.waiting.drain(..)).collect()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.front.is_some() || !self.waiting.is_empty()
    }

    /// Until when the lane should collect more before it seals; `None`: it need not.
    pub(crate) fn lingers_until(
        &self,
        now: Instant,
        linger: std::time::Duration,
        aggregate_bytes: usize,
    ) -> Option<Instant> {
        if self.waiting_bytes >= aggregate_bytes {
            return None;
        }
        self.last_sent.map(|sent| sent + linger).filter(|until| *until > now)
    }

    /// Takes out what has passed its deadline. Costs nothing while no deadline can have passed.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<Item> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        if self.front.as_ref().is_some_and(|sealed| sealed.items.iter().any(|item| item.deadline <= now)) {
            // Its bytes no longer stand for its members: the rest is sealed again.
            if let Some(sealed) = self.front.take() {
                self.push_front(sealed.items);
            }
            // The pause was that of an aggregate which is no more: what follows is tried before its own
            // deadline passes.
            self.not_before = None;
        }
        let (expired, live): (Vec<Item>, Vec<Item>) =
            self.waiting.drain(..).partition(|item| item.deadline <= now);
        self.waiting_bytes = live.iter().map(|item| weight(&item.record)).sum();
        self.waiting = live.into();
        let front = self.front.iter().flat_map(|sealed| &sealed.items);
        self.earliest = front.chain(&self.waiting).map(|item| item.deadline).min();
        expired
    }

    /// No item that is not in flight has a deadline before this.
    pub(crate) fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest.filter(|_| self.has_work())
    }

    fn expect(&mut self, deadline: Instant) {
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
    }

    /// Seals what waits, as much as fits.
    pub(crate) fn seal(&mut self, aggregate_bytes: usize) {
        if self.front.is_some() {
            return;
        }
        let Some(first) = self.waiting.pop_front() else { return };
        self.waiting_bytes -= weight(&first.record);
        let limit = aggregate_bytes.saturating_sub(self.label.len());
        let hash = first.hash;
        let mut builder = aggregate::Builder::new();
        builder.push_from(&first.record, first.origin.as_deref());
        let mut items = vec![first];
        while let Some(next) = self.waiting.front() {
            if builder.len_with(&next.record, next.origin.as_deref()) > limit {
                break;
            }
            builder.push_from(&next.record, next.origin.as_deref());
            self.waiting_bytes -= weight(&next.record);
            items.extend(self.waiting.pop_front());
        }
        // A lone record is wrapped too, whatever it holds: under a partition key of its own it could be
        // overtaken by what follows it in the lane, where a reader works on partition keys side by side.
        let entry = Entry {
            partition_key: self.label.clone(),
            explicit_hash_key: Some(hash),
            data: builder.finish(),
        };
        self.front = Some(Sealed { entry, items });
    }

    /// Takes the sealed aggregate to be put.
    pub(crate) fn send(&mut self, now: Instant) -> Option<Sealed> {
        let mut sealed = self.front.take()?;
        for item in &mut sealed.items {
            item.attempts += 1;
        }
        self.in_flight = true;
        self.not_before = None;
        self.last_sent = Some(now);
        Some(sealed)
    }
}
