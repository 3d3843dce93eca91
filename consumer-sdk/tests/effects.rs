//! Exactly-once effects against the embedded Kinesis and DynamoDB: repeats, lost answers, crashes in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TransactWriteItem, Update,
};
use aws_sdk_kinesis::primitives::Blob;
use headworks_consumer::dead_letter::{self, DeadLetter, DeadLetters};
use headworks_consumer::effects::{Effects, Identities};
use headworks_consumer::{Consumer, Delivered, Handle, HandlerError, OnFailure};
use headworks_local::Stack;
use headworks_local::faults::{Action, Fault, Service};
use headworks_record::aggregate::Builder;
use headworks_record::{Creation, Record};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(120);

/// Adds one to the counter of each key; a record whose data is `many` touches as many items as it says.
struct Count;

impl Effects for Count {
    async fn effects(&mut self, delivered: &Delivered) -> Result<Vec<TransactWriteItem>, HandlerError> {
        let text = std::str::from_utf8(&delivered.record.data)?;
        let items: usize = text.strip_prefix("many:").map_or(Ok(1), str::parse)?;
        let add = |i: usize| {
            let key = delivered.record.key.as_str();
            let id = if i == 0 { key.to_owned() } else { format!("{key}/{i}") };
            let mut update = Update::builder()
                .table_name("counts")
                .key("id", AttributeValue::S(id))
                .update_expression("ADD n :one")
                .expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
            if text == "impossible" {
                update = update.condition_expression("attribute_exists(no_such_attribute)");
            }
            Ok(TransactWriteItem::builder().update(update.build()?).build())
        };
        (0..items).map(add).collect()
    }
}

#[derive(Debug, Default)]
struct Letters(std::sync::Mutex<Vec<DeadLetter>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn write(&self, letter: &DeadLetter) -> Result<(), dead_letter::Error> {
        self.0.lock().unwrap().push(letter.clone());
        Ok(())
    }
}

async fn stack(shards: i32) -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("orders").shard_count(shards).send().await.unwrap();
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let create =
        stack.dynamodb().create_table().table_name("counts").billing_mode(BillingMode::PayPerRequest);
    let create = create.attribute_definitions(id.build().unwrap()).key_schema(key.build().unwrap());
    create.send().await.unwrap();
    stack
}

struct Running {
    handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<Result<headworks_consumer::Summary, headworks_consumer::Error>>,
}

impl Running {
    fn start(
        stack: &Stack,
        worker: &str,
        change: impl FnOnce(headworks_consumer::Builder) -> headworks_consumer::Builder,
    ) -> Self {
        let built = Consumer::builder("app", "orders")
            .kinesis(stack.kinesis().clone())
            .dynamodb(stack.dynamodb().clone())
            .worker_id(worker)
            .take_over_after(Duration::from_millis(1500))
            // The identity items alone have to catch what comes again.
            .dedup_window(Duration::ZERO)
            .checkpoint_interval(Duration::from_millis(100));
        let consumer = change(built).build().unwrap();
        let (handle, shutdown) = (consumer.handle(), CancellationToken::new());
        let run = consumer.run_exactly_once(|_| Count, Identities::new("app-identities"), shutdown.clone());
        Self { handle, shutdown, task: tokio::spawn(run) }
    }

