//! Which lane may send what, and when. Pure: it neither waits nor calls anything.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use headworks_record::aggregate::Builder;
use headworks_record::{HashKey, HashRange, Lane as LaneName, LaneCount, ShardId, ShardMap};
use rand::{Rng, RngExt};
use tokio::time::Instant;

use crate::answers::Answers;
use crate::config::Config;
use crate::hot::HotKey;
use crate::item::Item;
use crate::lane::{Lane, Sealed, Sealing};
use crate::limiter::Limiter;
use crate::outcome::Failure;
use crate::outcomes::Landed;
use crate::stream::{Capacity, Fault, Stored};

/// An aggregate in flight, and the lane that it came from.
#[derive(Debug)]
pub(crate) struct Flight {
    generation: u64,
    lane: usize,
    /// The shard that was predicted, and that the aggregate's label names.
    shard: ShardId,
    pub(crate) sealed: Sealed,
    sent: Instant,
}

/// Why an aggregate was not stored this time.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) fault: Fault,
    pub(crate) code: String,
    pub(crate) message: Arc<String>,
    /// The call was refused as a whole: perhaps for the sake of another aggregate in it.
    pub(crate) shared: bool,
}

/// A lane of an older shard map that still has an aggregate in flight: its keys stay closed.
#[derive(Debug)]
struct Retired {
    generation: u64,
    lane: usize,
    range: HashRange,
}

#[derive(Debug)]
pub(crate) struct Schedule {
    config: Arc<Config>,
    sealing: Sealing,
    /// Empty but while a lane seals: its memory serves one aggregate after the other.
    builder: Builder,
    map: ShardMap,
    lanes_per_shard: LaneCount,
    /// Changes with the shard map: lanes of different generations are different lanes.
    generation: u64,
    lanes: Vec<Lane>,
    /// One for each open shard, in the map's order.
    limiters: Vec<Limiter>,
    retired: Vec<Retired>,
    /// Stored on another shard than predicted; put again when a fresh map knows that one.
    parked: Vec<(Flight, Stored)>,
    /// When credentials, permissions or keys last stood in the way of a put. It is the stream's trouble and not a
    /// lane's: what is never put because others are tried is not put for that reason either.
    refused: Option<(Instant, Fault)>,
    /// Why the last fresh map did not come.
    unlisted: Option<Fault>,
    ready: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    misplaced: u64,
}

impl Schedule {
    pub(crate) fn new(
        config: Arc<Config>,
        map: ShardMap,
        lanes_per_shard: LaneCount,
        capacity: Capacity,
        now: Instant,
    ) -> Self {
        let lanes = lanes_of(&map, lanes_per_shard);
        let limiters = vec![Limiter::new(config.limit_shards, now); map.open().len()];
        Self {
            sealing: Sealing::new(&config, capacity),
            builder: Builder::new(),
            config,
            map,
            lanes_per_shard,
            generation: 0,
            lanes,
            limiters,
            retired: Vec::new(),
            parked: Vec::new(),
            refused: None,
            unlisted: None,
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            misplaced: 0,
        }
    }

    pub(crate) fn push(&mut self, item: Item) {
        let lane = self.lane_of(item.hash);
        self.lanes[lane].push(item);
        self.queue(lane);
    }

    /// Whether a fresh shard map is needed to go on.
    pub(crate) fn needs_map(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Aggregates put again because another shard answered than the one that was predicted.
    pub(crate) fn misplaced(&self) -> u64 {
        self.misplaced
    }

    /// When to look again although nothing happens.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let parked =
            self.parked.iter().flat_map(|(flight, _)| &flight.sealed.items).map(|item| item.deadline).min();
        self.timers.peek().map(|Reverse((at, ..))| *at).into_iter().chain(parked).min()
    }

