//! How a shard gets on: at which rate its records arrived, and whether anything moves.

use std::time::Duration;

use tokio::time::Instant;

use crate::streams::Event;

/// Over how much arrival time rates are averaged, in milliseconds.
const AVERAGED_MS: f64 = 10_000.0;

/// One shard's pace since this worker took it.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    // An event with records is in hand.
    unfinished: bool,
    millis_behind: Option<u64>,
    // When something was finished last, or the reader heard that there is nothing.
    moved: Instant,
    // The arrival up to which the rates hold, and what came at that very moment.
    until_ms: Option<u64>,
    pending: (usize, usize),
    records_per_ms: f64,
    bytes_per_ms: f64,
    /// Whether the log tells that the shard is stuck.
    pub(crate) told: bool,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            unfinished: false,
            millis_behind: None,
            moved: Instant::now(),
            until_ms: None,
            pending: (0, 0),
            records_per_ms: 0.0,
            bytes_per_ms: 0.0,
            told: false,
        }
    }

    /// An event that holds so many records came and is in hand.
    pub(crate) fn received(&mut self, event: &Event, records: usize) {
        if !self.unfinished && self.millis_behind == Some(0) {
            // There was nothing to do until now.
            let idle_ms = self.moved.elapsed().as_millis() as f64;
            self.moved();
            if event.records.is_empty() && event.millis_behind == 0 {
                self.average(idle_ms);
            }
        }
        self.unfinished = !event.records.is_empty();
        let (Some(first), Some(last)) = (event.records.first(), event.records.last()) else {
            return;
        };
        let since = *self.until_ms.get_or_insert(first.arrival_ms);
        self.pending.0 += records;
        self.pending.1 += event.bytes();
        if last.arrival_ms > since {
            self.average((last.arrival_ms - since) as f64);
            self.until_ms = Some(last.arrival_ms);
        }
    }

    /// What is pending arrived within this span.
    fn average(&mut self, span_ms: f64) {
        if span_ms < 1.0 {
            return;
        }
        let (records, bytes) = std::mem::take(&mut self.pending);
        let weight = 1.0 - (-span_ms / AVERAGED_MS).exp();
        self.records_per_ms += weight * (records as f64 / span_ms - self.records_per_ms);
        self.bytes_per_ms += weight * (bytes as f64 / span_ms - self.bytes_per_ms);
    }

    /// Some of what is in hand is done.
    pub(crate) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// The event in hand is done.
    pub(crate) fn done(&mut self, millis_behind: u64) {
        self.millis_behind = Some(millis_behind);
        self.unfinished = false;
        self.moved();
    }

    pub(crate) fn millis_behind(&self) -> Option<u64> {
        self.millis_behind
    }

    pub(crate) fn records_behind(&self) -> Option<u64> {
        self.millis_behind.map(|millis| (self.records_per_ms * millis as f64).round() as u64)
    }

    pub(crate) fn bytes_per_second(&self) -> u64 {
        (self.bytes_per_ms * 1_000.0) as u64
    }

    /// Whether nothing moved for this long although there is, or may be, something to do. A shard of which
    /// nothing was heard at all counts: where there is nothing, the service says so every few seconds.
    pub(crate) fn is_stuck(&self, after: Duration) -> bool {
        (self.unfinished || self.millis_behind != Some(0)) && self.moved.elapsed() >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::SequenceNumber;
    use crate::streams::RawRecord;

    fn event(arrivals: &[u64], millis_behind: u64) -> Event {
        let raw = |arrival_ms: &u64| RawRecord {
            sequence_number: SequenceNumber::new("1").unwrap(),
            partition_key: "k".into(),
            arrival_ms: *arrival_ms,
            data: vec![0; 99].into(),
        };
        Event { records: arrivals.iter().map(raw).collect(), millis_behind, ..Event::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn records_behind_follow_from_the_rate_of_arrivals() {
        let mut pace = Pace::new();
        assert_eq!(pace.records_behind(), None);
        // Two records of 100 bytes each every 100 ms, for a minute.
        for at in 1..600 {
            pace.received(&event(&[at * 100, at * 100], 0), 2);
            pace.done(500);
        }
        assert_eq!(pace.records_behind(), Some(10));
        assert!((1_990..=2_010).contains(&pace.bytes_per_second()), "{}", pace.bytes_per_second());
        // Then nothing, for a minute.
        for _ in 0..12 {
            tokio::time::advance(Duration::from_secs(5)).await;
            pace.received(&event(&[], 0), 0);
            pace.done(0);
        }
        assert_eq!((pace.records_behind(), pace.bytes_per_second() / 10), (Some(0), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_stuck_when_nothing_moves_though_there_is_something() {
        let (mut pace, after) = (Pace::new(), Duration::from_secs(60));
        let wait = || tokio::time::advance(Duration::from_secs(61));
        assert!(!pace.is_stuck(after));
        wait().await;
        assert!(pace.is_stuck(after), "nothing was ever heard of it");
        pace.received(&event(&[], 0), 0);
        pace.done(0);
        wait().await;
        assert!(!pace.is_stuck(after), "there is nothing to do");
        pace.received(&event(&[1], 0), 1);
        assert!(!pace.is_stuck(after), "it has just begun");
        wait().await;
        assert!(pace.is_stuck(after), "the handler does not end");
        pace.done(10);
        assert!(!pace.is_stuck(after));
        wait().await;
        assert!(pace.is_stuck(after), "it is behind, and nothing comes");
    }
}
