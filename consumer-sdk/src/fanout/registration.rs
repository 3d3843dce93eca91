//! The fan-out consumer: found or registered, and waited for. It is never deregistered by a restart.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::config::Config;
use crate::error::Error;
use crate::streams::{self, ConsumerId, Registration, Streams};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(5);

/// The consumer's ARN, once it can be subscribed with.
///
/// All waiting is jittered: a stream takes few control calls per second, and workers start together.
pub(crate) async fn consumer_arn(streams: &dyn Streams, config: &Config) -> Result<String, Error> {
    let give_up = Instant::now() + config.startup_timeout;
    let mut backoff = Backoff::new(FIRST_DELAY, LAST_DELAY);
    let failed = |source| Error::Stream { stream: config.stream.clone(), source };

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
    let mut state = "not registered";
    backoff.reset();
    loop {
        let found =
            limited(config, "DescribeStreamConsumer", streams.consumer(&stream_arn, &config.consumer)).await;
        let registered = match (found, &config.consumer) {
            (Ok(None), ConsumerId::Name(name)) => {
                limited(config, "RegisterStreamConsumer", streams.register(&stream_arn, name)).await.map(Some)
            }
            (found, _) => found,
        };
        match registered {
            Ok(Some(consumer)) => match consumer.state {
                Registration::Active => return Ok(consumer.arn),
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
            // Another worker registers it at this moment, or too many do.
            Err(error) if error.is_retryable() && Instant::now() < give_up => {
                tracing::debug!(%error, "the consumer cannot be used yet");
            }
            Err(error) => return Err(failed(error)),
        }
        if Instant::now() >= give_up {
            return Err(Error::Registration {
                consumer: config.consumer.to_string(),
                stream: config.stream.clone(),
                waited_s: config.startup_timeout.as_secs(),
                state,
            });
        }
        sleep(backoff.next_delay()).await;
    }
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
