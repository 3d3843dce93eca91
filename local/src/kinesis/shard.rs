//! One shard: its records, its end and those who wait for more.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::error::Error;
use super::hash::HashRange;
use super::limiter::{Limiter, ReadWindow};
use super::ondemand::Load;
use super::reader::{ChildShard, Position, ReadBatch, ReadLimits, StartPosition};
use super::record::{PutEntry, Record, shard_id};
use super::sequence::SequenceNumber;
use super::settings::{ReadRate, WriteLimits};
use super::store::PutLog;
use super::stream::Stream;
use super::sync::lock;

/// What a shard is for its whole life.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) index: u32,
    pub(crate) range: HashRange,
    pub(crate) parent: Option<u32>,
    pub(crate) adjacent_parent: Option<u32>,
    pub(crate) created_ms: i64,
    /// The second that its sequence numbers begin with: later than its parents', so that numbers grow from
    /// parent to child even within one second.
    pub(crate) sequence_s: u64,
}

/// One shard.
#[derive(Debug)]
pub(crate) struct Shard {
    identity: Identity,
    state: Mutex<State>,
    reads: Mutex<ReadWindow>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    records: VecDeque<Record>,
    /// The index of the next record; that of the front is `next - records.len()`.
    next: u64,
    /// Readers see the records before this index: those that are kept, where anything is.
    shown: u64,
    last: SequenceNumber,
    last_arrival_ms: i64,
    bytes: u64,
    closed: Option<Closed>,
    limiter: Option<Limiter>,
    load: Load,
}

/// The end of a shard.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) at_ms: i64,
    pub(crate) ending: SequenceNumber,
    pub(crate) children: Vec<ChildShard>,
}

/// Why a shard did not take a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Closed,
    Throttled,
}

/// What a snapshot keeps of a shard.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) identity: Identity,
    pub(crate) records: Vec<Record>,
    pub(crate) next: u64,
    pub(crate) last: SequenceNumber,
    pub(crate) last_arrival_ms: i64,
    pub(crate) closed: Option<Closed>,
}

impl Shard {
    pub(crate) fn new(identity: Identity, limits: Option<WriteLimits>) -> Self {
        let starting =
            SequenceNumber::compose(identity.index, identity.sequence_s, 0, seconds(identity.created_ms));
        let created_ms = identity.created_ms;
        Self::restore(
            Contents {
                identity,
                records: Vec::new(),
                next: 1,
                last: starting,
                last_arrival_ms: created_ms,
                closed: None,
            },
            limits,
        )
    }

