//! The body of `PutRecords` as it goes over the wire: in CBOR, and in the SDK's own JSON where that is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::interceptors::{
    BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use bytes::Bytes;
use headworks_local::Stack;
use headworks_local::faults::{Action, Fault as Injected};
use headworks_record::HashKey;
use headworks_writer::{Entry, Fault, KinesisStream, Stream};

const JSON: &str = "application/x-amz-json-1.1";
const CBOR: &str = "application/x-amz-cbor-1.1";

/// What is sent: the body, and the headers that say what it is.
#[derive(Debug, PartialEq)]
struct Sent {
    /// Unless it is sent in parts.
    body: Option<Bytes>,
    headers: [Option<String>; 3],
}

impl Sent {
    fn content_type(&self) -> &str {
        self.headers[0].as_deref().unwrap()
    }

    fn length(&self) -> usize {
        self.headers[1].as_deref().unwrap().parse().unwrap()
    }
}

/// Keeps what `PutRecords` sends.
#[derive(Debug, Clone, Default)]
struct Seen {
    sent: Arc<Mutex<Vec<Sent>>>,
    /// Whether CBOR gets a name that nobody knows, so that the endpoint refuses it.
    hides_cbor: bool,
}

impl Seen {
    fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }

    fn content_types(&self) -> Vec<String> {
        self.take().iter().map(|sent| sent.content_type().to_owned()).collect()
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Seen {
    fn name(&self) -> &'static str {
        "Seen"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request_mut().headers_mut();
        if self.hides_cbor && headers.get("content-type") == Some(CBOR) {
            headers.insert("content-type", "application/x-unheard-of");
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let header = |name| request.headers().get(name).map(str::to_owned);
        let headers = ["content-type", "content-length", "x-amz-target"].map(header);
        if headers[2].as_deref() == Some("Kinesis_20131202.PutRecords") {
            let body = request.body().bytes().map(Bytes::copy_from_slice);
            self.sent.lock().unwrap().push(Sent { body, headers });
        }
        Ok(())
    }
}

/// A stream of one shard, and a client of it that tells what it sends.
async fn start(hides_cbor: bool) -> (Stack, Client, Seen) {
    let stack = headworks_local::start().await.unwrap();
    let seen = Seen { hides_cbor, ..Seen::default() };
    let config = stack.kinesis().config().to_builder().interceptor(seen.clone()).build();
    let client = Client::from_conf(config);
    client.create_stream().stream_name("inbound").shard_count(1).send().await.unwrap();
    (stack, client, seen)
}

fn entry(key: &str, hash: Option<HashKey>, data: Vec<u8>) -> Entry {
    Entry { partition_key: key.into(), explicit_hash_key: hash, data: Bytes::from(data) }
}

/// Keys with all that has to be escaped, hashes from end to end, and a payload on each side of where a length takes
/// another byte.
fn entries() -> Vec<Entry> {
    let bytes: Vec<u8> = (0..=255).cycle().take(100_001).collect();
    let mut entries = vec![
        entry("hw/shardId-000000000000/0", Some(HashKey::MAX), bytes.clone()),
        entry("\"quoted\" \\ \n \u{1} \u{7f} ü 🦀 </script>", Some(HashKey(0)), vec![0]),
        entry(&"k".repeat(256), Some(HashKey(7)), bytes[..3].to_vec()),
    ];
    let lengths = [0, 1, 2, 23, 24, 255, 256, 65_535, 65_536];
    entries.extend(lengths.map(|length| entry(&format!("of {length}"), None, bytes[..length].to_vec())));
    entries
}

async fn put(stream: &KinesisStream, entries: &[Entry]) {
    let stored = stream.put_records(entries).await.unwrap();
    assert!(stored.len() == entries.len() && stored.iter().all(Result::is_ok), "{stored:?}");
}

#[tokio::test]
async fn cbor_stores_what_was_put() {
    let (stack, client, seen) = start(false).await;
    let (stream, entries) = (KinesisStream::new(client.clone(), "inbound"), entries());
    put(&stream, &entries).await;

    let sent = seen.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].content_type(), CBOR);
    let data: usize = entries.iter().map(|entry| entry.data.len()).sum();
    assert!(
        (data..data + 200 * entries.len()).contains(&sent[0].length()),
        "{} for {data}",
        sent[0].length()
    );

    let iterator = client.get_shard_iterator().stream_name("inbound").shard_id("shardId-000000000000");
    let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let read = client.get_records().set_shard_iterator(iterator.shard_iterator).send().await.unwrap();
    let read: Vec<_> =
        read.records().iter().map(|record| (record.partition_key(), record.data().as_ref())).collect();
    let wanted: Vec<_> = entries.iter().map(|entry| (Some(&*entry.partition_key), &entry.data[..])).collect();
    assert!(read == wanted);
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn errors_in_cbor_are_told_apart() {
    let (stack, client, seen) = start(false).await;
    let error = KinesisStream::new(client.clone(), "nobody").put_records(&entries()).await.unwrap_err();
    assert_eq!((error.fault, &*error.code), (Fault::Permanent, "ResourceNotFoundException"), "{error}");
    assert!(error.message.contains("nobody"), "{error}");

    let throttle = stack.faults().add(Injected::on("PutRecords", Action::Throttle)).unwrap();
    let stream = KinesisStream::new(client.clone(), "inbound");
    let answers = stream.put_records(&entries()).await.unwrap();
    let faults: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap_err().fault).collect();
    assert!(faults.iter().all(|fault| *fault == Fault::Throttled), "{faults:?}");
    stack.faults().remove(throttle);
    assert_eq!(seen.content_types(), [CBOR, CBOR], "an answer in CBOR shows that CBOR was read");
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_refuses_cbor_gets_json() {
    let (stack, client, seen) = start(true).await;
    let stream = KinesisStream::new(client.clone(), "inbound");
    put(&stream, &entries()).await;
    put(&stream, &entries()).await;
    assert_eq!(seen.content_types(), ["application/x-unheard-of", JSON, JSON]);

    // What JSON does not mend is not taken for the encoding's fault.
    let denied =
        Injected::on("PutRecords", Action::Error { code: "ServiceUnavailable".into(), status: None });
    let denied = stack.faults().add(denied).unwrap();
    let other = KinesisStream::new(client.clone(), "inbound");
    other.put_records(&entries()).await.unwrap_err();
    stack.faults().remove(denied);
    seen.take();
    put(&other, &entries()).await;
    assert_eq!(seen.content_types(), ["application/x-unheard-of", JSON]);
    stack.shutdown().await.unwrap();
}

