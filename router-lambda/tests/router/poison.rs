//! Every kind of poison through the real writer and into a real bucket: each letter is whole, and the batch goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use headworks_local::Stack;
use headworks_record::Record;
use headworks_record::aggregate::{DIGEST_LEN, MAGIC};
use headworks_router::dead_letter::{Letter, show};
use headworks_router::{Bucket, KinesisShards, RouteTable, Router, Writers, writer_config};
use headworks_telemetry::RecordTracer;
use tokio::time::timeout;

use crate::bootstrap::{PATIENCE, create_with, read};
use crate::common::{SHARD, aggregate, event, invocation, record, seal};

const TABLE: &str = r#"
[[rules]]
when.type = "click"
to = "clicks"
[[rules]]
when.type = "lost"
to = "gone"
[default]
to = "orders"
"#;
/// What a stream takes, the partition key included.
const LARGEST: usize = 1 << 20;

/// A record whose Kinesis record is as large as any may be: on its way out the origin is added.
fn largest() -> (Record, Bytes) {
    let of = |bytes: usize| record("k", "order", &"x".repeat(bytes));
    let label = format!("hw/{SHARD}/0").len();
    // Lengths of this size all take three bytes.
    let beside = aggregate(&[of(LARGEST - 1000)]).len() - (LARGEST - 1000) + label;
    let record = of(LARGEST - beside);
    let blob = aggregate(std::slice::from_ref(&record));
    assert_eq!(blob.len() + label, LARGEST);
    (record, blob)
}

/// The aggregate with the key "x" made empty.
fn without_key(blob: &Bytes) -> Bytes {
    let protobuf = &blob[MAGIC.len()..blob.len() - DIGEST_LEN];
    let at = protobuf.windows(3).position(|bytes| bytes == [0x0a, 1, b'x']).unwrap();
    seal(&[&protobuf[..at], &[0x0a, 0], &protobuf[at + 3..]].concat())
}

/// As the KPL makes it: members "x", "?" and "y" of key "k", the second with an explicit hash key that is no number.
fn bad_hash_key() -> Bytes {
    let member = |data: u8, more: &[u8]| {
        let body = [&[0x08, 0], more, &[0x1a, 1, data]].concat();
        [&[0x1a, body.len() as u8], &body[..]].concat()
    };
    let tables: &[u8] = &[0x0a, 1, b'k', 0x12, 1, b'n'];
    seal(&[tables, &member(b'x', &[]), &member(b'?', &[0x10, 0]), &member(b'y', &[])].concat())
}

fn router(stack: &Stack) -> Router {
    let writers = Writers::new(stack.kinesis(), writer_config(), RecordTracer::disabled()).unwrap();
    Router::new(
        Arc::new(RouteTable::from_toml(TABLE).unwrap()),
        Arc::new(writers),
        Arc::new(Bucket::new(stack.s3(), "letters")),
        Arc::new(KinesisShards::new(stack.kinesis())),
    )
}

