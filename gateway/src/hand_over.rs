//! From the intake to whoever answers for a record: the writer, or the spool.

use std::sync::Arc;

use futures_util::future::{Either, ready};
use headworks_proto::v1;
use headworks_writer::{self as writer, Batch, Failure, Landed, Outcomes, Put};

use crate::call;
use crate::shared::Inbound;
use crate::spool;

/// Records that are handed over.
#[derive(Debug)]
pub(crate) enum Load {
    /// To the writer.
    Batch(Batch),
    /// To the spool.
    Puts(Vec<Put>),
}

/// What became of a record that was taken.
#[derive(Debug)]
pub(crate) enum Fate {
    /// The stream has it: at this index of [`Fates::landed`], and there at this sub-sequence number.
    Stored(usize, u32),
    /// The spool has it.
    Spooled,
    /// Neither is known to.
    Failed(v1::Error),
}

impl From<&Failure> for Fate {
    fn from(failure: &Failure) -> Self {
        Fate::Failed(v1::Error {
            code: failure.code().to_owned(),
            message: failure.to_string(),
            retryable: failure.is_retryable(),
            outcome_unknown: failure.outcome_unknown(),
        })
    }
}

impl From<&spool::Failure> for Fate {
    fn from(failure: &spool::Failure) -> Self {
        Fate::Failed(v1::Error {
            code: failure.code().to_owned(),
            message: failure.to_string(),
            retryable: failure.is_retryable(),
            outcome_unknown: failure.outcome_unknown(),
        })
    }
}

/// What became of the records of a batch that were taken.
#[derive(Debug)]
pub(crate) enum Fates {
    Writer(Outcomes),
    /// Of all of them.
    Spool(Result<(), spool::Failure>),
}

impl Fates {
    /// The Kinesis records that hold records of the batch.
    pub(crate) fn landed(&self) -> &[Arc<Landed>] {
        match self {
            Fates::Writer(outcomes) => outcomes.landed(),
            Fates::Spool(_) => &[],
        }
    }

    /// One per record, in their order.
    pub(crate) fn each(&self) -> impl Iterator<Item = Fate> {
        let (written, spooled) = match self {
            Fates::Writer(outcomes) => (Some(outcomes), None),
            Fates::Spool(kept) => (None, Some(kept)),
        };
        let written = written.into_iter().flat_map(Outcomes::iter).map(|outcome| match outcome {
            Ok((at, sub_sequence_number)) => Fate::Stored(at, sub_sequence_number),
            Err(failure) => Fate::from(failure),
        });
        let of_all =
            |kept: &Result<(), spool::Failure>| kept.as_ref().map_or_else(Fate::from, |()| Fate::Spooled);
        written.chain(spooled.into_iter().flat_map(move |kept| std::iter::repeat_with(move || of_all(kept))))
    }
}

/// The answers to a batch that was taken.
#[derive(Debug)]
pub(crate) enum Ticket {
    Writer(writer::Ticket),
    Spool(spool::Ticket),
}

impl Ticket {
    pub(crate) async fn fates(self) -> Fates {
        match self {
            Ticket::Writer(ticket) => Fates::Writer(ticket.outcomes().await),
            Ticket::Spool(ticket) => Fates::Spool(ticket.await),
        }
    }
}

/// Why a batch was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    Writer(writer::Refused),
    Spool(spool::Refused),
}

impl Inbound {
    /// Hands over a batch, or says at once that there is no room.
    pub(crate) async fn try_put(&self, load: Load) -> Result<Ticket, Refused> {
        match (load, &self.spool) {
            (Load::Batch(batch), _) => {
                self.writer.try_put_batch(batch).await.map_err(Refused::Writer).map(Ticket::Writer)
            }
            (Load::Puts(puts), None) => {
                self.writer.try_put(puts).await.map_err(Refused::Writer).map(Ticket::Writer)
            }
            (Load::Puts(puts), Some(spool)) => {
                spool.try_append(puts).await.map_err(Refused::Spool).map(Ticket::Spool)
            }
        }
    }

    /// Hands over a batch, waiting for room.
    pub(crate) async fn put(&self, load: Load) -> Result<Ticket, Refused> {
        match (load, &self.spool) {
            (Load::Batch(batch), _) => {
                self.writer.put_batch(batch).await.map_err(Refused::Writer).map(Ticket::Writer)
            }
            (Load::Puts(puts), None) => {
                self.writer.put(puts).await.map_err(Refused::Writer).map(Ticket::Writer)
            }
            (Load::Puts(puts), Some(spool)) => {
                spool.append(puts).await.map_err(Refused::Spool).map(Ticket::Spool)
            }
        }
    }

    /// Waits until everything that was taken is on the stream.
    pub(crate) async fn drain(&self) {
        let spool = self.spool.as_ref().map_or_else(|| Either::Left(ready(())), |s| Either::Right(s.drain()));
        spool.await;
        self.writer.drain().await;
    }
}

impl call::Error {
    /// What the refusal of a batch means for the call.
    pub(crate) fn from_refused(refused: Refused, stream: &str) -> Self {
        let stream = stream.to_owned();
        match refused {
            Refused::Writer(writer::Refused::Full { limit, retry_after })
            | Refused::Spool(spool::Refused::Busy { limit, retry_after }) => {
                Self::Full { stream, limit, retry_after }
            }
            Refused::Spool(spool::Refused::Full { limit, retry_after }) => {
                Self::SpoolFull { stream, limit, retry_after }
            }
            Refused::Writer(writer::Refused::BatchTooLarge { bytes, limit })
            | Refused::Spool(spool::Refused::BatchTooLarge { bytes, limit }) => {
                Self::BatchTooLarge { bytes, limit }
            }
            Refused::Writer(writer::Refused::Stopped) | Refused::Spool(spool::Refused::Stopped) => {
                Self::Draining
            }
            Refused::Writer(other) => Self::Lost { reason: other.to_string() },
        }
    }
}
