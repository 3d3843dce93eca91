//! The body of `PutRecords` as it goes over the wire, against the SDK's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use headworks_record::HashKey;
use headworks_writer::{Entry, KinesisStream, Stream};

/// What is sent: the body, and the headers that say what it is.
#[derive(Debug, PartialEq)]
struct Sent {
    body: String,
    headers: [Option<String>; 3],
}

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<Sent>>>);

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Seen {
    fn name(&self) -> &'static str {
        "Seen"
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
        let body = String::from_utf8(request.body().bytes().unwrap().to_vec()).unwrap();
        self.0.lock().unwrap().push(Sent { body, headers });
        Ok(())
    }
}

fn request(entry: &Entry) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .partition_key(&*entry.partition_key)
        .set_explicit_hash_key(entry.explicit_hash_key.map(|hash| hash.to_string()))
        .data(Blob::new(entry.data.to_vec()))
        .build()
        .unwrap()
}

#[tokio::test]
async fn it_is_byte_for_byte_that_of_the_sdk() {
    let stack = headworks_local::start().await.unwrap();
    let seen = Seen::default();
    let config = stack.kinesis().config().to_builder().interceptor(seen.clone()).build();
    let client = Client::from_conf(config);
    client.create_stream().stream_name("inbound").shard_count(1).send().await.unwrap();
    let entry = |key: &str, hash, data: Vec<u8>| Entry {
        partition_key: key.into(),
        explicit_hash_key: hash,
        data: Bytes::from(data),
    };
    let bytes: Vec<u8> = (0..=255).cycle().take(100_001).collect();
    let calls = [
        vec![entry("hw/shardId-000000000000/0", Some(HashKey::MAX), bytes.clone())],
        vec![
            entry("a", None, vec![]),
            entry("\"quoted\" \\ \n \u{1} \u{7f} ü 🦀 </script>", Some(HashKey(0)), vec![0]),
            entry("c", None, bytes[..2].to_vec()),
            entry("d", Some(HashKey(7)), bytes[..3].to_vec()),
        ],
    ];
    let stream = KinesisStream::new(client.clone(), "inbound");
    for entries in calls {
        seen.0.lock().unwrap().clear();
        let stored = stream.put_records(&entries).await.unwrap();
        assert!(stored.len() == entries.len() && stored.iter().all(Result::is_ok), "{stored:?}");
        let records = entries.iter().map(request).collect();
        client.put_records().stream_name("inbound").set_records(Some(records)).send().await.unwrap();
        let seen = seen.0.lock().unwrap();
        let [ours, theirs] = &seen[..] else { panic!("{} calls", seen.len()) };
        assert_eq!(ours, theirs);
        assert_eq!(ours.headers[1], Some(ours.body.len().to_string()));
    }
}
