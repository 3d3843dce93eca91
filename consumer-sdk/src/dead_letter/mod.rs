//! Dead letters: records that no attempt could handle, put away whole before their position is given up.

#[cfg(feature = "s3")]
mod bucket;
mod letter;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

#[cfg(feature = "s3")]
pub use bucket::BucketDeadLetters;
pub use letter::{DeadLetter, LETTER_VERSION};
pub use stream::StreamDeadLetters;

use crate::backoff::Backoff;
use crate::delivery::Interrupt;
use crate::shard::Session;

/// Where dead letters go.
#[async_trait]
pub trait DeadLetters: std::fmt::Debug + Send + Sync + 'static {
    /// Writes one; it is durable when this returns `Ok`. The same letter may be written again after a
    /// restart.
    async fn write(&self, letter: &DeadLetter) -> Result<(), Error>;
}

/// Why a dead letter was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its place cannot be reached or is overloaded: the shard waits, and it is tried again.
    #[error("the dead letter of {origin} was not written to {target} and is tried again: {reason}")]
    Unavailable {
        /// Where it was to go.
        target: String,
        /// The record's place.
        origin: String,
        /// What the service said.
        reason: String,
    },
    /// Its place refuses it for good: the consumer stops in front of the record.
    #[error(
        "the dead letter of {origin} was refused by {target}: {reason}; check that the place exists and that the role may write there"
    )]
    Refused {
        /// Where it was to go.
        target: String,
        /// The record's place.
        origin: String,
        /// What the service said.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "dead-letter-not-written"
    }

    /// Whether the same letter may be written later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable { .. })
    }
}

/// Writes a letter, again and again while that may help: its record's position must not move before.
pub(crate) async fn write_before_moving_on(
    letters: &Arc<dyn DeadLetters>,
    letter: &DeadLetter,
    limit: Duration,
    session: &Session,
) -> Result<(), Interrupt> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        if !session.admit() {
            return Err(Interrupt::Session);
        }
        match tokio::time::timeout(limit, letters.write(letter)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if !error.is_retryable() => return Err(Interrupt::Failed(error.into())),
            Ok(Err(error)) => tracing::warn!(shard = %session.shard(), %error, "the shard waits"),
            Err(_) => {
                tracing::warn!(shard = %session.shard(), "a dead letter got no answer; the shard waits");
            }
        }
        if session.over_within(backoff.next_delay()).await {
            return Err(Interrupt::Session);
        }
    }
}