    pub(crate) fn restore(contents: Contents, limits: Option<WriteLimits>) -> Self {
        let bytes = contents.records.iter().map(|record| record.size() as u64).sum();
        let limiter = limits.map(|limits| Limiter::new(limits, contents.last_arrival_ms));
        Self {
            identity: contents.identity,
            state: Mutex::new(State {
                records: contents.records.into(),
                next: contents.next,
                shown: contents.next,
                last: contents.last,
                last_arrival_ms: contents.last_arrival_ms,
                bytes,
                closed: contents.closed,
                limiter,
                load: Load::default(),
            }),
            reads: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn contents(&self) -> Contents {
        let state = lock(&self.state);
        Contents { records: state.records.iter().cloned().collect(), ..state.outline(&self.identity) }
    }

    /// Everything but the records: it goes on behind them.
    pub(crate) fn outline(&self) -> Contents {
        lock(&self.state).outline(&self.identity)
    }

    /// Stores a record again that has an index already. One that is here already stays as it is.
    pub(crate) fn replay(&self, record: Record) {
        let mut state = lock(&self.state);
        let index = record.sequence.index();
        if index < state.next {
            return;
        }
        if index > state.next {
            // What lies between was trimmed before it was kept.
            state.records.clear();
            state.bytes = 0;
        }
        state.next = index + 1;
        state.shown = state.next;
        state.last = record.sequence;
        state.last_arrival_ms = state.last_arrival_ms.max(record.arrival_ms);
        state.bytes += record.size() as u64;
        state.records.push_back(record);
    }

    /// Ends the shard as it had ended before, if it had.
    pub(crate) fn close_as(&self, closed: Option<Closed>) {
        let mut state = lock(&self.state);
        if state.closed.is_none() {
            state.closed = closed;
        }
    }

    /// Gives what has been put to it since its stream was last looked at to `look`.
    pub(crate) fn with_load<T>(&self, look: impl FnOnce(&mut Load) -> T) -> T {
        look(&mut lock(&self.state).load)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn id(&self) -> String {
        shard_id(self.identity.index)
    }

    /// Woken by every put, by the shard's end and by the stream's deletion.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// Where the shard's numbers begin.
    pub(crate) fn starting(&self) -> SequenceNumber {
        let identity = &self.identity;
        SequenceNumber::compose(identity.index, identity.sequence_s, 0, seconds(identity.created_ms))
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        lock(&self.state).closed.clone()
    }

    /// Bytes and records that it holds.
    pub(crate) fn held(&self) -> (u64, usize) {
        let state = lock(&self.state);
        (state.bytes, state.records.len())
    }

    /// Stores a record. Readers are woken by [`Shard::wake`], once per batch.
    pub(crate) fn put(
        &self,
        entry: PutEntry,
        now_ms: i64,
        horizon_ms: i64,
        log: Option<&PutLog<'_>>,
    ) -> Result<SequenceNumber, Refusal> {
        let mut state = lock(&self.state);
        if state.closed.is_some() {
            return Err(Refusal::Closed);
        }
        let size = entry.size();
        if let Some(limiter) = &mut state.limiter
            && !limiter.take(size, now_ms)
        {
            return Err(Refusal::Throttled);
        }
        state.trim(horizon_ms);
        // Arrival never runs backwards, so that AT_TIMESTAMP is a binary search.
        let arrival_ms = now_ms.max(state.last_arrival_ms);
        let identity = &self.identity;
        let sequence =
            SequenceNumber::compose(identity.index, identity.sequence_s, state.next, seconds(arrival_ms));
        state.next += 1;
        state.last = sequence;
        state.last_arrival_ms = arrival_ms;
        state.bytes += size as u64;
        state.load.bytes += size as u64;
        state.load.records += 1;
        let PutEntry { partition_key, data, .. } = entry;
        let record = Record { sequence, partition_key, data, arrival_ms };
        match log {
            Some(log) => log.note(identity.index, &record),
            None => state.shown = state.next,
        }
        state.records.push_back(record);
        Ok(sequence)
    }

    /// Lets readers see the records before `end`.
    pub(crate) fn show(&self, end: u64) {
        let mut state = lock(&self.state);
        state.shown = state.shown.max(end);
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Ends the shard: nothing is stored any more, and readers find `children` behind the last record.
    pub(crate) fn close(&self, children: Vec<ChildShard>, now_ms: i64) {
        {
            let mut state = lock(&self.state);
            let identity = &self.identity;
            let at_ms = now_ms.max(state.last_arrival_ms);
            let ending =
                SequenceNumber::compose(identity.index, identity.sequence_s, state.next, seconds(at_ms));
            state.closed = Some(Closed { at_ms, ending, children });
            // No put is under way while a shard closes.
            state.shown = state.next;
        }
        self.wake();
    }

    pub(crate) fn trim(&self, horizon_ms: i64) {
        lock(&self.state).trim(horizon_ms);
    }

    /// Counts a call of `GetRecords`, or refuses it.
    pub(crate) fn admit_read(&self, rate: ReadRate, now_ms: i64) -> bool {
        lock(&self.reads).admit(rate, now_ms)
    }

    /// Counts what that call has given.
    pub(crate) fn charge_read(&self, bytes: usize) {
        lock(&self.reads).charge(bytes);
    }

    /// What it takes to keep its records, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        let state = lock(&self.state);
        state.bytes + state.records.len() as u64 * RECORD_COST
    }

    /// When its oldest record arrived.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        lock(&self.state).records.front().map(|record| record.arrival_ms)
    }

    /// Drops its oldest records, as far as they arrived up to `until_ms`, until they have cost `need`. Returns what
    /// they have cost and how many they were.
    pub(crate) fn drop_oldest(&self, until_ms: i64, need: u64) -> (u64, u64) {
        let mut state = lock(&self.state);
        let (mut freed, mut count) = (0, 0);
        while freed < need
            && let Some(record) = state.records.front()
            && record.arrival_ms <= until_ms
        {
            let size = record.size() as u64;
            state.bytes -= size;
            state.records.pop_front();
            freed += size + RECORD_COST;
            count += 1;
        }
        (freed, count)
    }

    pub(crate) fn has_more(&self, position: Position) -> bool {
        let state = lock(&self.state);
        position.0 < state.shown || state.closed.is_some()
    }

    pub(crate) fn position(
        &self,
        start: StartPosition,
        stream: &Stream,
        now_ms: i64,
    ) -> Result<Position, Error> {
        let state = lock(&self.state);
        Ok(Position(match start {
            StartPosition::TrimHorizon => 1,
            StartPosition::Latest => state.shown,
            StartPosition::AtSequence(number) => self.index_of(number, stream, &state)?.max(1),
            StartPosition::AfterSequence(number) => {
                (self.index_of(number, stream, &state)? + 1).min(state.shown)
            }
            // Seen: kinesalite's tests of GetShardIterator.
            StartPosition::AtTimestamp(at_ms) if at_ms > now_ms => {
                return Err(Error::InvalidArgument(format!(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                     timestampInMillis: {at_ms}, currentTimestampInMillis: {now_ms}"
                )));
            }
            StartPosition::AtTimestamp(at_ms) => {
                let before = state.records.partition_point(|record| record.arrival_ms < at_ms);
                (state.front() + before as u64).min(state.shown)
            }
        }))
    }

    /// The index that a number of this shard carries.
    fn index_of(&self, number: SequenceNumber, stream: &Stream, state: &State) -> Result<u64, Error> {
        let identity = &self.identity;
        // Seen: kinesalite's tests of GetShardIterator.
        if number.shard_index() != identity.index {
            return Err(Error::InvalidArgument(format!(
                "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {}",
                shard_id(number.shard_index()),
                self.id()
            )));
        }
        // The index after the last record is the ending number of a closed shard; beyond it a reader would wait
        // for records that are long past, as after a restart from an older snapshot.
        let known = number.index() < state.shown + u64::from(state.closed.is_some());
        // Seen: kinesalite's action of GetShardIterator.
        if number.shard_created_s() != identity.sequence_s || !known {
            return Err(Error::InvalidArgument(format!(
                "StartingSequenceNumber {number} used in GetShardIterator on shard {} in stream {} under account \
                 {} is invalid because it did not come from this stream.",
                self.id(),
                stream.name(),
                stream.account_id()
            )));
        }
        Ok(number.index())
    }

    pub(crate) fn read(
        &self,
        position: Position,
        limits: ReadLimits,
        now_ms: i64,
        horizon_ms: i64,
    ) -> ReadBatch {
        let mut state = lock(&self.state);
        state.trim(horizon_ms);
        let front = state.front();
        let shown = state.shown.max(front);
        let from = position.0.clamp(front, shown);
        let trimmed = front.saturating_sub(position.0.max(1));
        let skip = usize::try_from(from - front).unwrap_or(usize::MAX);

        let mut bytes = 0;
        let mut records =
            Vec::with_capacity(limits.records.min(state.records.len().saturating_sub(skip)).min(1_024));
        let seen = usize::try_from(shown - from).unwrap_or(usize::MAX).min(limits.records);
        for record in state.records.iter().skip(skip).take(seen) {
            bytes += record.size();
            if bytes > limits.bytes && !records.is_empty() {
                break;
            }
            records.push(record.clone());
        }

        let next = Position(from + records.len() as u64);
        let at_tip = next.0 >= shown;
        let waiting_since = match (&state.closed, records.last()) {
            _ if at_tip => now_ms,
            (_, Some(record)) => record.arrival_ms,
            (_, None) => state.records.get(skip).map_or(now_ms, |record| record.arrival_ms),
        };
        let continuation = match records.last() {
            Some(record) => record.sequence,
            None if at_tip && shown == state.next => state.last,
            None => SequenceNumber::compose(
                self.identity.index,
                self.identity.sequence_s,
                from - 1,
                seconds(state.last_arrival_ms),
            ),
        };
        ReadBatch {
            continuation,
            millis_behind_latest: now_ms.saturating_sub(waiting_since).max(0),
            end: state.closed.as_ref().filter(|_| at_tip).map(|closed| closed.children.clone()),
            trimmed,
            next,
            records,
        }
    }
}

/// What a record takes beside its payload and key: itself, and the heads of two allocations.
pub(crate) const RECORD_COST: u64 = size_of::<Record>() as u64 + 32;

impl State {
    fn outline(&self, identity: &Identity) -> Contents {
        Contents {
            identity: identity.clone(),
            records: Vec::new(),
            next: self.next,
            last: self.last,
            last_arrival_ms: self.last_arrival_ms,
            closed: self.closed.clone(),
        }
    }

    /// The index of the oldest record kept, or of the next one.
    fn front(&self) -> u64 {
        self.next - self.records.len() as u64
    }

    fn trim(&mut self, horizon_ms: i64) {
        while let Some(record) = self.records.front() {
            if record.arrival_ms >= horizon_ms {
                break;
            }
            self.bytes -= record.size() as u64;
            self.records.pop_front();
        }
    }
}

fn seconds(ms: i64) -> u64 {
    u64::try_from(ms.div_euclid(1_000)).unwrap_or(0)
}
