//! The in-memory OTLP collector, driven with a plain OTLP client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, its helpers included"
)]

use std::sync::Arc;
use std::time::Duration;

use headworks_local::otlp::{Collector, Config, Link, SpanKind, Status};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as wire;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(30);

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn span(trace: u8, id: u8, parent: u8) -> wire::Span {
    wire::Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: format!("span {id}"),
        start_time_unix_nano: u64::from(id) * 1_000,
        end_time_unix_nano: u64::from(id) * 1_000 + 500,
        ..wire::Span::default()
    }
}

fn export(spans: Vec<wire::Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "gateway")],
                ..Resource::default()
            }),
            scope_spans: vec![wire::ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "test".to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..wire::ScopeSpans::default()
            }],
            ..wire::ResourceSpans::default()
        }],
    }
}

async fn channel(collector: &Collector) -> Channel {
    Channel::from_shared(collector.endpoint()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn keeps_every_part_of_a_span() {
    let collector = Collector::start(Config::default()).await.unwrap();
    let mut client =
        TraceServiceClient::new(channel(&collector).await).send_compressed(CompressionEncoding::Gzip);
    let root = wire::Span { kind: wire::span::SpanKind::Producer.into(), ..span(1, 2, 0) };
    let child = wire::Span {
        kind: wire::span::SpanKind::Consumer.into(),
        attributes: vec![
            text("messaging.system", "aws.kinesis"),
            pair("count", Value::IntValue(-3)),
            pair("sampled", Value::BoolValue(true)),
            pair("raw", Value::BytesValue(vec![0x0f, 0xa0])),
            pair(
                "keys",
                Value::ArrayValue(ArrayValue {
                    values: vec![
                        AnyValue { value: Some(Value::StringValue("a".to_owned())) },
                        AnyValue { value: Some(Value::DoubleValue(1.5)) },
                    ],
                }),
            ),
        ],
        links: vec![wire::span::Link {
            trace_id: vec![9; 16],
            span_id: vec![8; 8],
            ..wire::span::Link::default()
        }],
        status: Some(wire::Status {
            code: wire::status::StatusCode::Error.into(),
            message: "throttled".to_owned(),
        }),
        ..span(1, 3, 2)
    };
    client.export(export(vec![child, root])).await.unwrap();
    let spans = collector.wait_for_trace([1; 16], PATIENCE, |spans| spans.len() == 2).await.unwrap();
    let [root, child] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((root.span_id, root.parent_span_id, root.kind), ([2; 8], None, SpanKind::Producer));
    assert_eq!(root.status, Status::Unset);
    assert_eq!((child.parent_span_id, child.kind), (Some([2; 8]), SpanKind::Consumer));
    assert_eq!((child.name.as_str(), child.start_unix_nanos, child.duration_nanos()), ("span 3", 3_000, 500));
    assert_eq!(child.status, Status::Error("throttled".to_owned()));
    assert_eq!(child.links, [Link { trace_id: [9; 16], span_id: [8; 8] }]);
    let attributes =
        ["messaging.system", "count", "sampled", "raw", "keys"].map(|key| child.attribute(key).unwrap());
    assert_eq!(attributes, ["aws.kinesis", "-3", "true", "0fa0", "[\"a\",1.5]"]);
    assert_eq!((&*child.service_name, &*child.scope), ("gateway", "test"));
    assert_eq!(child.resource["service.name"], "gateway");
    assert_eq!((child.trace_id_hex(), child.span_id_hex()), ("01".repeat(16), "03".repeat(8)));
    assert!(Arc::ptr_eq(&root.resource, &child.resource));
    collector.shutdown().await;
    assert_eq!(collector.spans().len(), 2, "readable after the end");
    assert!(Channel::from_shared(collector.endpoint()).unwrap().connect().await.is_err());
}

#[tokio::test]
async fn drops_the_oldest_beyond_its_bound_and_counts() {
    let collector = Collector::start(Config { max_spans: 3, ..Config::default() }).await.unwrap();
    let mut client = TraceServiceClient::new(channel(&collector).await);
    client.export(export((1..=2).map(|id| span(1, id, 0)).collect())).await.unwrap();
    let answer = client
        .export(export(vec![span(2, 3, 0), span(2, 0, 0), span(0, 4, 0), span(2, 5, 0)]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 2);
    let kept: Vec<_> = collector.spans().iter().map(|span| span.span_id[0]).collect();
    assert_eq!(kept, [2, 3, 5]);
    let counts = collector.counts();
    assert_eq!((counts.received, counts.dropped, counts.invalid), (4, 1, 2));
    assert_eq!(collector.trace([1; 16]).len(), 1);
    collector.clear();
    assert!(collector.spans().is_empty());
    collector.shutdown().await;
}

#[tokio::test]
async fn waits_for_spans_that_arrive_later_and_gives_up_in_time() {
    let collector = Collector::start(Config::default()).await.unwrap();
    let waiting = {
        let collector = collector.clone();
        tokio::spawn(async move { collector.wait_for(PATIENCE, |spans| spans.len() >= 2).await })
    };
    let channel = channel(&collector).await;
    let mut client = TraceServiceClient::new(channel.clone());
    client.export(export(vec![span(1, 1, 0)])).await.unwrap();
    client.export(export(vec![span(1, 2, 1)])).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 2);
    let error = collector.wait_for(Duration::from_millis(10), |_| false).await.unwrap_err();
    assert_eq!(error.received, 2);
    MetricsServiceClient::new(channel).export(ExportMetricsServiceRequest::default()).await.unwrap();
    assert_eq!(collector.counts().metric_exports, 1);
    collector.shutdown().await;
}

#[tokio::test]
async fn bad_configuration_and_a_taken_port_are_named() {
    let open = Config { listen: "0.0.0.0:0".parse().unwrap(), ..Config::default() };
    let error = Collector::start(open).await.unwrap_err();
    assert!(error.to_string().contains("0.0.0.0:0"), "{error}");
    let none = Config { max_spans: 0, ..Config::default() };
    assert_eq!(Collector::start(none).await.unwrap_err().code(), "otlp-config-invalid");
    let first = Collector::start(Config::default()).await.unwrap();
    let error = Collector::start(Config { listen: first.address(), ..Config::default() }).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains(&first.address().to_string()), "{error}");
    first.shutdown().await;
}
