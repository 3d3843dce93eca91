//! Headers from DynamoDB: cached, bounded, and by the rule's policy when the table is slow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use headworks_local::faults::{Action, Fault, Service};
use headworks_router::lookup::{self, DynamoItems, Items};
use headworks_router::table::Enrich;
use headworks_router::table::enrich::Found;
use headworks_router::{Router, Trouble};
use tokio::time::{advance, sleep};

use crate::common::{Letters, Shards, Streams, World, aggregate, event, invocation, record};

fn routes(more: &str) -> String {
    format!(
        r#"
[default]
to = "d"
[default.enrich]
table = "customers"
key = "id"
key-from = "type"
attributes = {{ tier = "tier", since = "since", gone = "gone" }}
{more}
"#
    )
}

/// A table in memory that counts what it is asked for, and may never answer.
#[derive(Default)]
struct Customers {
    asked: Mutex<Vec<Vec<String>>>,
    silent: AtomicBool,
    refusals: AtomicUsize,
}

#[async_trait]
impl Items for Customers {
    async fn get(&self, lookup: &Enrich, keys: &[String]) -> Result<HashMap<String, Found>, lookup::Error> {
        self.asked.lock().unwrap().push(keys.to_vec());
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.refusals.load(Ordering::Relaxed) > 0 {
            self.refusals.fetch_sub(1, Ordering::Relaxed);
            return Err(lookup::Error::Unavailable {
                table: lookup.table.clone(),
                reason: "throttled".into(),
            });
        }
        let known = keys.iter().filter(|key| *key != "nobody");
        Ok(known.map(|key| (key.clone(), vec![("tier".into(), format!("of-{key}").into())])).collect())
    }
}

fn world(more: &str, letters: Letters) -> (World, Router, Arc<Customers>) {
    let streams = Streams::new(|_, _| Ok::<(), Trouble>(()));
    let (world, router) = World::with_routes(&routes(more), streams, letters, Shards::default());
    let items = Arc::new(Customers::default());
    (world, router.with_items(items.clone()), items)
}

fn tiers(world: &World) -> Vec<String> {
    let tier = |record: headworks_record::Record| record.headers.get("tier").unwrap_or("-").to_owned();
    world.streams.records("d").into_iter().map(tier).collect()
}

