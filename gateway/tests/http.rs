//! The HTTP door: forms, answers, limits, CORS, and what operators ask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_client;
mod support;

use headworks_gateway::Config;
use headworks_proto::{MAX_BATCH_RECORDS, MAX_ID_BYTES, MAX_MESSAGE_BYTES};
use headworks_telemetry::{RecordTracer, SpanStore};
use http_client::{Answer, ask, post};
use serde_json::{Value, json};
use support::{FakeStream, Mode, Running, config, record, soon};

fn settings(streams: &[&FakeStream]) -> Config {
    Config { http_listen: Some("127.0.0.1:0".parse().unwrap()), ..config(streams) }
}

async fn start(stream: &FakeStream) -> Running {
    Running::with(settings(&[stream]), &[stream], RecordTracer::disabled()).await
}

const JSON: &str = "content-type: application/json";
const NDJSON: &str = "content-type: application/x-ndjson";
const EVENT: &str = "content-type: application/cloudevents+json";
const EVENTS: &str = "content-type: application/cloudevents-batch+json";

async fn batch(running: &Running, records: Value) -> Answer {
    post(running, "/v1/records", &[JSON], json!({ "records": records }).to_string()).await
}

/// A batch of one record that white space fills up to so many bytes.
fn padded(bytes: usize) -> String {
    let record = r#"{"records":[{"key":"k"}]}"#;
    format!("{record}{}", " ".repeat(bytes - record.len()))
}

/// The codes of the results; "" where the record is stored.
fn codes(answer: &Answer) -> Vec<String> {
    let results = answer.json()["results"].as_array().unwrap().clone();
    let code = |result: &Value| match &result["error"]["code"] {
        Value::String(code) => code.clone(),
        _ => {
            assert!(result["sequence_number"].is_string(), "{result}");
            String::new()
        }
    };
    results.iter().map(code).collect()
}

