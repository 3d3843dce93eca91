//! Progress in a DynamoDB table: one item per lane, with the hash key `lane`. `expires` is meant for the
//! table's time to live.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, KeysAndAttributes, PutRequest, WriteRequest};
use backon::{ExponentialBuilder, Retryable as _};
use bytestring::ByteString;

use super::{Entry, Error, Progress, Span};

/// The most items that one BatchWriteItem takes (DynamoDB API).
const WRITES_AT_ONCE: usize = 25;
/// The most keys that one BatchGetItem takes (DynamoDB API).
const READS_AT_ONCE: usize = 100;

type Item = HashMap<String, AttributeValue>;

/// [`Progress`] in a DynamoDB table.
#[derive(Debug, Clone)]
pub struct Dynamo {
    client: Client,
    table: String,
    scope: String,
}

impl Dynamo {
    /// Entries in this table; `scope` is the function's name, as two functions may read one stream.
    pub fn new(client: Client, table: impl Into<String>, scope: impl Into<String>) -> Self {
        Self { client, table: table.into(), scope: scope.into() }
    }

    fn prefix(&self, shard: &str) -> String {
        format!("{}/{shard}/", self.scope)
    }

    fn unavailable(&self, reason: impl Into<String>) -> Error {
        Error::Unavailable { table: self.table.clone(), reason: reason.into() }
    }

    fn failed<E: ProvideErrorMetadata + std::error::Error>(&self, error: &E) -> Error {
        self.unavailable(match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => DisplayErrorContext(error).to_string(),
        })
    }

    async fn send(&self, writes: Vec<WriteRequest>) -> Result<(), Error> {
        for chunk in writes.chunks(WRITES_AT_ONCE) {
            let left = std::sync::Mutex::new(chunk.to_vec());
            let take =
                || std::mem::take(&mut *left.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            let once = || async {
                let request = self.client.batch_write_item().request_items(&self.table, take());
                let answer = request.send().await.map_err(|error| (false, self.failed(&error)))?;
                let rest =
                    answer.unprocessed_items.unwrap_or_default().remove(&self.table).unwrap_or_default();
                if rest.is_empty() {
                    return Ok(());
                }
                let count = rest.len();
                *left.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = rest;
                Err((true, self.unavailable(format!("{count} items were not written, it is throttled"))))
            };
            let pauses = ExponentialBuilder::new().with_min_delay(Duration::from_millis(20)).with_jitter();
            once.retry(pauses).when(|(again, _)| *again).await.map_err(|(_, error)| error)?;
        }
        Ok(())
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn to_item(key: String, entry: &Entry) -> Item {
    let span = |span: &Span| AttributeValue::L(vec![text(&span.from), text(&span.to)]);
    let has = entry.has.iter().map(|(stream, s)| (stream.clone(), span(s))).collect();
    HashMap::from([
        ("lane".to_owned(), AttributeValue::S(key)),
        ("table".to_owned(), text(&entry.table)),
        ("has".to_owned(), AttributeValue::M(has)),
        ("expires".to_owned(), AttributeValue::N(entry.expires.to_string())),
    ])
}

/// `None` for an item that is not of this form: it then counts for nothing.
fn from_item(prefix: &str, item: &Item) -> Option<Entry> {
    let lane = item.get("lane")?.as_s().ok()?.strip_prefix(prefix)?;
    let mut has = BTreeMap::new();
    for (stream, span) in item.get("has")?.as_m().ok()? {
        let [from, to] = &span.as_l().ok()?[..] else { return None };
        let number = |value: &AttributeValue| value.as_s().ok().map(|text| ByteString::from(text.as_str()));
        has.insert(stream.clone(), Span { from: number(from)?, to: number(to)? });
    }
    let expires = item.get("expires")?.as_n().ok()?.parse().ok()?;
    Some(Entry { lane: lane.into(), table: item.get("table")?.as_s().ok()?.clone(), has, expires })
}

#[async_trait]
impl Progress for Dynamo {
    async fn read(&self, shard: &str, lanes: &[ByteString]) -> Result<Vec<Entry>, Error> {
        let prefix = self.prefix(shard);
        let mut entries = Vec::new();
        for lanes in lanes.chunks(READS_AT_ONCE) {
            let key =
                |lane: &ByteString| HashMap::from([("lane".to_owned(), text(&format!("{prefix}{lane}")))]);
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(lanes.iter().map(key).collect()))
                .consistent_read(true)
                .build()
                .map_err(|error| self.unavailable(error.to_string()))?;
            let request = self.client.batch_get_item().request_items(&self.table, keys);
            let answer = request.send().await.map_err(|error| self.failed(&error))?;
            // Keys that it left out for lack of capacity are unknown: that costs repeats only.
            let items = answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default();
            entries.extend(items.iter().filter_map(|item| from_item(&prefix, item)));
        }
        Ok(entries)
    }

    async fn write(&self, shard: &str, entries: Vec<Entry>) -> Result<(), Error> {
        let prefix = self.prefix(shard);
        let write = |entry: &Entry| {
            let item = to_item(format!("{prefix}{}", entry.lane), entry);
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        };
        let writes = entries.iter().map(write).collect::<Result<_, _>>();
        self.send(writes.map_err(|error| self.unavailable(error.to_string()))?).await
    }

    async fn forget(&self, shard: &str, lanes: Vec<ByteString>) -> Result<(), Error> {
        let prefix = self.prefix(shard);
        let remove = |lane: &ByteString| {
            let remove = DeleteRequest::builder().key("lane", text(&format!("{prefix}{lane}"))).build();
            remove.map(|remove| WriteRequest::builder().delete_request(remove).build())
        };
        let writes = lanes.iter().map(remove).collect::<Result<_, _>>();
        self.send(writes.map_err(|error| self.unavailable(error.to_string()))?).await
    }
}
