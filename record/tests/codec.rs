//! Property tests of the codec: round trip, exact size prediction, and no panic on any bytes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod generate;

use bytes::Bytes;
use generate::{origin, record, unpack};
use headworks_record::Record;
use headworks_record::aggregate::{
    Aggregate, Builder, DIGEST_LEN, Damage, Decoded, MAGIC, Origin, Prepared, Unsealed, decode, decode_all,
};
use md5::{Digest, Md5};
use proptest::collection::vec;
use proptest::prelude::*;

/// Puts magic and MD5 around a protobuf.
fn seal(protobuf: &[u8]) -> Bytes {
    let mut blob = MAGIC.to_vec();
    blob.extend_from_slice(protobuf);
    blob.extend_from_slice(&Md5::digest(protobuf));
    blob.into()
}

fn origin_of(number: &'static str) -> Origin {
    Origin { shard: "s".into(), sequence_number: number.into(), arrival_ms: 1 }
}

proptest! {
    #[test]
    fn round_trip_with_exact_sizes(records in vec(record(), 0..60)) {
        let mut builder = Builder::new();
        for record in &records {
            let predicted = builder.len_with(record, None);
            builder.push(record);
            prop_assert_eq!(builder.len(), predicted);
        }
        let predicted = builder.len();
        let blob = builder.finish();
        prop_assert_eq!(blob.len(), predicted);
        let back: Vec<Record> = unpack(&blob).members().map(|m| m.to_record().unwrap()).collect();
        prop_assert_eq!(back, records);
    }

    #[test]
    fn origins_round_trip_with_exact_sizes(members in vec((record(), origin()), 1..30)) {
        let mut builder = Builder::new();
        for (record, origin) in &members {
            let predicted = builder.len_with(record, Some(origin));
            builder.push_from(record, Some(origin));
            prop_assert_eq!(builder.len(), predicted);
        }
        let predicted = builder.len();
        let blob = builder.finish();
        prop_assert_eq!(blob.len(), predicted);
        let aggregate = unpack(&blob);
        let origins: Vec<Origin> = aggregate.origins().cloned().collect();
        prop_assert_eq!(origins, members.into_iter().map(|(_, o)| o).collect::<Vec<_>>());
    }

    #[test]
    fn prepared_records_make_the_same_aggregate(
        members in vec((record(), proptest::option::of(origin())), 0..30), limit in 200..4000_usize,
    ) {
        let mut prepared = Prepared::default();
        members.iter().for_each(|(record, _)| prepared.push(record));
        prop_assert_eq!(prepared.len(), members.len());
        let (mut direct, mut copied) = (Builder::new(), Builder::new());
        for (place, (record, origin)) in members.iter().enumerate() {
            let (ready, origin) = (prepared.get(place).unwrap(), origin.as_ref());
            prop_assert_eq!(ready.key(), record.key.as_str());
            prop_assert_eq!(ready.creation(), record.headers.creation().copied());
            prop_assert_eq!(ready.explicit_hash_key(), record.explicit_hash_key);
            prop_assert_eq!(
                copied.push_ready_within(&ready, origin, limit), direct.push_within(record, origin, limit)
            );
            if copied.is_empty() {
                copied.push_ready(&ready, origin);
                direct.push_from(record, origin);
            }
        }
        prop_assert_eq!(copied.finish(), direct.finish());
        prop_assert!(prepared.get(members.len()).is_none());
    }

    #[test]
    fn many_at_once_are_as_one_by_one(
        groups in vec(vec(record(), 0..5), 0..20),
        flaw in any::<(prop::sample::Index, prop::sample::Index, u8)>(),
    ) {
        let mut builder = Builder::new();
        let mut unsealed = Vec::new();
        let mut blobs = Vec::new();
        for records in &groups {
            records.iter().for_each(|record| builder.push(record));
            blobs.push(builder.take());
            records.iter().for_each(|record| builder.push(record));
            unsealed.push(builder.take_unsealed());
        }
        prop_assert_eq!(&Unsealed::seal_all(unsealed), &blobs);
        // One of them is damaged, and others are no aggregates.
        if !blobs.is_empty() {
            let place = flaw.0.index(blobs.len());
            let mut damaged = blobs[place].to_vec();
            let at = flaw.1.index(damaged.len());
            damaged[at] ^= flaw.2;
            blobs[place] = damaged.into();
            blobs.insert(place, Bytes::from_static(b"plain"));
            blobs.push(Bytes::copy_from_slice(&MAGIC));
        }
        let together = decode_all(&blobs);
        prop_assert_eq!(together.len(), blobs.len());
        for (together, blob) in together.into_iter().zip(&blobs) {
            match (together, decode(blob)) {
                (Ok(Decoded::Aggregate(together)), Ok(Decoded::Aggregate(alone))) => {
                    prop_assert_eq!(together.blob(), alone.blob());
                    let records = |aggregate: &Aggregate| -> Vec<_> {
                        aggregate.members().map(|member| (member.to_record(), member.hash_key())).collect()
                    };
                    prop_assert_eq!(records(&together), records(&alone));
                    let origin = origin_of("1");
                    prop_assert_eq!(together.carried_on(Some(&origin)), alone.carried_on(Some(&origin)));
                }
                (together, alone) => prop_assert_eq!(format!("{together:?}"), format!("{alone:?}")),
            }
        }
    }

    #[test]
    fn never_panics_on_any_bytes(data in vec(any::<u8>(), 0..400)) {
        exercise(&data.clone().into());
        exercise(&seal(&data));
    }

    #[test]
    fn never_panics_on_mutated_aggregates(
        records in vec(record(), 1..6), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut builder = Builder::new();
        records.iter().for_each(|record| builder.push(record));
        let blob = builder.finish();
        let mut protobuf = blob[MAGIC.len()..blob.len() - DIGEST_LEN].to_vec();
        for (at, byte) in flips {
            let at = at.index(protobuf.len());
            protobuf[at] = byte;
        }
        exercise(&seal(&protobuf));
    }
}

