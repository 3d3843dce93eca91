//! A process that serves Kinesis is killed in the middle of puts, and another runs out of room for its log: what each has
//! acknowledged is there afterwards.
//!
//! This program is both sides: called with the variable `KILLED_DIR` it is the process that is killed.

// What helps tests is a test, which clippy.toml's exemption does not see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use headworks_local::kinesis::{self, Alone};
use tokio_util::sync::CancellationToken;

const DIR: &str = "KILLED_DIR";
const ROUNDS: usize = 3;
/// The kill comes once so many calls of a round have been acknowledged, while others are under way.
const CALLS: usize = 150;
const WRITERS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(60);

/// By shard and sequence number.
type Acknowledged = BTreeMap<(String, String), String>;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var_os(DIR) {
        Some(dir) => runtime.block_on(serve(Path::new(&dir))),
        None => {
            let tested = runtime.block_on(async { tokio::time::timeout(2 * DEADLINE, test()).await });
            tested.expect("everything in time");
            println!("what was acknowledged survived {ROUNDS} kills");
            let tested = runtime.block_on(async { tokio::time::timeout(DEADLINE, full_disk()).await });
            tested.expect("everything in time");
            println!("what was acknowledged survived a full disk");
        }
    }
}

async fn serve(dir: &Path) {
    let listener = kinesis::bind(0).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let alone = Alone { data_dir: Some(dir.to_owned()), ..Alone::default() };
    kinesis::serve(listener, alone, CancellationToken::new()).await.unwrap();
}

/// Killed with the test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path) -> (Killed, Client) {
    start_as(Command::new(std::env::current_exe().unwrap()), dir)
}

/// A process whose files may not grow beyond some 64 KiB, and that is told so instead of being ended by a signal.
fn start_limited(dir: &Path) -> (Killed, Client) {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\""]).arg(std::env::current_exe().unwrap());
    start_as(command, dir)
}

fn start_as(mut command: Command, dir: &Path) -> (Killed, Client) {
    let mut child = command.env(DIR, dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(format!("http://{}", address.trim()));
    (Killed(child), Client::from_conf(config.build()))
}

async fn test() {
    let dir = tempfile::tempdir().unwrap();
    let known = Arc::new(Mutex::new(Acknowledged::new()));
    for round in 0..ROUNDS {
        let (killed, client) = start(dir.path());
        if round == 0 {
            client.create_stream().stream_name("s").shard_count(2).tags("team", "web").send().await.unwrap();
            let arn = describe(&client).await.stream_arn;
            client.register_stream_consumer().stream_arn(arn).consumer_name("c").send().await.unwrap();
        } else {
            check(&client, &known, round).await;
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                tokio::spawn(write(client.clone(), Arc::clone(&known), format!("{round}/{writer}")))
            })
            .collect();
        // A reshard in the middle of the puts.
        until(&known, round * CALLS * 10 + CALLS * 5).await;
        let open = open_shards(&client).await;
        let split = client.split_shard().stream_name("s").shard_to_split(&open[0].0);
        split.new_starting_hash_key((open[0].1 / 2 + 7).to_string()).send().await.unwrap();
        until(&known, (round + 1) * CALLS * 10).await;
        drop(killed);
        for writer in writers {
            writer.await.unwrap();
        }
        // The kill may have come in the middle of an entry; here it surely has.
        if round == 1 {
            let log = newest_log(dir.path());
            let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
            file.write_all(&[200, 0, 0, 0, 1, 2, 3, 4, b'P', 0, 0]).unwrap();
        }
    }
    let (_last, client) = start(dir.path());
    check(&client, &known, ROUNDS).await;
    // A second process on the same directory gives up.
    let again = Command::new(std::env::current_exe().unwrap()).env(DIR, dir.path()).output();
    let answer = again.unwrap();
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(!answer.status.success() && said.contains("InUse"), "{said}");
}

/// A put that cannot be kept is refused, nothing of it is shown, and nothing is taken any more until a new start.
async fn full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (limited, client) = start_limited(dir.path());
    client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    let put = |client: &Client, n: usize, bytes: usize| {
        let data = Blob::new(vec![n as u8; bytes]);
        client.put_record().stream_name("s").partition_key(n.to_string()).data(data).send()
    };
    let mut known = Vec::new();
    let refused = loop {
        match put(&client, known.len(), 10_000).await {
            Ok(answer) => known.push(answer.sequence_number),
            Err(error) => break error,
        }
        assert!(known.len() < 100, "the log outgrew its limit");
    };
    assert!(known.len() > 1, "some fitted");
    let says = |error: aws_sdk_kinesis::Error| {
        let meta = error.meta();
        assert_eq!(meta.code(), Some("InternalFailure"));
        let message = meta.message().unwrap_or_default().to_owned();
        let log = newest_log(dir.path());
        for part in [log.to_str().unwrap(), "cannot be written", "make room for it and start again"] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    };
    says(refused.into());
    // Even one that would fit behind the torn entry, where no start would ever find it.
    says(put(&client, 0, 1).await.unwrap_err().into());
    let batch = PutRecordsRequestEntry::builder().partition_key("k").data(Blob::new("x")).build().unwrap();
    says(client.put_records().stream_name("s").records(batch).send().await.unwrap_err().into());
    says(client.create_stream().stream_name("t").shard_count(1).send().await.unwrap_err().into());
    assert_eq!(numbers(&client).await, known, "what could not be kept is not shown");
    drop(limited);

    let (_last, client) = start(dir.path());
    assert_eq!(numbers(&client).await, known);
    known.push(put(&client, 0, 1).await.unwrap().sequence_number);
    assert_eq!(numbers(&client).await, known);
}

