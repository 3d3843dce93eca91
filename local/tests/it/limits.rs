//! The rates of the service, and the bound on memory.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType as Kind};
use headworks_local::Settings;
use headworks_local::kinesis::{Position, PutEntry, ReadLimits};

use crate::support::{FIRST, Fixture, SECOND, fixture_with, from};

async fn refused(f: &Fixture, iterator: &str) -> String {
    let retry = aws_sdk_kinesis::config::retry::RetryConfig::disabled();
    let config = f.client.config().to_builder().retry_config(retry);
    let once = aws_sdk_kinesis::Client::from_conf(config.build());
    let error = once.get_records().shard_iterator(iterator).send().await.unwrap_err().into_service_error();
    assert!(error.is_provisioned_throughput_exceeded_exception(), "{error:?}");
    error.message().unwrap().to_owned()
}

#[tokio::test]
async fn a_shard_is_read_five_times_and_two_mib_a_second() {
    let f = fixture_with(Settings::aws()).await;
    f.create("s", 2).await;
    let first = f.iterator("s", FIRST, Kind::TrimHorizon).await;
    let second = f.iterator("s", SECOND, Kind::TrimHorizon).await;
    for _ in 0..5 {
        f.get(&first).await;
    }
    let expected = format!("Rate exceeded for shard {FIRST} in stream s under account 000000000000.");
    assert_eq!(refused(&f, &first).await, expected);
    f.get(&second).await;

    f.clock.advance_ms(1_000);
    for _ in 0..3 {
        let call = f.client.put_record().stream_name("s").partition_key("k").explicit_hash_key("0");
        call.data(Blob::new(vec![0; 1 << 19])).send().await.unwrap();
        f.clock.advance_ms(1_000);
    }
    let call = f.client.put_record().stream_name("s").partition_key("k").explicit_hash_key("0");
    call.data(Blob::new(vec![0; (1 << 20) - 1])).send().await.unwrap();
    assert_eq!(f.get(&first).await.records.len(), 4);
    f.clock.advance_ms(1_000);
    refused(&f, &first).await;
    f.clock.advance_ms(1_000);
    f.get(&first).await;
}

#[tokio::test]
async fn operations_are_called_as_often_as_the_service_lets_them() {
    let f = fixture_with(Settings::aws()).await;
    f.create("s", 2).await;
    let retry = aws_sdk_kinesis::config::retry::RetryConfig::disabled();
    let config = f.client.config().to_builder().retry_config(retry);
    let once = aws_sdk_kinesis::Client::from_conf(config.build());
    for _ in 0..5 {
        once.list_streams().send().await.unwrap();
        f.iterator("s", FIRST, Kind::Latest).await;
    }
    let error = once.list_streams().send().await.unwrap_err().into_service_error();
    assert!(error.is_limit_exceeded_exception(), "{error:?}");
    let iterator = |shard: &str| {
        once.get_shard_iterator().stream_name("s").shard_id(shard).shard_iterator_type(Kind::Latest).send()
    };
    let error = iterator(FIRST).await.unwrap_err().into_service_error();
    assert!(error.is_provisioned_throughput_exceeded_exception(), "{error:?}");
    iterator(SECOND).await.unwrap();
    f.clock.advance_ms(1_000);
    once.list_streams().send().await.unwrap();
    iterator(FIRST).await.unwrap();
}

#[tokio::test]
async fn a_consumer_subscribes_once_a_second() {
    let f = fixture_with(Settings::aws()).await;
    let arn = f.create("s", 2).await;
    let consumer = f.register(&arn, "c").await;
    let mut first = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    first.next().await;
    f.subscribe(&consumer, SECOND, from(Kind::Latest)).await.next().await;
    let again = || {
        let call = f.client.subscribe_to_shard().consumer_arn(&consumer).shard_id(FIRST);
        call.starting_position(from(Kind::Latest)).send()
    };
    f.clock.advance_ms(999);
    let error = again().await.unwrap_err().into_service_error();
    assert!(error.is_limit_exceeded_exception(), "{error:?}");
    f.clock.advance_ms(1);
    let error = again().await.unwrap_err().into_service_error();
    assert!(error.is_resource_in_use_exception(), "{error:?}");
}

#[tokio::test]
async fn a_stream_has_twenty_consumers_and_five_of_them_creating() {
    let settings = Settings { transition: Duration::from_secs(2), ..Settings::aws() };
    let f = fixture_with(settings).await;
    f.client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    f.clock.advance_ms(2_000);
    let arn = f.stack.engine().describe_stream("s").unwrap().arn;
    let register = |n: usize| {
        let call = f.client.register_stream_consumer().stream_arn(&arn).consumer_name(format!("c{n}"));
        call.send()
    };
    for n in 0..20 {
        if n > 0 && n % 5 == 0 {
            f.clock.advance_ms(1_000);
            let error = register(n).await.unwrap_err().into_service_error();
            assert!(error.is_limit_exceeded_exception(), "{error:?}");
            assert!(error.message().unwrap().contains("5 consumers in state CREATING"), "{error:?}");
            f.clock.advance_ms(1_000);
        }
        register(n).await.unwrap();
    }
    f.clock.advance_ms(2_000);
    let error = register(20).await.unwrap_err().into_service_error();
    assert!(error.is_limit_exceeded_exception(), "{error:?}");
    assert!(error.message().unwrap().contains("already has 20 consumers"), "{error:?}");
}

