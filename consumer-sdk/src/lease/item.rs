//! Leases as DynamoDB items, attribute for attribute as the KCL has them.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use headworks_record::{HashKey, HashRange, ShardId};

use super::model::{Lease, PendingCheckpoint};
use crate::position::{Checkpoint, Position, SequenceNumber};
use crate::streams::StreamShard;

pub(super) const KEY: &str = "leaseKey";
pub(super) const OWNER: &str = "leaseOwner";
pub(super) const COUNTER: &str = "leaseCounter";
pub(super) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const SUB: &str = "checkpointSubSequenceNumber";
pub(super) const PENDING: &str = "pendingCheckpoint";
pub(super) const PENDING_SUB: &str = "pendingCheckpointSubSequenceNumber";
pub(super) const PENDING_STATE: &str = "pendingCheckpointState";
pub(super) const PARENTS: &str = "parentShardId";
pub(super) const CHILDREN: &str = "childShardIds";
pub(super) const RANGE_START: &str = "startingHashKey";
pub(super) const RANGE_END: &str = "endingHashKey";
/// What the shard brings; KCL 3 balances by it.
pub(super) const THROUGHPUT: &str = "throughputKBps";
/// The stream's identifier, `account:name:epoch`, in a lease of one of several streams. The KCL keeps the name of
/// an earlier form, which held the stream's name alone.
pub(super) const STREAM: &str = "streamName";
/// The shard's own name in such a lease. Parents and children are told by their own names as well.
pub(super) const SHARD: &str = "shardId";
/// Set by KCL 3 on items that are not leases (its leader and worker metrics), and on some that are.
pub(super) const ENTITY: &str = "entityType";

/// The bytes of a kilobyte of the KCL's.
const KILOBYTE: f64 = 1024.0;

pub(super) type Item = HashMap<String, AttributeValue>;

/// Whether the item is a lease at all.
pub(super) fn is_lease(item: &Item) -> bool {
    item.get(ENTITY).is_none_or(|value| value.as_s().is_ok_and(|text| text == "LEASE"))
}

/// Reads a lease; an error says which attribute is wrong.
pub(super) fn read(item: &Item) -> Result<Lease, String> {
    let key = ShardId::from(text(item, KEY)?.ok_or("it has no leaseKey")?);
    let stream = StreamShard::of(&key).stream;
    let keys = |name| -> Result<Vec<ShardId>, String> {
        let ids = shards(item, name)?;
        Ok(match &stream {
            Some(stream) => ids.iter().map(|id| stream.key(id)).collect(),
            None => ids,
        })
    };
    let checkpoint = text(item, CHECKPOINT)?.ok_or("it has no checkpoint")?;
    let sub = number(item, SUB)?.unwrap_or(0);
    let checkpoint = Checkpoint::parse(checkpoint, sub).ok_or_else(|| {
        format!("its checkpoint {checkpoint:?} is neither a sequence number nor a sentinel")
    })?;
    let range = match (text(item, RANGE_START)?, text(item, RANGE_END)?) {
        (Some(start), Some(end)) => {
            let key = |text: &str| text.parse::<HashKey>().map_err(|e| e.to_string());
            Some(HashRange { start: key(start)?, end: key(end)? })
        }
        _ => None,
    };
    Ok(Lease {
        shard: key.clone(),
        owner: text(item, OWNER)?.filter(|owner| !owner.is_empty()).map(str::to_owned),
        counter: number(item, COUNTER)?.unwrap_or(0),
        owner_switches: number(item, OWNER_SWITCHES)?.unwrap_or(0),
        checkpoint,
        parents: keys(PARENTS)?,
        children: keys(CHILDREN)?,
        range,
        pending: pending(item)?,
        throughput: throughput(item)?,
    })
}

fn throughput(item: &Item) -> Result<Option<u64>, String> {
    let kilobytes: Option<f64> = number(item, THROUGHPUT)?;
    Ok(kilobytes.filter(|rate| *rate >= 0.0).map(|rate| (rate * KILOBYTE).round() as u64))
}

/// Bytes/s in the KCL's unit.
pub(super) fn kilobytes(rate: u64) -> AttributeValue {
    num(rate as f64 / KILOBYTE)
}

