//! Starting, health, reflection, and the command.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use headworks_gateway::{BindError, Gateway};
use headworks_telemetry::{Minter, RecordTracer, Sampler};
use headworks_writer::KinesisStream;
use support::{FakeStream, Mode, Running, config, factory, soon};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_is_told_by_stream_and_ends_with_the_drain() {
    let (a, b) = (FakeStream::new("a"), FakeStream::new("b"));
    let running = Running::start(&[&a, &b]).await;
    let mut health = HealthClient::new(running.channel().await);
    for service in ["", "headworks.v1.Gateway", "a", "b"] {
        let status = health.check(asking(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(health.check(asking("c")).await.unwrap_err().code(), tonic::Code::NotFound);

    let mut watch = health.watch(asking("b")).await.unwrap().into_inner();
    let first = soon("a status", watch.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    running.shutdown.cancel();
    let second = soon("a status", watch.message()).await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    // A watch does not hold the gateway up.
    assert_eq!(running.stop().await.unanswered, 0);
    assert!(soon("the watch's end", watch.message()).await.is_ok_and(|status| status.is_none()));
}

#[tokio::test]
async fn reflection_tells_the_contract() {
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let mut client = ServerReflectionClient::new(running.channel().await);
    let asks = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("headworks.v1.Gateway".into()),
    ]
    .map(|ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
    let mut answers = client.server_reflection_info(tokio_stream::iter(asks)).await.unwrap().into_inner();
    let mut next =
        async || soon("an answer", answers.message()).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = next().await else { panic!() };
    let names: Vec<&str> = services.service.iter().map(|service| &service.name[..]).collect();
    assert!(names.contains(&"headworks.v1.Gateway") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!() };
    assert!(!files.file_descriptor_proto.is_empty());
}

async fn refused(config: headworks_gateway::Config, streams: &[&FakeStream]) -> BindError {
    let minter = Minter::new(Sampler::never());
    Gateway::bind(config, factory(streams), minter, RecordTracer::disabled()).await.unwrap_err()
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_named() {
    let stream = FakeStream::new("inbound");
    let running = Running::start(&[&stream]).await;
    let mut taken = config(&[&stream]);
    taken.listen = running.handle.local_addr();
    let error = refused(taken, &[&stream]).await;
    assert_eq!(error.code(), "address-in-use");
    let text = error.to_string();
    assert!(
        text.contains(&running.handle.local_addr().to_string()) && text.contains("HEADWORKS_GATEWAY_LISTEN")
    );

    let mut elsewhere = config(&[&stream]);
    elsewhere.listen = "192.0.2.1:4400".parse().unwrap();
    assert_eq!(refused(elsewhere.clone(), &[&stream]).await.code(), "listen-exposed");
    elsewhere.allow_beyond_loopback = true;
    let error = refused(elsewhere, &[&stream]).await;
    assert_eq!(error.code(), "listen-failed");
    assert!(error.to_string().contains("192.0.2.1:4400"), "{error}");

    let missing = FakeStream::new("missing");
    missing.set(Mode::Missing);
    let error = refused(config(&[&stream, &missing]), &[&stream, &missing]).await;
    assert_eq!(error.code(), "stream-unreadable");
    let text = error.to_string();
    assert!(text.contains("\"missing\"") && text.contains("ResourceNotFoundException"), "{text}");
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_named() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut settings = config(&[&FakeStream::new("inbound")]);
    settings.kinesis_endpoint = Some(endpoint.clone());
    let sdk = aws_sdk_kinesis::Config::builder()
        .behavior_version(aws_sdk_kinesis::config::BehaviorVersion::latest())
        .region(aws_sdk_kinesis::config::Region::new("local"))
        .credentials_provider(aws_sdk_kinesis::config::Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(&endpoint)
        .build();
    let client = aws_sdk_kinesis::Client::from_conf(sdk);
    let streams =
        |name: &str| Arc::new(KinesisStream::new(client.clone(), name)) as Arc<dyn headworks_writer::Stream>;
    let minter = Minter::new(Sampler::never());
    let bound = Gateway::bind(settings, streams, minter, RecordTracer::disabled()).await;
    let error = bound.unwrap_err();
    assert_eq!(error.code(), "stream-unreadable");
    assert!(error.is_retryable());
    assert!(error.to_string().contains(&endpoint), "{error}");
}
