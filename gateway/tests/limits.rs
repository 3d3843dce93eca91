//! Every limit of a record and of a call, on both sides of it, through both doors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_client;
mod support;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use headworks_gateway::Config;
use headworks_gateway::call::ERROR_CODE;
use headworks_proto::v1::{Header, PutRequest, Record};
use headworks_proto::{MAX_BATCH_RECORDS, MAX_ID_BYTES};
use headworks_record::headers::{MAX_HEADERS, MAX_NAME_BYTES, MAX_TOTAL_BYTES, MAX_VALUE_BYTES};
use headworks_telemetry::RecordTracer;
use http_client::post;
use serde_json::{Value, json};
use support::{FakeStream, Running, codes, config, record, soon};

const JSON: &str = "content-type: application/json";
const MAX_RECORD: usize = 20_000;

async fn start(stream: &FakeStream) -> Running {
    let http_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config { http_listen, max_record_bytes: MAX_RECORD, ..config(&[stream]) };
    Running::with(config, &[stream], RecordTracer::disabled()).await
}

/// The same record in JSON.
fn json_of(record: &Record) -> Value {
    let headers: Value = record.headers.iter().map(|h| (h.name.clone(), json!(h.value))).collect();
    let mut json = json!({
        "key": record.key, "headers": headers, "data_base64": STANDARD.encode(&record.data),
    });
    for (name, text) in [
        ("explicit_hash_key", &record.explicit_hash_key),
        ("id", &record.id),
        ("traceparent", &record.traceparent),
    ] {
        if !text.is_empty() {
            json[name] = json!(text);
        }
    }
    json
}

fn headers(headers: impl IntoIterator<Item = (String, String)>) -> Record {
    let headers = headers.into_iter().map(|(name, value)| Header { name, value }).collect();
    Record { headers, ..record("k", "x") }
}

