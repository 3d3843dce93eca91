//! What `null-sink` serves.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use headworks_record::{HashKey, HashRange};
use headworks_writer::LANES_TAG;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder, decode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A PUT unit of a provisioned stream (Kinesis pricing): each record is billed in these.
const PUT_UNIT: u64 = 25 * 1024;

/// What the sink has seen.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    /// Kinesis records, not members of aggregates.
    records: AtomicU64,
    body_bytes: AtomicU64,
    data_bytes: AtomicU64,
    put_units: AtomicU64,
}

/// A stream of so many shards and lanes that keeps nothing.
#[derive(Debug, Clone)]
pub struct Sink {
    shards: Arc<[HashRange]>,
    lanes: u16,
    counts: Arc<Counts>,
    sequence: Arc<AtomicU64>,
}

impl Sink {
    /// With so many shards of equal ranges, and so many lanes each.
    pub fn new(shards: u32, lanes: u16) -> Self {
        let width = u128::MAX / u128::from(shards.max(1));
        let range = |i: u32| {
            let start = width * u128::from(i);
            let end = if i + 1 >= shards { u128::MAX } else { start + width - 1 };
            HashRange::new(start, end)
        };
        let shards = (0..shards.max(1)).map(range).collect();
        Self { shards, lanes, counts: Arc::default(), sequence: Arc::default() }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
        let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default().to_owned();
        let is_cbor = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == CBOR);
        let Ok(body) = request.into_body().collect().await else {
            return Ok(respond(StatusCode::BAD_REQUEST, "{}"));
        };
        let body = body.to_bytes();
        if operation.is_empty() && body.starts_with(b"Action=GetCallerIdentity") {
            return Ok(respond(StatusCode::OK, CALLER));
        }
        let told = match operation.as_str() {
            "PutRecords" if is_cbor => {
                return Ok(match self.put_cbor(&body) {
                    Ok(answer) => respond_as(CBOR, StatusCode::OK, answer),
                    Err(error) => respond(StatusCode::BAD_REQUEST, error.to_string()),
                });
            }
            "PutRecords" => return Ok(respond(StatusCode::OK, self.put_records(&body))),
            "ListShards" => json!({ "Shards": self.shards() }),
            "DescribeStreamSummary" => json!({ "StreamDescriptionSummary": self.summary() }),
            "DescribeStream" => {
                let mut stream = self.summary();
                stream["Shards"] = self.shards();
                stream["HasMoreShards"] = false.into();
                json!({ "StreamDescription": stream })
            }
            "ListTagsForStream" => {
                let lanes = json!({ "Key": LANES_TAG, "Value": self.lanes.to_string() });
                json!({ "Tags": [lanes], "HasMoreTags": false })
            }
            "" => self.counted(),
            other => {
                let refusal = json!({ "__type": "UnknownOperationException", "message": other }).to_string();
                return Ok(respond(StatusCode::BAD_REQUEST, refusal));
            }
        };
        Ok(respond(StatusCode::OK, told.to_string()))
    }

    fn put_records(&self, body: &[u8]) -> String {
        let mut records = String::with_capacity(body.len() / 64);
        self.put(body, entries(body), |stored| {
            let separator = if records.is_empty() { "" } else { "," };
            let Stored { sequence, shard } = stored;
            records.push_str(&format!(r#"{separator}{{"SequenceNumber":"{sequence}","ShardId":"{shard}"}}"#));
        });
        format!(r#"{{"FailedRecordCount":0,"Records":[{records}]}}"#)
    }

    fn put_cbor(&self, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let entries = cbor_entries(body)?;
        let mut answer = Encoder::new(Vec::with_capacity(128 * (entries.len() + 1)));
        answer.map(2)?.str("FailedRecordCount")?.u8(0)?.str("Records")?.array(entries.len() as u64)?;
        self.put(body, entries.into_iter(), |Stored { sequence, shard }| {
            let written = answer.map(2).and_then(|answer| answer.str("SequenceNumber")?.str(&sequence));
            // Into memory, which takes everything.
            let _ = written.and_then(|answer| answer.str("ShardId")?.str(&shard));
        });
        Ok(answer.into_writer())
    }

    /// Counts a call, and tells where each entry went.
    fn put(&self, body: &[u8], entries: impl Iterator<Item = Entry>, mut tell: impl FnMut(Stored)) {
        let counts = &*self.counts;
        let (mut put, mut data_bytes) = (0, 0);
        for entry in entries {
            let shard = entry.explicit_hash_key.and_then(|hash| self.shard(hash)).unwrap_or(0);
            let number = self.sequence.fetch_add(1, Ordering::Relaxed);
            tell(Stored {
                sequence: format!("{SEQUENCE_PREFIX}{number:020}"),
                shard: format!("shardId-{shard:012}"),
            });
            put += 1;
            data_bytes += entry.data_bytes;
            counts.put_units.fetch_add(entry.data_bytes.div_ceil(PUT_UNIT), Ordering::Relaxed);
        }
        counts.calls.fetch_add(1, Ordering::Relaxed);
        counts.records.fetch_add(put, Ordering::Relaxed);
        counts.body_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        counts.data_bytes.fetch_add(data_bytes, Ordering::Relaxed);
    }

    fn shard(&self, hash: u128) -> Option<usize> {
        self.shards.iter().position(|range| range.contains(HashKey(hash)))
    }

    fn shards(&self) -> Value {
        let shards = self.shards.iter().enumerate().map(|(i, range)| {
            json!({
                "ShardId": format!("shardId-{i:012}"),
                "HashKeyRange": {
                    "StartingHashKey": range.start.to_string(),
                    "EndingHashKey": range.end.to_string(),
                },
                "SequenceNumberRange": { "StartingSequenceNumber": format!("{SEQUENCE_PREFIX}{:020}", 0) },
            })
        });
        shards.collect()
    }

    fn summary(&self) -> Value {
        json!({
            "StreamName": "null",
            "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/null",
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": { "StreamMode": "PROVISIONED" },
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": 1.0,
            "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
            "EncryptionType": "NONE",
            "OpenShardCount": self.shards.len(),
            "ConsumerCount": 0,
        })
    }

    fn counted(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "calls": read(&self.counts.calls),
            "records": read(&self.counts.records),
            "body_bytes": read(&self.counts.body_bytes),
            "data_bytes": read(&self.counts.data_bytes),
            "put_units": read(&self.counts.put_units),
        })
    }
}