/// Status and code of a call that fails, which also has a message.
fn failure(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert!(body["error"]["message"].as_str().unwrap().len() > 20, "{body}");
    (answer.status, body["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_batch_is_stored_and_answered_in_order() {
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let answer = batch(
        &running,
        json!([
            {"key": "k", "headers": {"type": "t"}, "data": {"n": 1}, "explicit_hash_key": "0"},
            {"key": "k", "data_base64": "AP8=", "explicit_hash_key": u128::MAX.to_string()},
            {"key": ""},
        ]),
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(codes(&answer), ["", "", "key-empty"]);
    let body = answer.json();
    let first = &body["results"][0];
    assert_eq!((&first["shard_id"], &first["attempts"]), (&json!("shardId-000000000000"), &json!(1)));
    assert_eq!(first["sub_sequence_number"], json!(0));
    assert_eq!(body["results"][1]["shard_id"], json!("shardId-000000000001"));
    let refused = &body["results"][2]["error"];
    assert_eq!((&refused["retryable"], &refused["outcome_unknown"]), (&json!(false), &json!(false)));
    let mut stored = stream.records();
    stored.sort_by_key(|record| record.explicit_hash_key);
    assert_eq!(stored[0].data, r#"{"n":1}"#);
    assert_eq!(stored[0].headers.get("type"), Some("t"));
    assert!(stored[0].headers.creation().is_some());
    assert_eq!(stored[1].data, vec![0, 0xff]);
    assert_eq!(running.stop().await.unanswered, 0);
}

#[tokio::test]
async fn bad_records_are_refused_one_by_one_and_the_others_are_stored() {
    let stream = FakeStream::new("inbound");
    let config = Config { max_record_bytes: 1000, ..settings(&[&stream]) };
    let running = Running::with(config, &[&stream], RecordTracer::disabled()).await;
    let many = |n: usize| -> Value { (0..n).map(|i| (format!("h{i}"), json!("x"))).collect() };
    let headers = |name: &str, bytes: usize| json!({ name: "x".repeat(bytes) });
    let cases = [
        ("", json!({"key": "ü".repeat(256)})),
        ("key-too-long", json!({"key": "ü".repeat(257)})),
        ("", json!({"key": "k", "explicit_hash_key": u128::MAX.to_string()})),
        ("hash-key-invalid", json!({"key": "k", "explicit_hash_key": "-1"})),
        ("", json!({"key": "k", "headers": headers(&"n".repeat(64), 1)})),
        ("header-name-invalid", json!({"key": "k", "headers": headers(&"n".repeat(65), 1)})),
        ("header-name-reserved", json!({"key": "k", "headers": headers("hw-t", 1)})),
        ("header-value-too-long", json!({"key": "k", "headers": headers("v", 2049)})),
        ("", json!({"key": "k", "headers": many(32)})),
        ("headers-too-many", json!({"key": "k", "headers": many(33)})),
        ("", json!({"key": "k", "id": "i".repeat(MAX_ID_BYTES)})),
        ("id-too-long", json!({"key": "k", "id": "i".repeat(MAX_ID_BYTES + 1)})),
        ("creation-context-invalid", json!({"key": "k", "traceparent": "00-zz"})),
        // The key, and the quotes of the text.
        ("", json!({"key": "k", "data": "x".repeat(997)})),
        ("record-too-large", json!({"key": "k", "data": "x".repeat(998)})),
    ];
    let (expected, records): (Vec<&str>, Vec<Value>) = cases.into_iter().unzip();
    let answer = batch(&running, records.into()).await;
    assert_eq!((answer.status, codes(&answer)), (200, expected.iter().map(|c| (*c).to_owned()).collect()));
    let stored = expected.iter().filter(|code| code.is_empty()).count();
    assert_eq!(stream.records().len(), stored);

    let repeated = r#"{"records":[{"key":"k","headers":{"a":"1","a":"2"}}]}"#;
    let answer = post(&running, "/v1/records", &[JSON], repeated).await;
    assert_eq!(codes(&answer), ["header-repeated"]);
}

#[tokio::test]
async fn the_largest_record_that_a_value_may_have() {
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let value = |bytes: usize| json!([{"key": "k", "headers": {"v": "x".repeat(bytes)}}]);
    assert_eq!(codes(&batch(&running, value(2048)).await), [""]);
    assert_eq!(codes(&batch(&running, value(2049)).await), ["header-value-too-long"]);
    let all = |last: usize| {
        json!([{"key": "k", "headers": {
            "a": "x".repeat(2047), "b": "x".repeat(2047), "c": "x".repeat(2047), "d": "x".repeat(last),
        }}])
    };
    assert_eq!(codes(&batch(&running, all(2047)).await), [""]);
    assert_eq!(codes(&batch(&running, all(2048)).await), ["headers-too-large"]);
}

#[tokio::test]
async fn lines_are_taken_all_or_none() {
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let lines = "{\"key\":\"a\",\"data\":1}\n\r\n{\"key\":\"a\",\"data\":2}";
    let answer = post(&running, "/v1/records", &[NDJSON], lines).await;
    assert_eq!((answer.status, codes(&answer).len()), (200, 2));
    assert_eq!(stream.of_key("a"), ["1", "2"]);

    let lines = "{\"key\":\"b\"}\n{\"key\":\"b\"\n{\"key\":\"b\"}\n";
    let answer = post(&running, "/v1/records", &[NDJSON], lines).await;
    assert_eq!(failure(&answer), (400, "request-malformed".to_owned()));
    let message = answer.json()["error"]["message"].to_string();
    assert!(message.contains("line 2, column"), "{message}");
    assert_eq!(stream.records().len(), 2);
}

#[tokio::test]
async fn events_in_every_mode_have_one_identity() {
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let event = json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.placed",
        "partitionkey": "k", "datacontenttype": "application/json", "data": {"n": 1}});
    let binary = [
        "ce-specversion: 1.0",
        "ce-id: 7",
        "ce-source: /shop",
        "ce-type: order.placed",
        "ce-partitionkey: k",
        "content-type: application/json",
    ];
    let answers = [
        post(&running, "/v1/records", &binary, r#"{"n":1}"#).await,
        post(&running, "/v1/records", &[EVENT], event.to_string()).await,
        post(&running, "/v1/records", &[EVENTS], json!([event]).to_string()).await,
    ];
    for answer in &answers {
        assert_eq!((answer.status, codes(answer).len()), (200, 1), "{answer:?}");
    }
    let stored = stream.records();
    assert_eq!(stored.len(), 3);
    for record in &stored {
        assert_eq!((record.key.as_str(), &record.data[..]), ("k", &br#"{"n":1}"#[..]));
        let header = |name| record.headers.get(name);
        assert_eq!((header("ce-type"), header("ce-source")), (Some("order.placed"), Some("/shop")));
        assert_eq!((header("ce-id"), header("content-type")), (Some("7"), Some("application/json")));
        let identity = |record: &headworks_record::Record| {
            let creation = record.headers.creation().unwrap();
            (creation.trace_id, creation.span_id)
        };
        assert_eq!(identity(record), identity(&stored[0]));
    }
}

#[tokio::test]
async fn an_event_that_is_not_stored_is_no_success() {
    let stream = FakeStream::new("inbound");
    let config = Config { max_record_bytes: 1000, ..settings(&[&stream]) };
    let running = Running::with(config, &[&stream], RecordTracer::disabled()).await;
    let event = |id: &str, data: usize| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "subject": id, "data": "x".repeat(data)});
    let answer = post(&running, "/v1/records", &[EVENT], event("1", 1000).to_string()).await;
    assert_eq!(failure(&answer), (413, "record-too-large".to_owned()));
    let events = json!([event("2", 1), event(&"ü".repeat(257), 1)]);
    let answer = post(&running, "/v1/records", &[EVENTS], events.to_string()).await;
    assert_eq!(failure(&answer), (400, "key-too-long".to_owned()));
    assert_eq!(codes(&answer), ["", "key-too-long"]);

    stream.set(Mode::Shut);
    let answer = post(&running, "/v1/records?timeout_ms=1", &[EVENT], event("3", 1).to_string()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert_eq!(answer.json()["error"]["retryable"], json!(true));
    stream.set(Mode::Open);

    let answer = post(&running, "/v1/records", &[EVENT], r#"{"specversion":"1.0"}"#).await;
    assert_eq!(failure(&answer), (400, "cloudevent-invalid".to_owned()));
    let answer = post(&running, "/v1/records", &[EVENTS], "[]").await;
    assert_eq!(failure(&answer), (400, "batch-empty".to_owned()));
}

#[tokio::test]
async fn calls_that_fail_say_why() {
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let good = r#"{"records":[{"key":"k"}]}"#;
    let cases: [(&str, &str, &str, u16, &str); 12] = [
        ("/v1/records", JSON, "{", 400, "request-malformed"),
        ("/v1/records", JSON, r#"{"records":[]}"#, 400, "batch-empty"),
        ("/v1/records", NDJSON, "\n", 400, "batch-empty"),
        ("/v1/records", "content-type: text/plain", good, 415, "media-type-unsupported"),
        ("/v1/records?stream=other", JSON, good, 404, "stream-unknown"),
        ("/v1/records?steam=other", JSON, good, 400, "request-malformed"),
        ("/v1/records?timeout_ms=0", JSON, good, 400, "timeout-invalid"),
        ("/v1/records?timeout_ms=600001", JSON, good, 400, "timeout-invalid"),
        ("/v1/records?timeout_ms=600000&stream=inbound", JSON, good, 200, ""),
        ("/v1/records?timeout_ms=1000", JSON, good, 200, ""),
        ("/v1/record", JSON, good, 404, "path-unknown"),
        ("/metrics", JSON, good, 405, "method-not-allowed"),
    ];
    for (path, header, body, status, code) in cases {
        let answer = post(&running, path, &[header], body).await;
        match code {
            "" => assert_eq!((answer.status, codes(&answer)), (status, vec![String::new()])),
            code => assert_eq!(failure(&answer), (status, code.to_owned()), "{path} {body}"),
        }
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let answer = ask(&running, "DELETE", "/v1/records", &[], "").await;
    assert_eq!(failure(&answer), (405, "method-not-allowed".to_owned()));
    assert!(answer.header("allow").unwrap().contains("POST"), "{answer:?}");
    let encoded = [JSON, "content-encoding: gzip"];
    let answer = post(&running, "/v1/records", &encoded, good).await;
    assert_eq!(failure(&answer), (415, "media-type-unsupported".to_owned()));
    let both = r#"{"stream":"inbound","records":[{"key":"k"}]}"#;
    let answer = post(&running, "/v1/records?stream=inbound", &[JSON], both).await;
    assert_eq!(failure(&answer), (400, "request-malformed".to_owned()));
    assert_eq!(stream.records().len(), 2);
}

#[tokio::test]
async fn the_size_of_a_batch_has_its_limits() {
    let stream = FakeStream::new("inbound");
    let running = start(&stream).await;
    let most = "{\"key\":\"k\"}\n".repeat(MAX_BATCH_RECORDS);
    let answer = post(&running, "/v1/records", &[NDJSON], most.clone()).await;
    assert_eq!((answer.status, codes(&answer).len()), (200, MAX_BATCH_RECORDS));
    let answer = post(&running, "/v1/records", &[NDJSON], most + "{\"key\":\"k\"}").await;
    assert_eq!(failure(&answer), (413, "batch-too-many-records".to_owned()));

    let answer = post(&running, "/v1/records", &[JSON], padded(MAX_MESSAGE_BYTES)).await;
    assert_eq!(codes(&answer), [""]);
    // Refused by its length alone: nothing of it needs to be sent.
    let told = format!("content-length: {}", MAX_MESSAGE_BYTES + 1);
    let answer = http_client::raw(&running, "POST", "/v1/records", &[JSON, &told], b"").await;
    assert_eq!(failure(&answer), (413, "message-too-large".to_owned()));
    let body = padded(MAX_MESSAGE_BYTES + 1);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let headers = [JSON, "transfer-encoding: chunked"];
    let answer = http_client::raw(&running, "POST", "/v1/records", &headers, chunked.as_bytes()).await;
    assert_eq!(failure(&answer), (413, "message-too-large".to_owned()));
}

#[tokio::test]
async fn a_full_gateway_asks_for_patience() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let mut config = Config { http_buffer_bytes: MAX_MESSAGE_BYTES, ..settings(&[&stream]) };
    config.streams[0].writer.max_buffered_bytes = config.streams[0].writer.max_record_bytes;
    let limit = config.streams[0].writer.max_buffered_bytes;
    let running = Running::with(config, &[&stream], RecordTracer::disabled()).await;
    let address = running.handle.http_addr().unwrap();
    // Records weigh more than their bytes, so this fills the writer and leaves room for bodies.
    let records: Vec<Value> = (0..limit / 300).map(|_| json!({"key": "k".repeat(40)})).collect();
    assert!(records.len() <= MAX_BATCH_RECORDS);
    let held = tokio::spawn({
        let body = json!({ "records": records[..9000.min(records.len())] }).to_string();
        async move { http_client::send(address, "POST", "/v1/records", &[JSON], body.as_bytes()).await }
    });
    stream.called(1).await;
    let large =
        json!([{"key": "k", "data": "x".repeat(limit / 2)}, {"key": "k", "data": "x".repeat(limit / 3)}]);
    let answer = batch(&running, large).await;
    assert_eq!(failure(&answer), (429, "writer-full".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));

    // The body's room is in use until its records are answered.
    let rest = padded(MAX_MESSAGE_BYTES);
    let answer = post(&running, "/v1/records", &[JSON], rest.clone()).await;
    assert_eq!(failure(&answer), (429, "http-buffer-full".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));

    let too_much =
        json!([{"key": "k", "data": "x".repeat(limit / 2)}, {"key": "k", "data": "x".repeat(limit / 2)}]);
    let answer = batch(&running, too_much).await;
    assert_eq!(failure(&answer), (413, "batch-too-large".to_owned()));

    stream.set(Mode::Open);
    assert_eq!(soon("the answer", held).await.unwrap().status, 200);
    let answer = post(&running, "/v1/records", &[JSON], rest).await;
    assert_eq!(codes(&answer), [""]);
}

#[tokio::test]
async fn pages_of_configured_origins_may_send() {
    let stream = FakeStream::new("inbound");
    let config = Config { cors_origins: vec!["https://shop.example".to_owned()], ..settings(&[&stream]) };
    let running = Running::with(config, &[&stream], RecordTracer::disabled()).await;
    let (ours, theirs) = ("origin: https://shop.example", "origin: https://shop.example.evil.example");
    let wants = "access-control-request-method: POST";
    let asks = "access-control-request-headers: content-type, Ce-Id, x-other, traceparent";
    let allowed = ask(&running, "OPTIONS", "/v1/records", &[ours, wants, asks], "").await;
    assert_eq!((allowed.status, &allowed.body[..]), (204, &b""[..]));
    for (name, value) in [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type, Ce-Id, traceparent"),
        ("access-control-max-age", "600"),
        ("vary", "origin"),
    ] {
        assert_eq!(allowed.header(name), Some(value), "{name}");
    }
    let refused = ask(&running, "OPTIONS", "/v1/records", &[theirs, wants], "").await;
    assert_eq!(failure(&refused), (403, "origin-not-allowed".to_owned()));
    assert_eq!(refused.header("access-control-allow-origin"), None);

    let body = r#"{"records":[{"key":"k"}]}"#;
    let answer = post(&running, "/v1/records", &[JSON, ours], body).await;
    assert_eq!(codes(&answer), [""]);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    // Errors can be read as well.
    let answer = post(&running, "/v1/records", &[JSON, ours], "{").await;
    assert_eq!(failure(&answer), (400, "request-malformed".to_owned()));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    let answer = post(&running, "/v1/records", &[JSON, theirs], body).await;
    assert_eq!(failure(&answer), (403, "origin-not-allowed".to_owned()));
    let answer = post(&running, "/v1/records", &[JSON], body).await;
    assert_eq!((codes(&answer), answer.header("access-control-allow-origin")), (vec![String::new()], None));
    assert_eq!(stream.records().len(), 2);

    let none = start(&stream).await;
    let answer = post(&none, "/v1/records", &[JSON, ours], body).await;
    assert_eq!(failure(&answer), (403, "origin-not-allowed".to_owned()));
    let config = Config { cors_origins: vec!["*".to_owned()], ..settings(&[&stream]) };
    let all = Running::with(config, &[&stream], RecordTracer::disabled()).await;
    let answer = post(&all, "/v1/records", &[JSON, theirs], body).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example.evil.example"));
}

#[tokio::test]
async fn the_requests_trace_is_the_parent() {
    let stream = FakeStream::new("inbound");
    let spans = SpanStore::new(10);
    let tracer = RecordTracer::new(spans.clone());
    let running = Running::with(settings(&[&stream]), &[&stream], tracer).await;
    let of = |trace: char, span: char| {
        format!("00-{}-{}-01", trace.to_string().repeat(32), span.to_string().repeat(16))
    };
    let request = format!("traceparent: {}", of('a', 'b'));
    let body = json!({"records": [{"key": "k"}, {"key": "k", "traceparent": of('c', 'd')}]}).to_string();
    let answer = post(&running, "/v1/records", &[JSON, &request], body.clone()).await;
    assert_eq!(codes(&answer), ["", ""]);
    let parents: Vec<(String, String)> = spans
        .spans()
        .iter()
        .filter(|span| span.name == "create inbound")
        .map(|span| (span.span_context.trace_id().to_string(), span.parent_span_id.to_string()))
        .collect();
    assert_eq!(parents, [("a".repeat(32), "b".repeat(16)), ("c".repeat(32), "d".repeat(16))]);
    // A malformed one counts as none.
    let answer = post(&running, "/v1/records", &[JSON, "traceparent: 00-zz"], body).await;
    assert_eq!(codes(&answer), ["", ""]);
}

#[tokio::test]
async fn health_readiness_and_the_drain() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let running = start(&stream).await;
    let address = running.handle.http_addr().unwrap();
    let health = ask(&running, "GET", "/healthz", &[], "").await;
    assert_eq!((health.status, &health.body[..]), (200, &b"ok\n"[..]));
    let ready = ask(&running, "GET", "/readyz", &[], "").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({"ready": true, "streams": ["inbound"], "not_serving": []}))
    );

    let body = r#"{"records":[{"key":"k","data":1}]}"#;
    let taken = tokio::spawn(async move {
        http_client::send(address, "POST", "/v1/records", &[JSON], body.as_bytes()).await
    });
    stream.called(1).await;
    running.shutdown.cancel();
    soon("the drain", async {
        while !running.handle.is_draining() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ready = ask(&running, "GET", "/readyz", &[], "").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (503, &json!(false)));
    assert_eq!(ask(&running, "GET", "/healthz", &[], "").await.status, 200);
    let late = post(&running, "/v1/records", &[JSON], body).await;
    assert_eq!(failure(&late), (503, "gateway-draining".to_owned()));
    assert_eq!(late.header("retry-after"), Some("1"));
    stream.set(Mode::Open);
    let answer = soon("the answer", taken).await.unwrap();
    assert_eq!(codes(&answer), [""]);
    assert_eq!(running.stop().await.unanswered, 0);
    assert_eq!(stream.of_key("k"), ["1"]);
}

#[tokio::test]
async fn what_remains_at_the_drain_deadline_is_said_over_http() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Mute);
    let config = Config { drain_ms: 50, ..settings(&[&stream]) };
    let running = Running::with(config, &[&stream], RecordTracer::disabled()).await;
    let address = running.handle.http_addr().unwrap();
    let taken = tokio::spawn(async move {
        let body = r#"{"records":[{"key":"k"}]}"#;
        http_client::send(address, "POST", "/v1/records", &[JSON], body.as_bytes()).await
    });
    stream.called(1).await;
    assert_eq!(running.stop().await.unanswered, 1);
    let answer = soon("the answer", taken).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["results"][0]["error"]["outcome_unknown"], json!(true));
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let (a, b) = (FakeStream::new("a"), FakeStream::new("b"));
    let running = Running::with(settings(&[&a, &b]), &[&a, &b], RecordTracer::disabled()).await;
    let three = json!([{"key": "k", "data": 1}, {"key": ""}, {"key": "k", "data": 2}]);
    assert_eq!(codes(&batch(&running, three).await).len(), 3);
    assert_eq!(post(&running, "/v1/records", &[JSON], "{").await.status, 400);
    let put = headworks_proto::v1::PutRequest { records: vec![record("k", "x")], ..Default::default() };
    running.client().await.put(put).await.unwrap();
    running.client().await.put(headworks_proto::v1::PutRequest::default()).await.unwrap_err();

    let answer = ask(&running, "GET", "/metrics", &[], "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "headworks_records_accepted_total{messaging_destination_name=\"a\"} 3",
        "headworks_records_accepted_total{messaging_destination_name=\"b\"} 0",
        "headworks_records_acknowledged_total{messaging_destination_name=\"a\"} 3",
        "headworks_records_failed_total{messaging_destination_name=\"a\",error_type=\"key-empty\"} 1",
        "headworks_records_outcome_unknown_total{messaging_destination_name=\"a\"} 0",
        "headworks_queue_bytes{messaging_destination_name=\"a\"} 0",
        "headworks_queue_limit_bytes{messaging_destination_name=\"a\"} 67108864",
        "headworks_gateway_calls_total{headworks_door=\"http\",error_type=\"ok\"} 1",
        "headworks_gateway_calls_total{headworks_door=\"http\",error_type=\"request-malformed\"} 1",
        "headworks_gateway_calls_total{headworks_door=\"put\",error_type=\"ok\"} 1",
        "headworks_gateway_calls_total{headworks_door=\"put\",error_type=\"batch-empty\"} 1",
        "headworks_gateway_draining 0",
        "# TYPE headworks_records_accepted_total counter",
        "# TYPE headworks_queue_bytes gauge",
    ] {
        assert!(text.lines().any(|given| given == line), "{line} is not in\n{text}");
    }
    // Every sample belongs to the family that is announced above it, and each is announced once.
    let (mut family, mut seen) = ("", std::collections::HashSet::new());
    for line in text.lines() {
        if let Some(announced) = line.strip_prefix("# TYPE ") {
            family = announced.split(' ').next().unwrap();
            assert!(seen.insert(family), "{family}");
        } else if !line.starts_with('#') {
            assert_eq!(line.split(['{', ' ']).next().unwrap(), family);
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
}

#[tokio::test]
async fn records_of_a_client_that_goes_away_stay_on_their_way() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let running = start(&stream).await;
    let address = running.handle.http_addr().unwrap();
    let body = r#"{"records":[{"key":"k","data":1}]}"#;
    let client = tokio::spawn(async move {
        http_client::send(address, "POST", "/v1/records", &[JSON], body.as_bytes()).await
    });
    stream.called(1).await;
    client.abort();
    let counted = "headworks_gateway_calls_total{headworks_door=\"http\",error_type=\"cancelled\"} 1\n";
    soon("the call's end", async {
        loop {
            let metrics = ask(&running, "GET", "/metrics", &[], "").await;
            if String::from_utf8(metrics.body).unwrap().contains(counted) {
                return;
            }
        }
    })
    .await;
    stream.set(Mode::Open);
    stream.stored(1).await;
    assert_eq!(running.stop().await.unanswered, 0);
    assert_eq!(stream.of_key("k"), ["1"]);
}

#[tokio::test]
async fn no_http_unless_asked_for_and_no_port_twice() {
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    assert_eq!(running.handle.http_addr(), None);
    let taken = running.handle.local_addr();
    let config = Config { http_listen: Some(taken), ..config(&[&stream]) };
    let minter = headworks_telemetry::Minter::new(headworks_telemetry::Sampler::never());
    let bound = headworks_gateway::Gateway::bind(
        config,
        support::factory(&[&stream]),
        minter,
        RecordTracer::disabled(),
    );
    let error = bound.await.unwrap_err();
    assert_eq!(error.code(), "address-in-use");
    let text = error.to_string();
    assert!(text.contains("HEADWORKS_GATEWAY_HTTP_LISTEN") && text.contains(&taken.to_string()), "{text}");
}