    async fn stop(self) -> headworks_consumer::Summary {
        self.shutdown.cancel();
        within("the consumer's end", self.task).await.unwrap().unwrap()
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

fn record(i: u8) -> Record {
    let creation = Creation::mint(1, [i + 1; 18]);
    Record::builder(format!("key-{}", i % 10)).unwrap().creation(creation).data(i.to_string()).build()
}

async fn put(stack: &Stack, records: &[Record]) {
    let mut builder = Builder::new();
    records.iter().for_each(|record| builder.push(record));
    let request = stack.kinesis().put_record().stream_name("orders").partition_key("p");
    request.data(Blob::new(builder.finish().to_vec())).send().await.unwrap();
}

async fn counts(stack: &Stack) -> BTreeMap<String, u32> {
    let items = stack.dynamodb().scan().table_name("counts").consistent_read(true).send().await.unwrap();
    let read = |item: &std::collections::HashMap<String, AttributeValue>| {
        (item["id"].as_s().unwrap().clone(), item["n"].as_n().unwrap().parse().unwrap())
    };
    items.items().iter().map(read).collect()
}

async fn total(stack: &Stack, wanted: u32) {
    within("every effect", async {
        while counts(stack).await.values().sum::<u32>() < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Ten records for each key; each key was counted ten times.
async fn each_once(stack: &Stack) {
    let expected: BTreeMap<String, u32> = (0..10).map(|i| (format!("key-{i}"), 10)).collect();
    assert_eq!(counts(stack).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_and_redeliveries_have_no_effect() {
    let stack = stack(1).await;
    let a = Running::start(&stack, "a", |built| built);
    let all: Vec<Record> = (0..100).map(record).collect();
    put(&stack, &all[..60]).await;
    total(&stack, 60).await;
    // Repeats in other aggregates, and in the same one.
    put(&stack, &all[30..80]).await;
    put(&stack, &[&all[75..100], &all[75..100]].concat()).await;
    let caught_up =
        |status: &headworks_consumer::Status| status.repeats_dropped == 60 && status.delivered == 100;
    within("the repeats", a.handle.wait_until(caught_up)).await.unwrap();
    each_once(&stack).await;
    a.stop().await;

    // An application whose checkpoint was lost reads everything again.
    stack.dynamodb().delete_table().table_name("app").send().await.unwrap();
    let b = Running::start(&stack, "b", |built| built);
    within("all again", b.handle.wait_until(|status| status.repeats_dropped == 160)).await.unwrap();
    b.stop().await;
    each_once(&stack).await;
    within("the stack's end", stack.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_lost_after_the_commit_and_requests_sent_twice_change_nothing() {
    let stack = stack(1).await;
    let faults = stack.faults();
    for (n, action) in [Action::Lost, Action::Duplicate, Action::Throttle].into_iter().enumerate() {
        let fault = Fault::of(Service::DynamoDb, action).operations(["TransactWriteItems"]);
        faults.add(fault.probability(0.12, n as u64)).unwrap();
    }
    let internal = Action::ErrorAfterCommit { code: "InternalServerError".to_owned(), status: None };
    let fault = Fault::of(Service::DynamoDb, internal).operations(["TransactWriteItems"]);
    let late = faults.add(fault.probability(0.12, 9)).unwrap();
    let a = Running::start(&stack, "a", |built| built.max_batch_records(3));
    let all: Vec<Record> = (0..100).map(record).collect();
    for part in all.chunks(7) {
        put(&stack, part).await;
    }
    total(&stack, 100).await;
    assert!(faults.fired(late) > 0, "the fault was there");
    within("every answer", a.handle.wait_until(|status| status.delivered == 100)).await.unwrap();
    let status = a.stop().await.status;
    assert_eq!(status.repeats_dropped, 0, "its own commits are no repeats");
    each_once(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_anywhere_between_leave_each_effect_once() {
    let stack = stack(1).await;
    let lost = Fault::of(Service::DynamoDb, Action::Lost).operations(["TransactWriteItems"]);
    stack.faults().add(lost.probability(0.2, 4)).unwrap();
    let slow = Action::DelayAfterCommit(Duration::from_millis(40));
    let slow = Fault::of(Service::DynamoDb, slow).operations(["TransactWriteItems"]);
    stack.faults().add(slow.probability(0.5, 5)).unwrap();
    let all: Vec<Record> = (0..100).map(record).collect();
    for part in all.chunks(4) {
        put(&stack, part).await;
    }
    // Killed after every few effects, wherever it is at that moment.
    let mut reached = 0;
    for life in 0..6 {
        let worker = Running::start(&stack, "a", |built| built.max_batch_records(2));
        within("some effects", async {
            let wanted = (reached + 9 + life).min(100);
            while counts(&stack).await.values().sum::<u32>() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        worker.kill().await;
        reached = counts(&stack).await.values().sum();
    }
    let last = Running::start(&stack, "b", |built| built);
    total(&stack, 100).await;
    last.stop().await;
    each_once(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_no_transaction_or_is_refused_becomes_a_dead_letter() {
    let stack = stack(1).await;
    let letters = Arc::new(Letters::default());
    let kept = letters.clone();
    let a = Running::start(&stack, "a", |built| built.on_failure(OnFailure::DeadLetter).dead_letters(kept));
    let with = |key: &str, data: &str| Record::builder(key.to_owned()).unwrap().data(data.to_owned()).build();
    put(
        &stack,
        &[
            with("a", "1"),
            with("b", "many:99"),
            with("c", "impossible"),
            with("d", "many:98"),
            with("a", "2"),
        ],
    )
    .await;
    total(&stack, 100).await;
    let two = |status: &headworks_consumer::Status| status.dead_letters == 2 && status.delivered == 3;
    let status = within("the letters", a.handle.wait_until(two)).await.unwrap();
    assert_eq!(status.handler_failures, 0);
    a.stop().await;
    let counts = counts(&stack).await;
    assert_eq!((counts["a"], counts["d"], counts.get("b"), counts.get("c")), (2, 1, None, None));
    let mut codes: Vec<String> = letters.0.lock().unwrap().iter().map(|letter| letter.code.clone()).collect();
    codes.sort();
    assert_eq!(codes, ["effects-refused", "effects-too-large"]);

    // And without dead letters the consumer stops in front of it.
    put(&stack, &[with("e", "many:99")]).await;
    let b = Running::start(&stack, "b", |built| built);
    let error = within("the refusal", b.task).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("99 effects"), "{error}");
}
