//! From Kinesis records to records.

use bytes::Bytes;
use headworks_record::aggregate::{Decoded, decode};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_record::{HashRange, Headers, PartitionKey, Record, ShardId};

/// One Kinesis record as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) sequence_number: String,
    pub(crate) partition_key: String,
    pub(crate) arrival_ms: i64,
    pub(crate) data: Bytes,
}

/// A record and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) shard: ShardId,
    pub(crate) sequence_number: String,
    pub(crate) sub_sequence_number: usize,
    pub(crate) arrival_ms: i64,
}

/// What a tail met that is not plainly a record; said at the end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Oddities {
    /// Aggregates that landed on the wrong shard: their writer puts them again.
    pub(crate) misplaced: u64,
    /// Data that begins like an aggregate but is not one: shown as it is.
    pub(crate) damaged: u64,
    /// Kinesis records that cannot be shown.
    pub(crate) undecodable: u64,
}

/// Takes a Kinesis record apart, by the rules of every reader of ours. `complain` gets a line for what
/// cannot be shown.
pub(crate) fn take_apart(
    raw: &Raw,
    shard: &ShardId,
    range: &HashRange,
    oddities: &mut Oddities,
    complain: &mut dyn FnMut(String),
) -> Vec<Found> {
    let mut refuse = |oddities: &mut Oddities, reason: &dyn std::fmt::Display, code: &str| {
        oddities.undecodable += 1;
        complain(format!(
            "warning: the Kinesis record {} of {shard} cannot be shown: {reason} [{code}]",
            raw.sequence_number
        ));
        Vec::new()
    };
    let found = |record, sub_sequence_number| Found {
        record,
        shard: shard.clone(),
        sequence_number: raw.sequence_number.clone(),
        sub_sequence_number,
        arrival_ms: raw.arrival_ms,
    };
    let plain = || {
        PartitionKey::new(raw.partition_key.as_str()).map(|key| Record {
            key,
            explicit_hash_key: None,
            headers: Headers::new(),
            data: raw.data.clone(),
        })
    };
    let aggregate = match decode(&raw.data) {
        Ok(Decoded::Aggregate(aggregate)) => aggregate,
        Ok(Decoded::Plain) => {
            return match plain() {
                Ok(record) => vec![found(record, 0)],
                Err(error) => refuse(oddities, &error, error.code()),
            };
        }
        Ok(_) => {
            oddities.damaged += 1;
            return match plain() {
                Ok(record) => vec![found(record, 0)],
                Err(error) => refuse(oddities, &error, error.code()),
            };
        }
        Err(error) => return refuse(oddities, &error, error.code()),
    };
    match verdict(&aggregate, &raw.partition_key, shard, range, Foreign::Deliver) {
        Ok(Verdict::Deliver) => {}
        Ok(Verdict::Misplaced { .. }) => {
            oddities.misplaced += 1;
            return Vec::new();
        }
        Err(error) => return refuse(oddities, &error, error.code()),
    }
    let members: Result<Vec<Record>, _> = aggregate.members().map(|member| member.to_record()).collect();
    match members {
        Ok(records) => records.into_iter().enumerate().map(|(i, record)| found(record, i)).collect(),
        Err(error) => refuse(oddities, &error, error.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headworks_record::aggregate::Builder;
    use headworks_record::{Lane, aggregate};

    fn raw(partition_key: &str, data: impl Into<Bytes>) -> Raw {
        Raw {
            sequence_number: "7".into(),
            partition_key: partition_key.into(),
            arrival_ms: 1,
            data: data.into(),
        }
    }

    fn read(raw: &Raw, range: HashRange) -> (Vec<Found>, Oddities, Vec<String>) {
        let (mut oddities, mut said) = (Oddities::default(), Vec::new());
        let shard = ShardId::from("shardId-000000000001");
        let found = take_apart(raw, &shard, &range, &mut oddities, &mut |line| said.push(line));
        (found, oddities, said)
    }

    fn blob() -> Bytes {
        let mut builder = Builder::new();
        for key in ["a", "b"] {
            builder.push(&Record::builder(key).unwrap().header("type", "t").unwrap().data("x").build());
        }
        builder.finish()
    }

    #[test]
    fn members_keep_their_places_and_plain_data_is_a_record() {
        let (found, oddities, _) = read(&raw("any", blob()), HashRange::ALL);
        let places: Vec<_> = found.iter().map(|f| (f.record.key.as_str(), f.sub_sequence_number)).collect();
        assert_eq!(places, [("a", 0), ("b", 1)]);
        assert_eq!(oddities, Oddities::default());
        let (found, _, _) = read(&raw("k", "plain"), HashRange::ALL);
        assert_eq!((found[0].record.key.as_str(), &found[0].record.data[..]), ("k", &b"plain"[..]));
    }

    #[test]
    fn a_misplaced_aggregate_is_skipped_and_counted_unless_it_was_meant_for_the_shard() {
        let elsewhere = HashRange::new(0, 1);
        let (found, oddities, _) = read(&raw("any", blob()), elsewhere);
        assert_eq!((found.len(), oddities.misplaced), (0, 1));
        let label = Lane { shard: ShardId::from("shardId-000000000001"), number: 0 };
        let (found, oddities, _) = read(&raw(&label.label(), blob()), elsewhere);
        assert_eq!((found.len(), oddities.misplaced), (2, 0));
    }

    #[test]
    fn damage_is_shown_as_it_is_and_what_cannot_be_shown_is_said() {
        let mut damaged = blob().to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let (found, oddities, _) = read(&raw("k", damaged.clone()), HashRange::ALL);
        assert_eq!((&found[0].record.data[..], oddities.damaged), (&damaged[..], 1));
        assert!(aggregate::looks_aggregated(&found[0].record.data));
        let (found, oddities, said) = read(&raw("", "x"), HashRange::ALL);
        assert_eq!((found.len(), oddities.undecodable), (0, 1));
        assert!(said[0].contains("[key-empty]"), "{said:?}");
    }
}