/// The KPL asks STS who it is before it puts anything.
const CALLER: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
    <GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:user/bench</Arn><UserId>bench</UserId>\
    <Account>000000000000</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";

/// Sequence numbers have 56 digits on AWS.
const SEQUENCE_PREFIX: &str = "496000000000000000000000000000000000";

/// Where an entry went.
struct Stored {
    sequence: String,
    shard: String,
}

struct Entry {
    /// Of the data, not of its base64. The partition key counts too on AWS; here it is left out.
    data_bytes: u64,
    explicit_hash_key: Option<u128>,
}

/// The entries of a `PutRecords` body in JSON, whatever the order of their members: each has one `Data`.
fn entries(body: &[u8]) -> impl Iterator<Item = Entry> {
    let mut rest = body;
    let mut hashes = body;
    std::iter::from_fn(move || {
        let data = text_of(&mut rest, b"\"Data\"")?;
        let padding = data.iter().rev().take_while(|byte| **byte == b'=').count();
        let hash = text_of(&mut hashes, b"\"ExplicitHashKey\"");
        Some(Entry {
            data_bytes: (data.len() / 4 * 3 - padding.min(data.len())) as u64,
            explicit_hash_key: hash
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| digits.parse().ok()),
        })
    })
}

/// The entries of a `PutRecords` body in CBOR.
fn cbor_entries(body: &[u8]) -> Result<Vec<Entry>, decode::Error> {
    let mut reading = Decoder::new(body);
    let mut entries = Vec::new();
    members(&mut reading, |reading, name| {
        if name != "Records" {
            return reading.skip();
        }
        let count = reading.array()?;
        each(reading, count, |reading| {
            let mut entry = Entry { data_bytes: 0, explicit_hash_key: None };
            members(reading, |reading, name| {
                match name {
                    "Data" => entry.data_bytes = reading.bytes()?.len() as u64,
                    "ExplicitHashKey" => entry.explicit_hash_key = reading.str()?.parse().ok(),
                    _ => reading.skip()?,
                }
                Ok(())
            })?;
            entries.push(entry);
            Ok(())
        })
    })?;
    Ok(entries)
}

