//! Enhanced fan-out consumers and who of them is subscribed to which shard.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use super::arn;
use super::engine::Engine;
use super::error::Error;
use super::features::Attached;
use super::reader::ShardReader;
use super::settings::millis;
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
            // API_SubscribeToShard gives the rate, and of its errors this is the one for too many requests. Words:
            // ours.
            return Err(Error::LimitExceeded(format!(
                "Rate exceeded for consumer {} and shard {shard_id}.",
                self.arn
            )));
        }
        subscriptions.called_ms.insert(shard, now_ms);
        // API_SubscribeToShard: ResourceInUseException within 5 seconds. Seen: reports of users.
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

impl Engine {
    /// Registers an enhanced fan-out consumer.
    ///
    /// # Errors
    /// `ResourceInUse` when the name is taken, `LimitExceeded` over the stream's limit.
    pub fn register_consumer(&self, stream: &str, name: &str) -> Result<ConsumerInfo, Error> {
        self.register_tagged_consumer(stream, name, BTreeMap::new())
    }

    /// Registers an enhanced fan-out consumer that has these tags from the beginning.
    ///
    /// # Errors
    /// As [`Engine::register_consumer`].
    pub fn register_tagged_consumer(
        &self,
        stream: &str,
        name: &str,
        tags: BTreeMap<String, String>,
    ) -> Result<ConsumerInfo, Error> {
        let stream = self.usable(stream)?;
        let now_ms = self.now_ms();
        let mut control = stream.control();
        // API_RegisterStreamConsumer: ResourceInUseException. Words: ours.
        if control.consumers.contains_key(name) {
            return Err(Error::ResourceInUse(format!(
                "Consumer {name} under stream {} already exists for account {}.",
                stream.name(),
                self.settings().account_id
            )));
        }
        // The guide's page of quotas and limits: 20; LimitExceededException. Words: ours.
        if control.consumers.len() >= self.settings().consumers_per_stream {
            return Err(Error::LimitExceeded(format!(
                "Stream {} under account {} already has {} consumers, its limit; deregister one first.",
                stream.name(),
                self.settings().account_id,
                control.consumers.len()
            )));
        }
        // API_RegisterStreamConsumer: a sixth in CREATING; LimitExceededException. Words: ours.
        let creating = control.consumers.values().filter(|consumer| now_ms < consumer.active_ms).count();
        if let Some(limit) = self.settings().consumers_creating
            && creating >= limit
        {
            return Err(Error::LimitExceeded(format!(
                "Stream {} under account {} already has {creating} consumers in state CREATING, its limit; wait until \
                 one is ACTIVE.",
                stream.name(),
                self.settings().account_id
            )));
        }
        let consumer_arn = arn::consumer_arn(stream.arn(), name, now_ms);
        let active_ms = now_ms.saturating_add(millis(self.settings().transition));
        let consumer = Arc::new(Consumer::new(name.to_owned(), consumer_arn, now_ms, active_ms));
        consumer.attached().tags = tags;
        let info = stream.describe_consumer(&consumer, now_ms);
        control.consumers.insert(name.to_owned(), consumer);
        drop(control);
        self.keep(&stream)?;
        Ok(info)
    }

    /// Describes a consumer by the names of its stream and its own.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn describe_consumer(&self, stream: &str, name: &str) -> Result<ConsumerInfo, Error> {
        let stream = self.stream(stream)?;
        let consumer = stream.consumer(name)?;
        Ok(stream.describe_consumer(&consumer, self.now_ms()))
    }

    /// The consumers of a stream, by name.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn list_consumers(&self, stream: &str) -> Result<Vec<ConsumerInfo>, Error> {
        let stream = self.stream(stream)?;
        let now_ms = self.now_ms();
        let control = stream.control();
        Ok(control.consumers.values().map(|consumer| stream.describe_consumer(consumer, now_ms)).collect())
    }

    /// Deregisters a consumer; its subscriptions end.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn deregister_consumer(&self, stream: &str, name: &str) -> Result<(), Error> {
        let stream = self.stream(stream)?;
        let consumer = stream.consumer(name)?;
        stream.control().consumers.remove(name);
        consumer.end();
        self.keep(&stream)
    }

    /// Claims a shard for a consumer and opens it for reading.
    pub(crate) fn claim(
        &self,
        stream: &str,
        consumer: &str,
        shard_id: &str,
    ) -> Result<(ShardReader, Claim), Error> {
        let reader = self.reader(stream, shard_id)?;
        let consumer = reader.stream.consumer(consumer)?;
        let now_ms = self.now_ms();
        // API_SubscribeToShard: ResourceInUseException until the consumer is ACTIVE. Seen: a report of a user
        // (kinesis-hot-shard-advisor's issue 37).
        if now_ms < consumer.active_ms {
            return Err(Error::ResourceInUse(format!(
                "Consumer {} with creation timestamp {} under stream: {} , account {} is not in ACTIVE status.",
                consumer.name,
                consumer.created_ms.div_euclid(1_000),
                reader.stream.name(),
                self.settings().account_id
            )));
        }
        let hold_ms = millis(self.settings().subscription_hold);
        let interval_ms = millis(self.settings().subscribe_interval);
        let claim = consumer.claim(reader.shard.identity().index, shard_id, now_ms, hold_ms, interval_ms)?;
        Ok((reader, claim))
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
