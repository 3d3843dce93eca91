//! [`Lane`]: the order, retries and splits of one share of a shard's partition keys. Pure: no I/O, no clock.
//!
//! A lane has at most one batch in flight, so the order of every key in it holds. A failed batch goes back to the
//! front, whole, cut at the failed record, or in halves; what was read later waits behind it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::event::EventFormat;
use crate::kinesis::Record;

/// What the lanes of a mapping obey.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) batch_size: usize,
    pub(super) window: Duration,
    pub(super) max_event_bytes: usize,
    pub(super) max_retries: Option<u32>,
    pub(super) max_age_ms: Option<i64>,
    pub(super) bisect: bool,
    pub(super) backoff_first: Duration,
    pub(super) backoff_max: Duration,
}

/// A record and what it adds to an event, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) record: Record,
    pub(super) event_len: usize,
    pub(super) read_at: Instant,
}

/// Records that are handed to the function together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: VecDeque<Item>,
    /// How often the function was invoked with its first record.
    pub(super) invokes: u32,
    /// Failures that count against the retry quota.
    failures: u32,
}

impl Batch {
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> + Clone {
        self.items.iter().map(|item| &item.record)
    }

    fn event_len(&self) -> usize {
        EventFormat::event_len(self.items.iter().map(|item| item.event_len).sum())
    }
}

/// Why records are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    RetryAttemptsExhausted,
    RecordAgeExceeded,
}

impl Condition {
    /// As in Lambda's invocation records.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
        }
    }
}

/// What a lane wants done next. After [`Step::Invoke`] and [`Step::Discard`] it wants nothing until it is told the
/// outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is empty or waits for an outcome.
    Rest,
    /// Ask again at this time.
    Wait(Instant),
    /// Hand [`Lane::current`] to the function.
    Invoke,
    /// [`Lane::current`] does not fit any event: it fails without being handed to the function.
    TooLarge,
    /// Write [`Lane::current`] to the on-failure destination.
    Discard(Condition),
}

/// Records that a lane has done with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) records: usize,
    /// Payload and partition key bytes.
    pub(super) bytes: usize,
}

