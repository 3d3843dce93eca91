//! The answer to come.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use headworks_proto::v1;
use tokio::sync::oneshot;

use crate::error::Error;

/// What the gateway answers for a record that it has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The stream has it.
    Stored(Stored),
    /// The gateway has it in its spool, on disk, and will put it on the stream from there.
    Spooled,
}

impl Receipt {
    /// Where the record is, if its stream has it.
    pub fn stored(&self) -> Option<&Stored> {
        match self {
            Self::Stored(stored) => Some(stored),
            Self::Spooled => None,
        }
    }
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The shard that has it, such as `shardId-000000000003`.
    pub shard_id: Arc<str>,
    /// The sequence number of the Kinesis record that holds it, a decimal number.
    pub sequence_number: Arc<str>,
    /// Its place in that Kinesis record, from 0.
    pub sub_sequence_number: u32,
    /// How often it was put on the stream: 1 unless something went wrong on the way.
    pub attempts: u32,
}

impl Stored {
    pub(crate) fn at(place: v1::Place, sub_sequence_number: u32) -> Self {
        let v1::Place { shard_id, sequence_number, attempts } = place;
        Self {
            shard_id: shard_id.into(),
            sequence_number: sequence_number.into(),
            sub_sequence_number,
            attempts,
        }
    }
}

impl From<v1::Stored> for Stored {
    fn from(wire: v1::Stored) -> Self {
        Self {
            shard_id: wire.shard_id.into(),
            sequence_number: wire.sequence_number.into(),
            sub_sequence_number: wire.sub_sequence_number,
            attempts: wire.attempts,
        }
    }
}

/// The answer to a record that is on its way. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "dropping a ticket leaves the record on its way but forgets what becomes of it"]
pub struct Ticket(State);

#[derive(Debug)]
enum State {
    Waiting(oneshot::Receiver<Result<Receipt, Error>>),
    /// The record never left; `None` once that was said.
    Failed(Option<Error>),
}

impl Ticket {
    pub(crate) fn waiting(answer: oneshot::Receiver<Result<Receipt, Error>>) -> Self {
        Self(State::Waiting(answer))
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self(State::Failed(Some(error)))
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Waiting(answer) => Pin::new(answer).poll(cx).map(|answer| {
                // The task answers every record, so it was dropped, with its runtime.
                answer.unwrap_or_else(|_gone| {
                    let message = "the runtime of the producer was shut down".to_owned();
                    Err(Error::OutcomeUnknown { message })
                })
            }),
            State::Failed(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                // As with any future that is asked again after its answer.
                None => Poll::Pending,
            },
        }
    }
}
