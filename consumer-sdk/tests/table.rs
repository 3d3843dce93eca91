//! The lease table against a real DynamoDB API: conditions, lost answers, and what is not a lease.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use headworks_consumer::lease::{Beat, Error, Lease, LeaseStore, Table};
use headworks_consumer::{Checkpoint, Position, SequenceNumber};
use headworks_local::Stack;
use headworks_record::HashRange;

async fn table() -> (Stack, Client, Table) {
    let stack = headworks_local::start().await.unwrap();
    let client = stack.dynamodb().clone();
    let table = Table::new(client.clone(), "app", "app-workers");
    table.prepare().await.unwrap();
    (stack, client, table)
}

fn at(n: u64, sub: i64) -> Checkpoint {
    Checkpoint::At(Position::new(SequenceNumber::new(n.to_string()).unwrap(), sub))
}

fn lease(shard: &str) -> Lease {
    let mut lease = Lease::new(shard.into(), Checkpoint::TrimHorizon);
    lease.range = Some(HashRange::ALL);
    lease
}

fn beat(incarnation: &str, changes: u64) -> Beat {
    Beat { worker: "w".to_owned(), incarnation: incarnation.to_owned(), counter: 0, changes, load: 0 }
}

#[tokio::test]
async fn a_lease_goes_through_its_life() {
    let (_stack, _, table) = table().await;
    table.prepare().await.unwrap();
    assert!(table.create(&lease("s0")).await.unwrap());
    assert!(!table.create(&lease("s0")).await.unwrap(), "there is one already");
    let seen = table.leases().await.unwrap().remove(0);
    assert_eq!(seen, lease("s0"));

    let claimed = table.claim(&seen, "a").await.unwrap();
    assert_eq!((claimed.owner.as_deref(), claimed.counter, claimed.owner_switches), (Some("a"), 1, 1));
    assert!(matches!(table.claim(&seen, "b").await, Err(Error::Conflict { .. })), "b saw an older lease");
    assert_eq!(table.claim(&seen, "a").await.unwrap(), claimed, "the answer to the first was lost");
    assert_eq!(table.lease(&"s0".into()).await.unwrap().unwrap(), claimed);

    let first = claimed.holding().unwrap();
    let second = table.checkpoint(&first, &at(7, 3), &[]).await.unwrap();
    assert_eq!(second.counter, 2);
    let again = table.checkpoint(&first, &at(7, 3), &[]).await.unwrap();
    assert_eq!(again, second, "the answer to the first was lost");
    let stale = table.checkpoint(&first, &at(6, 0), &[]).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "a late one must not move it back");
    let now = table.lease(&"s0".into()).await.unwrap().unwrap();
    assert_eq!((now.checkpoint.clone(), now.owner_switches), (at(7, 3), 0));

    let taken = table.claim(&now, "b").await.unwrap();
    assert!(matches!(table.checkpoint(&second, &at(8, 0), &[]).await, Err(Error::Conflict { .. })));
    table.release(&second).await.unwrap();
    assert_eq!(table.lease(&"s0".into()).await.unwrap().unwrap().owner.as_deref(), Some("b"));

    let children = ["s1".into(), "s2".into()];
    let last = table.checkpoint(&taken.holding().unwrap(), &Checkpoint::ShardEnd, &children).await.unwrap();
    table.release(&last).await.unwrap();
    table.release(&last).await.unwrap();
    let ended = table.lease(&"s0".into()).await.unwrap().unwrap();
    assert_eq!((ended.owner.as_deref(), ended.checkpoint.is_end()), (None, true));
    assert_eq!(ended.children, children);
}

/// What an earlier life of the worker had on its way looks like the claim by owner and counter, and is not.
#[tokio::test]
async fn a_claim_that_an_old_checkpoint_overtook_did_not_succeed() {
    let (_stack, _, table) = table().await;
    table.create(&lease("s0")).await.unwrap();
    let seen = table.leases().await.unwrap().remove(0);
    let first_life = table.claim(&seen, "a").await.unwrap();
    table.checkpoint(&first_life.holding().unwrap(), &at(7, 0), &[]).await.unwrap();
    let refused = table.claim(&first_life, "a").await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "it would begin behind the checkpoint");
}

