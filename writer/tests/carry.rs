//! What is encoded already is carried on: whole where it can be, else member by member.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{MemoryStream, numbered};
use headworks_record::aggregate::{Aggregate, Builder, Decoded, Origin, decode};
use headworks_record::{HashKey, Record};
use headworks_writer::{Config, Encoded, Handle, Parcel, Put, Writer};

fn records(count: u32, bytes: usize, hash: impl Fn(u32) -> u128) -> Vec<Record> {
    let record = |n: u32| {
        let mut data = n.to_be_bytes().to_vec();
        data.resize(bytes, 7);
        let record = Record::builder(format!("k{n}")).unwrap().header("type", "t").unwrap().data(data);
        record.explicit_hash_key(HashKey(hash(n))).build()
    };
    (0..count).map(record).collect()
}

fn encoded(records: &[Record]) -> Arc<Aggregate> {
    let mut builder = Builder::new();
    records.iter().for_each(|record| builder.push(record));
    unpack(&builder.finish())
}

fn unpack(blob: &Bytes) -> Arc<Aggregate> {
    let Decoded::Aggregate(aggregate) = decode(blob).unwrap() else { panic!("an aggregate") };
    Arc::new(aggregate)
}

fn origin(number: u32) -> Arc<Origin> {
    let (shard, sequence_number) = ("shardId-000000000009".into(), number.to_string().into());
    Arc::new(Origin { shard, sequence_number, arrival_ms: 1_790_000_000_000 })
}

async fn start(shards: u128, config: Config) -> (MemoryStream, Handle) {
    let stream = MemoryStream::new(shards, 1);
    let (service, writer) = Writer::start(config, stream.clone(), Default::default()).await.unwrap();
    tokio::spawn(service.run(Default::default()));
    (stream, writer)
}

/// All entries' data, shard after shard.
fn put(stream: &MemoryStream) -> Vec<Bytes> {
    let entries = |state: &mut common::State| {
        state.shards.iter().flat_map(|shard| &shard.entries).map(|entry| entry.data.clone()).collect()
    };
    stream.with(entries)
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_one_lane_is_put_as_it_is_with_its_origin() {
    let (stream, writer) = start(2, Config::default()).await;
    let aggregate = encoded(&records(200, 300, u128::from));
    let parcel = Encoded::whole(Arc::clone(&aggregate)).unwrap().origin(origin(1));
    let outcomes = writer.put_parcels(vec![parcel.into()]).await.unwrap().await;
    let places: Vec<u32> = outcomes.into_iter().map(|outcome| outcome.unwrap().sub_sequence_number).collect();
    assert_eq!(places, (0..200).collect::<Vec<_>>());
    assert_eq!(put(&stream), [aggregate.carried_on(Some(&origin(1))).unwrap()]);
    // It holds every byte of the members as they were, payloads and tags.
    let end = aggregate.blob().len() - 16;
    assert_eq!(put(&stream)[0][..end], aggregate.blob()[..end]);
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_two_shards_is_taken_apart() {
    let (stream, writer) = start(2, Config::default()).await;
    let given = records(100, 50, |n| if n % 2 == 0 { 0 } else { u128::MAX });
    let parcel = Encoded::whole(encoded(&given)).unwrap().origin(origin(1));
    let ticket = writer.put_parcels(vec![parcel.into()]).await.unwrap();
    assert!(ticket.await.iter().all(Result::is_ok));
    let blobs = put(&stream);
    assert_eq!(blobs.len(), 2);
    for (half, blob) in blobs.iter().enumerate() {
        let expected: Vec<Record> = given.iter().skip(half).step_by(2).cloned().collect();
        let aggregate = unpack(blob);
        let found: Vec<Record> = aggregate.members().map(|m| m.to_record().unwrap()).collect();
        assert_eq!(found, expected);
        assert!(aggregate.origins().all(|found| *found == *origin(1)) && aggregate.origins().count() == 50);
    }
}

#[tokio::test(start_paused = true)]
async fn small_aggregates_share_a_kinesis_record_and_keep_their_origins() {
    let (stream, writer) = start(1, Config::default()).await;
    let all = records(60, 50, u128::from);
    let parcels: Vec<Parcel> = all
        .chunks(20)
        .zip(0..)
        .map(|(some, n)| Encoded::whole(encoded(some)).unwrap().origin(origin(n)).into())
        .collect();
    let ticket = writer.put_parcels(parcels).await.unwrap();
    assert!(ticket.await.iter().all(Result::is_ok));
    let [blob] = &put(&stream)[..] else { panic!("one Kinesis record") };
    let aggregate = unpack(blob);
    assert_eq!(aggregate.len(), 60);
    let origins: Vec<String> = aggregate.origins().map(|o| o.sequence_number.to_string()).collect();
    assert_eq!(origins, [vec!["0"; 20], vec!["1"; 20], vec!["2"; 20]].concat());
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_may_be_as_large_as_a_kinesis_record_and_is_taken_apart_beyond() {
    for (max_record_bytes, whole) in [(120_000, true), (70_000, false)] {
        let (stream, writer) = start(1, Config { max_record_bytes, ..Config::default() }).await;
        let aggregate = encoded(&records(100, 1100, u128::from));
        assert!((110_000..119_000).contains(&aggregate.blob().len()));
        let ticket = writer.put_parcels(vec![Encoded::whole(aggregate).unwrap().into()]).await.unwrap();
        assert!(ticket.await.iter().all(Result::is_ok));
        assert_eq!(put(&stream).len() == 1, whole, "{max_record_bytes}");
        assert!(put(&stream).iter().all(|blob| blob.len() <= max_record_bytes));
    }
}

#[tokio::test(start_paused = true)]
async fn records_and_members_answer_in_the_order_given() {
    let (stream, writer) = start(1, Config::default()).await;
    let aggregate = encoded(&[numbered("k", 0), numbered("other", 9), numbered("k", 2)]);
    let parcels = vec![
        Encoded::members_at(Arc::clone(&aggregate), vec![0]).unwrap().into(),
        Put::new(numbered("k", 1)).into(),
        Encoded::members_at(Arc::clone(&aggregate), vec![2]).unwrap().into(),
    ];
    let outcomes = writer.put_parcels(parcels).await.unwrap().await;
    assert_eq!(outcomes.len(), 3);
    let found: Vec<u32> = stream.read(common::Rule::Ours)["k"].iter().map(common::number).collect();
    assert_eq!(found, [0, 1, 2]);
    let error = Encoded::members_at(aggregate, vec![3]).unwrap_err();
    assert_eq!(error.to_string(), "member 3 cannot be read: the aggregate has 3 members");
}
