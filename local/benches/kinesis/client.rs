//! Clients that put one body again and again: plain sockets, hyper, and the SDK.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use crate::{PAYLOAD, RECORDS};

pub(crate) fn payload(n: usize) -> Vec<u8> {
    (0..PAYLOAD).map(|at| ((n * 31 + at * 7) % 251) as u8).collect()
}

pub(crate) fn json_body() -> Vec<u8> {
    let records: Vec<_> = (0..RECORDS)
        .map(|n| {
            let data = base64::engine::general_purpose::STANDARD.encode(payload(n));
            serde_json::json!({ "Data": data, "PartitionKey": format!("key-{n:08}") })
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({ "Records": records, "StreamName": "s" })).unwrap()
}

pub(crate) fn cbor_body() -> Vec<u8> {
    use ciborium::Value;
    let text = |text: &str| Value::Text(text.to_owned());
    let records = (0..RECORDS).map(|n| {
        let key = (text("PartitionKey"), text(&format!("key-{n:08}")));
        Value::Map(vec![(text("Data"), Value::Bytes(payload(n))), key])
    });
    let request =
        Value::Map(vec![(text("Records"), Value::Array(records.collect())), (text("StreamName"), text("s"))]);
    let mut body = Vec::new();
    ciborium::into_writer(&request, &mut body).unwrap();
    body
}

/// Counts calls that have been answered, until told to stop.
#[derive(Default)]
pub(crate) struct Count {
    pub(crate) calls: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Count {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits for so many calls, or until it is told to stop; looks in between.
    pub(crate) fn wait_for(&self, calls: u64, mut look: impl FnMut()) {
        while self.calls.load(Ordering::Relaxed) < calls && !self.stopped() {
            look();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Tells everybody to stop when its thread panics, so that nobody waits for calls that never come.
struct StopOnPanic<'a>(&'a Count);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn check(answer: &[u8]) {
    let at = |part: &[u8]| answer.windows(part.len()).position(|window| window == part);
    let json = at(b"\"FailedRecordCount\":0");
    assert!(json.is_some() || at(b"FailedRecordCount\x00").is_some(), "{}", String::from_utf8_lossy(answer));
}

pub(crate) fn put_h1(address: SocketAddr, content_type: &str, body: &Bytes, count: &Arc<Count>) {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nx-amz-target: Kinesis_20131202.PutRecords\r\ncontent-type: \
         {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let _stop = StopOnPanic(count);
                let mut socket = TcpStream::connect(address).unwrap();
                socket.set_nodelay(true).unwrap();
                let mut answer = vec![0; 1 << 20];
                let mut first = true;
                while !count.stopped() {
                    socket.write_all(&request).unwrap();
                    let whole = read_answer(&mut socket, &mut answer);
                    if std::mem::take(&mut first) {
                        check(&answer[..whole]);
                    }
                    count.calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

/// Reads what is there; the end of the connection in the middle of an answer is a failure.
fn read_some(socket: &mut TcpStream, into: &mut [u8]) -> usize {
    let read = socket.read(into).unwrap();
    assert!(read > 0, "the server has closed the connection");
    read
}

/// Reads one answer with a content length; returns its size.
fn read_answer(socket: &mut TcpStream, into: &mut [u8]) -> usize {
    let mut have = 0;
    loop {
        have += read_some(socket, &mut into[have..]);
        let Some(head) = into[..have].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&into[..head]).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let whole = head + 4 + length.parse::<usize>().unwrap();
        while have < whole {
            have += read_some(socket, &mut into[have..]);
        }
        return whole;
    }
}

pub(crate) async fn put_h2c(
    address: SocketAddr,
    content_type: &'static str,
    body: &Bytes,
    count: &Arc<Count>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let io = hyper_util::rt::TokioIo::new(socket);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) =
            hyper::client::conn::http2::Builder::new(executor).handshake(io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let (mut sender, body, count) = (sender.clone(), body.clone(), Arc::clone(count));
            tasks.spawn(async move {
                while !count.stopped() {
                    let request = http::Request::post(format!("http://{address}/"))
                        .header("x-amz-target", "Kinesis_20131202.PutRecords")
                        .header("content-type", content_type)
                        .body(Full::new(body.clone()))
                        .unwrap();
                    let answer = sender.send_request(request).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    answer.into_body().collect().await.unwrap();
                    count.calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

pub(crate) async fn put_sdk(address: SocketAddr, count: &Arc<Count>) {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
        .endpoint_url(format!("http://{address}"));
    let client = Client::from_conf(config.build());
    let records: Vec<_> = (0..RECORDS)
        .map(|n| {
            let entry = PutRecordsRequestEntry::builder().partition_key(format!("key-{n:08}"));
            entry.data(Blob::new(payload(n))).build().unwrap()
        })
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, records, count) = (client.clone(), records.clone(), Arc::clone(count));
        tasks.spawn(async move {
            while !count.stopped() {
                let call = client.put_records().stream_name("s").set_records(Some(records.clone()));
                assert_eq!(call.send().await.unwrap().failed_record_count, Some(0));
                count.calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
