//! The answer to come.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use headworks_proto::v1;
use tokio::sync::oneshot;

use crate::error::Error;

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The shard that has it, such as `shardId-000000000003`.
    pub shard_id: String,
    /// The sequence number of the Kinesis record that holds it, a decimal number.
    pub sequence_number: String,
    /// Its place in that Kinesis record, from 0.
    pub sub_sequence_number: u32,
    /// How often it was put on the stream: 1 unless something went wrong on the way.
    pub attempts: u32,
}

impl From<v1::Stored> for Stored {
    fn from(wire: v1::Stored) -> Self {
        Self {
            shard_id: wire.shard_id,
            sequence_number: wire.sequence_number,
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
    Waiting(oneshot::Receiver<Result<Stored, Error>>),
    /// The record never left; `None` once that was said.
    Failed(Option<Error>),
}

impl Ticket {
    pub(crate) fn waiting(answer: oneshot::Receiver<Result<Stored, Error>>) -> Self {
        Self(State::Waiting(answer))
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self(State::Failed(Some(error)))
    }
}

impl Future for Ticket {
    type Output = Result<Stored, Error>;

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
