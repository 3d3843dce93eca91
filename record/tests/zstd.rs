//! Compressed aggregates, both ways.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod generate;

use bytes::Bytes;
use generate::{origin, record, unpack};
use headworks_record::aggregate::zstd::{MAX_INFLATED_BYTES, compress};
use headworks_record::aggregate::{
    Builder, COMPRESSED_VERSION, DIGEST_LEN, Damage, Decoded, Error, MAGIC, decode,
};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_record::{HashKey, HashRange, PartitionKey, Record};
use md5::{Digest, Md5};
use proptest::collection::vec;
use proptest::prelude::*;

fn label() -> PartitionKey {
    PartitionKey::new("hw/shardId-000000000003/0").unwrap()
}

fn inner(records: &[Record]) -> Bytes {
    let mut builder = Builder::new();
    records.iter().for_each(|record| builder.push(record));
    builder.finish()
}

fn alike(count: usize) -> Vec<Record> {
    let data = |n: usize| format!(r#"{{"order": {n}, "status": "placed", "currency": "EUR", "items": []}}"#);
    (0..count).map(|n| Record::builder(format!("k{n}")).unwrap().data(data(n)).build()).collect()
}

/// The outer record as a reader that knows no frames sees it: {key, explicit hash key, data, tag}.
fn outer(frame: &[u8], version: u8) -> Bytes {
    let mut member = vec![0x08, 0, 0x1a];
    put_len(&mut member, frame.len());
    member.extend_from_slice(frame);
    member.extend([0x22, 12, 0x0a, 4]);
    member.extend(b"hw-z");
    member.extend([0x12, 4]);
    member.extend(b"zstd");
    let mut protobuf = vec![0x0a, 1, b'k', 0x1a];
    put_len(&mut protobuf, member.len());
    protobuf.extend(&member);
    protobuf.extend([0x7a, 2, 0x08, version]);
    let mut blob = MAGIC.to_vec();
    blob.extend(&protobuf);
    blob.extend_from_slice(&Md5::digest(&protobuf));
    blob.into()
}

fn put_len(out: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

proptest! {
    #[test]
    fn what_is_compressed_reads_as_the_aggregate_it_was(
        records in vec(record(), 0..80), from in proptest::option::of(origin()), level in 0i32..22,
    ) {
        let mut builder = Builder::new();
        records.iter().for_each(|record| builder.push_from(record, from.as_ref()));
        let plain = builder.finish();
        if let Some(blob) = compress(&plain, &label(), HashKey(7), level) {
            prop_assert!(blob.len() < plain.len());
            let aggregate = unpack(&blob);
            prop_assert_eq!(aggregate.blob(), &plain);
            let read: Vec<Record> = aggregate.members().map(|m| m.to_record().unwrap()).collect();
            prop_assert_eq!(read, records);
        }
    }

    #[test]
    fn a_damaged_frame_is_damage_and_never_panics(
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(),
    ) {
        let plain = inner(&alike(30));
        let frame = zstd::bulk::compress(&plain, 3).unwrap();
        let mut flipped = frame.clone();
        for (at, byte) in flips {
            let at = at.index(flipped.len());
            flipped[at] = byte;
        }
        for frame in [&flipped[..], &frame[..cut.index(frame.len())]] {
            match decode(&outer(frame, 2)) {
                // A flip may leave the content what it was: the inner MD5 vouches for it.
                Ok(Decoded::Aggregate(aggregate)) => prop_assert_eq!(aggregate.blob(), &plain),
                Ok(Decoded::Damaged(damage)) => prop_assert_eq!(damage, Damage::Frame),
                Err(Error::Inflates { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn what_does_not_shrink_stays_as_it_is() {
    assert_eq!(compress(&inner(&alike(1)), &label(), HashKey(7), 3), None);
    let zeroes = vec![Record::builder("k").unwrap().data(vec![0; 1 << 20]).build()];
    assert_eq!(compress(&inner(&zeroes), &label(), HashKey(7), 3), None, "beyond what readers allow");
}

#[test]
fn a_stock_reader_sees_the_one_outer_record() {
    let blob = compress(&inner(&alike(100)), &label(), HashKey(7), 3).unwrap();
    let end = blob.len() - DIGEST_LEN;
    assert_eq!(blob[end..], Md5::digest(&blob[MAGIC.len()..end])[..]);
    // Its tables and its one member, at the fields where the KPL has them.
    let text = String::from_utf8_lossy(&blob[..40]).into_owned();
    assert!(blob[4] == 0x0a && text.contains("hw/shardId-000000000003/0"), "{text}");
    assert_eq!(blob[4 + 2 + 25..][..4], [0x12, 1, b'7', 0x1a]);
    assert_eq!(blob[end - 4..end], [0x7a, 2, 0x08, COMPRESSED_VERSION as u8]);
}

#[test]
fn range_checks_use_the_inner_keys() {
    let blob = compress(&inner(&alike(100)), &label(), HashKey(7), 3).unwrap();
    let aggregate = unpack(&blob);
    let low = HashRange::new(0, u128::MAX / 2);
    let found = verdict(&aggregate, "hw/another/0", &"s".into(), &low, Foreign::Deliver).unwrap();
    assert!(matches!(found, Verdict::Misplaced { .. }));
    let all = verdict(&aggregate, "hw/another/0", &"s".into(), &HashRange::ALL, Foreign::Deliver).unwrap();
    assert_eq!(all, Verdict::Deliver);
}

#[test]
fn it_is_unpacked_once_and_only_where_it_is_marked() {
    let frame = zstd::bulk::compress(&inner(&alike(50)), 3).unwrap();
    assert!(matches!(decode(&outer(&frame, 2)), Ok(Decoded::Aggregate(inner)) if inner.len() == 50));
    // The tag alone, in an aggregate of the plain version, is a user's own.
    assert!(matches!(decode(&outer(&frame, 1)), Ok(Decoded::Aggregate(one)) if one.len() == 1));
    let twice = zstd::bulk::compress(&outer(&frame, 2), 3).unwrap();
    assert!(matches!(decode(&outer(&twice, 2)), Ok(Decoded::Damaged(Damage::Frame))));
    let text = zstd::bulk::compress(b"no aggregate", 3).unwrap();
    assert!(matches!(decode(&outer(&text, 2)), Ok(Decoded::Damaged(Damage::Frame))));
}

#[test]
fn both_sides_of_what_a_frame_may_hold() {
    let refused = |bytes: usize, random: usize| {
        let mut data = vec![0u8; bytes];
        let mut state = 1u32;
        for byte in &mut data[..random] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        let frame = zstd::bulk::compress(&data, 1).unwrap();
        decode(&outer(&frame, 2))
    };
    // Neither holds an aggregate: within the limits it is damage, beyond them it is not even unpacked.
    let random = 1 << 16;
    assert!(matches!(refused(MAX_INFLATED_BYTES, random), Ok(Decoded::Damaged(Damage::Frame))));
    let error = refused(MAX_INFLATED_BYTES + 1, random).unwrap_err();
    assert_eq!(error.code(), "aggregate-inflates-too-far");
    assert!(error.to_string().contains("claims to hold 12582913, the limit is 12582912"), "{error}");
    let error = refused(8 << 20, 0).unwrap_err();
    assert!(matches!(error, Error::Inflates { inflated: 8_388_608, .. }), "{error}");
}
