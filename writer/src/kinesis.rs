//! A Kinesis stream through the AWS SDK.

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamMode};
use aws_smithy_runtime_api::client::result::DispatchFailure;
use headworks_record::{HashKey, HashRange, LaneCount, Shard, ShardId};

use crate::puts::Puts;
use crate::stream::{CallError, Capacity, Entry, EntryError, Fault, ListedShard, Stored, Stream};

/// The stream tag that says how many lanes a shard has; absent: one.
pub const LANES_TAG: &str = "headworks:lanes";

/// A Kinesis stream.
#[derive(Debug, Clone)]
pub struct KinesisStream {
    puts: Puts,
    name: String,
}

impl KinesisStream {
    /// The stream of this name.
    ///
    /// The client's own retries are switched off: the writer must know of each attempt, because a
    /// call that was not answered may have stored its records.
    ///
    /// Records are put in CBOR, which is a quarter shorter than JSON. An endpoint that refuses the first such call
    /// and takes it in JSON gets JSON from then on; `AWS_CBOR_DISABLE=true` in the environment, or a client with a
    /// protocol of its own, never sends CBOR.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        let config = client.config();
        let own = config.to_builder().retry_config(RetryConfig::disabled());
        Self { puts: Puts::new(&own, config.protocol().is_some()), name: name.into() }
    }

    fn client(&self) -> &Client {
        self.puts.client()
    }
}

#[async_trait]
impl Stream for KinesisStream {
    fn name(&self) -> &str {
        &self.name
    }

    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError> {
        let mut listed = Vec::new();
        let mut request = self.client().list_shards().stream_name(&self.name);
        loop {
            let page = request.send().await.map_err(CallError::from)?;
            for shard in page.shards() {
                listed.push(listed_shard(shard)?);
            }
            match page.next_token {
                // The service refuses a name beside a token.
                Some(token) => request = self.client().list_shards().next_token(token),
                None => return Ok(listed),
            }
        }
    }

    async fn lanes(&self) -> Result<LaneCount, CallError> {
        let mut start = None;
        loop {
            let page = self
                .client()
                .list_tags_for_stream()
                .stream_name(&self.name)
                .set_exclusive_start_tag_key(start.take())
                .send()
                .await
                .map_err(CallError::from)?;
            if let Some(tag) = page.tags().iter().find(|tag| tag.key() == LANES_TAG) {
                let text = tag.value().unwrap_or_default();
                return text.parse().ok().and_then(LaneCount::new).ok_or_else(|| CallError {
                    fault: Fault::Permanent,
                    code: "lanes-invalid".to_owned(),
                    message: format!(
                        "the tag {LANES_TAG} of stream {:?} is {text:?}; it must be a number from 1 to {}",
                        self.name,
                        LaneCount::MAX
                    ),
                });
            }
            match page.tags().last() {
                Some(last) if page.has_more_tags() => start = Some(last.key().to_owned()),
                _ => return Ok(LaneCount::ONE),
            }
        }
    }

    async fn capacity(&self) -> Result<Capacity, CallError> {
        let answer = self
            .client()
            .describe_stream_summary()
            .stream_name(&self.name)
            .send()
            .await
            .map_err(CallError::from)?;
        let mode = answer
            .stream_description_summary()
            .and_then(|summary| summary.stream_mode_details())
            .map(|details| details.stream_mode());
        // Streams from before there were modes say nothing, and are provisioned.
        Ok(match mode {
            Some(StreamMode::OnDemand) => Capacity::OnDemand,
            _ => Capacity::Provisioned,
        })
    }

    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError> {
        let records = entries.iter().map(request_entry).collect::<Result<Vec<_>, _>>()?;
        let answer = self.puts.send(&self.name, records).await?;
        Ok(answer
            .records
            .into_iter()
            .map(|record| match (record.shard_id, record.sequence_number) {
                (Some(shard), Some(sequence)) => {
                    Ok(Stored { shard: ShardId::new(shard), sequence_number: sequence.into() })
                }
                _ => {
                    let code = record.error_code.unwrap_or_default();
                    // InternalFailure promises nothing about whether the record was stored.
                    let fault = match code.as_str() {
                        "ProvisionedThroughputExceededException" => Fault::Throttled,
                        _ => Fault::Ambiguous,
                    };
                    Err(EntryError { fault, code, message: record.error_message.unwrap_or_default() })
                }
            })
            .collect())
    }
}

