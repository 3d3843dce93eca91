//! Kinesis alone, as programs find it by the printed lines.

use std::io::{BufRead, BufReader};

use crate::support::{command, finish, run, signal};

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Starts it, gives the child and what it printed.
fn start(arguments: &[&str]) -> (std::process::Child, serde_json::Value) {
    let all = [&["local", "kinesis", "--port", "0", "--json"], arguments].concat();
    let mut child = command(&all).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let printed = serde_json::from_str(&line).unwrap_or_else(|_| {
        panic!("{line:?}: {}", std::io::read_to_string(child.stderr.take().unwrap()).unwrap())
    });
    (child, printed)
}

fn client(endpoint: &str) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_sdk_kinesis::config::Region::new("us-east-1"))
        .credentials_provider(aws_sdk_kinesis::config::Credentials::new("any", "thing", None, None, "test"))
        .endpoint_url(endpoint);
    aws_sdk_kinesis::Client::from_conf(config.build())
}

async fn ends_cleanly(child: std::process::Child) {
    signal(&child, "INT");
    tokio::task::spawn_blocking(move || finish(child)).await.unwrap().succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_kept_and_limits_and_faults_are_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    let control = free_port();
    let (child, printed) =
        start(&["--data-dir", data_dir, "--account", "123456789012", "--control-port", &control]);
    let kinesis = client(printed["kinesis"].as_str().unwrap());
    kinesis.create_stream().stream_name("orders").shard_count(2).send().await.unwrap();
    let described = kinesis.describe_stream_summary().stream_name("orders").send().await.unwrap();
    let arn = described.stream_description_summary.unwrap().stream_arn;
    assert_eq!(arn, "arn:aws:kinesis:us-east-1:123456789012:stream/orders");
    let control = format!("127.0.0.1:{control}");
    assert_eq!(printed["faults"], format!("http://{control}/faults"));
    assert!(tokio::net::TcpStream::connect(&control).await.is_ok());
    ends_cleanly(child).await;

    let (child, printed) =
        start(&["--data-dir", data_dir, "--fault", "list-streams error=AccessDeniedException times=1"]);
    let kinesis = client(printed["kinesis"].as_str().unwrap());
    assert!(kinesis.list_streams().send().await.is_err());
    assert_eq!(kinesis.list_streams().send().await.unwrap().stream_names, ["orders"]);
    ends_cleanly(child).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_limits_hold_when_they_are_asked_for() {
    for (limits, everything) in [("none", true), ("aws", false)] {
        let (child, printed) = start(&["--limits", limits]);
        let kinesis = client(printed["kinesis"].as_str().unwrap());
        kinesis.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
        let put = || kinesis.put_records().stream_name("s").set_records(Some(entries(500))).send();
        let mut failed = 0;
        for _ in 0..4 {
            failed += put().await.unwrap().failed_record_count.unwrap_or(0);
        }
        assert_eq!(failed == 0, everything, "{limits}: {failed} records failed");
        ends_cleanly(child).await;
    }
}

/// Records of 4 KiB: 500 are about what a shard takes in two seconds.
fn entries(count: usize) -> Vec<aws_sdk_kinesis::types::PutRecordsRequestEntry> {
    let data = aws_sdk_kinesis::primitives::Blob::new(vec![0; 4096]);
    let entry =
        aws_sdk_kinesis::types::PutRecordsRequestEntry::builder().partition_key("k").data(data).build();
    vec![entry.unwrap(); count]
}

#[test]
fn the_lines_are_for_a_shell() {
    let mut child = command(&["local", "kinesis", "--port", "0", "--region", "eu-west-1"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("export AWS_ENDPOINT_URL_KINESIS=http://127.0.0.1:"));
    assert_eq!(next(), "export AWS_REGION=eu-west-1");
    assert_eq!(next(), "export AWS_ACCESS_KEY_ID=test");
    assert_eq!(next(), "export AWS_SECRET_ACCESS_KEY=test");
    assert_eq!(next(), "export AWS_DEFAULT_REGION=eu-west-1");
    signal(&child, "TERM");
    finish(child).succeeds();
}

#[test]
fn what_stands_in_its_way_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let texts = [&port[..], "already taken", "--port", "[address-in-use]"];
    run(&["local", "kinesis", "--port", &port]).fails(3, &texts);
    let texts = [&port[..], "already taken", "--control-port", "[address-in-use]"];
    run(&["local", "kinesis", "--port", "0", "--control-port", &port]).fails(3, &texts);
    run(&["local", "kinesis", "--port", "0", "--account", "7"])
        .fails(2, &["12 digits", "[local-config-invalid]"]);
    run(&["local", "kinesis", "--port", "0", "--data-dir", "/dev/null/x"]).fails(3, &["/dev/null/x"]);
    run(&["local", "kinesis", "--fault", "nonsense"]).fails(2, &["nonsense"]);
    run(&["local", "kinesis", "--port", "0", "--set", "shard_limit=many"])
        .fails(2, &["shard_limit=many", "[local-config-invalid]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_goes_before_the_limits() {
    let (child, printed) = start(&["--limits", "aws", "--set", "shard_limit=2", "--set", "write_limits=off"]);
    let kinesis = client(printed["kinesis"].as_str().unwrap());
    let refused = kinesis.create_stream().stream_name("many").shard_count(3).send().await.unwrap_err();
    assert!(refused.into_service_error().is_limit_exceeded_exception());
    kinesis.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    for _ in 0..4 {
        let put =
            kinesis.put_records().stream_name("s").set_records(Some(entries(500))).send().await.unwrap();
        assert_eq!(put.failed_record_count, Some(0));
    }
    ends_cleanly(child).await;
}
