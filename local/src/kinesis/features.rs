//! What control operations set on a stream beside its shards: encryption, shard-level metrics, a resource policy, warm
//! throughput. It is kept and shown; nothing is encrypted, measured or allowed by it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::error::Error;
use super::settings::millis;
use super::stream::{Control, Stream, StreamMode, StreamStatus};

const DAY_MS: i64 = 24 * 3_600_000;

/// The policy and, of a consumer, the tags of a resource.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attached {
    pub(crate) policy: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// What is set on a stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Features {
    pub(crate) policy: Option<String>,
    /// The shard-level metrics that are switched on.
    pub(crate) metrics: BTreeSet<String>,
    pub(crate) warm_mibps: Option<u32>,
    /// When records have been encrypted, oldest first; the last one may go on.
    pub(crate) encryption: Vec<Encryption>,
    pub(crate) history: History,
}

/// A time for which new records are encrypted with one key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Encryption {
    pub(crate) key_id: String,
    from_ms: i64,
    until_ms: Option<i64>,
}

/// When limited operations have succeeded, within a day.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    pub(crate) scalings: Vec<i64>,
    pub(crate) modes: Vec<i64>,
    pub(crate) encryptions: Vec<i64>,
    pub(crate) decryptions: Vec<i64>,
}

/// Whether one more fits into a rolling day; if so, it is counted.
pub(crate) fn count_in_a_day(times: &mut Vec<i64>, limit: Option<usize>, now_ms: i64) -> bool {
    times.retain(|at| now_ms.saturating_sub(*at) < DAY_MS);
    if limit.is_some_and(|limit| times.len() >= limit) {
        return false;
    }
    times.push(now_ms);
    true
}

impl Features {
    /// The key that encrypts new records.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.encryption.last().filter(|span| span.until_ms.is_none()).map(|span| span.key_id.as_str())
    }
}

/// How a record that arrived then is encrypted, as on the wire.
pub(crate) fn encryption_of(spans: &[Encryption], arrival_ms: i64) -> &'static str {
    let within = |span: &Encryption| {
        span.from_ms <= arrival_ms && span.until_ms.is_none_or(|until_ms| arrival_ms < until_ms)
    };
    if spans.iter().any(within) { "KMS" } else { "NONE" }
}

