//! Carrying aggregates on: whole, and member by member.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod generate;

use generate::{origin, record, unpack};
use headworks_record::Record;
use headworks_record::aggregate::{Builder, DIGEST_LEN, Decoded, MAGIC, decode};
use md5::{Digest, Md5};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_blob_carried_on_is_what_building_it_anew_gives(records in vec(record(), 1..40), origin in origin()) {
        let (mut plain, mut routed) = (Builder::new(), Builder::new());
        for record in &records {
            plain.push(record);
            routed.push_from(record, Some(&origin));
        }
        let aggregate = unpack(&plain.finish());
        let carried = aggregate.carried_on(Some(&origin)).unwrap();
        prop_assert_eq!(Some(carried.len()), aggregate.carried_on_len(Some(&origin)));
        prop_assert_eq!(&carried, &routed.finish());
        // It has its origin now: a second one would be one too many.
        let again = unpack(&carried);
        prop_assert_eq!(again.carried_on(Some(&origin)), None);
        prop_assert_eq!(again.carried_on(None).unwrap(), carried);
    }

    /// Members of several aggregates, whatever base times these have, in one: the same records come out, at the
    /// predicted length, also after being spliced twice.
    #[test]
    fn spliced_members_are_the_records_they_were(
        sources in vec(vec(record(), 1..12), 1..5), origin in proptest::option::of(origin()), picks: u64,
    ) {
        let aggregates: Vec<_> = sources.iter().map(|records| {
            let mut builder = Builder::new();
            records.iter().for_each(|record| builder.push(record));
            unpack(&builder.finish())
        }).collect();
        let mut builder = Builder::new();
        let mut expected: Vec<&Record> = Vec::new();
        for (aggregate, records) in aggregates.iter().zip(&sources) {
            for (i, (member, record)) in aggregate.members().zip(records).enumerate() {
                if picks >> (i % 64) & 1 == 0 {
                    continue;
                }
                let predicted = builder.len_with_member(&member, origin.as_ref());
                prop_assert!(!builder.push_member_within(&member, origin.as_ref(), predicted - 1));
                prop_assert!(builder.push_member_within(&member, origin.as_ref(), predicted));
                prop_assert_eq!(builder.len(), predicted);
                expected.push(record);
            }
        }
        let spliced = unpack(&builder.finish());
        let mut twice = Builder::new();
        for (member, record) in spliced.members().zip(&expected) {
            prop_assert_eq!(&&member.to_record().unwrap(), record);
            prop_assert_eq!(member.known_creation(), record.headers.creation());
            prop_assert_eq!(member.user_bytes(), record.user_bytes());
            twice.push_member(&member, None);
        }
        prop_assert_eq!(spliced.len(), expected.len());
        let twice: Vec<Record> = unpack(&twice.finish()).members().map(|m| m.to_record().unwrap()).collect();
        prop_assert_eq!(twice.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn members_of_other_writers_keep_their_bytes_even_out_of_order() {
    // Data before the key index, and no envelope: legal protobuf that no known writer writes.
    let mut protobuf = vec![0x0a, 1, b'k'];
    protobuf.extend([0x1a, 5, 0x1a, 1, b'x', 0x08, 0]);
    let mut blob = MAGIC.to_vec();
    blob.extend(&protobuf);
    blob.extend_from_slice(&Md5::digest(&protobuf));
    let foreign = unpack(&blob.into());
    assert_eq!(foreign.carried_on(None), None, "not ours");
    let mut builder = Builder::new();
    let member = foreign.member(0).unwrap();
    let predicted = builder.len_with_member(&member, None);
    builder.push_member(&member, None);
    let blob = builder.finish();
    assert_eq!(blob.len(), predicted);
    let Decoded::Aggregate(ours) = decode(&blob).unwrap() else { panic!("an aggregate") };
    assert_eq!((ours.member(0).unwrap().key(), ours.member(0).unwrap().data()), ("k", &b"x"[..]));
    assert!(blob.len() > DIGEST_LEN && foreign.member(1).is_none());
}
