//! Trouble that passes: whatever the service says of credentials, keys or capacity, through the real client the shard
//! waits, and nothing becomes a dead letter. `spill-after` changes that for capacity and outages alone.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Region};
use headworks_local::Stack;
use headworks_local::faults::{Action, Fault};
use headworks_router::{Bucket, Invocation, RouteTable, Router, Writers, writer_config};
use headworks_telemetry::RecordTracer;
use tokio::time::Instant;

use crate::bootstrap::{create_with, read};
use crate::common::{Shards, aggregate, event, invocation, record};
use crate::pressure::later;

const WAITS: &str = "[default]\nto = \"orders\"\n";
/// By [`later`] the time of every record is over.
const SPILLS: &str = "[default]\nto = \"orders\"\nspill-after = \"1s\"\n";

/// Of credentials, permissions and keys, and one that nobody knows: it may be of those.
const ACCESS: [&str; 8] = [
    "ExpiredTokenException",
    "UnrecognizedClientException",
    "AccessDeniedException",
    "KMSAccessDeniedException",
    "KMSDisabledException",
    "KMSInvalidStateException",
    "KMSThrottlingException",
    "SomethingNewException",
];

/// Of the stream.
const PRESSURE: [&str; 5] = [
    "ThrottlingException",
    "LimitExceededException",
    "ServiceUnavailable",
    "InternalFailure",
    "ProvisionedThroughputExceededException",
];

fn error(code: &str) -> Action {
    Action::Error { code: code.to_owned(), status: None }
}

fn router(stack: &Stack, client: Client, table: &str) -> Router {
    let table = Arc::new(RouteTable::from_toml(table).unwrap());
    let writers = Writers::new(client, writer_config(), RecordTracer::disabled()).unwrap();
    let bucket = Arc::new(Bucket::new(stack.s3(), "letters"));
    Router::new(table, Arc::new(writers), bucket, Arc::new(Shards::default())).with_clock(Arc::new(later))
}

async fn stack() -> Stack {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["orders"], 1).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    stack
}

async fn letters(stack: &Stack) -> usize {
    stack.s3().list_objects_v2().bucket("letters").send().await.unwrap().contents().len()
}

fn soon(millis: u64) -> Invocation {
    Invocation { deadline: Instant::now() + Duration::from_millis(millis), request_id: None }
}