/// The sequence numbers of the first shard's records.
async fn numbers(client: &Client) -> Vec<String> {
    let start = client.get_shard_iterator().stream_name("s").shard_id("shardId-000000000000");
    let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let got = client.get_records().set_shard_iterator(start.shard_iterator).send().await.unwrap();
    got.records.into_iter().map(|record| record.sequence_number).collect()
}

/// Puts until the connection breaks, and notes what was acknowledged.
async fn write(client: Client, known: Arc<Mutex<Acknowledged>>, name: String) {
    for call in 0.. {
        let records: Vec<_> = (0..10)
            .map(|n| {
                let data = format!("{name}/{call}/{n}");
                let entry = PutRecordsRequestEntry::builder().partition_key(&data).data(Blob::new(data));
                entry.build().unwrap()
            })
            .collect();
        let sent: Vec<_> = records.iter().filter_map(|record| record.partition_key.clone()).collect();
        let put = client.put_records().stream_name("s").set_records(Some(records)).send();
        let Ok(answer) = put.await else { return };
        assert_eq!(answer.failed_record_count, Some(0));
        let mut known = known.lock().unwrap();
        for (record, data) in answer.records.into_iter().zip(sent) {
            let place = (record.shard_id.unwrap(), record.sequence_number.unwrap());
            assert_eq!(known.insert(place, data), None, "a sequence number is given once");
        }
    }
}

async fn until(known: &Mutex<Acknowledged>, count: usize) {
    while known.lock().unwrap().len() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn describe(client: &Client) -> aws_sdk_kinesis::types::StreamDescriptionSummary {
    let answer = client.describe_stream_summary().stream_name("s").send().await.unwrap();
    answer.stream_description_summary.unwrap()
}

/// Names and ends of ranges.
async fn open_shards(client: &Client) -> Vec<(String, u128)> {
    let answer = client.list_shards().stream_name("s").send().await.unwrap();
    let open = answer.shards.unwrap().into_iter().filter(|shard| {
        shard.sequence_number_range.as_ref().is_some_and(|range| range.ending_sequence_number.is_none())
    });
    let mut open: Vec<_> = open
        .map(|shard| {
            let range = shard.hash_key_range.unwrap();
            let start: u128 = range.starting_hash_key.parse().unwrap();
            (start, shard.shard_id, range.ending_hash_key.parse().unwrap())
        })
        .collect();
    open.sort();
    open.into_iter().map(|(_, id, end)| (id, end)).collect()
}

fn newest_log(dir: &Path) -> std::path::PathBuf {
    let logs = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = logs.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs.pop().unwrap()
}

/// Everything acknowledged is there, in order, and new numbers come behind.
async fn check(client: &Client, known: &Mutex<Acknowledged>, splits: usize) {
    let known = known.lock().unwrap().clone();
    let stream = describe(client).await;
    assert_eq!((stream.open_shard_count, stream.consumer_count), (2 + splits as i32, Some(1)));
    let tags = client.list_tags_for_stream().stream_name("s").send().await.unwrap().tags;
    assert_eq!(tags[0].value.as_deref(), Some("web"));
    let mut found = Acknowledged::new();
    let shards = client.list_shards().stream_name("s").send().await.unwrap().shards.unwrap();
    for shard in &shards {
        let start = client.get_shard_iterator().stream_name("s").shard_id(&shard.shard_id);
        let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
        let mut iterator = start.shard_iterator;
        let mut last = String::new();
        while let Some(at) = iterator {
            let got = client.get_records().shard_iterator(at).send().await.unwrap();
            for record in got.records {
                assert!(record.sequence_number > last, "numbers grow");
                last = record.sequence_number.clone();
                let data = String::from_utf8(record.data.into_inner()).unwrap();
                found.insert((shard.shard_id.clone(), record.sequence_number), data);
            }
            iterator = got.next_shard_iterator.filter(|_| got.millis_behind_latest != Some(0));
        }
    }
    let lost: Vec<_> = known.iter().filter(|(place, data)| found.get(*place) != Some(*data)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {:?}", lost.len(), known.len(), lost.first());
    for (id, end) in open_shards(client).await {
        let put = client.put_record().stream_name("s").partition_key("k").explicit_hash_key(end.to_string());
        let put = put.data(Blob::new("new")).send().await.unwrap();
        assert_eq!(put.shard_id, id);
        let newest = found.keys().rev().find(|(shard, _)| *shard == id);
        assert!(newest.is_none_or(|(_, number)| put.sequence_number > *number), "numbers grow on");
    }
}
