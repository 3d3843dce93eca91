//! The hash-range rule: whether an aggregate found on a shard is delivered there.
//!
//! A writer that learns that its aggregate landed on another shard than its label names puts all of its
//! members again, regrouped. So a reader skips an aggregate with a member outside the shard's range
//! whole: what is in it comes again. That is the KCL's own rule.

use crate::aggregate::{Aggregate, Error};
use crate::shard::{HashRange, Lane, ShardId};

/// What to do with aggregates of other writers that have a member outside the shard's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Foreign {
    /// Deliver them whole: repeats are possible, loss is not.
    #[default]
    Deliver,
    /// Apply the KCL's rule: skip them whole, trusting that their writer puts them again.
    Skip,
}

/// The verdict on one aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver every member.
    Deliver,
    /// Skip the aggregate whole and count it: its writer puts it again.
    Misplaced {
        /// The first member that lies outside the shard's range.
        member: usize,
    },
}

/// Applies the hash-range rule.
///
/// `label` is the Kinesis record's partition key. If it names the shard that is read, everything is
/// delivered without hashing a key, because that is where the writer meant it to go.
pub fn verdict(
    aggregate: &Aggregate,
    label: &str,
    shard: &ShardId,
    range: &HashRange,
    foreign: Foreign,
) -> Result<Verdict, Error> {
    let ours = aggregate.envelope().is_some();
    if ours && Lane::shard_of(label) == Some(shard.as_str()) {
        return Ok(Verdict::Deliver);
    }
    if !ours && foreign == Foreign::Deliver {
        return Ok(Verdict::Deliver);
    }
    for (i, member) in aggregate.members().enumerate() {
        let hash = member.hash_key().map_err(|e| Error::BadMember { member: i, reason: e.to_string() })?;
        if !range.contains(hash) {
            return Ok(Verdict::Misplaced { member: i });
        }
    }
    Ok(Verdict::Deliver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Builder, Decoded, decode};
    use crate::record::Record;

    fn aggregate(keys: &[&str]) -> Aggregate {
        let mut builder = Builder::new();
        for key in keys {
            builder.push(&Record::builder(*key).unwrap().build());
        }
        let Decoded::Aggregate(aggregate) = decode(&builder.finish()).unwrap() else {
            panic!("an aggregate")
        };
        aggregate
    }

    // md5("a") begins 0x0c, md5("b") begins 0x92.
    const LOW: HashRange = HashRange {
        start: crate::HashKey(0),
        end: crate::HashKey(0x7fff_ffff_ffff_ffff_ffff_ffff_ffff_ffff),
    };

    #[test]
    fn the_label_settles_it_without_hashing() {
        let both = aggregate(&["a", "b"]);
        let verdict = verdict(&both, "hw/s-1/0", &"s-1".into(), &LOW, Foreign::Deliver).unwrap();
        assert_eq!(verdict, Verdict::Deliver);
    }

    #[test]
    fn a_member_outside_makes_ours_misplaced() {
        let rule = |keys: &[&str]| {
            verdict(&aggregate(keys), "hw/parent/0", &"s-1".into(), &LOW, Foreign::Deliver).unwrap()
        };
        assert_eq!(rule(&["a"]), Verdict::Deliver);
        assert_eq!(rule(&["a", "b"]), Verdict::Misplaced { member: 1 });
        assert_eq!(rule(&[]), Verdict::Deliver);
    }
}
