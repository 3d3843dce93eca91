//! Splitting and merging, read through on both read paths.

use aws_sdk_kinesis::types::{ScalingType, ShardIteratorType as Kind};
use headworks_local::kinesis::hash::hash_of;

use crate::support::{FIRST, SECOND, fixture, from, texts};

const THIRD: &str = "shardId-000000000002";
const HALF: u128 = 1 << 127;

#[tokio::test]
async fn a_split_ends_the_parent_and_continues_in_its_children() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    let mut pushed = f.subscribe(&consumer, FIRST, from(Kind::TrimHorizon)).await;
    assert!(pushed.next().await.records.is_empty());

    let (_, in_parent) = f.put("s", 0, "before").await;
    assert_eq!(pushed.records(1).await, ["before"]);
    let open = f.all("s", FIRST).await;
    assert!(open.next_shard_iterator.is_some() && open.child_shards.is_none());

    f.client
        .split_shard()
        .stream_name("s")
        .shard_to_split(FIRST)
        .new_starting_hash_key(HALF.to_string())
        .send()
        .await
        .unwrap();
    let (low, in_low) = f.put("s", 0, "low").await;
    let (high, in_high) = f.put("s", HALF, "high").await;
    assert_eq!((low.as_str(), high.as_str()), (SECOND, THIRD));
    assert!(in_low > in_parent && in_high > in_parent, "numbers grow from parent to child");

    // Polling: the records, then the children and no further iterator.
    let got = f.all("s", FIRST).await;
    assert_eq!(texts(&got), ["before"]);
    assert_eq!(got.next_shard_iterator, None);
    assert_eq!(got.millis_behind_latest, Some(0));
    let children = got.child_shards.unwrap();
    assert_eq!(children.iter().map(|child| child.shard_id.as_str()).collect::<Vec<_>>(), [SECOND, THIRD]);
    assert!(children.iter().all(|child| child.parent_shards == [FIRST]));
    assert_eq!(children[1].hash_key_range.as_ref().unwrap().starting_hash_key, HALF.to_string());
    let latest = f.iterator("s", FIRST, Kind::Latest).await;
    assert!(f.get(&latest).await.child_shards.is_some(), "LATEST of a closed shard is its end");

    // Fan-out: the children in the last event, then the end.
    let end = pushed.next().await;
    assert!(end.records.is_empty());
    assert_eq!(end.child_shards.as_deref(), Some(children.as_slice()));
    assert_eq!(pushed.try_next().await, Ok(None));

    assert_eq!(texts(&f.all("s", SECOND).await), ["low"]);
    let mut pushed = f.subscribe(&consumer, THIRD, from(Kind::TrimHorizon)).await;
    assert_eq!(pushed.records(1).await, ["high"]);
}

#[tokio::test]
async fn a_merge_ends_both_parents_and_continues_in_one_child() {
    let f = fixture().await;
    let arn = f.create("s", 2).await;
    let consumer = f.register(&arn, "c").await;
    f.put("s", 0, "low").await;
    f.put("s", u128::MAX, "high").await;
    let call = f.client.merge_shards().stream_name("s").shard_to_merge(FIRST);
    call.adjacent_shard_to_merge(SECOND).send().await.unwrap();
    assert_eq!(f.put("s", 0, "merged").await.0, THIRD);
    assert_eq!(f.put("s", u128::MAX, "merged too").await.0, THIRD);

    for (parent, expected) in [(FIRST, "low"), (SECOND, "high")] {
        let got = f.all("s", parent).await;
        assert_eq!(texts(&got), [expected]);
        let child = &got.child_shards.unwrap()[0];
        assert_eq!(child.shard_id, THIRD);
        assert_eq!(child.parent_shards, [FIRST, SECOND]);

        let mut pushed = f.subscribe(&consumer, parent, from(Kind::TrimHorizon)).await;
        let event = pushed.next().await;
        assert_eq!(event.records.len(), 1);
        assert_eq!(event.child_shards.unwrap()[0].shard_id, THIRD);
        assert_eq!(pushed.try_next().await, Ok(None));
    }
    assert_eq!(texts(&f.all("s", THIRD).await), ["merged", "merged too"]);

    let shards = f.client.list_shards().stream_name("s").send().await.unwrap().shards.unwrap();
    let child = &shards[2];
    assert_eq!(child.parent_shard_id.as_deref(), Some(FIRST));
    assert_eq!(child.adjacent_parent_shard_id.as_deref(), Some(SECOND));
    let range = child.hash_key_range.as_ref().unwrap();
    assert_eq!(
        (range.starting_hash_key.as_str(), range.ending_hash_key.as_str()),
        ("0", u128::MAX.to_string().as_str())
    );
    let numbers = |n: usize| shards[n].sequence_number_range.clone().unwrap();
    assert!(numbers(0).ending_sequence_number.unwrap() < numbers(2).starting_sequence_number);
    assert!(numbers(2).ending_sequence_number.is_none());
}

#[tokio::test]
async fn update_shard_count_makes_uniform_ranges_and_loses_nothing() {
    let f = fixture().await;
    f.create("s", 2).await;
    let mut sent = Vec::new();
    for target in [4, 3, 5, 3, 2] {
        let key = format!("key-{target}");
        f.put("s", hash_of(&key), &key).await;
        sent.push(key);
        let call = f.client.update_shard_count().stream_name("s").target_shard_count(target);
        let answer = call.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        assert_eq!(answer.target_shard_count, Some(target));
        let summary = f.client.describe_stream_summary().stream_name("s").send().await.unwrap();
        assert_eq!(summary.stream_description_summary.unwrap().open_shard_count, target);
        let open: Vec<_> =
            f.stack.engine().shards("s").unwrap().into_iter().filter(|s| s.closed_ms.is_none()).collect();
        let mut starts: Vec<_> = open.iter().map(|shard| shard.range.start).collect();
        starts.sort_unstable();
        let count = u128::try_from(target).unwrap();
        let size = if count.is_power_of_two() { u128::MAX / count + 1 } else { u128::MAX / count };
        assert_eq!(starts, (0..count).map(|n| n * size).collect::<Vec<_>>());
    }
    let mut found = Vec::new();
    for shard in f.stack.engine().shards("s").unwrap() {
        // One parent and two children, or two and one.
        assert!(shard.parent.is_some() || shard.shard_id.as_str() <= SECOND);
        found.extend(texts(&f.all("s", &shard.shard_id).await));
    }
    found.sort();
    sent.sort();
    assert_eq!(found, sent);
}