impl Finished {
    fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        items.fold(Self::default(), |sum, item| Self {
            records: sum.records + 1,
            bytes: sum.bytes + item.record.size(),
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Read, and not yet part of a batch.
    queue: VecDeque<Item>,
    queue_len: usize,
    /// Failed batches, the next one last. All before `queue` in the shard.
    failed: Vec<Batch>,
    current: Option<Batch>,
    retry_at: Option<Instant>,
    /// Failures since the last progress: what the back-off grows with.
    failures_in_a_row: u32,
}

impl Lane {
    pub(super) fn push(&mut self, item: Item) {
        self.queue_len += item.event_len;
        self.queue.push_back(item);
    }

    /// The batch that is in flight.
    pub(super) fn current(&self) -> Option<&Batch> {
        self.current.as_ref()
    }

    /// The oldest record that is not finished.
    pub(super) fn oldest(&self) -> Option<&Record> {
        let item = self
            .current
            .as_ref()
            .and_then(|batch| batch.items.front())
            .or_else(|| self.failed.last().and_then(|batch| batch.items.front()))
            .or_else(|| self.queue.front());
        item.map(|item| &item.record)
    }

    /// Decides what to do. `flush` says that no record will follow, so that no window is worth waiting for.
    pub(super) fn step(&mut self, now: Instant, wall_ms: i64, flush: bool, rules: &Rules) -> Step {
        if self.current.is_some() {
            return Step::Rest;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Step::Wait(at);
        }
        self.retry_at = None;
        let Some(mut batch) = self.failed.pop() else {
            return self.step_fresh(now, wall_ms, flush, rules);
        };
        if let Some(expired) = take_expired(&mut batch, wall_ms, rules) {
            if !batch.items.is_empty() {
                self.failed.push(batch);
            }
            self.current = Some(expired);
            return Step::Discard(Condition::RecordAgeExceeded);
        }
        let exhausted = rules.max_retries.is_some_and(|retries| batch.failures > retries);
        self.start(batch, exhausted, rules)
    }

    fn step_fresh(&mut self, now: Instant, wall_ms: i64, flush: bool, rules: &Rules) -> Step {
        let Some(first) = self.queue.front() else { return Step::Rest };
        let full = self.queue.len() >= rules.batch_size
            || EventFormat::event_len(self.queue_len) >= rules.max_event_bytes;
        let due = first.read_at + rules.window;
        if !full && !flush && due > now {
            return Step::Wait(due);
        }
        let mut batch = Batch { items: VecDeque::new(), invokes: 0, failures: 0 };
        let mut len = 0;
        while let Some(item) = self.queue.front() {
            let grown = len + item.event_len;
            // A record that is too large by itself travels alone, so that nobody shares its fate.
            let fits = batch.items.is_empty() || EventFormat::event_len(grown) <= rules.max_event_bytes;
            if batch.items.len() >= rules.batch_size || !fits {
                break;
            }
            len = grown;
            self.queue_len -= item.event_len;
            batch.items.extend(self.queue.pop_front());
        }
        if let Some(expired) = take_expired(&mut batch, wall_ms, rules) {
            if !batch.items.is_empty() {
                self.failed.push(batch);
            }
            self.current = Some(expired);
            return Step::Discard(Condition::RecordAgeExceeded);
        }
        self.start(batch, false, rules)
    }

    fn start(&mut self, mut batch: Batch, exhausted: bool, rules: &Rules) -> Step {
        let step = if exhausted {
            Step::Discard(Condition::RetryAttemptsExhausted)
        } else if batch.event_len() > rules.max_event_bytes {
            Step::TooLarge
        } else {
            batch.invokes += 1;
            Step::Invoke
        };
        self.current = Some(batch);
        step
    }

    /// The current batch is finished: processed, or discarded for good.
    pub(super) fn finish(&mut self) -> Finished {
        self.failures_in_a_row = 0;
        self.current.take().map(|batch| Finished::of(batch.items.iter())).unwrap_or_default()
    }

    /// The current batch failed from the record at index `from` on; the records before it are finished, and
    /// returned. `jitter` is a random number from 0 to 1.
    pub(super) fn fail(&mut self, from: usize, now: Instant, jitter: f64, rules: &Rules) -> Finished {
        let Some(mut batch) = self.current.take() else { return Finished::default() };
        let finished = from.min(batch.items.len());
        let done = Finished::of(batch.items.iter().take(finished));
        batch.items.drain(..finished);
        if finished > 0 {
            // The quota belongs to the record that blocks the lane, and that is a new one now.
            batch.failures = 0;
            batch.invokes = 1;
            self.failures_in_a_row = 0;
        }
        if rules.bisect && (finished > 0 || batch.items.len() > 1) {
            // A split does not consume the retry quota. With a partial response the failed record is where it is
            // split; if that is the first one, halving isolates it all the same.
            if finished == 0 {
                let second = batch.items.split_off(batch.items.len() / 2);
                self.failed.push(Batch { items: second, invokes: batch.invokes, failures: 0 });
            }
        } else {
            batch.failures += 1;
        }
        if !batch.items.is_empty() {
            self.failed.push(batch);
        }
        self.retry_at = Some(now + backoff(self.failures_in_a_row, jitter, rules));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        done
    }
}

/// Takes the records from the front that are older than the rules allow. Arrival times never decrease in a shard.
fn take_expired(batch: &mut Batch, wall_ms: i64, rules: &Rules) -> Option<Batch> {
    let oldest_kept = wall_ms - rules.max_age_ms?;
    let expired = batch.items.iter().take_while(|item| item.record.arrival_ms < oldest_kept).count();
    if expired == 0 {
        return None;
    }
    let kept = batch.items.split_off(expired);
    let items = std::mem::replace(&mut batch.items, kept);
    let taken = Batch { items, invokes: batch.invokes, failures: batch.failures };
    batch.failures = 0;
    Some(taken)
}

/// Doubles from failure to failure; half of it is random, so that shards that failed together do not retry together.
pub(super) fn backoff(failures: u32, jitter: f64, rules: &Rules) -> Duration {
    let grown = rules.backoff_first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    grown.min(rules.backoff_max).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use bytes::Bytes;

    use super::*;
    use crate::kinesis::SequenceNumber;

    const NOW_MS: i64 = 1_000_000_000;

    /// The moment at which everything here happens.
    fn start() -> Instant {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START
    }

    fn rules() -> Rules {
        Rules {
            batch_size: 4,
            window: Duration::ZERO,
            max_event_bytes: 10_000,
            max_retries: None,
            max_age_ms: None,
            bisect: false,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
        }
    }

    fn item(index: u64, event_len: usize, arrival_ms: i64) -> Item {
        Item {
            record: Record {
                sequence: SequenceNumber::compose(0, 1, index, 1),
                partition_key: "key".into(),
                data: Bytes::new(),
                arrival_ms,
            },
            event_len,
            read_at: start(),
        }
    }

    fn lane(count: u64) -> Lane {
        let mut lane = Lane::default();
        (1..=count).for_each(|index| lane.push(item(index, 100, NOW_MS)));
        lane
    }

    fn current(lane: &Lane) -> Vec<u64> {
        lane.current().unwrap().records().map(|record| record.sequence.index()).collect()
    }

    fn oldest(lane: &Lane) -> Option<u64> {
        lane.oldest().map(|record| record.sequence.index())
    }

    /// Fails the current batch and moves past the back-off.
    fn fail(lane: &mut Lane, from: usize, now: &mut Instant, rules: &Rules) {
        lane.fail(from, *now, 0.5, rules);
        *now += rules.backoff_max;
    }

    #[test]
    fn one_batch_at_a_time_cut_by_count_and_by_size() {
        let (rules, now) = (rules(), start());
        let mut lane = lane(5);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [1, 2, 3, 4]);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Rest);
        assert_eq!(lane.finish().records, 4);
        lane.push(item(6, 9_950, NOW_MS));
        lane.push(item(7, 10_100, NOW_MS));
        lane.push(item(8, 100, NOW_MS));
        for (expected, step) in [(5, Step::Invoke), (6, Step::Invoke), (7, Step::TooLarge), (8, Step::Invoke)]
        {
            assert_eq!(lane.step(now, NOW_MS, false, &rules), step);
            assert_eq!(current(&lane), [expected]);
            lane.finish();
        }
        assert_eq!((lane.step(now, NOW_MS, true, &rules), oldest(&lane)), (Step::Rest, None));
    }

