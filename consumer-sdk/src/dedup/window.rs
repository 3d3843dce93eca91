//! The identities that a shard brought lately.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use headworks_record::Creation;

use crate::delivered::Delivered;

/// Trace id and span id. They are compared whole: a hash that two records share would drop one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity([u64; 3]);

/// Hashes identities, which are random for the most part: a multiplication is enough to spread them. The key is
/// drawn for each process, so that nobody can choose identities whose hashes are one.
#[derive(Debug, Clone)]
struct Keys(u64);

impl Default for Keys {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }
}

impl BuildHasher for Keys {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { key: self.0, state: self.0 }
    }
}

/// Multiplies each word in, and folds both halves of the product.
#[derive(Debug)]
struct Folding {
    key: u64,
    state: u64,
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_ne_bytes(*word)));
        rest.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key ^ 0x9e37_79b9_7f4a_7c15);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// What [`Window::drop_repeats`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Records that were repeats.
    pub(crate) repeats: u64,
    /// Identities that had to be forgotten before their time.
    pub(crate) forgotten: u64,
}

/// Remembers identities for a time, measured in arrivals at the stream.
///
/// An identity takes 32 bytes in `order` and 33 in `last`; both grow by doubling, so 70 to 140 bytes.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    span_ms: u64,
    most: usize,
    // The latest arrival of each identity.
    last: HashMap<Identity, u64, Keys>,
    // In the order in which they were noted; one that came again is here once more.
    order: VecDeque<(Identity, u64)>,
    forgotten: u64,
}

impl Window {
    /// An empty window over this time, of at most this many identities.
    pub(crate) fn new(span: Duration, most: usize) -> Self {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { span_ms, most, last: HashMap::default(), order: VecDeque::new(), forgotten: 0 }
    }

    /// Removes the repeats from records that follow, in order, on everything noted so far.
    pub(crate) fn drop_repeats(&mut self, records: &mut Vec<Delivered>) -> Dropped {
        let before = records.len();
        records.retain(|record| {
            let Some(creation) = record.record.headers.creation() else { return true };
            !self.note(identity(creation), record.arrival_ms)
        });
        let repeats = (before - records.len()) as u64;
        Dropped { repeats, forgotten: std::mem::take(&mut self.forgotten) }
    }

    /// Takes in a record that was dealt with before.
    pub(crate) fn remember(&mut self, record: &Delivered) {
        if let Some(creation) = record.record.headers.creation() {
            self.note(identity(creation), record.arrival_ms);
        }
    }

    /// Takes in what another window remembers.
    pub(crate) fn absorb(&mut self, other: &Window) {
        for (identity, arrival_ms) in &other.order {
            self.note(*identity, *arrival_ms);
        }
    }

    /// Tells whether it is a repeat.
    fn note(&mut self, identity: Identity, arrival_ms: u64) -> bool {
        // Those that are too old for this record; where arrivals are not quite in order, some stay a
        // little longer, which the comparison below does not mind.
        while self.order.front().is_some_and(|(_, at)| at.saturating_add(self.span_ms) < arrival_ms) {
            self.forget_oldest();
        }
        let before = match self.last.entry(identity) {
            Entry::Vacant(entry) => {
                entry.insert(arrival_ms);
                None
            }
            Entry::Occupied(mut entry) => {
                let before = *entry.get();
                *entry.get_mut() = before.max(arrival_ms);
                Some(before)
            }
        };
        if before.is_none_or(|before| before < arrival_ms) {
            self.order.push_back((identity, arrival_ms));
            if self.order.len() > self.most && self.forget_oldest() {
                self.forgotten += 1;
            }
        }
        before.is_some_and(|before| before.saturating_add(self.span_ms) >= arrival_ms)
    }

    /// Tells whether the identity is gone: it stays if it came again since.
    fn forget_oldest(&mut self) -> bool {
        let Some((identity, at)) = self.order.pop_front() else { return false };
        let latest = self.last.get(&identity) == Some(&at);
        if latest {
            self.last.remove(&identity);
        }
        latest
    }
}

fn identity(creation: &Creation) -> Identity {
    let trace = u128::from_ne_bytes(creation.trace_id.0);
    Identity([trace as u64, (trace >> 64) as u64, u64::from_ne_bytes(creation.span_id.0)])
}

#[cfg(test)]
mod tests {
    use headworks_record::Record;
    use proptest::prelude::*;

    use super::*;
    use crate::position::SequenceNumber;