fn pending(item: &Item) -> Result<Option<PendingCheckpoint>, String> {
    // The KCL may announce the shard's end as well; that is no place to go on from.
    let Some(sequence) = text(item, PENDING)?.and_then(|text| SequenceNumber::new(text.to_owned())) else {
        return Ok(None);
    };
    let position = Position::new(sequence, number(item, PENDING_SUB)?.unwrap_or(0));
    let state = match item.get(PENDING_STATE) {
        Some(AttributeValue::B(state)) => Some(Bytes::copy_from_slice(state.as_ref())),
        _ => None,
    };
    Ok(Some(PendingCheckpoint { position, state }))
}

/// The item of a lease that nobody has held yet.
pub(super) fn write(lease: &Lease) -> Item {
    let mut item = Item::from([
        (KEY.to_owned(), AttributeValue::S(lease.shard.to_string())),
        (COUNTER.to_owned(), num(lease.counter)),
        (OWNER_SWITCHES.to_owned(), num(lease.owner_switches)),
        (CHECKPOINT.to_owned(), AttributeValue::S(lease.checkpoint.text().into_owned())),
        (SUB.to_owned(), num(lease.checkpoint.sub())),
    ]);
    if let StreamShard { stream: Some(stream), shard } = StreamShard::of(&lease.shard) {
        item.insert(STREAM.to_owned(), AttributeValue::S(stream.to_string()));
        item.insert(SHARD.to_owned(), AttributeValue::S(shard.to_string()));
    }
    if let Some(owner) = &lease.owner {
        item.insert(OWNER.to_owned(), AttributeValue::S(owner.clone()));
    }
    for (name, ids) in [(PARENTS, &lease.parents), (CHILDREN, &lease.children)] {
        // DynamoDB has no empty sets.
        if !ids.is_empty() {
            item.insert(name.to_owned(), set(ids));
        }
    }
    if let Some(range) = &lease.range {
        item.insert(RANGE_START.to_owned(), AttributeValue::S(range.start.to_string()));
        item.insert(RANGE_END.to_owned(), AttributeValue::S(range.end.to_string()));
    }
    if let Some(rate) = lease.throughput {
        item.insert(THROUGHPUT.to_owned(), kilobytes(rate));
    }
    if let Some(pending) = &lease.pending {
        item.insert(PENDING.to_owned(), AttributeValue::S(pending.position.sequence.to_string()));
        item.insert(PENDING_SUB.to_owned(), num(pending.position.sub));
        if let Some(state) = &pending.state {
            item.insert(PENDING_STATE.to_owned(), AttributeValue::B(Blob::new(state.to_vec())));
        }
    }
    item
}

pub(super) fn num(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Shards by their own names: the KCL's parents and children have no stream in front.
pub(super) fn set(ids: &[ShardId]) -> AttributeValue {
    AttributeValue::Ss(ids.iter().map(|id| StreamShard::of(id).shard.to_string()).collect())
}

pub(super) fn text<'a>(item: &'a Item, name: &str) -> Result<Option<&'a str>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::S(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its {name} is not a string")),
    }
}

pub(super) fn number<T: std::str::FromStr>(item: &Item, name: &str) -> Result<Option<T>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::N(text)) => {
            text.parse().map(Some).map_err(|_| format!("its {name} {text:?} is not a number in range"))
        }
        Some(_) => Err(format!("its {name} is not a number")),
    }
}

