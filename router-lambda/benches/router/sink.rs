//! A sink that speaks as much of Kinesis's protocol as a router calls, and keeps nothing. Every stream has one
//! shard. Each connection has a blocking thread of its own, whose CPU time is not counted.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};

use headworks_writer::LANES_TAG;

use crate::cpu::SINK;

pub struct Sink {
    pub address: SocketAddr,
    /// Bytes of the bodies of `PutRecords`, which are what is signed.
    pub signed: Arc<AtomicU64>,
}

impl Sink {
    /// Every stream has a shard of so many lanes.
    pub fn start(lanes: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let signed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&signed);
        let accept = move || {
            for connection in listener.incoming() {
                let (connection, counter) = (connection.unwrap(), Arc::clone(&counter));
                let serve = move || serve(connection, &counter, lanes);
                thread::Builder::new().name(SINK.to_owned()).spawn(serve).unwrap();
            }
        };
        thread::Builder::new().name(SINK.to_owned()).spawn(accept).unwrap();
        Self { address, signed }
    }

    pub fn client(&self) -> Client {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "bench"))
            .endpoint_url(format!("http://{}", self.address))
            .build();
        Client::from_conf(config)
    }
}

/// Reads one request: its target and its body.
pub fn request(reading: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let (mut length, mut target, mut line) = (0, String::new(), String::new());
    loop {
        line.clear();
        if reading.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?;
            }
            Some((name, value)) if name.eq_ignore_ascii_case("x-amz-target") => {
                value.trim().clone_into(&mut target);
            }
            None if line.trim().is_empty() => break,
            None if target.is_empty() => line.trim().clone_into(&mut target),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reading.read_exact(&mut body).ok()?;
    Some((target, body))
}

pub fn answer(writing: &mut impl Write, headers: &str, body: impl AsRef<[u8]>) -> bool {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n", body.len());
    writing.write_all(&[head.as_bytes(), body].concat()).is_ok()
}

fn serve(connection: TcpStream, signed: &AtomicU64, lanes: u16) {
    connection.set_nodelay(true).unwrap();
    let mut writing = connection.try_clone().unwrap();
    let mut reading = BufReader::with_capacity(1 << 18, connection);
    while let Some((target, body)) = request(&mut reading) {
        let text = match target.rsplit('.').next().unwrap() {
            "ListShards" => format!(
                r#"{{"Shards":[{{"ShardId":"shardId-000000000000","HashKeyRange":{{"StartingHashKey":"0","EndingHashKey":"{}"}},"SequenceNumberRange":{{"StartingSequenceNumber":"1"}}}}]}}"#,
                u128::MAX
            ),
            "ListTagsForStream" => format!(
                r#"{{"HasMoreTags":false,"Tags":[{{"Key":"{LANES_TAG}","Value":"{lanes}"}}]}}"#),
            "DescribeStreamSummary" => r#"{"StreamDescriptionSummary":{"StreamName":"bench","StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/bench","StreamStatus":"ACTIVE","StreamModeDetails":{"StreamMode":"PROVISIONED"},"RetentionPeriodHours":24,"StreamCreationTimestamp":1.0,"EnhancedMonitoring":[],"OpenShardCount":1}}"#.to_owned(),
            "PutRecords" => {
                signed.fetch_add(body.len() as u64, Ordering::Relaxed);
                if !answer(&mut writing, "content-type: application/x-amz-cbor-1.1\r\n", stored(&body)) {
                    return;
                }
                continue;
            }
            other => panic!("the sink does not know {other}"),
        };
        if !answer(&mut writing, "content-type: application/x-amz-json-1.1\r\n", &text) {
            return;
        }
    }
}

/// The bodies are in CBOR, and so is the answer: the same for each entry.
fn stored(body: &[u8]) -> Vec<u8> {
    let entries = body.windows(13).filter(|window| *window == b"\x6cPartitionKey").count();
    let one = b"\xa2\x6eSequenceNumber\x78\x3849670000000000000000000000000000000000000000000000000001\
        \x67ShardId\x74shardId-000000000000";
    [b"\xa2\x71FailedRecordCount\x00\x67Records\x9f".as_slice(), &one.repeat(entries), b"\xff"].concat()
}