    /// Collects one call's worth of aggregates from lanes that may send now, at most one of each lane,
    /// and answers what has passed its deadline. With `hurry`, lanes do not linger; without `room` for
    /// a call, nothing is collected.
    pub(crate) fn collect(
        &mut self,
        now: Instant,
        room: bool,
        hurry: bool,
        answers: &mut Answers<'_>,
    ) -> Vec<Flight> {
        self.fire_timers(now);
        self.expire_parked(now, answers);
        let access = self.access(now);
        let mut call = Vec::new();
        let mut call_bytes = 0;
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            self.lanes[index].queued = false;
            let expired = self.lanes[index].take_expired(now, access);
            let hot = self.lanes[index].watch.hot().cloned();
            expired.iter().for_each(|item| expire(item, hot.as_deref(), answers));
            if !self.may_send(index, now, hurry) || self.is_limited(index, now) {
                self.watch_deadline(index);
                continue;
            }
            if self.lanes[index].alone && !call.is_empty() {
                self.queue(index);
                continue;
            }
            let lane = &mut self.lanes[index];
            lane.seal(&self.sealing, &mut self.builder, answers.batches(), now, hurry);
            let bytes = lane.front.as_ref().map_or(0, Sealed::bytes);
            let fits = call.len() < self.config.call_entries && call_bytes + bytes <= self.config.call_bytes;
            if !room || !fits {
                self.queue(index);
                self.watch_deadline(index);
                continue;
            }
            if let Some(sealed) = lane.send(now, &self.sealing) {
                call_bytes += bytes;
                let limiter = &mut self.limiters[index / usize::from(self.lanes_per_shard.get())];
                limiter.take(bytes);
                lane.look_for_hot_keys(&sealed, limiter.is_on(), answers.batches(), now);
                let (shard, alone) = (lane.shard.clone(), lane.alone);
                call.push(Flight { generation: self.generation, lane: index, shard, sealed, sent: now });
                if alone {
                    break;
                }
            }
        }
        Sealed::complete(call.iter_mut().map(|flight| &mut flight.sealed));
        call
    }

    /// Takes the answer to one aggregate that was in flight.
    pub(crate) fn settle(
        &mut self,
        flight: Flight,
        result: Result<Stored, Trouble>,
        now: Instant,
        rng: &mut impl Rng,
        answers: &mut Answers<'_>,
    ) {
        let let_in = match &result {
            Ok(_) => true,
            Err(trouble) => trouble.fault == Fault::Throttled,
        };
        if let_in && self.refused.is_some_and(|(last, _)| flight.sent >= last) {
            self.refused = None;
        }
        match result {
            Ok(stored) if stored.shard == flight.shard => {
                self.close(&flight);
                if flight.generation == self.generation {
                    let lane = &mut self.lanes[flight.lane];
                    (lane.failures, lane.alone) = (0, false);
                }
                place(&flight.sealed, stored, answers);
            }
            Ok(stored) => self.parked.push((flight, stored)),
            Err(trouble) if trouble.fault == Fault::Permanent && trouble.shared => {
                if flight.generation == self.generation {
                    self.lanes[flight.lane].alone = true;
                }
                self.put_back(flight, &trouble, now, rng);
            }
            Err(trouble) if trouble.fault == Fault::Permanent => {
                self.close(&flight);
                if flight.generation == self.generation {
                    self.lanes[flight.lane].alone = false;
                }
                let failure = Failure::Refused { code: trouble.code, message: trouble.message.to_string() };
                flight.sealed.items.iter().for_each(|item| answers.failed(item, failure.clone()));
            }
            Err(trouble) => self.put_back(flight, &trouble, now, rng),
        }
    }

    /// Takes a fresh shard map; tells whether it differs. Then what landed elsewhere is put again.
    pub(crate) fn refresh(&mut self, map: ShardMap, now: Instant) -> bool {
        self.unlisted = None;
        let changed = map.open() != self.map.open();
        let map = map.remember(&self.map);
        if changed {
            self.regroup(map, now);
        } else {
            self.map = map;
        }
        for (flight, stored) in std::mem::take(&mut self.parked) {
            self.put_again(flight, stored);
        }
        changed
    }

    /// Takes note that no fresh shard map came.
    pub(crate) fn unlisted(&mut self, fault: Fault) {
        self.unlisted = Some(fault);
    }

    /// The trouble with access that the stream is in.
    fn access(&self, now: Instant) -> Option<Fault> {
        // By then it was tried again, and what came of that, if it was no refusal, counts.
        let stale = Duration::from_millis(self.config.max_backoff_ms + self.config.attempt_timeout_ms);
        let refused = self.refused.filter(|(last, _)| now < *last + stale).map(|(_, fault)| fault);
        refused.or_else(|| self.unlisted.filter(|fault| self.needs_map() && fault.is_access()))
    }

    /// Everything that is not in flight, to be answered when the writer gives up.
    pub(crate) fn abandon(&mut self) -> Vec<Item> {
        let parked = std::mem::take(&mut self.parked).into_iter().flat_map(|(flight, _)| {
            flight.sealed.items.into_iter().map(|mut item| {
                item.maybe_stored = true;
                item
            })
        });
        let mut items: Vec<Item> = parked.collect();
        items.extend(self.lanes.iter_mut().flat_map(Lane::take_all));
        items
    }

    fn lane_of(&self, hash: HashKey) -> usize {
        let shard = self.map.predict(hash);
        let lane = self.lanes_per_shard.lane_of(&self.map.open()[shard].range, hash);
        shard * usize::from(self.lanes_per_shard.get()) + usize::from(lane)
    }

    fn queue(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if !lane.queued {
            lane.queued = true;
            self.ready.push_back(index);
        }
    }

    fn may_send(&mut self, index: usize, now: Instant, hurry: bool) -> bool {
        let lane = &self.lanes[index];
        if lane.in_flight || !lane.has_work() {
            return false;
        }
        // The keys of a retired lane stay closed until what it has in flight is settled.
        if self.retired.iter().any(|retired| retired.range.overlaps(&lane.range)) {
            return false;
        }
        let pause = lane.not_before.filter(|until| *until > now);
        let linger = || lane.lingers_until(now, &self.sealing);
        let wait = pause.or_else(|| if hurry || lane.front.is_some() { None } else { linger() });
        if let Some(until) = wait {
            self.wake_at(index, until);
        }
        wait.is_none()
    }

    /// Whether the lane waits for its shard's limiter. It leaves the call to others then, and goes on filling
    /// its aggregate.
    fn is_limited(&mut self, index: usize, now: Instant) -> bool {
        let bytes = self.lanes[index].next_bytes(self.config.aggregate_bytes);
        let limiter = &mut self.limiters[index / usize::from(self.lanes_per_shard.get())];
        let until = limiter.waits_until(bytes, now);
        if let Some(until) = until {
            self.wake_at(index, until);
        }
        until.is_some()
    }

    /// Keys that alone bring more than their shard takes.
    pub(crate) fn hot_keys(&self) -> impl Iterator<Item = &Arc<HotKey>> {
        self.lanes.iter().filter_map(|lane| lane.watch.hot())
    }

    fn watch_deadline(&mut self, index: usize) {
        if let Some(deadline) = self.lanes[index].earliest_deadline() {
            self.wake_at(index, deadline);
        }
    }

    fn wake_at(&mut self, index: usize, at: Instant) {
        let lane = &mut self.lanes[index];
        if lane.timer.is_none_or(|timer| at < timer) {
            lane.timer = Some(at);
            self.timers.push(Reverse((at, self.generation, index)));
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, generation, index))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            if generation == self.generation {
                self.lanes[index].timer = None;
                self.queue(index);
            }
        }
    }

    /// Opens the flight's lane, or, if that is gone, the lanes that hold its keys now.
    fn close(&mut self, flight: &Flight) {
        if flight.generation == self.generation {
            self.lanes[flight.lane].in_flight = false;
            self.queue(flight.lane);
            return;
        }
        let place =
            self.retired.iter().position(|r| (r.generation, r.lane) == (flight.generation, flight.lane));
        if let Some(retired) = place.map(|place| self.retired.swap_remove(place)) {
            for index in 0..self.lanes.len() {
                if self.lanes[index].range.overlaps(&retired.range) {
                    self.queue(index);
                }
            }
        }
    }

    fn put_back(&mut self, flight: Flight, trouble: &Trouble, now: Instant, rng: &mut impl Rng) {
        self.close(&flight);
        let Flight { generation, lane, mut sealed, sent, .. } = flight;
        if trouble.fault == Fault::Throttled && generation == self.generation {
            self.limiters[lane / usize::from(self.lanes_per_shard.get())].throttled(sent, now);
        }
        if trouble.fault.is_access() {
            self.refused = Some((now, trouble.fault));
        }
        for item in &mut sealed.items {
            item.last = Some(Arc::clone(&trouble.message));
            item.suffer(trouble.fault);
            item.maybe_stored |= trouble.fault == Fault::Ambiguous;
        }
        if generation == self.generation {
            let failures = self.lanes[lane].failures + 1;
            let pause = self.config.pause_ceiling(failures).mul_f64(rng.random::<f64>());
            let lane = &mut self.lanes[lane];
            lane.failures = failures;
            lane.not_before = Some(now + pause);
            lane.front = Some(sealed);
        } else {
            self.put_first(sealed.items);
        }
    }

    /// Puts items back before everything that waits, each into the lane that holds its key now.
    fn put_first(&mut self, items: Vec<Item>) {
        let mut by_lane: Vec<(usize, Vec<Item>)> = Vec::new();
        for item in items {
            let lane = self.lane_of(item.hash);
            match by_lane.iter_mut().find(|(index, _)| *index == lane) {
                Some((_, items)) => items.push(item),
                None => by_lane.push((lane, vec![item])),
            }
        }
        for (index, items) in by_lane {
            self.lanes[index].push_front(items);
            self.queue(index);
        }
    }

    /// An aggregate landed on a shard that its label does not name: all of it is put again, before any of it
    /// is answered, and before anything that follows. Readers skip it whole if a member lies outside that
    /// shard. If none does they deliver it, and it is put again all the same: what follows bears another
    /// label, and a reader that works on labels side by side, as Lambda does, could overtake it.
    fn put_again(&mut self, flight: Flight, stored: Stored) {
        if self.map.range_of(&stored.shard).is_none() {
            self.parked.push((flight, stored));
            return;
        }
        self.close(&flight);
        let mut sealed = flight.sealed;
        self.misplaced += 1;
        let last = Arc::new(format!("the stream was resharded; {} took the aggregate", stored.shard));
        for item in &mut sealed.items {
            item.maybe_stored = true;
            item.last = Some(Arc::clone(&last));
            item.suffer(Fault::Ambiguous);
        }
        self.put_first(sealed.items);
    }

    fn expire_parked(&mut self, now: Instant, answers: &mut Answers<'_>) {
        if !self.parked.iter().any(|(flight, _)| flight.sealed.items.iter().any(|item| item.deadline <= now))
        {
            return;
        }
        let access = self.access(now);
        for (mut flight, stored) in std::mem::take(&mut self.parked) {
            let (expired, live): (Vec<Item>, Vec<Item>) =
                flight.sealed.items.into_iter().partition(|item| item.deadline <= now);
            for mut item in expired {
                item.maybe_stored = true;
                item.suffer(access.or(self.unlisted).unwrap_or(Fault::Ambiguous));
                expire(&item, None, answers);
            }
            flight.sealed.items = live;
            if flight.sealed.items.is_empty() {
                self.close(&flight);
            } else {
                self.parked.push((flight, stored));
            }
        }
    }

    fn regroup(&mut self, map: ShardMap, now: Instant) {
        // A shard that was there before keeps what was learned of it; what a new one takes is learned anew.
        let limiter = |shard: &headworks_record::Shard| {
            let before = self.map.open().iter().position(|old| old.id == shard.id);
            before.map_or_else(|| Limiter::new(self.config.limit_shards, now), |at| self.limiters[at].clone())
        };
        self.limiters = map.open().iter().map(limiter).collect();
        let old = std::mem::replace(&mut self.lanes, lanes_of(&map, self.lanes_per_shard));
        self.map = map;
        self.ready.clear();
        self.timers.clear();
        let generation = self.generation;
        self.generation += 1;
        for (index, mut lane) in old.into_iter().enumerate() {
            if lane.in_flight {
                self.retired.push(Retired { generation, lane: index, range: lane.range });
            }
            for item in lane.take_all() {
                self.push(item);
            }
        }
    }
}