#[tokio::test]
async fn of_a_record() {
    let many = |n: usize| headers((0..n).map(|i| (format!("h{i}"), "v".to_owned())));
    let named = |bytes: usize| headers([("n".repeat(bytes), "v".to_owned())]);
    let valued = |bytes: usize| headers([("n".to_owned(), "v".repeat(bytes))]);
    // Four names of one letter each.
    let total = |bytes: usize| {
        let share = (MAX_TOTAL_BYTES - 4) / 4;
        let values = [share, share, share, bytes - 4 - 3 * share];
        headers(values.iter().enumerate().map(|(i, bytes)| (i.to_string(), "v".repeat(*bytes))))
    };
    let hashed = |text: &str| Record { explicit_hash_key: text.to_owned(), ..record("k", "x") };
    let identified = |bytes: usize| Record { id: "i".repeat(bytes), ..record("k", "x") };
    let traced = |text: &str| Record { traceparent: text.to_owned(), ..record("k", "x") };
    let sized = |bytes: usize| record("k", vec![0; bytes - 1]);
    let cases: Vec<(&str, Record)> = vec![
        ("key-empty", record("", "x")),
        ("", record("k", "x")),
        ("", record(&"ü".repeat(256), "x")),
        ("key-too-long", record(&"ü".repeat(257), "x")),
        ("", hashed("0")),
        ("hash-key-invalid", hashed("-1")),
        ("", hashed(&u128::MAX.to_string())),
        ("hash-key-invalid", hashed("340282366920938463463374607431768211456")),
        ("", named(1)),
        ("header-name-invalid", named(0)),
        ("", named(MAX_NAME_BYTES)),
        ("header-name-invalid", named(MAX_NAME_BYTES + 1)),
        ("", headers([("hw".to_owned(), "v".to_owned())])),
        ("header-name-reserved", headers([("hw-".to_owned(), "v".to_owned())])),
        ("", valued(0)),
        ("", valued(MAX_VALUE_BYTES)),
        ("header-value-too-long", valued(MAX_VALUE_BYTES + 1)),
        ("", many(MAX_HEADERS)),
        ("headers-too-many", many(MAX_HEADERS + 1)),
        ("", total(MAX_TOTAL_BYTES)),
        ("headers-too-large", total(MAX_TOTAL_BYTES + 1)),
        ("", identified(MAX_ID_BYTES)),
        ("id-too-long", identified(MAX_ID_BYTES + 1)),
        ("", traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        ("creation-context-invalid", traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0")),
        ("creation-context-invalid", traced("00-00000000000000000000000000000000-b7ad6b7169203331-01")),
        ("", sized(MAX_RECORD)),
        ("record-too-large", sized(MAX_RECORD + 1)),
    ];
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let (expected, records): (Vec<&str>, Vec<Record>) = cases.into_iter().unzip();
    let body = json!({ "records": records.iter().map(json_of).collect::<Vec<_>>() }).to_string();
    let put = PutRequest { records, ..Default::default() };
    let answer = running.client().await.put(put).await.unwrap().into_inner();
    assert_eq!(codes(&answer.results), expected, "over gRPC");
    let answer = post(&running, "/v1/records", &[JSON], body).await.json();
    let code = |result: &Value| result["error"]["code"].as_str().unwrap_or_default().to_owned();
    let told: Vec<String> = answer["results"].as_array().unwrap().iter().map(code).collect();
    assert_eq!(told, expected, "over HTTP");
    let taken = expected.iter().filter(|code| code.is_empty()).count();
    assert_eq!(stream.records().len(), 2 * taken);
    // A message names what was given, or how much, and the limit.
    for result in answer["results"].as_array().unwrap().iter().filter(|result| !code(result).is_empty()) {
        assert!(result["error"]["message"].as_str().unwrap().len() > 40, "{result}");
    }
}

#[tokio::test]
async fn of_a_call() {
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let mut client = running.client().await;
    let cases: [(usize, Option<u64>, &str, u16); 9] = [
        (0, None, "batch-empty", 400),
        (1, None, "", 200),
        (MAX_BATCH_RECORDS, None, "", 200),
        (MAX_BATCH_RECORDS + 1, None, "batch-too-many-records", 413),
        (1, Some(0), "timeout-invalid", 400),
        (1, Some(600_000), "", 200),
        (1, Some(600_001), "timeout-invalid", 400),
        (0, Some(1), "batch-empty", 400),
        (0, Some(0), "timeout-invalid", 400),
    ];
    for (records, timeout_ms, code, status) in cases {
        let put = PutRequest {
            records: vec![record("k", ""); records],
            timeout: timeout_ms.map(|ms| prost_types::Duration {
                seconds: (ms / 1_000) as i64,
                nanos: (ms % 1_000) as i32 * 1_000_000,
            }),
            ..Default::default()
        };
        let told = match client.put(put).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().results.len(), records);
                String::new()
            }
            Err(status) => status.metadata().get(ERROR_CODE).unwrap().to_str().unwrap().to_owned(),
        };
        assert_eq!(told, code, "{records} {timeout_ms:?}");
        let mut body = json!({ "records": vec![json!({ "key": "k" }); records] });
        if let Some(timeout_ms) = timeout_ms {
            body["timeout_ms"] = json!(timeout_ms);
        }
        let answer = post(&running, "/v1/records", &[JSON], body.to_string()).await;
        assert_eq!(answer.status, status, "{records} {timeout_ms:?}");
        assert_eq!(answer.json()["error"]["code"].as_str().unwrap_or_default(), code);
    }
}

#[tokio::test]
async fn of_connections() {
    let stream = FakeStream::new("inbound");
    let config = Config { max_connections: 1, ..config(&[&stream]) };
    let running = Running::with(config, &[&stream], RecordTracer::disabled()).await;
    let put = || PutRequest { records: vec![record("k", "x")], ..Default::default() };
    let mut first = running.client().await;
    first.put(put()).await.unwrap();
    let mut second = Box::pin(async { running.client().await.put(put()).await });
    for _ in 0..20 {
        first.put(put()).await.unwrap();
        assert!((&mut second).now_or_never().is_none(), "there is room for one connection");
    }
    drop(first);
    soon("its turn", second).await.unwrap();
}