#[tokio::test]
async fn of_many_claims_one_wins() {
    let (_stack, _, table) = table().await;
    table.create(&lease("s0")).await.unwrap();
    let seen = table.leases().await.unwrap().remove(0);
    let workers: Vec<String> = (0..16).map(|i| format!("w{i}")).collect();
    let claims = workers.iter().map(|worker| table.claim(&seen, worker));
    let won = futures_util::future::join_all(claims).await;
    assert_eq!(won.iter().filter(|claim| claim.is_ok()).count(), 1);
}

#[tokio::test]
async fn attributes_of_the_kcl_that_are_not_ours_stay() {
    let (_stack, client, table) = table().await;
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let put = client.put_item().table_name("app").item("leaseKey", s("s0"));
    put.item("leaseCounter", AttributeValue::N("5".to_owned()))
        .item("checkpoint", s("77"))
        .item("throughputKBps", AttributeValue::N("12.5".to_owned()))
        .item("checkpointOwner", s("gone"))
        .item("pendingCheckpoint", s("78"))
        .send()
        .await
        .unwrap();
    let other = client.put_item().table_name("app").item("leaseKey", s("stats"));
    other.item("entityType", s("WORKER_METRIC_STATS")).send().await.unwrap();
    let seen = table.leases().await.unwrap();
    assert_eq!(seen.len(), 1, "what is not a lease is left alone");
    let claimed = table.claim(&seen[0], "a").await.unwrap();
    table.checkpoint(&claimed.holding().unwrap(), &at(79, 0), &[]).await.unwrap();
    let item =
        client.get_item().table_name("app").key("leaseKey", s("s0")).send().await.unwrap().item.unwrap();
    assert_eq!(item["throughputKBps"], AttributeValue::N("12.5".to_owned()));
    assert!(!item.contains_key("checkpointOwner") && !item.contains_key("pendingCheckpoint"));

    let bad = client.put_item().table_name("app").item("leaseKey", s("s1")).item("checkpoint", s("soon"));
    bad.send().await.unwrap();
    let error = table.leases().await.unwrap_err();
    assert_eq!(error.code(), "lease-item-invalid");
    assert!(error.to_string().contains("\"s1\"") && error.to_string().contains("soon"), "{error}");
}

#[tokio::test]
async fn heartbeats_count_and_are_fenced_by_incarnation() {
    let (_stack, _, table) = table().await;
    table.beat(&beat("i1", 0), true).await.unwrap();
    table.beat(&beat("i1", 4), false).await.unwrap();
    let seen = table.beats().await.unwrap();
    assert_eq!((seen[0].counter, seen[0].changes), (2, 4));
    assert_eq!(table.beat_of("w").await.unwrap().as_ref(), Some(&seen[0]));
    assert_eq!(table.beat_of("nobody").await.unwrap(), None);
    table.beat(&beat("i2", 0), true).await.unwrap();
    let taken = table.beat(&beat("i1", 0), false).await.unwrap_err();
    assert_eq!(taken.code(), "worker-id-taken");
    table.retire(&beat("i1", 0)).await.unwrap();
    assert_eq!(table.beats().await.unwrap()[0].counter, 3, "it is the other's by now");
    table.retire(&beat("i2", 0)).await.unwrap();
    assert!(table.beats().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_table_of_another_kind_is_refused() {
    let stack = headworks_local::start().await.unwrap();
    let attribute = AttributeDefinition::builder()
        .attribute_name("id")
        .attribute_type(ScalarAttributeType::S)
        .build()
        .unwrap();
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let create = stack.dynamodb().create_table().table_name("customers").key_schema(key);
    create.attribute_definitions(attribute).billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
    let table = Table::new(stack.dynamodb().clone(), "customers", "app-workers");
    let error = table.prepare().await.unwrap_err();
    assert_eq!(error.code(), "lease-table-invalid");
    assert!(error.to_string().contains("customers"), "{error}");
}