    fn record(id: Option<u8>, arrival_ms: u64) -> Delivered {
        let mut record = Record::builder("k").unwrap();
        if let Some(id) = id {
            record = record.creation(Creation::mint(0, [id + 1; 18]));
        }
        Delivered {
            record: record.build(),
            stream: "orders".into(),
            shard: "s".into(),
            sequence_number: SequenceNumber::new("1").unwrap(),
            sub_sequence_number: 0,
            arrival_ms,
            received: std::time::UNIX_EPOCH,
            origin: None,
        }
    }

    fn left(window: &mut Window, records: &[(Option<u8>, u64)]) -> (Vec<u64>, Dropped) {
        let mut records: Vec<_> = records.iter().map(|(id, at)| record(*id, *at)).collect();
        let dropped = window.drop_repeats(&mut records);
        (records.iter().map(|record| record.arrival_ms).collect(), dropped)
    }

    fn window(most: usize) -> Window {
        Window::new(Duration::from_millis(100), most)
    }

    #[test]
    fn repeats_within_the_window_are_dropped_and_counted() {
        let mut window = window(10);
        let records = [(Some(1), 0), (Some(2), 10), (Some(1), 100), (Some(2), 111), (Some(1), 112)];
        let (left, dropped) = left(&mut window, &records);
        assert_eq!(left, [0, 10, 111], "what came again is remembered from then on");
        assert_eq!(dropped, Dropped { repeats: 2, forgotten: 0 });
    }

    #[test]
    fn records_without_a_creation_context_are_never_dropped() {
        let (left, dropped) = left(&mut window(10), &[(None, 0), (None, 0), (None, 1)]);
        assert_eq!((left.len(), dropped), (3, Dropped::default()));
    }

    #[test]
    fn identities_that_share_only_their_trace_are_two() {
        let creation = Creation::mint(0, [7; 18]);
        let mut sibling = creation;
        sibling.span_id.0[7] ^= 1;
        let mut records = vec![record(None, 1), record(None, 1)];
        records[0].record.headers.set_creation(creation);
        records[1].record.headers.set_creation(sibling);
        assert_eq!(window(10).drop_repeats(&mut records), Dropped::default());
    }

    #[test]
    fn the_bound_forgets_the_oldest_and_counts_it() {
        let mut window = window(2);
        let (_, dropped) = left(&mut window, &[(Some(1), 0), (Some(2), 1), (Some(3), 2)]);
        assert_eq!(dropped, Dropped { repeats: 0, forgotten: 1 });
        assert!(window.order.len() <= 2 && window.last.len() <= 2);
        let (left, _) = left(&mut window, &[(Some(3), 3), (Some(1), 4)]);
        assert_eq!(left, [4], "it is delivered again, not lost");
    }

    #[test]
    fn what_another_window_remembers_counts() {
        let (mut parent, mut child) = (window(10), window(10));
        left(&mut parent, &[(Some(1), 0), (Some(2), 90)]);
        child.absorb(&parent);
        assert_eq!(left(&mut child, &[(Some(1), 120), (Some(2), 130)]).0, [120]);
    }

    #[test]
    fn hashes_spread_over_all_bits() {
        let keys = Keys::default();
        let hashes: Vec<u64> = (0..4096u64).map(|i| keys.hash_one(Identity([i, 7, i << 40]))).collect();
        for bit in 0..64 {
            let set = hashes.iter().filter(|hash| *hash >> bit & 1 == 1).count();
            assert!((1500..2600).contains(&set), "bit {bit} is set in {set} of 4096");
        }
    }

    proptest! {
        /// A first occurrence is never dropped, a repeat always is, and a window that was rebuilt from
        /// what lies within the window before any place drops what the old one would have dropped.
        #[test]
        fn it_depends_on_the_last_stretch_only(
            steps in proptest::collection::vec((0u8..12, 0u64..40), 1..80),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut at = 0;
            let records: Vec<(u8, u64)> = steps.iter().map(|(id, gap)| { at += gap; (*id, at) }).collect();
            let repeats: Vec<bool> = records.iter().enumerate().map(|(i, (id, at))| {
                records[..i].iter().any(|(other, before)| other == id && before + 100 >= *at)
            }).collect();
            let mut whole = window(1000);
            let found: Vec<bool> =
                records.iter().map(|(id, at)| left(&mut whole, &[(Some(*id), *at)]).0.is_empty()).collect();
            prop_assert_eq!(&found, &repeats);

            let cut = cut.index(records.len());
            let since = records[cut].1.saturating_sub(100);
            let mut rebuilt = window(1000);
            for (id, at) in records[..cut].iter().filter(|(_, at)| *at >= since) {
                rebuilt.remember(&record(Some(*id), *at));
            }
            let found: Vec<bool> = records[cut..].iter()
                .map(|(id, at)| left(&mut rebuilt, &[(Some(*id), *at)]).0.is_empty()).collect();
            prop_assert_eq!(&found, &repeats[cut..]);
        }
    }
}
