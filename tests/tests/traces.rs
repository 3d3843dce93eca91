//! One trace per record, from the producer's call to the consumer's handler, at a real OTLP receiver.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use headworks_cli::pipeline::{Config, telemetry};
use headworks_consumer::{Batch, Consumer, Handler, HandlerError};
use headworks_local::otlp::{Span, SpanKind};
use headworks_producer::Producer;
use headworks_record::{Creation, Record};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

struct Forward(mpsc::Sender<Creation>);

impl Handler for Forward {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        for delivered in &batch {
            self.0.send(*delivered.record.headers.creation().unwrap()).await.unwrap();
        }
        Ok(())
    }
}

fn named<'a>(spans: &'a [Arc<Span>], name: &str, service: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name && &*span.service_name == service);
    found.unwrap_or_else(|| panic!("no span {name:?} of {service} among {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hop_is_a_child_of_the_creation_and_every_batch_links_to_it() {
    let pipeline = headworks_tests::pipeline(Config { trace_ratio: 1.0, ..Config::default() }).await.unwrap();
    let website = telemetry("website", &pipeline.otlp_endpoint(), 1.0).unwrap();
    let team = telemetry("team-orders", &pipeline.otlp_endpoint(), 1.0).unwrap();

    let (seen, mut delivered) = mpsc::channel(16);
    let consumer = Consumer::builder("traces", "orders")
        .kinesis(pipeline.stack().kinesis())
        .dynamodb(pipeline.stack().dynamodb())
        .tracer(team.tracer())
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let consuming = tokio::spawn(consumer.run(move |_shard| Forward(seen.clone()), stop.clone()));

    // The caller's own span is the record's parent.
    let subscriber = tracing_subscriber::registry().with(website.subscriber_layer());
    let _default = tracing::subscriber::set_default(subscriber);
    let producer = Producer::builder()
        .endpoint(pipeline.gateway_endpoint())
        .stream(pipeline.inbound())
        .minter(website.minter())
        .tracer(website.tracer())
        .connect()
        .await
        .unwrap();
    let record =
        Record::builder("session-1").unwrap().header("type", "order.placed").unwrap().data("{}").build();
    async { producer.put(record).await.unwrap() }.instrument(tracing::info_span!("checkout")).await;

    let received = tokio::time::timeout(Duration::from_secs(60), delivered.recv()).await;
    let creation = received.unwrap().unwrap();
    stop.cancel();
    consuming.await.unwrap().unwrap();
    website.shutdown().await;
    team.shutdown().await;
    pipeline.flush_telemetry().await.unwrap();

    let names = ["checkout", "create inbound", "route inbound", "process orders"];
    let trace = pipeline
        .collector()
        .wait_for_trace(creation.trace_id.0, Duration::from_secs(30), |spans| {
            names.iter().all(|name| spans.iter().any(|span| span.name == *name))
        })
        .await
        .unwrap();
    let checkout = named(&trace, "checkout", "website");
    let create = named(&trace, "create inbound", "website");
    assert_eq!(checkout.parent_span_id, None);
    assert_eq!(create.parent_span_id, Some(checkout.span_id));
    assert_eq!(create.span_id, creation.span_id.0);
    assert_eq!(create.kind, SpanKind::Producer);
    for (name, service) in [("route inbound", "headworks-router"), ("process orders", "team-orders")] {
        let span = named(&trace, name, service);
        assert_eq!(span.parent_span_id, Some(creation.span_id.0), "{name}");
        assert_eq!(span.kind, SpanKind::Consumer, "{name}");
        assert_eq!(span.attribute("messaging.system"), Some("aws.kinesis"), "{name}");
        assert!(span.start_unix_nanos >= create.start_unix_nanos, "{name}");
    }

    // Batches: traces of their own, linked to the record.
    let linked = |span: &Span| {
        span.links.iter().any(|l| l.trace_id == creation.trace_id.0 && l.span_id == creation.span_id.0)
    };
    let batches = [
        ("send inbound", "headworks-gateway"),
        ("invoke inbound", "headworks-router"),
        ("send orders", "headworks-router"),
        ("receive orders", "team-orders"),
    ];
    let spans = pipeline
        .collector()
        .wait_for(Duration::from_secs(30), |spans| {
            batches.iter().all(|(name, _)| spans.iter().any(|span| span.name == *name && linked(span)))
        })
        .await
        .unwrap();
    let spans: Vec<Arc<Span>> = spans.into_iter().filter(|span| linked(span)).collect();
    for (name, service) in batches {
        let span = named(&spans, name, service);
        assert_ne!(span.trace_id, creation.trace_id.0, "{name}");
        assert_eq!(span.attribute("messaging.batch.message_count"), Some("1"), "{name}");
    }
    producer.close(Duration::from_secs(5)).await;
    pipeline.shutdown().await.unwrap();
}
