//! Unary `Put`: answers, limits, identity.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use headworks_gateway::call::{ERROR_CODE, RETRY_AFTER_MS};
use headworks_proto::v1::{CreationContext, Header, PutRequest, Record};
use headworks_proto::{MAX_BATCH_RECORDS, MAX_ID_BYTES, MAX_MESSAGE_BYTES};
use headworks_record::creation::Creation;
use headworks_record::{SpanId, TraceId};
use headworks_telemetry::{RecordTracer, SpanStore};
use support::{FakeStream, Mode, Running, codes, config, error, record, soon};
use tonic::{Code, Request, Status};

fn put(records: Vec<Record>) -> PutRequest {
    PutRequest { records, ..Default::default() }
}

fn code_of(status: &Status) -> &str {
    status.metadata().get(ERROR_CODE).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn answers_say_where_each_record_is() {
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let mut client = running.client().await;
    let records = (0..50)
        .map(|i| Record {
            headers: vec![Header { name: "type".into(), value: format!("t{i}") }],
            explicit_hash_key: if i % 2 == 0 { "0".into() } else { String::new() },
            ..record("k", format!("data {i}"))
        })
        .collect();
    let results = client.put(put(records)).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 50);
    for (i, result) in results.iter().enumerate() {
        let Some(headworks_proto::v1::record_result::Outcome::Stored(stored)) = &result.outcome else {
            panic!("{result:?}")
        };
        assert!(stored.shard_id.starts_with("shardId-"), "{stored:?}");
        assert!(stored.sequence_number.len() == 56 && stored.attempts == 1, "{stored:?}");
        if i % 2 == 0 {
            assert_eq!(stored.shard_id, "shardId-000000000000");
        }
    }
    let stored = stream.records();
    assert_eq!(stored.len(), 50);
    for (i, record) in stored.iter().filter(|r| r.explicit_hash_key.is_some()).enumerate() {
        assert_eq!(record.data, format!("data {}", 2 * i));
        assert_eq!(record.headers.get("type"), Some(&format!("t{}", 2 * i)[..]));
        assert!(record.headers.creation().is_some());
    }
    assert_eq!(running.stop().await.unanswered, 0);
}

#[tokio::test]
async fn bad_records_are_refused_one_by_one_and_the_others_are_stored() {
    let stream = FakeStream::new("inbound");
    let mut settings = config(&[&stream]);
    settings.max_record_bytes = 1000;
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let mut client = running.client().await;
    let header = |name: &str, value: String| vec![Header { name: name.into(), value }];
    let creation = CreationContext {
        trace_id: vec![1; 16].into(),
        span_id: vec![2; 8].into(),
        flags: 1,
        created_unix_ms: 1_790_000_000_000,
    };
    let cases: Vec<(&str, Record)> = vec![
        ("", record("k", "good")),
        ("key-empty", record("", "x")),
        ("", record(&"ü".repeat(256), "x")),
        ("key-too-long", record(&"ü".repeat(257), "x")),
        ("hash-key-invalid", Record { explicit_hash_key: "-1".into(), ..record("k", "x") }),
        ("", Record { explicit_hash_key: u128::MAX.to_string(), ..record("k", "x") }),
        ("header-name-invalid", Record { headers: header("Content Type", "x".into()), ..record("k", "x") }),
        ("header-name-reserved", Record { headers: header("hw-t", "x".into()), ..record("k", "x") }),
        ("header-value-too-long", Record { headers: header("v", "x".repeat(2049)), ..record("k", "x") }),
        (
            "headers-too-many",
            Record {
                headers: (0..33).map(|i| Header { name: format!("h{i}"), value: "x".into() }).collect(),
                ..record("k", "x")
            },
        ),
        (
            "header-repeated",
            Record {
                headers: [header("a", "1".into()), header("a", "2".into())].concat(),
                ..record("k", "x")
            },
        ),
        ("creation-context-invalid", Record { traceparent: "00-zz".into(), ..record("k", "x") }),
        (
            "creation-context-invalid",
            Record { traceparent: "00-zz".into(), id: "i".into(), ..record("k", "x") },
        ),
        ("id-too-long", Record { id: "i".repeat(MAX_ID_BYTES + 1), ..record("k", "x") }),
        ("", Record { id: "i".repeat(MAX_ID_BYTES), ..record("k", "x") }),
        (
            "creation-context-invalid",
            Record {
                creation: Some(CreationContext { span_id: vec![0; 8].into(), ..creation.clone() }),
                ..record("k", "x")
            },
        ),
        ("identity-ambiguous", Record { creation: Some(creation), id: "i".into(), ..record("k", "x") }),
        ("", record("k", vec![b'x'; 999])),
        ("record-too-large", record("k", vec![b'x'; 1000])),
        ("record-too-large", Record { headers: header("a", "b".into()), ..record("k", vec![b'x'; 998]) }),
        ("", Record { headers: header("a", "b".into()), ..record("k", vec![b'x'; 997]) }),
    ];
    let (expected, records): (Vec<&str>, Vec<Record>) = cases.into_iter().unzip();
    let results = client.put(put(records)).await.unwrap().into_inner().results;
    assert_eq!(codes(&results), expected);
    for error in results.iter().filter_map(error) {
        assert!(!error.retryable && !error.outcome_unknown, "{error:?}");
        assert!(error.message.len() > 40, "{error:?}");
    }
    let large = results.iter().filter_map(error).find(|e| e.code == "record-too-large").unwrap();
    assert!(large.message.contains("1001 bytes") && large.message.contains("limit is 1000"), "{large:?}");
    assert_eq!(stream.records().len(), expected.iter().filter(|code| code.is_empty()).count());
}