fn lanes_of(map: &ShardMap, count: LaneCount) -> Vec<Lane> {
    let lane = |shard: &headworks_record::Shard, number| {
        Lane::new(LaneName { shard: shard.id.clone(), number }, count.slice(&shard.range, number))
    };
    map.open().iter().flat_map(|shard| (0..count.get()).map(move |number| lane(shard, number))).collect()
}

fn place(sealed: &Sealed, stored: Stored, answers: &mut Answers<'_>) {
    let Stored { shard, sequence_number } = stored;
    let first = sealed.items.first().map_or(0, |item| item.attempts);
    let mut landed = Arc::new(Landed { shard, sequence_number, attempts: first });
    for (item, sub_sequence_number) in sealed.items.iter().zip(0..) {
        // After a reshard, records that were put more often may share an aggregate with others.
        if item.attempts != landed.attempts {
            landed = Arc::new(Landed { attempts: item.attempts, ..Landed::clone(&landed) });
        }
        answers.stored(item, &landed, sub_sequence_number);
    }
}

fn expire(item: &Item, hot: Option<&HotKey>, answers: &mut Answers<'_>) {
    let (attempts, fault) = (item.attempts, item.fault);
    let mut last = item.last.as_ref().map_or("it waited behind others", |last| last).to_owned();
    if let Some(hot) = hot {
        last = format!("{last}; {hot}");
    }
    let failure = if item.maybe_stored {
        Failure::OutcomeUnknown { attempts, last, fault }
    } else {
        Failure::DeadlineExceeded { attempts, last, fault }
    };
    answers.failed(item, failure);
}
