//! From outcomes to entries, and from entries to what is left out.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use bytestring::ByteString;

use super::{Entry, MAX_LANES, Span};
use crate::event::{Event, KinesisRecord};
use crate::table::RouteTable;

/// Sequence numbers are decimal numbers of up to 128 digits.
fn compare(a: &str, b: &str) -> Ordering {
    let [a, b] = [a, b].map(|number| number.trim_start_matches('0'));
    (a.len(), a).cmp(&(b.len(), b))
}

/// The lanes of a batch in order of first mention, [`MAX_LANES`] of them at most.
pub(crate) fn lanes(event: &Event) -> Vec<ByteString> {
    let mut lanes: Vec<ByteString> = Vec::new();
    for record in &event.records {
        // Records of one lane mostly follow each other.
        if lanes.last() == Some(&record.partition_key) || lanes.contains(&record.partition_key) {
            continue;
        }
        if lanes.len() == MAX_LANES {
            break;
        }
        lanes.push(record.partition_key.clone());
    }
    lanes
}

/// What destinations have, as far as the store knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Lane to spans by the destination's place in the table.
    lanes: HashMap<ByteString, BTreeMap<usize, Span>>,
}

impl Known {
    pub(crate) fn new(entries: Vec<Entry>, table: &RouteTable, now: u64) -> Self {
        let valid = |entry: &Entry| entry.table == table.fingerprint() && entry.expires > now;
        let lanes = entries.into_iter().filter(valid).map(|entry| {
            let place = |name: &str| table.streams().iter().position(|stream| **stream == *name);
            let spans = entry.has.into_iter().filter_map(|(name, span)| Some((place(&name)?, span)));
            (entry.lane, spans.collect())
        });
        Self { lanes: lanes.collect() }
    }

    /// Whether a destination has everything of this Kinesis record that is for it.
    pub(crate) fn has(&self, record: &KinesisRecord, stream: usize) -> bool {
        let Some(span) = self.lanes.get(&record.partition_key).and_then(|spans| spans.get(&stream)) else {
            return false;
        };
        let number = &record.sequence_number;
        compare(&span.from, number).is_le() && compare(number, &span.to).is_le()
    }

    /// Lanes of which nothing that is known will be needed again, once this batch is done.
    pub(crate) fn spent(&self, event: &Event) -> Vec<ByteString> {
        let last = |lane: &ByteString| event.records.iter().rfind(|record| record.partition_key == *lane);
        let spent = self.lanes.iter().filter(|(lane, spans)| {
            last(lane).is_some_and(|last| {
                spans.values().all(|span| compare(&span.to, &last.sequence_number).is_le())
            })
        });
        spent.map(|(lane, _)| lane.clone()).collect()
    }

    /// Lanes of which nothing is kept.
    pub(crate) fn beside(&self, entries: &[Entry]) -> Vec<ByteString> {
        let kept = |lane: &ByteString| entries.iter().any(|entry| entry.lane == *lane);
        self.lanes.keys().filter(|lane| !kept(lane)).cloned().collect()
    }

    /// What is to be written down. `done` says of a destination and a Kinesis record that holds something
    /// for it whether all of that arrived; `failed` is where the batch will begin again.
    pub(crate) fn advance(
        &self,
        event: &Event,
        table: &RouteTable,
        done: &BTreeMap<(usize, usize), bool>,
        failed: usize,
        expires: u64,
    ) -> Vec<Entry> {
        // The last Kinesis record of each lane before which nothing is missing; then whether it ended there.
        let mut reached: HashMap<(&ByteString, usize), (Option<usize>, bool)> = HashMap::new();
        for ((stream, index), done) in done {
            let lane = &event.records[*index].partition_key;
            let (last, ended) = reached.entry((lane, *stream)).or_default();
            *ended |= !done;
            if !*ended {
                *last = Some(*index);
            }
        }
        let mut entries = Vec::new();
        for lane in lanes(event) {
            let mut has = BTreeMap::new();
            for (stream, name) in table.streams().iter().enumerate() {
                let new = reached.get(&(&lane, stream)).and_then(|(last, _)| *last);
                let new = new.filter(|last| *last >= failed).map(|last| Span {
                    from: event.records[failed].sequence_number.clone(),
                    to: event.records[last].sequence_number.clone(),
                });
                // What lies before the place where the batch begins again is not handed over again.
                let begin = &event.records[failed].sequence_number;
                let old = self.lanes.get(&lane).and_then(|spans| spans.get(&stream)).cloned();
                let old = old.filter(|old| compare(begin, &old.to).is_le());
                // A batch that was cut in two knows less than the whole one did.
                let span = match (old, new) {
                    (Some(old), Some(new)) if compare(&old.to, &new.to).is_lt() => new,
                    (Some(span), _) | (None, Some(span)) => span,
                    (None, None) => continue,
                };
                has.insert(name.to_string(), span);
            }
            if !has.is_empty() {
                entries.push(Entry { lane, table: table.fingerprint().to_owned(), has, expires });
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_compare_as_numbers() {
        assert_eq!(compare("9", "10"), Ordering::Less);
        assert_eq!(compare("0010", "9"), Ordering::Greater);
        let long = "49590338271490256608559692538361571095921575989136588898";
        assert_eq!(compare(long, long), Ordering::Equal);
        assert_eq!(compare(long, "49590338271490256608559692538361571095921575989136588899"), Ordering::Less);
    }
}
