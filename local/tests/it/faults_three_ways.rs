//! Each fault of each kind, said in Rust, as text and over the control port: the three are the same fault. What each
//! does is tested in [`crate::faults`].

use std::time::Duration;

use headworks_local::faults::{Action, Fault, Service, When};
use headworks_local::{Config, Stack};

use crate::faults::control;
use crate::support::FIRST;

fn error(code: &str, status: Option<u16>) -> Action {
    Action::Error { code: code.to_owned(), status }
}

fn kinds() -> Vec<(Fault, &'static str)> {
    let seconds = Duration::from_secs(2);
    let late = Action::ErrorAfterCommit { code: "InternalFailure".to_owned(), status: None };
    let update = |action| Fault::of(Service::DynamoDb, action).operations(["UpdateItem"]).resource("leases");
    let every = |mut fault: Fault| {
        fault.when = When::Every(10);
        fault
    };
    vec![
        (
            Fault::on("PutRecords", Action::Throttle).probability(0.05, 7),
            "put-records throttle p=0.05 seed=7",
        ),
        (Fault::on("PutRecords", Action::ThrottleCall).nth(3), "put-records throttle-call n=3"),
        (
            Fault::on("PutRecord", error("KMSThrottlingException", Some(400))).key("user").times(2),
            "put-record error=KMSThrottlingException status=400 key=user times=2",
        ),
        (Fault::on("PutRecords", late), "put-records error=InternalFailure after=commit"),
        (Fault::on("GetRecords", Action::Delay(seconds)), "get-records delay=2s"),
        (
            Fault::on("PutRecords", Action::DelayAfterCommit(seconds)).resource("s"),
            "put-records delay=2s after=commit stream=s",
        ),
        (Fault::on("PutRecords", Action::Lost).nth(1), "put-records lost n=1"),
        (Fault::on("PutRecords", Action::Duplicate), "put-records duplicate"),
        (Fault::on("SubscribeToShard", Action::Reset).nth(2), "subscribe-to-shard reset n=2"),
        (
            Fault::on("SubscribeToShard", Action::Stall).shard(FIRST),
            "subscribe-to-shard stall shard=shardId-000000000000",
        ),
        (Fault::on("GetRecords", Action::ExpireIterator), "get-records expire-iterator"),
        (Fault::outage("s", FIRST), "any outage stream=s shard=shardId-000000000000"),
        (every(update(Action::Delay(seconds))), "dynamodb:update-item delay=2s table=leases every=10"),
        (
            update(Action::DelayAfterCommit(seconds)),
            "dynamodb:update-item delay=2s after=commit table=leases",
        ),
        (update(Action::Throttle), "dynamodb:update-item throttle table=leases"),
        (
            update(error("InternalServerError", None)),
            "dynamodb:update-item error=InternalServerError table=leases",
        ),
        (
            Fault::of(Service::S3, error("AccessDenied", None))
                .operations(["PutObject"])
                .resource("b")
                .times(3),
            "s3:put-object error=AccessDenied bucket=b times=3",
        ),
    ]
}

#[tokio::test]
async fn every_fault_is_the_same_in_rust_as_text_and_over_the_port() {
    let stack = Stack::start(Config { faults_port: Some(0), ..Config::default() }).await.unwrap();
    let endpoint = stack.faults_endpoint().unwrap();
    for (fault, text) in kinds() {
        assert_eq!(Fault::parse(text).unwrap(), fault, "{text}");
        let (status, answer) = control(&endpoint, "POST", "/faults", text).await;
        assert_eq!(status, 201, "{text}: {answer}");
        let in_force = stack.faults().list();
        assert_eq!(in_force.last().unwrap().fault, fault, "{text}");
        let (_, listed) = control(&endpoint, "GET", "/faults", "").await;
        assert_eq!(listed[0]["fault"], fault.to_string(), "{text}");
        assert_eq!(control(&endpoint, "DELETE", "/faults", "").await.0, 200);
        let by_hand = stack.faults().add(fault.clone()).unwrap();
        assert_eq!(stack.faults().remove(by_hand).unwrap().fault, fault);
    }
}

#[tokio::test]
async fn a_fault_of_the_port_happens_to_clients() {
    let stack = Stack::start(Config { faults_port: Some(0), ..Config::default() }).await.unwrap();
    let endpoint = stack.faults_endpoint().unwrap();
    let kinesis = stack.kinesis();
    kinesis.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    let retry = aws_sdk_kinesis::config::retry::RetryConfig::disabled();
    let once = aws_sdk_kinesis::Client::from_conf(kinesis.config().to_builder().retry_config(retry).build());
    let put = || once.put_record().stream_name("s").partition_key("k").data(b"x".to_vec().into()).send();
    for text in [
        "put-record throttle times=1",
        "put-record error=InternalFailure times=1",
        "put-record error=InternalFailure after=commit times=1",
        "put-record lost times=1",
        "put-record reset times=1",
        "any outage stream=s shard=shardId-000000000000 times=1",
    ] {
        control(&endpoint, "POST", "/faults", text).await;
        assert!(put().await.is_err(), "{text}");
        put().await.unwrap();
        let (_, removed) = control(&endpoint, "DELETE", "/faults", "").await;
        assert_eq!(removed[0]["fired"], 1, "{text}");
    }
}
