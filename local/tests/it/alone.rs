//! Kinesis alone on a given port.

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use headworks_local::Settings;
use headworks_local::faults::Fault;
use headworks_local::kinesis::{self, Alone};
use tokio_util::sync::CancellationToken;

use crate::support::DEADLINE;

pub(crate) fn client(port: u16) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "test"))
        .endpoint_url(format!("http://127.0.0.1:{port}"));
    aws_sdk_kinesis::Client::from_conf(config.build())
}

#[tokio::test]
async fn it_serves_its_port_until_it_is_told_to_stop_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let alone = || Alone { data_dir: Some(dir.path().to_owned()), ..Alone::default() };
    let mut port = 0;
    for round in 0..2 {
        let listener = kinesis::bind(port).await.unwrap();
        port = listener.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(kinesis::serve(listener, alone(), shutdown.clone()));
        let client = client(port);
        if round == 0 {
            client.create_stream().stream_name("s").shard_count(3).send().await.unwrap();
        }
        let summary = client.describe_stream_summary().stream_name("s").send().await.unwrap();
        assert_eq!(summary.stream_description_summary.unwrap().open_shard_count, 3);

        let taken = kinesis::bind(port).await.unwrap_err();
        assert_eq!((taken.code(), taken.is_retryable()), ("address-in-use", true));
        let message = taken.to_string();
        assert!(message.contains(&format!("port {port} for Kinesis is already taken")), "{message}");
        assert!(message.contains("choose another port"), "{message}");

        shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, serving).await.expect("an end in time");
        ended.unwrap().unwrap();
    }
    assert!(!dir.path().join("s3").exists(), "there is nothing but Kinesis");
}

#[tokio::test]
async fn a_log_that_has_grown_is_replaced_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { max_held_bytes: Some(20 << 20), ..Settings::default() };
    let alone = Alone { settings, data_dir: Some(dir.path().to_owned()), ..Alone::default() };
    let listener = kinesis::bind(0).await.unwrap();
    let client = client(listener.local_addr().unwrap().port());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(kinesis::serve(listener, alone, shutdown.clone()));
    client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    let entry = || PutRecordsRequestEntry::builder().partition_key("k").data(Blob::new(vec![7; 1_000_000]));
    let entries: Vec<_> = (0..9).map(|_| entry().build().unwrap()).collect();
    for _ in 0..8 {
        let put = client.put_records().stream_name("s").set_records(Some(entries.clone()));
        assert_eq!(put.send().await.unwrap().failed_record_count, Some(0));
    }
    // 72 MB were put; what is kept is in proportion to what may be held.
    let kept = || {
        let files = std::fs::read_dir(dir.path()).unwrap();
        // A log may go between the two looks.
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum::<u64>()
    };
    tokio::time::timeout(DEADLINE, async {
        while kept() > 48 << 20 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a smaller log in time");
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn bad_settings_are_refused_and_faults_have_their_port() {
    let listener = kinesis::bind(0).await.unwrap();
    let bad = Alone {
        settings: Settings { account_id: "me".to_owned(), ..Settings::default() },
        ..Alone::default()
    };
    let error = kinesis::serve(listener, bad, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code(), "local-config-invalid");

    let alone = Alone::default();
    let faults = alone.faults.clone();
    let listener = kinesis::bind(0).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(kinesis::serve(listener, alone, shutdown.clone()));
    client(port).list_streams().send().await.unwrap();
    faults.add(Fault::parse("list-streams error=AccessDeniedException").unwrap()).unwrap();
    assert!(client(port).list_streams().send().await.is_err());
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