fn members<'b>(
    reading: &mut Decoder<'b>,
    mut read: impl FnMut(&mut Decoder<'b>, &str) -> Result<(), decode::Error>,
) -> Result<(), decode::Error> {
    let count = reading.map()?;
    each(reading, count, |reading| {
        let name = reading.str()?;
        read(reading, name)
    })
}

/// Reads so many items, or all until the break.
fn each<'b>(
    reading: &mut Decoder<'b>,
    count: Option<u64>,
    mut read: impl FnMut(&mut Decoder<'b>) -> Result<(), decode::Error>,
) -> Result<(), decode::Error> {
    let Some(count) = count else {
        while reading.datatype()? != Type::Break {
            read(reading)?;
        }
        return reading.skip();
    };
    (0..count).try_for_each(|_| read(reading))
}

/// The text of the next member of this name; what follows it is left in `rest`.
fn text_of<'a>(rest: &mut &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(rest, name)? + name.len();
    let begin = at + memchr::memchr(b'"', &rest[at..])? + 1;
    let end = begin + memchr::memchr(b'"', &rest[begin..])?;
    let text = &rest[begin..end];
    *rest = &rest[end + 1..];
    Some(text)
}

const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");
const CBOR: HeaderValue = HeaderValue::from_static("application/x-amz-cbor-1.1");

fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond_as(JSON, status, body)
}

fn respond_as(kind: HeaderValue, status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Serves until the process ends.
pub async fn serve(sink: Sink, plain: TcpListener, tls: Option<TcpListener>) -> anyhow::Result<()> {
    if let Some(listener) = tls {
        let acceptor = acceptor()?;
        let sink = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sink, acceptor) = (sink.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(sink, stream).await;
                    }
                });
            }
        });
    }
    loop {
        let (stream, _) = plain.accept().await.context("the sink accepts no more")?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(sink.clone(), stream));
    }
}

async fn connection(sink: Sink, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request| {
        let sink = sink.clone();
        async move { sink.answer(request).await }
    });
    // A client that goes away is its own business.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// A certificate of its own, for clients that do not ask whose it is.
fn acceptor() -> anyhow::Result<TlsAcceptor> {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_counted_whatever_the_order_of_its_members() {
        let sink = Sink::new(2, 1);
        let upper = u128::MAX;
        // "AAAA" is three bytes, "AAA=" two.
        let body = format!(
            r#"{{"Records":[{{"PartitionKey":"a","Data":"AAAA","ExplicitHashKey":"0"}},
                {{"Data": "AAA=", "ExplicitHashKey": "{upper}", "PartitionKey": "b"}}],"StreamName":"null"}}"#
        );
        let told: Value = serde_json::from_str(&sink.put_records(body.as_bytes())).unwrap();
        assert_eq!(told["Records"][0]["ShardId"], "shardId-000000000000");
        assert_eq!(told["Records"][1]["ShardId"], "shardId-000000000001");
        let counted = sink.counted();
        assert_eq!((&counted["records"], &counted["data_bytes"]), (&json!(2), &json!(5)));
        assert_eq!((&counted["calls"], &counted["put_units"]), (&json!(1), &json!(2)));
    }

    #[test]
    fn a_body_in_cbor_is_counted_alike() {
        let mut body = Encoder::new(Vec::new());
        let upper = u128::MAX.to_string();
        body.begin_map().unwrap().str("Records").unwrap().begin_array().unwrap();
        body.map(2).unwrap().str("Data").unwrap().bytes(b"abc").unwrap();
        body.str("PartitionKey").unwrap().str("a").unwrap();
        body.begin_map().unwrap().str("ExplicitHashKey").unwrap().str(&upper).unwrap();
        body.str("Data").unwrap().bytes(b"de").unwrap().end().unwrap();
        body.end().unwrap().str("StreamName").unwrap().str("null").unwrap().end().unwrap();
        let body = body.into_writer();
        let sink = Sink::new(2, 1);
        let answer = sink.put_cbor(&body).unwrap();
        let named = |shard: &[u8]| memchr::memmem::find(&answer, shard).is_some();
        assert!(named(b"shardId-000000000000") && named(b"shardId-000000000001"));
        let counted = sink.counted();
        assert_eq!((&counted["records"], &counted["data_bytes"]), (&json!(2), &json!(5)));
        for cut in 0..body.len() {
            assert!(sink.put_cbor(&body[..cut]).is_err(), "{cut}");
        }
    }
}
