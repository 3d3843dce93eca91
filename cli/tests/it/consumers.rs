//! Looking after an application that reads a stream of the embedded stack.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use headworks_consumer::lease::{Lease, LeaseStore, Table};
use headworks_consumer::{Batch, Builder, Checkpoint, Consumer, Handler, HandlerError, Status};
use headworks_local::Stack;
use tokio_util::sync::CancellationToken;

use crate::support::{Ran, command, finish, nobody, run};

struct Nothing;

impl Handler for Nothing {
    async fn handle(&mut self, _batch: Batch) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// An application that runs until it is stopped.
struct Running {
    task: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// Starts a worker and waits until it has read everything.
    async fn start(stack: &Stack) -> Self {
        Self::of(stack, Consumer::builder("team", "orders")).await
    }

    async fn of(stack: &Stack, builder: Builder) -> Self {
        let consumer = builder
            .kinesis(stack.kinesis())
            .dynamodb(stack.dynamodb())
            .worker_id("worker-1")
            .checkpoint_interval(Duration::from_millis(100))
            .build()
            .unwrap();
        let (handle, stop) = (consumer.handle(), CancellationToken::new());
        let run = consumer.run(|_shard| Nothing, stop.clone());
        let task = tokio::spawn(async move {
            run.await.unwrap();
        });
        handle.wait_until(Status::is_caught_up).await.unwrap();
        Self { task, stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn stack() -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("orders").shard_count(2).send().await.unwrap();
    stack
}

async fn put(stack: &Stack, count: usize) {
    for n in 0..count {
        let put = stack.kinesis().put_record().stream_name("orders").partition_key(format!("k{n}"));
        put.data(Blob::new("x")).send().await.unwrap();
    }
}

/// Waits until what is put from now on arrives at least so many milliseconds after what was put before.
pub(crate) async fn later(stack: &Stack, ms: i64) {
    let from = stack.engine().now_ms();
    let passed = async {
        while stack.engine().now_ms() < from + ms {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), passed).await.unwrap();
}

async fn consumers(stack: &Stack, arguments: &[&str]) -> Ran {
    let mut command = command(&[&["consumers"], arguments].concat());
    command.env("AWS_ENDPOINT_URL_KINESIS", stack.kinesis_endpoint());
    command.env("AWS_ENDPOINT_URL_DYNAMODB", stack.dynamodb_endpoint());
    let child = command.spawn().unwrap();
    tokio::task::spawn_blocking(move || finish(child)).await.unwrap()
}

fn waiting(ran: &Ran) -> u64 {
    ran.json().iter().map(|line| line["records"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_listed_and_its_lag_is_told_and_its_place_is_moved() {
    let stack = stack().await;
    put(&stack, 20).await;
    let running = Running::start(&stack).await;
    let listed = consumers(&stack, &["list", "--json"]).await.succeeds().json();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["application"], "team");
    assert_eq!(listed[0]["workers"][0]["worker"], "worker-1");
    assert_eq!(listed[0]["workers"][0]["leases"], 2);
    assert_eq!(listed[0]["shards"][1]["owner"], "worker-1");
    let text = consumers(&stack, &["list", "team"]).await.succeeds().stdout;
    assert!(text.contains("team: 1 workers, 2 shards\n  worker worker-1: 2 shards"), "{text}");

    // A worker that lives is not overruled.
    let refused = consumers(&stack, &["reset", "team", "orders", "--to", "trim-horizon", "--yes"]).await;
    refused.fails(1, &["worker-1", "team", "--force", "[workers-alive]"]);
    running.stop().await;

    assert_eq!(waiting(&consumers(&stack, &["lag", "team", "orders", "--json"]).await.succeeds()), 0);
    put(&stack, 7).await;
    // Both shards get some of either put.
    later(&stack, 20).await;
    put(&stack, 7).await;
    let lag =
        consumers(&stack, &["lag", "team", "orders", "--json", "--stuck-after", "1ms"]).await.succeeds();
    assert_eq!(waiting(&lag), 14);
    assert!(lag.json().iter().all(|line| line["stuck"] == true && line["behind_ms"].as_u64() >= Some(20)));
    assert!(lag.json().iter().all(|line| line["estimate"] == "exact" && line["hot"] == false));
    let text = consumers(&stack, &["lag", "team", "orders"]).await.succeeds();
    assert!(
        text.stderr.contains("2 shards") && text.stderr.contains("about 14 records wait; 0 hot, 0 stuck"),
        "{}",
        text.stderr
    );

    let unasked = consumers(&stack, &["reset", "team", "orders", "--to", "trim-horizon"]).await;
    unasked.fails(2, &["2 checkpoints of team", "--yes", "[confirmation-missing]"]);
    assert!(unasked.stderr.contains("-> TRIM_HORIZON"), "{}", unasked.stderr);
    let dry = consumers(&stack, &["reset", "team", "orders", "--to", "10m", "--dry-run", "--json"])
        .await
        .succeeds();
    assert_eq!(dry.json().len(), 2);
    assert_eq!(waiting(&consumers(&stack, &["lag", "team", "orders", "--json"]).await.succeeds()), 14);
    let one = [
        "reset",
        "team",
        "orders",
        "--to",
        "trim-horizon",
        "--yes",
        "--json",
        "--shard",
        "shardId-000000000000",
    ];
    let moved = consumers(&stack, &one).await.succeeds().json();
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0]["after"]["checkpoint"], "TRIM_HORIZON");
    consumers(&stack, &["reset", "team", "orders", "--to", "trim-horizon", "--force", "--yes"])
        .await
        .succeeds();
    assert_eq!(waiting(&consumers(&stack, &["lag", "team", "orders", "--json"]).await.succeeds()), 34);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_are_told_apart() {
    let stack = stack().await;
    stack.kinesis().create_stream().stream_name("clicks").shard_count(1).send().await.unwrap();
    put(&stack, 20).await;
    Running::of(&stack, Consumer::builder_of_streams("team", ["orders", "clicks"])).await.stop().await;
    put(&stack, 7).await;

    let listed = consumers(&stack, &["list", "team", "--json"]).await.succeeds().json();
    let shards = listed[0]["shards"].as_array().unwrap();
    let of = |stream: &str| shards.iter().filter(|shard| shard["stream"] == stream).count();
    assert_eq!((of("orders"), of("clicks"), shards.len()), (2, 1, 3));
    assert!(shards.iter().all(|shard| shard["shard"].as_str().unwrap().starts_with("shardId-")));
    let text = consumers(&stack, &["list", "team"]).await.succeeds().stdout;
    assert!(text.contains("\n  clicks/shardId-000000000000 nobody "), "{text}");

    let all = consumers(&stack, &["lag", "team", "--json"]).await.succeeds().json();
    assert_eq!(all.len(), 3);
    assert_eq!(waiting(&consumers(&stack, &["lag", "team", "orders", "--json"]).await.succeeds()), 7);
    assert_eq!(waiting(&consumers(&stack, &["lag", "team", "clicks", "--json"]).await.succeeds()), 0);
    consumers(&stack, &["lag", "team", "payments"])
        .await
        .fails(3, &["payments", "clicks, orders", "[stream-not-read]"]);

    let reset = |arguments: &[&'static str]| {
        let arguments = [&["reset", "team"], arguments, &["--yes", "--json"]].concat();
        let stack = &stack;
        async move { consumers(stack, &arguments).await }
    };
    let twice = reset(&["--to", "trim-horizon", "--shard", "shardId-000000000000"]).await;
    twice.fails(2, &["2 shards", "stream/shard", "[shard-ambiguous]"]);
    let one =
        reset(&["--to", "trim-horizon", "--shard", "orders/shardId-000000000000"]).await.succeeds().json();
    assert_eq!((one.len(), &one[0]["stream"]), (1, &"orders".into()));
    // Behind a record: of the shard's 27 in all, those that follow it.
    let first = stack.kinesis().get_shard_iterator().stream_name("orders").shard_id("shardId-000000000000");
    let first = first.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap();
    let read = stack.kinesis().get_records().set_shard_iterator(first.shard_iterator).send().await.unwrap();
    let after = format!("after:{}", read.records[1].sequence_number);
    let arguments =
        ["reset", "team", "orders", "--to", &after, "--shard", "shardId-000000000000", "--yes", "--json"];
    let moved = consumers(&stack, &arguments).await.succeeds().json();
    assert_eq!(moved[0]["after"]["checkpoint"], read.records[1].sequence_number);
    let lag = consumers(&stack, &["lag", "team", "orders", "--json"]).await.succeeds().json();
    let of_it = lag.iter().find(|line| line["shard"] == "shardId-000000000000").unwrap();
    assert_eq!(of_it["records"].as_u64(), Some(read.records.len() as u64 - 2));
    let all = reset(&["--to", "trim-horizon"]).await.succeeds().json();
    assert!(all.iter().all(|line| line["stream"].is_string()), "{all:?}");
    assert_eq!(waiting(&consumers(&stack, &["lag", "team", "--json"]).await.succeeds()), 27);
    stack.shutdown().await.unwrap();
}

/// An application of the KCL's: leases, and no table of heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn a_kcl_application_is_moved_unless_its_leases_are_renewed() {
    let stack = stack().await;
    put(&stack, 10).await;
    let table = Table::new(stack.dynamodb(), "kcl", "kcl-made-for-the-test");
    table.prepare().await.unwrap();
    for shard in ["shardId-000000000000", "shardId-000000000001"] {
        let mut lease = Lease::new(shard.into(), Checkpoint::Latest);
        lease.owner = Some("kcl-worker".to_owned());
        assert!(table.create(&lease).await.unwrap());
    }
    // It renews: the counters move.
    let renewing = tokio::spawn({
        let table = table.clone();
        async move {
            loop {
                for lease in table.leases().await.unwrap() {
                    table.renew(&lease.holding().unwrap()).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    });
    let arguments = ["reset", "kcl", "orders", "--to", "trim-horizon", "--yes"];
    let refused = consumers(&stack, &arguments).await;
    refused.fails(1, &["kcl-worker", "--force", "[workers-alive]"]);
    renewing.abort();
    assert!(renewing.await.unwrap_err().is_cancelled());
    let moved = consumers(&stack, &arguments).await.succeeds();
    assert!(moved.stderr.contains("warning: kcl-worker own leases"), "{}", moved.stderr);
    assert_eq!(waiting(&consumers(&stack, &["lag", "kcl", "orders", "--json"]).await.succeeds()), 10);
    let again = consumers(&stack, &["reset", "kcl", "--to", "latest", "--yes"]).await;
    again.fails(2, &["which stream", "[stream-missing]"]);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let stack = stack().await;
    let texts = ["\"nobody\"", "headworks consumers list", "[application-not-found]"];
    consumers(&stack, &["lag", "nobody", "orders"]).await.fails(3, &texts);
    consumers(&stack, &["reset", "nobody", "orders", "--to", "latest"]).await.fails(3, &texts);
    Running::start(&stack).await.stop().await;
    let other = consumers(&stack, &["reset", "team", "orders", "--to", "latest", "--shard", "s"]).await;
    other.fails(3, &["shard s", "[lease-not-found]"]);
    assert_eq!(
        consumers(&stack, &["list", "team", "--json"]).await.succeeds().json()[0]["workers"][0],
        serde_json::Value::Null
    );
    stack.shutdown().await.unwrap();
}

#[test]
fn places_and_addresses_are_checked() {
    let reset = |to| run(&["consumers", "reset", "a", "s", "--to", to]);
    reset("here").fails(2, &["here", "trim-horizon", "[place-invalid]"]);
    reset("4711").fails(2, &["one shard", "--shard", "[shard-missing]"]);
    let mut lag = command(&["consumers", "lag", "a", "s"]);
    lag.env("AWS_ENDPOINT_URL_DYNAMODB", nobody()).env("AWS_ENDPOINT_URL_KINESIS", nobody());
    finish(lag.spawn().unwrap()).fails(3, &["AWS_ENDPOINT_URL_DYNAMODB", "[lease-table-unavailable]"]);
}