    #[test]
    fn a_window_waits_until_it_is_over_or_the_batch_is_full_or_nothing_follows() {
        let rules = Rules { window: Duration::from_secs(5), ..rules() };
        let now = start();
        let mut waiting = lane(3);
        let due = now + rules.window;
        assert_eq!(waiting.step(now, NOW_MS, false, &rules), Step::Wait(due));
        assert_eq!(waiting.step(due, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(lane(4).step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(lane(3).step(now, NOW_MS, true, &rules), Step::Invoke);
    }

    #[test]
    fn a_failed_batch_comes_back_from_the_failed_record_on_before_anything_newer() {
        let (rules, mut now) = (rules(), start());
        let mut lane = lane(6);
        lane.step(now, NOW_MS, false, &rules);
        assert_eq!(lane.fail(2, now, 1.0, &rules).records, 2);
        assert_eq!(oldest(&lane), Some(3));
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Wait(now + Duration::from_millis(100)));
        now += Duration::from_millis(100);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [3, 4]);
        // The pause doubles while the same record fails, up to its limit.
        for expected in [200, 400, 800, 1_000, 1_000] {
            lane.fail(0, now, 1.0, &rules);
            let Step::Wait(at) = lane.step(now, NOW_MS, false, &rules) else { panic!("no pause") };
            assert_eq!(at - now, Duration::from_millis(expected));
            now = at;
            assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        }
        lane.finish();
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [5, 6]);
    }

    #[test]
    fn retries_are_counted_after_the_first_attempt_and_anew_after_progress() {
        let (rules, mut now) = (Rules { max_retries: Some(1), ..rules() }, start());
        let mut lane = lane(4);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        fail(&mut lane, 0, &mut now, &rules);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        fail(&mut lane, 1, &mut now, &rules);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [2, 3, 4]);
        fail(&mut lane, 0, &mut now, &rules);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Discard(Condition::RetryAttemptsExhausted));
        assert_eq!(current(&lane), [2, 3, 4]);
        assert_eq!(lane.current().unwrap().invokes, 2);
    }

    #[test]
    fn bisecting_isolates_one_bad_record_without_using_up_its_retries() {
        let rules = Rules { max_retries: Some(2), bisect: true, batch_size: 8, ..rules() };
        let mut now = start();
        let mut lane = lane(8);
        let (mut processed, mut discarded, mut alone) = (Vec::new(), Vec::new(), 0);
        loop {
            match lane.step(now, NOW_MS, false, &rules) {
                Step::Rest => break,
                Step::Invoke if current(&lane).contains(&6) => {
                    alone += u32::from(current(&lane) == [6]);
                    fail(&mut lane, 0, &mut now, &rules);
                }
                Step::Invoke => {
                    processed.extend(current(&lane));
                    lane.finish();
                }
                Step::Discard(Condition::RetryAttemptsExhausted) => {
                    discarded.extend(current(&lane));
                    lane.finish();
                }
                step => panic!("{step:?}"),
            }
        }
        assert_eq!((processed, discarded, alone), (vec![1, 2, 3, 4, 5, 7, 8], vec![6], 3));
    }

    #[test]
    fn a_partial_response_is_where_a_bisected_batch_is_split() {
        let rules = Rules { max_retries: Some(0), bisect: true, ..rules() };
        let mut now = start();
        let mut lane = lane(4);
        lane.step(now, NOW_MS, false, &rules);
        fail(&mut lane, 2, &mut now, &rules);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [3, 4]);
        fail(&mut lane, 0, &mut now, &rules);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [3]);
        fail(&mut lane, 0, &mut now, &rules);
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Discard(Condition::RetryAttemptsExhausted));
        lane.finish();
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [4]);
    }

    #[test]
    fn records_past_the_maximum_age_are_discarded_alone() {
        let rules = Rules { max_age_ms: Some(60_000), ..rules() };
        let now = start();
        let mut lane = Lane::default();
        lane.push(item(1, 100, NOW_MS - 60_001));
        lane.push(item(2, 100, NOW_MS - 60_000));
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Discard(Condition::RecordAgeExceeded));
        assert_eq!((current(&lane), lane.current().unwrap().invokes), (vec![1], 0));
        lane.finish();
        assert_eq!(lane.step(now, NOW_MS, false, &rules), Step::Invoke);
        assert_eq!(current(&lane), [2]);
        // It grows too old while it is retried.
        lane.fail(0, now, 1.0, &rules);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            lane.step(later, NOW_MS + 1_000, false, &rules),
            Step::Discard(Condition::RecordAgeExceeded)
        );
        assert_eq!(lane.current().unwrap().invokes, 1);
    }
}