/// Else records that may be stored, or would be the next time, counted as failed.
#[tokio::test]
async fn what_json_is_told_counts() {
    let (stack, client, seen) = start(true).await;
    let lost = Action::ErrorAfterCommit { code: "InternalFailure".into(), status: None };
    for (action, fault) in [(Action::ThrottleCall, Fault::Throttled), (lost, Fault::Ambiguous)] {
        let added = stack.faults().add(Injected::on("PutRecords", action)).unwrap();
        let stream = KinesisStream::new(client.clone(), "inbound");
        let error = stream.put_records(&entries()).await.unwrap_err();
        assert_eq!((error.fault, stack.faults().fired(added)), (fault, 1), "{error}");
        assert_eq!(seen.content_types(), ["application/x-unheard-of", JSON]);
        stack.faults().remove(added);
    }
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn json_is_byte_for_byte_that_of_the_sdk() {
    let (stack, client, seen) = start(true).await;
    let stream = KinesisStream::new(client.clone(), "inbound");
    put(&stream, &entries()[..1]).await;
    for entries in [entries(), entries()[..1].to_vec()] {
        seen.take();
        put(&stream, &entries).await;
        let records = entries.iter().map(request).collect();
        client.put_records().stream_name("inbound").set_records(Some(records)).send().await.unwrap();
        let seen = seen.take();
        let [ours, theirs] = &seen[..] else { panic!("{} calls", seen.len()) };
        assert!(ours == theirs);
        assert_eq!(ours.length(), ours.body.as_ref().unwrap().len());
    }
    stack.shutdown().await.unwrap();
}

fn request(entry: &Entry) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .partition_key(&*entry.partition_key)
        .set_explicit_hash_key(entry.explicit_hash_key.map(|hash| hash.to_string()))
        .data(Blob::new(entry.data.to_vec()))
        .build()
        .unwrap()
}
