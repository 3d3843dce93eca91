//! The capacity mode as the service tells it, through the AWS SDK.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use aws_sdk_kinesis::types::{StreamMode, StreamModeDetails};
use headworks_local::faults::{Action, Fault};
use headworks_local::{Config as StackConfig, Stack};
use headworks_record::Record;
use headworks_writer::{Capacity, Config, Fault as Kind, Handle, KinesisStream, Put, Stream, Writer};

async fn stack(mode: Option<StreamMode>) -> Stack {
    let stack = Stack::start(StackConfig::default()).await.unwrap();
    let create = stack.kinesis().create_stream().stream_name("inbound");
    let create = match mode {
        Some(mode) => {
            create.stream_mode_details(StreamModeDetails::builder().stream_mode(mode).build().unwrap())
        }
        None => create.shard_count(1),
    };
    create.send().await.unwrap();
    stack
}

async fn writer(stack: &Stack, config: Config) -> Handle {
    let stream = KinesisStream::new(stack.kinesis(), "inbound");
    let (service, writer) = Writer::start(config, stream, Default::default()).await.unwrap();
    tokio::spawn(service.run(Default::default()));
    writer
}

#[tokio::test]
async fn the_service_tells_its_mode() {
    for (mode, expected) in [(None, Capacity::Provisioned), (Some(StreamMode::OnDemand), Capacity::OnDemand)]
    {
        let stack = stack(mode).await;
        let stream = KinesisStream::new(stack.kinesis(), "inbound");
        assert_eq!(stream.capacity().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn who_may_not_ask_writes_all_the_same() {
    let stack = stack(Some(StreamMode::OnDemand)).await;
    let denied = Action::Error { code: "AccessDeniedException".to_owned(), status: None };
    let denied = stack.faults().add(Fault::on("DescribeStreamSummary", denied)).unwrap();
    let error = KinesisStream::new(stack.kinesis(), "inbound").capacity().await.unwrap_err();
    assert_eq!((error.fault, &*error.code), (Kind::Access, "AccessDeniedException"));

    let writer = writer(&stack, Config::default()).await;
    assert_eq!(stack.faults().fired(denied), 2, "asked once by the test, once by the writer");
    let put = Put::new(Record::builder("k").unwrap().data("x").build());
    writer.put(vec![put]).await.unwrap().await.remove(0).unwrap();
}

#[tokio::test]
async fn who_is_told_does_not_ask() {
    let stack = stack(None).await;
    let denied = Action::Error { code: "AccessDeniedException".to_owned(), status: None };
    let denied = stack.faults().add(Fault::on("DescribeStreamSummary", denied)).unwrap();
    let config = Config { capacity: Some(Capacity::OnDemand), ..Config::default() };
    let writer = writer(&stack, config).await;
    let put = Put::new(Record::builder("k").unwrap().data("x").build());
    writer.put(vec![put]).await.unwrap().await.remove(0).unwrap();
    assert_eq!(stack.faults().fired(denied), 0);
}