fn shards(item: &Item, name: &str) -> Result<Vec<ShardId>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(Vec::new()),
        Some(AttributeValue::Ss(ids)) => {
            let mut ids: Vec<ShardId> = ids.iter().map(|id| ShardId::from(id.as_str())).collect();
            ids.sort();
            Ok(ids)
        }
        Some(_) => Err(format!("its {name} is not a set of strings")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::StreamIdentifier;

    #[test]
    fn leases_round_trip() {
        let mut lease = Lease::new("shardId-000000000007".into(), Checkpoint::parse("4961", 3).unwrap());
        lease.owner = Some("w-1".to_owned());
        lease.counter = 9;
        lease.parents = vec!["a".into(), "b".into()];
        lease.range = Some(HashRange::new(0, u128::MAX));
        lease.throughput = Some(1_234_567);
        lease.pending = Some(PendingCheckpoint {
            position: Position::new(SequenceNumber::new("4962").unwrap(), 2),
            state: Some(Bytes::from_static(b"file-7")),
        });
        assert_eq!(read(&write(&lease)).unwrap(), lease);
        let bare = Lease::new("s".into(), Checkpoint::ShardEnd);
        assert_eq!(read(&write(&bare)).unwrap(), bare);
    }

    /// What the KCL writes for a shard of one of several streams.
    #[test]
    fn leases_of_several_streams_are_the_kcls() {
        let stream: StreamIdentifier = "123456789012:orders:1700000000".parse().unwrap();
        let mut lease = Lease::new(stream.key(&"shardId-000000000002".into()), Checkpoint::TrimHorizon);
        lease.parents = vec![stream.key(&"shardId-000000000000".into())];
        lease.children = vec![stream.key(&"shardId-000000000003".into())];
        let item = write(&lease);
        let s = |text: &str| AttributeValue::S(text.to_owned());
        assert_eq!(item[KEY], s("123456789012:orders:1700000000:shardId-000000000002"));
        assert_eq!(item[STREAM], s("123456789012:orders:1700000000"));
        assert_eq!(item[SHARD], s("shardId-000000000002"));
        assert_eq!(item[PARENTS], AttributeValue::Ss(vec!["shardId-000000000000".to_owned()]));
        assert_eq!(item[CHILDREN], AttributeValue::Ss(vec!["shardId-000000000003".to_owned()]));
        assert_eq!(read(&item).unwrap(), lease);
        let alone = write(&Lease::new("s".into(), Checkpoint::TrimHorizon));
        assert!(!alone.contains_key(STREAM) && !alone.contains_key(SHARD));
    }

    /// What KCL 3.5 writes for a shard that it has begun.
    #[test]
    fn an_item_of_the_kcl_is_read() {
        let s = |text: &str| AttributeValue::S(text.to_owned());
        let item = Item::from([
            (KEY.to_owned(), s("shardId-000000000002")),
            (OWNER.to_owned(), s("ip-10-0-0-1:5f")),
            (COUNTER.to_owned(), num(4711)),
            (OWNER_SWITCHES.to_owned(), num(0)),
            (CHECKPOINT.to_owned(), s("49600000000000000000000000000000000000000000000000000002")),
            (SUB.to_owned(), num(0)),
            (PARENTS.to_owned(), AttributeValue::Ss(vec!["shardId-000000000001".to_owned()])),
            (RANGE_START.to_owned(), s("0")),
            (RANGE_END.to_owned(), s("170141183460469231731687303715884105727")),
            (THROUGHPUT.to_owned(), AttributeValue::N("12.5".to_owned())),
        ]);
        assert!(is_lease(&item));
        let lease = read(&item).unwrap();
        assert_eq!((lease.counter, lease.throughput), (4711, Some(12_800)));
        assert_eq!(lease.parents, [ShardId::from("shardId-000000000001")]);
    }

    #[test]
    fn items_that_are_not_leases_are_told_apart() {
        let s = |text: &str| AttributeValue::S(text.to_owned());
        let metrics = Item::from([(KEY.to_owned(), s("x")), (ENTITY.to_owned(), s("WORKER_METRIC_STATS"))]);
        assert!(!is_lease(&metrics));
        let lease = Item::from([(KEY.to_owned(), s("x")), (ENTITY.to_owned(), s("LEASE"))]);
        assert!(is_lease(&lease));
    }

    #[test]
    fn bad_attributes_are_named() {
        let mut item = write(&Lease::new("s".into(), Checkpoint::Latest));
        item.insert(COUNTER.to_owned(), AttributeValue::S("x".to_owned()));
        assert!(read(&item).unwrap_err().contains("leaseCounter"));
        item.insert(COUNTER.to_owned(), num(1));
        item.insert(CHECKPOINT.to_owned(), AttributeValue::S("soon".to_owned()));
        assert!(read(&item).unwrap_err().contains("soon"));
    }
}
