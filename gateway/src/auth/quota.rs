//! How much a principal may send.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headworks_proto::wire;
use tokio::time::Instant;

use crate::config::PrincipalConfig;

/// What a batch weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) records: u64,
    /// Bytes of keys, headers and data.
    pub(crate) bytes: u64,
}

impl Weight {
    pub(crate) fn of(records: &wire::Records) -> Self {
        Self { records: records.len() as u64, bytes: records.user_bytes() as u64 }
    }
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// The setting's name.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) limit: u64,
    /// When there is room, at the earliest.
    pub(crate) retry_after: Duration,
}

/// How long to wait for answers that make room.
const FOR_ANSWERS: Duration = Duration::from_millis(100);

/// So much per second, and as much at once. What is larger than that is let in when nothing else was for a second, and
/// holds up what follows for as long as it takes.
#[derive(Debug)]
struct Bucket {
    name: &'static str,
    rate: u64,
    /// What is left, below zero after something large, and when that was so.
    level: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(name: &'static str, rate: u64) -> Self {
        Self { name, rate, level: Mutex::new((rate as f64, Instant::now())) }
    }

    /// The level by now, and what it must be for this amount.
    fn look(&self, amount: u64, (level, at): (f64, Instant)) -> (f64, f64, Instant) {
        let (now, full) = (Instant::now(), self.rate as f64);
        let level = (level + now.saturating_duration_since(at).as_secs_f64() * full).min(full);
        (level, (amount as f64).min(full), now)
    }

    fn take(&self, amount: u64) -> Result<(), Exceeded> {
        let mut kept = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (level, needed, now) = self.look(amount, *kept);
        if level < needed {
            let seconds = (needed - level) / self.rate as f64;
            // Rounded up to what can be said.
            let retry_after = Duration::from_millis((seconds * 1_000.0).ceil() as u64);
            return Err(Exceeded { name: self.name, limit: self.rate, retry_after });
        }
        *kept = (level - amount as f64, now);
        Ok(())
    }

    /// Puts back what was taken for nothing.
    fn give_back(&self, amount: u64) {
        let mut kept = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0 += amount as f64;
    }

    fn is_full(&self) -> bool {
        let kept = *self.level.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(0, kept).0 >= self.rate as f64
    }
}

/// The limits of one principal, and how far they are used up.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    records: Option<Bucket>,
    bytes: Option<Bucket>,
    in_flight: Option<(u64, AtomicU64)>,
}

impl Quota {
    pub(crate) fn new(config: &PrincipalConfig) -> Self {
        Self {
            records: config.records_per_s.map(|rate| Bucket::new("records_per_s", rate)),
            bytes: config.bytes_per_s.map(|rate| Bucket::new("bytes_per_s", rate)),
            in_flight: config.in_flight_bytes.map(|limit| (limit, AtomicU64::new(0))),
        }
    }

    /// Whether there is nothing to count.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.records.is_none() && self.bytes.is_none() && self.in_flight.is_none()
    }

    /// Whether forgetting it would give nobody more than it may have.
    pub(crate) fn is_idle(&self) -> bool {
        self.records.iter().chain(&self.bytes).all(Bucket::is_full)
            && self.in_flight.as_ref().is_none_or(|(_, used)| used.load(Ordering::Relaxed) == 0)
    }

    /// Counts a batch, all of it or nothing. The permit is kept until the batch is answered.
    pub(crate) fn take(self: &Arc<Self>, weight: Weight) -> Result<Permit, Exceeded> {
        let mut permit = Permit { quota: Arc::clone(self), bytes: 0 };
        if let Some((limit, used)) = &self.in_flight {
            // A batch that is larger than the limit goes alone.
            let fits = |used: u64| (used == 0 || used + weight.bytes <= *limit).then(|| used + weight.bytes);
            if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
                return Err(Exceeded { name: "in_flight_bytes", limit: *limit, retry_after: FOR_ANSWERS });
            }
            permit.bytes = weight.bytes;
        }
        if let Some(records) = &self.records {
            records.take(weight.records)?;
        }
        if let Some(bytes) = &self.bytes
            && let Err(exceeded) = bytes.take(weight.bytes)
        {
            self.records.iter().for_each(|records| records.give_back(weight.records));
            return Err(exceeded);
        }
        Ok(permit)
    }

    /// The same, as soon as there is room; `told` learns which limit was reached first, if any.
    pub(crate) async fn wait(self: &Arc<Self>, weight: Weight, told: impl FnOnce(Exceeded)) -> Permit {
        let mut told = Some(told);
        loop {
            match self.take(weight) {
                Ok(permit) => return permit,
                Err(exceeded) => {
                    if let Some(told) = told.take() {
                        told(exceeded);
                    }
                    tokio::time::sleep(exceeded.retry_after).await;
                }
            }
        }
    }
}

/// Bytes that are unanswered.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((_, used)) = &self.quota.in_flight {
            used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(records: Option<u64>, bytes: Option<u64>, in_flight: Option<u64>) -> Arc<Quota> {
        Arc::new(Quota::new(&PrincipalConfig {
            records_per_s: records,
            bytes_per_s: bytes,
            in_flight_bytes: in_flight,
            ..PrincipalConfig::unlimited("p")
        }))
    }

    fn of(records: u64, bytes: u64) -> Weight {
        Weight { records, bytes }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_holds_as_much_as_the_limit_says() {
        let quota = quota(Some(100), None, None);
        quota.take(of(60, 0)).unwrap();
        quota.take(of(40, 0)).unwrap();
        let exceeded = quota.take(of(10, 0)).unwrap_err();
        assert_eq!(
            exceeded,
            Exceeded { name: "records_per_s", limit: 100, retry_after: Duration::from_millis(100) }
        );
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(quota.take(of(10, 0)).unwrap_err().retry_after, Duration::from_millis(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        quota.take(of(10, 0)).unwrap();
        assert!(!quota.is_idle());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(quota.is_idle());
        // Idle time is not saved up.
        quota.take(of(100, 0)).unwrap();
        quota.take(of(1, 0)).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_a_second_holds_up_what_follows() {
        let quota = quota(None, Some(1_000), None);
        quota.take(of(1, 3_000)).unwrap();
        assert_eq!(quota.take(of(1, 1)).unwrap_err().retry_after, Duration::from_millis(2_001));
        let begun = Instant::now();
        drop(quota.wait(of(1, 1_000), |_| ()).await);
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn one_limit_does_not_use_up_another() {
        let quota = quota(Some(10), Some(10), Some(100));
        quota.take(of(1, 10)).unwrap();
        assert_eq!(quota.take(of(9, 1)).unwrap_err().name, "bytes_per_s");
        tokio::time::advance(Duration::from_millis(100)).await;
        quota.take(of(9, 1)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_in_flight_are_given_back_with_the_permit() {
        let quota = quota(None, None, Some(100));
        let first = quota.take(of(1, 60)).unwrap();
        let second = quota.take(of(1, 40)).unwrap();
        assert_eq!(quota.take(of(1, 1)).unwrap_err().name, "in_flight_bytes");
        drop(first);
        quota.take(of(1, 60)).unwrap();
        drop(second);
        // One that never fits goes alone.
        let alone = quota.take(of(1, 500)).unwrap();
        quota.take(of(1, 1)).unwrap_err();
        drop(alone);
        assert!(quota.is_idle());
    }
}
