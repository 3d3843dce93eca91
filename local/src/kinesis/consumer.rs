//! Enhanced fan-out consumers and who of them is subscribed to which shard.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::features::Attached;
use super::sync::lock;

/// What is known of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Unique in its stream.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The ARN of its stream.
    pub stream_arn: String,
    /// CREATING, ACTIVE or DELETING.
    pub status: super::StreamStatus,
    /// When it was registered, in milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// A registered consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) created_ms: i64,
    /// When CREATING ends.
    pub(crate) active_ms: i64,
    subscriptions: Mutex<Subscriptions>,
    attached: Mutex<Attached>,
    /// Ends every subscription when the consumer or its stream is deleted.
    gone: CancellationToken,
}

/// By the index of the shard.
#[derive(Debug, Default)]
struct Subscriptions {
    active: HashMap<u32, Active>,
    /// When the last call came that was not over the rate.
    called_ms: HashMap<u32, i64>,
}

#[derive(Debug)]
struct Active {
    since_ms: i64,
    superseded: CancellationToken,
}

/// The right to push one shard to one consumer, until one of these is cancelled.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) superseded: CancellationToken,
    pub(crate) gone: CancellationToken,
}

impl Consumer {
    pub(crate) fn new(name: String, arn: String, created_ms: i64, active_ms: i64) -> Self {
        Self {
            name,
            arn,
            created_ms,
            active_ms,
            subscriptions: Mutex::default(),
            attached: Mutex::default(),
            gone: CancellationToken::new(),
        }
    }

    /// Claims `shard`. Within `hold_ms` of the last successful claim this is refused, whether or not that
    /// subscription still runs; later it takes over, and the earlier subscription ends. Within `interval_ms` of the
    /// last call it is refused too, as a call too many.
    pub(crate) fn claim(
        &self,
        shard: u32,
        shard_id: &str,
        now_ms: i64,
        hold_ms: i64,
        interval_ms: i64,
    ) -> Result<Claim, Error> {
        let mut subscriptions = lock(&self.subscriptions);
        if let Some(called_ms) = subscriptions.called_ms.get(&shard)
            && now_ms.saturating_sub(*called_ms) < interval_ms
        {
            // API_SubscribeToShard gives the rate, and of its errors this is the one for too many requests; the
            // words are not documented.
            return Err(Error::LimitExceeded(format!(
                "Rate exceeded for consumer {} and shard {shard_id}.",
                self.arn
            )));
        }
        subscriptions.called_ms.insert(shard, now_ms);
        if let Some(active) = subscriptions.active.get(&shard)
            && now_ms.saturating_sub(active.since_ms) < hold_ms
        {
            return Err(Error::ResourceInUse(format!(
                "Another active subscription exists for this consumer: {} and shard: {shard_id}",
                self.arn
            )));
        }
        let superseded = CancellationToken::new();
        let active = Active { since_ms: now_ms, superseded: superseded.clone() };
        if let Some(earlier) = subscriptions.active.insert(shard, active) {
            earlier.superseded.cancel();
        }
        Ok(Claim { superseded, gone: self.gone.clone() })
    }

    /// Its tags and its policy.
    pub(crate) fn attached(&self) -> MutexGuard<'_, Attached> {
        lock(&self.attached)
    }

    /// Ends every subscription for good.
    pub(crate) fn end(&self) {
        self.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_for_a_while_and_is_then_taken_over() {
        let consumer = Consumer::new("c".to_owned(), "arn:c".to_owned(), 0, 0);
        let first = consumer.claim(0, "shardId-0", 1_000, 5_000, 0).unwrap();
        let refused = consumer.claim(0, "shardId-0", 5_999, 5_000, 0).unwrap_err();
        assert_eq!(refused.exception(), "ResourceInUseException");
        assert!(!first.superseded.is_cancelled());
        let other = consumer.claim(1, "shardId-1", 1_000, 5_000, 0).unwrap();
        let second = consumer.claim(0, "shardId-0", 6_000, 5_000, 0).unwrap();
        assert!(first.superseded.is_cancelled());
        assert!(!second.superseded.is_cancelled() && !other.superseded.is_cancelled());
    }

    #[test]
    fn calls_have_a_rate_by_shard() {
        let consumer = Consumer::new("c".to_owned(), "arn:c".to_owned(), 0, 0);
        consumer.claim(0, "shardId-0", 1_000, 5_000, 1_000).unwrap();
        consumer.claim(1, "shardId-1", 1_000, 5_000, 1_000).unwrap();
        let code = |now_ms| consumer.claim(0, "shardId-0", now_ms, 5_000, 1_000).unwrap_err().code();
        assert_eq!(code(1_999), "local-kinesis-limit-exceeded");
        assert_eq!(code(2_000), "local-kinesis-resource-in-use");
        assert_eq!(code(2_999), "local-kinesis-limit-exceeded", "a call that was refused counts");
        consumer.claim(0, "shardId-0", 6_000, 5_000, 1_000).unwrap();
    }
}
