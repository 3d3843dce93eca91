//! [`v1::CompactResults`]: the results of a batch, where many records share a place.

use crate::v1::{CompactResults, Place, RecordResult};

/// Why compact results say nothing that makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A record's place is not among the places.
    #[error("record {record} is at place {place}, and there are {places}")]
    NoSuchPlace {
        /// The record's number in the batch.
        record: usize,
        /// The place's number, from 0.
        place: u32,
        /// How many there are.
        places: usize,
    },
    /// There are fewer sub-sequence numbers than records that have a place, or fewer others than needed.
    #[error("the list of {what} ends at record {record}")]
    TooShort {
        /// What is missing.
        what: &'static str,
        /// The record's number in the batch.
        record: usize,
    },
}

/// Writes compact results, record by record in the order of the batch.
#[derive(Debug, Default)]
pub struct Builder {
    results: CompactResults,
}

impl Builder {
    /// For so many records, of which those that have a place have one of these.
    pub fn new(places: Vec<Place>, records: usize) -> Self {
        let results = CompactResults {
            places,
            place_of: Vec::with_capacity(records),
            sub_sequence_numbers: Vec::with_capacity(records),
            others: Vec::new(),
        };
        Self { results }
    }

    /// The next record is stored at the place of this index.
    pub fn stored(&mut self, place: usize, sub_sequence_number: u32) {
        self.results.place_of.push(place as u32 + 1);
        self.results.sub_sequence_numbers.push(sub_sequence_number);
    }

    /// The next record has no place.
    pub fn other(&mut self, result: RecordResult) {
        self.results.place_of.push(0);
        self.results.others.push(result);
    }

    /// What was written.
    pub fn finish(self) -> CompactResults {
        self.results
    }
}

/// One record's result.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// It is in the aggregate at this index of [`CompactResults::places`], and there at this
    /// sub-sequence number.
    Stored {
        /// The place's index.
        place: usize,
        /// The sub-sequence number.
        sub_sequence_number: u32,
    },
    /// It has no place.
    Other(RecordResult),
}

/// Reads compact results, record by record in the order of the batch. The places are left to the caller.
pub fn read(results: &mut CompactResults) -> Result<Vec<Item>, Error> {
    let places = results.places.len();
    let mut subs = std::mem::take(&mut results.sub_sequence_numbers).into_iter();
    let mut others = std::mem::take(&mut results.others).into_iter();
    let items = std::mem::take(&mut results.place_of).into_iter().enumerate();
    items
        .map(|(record, place)| match place.checked_sub(1) {
            None => {
                let other = others.next().ok_or(Error::TooShort { what: "other results", record })?;
                Ok(Item::Other(other))
            }
            Some(place) if place as usize >= places => Err(Error::NoSuchPlace { record, place, places }),
            Some(place) => {
                let sub = subs.next().ok_or(Error::TooShort { what: "sub-sequence numbers", record })?;
                Ok(Item::Stored { place: place as usize, sub_sequence_number: sub })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Spooled, record_result::Outcome};

    fn spooled() -> RecordResult {
        RecordResult { outcome: Some(Outcome::Spooled(Spooled {})) }
    }

    #[test]
    fn what_is_written_is_read() {
        let place = |sequence_number: &str, attempts| Place {
            shard_id: "shardId-0".into(),
            sequence_number: sequence_number.into(),
            attempts,
        };
        let places = vec![place("49", 1), place("50", 2)];
        let mut builder = Builder::new(places.clone(), 4);
        builder.stored(0, 0);
        builder.stored(1, 7);
        builder.other(spooled());
        builder.stored(0, 1);
        let mut results = builder.finish();
        let items = read(&mut results).unwrap();
        let stored = |place, sub_sequence_number| Item::Stored { place, sub_sequence_number };
        assert_eq!(items, [stored(0, 0), stored(1, 7), Item::Other(spooled()), stored(0, 1)]);
        assert_eq!(results.places, places);
    }

    #[test]
    fn nonsense_is_refused() {
        let results = |place_of: &[u32], subs: &[u32]| CompactResults {
            places: vec![Place::default()],
            place_of: place_of.to_vec(),
            sub_sequence_numbers: subs.to_vec(),
            others: Vec::new(),
        };
        let error = read(&mut results(&[1, 2], &[0, 0])).unwrap_err();
        assert_eq!(error, Error::NoSuchPlace { record: 1, place: 1, places: 1 });
        let error = read(&mut results(&[1, 1], &[0])).unwrap_err();
        assert_eq!(error.to_string(), "the list of sub-sequence numbers ends at record 1");
        assert!(read(&mut results(&[0], &[])).is_err());
    }
}
