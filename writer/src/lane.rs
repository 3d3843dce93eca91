//! One lane: records that wait, at most one aggregate that is sealed, and whether it is in flight.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use headworks_record::aggregate::{self, Unsealed};
use headworks_record::{HashKey, HashRange, PartitionKey, ShardId};
use tokio::time::Instant;

use crate::batches::Batches;
use crate::config::Config;
use crate::hot::Watch;
use crate::item::Item;
use crate::stream::{Capacity, Entry, Fault};

/// Records whose memory is asked for at a time: about as many as a core can wait for.
const AHEAD: usize = 12;

/// What an aggregate falls short of its units, by this, is worth the wait for another one if it is more than they are.
const WORTH_A_UNIT: usize = 64;

/// Aggregates are built for at most this ratio: what shrinks better leaves room.
const MOST_RATIO: f64 = 16.0;

/// At which sizes and times aggregates are sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealing {
    aggregate_bytes: usize,
    max_record_bytes: usize,
    /// What a Kinesis record is rounded up to on the bill.
    unit: usize,
    linger: Duration,
    fill: Duration,
    zstd_level: Option<i32>,
}

impl Sealing {
    pub(crate) fn new(config: &Config, capacity: Capacity) -> Self {
        let (aggregate_bytes, max_record_bytes) = (config.aggregate_bytes, config.max_record_bytes);
        let fill = Duration::from_millis(config.fill_ms);
        let (unit, linger, zstd_level) = (capacity.unit(), config.linger(), config.zstd_level);
        Self { aggregate_bytes, max_record_bytes, unit, linger, fill, zstd_level }
    }
}

/// An aggregate ready to be put; kept whole until it is settled, so that a retry
/// puts the same bytes.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) entry: Entry,
    pub(crate) items: Vec<Item>,
    /// What becomes of the entry's data with its MD5, which those of one call get together.
    unsealed: Option<Unsealed>,
}

impl Sealed {
    /// What the service will count.
    pub(crate) fn bytes(&self) -> usize {
        let unsealed = self.unsealed.as_ref().map_or(0, Unsealed::blob_len);
        self.entry.bytes() + unsealed
    }

    /// Completes the entries of a call.
    pub(crate) fn complete<'s>(call: impl Iterator<Item = &'s mut Sealed>) {
        let (mut places, mut unsealed) = (Vec::new(), Vec::new());
        for Sealed { entry, unsealed: of, .. } in call {
            if let Some(blob) = of.take() {
                places.push(&mut entry.data);
                unsealed.push(blob);
            }
        }
        for (place, blob) in places.into_iter().zip(Unsealed::seal_all(unsealed)) {
            *place = blob;
        }
    }

    /// The latest deadline of its members: after that, nobody waits for it.
    pub(crate) fn latest_deadline(&self) -> Option<Instant> {
        self.items.iter().map(|item| item.deadline).max()
    }
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) shard: ShardId,
    pub(crate) range: HashRange,
    label: PartitionKey,
    /// Bytes of an aggregate that become one byte on the stream: 1 without compression, else as it was last.
    ratio: f64,
    pub(crate) waiting: VecDeque<Item>,
    waiting_bytes: usize,
    /// Sealed and to be put again.
    pub(crate) front: Option<Sealed>,
    pub(crate) in_flight: bool,
    /// Until when a failed aggregate pauses.
    pub(crate) not_before: Option<Instant>,
    pub(crate) failures: u32,
    /// What goes next goes in a call of its own: a call that it shared was refused as a whole.
    pub(crate) alone: bool,
    last_sent: Option<Instant>,
    /// Bytes that came since then.
    arrived: usize,
    /// How long it was from one to the next last time, and what came; not known after an idle while.
    before: (Duration, usize),
    /// No item's deadline is earlier than this; `None` while there are none.
    earliest: Option<Instant>,
    /// When the schedule's timer looks at the lane again.
    pub(crate) timer: Option<Instant>,
    pub(crate) watch: Watch,
    /// Whether the lane stands in the schedule's ready queue.
    pub(crate) queued: bool,
}

impl Lane {
    pub(crate) fn new(lane: headworks_record::Lane, range: HashRange) -> Self {
        Self {
            label: lane.key(),
            ratio: 1.0,
            shard: lane.shard,
            range,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            front: None,
            in_flight: false,
            not_before: None,
            failures: 0,
            alone: false,
            last_sent: None,
            arrived: 0,
            before: Default::default(),
            earliest: None,
            timer: None,
            watch: Watch::default(),
            queued: false,
        }
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.expect(item.deadline);
        self.waiting_bytes += item.encoded_bytes as usize;
        self.arrived += item.encoded_bytes as usize;
        self.waiting.push_back(item);
    }