#[tokio::test]
async fn a_call_that_is_wrong_as_a_whole_takes_nothing() {
    let (stream, other) = (FakeStream::new("inbound"), FakeStream::new("other"));
    let mut settings = config(&[&stream, &other]);
    settings.default_stream = Some("other".into());
    let running = Running::with(settings, &[&stream, &other], RecordTracer::disabled()).await;
    let mut client = running.client().await;
    let duration = |seconds, nanos| Some(prost_duration(seconds, nanos));
    let one = || vec![record("k", "x")];
    let cases = [
        (Code::InvalidArgument, "batch-empty", put(vec![])),
        (Code::InvalidArgument, "batch-too-many-records", put(vec![record("k", "x"); MAX_BATCH_RECORDS + 1])),
        (Code::InvalidArgument, "message-too-large", put(vec![record("k", vec![0; MAX_MESSAGE_BYTES])])),
        (
            Code::InvalidArgument,
            "timeout-invalid",
            PutRequest { timeout: duration(0, 999_999), ..put(one()) },
        ),
        (Code::InvalidArgument, "timeout-invalid", PutRequest { timeout: duration(-1, 0), ..put(one()) }),
        (Code::InvalidArgument, "timeout-invalid", PutRequest { timeout: duration(600, 1), ..put(one()) }),
        (Code::NotFound, "stream-unknown", PutRequest { stream: "nowhere".into(), ..put(one()) }),
    ];
    for (grpc, code, request) in cases {
        let status = client.put(request).await.unwrap_err();
        assert_eq!((status.code(), code_of(&status)), (grpc, code), "{status:?}");
        if code == "stream-unknown" {
            assert!(status.message().contains("\"nowhere\"") && status.message().contains("inbound, other"));
        }
    }
    assert!(stream.records().is_empty() && other.records().is_empty());

    // The other side of each limit.
    client.put(put(vec![record("k", "x"); MAX_BATCH_RECORDS])).await.unwrap();
    client.put(PutRequest { timeout: duration(600, 0), ..put(one()) }).await.unwrap();
    client.put(PutRequest { stream: "inbound".into(), ..put(one()) }).await.unwrap();
    assert_eq!((stream.records().len(), other.records().len()), (1, MAX_BATCH_RECORDS + 1));
    // The largest message: each record is over the limit of a record, the batch is not.
    let overhead =
        prost_len(&put(vec![record("k", vec![0; MAX_MESSAGE_BYTES - 100])])) - (MAX_MESSAGE_BYTES - 100);
    let largest = put(vec![record("k", vec![0; MAX_MESSAGE_BYTES - overhead])]);
    assert_eq!(prost_len(&largest), MAX_MESSAGE_BYTES);
    let results = client.put(largest).await.unwrap().into_inner().results;
    assert_eq!(codes(&results), ["record-too-large"]);
}

fn prost_len(request: &PutRequest) -> usize {
    prost::Message::encoded_len(request)
}