fn exercise(blob: &Bytes) {
    if let Ok(Decoded::Aggregate(aggregate)) = decode(blob) {
        for member in aggregate.members() {
            let _ = (member.to_record(), member.creation(), member.hash_key(), member.tags().count());
        }
        assert!(aggregate.origins().count() <= aggregate.len());
    }
}

#[test]
fn what_is_not_an_aggregate_is_plain() {
    for data in [&b""[..], b"{}", &MAGIC[..3]] {
        assert!(matches!(decode(&Bytes::copy_from_slice(data)), Ok(Decoded::Plain)));
    }
}

#[test]
fn damaged_aggregates_are_raw_and_say_why() {
    let damage = |blob: Bytes| match decode(&blob).unwrap() {
        Decoded::Damaged(damage) => damage,
        other => panic!("{other:?}"),
    };
    assert_eq!(damage(Bytes::copy_from_slice(&MAGIC)), Damage::Truncated);
    let mut bad = seal(b"").to_vec();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(damage(bad.into()), Damage::Digest);
    // A truncated varint; a member without data; a partition key that is not UTF-8; a wrong wire type.
    for protobuf in [&[0x08, 0xff][..], &[0x1a, 2, 0x08, 0], &[0x0a, 1, 0xff], &[0x08, 1]] {
        assert_eq!(damage(seal(protobuf)), Damage::Protobuf, "{protobuf:?}");
    }
}

#[test]
fn an_index_out_of_range_refuses_the_whole_record() {
    // Table ["k"]; one good member; one that names entry 1.
    let mut protobuf = vec![0x0a, 1, b'k'];
    protobuf.extend([0x1a, 5, 0x08, 0, 0x1a, 1, b'x']);
    protobuf.extend([0x1a, 5, 0x08, 1, 0x1a, 1, b'y']);
    let error = decode(&seal(&protobuf)).unwrap_err();
    assert_eq!(error.code(), "aggregate-index-out-of-range");
    assert_eq!(
        error.to_string(),
        "member 1 refers to entry 1 of the partition key table, which has 1; the writer is at fault"
    );
    let mut protobuf = vec![0x0a, 1, b'k'];
    protobuf.extend([0x1a, 7, 0x08, 0, 0x10, 0, 0x1a, 1, b'x']);
    assert!(
        decode(&seal(&protobuf)).unwrap_err().to_string().contains("explicit hash key table, which has 0")
    );
}

#[test]
fn zero_members_are_legal() {
    assert!(unpack(&seal(b"")).is_empty());
    assert!(unpack(&Builder::new().finish()).is_empty());
}

#[test]
fn a_newer_envelope_is_refused() {
    let error = decode(&seal(&[0x7a, 2, 0x08, 3])).unwrap_err();
    assert_eq!(error.code(), "aggregate-version-unsupported");
}

#[test]
fn a_payload_that_is_an_aggregate_is_data() {
    let mut inner = Builder::new();
    inner.push(&Record::builder("inner").unwrap().data("x").build());
    let inner = inner.finish();
    let mut outer = Builder::new();
    outer.push(&Record::builder("outer").unwrap().data(inner.clone()).build());
    let outer = unpack(&outer.finish());
    let members: Vec<Record> = outer.members().map(|m| m.to_record().unwrap()).collect();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].data, inner);
}

#[test]
fn unknown_reserved_tags_are_kept() {
    // {key 0, data "x", tags [hw-new = "1"]} under the table ["k"], with our envelope.
    let mut protobuf = vec![0x0a, 1, b'k'];
    let mut member = vec![0x08, 0, 0x1a, 1, b'x', 0x22, 11, 0x0a, 6];
    member.extend(b"hw-new");
    member.extend([0x12, 1, b'1']);
    protobuf.extend([0x1a, member.len() as u8]);
    protobuf.extend(&member);
    protobuf.extend([0x7a, 2, 0x08, 1]);
    let record = unpack(&seal(&protobuf)).members().next().unwrap().to_record().unwrap();
    assert_eq!(record.headers.get("hw-new"), Some("1"));
    let mut again = Builder::new();
    again.push(&record);
    let record = unpack(&again.finish()).members().next().unwrap().to_record().unwrap();
    assert_eq!(record.headers.get("hw-new"), Some("1"));
}