async fn handle(router: &Router, kinds: &[&str]) -> headworks_router::Report {
    let records: Vec<_> = kinds.iter().map(|kind| record("k", kind, kind)).collect();
    router.handle(&event(vec![aggregate(&records)]), &invocation()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_their_time_and_no_more_than_allowed() {
    let (world, router, items) = world("cache-ttl = \"10s\"\ncache-entries = 2", Letters::default());
    assert_eq!(handle(&router, &["a", "nobody", "a"]).await.failed, None);
    assert_eq!(tiers(&world), ["of-a", "-", "of-a"]);
    handle(&router, &["nobody", "a"]).await;
    assert_eq!(*items.asked.lock().unwrap(), [["a", "nobody"]], "each key once, absence is kept as well");
    advance(Duration::from_secs(11)).await;
    handle(&router, &["a"]).await;
    handle(&router, &["b", "c"]).await;
    assert_eq!(items.asked.lock().unwrap().len(), 3);
    handle(&router, &["a"]).await;
    assert_eq!(items.asked.lock().unwrap().len(), 4, "only two answers are kept");
    let many: Vec<String> = (0..250).map(|i| format!("m{i}")).collect();
    handle(&router, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let calls: Vec<usize> = items.asked.lock().unwrap()[4..].iter().map(Vec::len).collect();
    assert_eq!(calls, [100, 100, 50], "few calls, of as many keys as one may have");
}

#[tokio::test(start_paused = true)]
async fn a_slow_table_means_what_the_rule_says() {
    let started = tokio::time::Instant::now();
    let (skipping, router, items) = world("timeout = \"300ms\"", Letters::default());
    items.silent.store(true, Ordering::Relaxed);
    let report = handle(&router, &["a", "b"]).await;
    assert_eq!((report.failed, report.counts.unenriched), (None, 2));
    assert_eq!(tiers(&skipping), ["-", "-"]);
    assert_eq!(started.elapsed(), Duration::from_millis(300));

    let (burying, router, items) = world("on-slow = \"dead-letter\"", Letters::default());
    items.silent.store(true, Ordering::Relaxed);
    assert_eq!(handle(&router, &["a"]).await.failed, None);
    let letters = burying.letters.written.lock().unwrap().clone();
    assert_eq!(
        (&*letters[0].reasons[0].code, letters[0].reasons[0].destination.as_deref()),
        ("lookup-slow", Some("d"))
    );

    let (waiting, router, items) = world("on-slow = \"wait\"", Letters::default());
    items.silent.store(true, Ordering::Relaxed);
    let started = tokio::time::Instant::now();
    let failed = handle(&router, &["a"]).await.failed.unwrap();
    assert_eq!((&*failed.sequence_number, failed.trouble.code()), ("100", "lookup-slow"));
    assert!(
        started.elapsed() > Duration::from_secs(25),
        "half of the time: the rest is for what lies before it"
    );
    assert!(started.elapsed() < Duration::from_secs(35), "{:?}", started.elapsed());
    assert_eq!(tiers(&waiting), [""; 0]);
    // It refuses for a while, and then answers.
    items.silent.store(false, Ordering::Relaxed);
    items.refusals.store(5, Ordering::Relaxed);
    assert_eq!(handle(&router, &["a"]).await.failed, None);
    assert_eq!(tiers(&waiting), ["of-a"]);
}

#[tokio::test]
async fn items_come_from_dynamodb() {
    let stack = headworks_local::start().await.unwrap();
    let client = stack.dynamodb();
    crate::progress::create_keyed(&client, "customers", "id").await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = client.put_item().table_name("customers").item("id", text("a")).item("tier", text("gold"));
    put.item("since", AttributeValue::N("2019".into()))
        .item("gone", AttributeValue::Null(true))
        .send()
        .await
        .unwrap();
    let (world, router, _) = world("cache-ttl = \"1s\"\ntimeout = \"5s\"", Letters::default());
    let router = router.with_items(Arc::new(DynamoItems::new(client.clone())));
    assert_eq!(handle(&router, &["a", "b"]).await.failed, None);
    let found = world.streams.records("d");
    assert_eq!(
        found[0].headers.iter().collect::<Vec<_>>(),
        [("type", "a"), ("since", "2019"), ("tier", "gold")]
    );
    assert_eq!(found[1].headers.iter().collect::<Vec<_>>(), [("type", "b")]);

    // Throttled: asked again.
    let throttle = Fault::of(Service::DynamoDb, Action::Throttle).operations(["BatchGetItem"]).times(2);
    let throttle = stack.faults().add(throttle).unwrap();
    handle(&router, &["c", "a"]).await;
    assert!(stack.faults().fired(throttle) >= 1);
    assert_eq!(world.streams.records("d").last().unwrap().headers.get("tier"), Some("gold"));
    stack.faults().clear();

    // Slow: the rule's policy, here to go on.
    let (slow, router, _) = self::world("timeout = \"100ms\"", Letters::default());
    let router = router.with_items(Arc::new(DynamoItems::new(client)));
    let delay = Fault::of(Service::DynamoDb, Action::Delay(Duration::from_secs(30)));
    stack.faults().add(delay.operations(["BatchGetItem"])).unwrap();
    let report = tokio::select! {
        report = handle(&router, &["a"]) => report,
        () = sleep(Duration::from_secs(20)) => panic!("it waits for the table"),
    };
    assert_eq!((report.failed, report.counts.unenriched), (None, 1));
    assert_eq!(tiers(&slow), ["-"]);
    stack.shutdown().await.unwrap();
}