fn prost_duration(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

#[tokio::test]
async fn a_full_gateway_says_when_to_come_back() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let mut settings = config(&[&stream]);
    settings.streams[0].writer.max_buffered_bytes = 1 << 20;
    let running = Running::with(settings, &[&stream], RecordTracer::disabled()).await;
    let mut client = running.client().await;
    let mut first = client.clone();
    let first = tokio::spawn(async move { first.put(put(vec![record("k", vec![b'1'; 700_000])])).await });
    stream.called(1).await;

    let second = put(vec![record("k", vec![b'2'; 700_000])]);
    let status = client.put(second.clone()).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (Code::ResourceExhausted, "writer-full"));
    let delay = status.metadata().get(RETRY_AFTER_MS).unwrap().to_str().unwrap();
    assert!(delay.parse::<u64>().unwrap() > 0);

    stream.set(Mode::Open);
    soon("the first answer", first).await.unwrap().unwrap();
    client.put(second).await.unwrap();
    assert_eq!(stream.records().len(), 2);

    // More than it can ever hold is another matter.
    let status = client.put(put(vec![record("k", vec![b'x'; 600_000]); 2])).await.unwrap_err();
    assert_eq!((status.code(), code_of(&status)), (Code::InvalidArgument, "batch-too-large"));
}

#[tokio::test]
async fn a_client_that_gives_up_takes_nothing_back() {
    let stream = FakeStream::new("inbound");
    stream.set(Mode::Shut);
    let running = Running::start(&[&stream]).await;
    let mut client = running.client().await;
    {
        let call = client.put(put(vec![record("k", "kept")]));
        tokio::select! {
            answered = call => panic!("{answered:?}"),
            () = stream.called(1) => {}
        }
    }
    stream.set(Mode::Open);
    stream.stored(1).await;
    assert_eq!(running.stop().await.unanswered, 0);
}

#[tokio::test]
async fn identity_comes_from_the_client_or_is_minted() {
    let stream = FakeStream::new("inbound");
    let spans = SpanStore::new(100);
    let running = Running::with(config(&[&stream]), &[&stream], RecordTracer::new(spans.clone())).await;
    let mut client = running.client().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let theirs = Creation::mint(1_790_000_000_000, [9; 18]).with_sampled(true);
    let minted = CreationContext {
        trace_id: theirs.trace_id.0.to_vec().into(),
        span_id: theirs.span_id.0.to_vec().into(),
        flags: theirs.flags.into(),
        created_unix_ms: theirs.created_ms,
    };
    let records = vec![
        Record { creation: Some(minted), ..record("k", "0") },
        Record { id: "order-7".into(), traceparent: parent.into(), ..record("k", "1") },
        Record { id: "order-7".into(), ..record("k", "2") },
        Record { traceparent: parent.into(), ..record("k", "3") },
        record("k", "4"),
    ];
    let mut request = Request::new(put(records));
    let call = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", call.parse().unwrap());
    let results = client.put(request).await.unwrap().into_inner().results;
    assert_eq!(codes(&results), [""; 5]);
    // A malformed context of the call counts as none.
    let mut request = Request::new(put(vec![record("k", "5")]));
    request.metadata_mut().insert("traceparent", "garbage".parse().unwrap());
    client.put(request).await.unwrap();

    let creations: Vec<Creation> = stream.records().iter().map(|r| *r.headers.creation().unwrap()).collect();
    assert_eq!(creations[0], theirs);
    let ids = |c: &Creation| (c.trace_id, c.span_id);
    assert_eq!(ids(&creations[1]), ids(&creations[2]));
    assert_eq!(creations[3].trace_id, TraceId::parse("0af7651916cd43dd8448eb211c80319c").unwrap());
    assert_eq!(creations[4].trace_id, TraceId::parse("1af7651916cd43dd8448eb211c80319c").unwrap());
    assert!(creations[5].time_is_in_trace_id());

    // The gateway tells of what it minted, and of nothing else.
    let creates: Vec<_> = spans.spans().into_iter().filter(|span| span.name == "create inbound").collect();
    assert_eq!(creates.len(), 5);
    let of = |c: &Creation| {
        creates.iter().find(|span| span.span_context.span_id().to_bytes() == c.span_id.0).unwrap()
    };
    let parent_of = |c: &Creation| SpanId(of(c).parent_span_id.to_bytes());
    assert_eq!(parent_of(&creations[3]), SpanId::parse("b7ad6b7169203331").unwrap());
    assert_eq!(parent_of(&creations[4]), SpanId::parse("c7ad6b7169203331").unwrap());
    assert_eq!(parent_of(&creations[5]), SpanId([0; 8]));
    assert_eq!(parent_of(&creations[1]), SpanId([0; 8]));
    let links: Vec<_> = creates
        .iter()
        .filter(|span| span.span_context.span_id().to_bytes() == creations[1].span_id.0)
        .map(|span| span.links.links[0].span_context.span_id().to_string())
        .collect();
    assert_eq!(links, ["b7ad6b7169203331", "c7ad6b7169203331"]);
}
