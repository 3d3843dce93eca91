//! Keys that alone bring more than their shard takes.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use headworks_record::ShardId;
use tokio::time::Instant;

use crate::batches::Batches;
use crate::item::Item;

/// How long a key must lead before it is named.
const LEADS_FOR: Duration = Duration::from_secs(2);

/// A key that alone brings more than its shard takes. One key never exceeds one shard: that is what keeps
/// its records in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// The key.
    pub key: ByteString,
    /// The lane that holds it, as the Kinesis partition key has it.
    pub lane: ByteString,
    /// The shard.
    pub shard: ShardId,
    /// Its part of the bytes of the aggregates it is in, in percent.
    pub percent: u8,
}

impl std::fmt::Display for HotKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, lane, shard, percent } = self;
        write!(
            f,
            "the key {key:?} is {percent} % of lane {lane} and brings more than {shard} takes, \
             which is 1 MiB and 1,000 Kinesis records per second; spread its records over several keys"
        )
    }
}

/// Watches the aggregates of one lane while its shard is throttled.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    leader: Option<Leader>,
}

#[derive(Debug)]
struct Leader {
    key: ByteString,
    since: Instant,
    bytes: u64,
    all_bytes: u64,
    named: Option<Arc<HotKey>>,
}

impl Watch {
    /// Looks at an aggregate that goes while more than fits waits behind it.
    pub(crate) fn look(
        &mut self,
        items: &[Item],
        batches: &Batches,
        lane: &ByteString,
        shard: &ShardId,
        now: Instant,
    ) {
        let keyed = || {
            let key = |item: &Item| batches.content(item).map_or("", |content| content.key());
            items.iter().map(move |item| (key(item), u64::from(item.user_bytes)))
        };
        let Some(key) = majority(keyed()) else { return self.forget() };
        let all: u64 = keyed().map(|(_, bytes)| bytes).sum();
        let its: u64 = keyed().filter(|(of, _)| *of == key).map(|(_, bytes)| bytes).sum();
        if its * 2 <= all {
            return self.forget();
        }
        let leader = match &mut self.leader {
            Some(leader) if *leader.key == *key => leader,
            other => {
                other.insert(Leader { key: key.into(), since: now, bytes: 0, all_bytes: 0, named: None })
            }
        };
        leader.bytes += its;
        leader.all_bytes += all;
        if leader.named.is_none() && now.saturating_duration_since(leader.since) >= LEADS_FOR {
            let percent = (leader.bytes * 100 / leader.all_bytes.max(1)) as u8;
            let (key, lane, shard) = (leader.key.clone(), lane.clone(), shard.clone());
            leader.named = Some(Arc::new(HotKey { key, lane, shard, percent }));
        }
    }

    pub(crate) fn forget(&mut self) {
        self.leader = None;
    }

    pub(crate) fn hot(&self) -> Option<&Arc<HotKey>> {
        self.leader.as_ref()?.named.as_ref()
    }
}

/// The only key that may have more than half of the bytes (Boyer and Moore's majority vote).
fn majority<'k>(keyed: impl Iterator<Item = (&'k str, u64)>) -> Option<&'k str> {
    let mut candidate: Option<&'k str> = None;
    let mut votes = 0u64;
    for (key, bytes) in keyed {
        let weight = bytes.max(1);
        match candidate {
            Some(known) if known == key => votes += weight,
            _ if votes < weight => {
                candidate = Some(key);
                votes = weight - votes;
            }
            _ => votes -= weight,
        }
    }
    candidate
}
