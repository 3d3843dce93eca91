//! Aggregates that go on whole, and those whose members part: nothing is encoded anew.

use headworks_local::Stack;
use headworks_record::Record;
use headworks_record::aggregate::{Aggregate, Decoded, MAGIC, decode};
use headworks_router::{KinesisShards, NoDeadLetters, RouteTable, Router, Writers, writer_config};
use headworks_telemetry::RecordTracer;
use proptest::prelude::*;
use std::sync::Arc;

use crate::bootstrap::{create_with, read_blobs};
use crate::common::{ROUTES, Shards, Streams, World, aggregate, invocation, labelled, record};

fn parse(blob: &bytes::Bytes) -> Aggregate {
    let Decoded::Aggregate(aggregate) = decode(blob).unwrap() else { panic!("an aggregate") };
    aggregate
}

fn router(stack: &Stack, routes: &str) -> Router {
    let writers = Writers::new(stack.kinesis(), writer_config(), RecordTracer::disabled()).unwrap();
    Router::new(
        Arc::new(RouteTable::from_toml(routes).unwrap()),
        Arc::new(writers),
        Arc::new(NoDeadLetters),
        Arc::new(KinesisShards::new(stack.kinesis())),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_for_one_lane_goes_on_with_its_origin_appended() {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["orders", "clicks"], 1).await;
    let router =
        router(&stack, "[[rules]]\nwhen.type = \"click\"\nto = \"clicks\"\n[default]\nto = \"orders\"\n");
    let blob = aggregate(&[record("a", "order", "1"), record("b", "order", "2"), record("a", "order", "3")]);
    let event = labelled(vec![("hw/shardId-000000000001/0".to_owned(), blob.clone())]);
    let report = router.handle(&event, &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.stored), (None, 3));
    let found = read_blobs(&stack, "orders").await;
    assert_eq!(found.len(), 1, "one Kinesis record in, one out");
    let body = blob.len() - 16;
    assert_eq!(found[0][..body], blob[..body], "all but the MD5 is as it was");
    let out = parse(&found[0]);
    assert_eq!(out.origins().count(), 3);
    assert_eq!(&*out.origins().next().unwrap().sequence_number, "100");
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_part_keep_their_bytes() {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["orders", "clicks"], 1).await;
    let router =
        router(&stack, "[[rules]]\nwhen.type = \"click\"\nto = \"clicks\"\n[default]\nto = \"orders\"\n");
    let sent: Vec<Record> = (0..20)
        .map(|i| record(&format!("k{}", i % 3), ["click", "order"][i % 2], &format!("{i:02}")))
        .collect();
    let blob = aggregate(&sent);
    let label = "hw/shardId-000000000001/0".to_owned();
    let event = labelled(vec![(label.clone(), blob.clone()), (label, aggregate(&sent[..1]))]);
    assert_eq!(router.handle(&event, &invocation()).await.unwrap().failed, None);
    for (stream, kind, count) in [("orders", "order", 10), ("clicks", "click", 11)] {
        let found = read_blobs(&stack, stream).await;
        let records: Vec<Record> = found
            .iter()
            .flat_map(|blob| parse(blob).members().map(|m| m.to_record().unwrap()).collect::<Vec<_>>())
            .collect();
        let mut expected: Vec<Record> =
            sent.iter().filter(|r| r.headers.get("type") == Some(kind)).cloned().collect();
        if kind == "click" {
            expected.push(sent[0].clone());
        }
        assert_eq!(records.len(), count);
        assert_eq!(records, expected, "in order, whichever way they went");
        // The bytes of each member, from its payload to its last header, stand there as they stood.
        for record in &expected {
            let tail = [&record.data[..], &[0x22]].concat();
            let at = |blob: &[u8]| {
                blob.windows(tail.len()).position(|w| w == tail).map(|at| blob[at..at + 40].to_vec())
            };
            assert!(found.iter().any(|out| at(out).is_some() && at(out) == at(&blob)), "{record:?}");
        }
    }
    stack.shutdown().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Members that stay encoded and records that are decoded come out alike.
    #[test]
    fn encoded_or_not_makes_no_difference(
        kinds in prop::collection::vec((0..5usize, 0..3usize, any::<bool>()), 1..40), per in 1..8usize,
    ) {
        let records: Vec<Record> = kinds.iter().enumerate().map(|(i, (kind, key, _))| {
            let kind = ["order", "click", "order.click", "marked", "other"][*kind];
            record(&format!("k{key}"), kind, &format!("{i:02}"))
        }).collect();
        let event = labelled(records.chunks(per).map(|part| ("hw/shardId-000000000001/0".to_owned(), aggregate(part))).collect());
        // A derived header that is never there: each record is decoded, none is changed.
        let slow = ROUTES.replace("[[rules]]\nname", "[derive]\nnone = \"/none\"\n[[rules]]\nname");
        // An expression that holds for none.
        let expr = ROUTES.replace("[[rules]]\nname", "[[rules]]\nexpr = \"key == 'none'\"\ndrop = true\n[[rules]]\nname");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut all = Vec::new();
        for routes in [ROUTES, &slow, &expr] {
            let (world, router) = World::with_routes(
                routes, Streams::new(|_, _| Ok(())), crate::common::Letters::default(), Shards::default());
            let report = runtime.block_on(router.handle(&event, &invocation())).unwrap();
            prop_assert_eq!(report.failed, None);
            all.push(world.streams.stored.lock().unwrap().clone());
        }
        prop_assert_eq!(&all[0], &all[1]);
        prop_assert_eq!(&all[0], &all[2]);
        prop_assert!(event.records.iter().all(|record| record.data.starts_with(&MAGIC)));
    }
}
