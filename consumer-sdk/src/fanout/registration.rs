//! The fan-out consumer: found or registered, and waited for. It is never deregistered by a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headworks_record::ShardId;

use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::config::{Config, Reading};
use crate::error::Error;
use crate::streams::{self, ConsumerId, Registration, StreamIdentifier, StreamShard, Streams};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(5);

/// How often a registration is tried that is refused for the number of calls or of consumers, before shards
/// are polled: the service gives both refusals the same name.
const REGISTRATIONS: u32 = 5;

/// The consumers' ARNs, by stream. One that is missing means that the stream's shards are polled.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConsumerArns(BTreeMap<Option<StreamIdentifier>, Arc<str>>);

impl ConsumerArns {
    /// Finds or registers the consumer of a stream; `None` for the only one.
    pub(crate) async fn find(
        &mut self,
        stream: Option<StreamIdentifier>,
        name: &str,
        streams: &dyn Streams,
        config: &Config,
    ) -> Result<(), Error> {
        if let Some(arn) = consumer_arn(streams, name, config).await? {
            self.0.insert(stream, arn);
        }
        Ok(())
    }

    /// With which to subscribe to the shard of this lease.
    pub(crate) fn of(&self, key: &ShardId) -> Option<Arc<str>> {
        self.0.get(&StreamShard::of(key).stream).cloned()
    }
}

/// The consumer's ARN, once it can be subscribed with; `None` where shards are to be polled.
///
/// All waiting is jittered: a stream takes few control calls per second, and workers start together.
async fn consumer_arn(streams: &dyn Streams, name: &str, config: &Config) -> Result<Option<Arc<str>>, Error> {
    let give_up = Instant::now() + config.startup_timeout;
    let mut backoff = Backoff::new(FIRST_DELAY, LAST_DELAY);
    let failed = |source| Error::Stream { stream: name.to_owned(), source };

    let stream_arn = loop {
        match limited(config, "DescribeStreamSummary", streams.arn()).await {
            Ok(arn) => break arn,
            Err(error) if error.is_retryable() && Instant::now() < give_up => {
                tracing::debug!(%error, "the stream cannot be read yet");
                sleep(backoff.next_delay()).await;
            }
            Err(error) => return Err(failed(error)),
        }
    };
    if config.reading == Reading::Polling {
        return Ok(None);
    }
    let may_poll = config.reading == Reading::FanOutOrPolling;
    let (mut state, mut throttled) = ("not registered", 0);
    backoff.reset();
    loop {
        let found =
            limited(config, "DescribeStreamConsumer", streams.consumer(&stream_arn, &config.consumer)).await;
        let registered = match (found, &config.consumer) {
            (Ok(None), ConsumerId::Name(consumer)) => {
                limited(config, "RegisterStreamConsumer", streams.register(&stream_arn, consumer))
                    .await
                    .map(Some)
            }
            (found, _) => found,
        };
        match registered {
            Ok(Some(consumer)) => match consumer.state {
                Registration::Active => return Ok(Some(consumer.arn.into())),
                Registration::Creating => state = "CREATING",
                Registration::Deleting => state = "DELETING",
            },
            Ok(None) => {
                let message = format!("there is no consumer {}", config.consumer);
                return Err(failed(streams::Error::NotFound {
                    operation: "DescribeStreamConsumer",
                    message,
                }));
            }
            Err(error) if may_poll && no_fan_out(&error, &mut throttled) => {
                tracing::warn!(%error, "fan-out is not possible: the shards are polled");
                return Ok(None);
            }
            // Another worker registers it at this moment, or too many do.
            Err(error) if error.is_retryable() && Instant::now() < give_up => {
                tracing::debug!(%error, "the consumer cannot be used yet");
            }
            Err(error) => return Err(failed(error)),
        }
        if Instant::now() >= give_up {
            return Err(Error::Registration {
                consumer: config.consumer.to_string(),
                stream: name.to_owned(),
                waited_s: config.startup_timeout.as_secs(),
                state,
            });
        }
        sleep(backoff.next_delay()).await;
    }
}

/// Whether a registration will not come about.
fn no_fan_out(error: &streams::Error, throttled: &mut u32) -> bool {
    *throttled += u32::from(matches!(error, streams::Error::Throttled { .. }));
    *throttled >= REGISTRATIONS || matches!(error, streams::Error::Refused { .. })
}

/// One call with the configured time limit.
pub(crate) async fn limited<T>(
    config: &Config,
    operation: &'static str,
    call: impl Future<Output = Result<T, streams::Error>>,
) -> Result<T, streams::Error> {
    match timeout(config.call_timeout, call).await {
        Ok(result) => result,
        Err(_) => Err(streams::Error::Unavailable {
            operation,
            message: format!("no answer within {:?}", config.call_timeout),
        }),
    }
}