#[tokio::test]
async fn a_consumer_is_pushed_no_faster_than_its_rate() {
    let settings = Settings {
        fan_out_bytes_per_second: Some(1 << 20),
        // More often than the rate lets anything through: what is sent then carries no records.
        heartbeat: Duration::from_millis(5),
        event_limits: ReadLimits { records: 1, bytes: 2 << 20 },
        ..Settings::default()
    };
    let f = fixture_with(settings).await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    for _ in 0..4 {
        f.stack.engine().put("s", PutEntry::new("k", vec![b'x'; 100 << 10])).unwrap();
    }
    let started = Instant::now();
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::TrimHorizon)).await;
    events.records(4).await;
    // Three pauses of 100 KiB at 1 MiB/s; the fourth comes after the last record.
    assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());
}

#[tokio::test]
async fn memory_is_bounded_and_the_oldest_records_of_all_shards_go() {
    const MAX: u64 = 32 << 20;
    let f = fixture_with(Settings { max_held_bytes: Some(MAX), ..Settings::default() }).await;
    f.create("s", 2).await;
    let engine = f.stack.engine();
    for n in 0..100u128 {
        let hash = if n % 2 == 0 { 0 } else { u128::MAX };
        engine.put("s", PutEntry::new("k", vec![0; 1 << 19]).with_hash_key(hash)).unwrap();
        assert!(engine.held().0 <= MAX, "{} after {n}", engine.held().0);
        f.clock.advance_ms(10);
    }
    let (bytes, records) = engine.held();
    assert!(bytes > MAX / 2, "no more than needed goes: {bytes}");
    assert_eq!(engine.trimmed_early(), 100 - records as u64);
    let mut trimmed = Vec::new();
    for shard in [FIRST, SECOND] {
        let batch = engine.read("s", shard, Position::TRIM_HORIZON, ReadLimits::default()).unwrap();
        trimmed.push(batch.trimmed);
    }
    assert!(trimmed[0].abs_diff(trimmed[1]) <= 1, "the oldest of both: {trimmed:?}");
    assert_eq!(trimmed.iter().sum::<u64>(), engine.trimmed_early());

    // Small records cost more to keep than they carry.
    let small = || PutEntry::new("k", "x");
    for _ in 0..600 {
        engine.put_batch("s", std::iter::repeat_with(small).take(500).collect()).unwrap();
    }
    let (bytes, records) = engine.held();
    assert!(records < 280_000 && bytes < MAX / 2, "{records} records, {bytes} bytes");

    let error = headworks_local::Stack::start(headworks_local::Config {
        settings: Settings { max_held_bytes: Some(1), ..Settings::default() },
        ..headworks_local::Config::default()
    });
    assert_eq!(error.await.unwrap_err().code(), "local-config-invalid");
}

#[tokio::test]
async fn the_sizes_of_calls_are_set_and_switched_off() {
    let put = async |f: &Fixture, records: usize, bytes: usize| {
        let entry = PutRecordsRequestEntry::builder().partition_key("k").data(Blob::new(vec![0; bytes]));
        let entries = vec![entry.build().unwrap(); records];
        let answer = f.client.put_records().stream_name("s").set_records(Some(entries)).send().await;
        answer.map(|_| ()).map_err(|error| error.into_service_error().code().unwrap_or_default().to_owned())
    };
    let get = async |f: &Fixture, limit: Option<i32>| {
        let iterator = f.iterator("s", FIRST, Kind::TrimHorizon).await;
        let answer = f.client.get_records().shard_iterator(iterator).set_limit(limit).send().await;
        answer
            .map(|answer| answer.records.len())
            .map_err(|error| error.into_service_error().code().unwrap().to_owned())
    };
    let mut settings = Settings::default();
    for setting in ["put_records=3", "put_bytes=2000", "get_records=4", "get_bytes=1500"] {
        settings.set(&format!("request_limits.{setting}")).unwrap();
    }
    let f = fixture_with(settings).await;
    f.create("s", 1).await;
    assert_eq!(put(&f, 4, 1).await.unwrap_err(), "ValidationException");
    assert_eq!(put(&f, 3, 700).await.unwrap_err(), "InvalidArgumentException");
    for _ in 0..2 {
        put(&f, 3, 300).await.unwrap();
    }
    assert_eq!(get(&f, None).await.unwrap(), 4);
    assert_eq!(get(&f, Some(5)).await.unwrap_err(), "ValidationException");
    // 1,505 bytes with the keys are too many for one answer.
    f.create("t", 1).await;
    for _ in 0..2 {
        f.client
            .put_record()
            .stream_name("t")
            .partition_key("k")
            .data(Blob::new(vec![0; 760]))
            .send()
            .await
            .unwrap();
    }
    assert_eq!(f.all("t", FIRST).await.records.len(), 1);

    let mut settings = Settings::default();
    settings.set("request_limits=off").unwrap();
    let f = fixture_with(settings).await;
    f.create("s", 1).await;
    put(&f, 501, 1).await.unwrap();
    // Beyond the stream's maximum of 1 MiB, and 12 MiB in one call; one record is never above 10 MiB.
    put(&f, 6, 2 << 20).await.unwrap();
    assert_eq!(put(&f, 1, (10 << 20) + 1).await.unwrap_err(), "ValidationException");
    assert_eq!(get(&f, None).await.unwrap(), 507);
}
