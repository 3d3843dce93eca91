//! Reading one shard through GetRecords.

use std::time::Duration;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use bytes::Bytes;
use headworks_record::ShardId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::decode::Raw;
use super::since::Start;
use crate::aws::Kinesis;
use crate::exit::Failure;

/// A shard allows five reads per second (Kinesis API, `GetRecords`).
const READ_EVERY: Duration = Duration::from_millis(200);
/// Calls that may fail one after the other before the tail gives up; the SDK tries each of them several times.
const MAX_FAILURES: u32 = 8;
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(4);

/// What a reader tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// Records of a shard, in order.
    Page { shard: ShardId, records: Vec<Raw> },
    /// The shard was read to its end: it was split or merged.
    End { shard: ShardId },
    /// The newest record was reached, and nobody wants to follow.
    CaughtUp,
    /// Nothing more can be read.
    Failed(Failure),
}

/// Reads one shard.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) kinesis: Kinesis,
    /// Name or ARN.
    pub(crate) stream: String,
    pub(crate) shard: ShardId,
    pub(crate) start: Start,
    pub(crate) follow: bool,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Reader {
    /// Reads until the shard's end, until it has caught up, or until nobody listens.
    pub(crate) async fn run(mut self) {
        let last = match self.read().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(failure) => Event::Failed(failure),
        };
        let _ = self.events.send(last).await;
    }

    async fn read(&mut self) -> Result<Option<Event>, Failure> {
        let mut iterator: Option<String> = None;
        let mut failures = 0;
        loop {
            let Some(current) = &iterator else {
                iterator = Some(self.iterator(&mut failures).await?);
                continue;
            };
            let next_read = Instant::now() + READ_EVERY;
            let request = self.kinesis.client.get_records().shard_iterator(current);
            let page = match request.set_stream_arn(arn(&self.stream)).send().await {
                Ok(page) => page,
                // Five minutes passed, or the service moved the shard: go on behind the last record.
                Err(error) if error.code() == Some("ExpiredIteratorException") => {
                    iterator = None;
                    continue;
                }
                Err(error) => {
                    self.pause("GetRecords", &error, &mut failures).await?;
                    continue;
                }
            };
            failures = 0;
            let behind = page.millis_behind_latest.unwrap_or(0);
            if let Some(last) = page.records.last() {
                self.start = Start::After(last.sequence_number.clone());
                let records = page.records.into_iter().map(raw).collect();
                if self.events.send(Event::Page { shard: self.shard.clone(), records }).await.is_err() {
                    return Ok(None);
                }
            }
            iterator = match page.next_shard_iterator.filter(|next| !next.is_empty()) {
                Some(next) => Some(next),
                None => return Ok(Some(Event::End { shard: self.shard.clone() })),
            };
            if behind == 0 && !self.follow {
                return Ok(Some(Event::CaughtUp));
            }
            tokio::select! {
                () = sleep_until(next_read) => {}
                () = self.events.closed() => return Ok(None),
            }
        }
    }

    async fn iterator(&self, failures: &mut u32) -> Result<String, Failure> {
        let (sequence_number, timestamp) = match &self.start {
            Start::After(sequence_number) => (Some(sequence_number.clone()), None),
            Start::At(at) => (None, Some(DateTime::from_millis(at.as_millisecond()))),
            Start::TrimHorizon | Start::Latest => (None, None),
        };
        loop {
            let request = self
                .kinesis
                .client
                .get_shard_iterator()
                .set_stream_name(name(&self.stream))
                .set_stream_arn(arn(&self.stream))
                .shard_id(self.shard.as_str())
                .shard_iterator_type(self.start.kind())
                .set_starting_sequence_number(sequence_number.clone())
                .set_timestamp(timestamp);
            match request.send().await {
                Ok(output) => {
                    return output.shard_iterator.ok_or_else(|| {
                        Failure::environment(
                            "kinesis-refused",
                            format_args!(
                                "Kinesis at {} gave no iterator for {}",
                                self.kinesis.place, self.shard
                            ),
                        )
                    });
                }
                Err(error) => self.pause("GetShardIterator", &error, failures).await?,
            }
        }
    }

    /// Waits before the next try; fails if there have been too many, or if none can help.
    async fn pause<E, R>(
        &self,
        operation: &str,
        error: &SdkError<E, R>,
        failures: &mut u32,
    ) -> Result<(), Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        *failures += 1;
        if !may_pass(error) || *failures > MAX_FAILURES {
            return Err(self.kinesis.failure(operation, error).at(&self.shard));
        }
        let longest = FIRST_BACKOFF.saturating_mul(1 << (*failures - 1).min(8)).min(MAX_BACKOFF);
        sleep(longest.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        Ok(())
    }
}

/// Whether the same call may succeed later.
fn may_pass<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::ServiceError(service) => matches!(
            service.err().code(),
            Some(
                "ProvisionedThroughputExceededException"
                    | "LimitExceededException"
                    | "ThrottlingException"
                    | "KMSThrottlingException"
                    | "InternalFailureException"
                    | "InternalFailure"
                    | "ServiceUnavailable"
            )
        ),
        _ => true,
    }
}

fn raw(record: aws_sdk_kinesis::types::Record) -> Raw {
    Raw {
        sequence_number: record.sequence_number,
        partition_key: record.partition_key.unwrap_or_default(),
        arrival_ms: record.approximate_arrival_timestamp.and_then(|at| at.to_millis().ok()).unwrap_or(0),
        data: Bytes::from(record.data.into_inner()),
    }
}

/// A stream is given by name or by ARN.
pub(crate) fn name(stream: &str) -> Option<String> {
    (!stream.starts_with("arn:")).then(|| stream.to_owned())
}

pub(crate) fn arn(stream: &str) -> Option<String> {
    stream.starts_with("arn:").then(|| stream.to_owned())
}