fn request_entry(entry: &Entry) -> Result<PutRecordsRequestEntry, CallError> {
    PutRecordsRequestEntry::builder()
        .partition_key(&*entry.partition_key)
        .set_explicit_hash_key(entry.explicit_hash_key.map(|hash| hash.to_string()))
        .data(Blob::from_maybe_shared(entry.data.clone()))
        .build()
        .map_err(|error| malformed(error.to_string()))
}

fn listed_shard(shard: &aws_sdk_kinesis::types::Shard) -> Result<ListedShard, CallError> {
    let hash = |text: &str| text.parse::<HashKey>().map_err(|error| malformed(error.to_string()));
    let range =
        shard.hash_key_range().ok_or_else(|| malformed(format!("{} has no range", shard.shard_id())))?;
    let range = HashRange { start: hash(range.starting_hash_key())?, end: hash(range.ending_hash_key())? };
    let closed =
        shard.sequence_number_range().is_some_and(|numbers| numbers.ending_sequence_number().is_some());
    Ok(ListedShard { shard: Shard { id: ShardId::new(shard.shard_id()), range }, closed })
}

fn malformed(message: String) -> CallError {
    CallError { fault: Fault::Unavailable, code: "malformed-answer".to_owned(), message }
}

/// Sorts an SDK error by what is done next.
impl<E> From<SdkError<E>> for CallError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let (fault, code) = match &error {
            SdkError::ConstructionFailure(_) => (Fault::Access, "request-not-built".to_owned()),
            SdkError::TimeoutError(_) => (Fault::Ambiguous, "timeout".to_owned()),
            // A connection that was never made has sent nothing.
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                (Fault::Access, "request-not-sent".to_owned())
            }
            SdkError::DispatchFailure(failure) if never_signed(failure) => {
                (Fault::Access, "request-not-signed".to_owned())
            }
            SdkError::DispatchFailure(failure) if never_connected(failure) => {
                (Fault::Unavailable, "connection-failed".to_owned())
            }
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or("unknown").to_owned();
                (fault_of(&code, service.raw().status().as_u16()), code)
            }
            _ => (Fault::Ambiguous, "connection-lost".to_owned()),
        };
        let message = match error.message() {
            Some(message) => message.to_owned(),
            None => chain(&error),
        };
        CallError { fault, code, message }
    }
}

/// An error and its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// Whether the request was not sent for want of credentials. The SDK says no more of that than that it is no error of
/// a connection's: those have one of hyper's below them, or a kind.
fn never_signed(failure: &DispatchFailure) -> bool {
    let Some(error) = failure.as_connector_error().filter(|error| error.is_other()) else { return false };
    let causes =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    error.as_other().is_none() && !causes.into_iter().any(is_of_hyper)
}

fn is_of_hyper(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<hyper::Error>() || error.is::<hyper_util::client::legacy::Error>()
}

/// Whether the connection was refused before anything was sent.
fn never_connected(failure: &DispatchFailure) -> bool {
    let mut source = failure.as_connector_error().map(|error| error as &dyn std::error::Error);
    while let Some(error) = source {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// Error codes of `PutRecords`, `ListShards` and of AWS's common errors (Kinesis API reference).
fn fault_of(code: &str, status: u16) -> Fault {
    match code {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "RequestLimitExceeded" => Fault::Throttled,
        "KMSThrottlingException" => Fault::KeyThrottled,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "NotAuthorized"
        | "OptInRequired"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Fault::Access,
        // A stream that is being created or updated takes records again in a moment.
        "ResourceInUseException" | "ServiceUnavailable" | "ServiceUnavailableException" => Fault::Unavailable,
        "ResourceNotFoundException"
        | "InvalidArgumentException"
        | "ValidationException"
        | "SerializationException" => Fault::Permanent,
        // An internal failure promises nothing about whether the records were stored.
        _ if status >= 500 => Fault::Ambiguous,
        _ => Fault::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(fault_of("ProvisionedThroughputExceededException", 400), Fault::Throttled);
        assert_eq!(fault_of("AccessDeniedException", 400), Fault::Access);
        assert_eq!(fault_of("KMSThrottlingException", 400), Fault::KeyThrottled);
        assert_eq!(fault_of("ResourceNotFoundException", 400), Fault::Permanent);
        assert_eq!(fault_of("InternalFailure", 500), Fault::Ambiguous);
        assert_eq!(fault_of("unknown", 503), Fault::Ambiguous);
    }
}
