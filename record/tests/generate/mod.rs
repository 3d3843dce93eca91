//! Records, and what tests do with blobs.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use bytes::Bytes;
use headworks_record::aggregate::{Aggregate, Decoded, Origin, decode};
use headworks_record::{Creation, HashKey, Record, TraceId};
use proptest::collection::vec;
use proptest::prelude::*;

pub fn creation() -> impl Strategy<Value = Creation> {
    prop_oneof![
        (1u64..1 << 47, any::<[u8; 18]>()).prop_map(|(ms, random)| Creation::mint(ms, random)),
        (1u128.., any::<u8>(), 1u64..1 << 47, any::<[u8; 8]>()).prop_map(|(id, flags, ms, random)| {
            Creation::child_of(TraceId(id.to_be_bytes()), flags, ms, random)
        }),
    ]
}

pub fn record() -> impl Strategy<Value = Record> {
    (
        "[a-e]{1,3}|\\PC{1,40}",
        proptest::option::of(prop_oneof![0u128..3, any::<u128>()]),
        proptest::collection::btree_map("[a-z]{1,6}", "\\PC{0,300}", 0..4),
        proptest::option::of(creation()),
        vec(any::<u8>(), 0..300),
    )
        .prop_map(|(key, hash_key, headers, creation, data)| {
            let mut builder = Record::builder(key).unwrap().data(data);
            for (name, value) in headers {
                builder = builder.header(name, value).unwrap();
            }
            if let Some(hash_key) = hash_key {
                builder = builder.explicit_hash_key(HashKey(hash_key));
            }
            if let Some(creation) = creation {
                builder = builder.creation(creation);
            }
            builder.build()
        })
}

pub fn origin() -> impl Strategy<Value = Origin> {
    (0u8..3, any::<u64>()).prop_map(|(shard, arrival_ms)| Origin {
        shard: format!("shardId-{shard:012}").as_str().into(),
        sequence_number: format!("495{}", u128::from(shard) * 7).into(),
        arrival_ms: arrival_ms % 2,
    })
}

pub fn unpack(blob: &Bytes) -> Aggregate {
    match decode(blob).unwrap() {
        Decoded::Aggregate(aggregate) => aggregate,
        other => panic!("not an aggregate: {other:?}"),
    }
}