impl Engine {
    /// Changes what is set on a stream, which must be ACTIVE, and keeps it.
    fn change(
        &self,
        name: &str,
        how: impl FnOnce(&Stream, &mut Control, i64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let stream = self.usable(name)?;
        let now_ms = self.now_ms();
        {
            let mut control = stream.control();
            control.require_active(&stream, now_ms)?;
            how(&stream, &mut control, now_ms)?;
        }
        self.keep(&stream)
    }

    /// Encrypts with another key, or, with `None`, no more. The stream is UPDATING for a while.
    ///
    /// # Errors
    /// `ResourceNotFound`; `ResourceInUse` while the stream is not ACTIVE; `LimitExceeded` over
    /// [`super::DailyLimits`].
    pub fn set_encryption(&self, stream: &str, key_id: Option<&str>) -> Result<(), Error> {
        let limits = self.settings().daily_limits;
        self.change(stream, |stream, control, now_ms| {
            // API_StartStreamEncryption and API_StopStreamEncryption: 25 times in a rolling day, each.
            let history = &mut control.features.history;
            let (times, limit, what) = match key_id {
                Some(_) => (
                    &mut history.encryptions,
                    limits.map(|limits| limits.encryptions),
                    "StartStreamEncryption",
                ),
                None => (
                    &mut history.decryptions,
                    limits.map(|limits| limits.encryptions),
                    "StopStreamEncryption",
                ),
            };
            if !count_in_a_day(times, limit, now_ms) {
                return Err(over_a_day(stream, what, limit));
            }
            if let Some(last) = control.features.encryption.last_mut() {
                last.until_ms.get_or_insert(now_ms);
            }
            // What retention has taken is not asked for again.
            let horizon_ms = stream.horizon(now_ms);
            control
                .features
                .encryption
                .retain(|span| span.until_ms.is_none_or(|until_ms| until_ms > horizon_ms));
            if let Some(key_id) = key_id {
                let span = Encryption { key_id: key_id.to_owned(), from_ms: now_ms, until_ms: None };
                control.features.encryption.push(span);
            }
            stream.set_encrypted(key_id.is_some());
            control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
            Ok(())
        })
    }

    /// Whether new records of a stream are encrypted.
    pub(crate) fn is_encrypted(&self, stream: &str) -> bool {
        self.find(stream).is_some_and(|stream| stream.is_encrypted())
    }

    /// Switches the mode of a stream. Its shards stay as they are.
    ///
    /// # Errors
    /// As [`Engine::set_encryption`], and `LimitExceeded` over the account's on-demand streams.
    pub fn set_stream_mode(
        &self,
        stream: &str,
        mode: StreamMode,
        warm_mibps: Option<u32>,
    ) -> Result<(), Error> {
        if mode == StreamMode::OnDemand && self.describe_stream(stream)?.mode != mode {
            self.check_on_demand_limit()?;
        }
        if warm_mibps.is_some() {
            self.require_commitment()?;
        }
        let limits = self.settings().daily_limits;
        self.change(stream, |stream, control, now_ms| {
            let limit = limits.map(|limits| limits.mode_changes);
            // The guide's page on capacity modes: twice in a rolling day.
            if control.mode != mode && !count_in_a_day(&mut control.features.history.modes, limit, now_ms) {
                return Err(over_a_day(stream, "UpdateStreamMode", limit));
            }
            control.mode = mode;
            control.features.warm_mibps = warm_mibps;
            control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
            Ok(())
        })?;
        match warm_mibps {
            Some(mibps) => self.grow_to(stream, mibps),
            None => Ok(()),
        }
    }

    /// Sets the largest record of a stream, in KiB.
    ///
    /// # Errors
    /// `ResourceNotFound`; `ResourceInUse` while the stream is not ACTIVE.
    pub fn set_max_record_kib(&self, stream: &str, kib: u32) -> Result<(), Error> {
        self.change(stream, |_, control, now_ms| {
            control.max_record_kib = kib;
            control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
            Ok(())
        })
    }

    /// Sets the warm throughput of an on-demand stream: it has a shard for each MiB/s at once.
    ///
    /// # Errors
    /// As [`Engine::set_max_record_kib`], and `Validation` for a provisioned stream, `InvalidArgument` when the account
    /// has not committed to a minimum throughput.
    pub fn set_warm_throughput(&self, stream: &str, mibps: u32) -> Result<(), Error> {
        self.require_commitment()?;
        self.change(stream, |stream, control, now_ms| {
            if control.mode != StreamMode::OnDemand {
                // API_UpdateStreamWarmThroughput: only of on-demand streams; ValidationException. Words: ours.
                return Err(Error::Validation(format!(
                    "UpdateStreamWarmThroughput is only supported for data streams with the on-demand capacity mode: \
                     stream {} under account {} is PROVISIONED.",
                    stream.name(),
                    stream.account_id()
                )));
            }
            control.features.warm_mibps = Some(mibps);
            control.enter(StreamStatus::Updating, now_ms, millis(self.settings().transition));
            Ok(())
        })?;
        self.grow_to(stream, mibps)
    }

    /// Changes which shard-level metrics are switched on; returns those before and after.
    pub(crate) fn change_metrics(
        &self,
        stream: &str,
        how: impl FnOnce(&mut BTreeSet<String>),
    ) -> Result<(Vec<String>, Vec<String>), Error> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        self.change(stream, |_, control, _| {
            before.extend(control.features.metrics.iter().cloned());
            how(&mut control.features.metrics);
            after.extend(control.features.metrics.iter().cloned());
            Ok(())
        })?;
        Ok((before, after))
    }

    /// Changes what is attached to a stream (`consumer` is `None`) or a consumer.
    pub(crate) fn attach<T>(
        &self,
        stream: &str,
        consumer: Option<&str>,
        how: impl FnOnce(&mut Attached) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let stream = self.stream(stream)?;
        let done = match consumer {
            Some(name) => {
                let consumer = stream.consumer(name)?;
                let mut attached = consumer.attached();
                how(&mut attached)?
            }
            None => {
                let mut control = stream.control();
                // For the time of the change a stream's own are in the form of a consumer's.
                let (policy, tags) = (control.features.policy.take(), std::mem::take(&mut control.tags));
                let mut attached = Attached { policy, tags };
                let done = how(&mut attached);
                (control.features.policy, control.tags) = (attached.policy, attached.tags);
                done?
            }
        };
        self.keep(&stream)?;
        Ok(done)
    }
}

/// A limit of a rolling day is reached. The page of the operation names limit and exception; the words are not
/// documented.
pub(crate) fn over_a_day(stream: &Stream, operation: &str, limit: Option<usize>) -> Error {
    Error::LimitExceeded(format!(
        "{operation} has succeeded {} times within 24 hours for stream {} under account {}, its limit; try again \
         later.",
        limit.unwrap_or_default(),
        stream.name(),
        stream.account_id()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_rolls() {
        let mut times = Vec::new();
        assert!(count_in_a_day(&mut times, Some(2), 0));
        assert!(count_in_a_day(&mut times, Some(2), 1_000));
        assert!(!count_in_a_day(&mut times, Some(2), DAY_MS - 1));
        assert!(count_in_a_day(&mut times, Some(2), DAY_MS));
        assert!(count_in_a_day(&mut times, None, DAY_MS));
    }

    #[test]
    fn records_are_encrypted_for_the_time_that_they_came_in() {
        let span = |from_ms, until_ms| Encryption { key_id: "k".to_owned(), from_ms, until_ms };
        let spans = [span(10, Some(20)), span(30, None)];
        let found: Vec<_> = [9, 10, 19, 20, 30, 99].map(|at| encryption_of(&spans, at)).into();
        assert_eq!(found, ["NONE", "KMS", "KMS", "NONE", "KMS", "KMS"]);
    }
}
