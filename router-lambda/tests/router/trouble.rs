//! Trouble that passes: whatever the service says of credentials, keys or capacity, through the real client the shard
//! waits, and nothing becomes a dead letter.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Region};
use headworks_local::faults::{Action, Fault};
use headworks_router::{Bucket, Invocation, RouteTable, Router, Writers, writer_config};
use headworks_telemetry::RecordTracer;
use tokio::time::Instant;

use crate::bootstrap::{create_with, read};
use crate::common::{Shards, aggregate, event, invocation, record};

const PASSES: [&str; 10] = [
    "ExpiredTokenException",
    "UnrecognizedClientException",
    "AccessDeniedException",
    "KMSAccessDeniedException",
    "KMSDisabledException",
    "KMSInvalidStateException",
    "KMSThrottlingException",
    "ThrottlingException",
    "LimitExceededException",
    "InternalFailure",
];

#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_passes_is_never_a_dead_letter() {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["orders"], 1).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let table = Arc::new(RouteTable::from_toml("[default]\nto = \"orders\"\n").unwrap());
    let writers = Writers::new(stack.kinesis(), writer_config(), RecordTracer::disabled()).unwrap();
    let bucket = Arc::new(Bucket::new(stack.s3(), "letters"));
    let router = Router::new(table, Arc::new(writers), bucket, Arc::new(Shards::default()));

    let error = |code: &str| Action::Error { code: code.to_owned(), status: None };
    let each = PASSES.map(|code| (code, error(code)));
    let throttles = [("throttled", Action::Throttle), ("refused as a whole", Action::ThrottleCall)];
    let mut expected = Vec::new();
    for (what, action) in each.into_iter().chain(throttles) {
        let batch = event(vec![aggregate(&[record("k", "order", what), record("l", "order", what)])]);
        let fault = stack.faults().add(Fault::on("PutRecords", action)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        let report = router.handle(&batch, &Invocation { deadline, request_id: None }).await.unwrap();
        let failed = report.failed.unwrap_or_else(|| panic!("{what}: it cannot have been stored"));
        assert!(failed.trouble.is_retryable(), "{what}: {:?}", failed.trouble);
        assert_eq!((&*failed.sequence_number, report.counts.dead_letters), ("100", 0), "{what}");
        assert_eq!(report.pressure["orders"].failed, 2, "{what}: it is visible");

        stack.faults().remove(fault).unwrap();
        let report = router.handle(&batch, &invocation()).await.unwrap();
        assert_eq!((report.failed, report.counts.stored), (None, 2), "{what}");
        expected.extend([what, what]);
    }
    let stored: Vec<_> = read(&stack, "orders").await.into_iter().map(|record| record.data).collect();
    assert_eq!(stored, expected, "in order, each once");
    let letters = stack.s3().list_objects_v2().bucket("letters").send().await.unwrap();
    assert_eq!(letters.contents().len(), 0);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_trouble_when_a_destination_is_opened() {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["orders"], 1).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let letters =
        async || stack.s3().list_objects_v2().bucket("letters").send().await.unwrap().contents().len();
    let router = |client: Client| {
        let table = Arc::new(RouteTable::from_toml("[default]\nto = \"orders\"\n").unwrap());
        let writers = Writers::new(client, writer_config(), RecordTracer::disabled()).unwrap();
        let bucket = Arc::new(Bucket::new(stack.s3(), "letters"));
        Router::new(table, Arc::new(writers), bucket, Arc::new(Shards::default()))
    };
    let soon = || Invocation { deadline: Instant::now() + Duration::from_millis(500), request_id: None };
    let batch = event(vec![aggregate(&[record("k", "order", "a")])]);
    let refused = async |router: &Router, what: &str| {
        let report = router.handle(&batch, &soon()).await.unwrap();
        let failed = report.failed.unwrap_or_else(|| panic!("{what}: it cannot have been stored"));
        assert!(failed.trouble.is_retryable(), "{what}: {:?}", failed.trouble);
        assert_eq!((report.pressure["orders"].failed, letters().await), (1, 0), "{what}");
    };
    for operation in ["ListShards", "ListTagsForStream", "DescribeStreamSummary"] {
        for code in ["ExpiredTokenException", "AccessDeniedException", "LimitExceededException"] {
            // Who may not ask how large records may be takes the least that every stream takes.
            if (operation, code) == ("DescribeStreamSummary", "AccessDeniedException") {
                continue;
            }
            let router = router(stack.kinesis());
            let action = Action::Error { code: code.to_owned(), status: None };
            let fault = stack.faults().add(Fault::on(operation, action)).unwrap();
            refused(&router, &format!("{operation}: {code}")).await;
            assert!(stack.faults().remove(fault).unwrap().fired > 0);
            let report = router.handle(&batch, &invocation()).await.unwrap();
            assert_eq!((report.failed, report.counts.stored), (None, 1), "{operation}: {code}");
        }
    }
    // There are no credentials at all: nothing can be signed.
    let config =
        Config::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1"));
    let client = Client::from_conf(config.endpoint_url(stack.kinesis_endpoint()).build());
    refused(&router(client), "no credentials").await;
    assert_eq!(read(&stack, "orders").await.len(), 8);

    let action = Action::Error { code: "AccessDeniedException".to_owned(), status: None };
    stack.faults().add(Fault::on("DescribeStreamSummary", action)).unwrap();
    let report = router(stack.kinesis()).handle(&batch, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.stored), (None, 1));
    stack.shutdown().await.unwrap();
}
