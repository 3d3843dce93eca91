//! A sink that speaks as much of Kinesis's protocol as the writer calls, and keeps nothing.
//!
//! Each connection has a blocking thread of its own, whose CPU time is not counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};

use crate::cpu::SINK;
use crate::null::shards;

pub struct Sink {
    address: SocketAddr,
    kept: Option<Arc<Mutex<Vec<Vec<u8>>>>>,
}

impl Sink {
    pub fn start(count: u128) -> Self {
        Self::with(count, None)
    }

    /// Keeps the bodies of `PutRecords`.
    pub fn keeping(count: u128) -> Self {
        Self::with(count, Some(Arc::default()))
    }

    fn with(count: u128, kept: Option<Arc<Mutex<Vec<Vec<u8>>>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let keep = kept.clone();
        let accept = move || {
            for connection in listener.incoming() {
                let (connection, keep) = (connection.unwrap(), keep.clone());
                let serve = move || serve(connection, count, keep.as_deref());
                thread::Builder::new().name(SINK.to_owned()).spawn(serve).unwrap();
            }
        };
        thread::Builder::new().name(SINK.to_owned()).spawn(accept).unwrap();
        Self { address, kept }
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.kept.as_ref().map(|kept| std::mem::take(&mut *kept.lock().unwrap())).unwrap_or_default()
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

fn serve(connection: TcpStream, count: u128, keep: Option<&Mutex<Vec<Vec<u8>>>>) {
    connection.set_nodelay(true).unwrap();
    let mut writing = connection.try_clone().unwrap();
    let mut reading = BufReader::with_capacity(1 << 18, connection);
    let mut number = 0u64;
    loop {
        let (mut length, mut target) = (0, String::new());
        loop {
            let mut line = String::new();
            if reading.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.split_once(':') else {
                if line.trim().is_empty() { break } else { continue }
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "x-amz-target" => value.trim().clone_into(&mut target),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if reading.read_exact(&mut body).is_err() {
            return;
        }
        let (kind, answer) = match target.rsplit('.').next().unwrap() {
            "ListShards" => ("json", list(count).into_bytes()),
            "ListTagsForStream" => ("json", br#"{"HasMoreTags":false,"Tags":[]}"#.to_vec()),
            "DescribeStreamSummary" => ("json", describe(count).into_bytes()),
            "PutRecords" => ("cbor", stored(&body, &mut number)),
            other => panic!("the sink does not know {other}"),
        };
        if let Some(keep) = keep.filter(|_| target.ends_with("PutRecords")) {
            keep.lock().unwrap().push(body);
        }
        let length = answer.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-{kind}-1.1\r\ncontent-length: {length}\r\n\r\n"
        );
        if writing.write_all(&[head.as_bytes(), &answer].concat()).is_err() {
            return;
        }
    }
}

fn list(count: u128) -> String {
    let shard = |shard: headworks_record::Shard| {
        format!(
            r#"{{"ShardId":"{}","HashKeyRange":{{"StartingHashKey":"{}","EndingHashKey":"{}"}},"SequenceNumberRange":{{"StartingSequenceNumber":"1"}}}}"#,
            shard.id, shard.range.start, shard.range.end
        )
    };
    format!(r#"{{"Shards":[{}]}}"#, shards(count).into_iter().map(shard).collect::<Vec<_>>().join(","))
}

fn describe(count: u128) -> String {
    format!(
        r#"{{"StreamDescriptionSummary":{{"StreamName":"bench","StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/bench","StreamStatus":"ACTIVE","StreamModeDetails":{{"StreamMode":"PROVISIONED"}},"RetentionPeriodHours":24,"StreamCreationTimestamp":1.0,"EnhancedMonitoring":[],"OpenShardCount":{count}}}}}"#
    )
}

/// The label of each entry names its shard. The bodies are in CBOR, and so is the answer.
fn stored(body: &[u8], number: &mut u64) -> Vec<u8> {
    const LABEL: &[u8] = b"\x6cPartitionKey\x78";
    let mut records = Vec::new();
    let mut rest = body;
    while let Some(at) = memchr::memmem::find(rest, LABEL) {
        // One byte of length, then "hw/shard/lane".
        rest = &rest[at + LABEL.len() + 1 + b"hw/".len()..];
        let shard = rest.split(|byte| *byte == b'/').next().unwrap();
        *number += 1;
        records.extend_from_slice(b"\xa2\x6eSequenceNumber\x78\x38");
        write!(records, "4967{number:052}").unwrap();
        records.extend_from_slice(b"\x67ShardId");
        records.push(0x60 | shard.len() as u8);
        records.extend_from_slice(shard);
    }
    [b"\xa2\x71FailedRecordCount\x00\x67Records\x9f".as_slice(), &records, b"\xff"].concat()
}