async fn letters(stack: &Stack) -> BTreeMap<String, Letter> {
    let bucket = Bucket::new(stack.s3(), "letters");
    let listed = stack.s3().list_objects_v2().bucket("letters").send().await.unwrap();
    let mut letters = BTreeMap::new();
    for object in listed.contents() {
        let letter = show(&bucket, object.key().unwrap()).await.unwrap();
        assert_eq!(Some(letter.key().as_str()), object.key());
        assert_eq!((&*letter.origin.stream, &*letter.origin.shard), ("inbound", SHARD));
        let place: u64 = letter.origin.sequence_number.parse().unwrap();
        assert_eq!(letter.origin.arrival_ms, 1_790_000_000_400 + place);
        letters.insert(letter.key().rsplit('/').next().unwrap().to_owned(), letter);
    }
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_poison_is_buried_whole_and_the_batch_goes_on() {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["orders", "clicks"], 1).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let router = router(&stack);
    let (large, large_blob) = largest();
    let keyless = record("x", "order", "no key");
    let lost = record("k", "lost", "lost");
    let order = |data: &str| record("k", "order", data);
    let out_of_range = seal(&[0x0a, 1, b'k', 0x1a, 5, 0x08, 1, 0x1a, 1, b'?']);
    let newer = seal(&[0x0a, 1, b'k', 0x1a, 5, 0x08, 0, 0x1a, 1, b'?', 0x7a, 2, 0x08, 9]);
    let batch = event(vec![
        aggregate(&[order("a")]),
        large_blob,
        out_of_range.clone(),
        newer.clone(),
        bad_hash_key(),
        without_key(&aggregate(&[order("b"), keyless.clone(), order("c")])),
        aggregate(&[order("d"), lost.clone(), record("k", "click", "e")]),
        aggregate(&[order("f")]),
    ]);
    let report = router.handle(&batch, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.dead_letters), (None, 6));
    let data =
        |records: Vec<Record>| -> Vec<Bytes> { records.into_iter().map(|record| record.data).collect() };
    assert_eq!(data(read(&stack, "orders").await), ["a", "x", "y", "b", "c", "d", "f"]);
    assert_eq!(data(read(&stack, "clicks").await), ["e"]);

    let letters = letters(&stack).await;
    let typed = |kind: &str| vec![("type".to_owned(), kind.to_owned())];
    let expected = [
        ("101-0.json", "record-too-large", Some("orders"), "k", typed("order"), large.data.clone()),
        (
            "102-all.json",
            "aggregate-index-out-of-range",
            None,
            "hw/shardId-000000000001/0",
            vec![],
            out_of_range,
        ),
        ("103-all.json", "aggregate-version-unsupported", None, "hw/shardId-000000000001/0", vec![], newer),
        ("104-1.json", "aggregate-member-invalid", None, "k", vec![], "?".into()),
        ("105-1.json", "aggregate-member-invalid", Some("orders"), "", typed("order"), "no key".into()),
        ("106-1.json", "destination-missing", Some("gone"), "k", typed("lost"), "lost".into()),
    ];
    assert_eq!(letters.len(), expected.len(), "{:?}", letters.keys());
    for (name, code, destination, key, headers, data) in expected {
        let Letter { reasons, partition_key, headers: kept, data: payload, .. } = &letters[name];
        assert_eq!((&*reasons[0].code, reasons[0].destination.as_deref()), (code, destination), "{name}");
        assert_eq!((reasons.len(), &**partition_key), (1, key), "{name}: {reasons:?}");
        // Of a member that cannot be read, every tag is kept as it stands.
        assert!(kept.ends_with(&headers) && kept.len() <= 2, "{name}: {kept:?}");
        assert!(*payload == data, "{name}: the payload");
    }
    for (name, record) in [("101-0.json", large), ("105-1.json", keyless), ("106-1.json", lost)] {
        assert_eq!(Some(letters[name].traceparent.clone()), record.traceparent(), "{name}");
    }
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_is_missing_until_it_is_back() {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["orders", "clicks"], 1).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let router = router(&stack);
    let handle = async |data: &str| {
        let batch = event(vec![aggregate(&[record("k", "click", data), record("k", "order", data)])]);
        let report = router.handle(&batch, &invocation()).await.unwrap();
        assert_eq!(report.failed, None, "{data}");
        (report.counts.stored, report.counts.dead_letters)
    };
    assert_eq!(handle("a").await, (2, 0));
    stack.kinesis().delete_stream().stream_name("clicks").send().await.unwrap();
    let gone = async || stack.kinesis().describe_stream_summary().stream_name("clicks").send().await.is_err();
    let deleted = async {
        while !gone().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, deleted).await.unwrap();
    assert_eq!(handle("b").await, (1, 1));
    let letters = letters(&stack).await;
    let letter = &letters["100-0.json"];
    assert_eq!((&*letter.reasons[0].code, &letter.data[..]), ("destination-missing", &b"b"[..]));

    create_with(&stack, &["clicks"], 2).await;
    assert_eq!(handle("c").await, (2, 0));
    // It has other shards now, which the writer learns by putting: what it put for the old one it puts again.
    let data: BTreeSet<Bytes> = read(&stack, "clicks").await.into_iter().map(|record| record.data).collect();
    assert_eq!(data, BTreeSet::from([Bytes::from("c")]));
    stack.shutdown().await.unwrap();
}
