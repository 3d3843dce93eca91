//! What credentials, permissions and keys stand in the way of is told from what the stream has no room for, also for
//! records that were never put themselves. In paused time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Config as Client, Region};
use common::{MemoryStream, Rule, numbered};
use headworks_record::Record;
use headworks_writer::{Config, Failure, Fault, Handle, KinesisStream, Put, Stream as _, Writer};
use tokio::time::{Instant, sleep};

const DENIED: Option<(Fault, &str)> = Some((Fault::Access, "AccessDeniedException"));
const NO_KEYS: Option<(Fault, &str)> = Some((Fault::KeyThrottled, "KMSThrottlingException"));
const NO_ROOM: Option<(Fault, &str)> = Some((Fault::Throttled, "LimitExceededException"));

async fn start(config: Config) -> (MemoryStream, Handle) {
    let stream = MemoryStream::new(1, 1);
    let (service, writer) = Writer::start(config, stream.clone(), Default::default()).await.unwrap();
    tokio::spawn(service.run(Default::default()));
    (stream, writer)
}

fn put(record: Record, millis: u64) -> Put {
    Put { deadline: Some(Instant::now() + Duration::from_millis(millis)), ..Put::new(record) }
}

fn fault_of(failure: &Failure) -> Option<Fault> {
    match failure {
        Failure::DeadlineExceeded { fault, .. } | Failure::OutcomeUnknown { fault, .. } => *fault,
        other => panic!("{other:?}"),
    }
}

/// The failure of a record that has this long.
async fn failure(writer: &Handle, number: u32, millis: u64) -> Failure {
    let ticket = writer.put(vec![put(numbered("k", number), millis)]).await.unwrap();
    ticket.await.remove(0).unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_what_stood_in_the_way() {
    let (stream, writer) = start(Config::default()).await;
    for (number, refuse) in [DENIED, NO_KEYS, NO_ROOM].into_iter().enumerate() {
        stream.with(|state| state.refuse_all = refuse);
        let failure = failure(&writer, number as u32, 500).await;
        let (fault, _) = refuse.unwrap();
        assert_eq!(fault_of(&failure), Some(fault));
        assert_eq!(failure.is_access(), fault != Fault::Throttled);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_put_waited_for_access_as_well() {
    let (stream, writer) = start(Config::default()).await;
    let key = |n: u32| Record::builder(format!("key-{n}")).unwrap();
    let large = || (0..8).map(|n| key(n).data(vec![0; 900_000]).build());
    for (refuse, access) in [(DENIED, true), (NO_ROOM, false)] {
        stream.with(|state| state.refuse_all = refuse);
        let ticket = writer.put(large().map(|record| put(record, 500)).collect()).await.unwrap();
        let failures: Vec<Failure> = ticket.await.into_iter().map(Result::unwrap_err).collect();
        let never = |failure: &&Failure| matches!(failure, Failure::DeadlineExceeded { attempts: 0, .. });
        assert_eq!(failures.iter().filter(never).count(), 7, "{failures:?}");
        assert!(failures.iter().all(|failure| failure.is_access() == access), "{failures:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_access_is_the_records_for_ever_and_the_streams_until_it_was_tried_again() {
    let config = Config { attempt_timeout_ms: 1_000, ..Config::default() };
    let (stream, writer) = start(config).await;
    stream.with(|state| state.refuse_all = DENIED);
    let ticket = writer.put(vec![put(numbered("k", 0), 6_000)]).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    stream.with(|state| {
        state.refuse_all = None;
        state.straggling_label = Some("shardId".into());
    });
    let failure_of = ticket.await.remove(0).unwrap_err();
    assert!(failure_of.outcome_unknown() && failure_of.is_access(), "{failure_of:?}");

    // The stream hangs, and that is another trouble.
    let hung = failure(&writer, 1, 10_000).await;
    assert_eq!(fault_of(&hung), Some(Fault::Ambiguous));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_its_batch_overtakes_what_access_was_refused_for() {
    for (refuse, overtakes) in [(DENIED, false), (NO_ROOM, true)] {
        let (stream, writer) = start(Config::default()).await;
        stream.with(|state| state.refuse_all = refuse);
        let batch = [("k", 0, 500), ("l", 1, 60_000), ("k", 2, 60_000)];
        let batch = batch.map(|(key, number, millis)| put(numbered(key, number), millis));
        let ticket = writer.put(batch.to_vec()).await.unwrap();
        let other = writer.put(vec![put(numbered("k", 3), 60_000)]).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        stream.with(|state| state.refuse_all = None);
        let outcomes = ticket.await;
        assert_eq!(outcomes[0].as_ref().unwrap_err().is_access(), !overtakes);
        assert!(outcomes[1].is_ok(), "a record of another key goes on");
        match &outcomes[2] {
            Ok(_) => assert!(overtakes),
            Err(failure) => assert!(!overtakes && failure.is_access(), "{failure:?}"),
        }
        assert!(other.await[0].is_ok(), "so does one of another batch, whose sender knows nothing of it");
        assert_eq!(stream.read(Rule::Ours)["k"].len(), 1 + usize::from(overtakes));
    }
}

#[tokio::test(start_paused = true)]
async fn shards_that_may_not_be_listed_are_a_matter_of_access() {
    let (stream, writer) = start(Config::default()).await;
    stream.split(0);
    stream.with(|state| state.refuse_listing = true);
    let failure = failure(&writer, 0, 3_000).await;
    assert!(failure.outcome_unknown() && failure.is_access(), "{failure:?}");
    stream.with(|state| state.refuse_listing = false);
    writer.put(vec![put(numbered("k", 1), 3_000)]).await.unwrap().await.remove(0).unwrap();
}

#[tokio::test]
async fn a_request_that_cannot_be_signed_is_a_matter_of_access() {
    let stack = headworks_local::start().await.unwrap();
    let config = Client::builder().behavior_version(BehaviorVersion::latest());
    let config = config.region(Region::new("us-east-1")).endpoint_url(stack.kinesis_endpoint()).build();
    let stream = KinesisStream::new(aws_sdk_kinesis::Client::from_conf(config), "inbound");
    let error = stream.list_shards().await.unwrap_err();
    assert_eq!((error.fault, &*error.code), (Fault::Access, "request-not-signed"), "{error}");
    stack.shutdown().await.unwrap();
}