fn no_credentials(stack: &Stack) -> Client {
    let config =
        Config::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1"));
    Client::from_conf(config.endpoint_url(stack.kinesis_endpoint()).build())
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_passes_is_never_a_dead_letter() {
    let stack = stack().await;
    let waiting = router(&stack, stack.kinesis(), WAITS);
    let spilling = router(&stack, stack.kinesis(), SPILLS);
    let access = ACCESS.map(|code| (code, error(code), &spilling));
    let pressure = PRESSURE.map(|code| (code, error(code), &waiting));
    let throttles =
        [("throttled", Action::Throttle, &waiting), ("refused as a whole", Action::ThrottleCall, &waiting)];
    let mut expected = Vec::new();
    for (what, action, router) in access.into_iter().chain(pressure).chain(throttles) {
        let batch = event(vec![aggregate(&[record("k", "order", what), record("l", "order", what)])]);
        let fault = stack.faults().add(Fault::on("PutRecords", action)).unwrap();
        let report = router.handle(&batch, &soon(1000)).await.unwrap();
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
    assert_eq!(letters(&stack).await, 0);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pressure_and_outages_spill_where_a_rule_says_so() {
    let stack = stack().await;
    let router = router(&stack, stack.kinesis(), SPILLS);
    let each = PRESSURE.map(|code| (code, error(code)));
    let hangs = ("no answer", Action::Delay(Duration::from_secs(3600)));
    for (what, action) in each.into_iter().chain([("throttled", Action::Throttle), hangs]) {
        let batch = event(vec![aggregate(&[record("k", "order", what)])]);
        // What came before says nothing of what comes now.
        let before = stack.faults().add(Fault::on("PutRecords", error("AccessDeniedException"))).unwrap();
        let report = router.handle(&batch, &soon(600)).await.unwrap();
        assert_eq!((report.failed.is_some(), report.counts.spilled), (true, 0), "{what}");
        stack.faults().remove(before).unwrap();
        router.handle(&event(vec![aggregate(&[record("k", "order", "well")])]), &invocation()).await.unwrap();

        let fault = stack.faults().add(Fault::on("PutRecords", action)).unwrap();
        let report = router.handle(&batch, &soon(600)).await.unwrap();
        assert_eq!((report.failed, report.counts.spilled), (None, 1), "{what}");
        assert_eq!(report.pressure["orders"].spilled, 1, "{what}");
        stack.faults().remove(fault).unwrap();
    }
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_cut_off_does_not_hide_a_refused_access() {
    let stack = stack().await;
    let router = router(&stack, stack.kinesis(), SPILLS);
    let batch = event(vec![aggregate(&[record("k", "order", "a")])]);
    let denied = stack.faults().add(Fault::on("PutRecords", error("ExpiredTokenException")).nth(1)).unwrap();
    let hangs = Fault::on("PutRecords", Action::Delay(Duration::from_secs(3600))).nth(2);
    let hangs = stack.faults().add(hangs).unwrap();
    let report = router.handle(&batch, &soon(2000)).await.unwrap();
    assert_eq!([denied, hangs].map(|fault| stack.faults().fired(fault)), [1, 1]);
    assert_eq!(&*report.failed.unwrap().sequence_number, "100");
    assert_eq!((report.counts.spilled, letters(&stack).await), (0, 0));
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_trouble_when_a_destination_is_opened() {
    let stack = stack().await;
    let batch = event(vec![aggregate(&[record("k", "order", "a")])]);
    let refused = async |router: &Router, what: &str| {
        let report = router.handle(&batch, &soon(500)).await.unwrap();
        let failed = report.failed.unwrap_or_else(|| panic!("{what}: it cannot have been stored"));
        assert!(failed.trouble.is_retryable(), "{what}: {:?}", failed.trouble);
        assert_eq!((report.pressure["orders"].failed, letters(&stack).await), (1, 0), "{what}");
    };
    for operation in ["ListShards", "ListTagsForStream", "DescribeStreamSummary"] {
        for code in ["ExpiredTokenException", "AccessDeniedException", "LimitExceededException"] {
            // Who may not ask how large records may be takes the least that every stream takes.
            if (operation, code) == ("DescribeStreamSummary", "AccessDeniedException") {
                continue;
            }
            let table = if code == "LimitExceededException" { WAITS } else { SPILLS };
            let router = router(&stack, stack.kinesis(), table);
            let fault = stack.faults().add(Fault::on(operation, error(code))).unwrap();
            refused(&router, &format!("{operation}: {code}")).await;
            assert!(stack.faults().remove(fault).unwrap().fired > 0);
            let report = router.handle(&batch, &invocation()).await.unwrap();
            assert_eq!((report.failed, report.counts.stored), (None, 1), "{operation}: {code}");
        }
    }
    // There are no credentials at all: nothing can be signed.
    refused(&router(&stack, no_credentials(&stack), SPILLS), "no credentials").await;
    assert_eq!(read(&stack, "orders").await.len(), 8);

    let may_not =
        stack.faults().add(Fault::on("DescribeStreamSummary", error("AccessDeniedException"))).unwrap();
    let report = router(&stack, stack.kinesis(), WAITS).handle(&batch, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.stored), (None, 1));
    stack.faults().remove(may_not).unwrap();

    // A control plane that has no room is of the stream again.
    stack.faults().add(Fault::on("ListShards", error("LimitExceededException"))).unwrap();
    let report = router(&stack, stack.kinesis(), SPILLS).handle(&batch, &soon(500)).await.unwrap();
    assert_eq!((report.failed, report.counts.spilled, letters(&stack).await), (None, 1, 1));
    stack.shutdown().await.unwrap();
}