    /// Puts items before all others, keeping their order.
    pub(crate) fn push_front(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.expect(item.deadline);
            self.waiting_bytes += item.encoded_bytes as usize;
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

    /// Until when the lane should collect more before it seals; `None`: it need not. What comes after an idle
    /// while leaves at once.
    pub(crate) fn lingers_until(&self, now: Instant, sealing: &Sealing) -> Option<Instant> {
        let waiting = self.on_the_stream(self.waiting_bytes);
        if waiting >= sealing.aggregate_bytes {
            return None;
        }
        let sent = self.last_sent?;
        let linger = sent + sealing.linger;
        if linger > now {
            return Some(linger);
        }
        if waiting == 0 || sealing.linger.is_zero() {
            return None;
        }
        // An aggregate ends with a whole record, half of one short of its last unit: with few units that is worth
        // another one.
        let (records, units) = (self.waiting.len(), waiting / sealing.unit);
        let short = waiting / records.max(1) / 2;
        let goal = (units + 1) * sealing.unit;
        if units > 0 && (short * WORTH_A_UNIT <= units * sealing.unit || goal > sealing.aggregate_bytes) {
            return None;
        }
        // If at least half of the unit comes in time, it is worth the wait. The rate is that of two aggregates: records
        // come in bursts, and one record is no rate.
        let (length, bytes) = self.before;
        let (length, bytes) = (length + now.saturating_duration_since(sent), bytes + self.arrived);
        let left = goal.saturating_sub(waiting) as f64 / self.on_the_stream(bytes).max(1) as f64;
        let full = now + length.mul_f64(left);
        let until = full.min(sent + sealing.fill);
        (full <= sent + 2 * sealing.fill && until > now).then_some(until)
    }

    /// Takes out what has passed its deadline. Costs nothing while no deadline can have passed.
    ///
    /// `refused` is the trouble with access that the stream is in. What is not stored for that reason its sender gives
    /// again, so it takes along what follows it in its batch with the same key: that has more time perhaps, and must
    /// not overtake it.
    pub(crate) fn take_expired(&mut self, now: Instant, refused: Option<Fault>) -> Vec<Item> {
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
        let (mut expired, mut live) = (Vec::new(), VecDeque::with_capacity(self.waiting.len()));
        let mut taken = HashSet::new();
        for mut item in self.waiting.drain(..) {
            let follows = !taken.is_empty() && taken.contains(&(item.batch, item.hash));
            if item.deadline > now && !follows {
                live.push_back(item);
                continue;
            }
            let access = refused.or(item.fault.filter(|fault| fault.is_access()));
            if let Some(fault) = access.or(follows.then_some(Fault::Access)) {
                item.suffer(fault);
                taken.insert((item.batch, item.hash));
            }
            expired.push(item);
        }
        self.waiting_bytes = live.iter().map(|item| item.encoded_bytes as usize).sum();
        self.waiting = live;
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

    /// Seals what waits, as much as fits. What was encoded elsewhere may be as large as a Kinesis record.
    ///
    /// A busy lane seals within whole units, and keeps the rest for the next one; with `hurry` none does.
    pub(crate) fn seal(
        &mut self,
        sealing: &Sealing,
        builder: &mut aggregate::Builder,
        batches: &Batches,
        now: Instant,
        hurry: bool,
    ) {
        if self.front.is_some() {
            return;
        }
        let most = sealing.max_record_bytes.saturating_sub(self.label.text().len());
        // It waits as long as that to fill, and then perhaps for its turn.
        let busy = self.last_sent.is_some_and(|sent| sent + 2 * sealing.fill > now);
        let units = sealing.aggregate_bytes.min(self.on_the_stream(self.waiting_bytes)) / sealing.unit;
        let limit = match units {
            1.. if busy && !hurry => units * sealing.unit,
            _ => sealing.aggregate_bytes,
        };
        // Within a Kinesis record also if it should not shrink this time.
        let limit = ((limit as f64 * self.ratio) as usize).min(sealing.max_record_bytes);
        let limit = limit.saturating_sub(self.label.text().len());
        let Some(hash) = self.waiting.front().map(|first| first.hash) else { return };
        let (items, data, unsealed) = match self.carried_on(limit, most, batches) {
            Some((members, data)) => (self.waiting.drain(..members).collect(), data, None),
            None => {
                let (items, unsealed) = self.build(limit, builder, batches);
                (items, Bytes::new(), Some(unsealed))
            }
        };
        self.waiting_bytes -= items.iter().map(|item: &Item| item.encoded_bytes as usize).sum::<usize>();
        let (data, unsealed) = match sealing.zstd_level {
            Some(level) => (self.compress(unsealed.map_or(data, Unsealed::seal), hash, level), None),
            None => (data, unsealed),
        };
        // A lone record is wrapped too, whatever it holds: under a partition key of its own it could be
        // overtaken by what follows it in the lane, where a reader works on partition keys side by side.
        let entry = Entry { partition_key: self.label.text().clone(), explicit_hash_key: Some(hash), data };
        self.front = Some(Sealed { entry, items, unsealed });
    }

    fn compress(&mut self, data: Bytes, hash: HashKey, level: i32) -> Bytes {
        let compressed = aggregate::zstd::compress(&data, &self.label, hash, level);
        let shrunk = compressed.as_ref().map_or(1.0, |blob| data.len() as f64 / blob.len() as f64);
        // Payloads change: what was learned of the last ones counts half.
        self.ratio = ((self.ratio + shrunk) / 2.0).clamp(1.0, MOST_RATIO);
        compressed.unwrap_or(data)
    }

    /// About what this many bytes of an aggregate are on the stream.
    fn on_the_stream(&self, bytes: usize) -> usize {
        if self.ratio == 1.0 { bytes } else { (bytes as f64 / self.ratio) as usize }
    }

    fn build(
        &mut self,
        limit: usize,
        builder: &mut aggregate::Builder,
        batches: &Batches,
    ) -> (Vec<Item>, Unsealed) {
        let mut members = 0;
        let contents = || self.waiting.iter().map(|item| batches.content(item));
        let mut ahead = contents();
        for (at, content) in contents().enumerate() {
            if at % AHEAD == 0 {
                // The records come from other cores. Asked for together, they are waited for together.
                let asked = ahead.by_ref().take(AHEAD).flatten().map(|content| content.first_byte());
                std::hint::black_box(asked.fold(0, |all, byte| all ^ byte));
            }
            match content {
                // One that is too large for an aggregate goes alone.
                Some(content) if members == 0 => content.push_to(builder),
                Some(content) if !content.push_within(builder, limit) => break,
                _ => {}
            }
            members += 1;
        }
        (self.waiting.drain(..members).collect(), builder.take_unsealed())
    }

    /// The bytes of an encoded aggregate all of whose members stand in front, if they go on as they are.
    ///
    /// Small ones are put together with what follows, so that they share a Kinesis record.
    fn carried_on(&self, limit: usize, most: usize, batches: &Batches) -> Option<(usize, Bytes)> {
        let first = batches.content(self.waiting.front()?)?;
        let waiting = self.waiting.iter().map_while(|item| batches.content(item));
        let (aggregate, origin) = first.whole(waiting)?;
        let bytes = aggregate.carried_on_len(origin).filter(|bytes| *bytes <= most)?;
        let alone = match self.waiting.get(aggregate.len()) {
            None => true,
            Some(next) => bytes >= limit / 2 || bytes + next.encoded_bytes as usize > limit,
        };
        if !alone {
            return None;
        }
        aggregate.carried_on(origin).map(|data| (aggregate.len(), data))
    }

    /// About how large the next Kinesis record is.
    pub(crate) fn next_bytes(&self, aggregate_bytes: usize) -> usize {
        let first = self.waiting.front().map_or(0, |item| item.encoded_bytes as usize);
        let unsealed = || self.on_the_stream(self.waiting_bytes).min(aggregate_bytes.max(first));
        self.front.as_ref().map_or_else(unsealed, Sealed::bytes)
    }

    /// Looks for a key that alone brings more than the shard takes: one that leads while the shard is
    /// throttled and a further aggregate waits.
    pub(crate) fn look_for_hot_keys(
        &mut self,
        sent: &Sealed,
        throttled: bool,
        batches: &Batches,
        now: Instant,
    ) {
        if throttled && self.waiting_bytes >= sent.bytes() / 2 {
            self.watch.look(&sent.items, batches, self.label.text(), &self.shard, now);
        } else {
            self.watch.forget();
        }
    }

    /// Takes the sealed aggregate to be put.
    pub(crate) fn send(&mut self, now: Instant, sealing: &Sealing) -> Option<Sealed> {
        let mut sealed = self.front.take()?;
        let length = self.last_sent.map(|sent| now.saturating_duration_since(sent));
        let arrived = std::mem::take(&mut self.arrived);
        // Nothing was collected for longer than this.
        let busy = length.filter(|length| *length <= 2 * sealing.fill);
        self.before = busy.map_or_else(Default::default, |length| (length, arrived));
        for item in &mut sealed.items {
            item.attempts += 1;
        }
        self.in_flight = true;
        self.not_before = None;
        self.last_sent = Some(now);
        Some(sealed)
    }
}
