//! What became of the records of a batch, with what the members of an aggregate have in common kept once.

use std::sync::Arc;

use bytestring::ByteString;
use headworks_record::ShardId;

use crate::outcome::{Failure, Outcome, Placed};

/// A Kinesis record that holds records of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// The shard that has it.
    pub shard: ShardId,
    /// Its sequence number.
    pub sequence_number: ByteString,
    /// How often these records were put; 1 unless something went wrong.
    pub attempts: u32,
}

/// The outcomes of a batch, in the order in which its records were given.
#[derive(Debug, Clone)]
pub struct Outcomes {
    landed: Vec<Arc<Landed>>,
    failures: Vec<Failure>,
    of: Vec<Which>,
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Landed { at: u32, sub_sequence_number: u32 },
    Failed(u32),
}

/// Stands for an outcome that was never given.
static UNANSWERED: Failure = Failure::OutcomeUnknown { attempts: 0, last: String::new(), fault: None };

impl Outcomes {
    /// None is known yet.
    pub(crate) fn open(records: usize) -> Self {
        // Most batches go to a few shards.
        Self {
            landed: Vec::with_capacity(4),
            failures: Vec::new(),
            of: vec![Which::Failed(u32::MAX); records],
        }
    }

    /// The same failure for all.
    pub(crate) fn all_failed(records: usize, failure: Failure) -> Self {
        Self { landed: Vec::new(), failures: vec![failure], of: vec![Which::Failed(0); records] }
    }

    pub(crate) fn stored(&mut self, place: u32, landed: &Arc<Landed>, sub_sequence_number: u32) {
        // The members of an aggregate are told of one after the other.
        if self.landed.last().is_none_or(|last| !Arc::ptr_eq(last, landed)) {
            self.landed.push(Arc::clone(landed));
        }
        let at = (self.landed.len() - 1) as u32;
        self.of[place as usize] = Which::Landed { at, sub_sequence_number };
    }

    pub(crate) fn failed(&mut self, place: u32, failure: Failure) {
        self.of[place as usize] = Which::Failed(self.failures.len() as u32);
        self.failures.push(failure);
    }

    /// How many records the batch had.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether it had none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The Kinesis records that hold records of the batch. One may stand here twice.
    pub fn landed(&self) -> &[Arc<Landed>] {
        &self.landed
    }

    /// One per record: the index of its Kinesis record in [`landed`](Self::landed) and its sub-sequence number, or why
    /// it is not known to be stored.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<(usize, u32), &Failure>> {
        self.of.iter().map(|which| match *which {
            Which::Landed { at, sub_sequence_number } => Ok((at as usize, sub_sequence_number)),
            Which::Failed(at) => Err(self.failures.get(at as usize).unwrap_or(&UNANSWERED)),
        })
    }
}

impl From<Outcomes> for Vec<Outcome> {
    fn from(outcomes: Outcomes) -> Self {
        let placed = |(at, sub_sequence_number): (usize, u32)| {
            let Landed { shard, sequence_number, attempts } = Landed::clone(&outcomes.landed[at]);
            Placed { shard, sequence_number, sub_sequence_number, attempts }
        };
        outcomes.iter().map(|outcome| outcome.map(placed).map_err(Failure::clone)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_in_the_order_of_the_batch() {
        let landed = |sequence_number: &str, attempts| {
            Arc::new(Landed { shard: "s".into(), sequence_number: sequence_number.into(), attempts })
        };
        let (first, second) = (landed("1", 1), landed("2", 3));
        let mut outcomes = Outcomes::open(4);
        outcomes.stored(2, &second, 7);
        outcomes.stored(0, &first, 0);
        outcomes.failed(3, Failure::Stopped);
        assert_eq!(outcomes.len(), 4);
        assert_eq!(outcomes.landed(), [Arc::clone(&second), Arc::clone(&first)]);
        let placed = |sequence_number: &str, sub_sequence_number, attempts| Placed {
            shard: "s".into(),
            sequence_number: sequence_number.into(),
            sub_sequence_number,
            attempts,
        };
        let all: Vec<Outcome> = outcomes.into();
        let expected =
            [Ok(placed("1", 0, 1)), Err(UNANSWERED.clone()), Ok(placed("2", 7, 3)), Err(Failure::Stopped)];
        assert_eq!(all, expected);
    }
}
