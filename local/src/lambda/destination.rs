//! [`Destination`]: where a mapping puts records that it gives up, and the invocation record that it writes there.

use std::fmt;
use std::sync::Arc;

use aws_sdk_s3::error::DisplayErrorContext;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;

use super::lane::{Batch, Condition};

type Put = dyn Fn(String, Bytes) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// Takes invocation records: a key and a JSON document.
#[derive(Clone)]
pub struct Destination {
    name: String,
    put: Arc<Put>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Destination").field(&self.name).finish()
    }
}

impl Destination {
    /// A bucket, with the object keys that Lambda uses.
    pub fn s3(client: aws_sdk_s3::Client, bucket: impl Into<String>) -> Self {
        let bucket: String = bucket.into();
        let name = format!("s3://{bucket}");
        Self::from_fn(name, move |key, body| {
            let request = client
                .put_object()
                .bucket(&bucket)
                .key(key)
                .content_type("application/json")
                .body(body.into())
                .send();
            async move { request.await.map(drop).map_err(|error| DisplayErrorContext(&error).to_string()) }
        })
    }

    /// An async closure from key and document; an error message makes the mapping try again, for as long as it
    /// takes: the shard waits.
    pub fn from_fn<F, R>(name: impl Into<String>, put: F) -> Self
    where
        F: Fn(String, Bytes) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name: name.into(), put: Arc::new(move |key, body| Box::pin(put(key, body))) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn put(&self, document: &Document) -> Result<(), String> {
        (self.put)(document.key.clone(), document.body.clone()).await
    }
}

/// One object of the destination.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) key: String,
    body: Bytes,
}

/// What a document says besides the batch itself.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub(super) mapping_id: &'a str,
    pub(super) function_arn: &'a str,
    pub(super) function_version: &'a str,
    pub(super) stream_arn: &'a str,
    pub(super) shard_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InvocationRecord<'a> {
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_context: Option<ResponseContext<'a>>,
    version: &'static str,
    timestamp: String,
    #[serde(rename = "KinesisBatchInfo")]
    batch: BatchInfo<'a>,
    /// The whole event, as text: only S3 is sent it, as other destinations cannot hold it.
    payload: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    request_id: String,
    function_arn: &'a str,
    condition: &'static str,
    approximate_invoke_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext<'a> {
    status_code: u16,
    executed_version: &'a str,
    function_error: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo<'a> {
    shard_id: &'a str,
    start_sequence_number: String,
    end_sequence_number: String,
    approximate_arrival_of_first_record: String,
    approximate_arrival_of_last_record: String,
    batch_size: usize,
    stream_arn: &'a str,
}

impl Document {
    /// Describes a batch that is given up. `event` is the event that the function was, or would have been, handed.
    pub(super) fn new(
        origin: &Origin<'_>,
        batch: &Batch,
        condition: Condition,
        event: &[u8],
        now_ms: i64,
    ) -> Result<Self, serde_json::Error> {
        let arrival = |ms: Option<i64>| time(ms.unwrap_or(now_ms), "%Y-%m-%dT%H:%M:%S%.3fZ");
        let (first, last) = (batch.records().next(), batch.items.back().map(|item| &item.record));
        let sequence = |record: Option<&crate::kinesis::Record>| {
            record.map(|record| record.sequence.to_string()).unwrap_or_default()
        };
        let record = InvocationRecord {
            request_context: RequestContext {
                request_id: uuid::Uuid::new_v4().to_string(),
                function_arn: origin.function_arn,
                condition: condition.name(),
                approximate_invoke_count: batch.invokes,
            },
            response_context: (batch.invokes > 0).then_some(ResponseContext {
                status_code: 200,
                executed_version: origin.function_version,
                function_error: "Unhandled",
            }),
            version: "1.0",
            timestamp: arrival(Some(now_ms)),
            batch: BatchInfo {
                shard_id: origin.shard_id,
                start_sequence_number: sequence(first),
                end_sequence_number: sequence(last),
                approximate_arrival_of_first_record: arrival(first.map(|record| record.arrival_ms)),
                approximate_arrival_of_last_record: arrival(last.map(|record| record.arrival_ms)),
                batch_size: batch.items.len(),
                stream_arn: origin.stream_arn,
            },
            payload: &String::from_utf8_lossy(event),
        };
        let key = format!(
            "aws/lambda/{}/{}/{}-{}",
            origin.mapping_id,
            origin.shard_id,
            time(now_ms, "%Y/%m/%d/%Y-%m-%dT%H.%M.%S"),
            uuid::Uuid::new_v4()
        );
        Ok(Self { key, body: serde_json::to_vec(&record)?.into() })
    }
}

fn time(unix_ms: i64, format: &str) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).strftime(format).to_string()
}
