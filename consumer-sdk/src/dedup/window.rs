//! The identities that a shard brought lately.

use std::time::Duration;

use headworks_record::Creation;

use super::index::{Identity, Index, Tag};
use super::order::{Entry, Order};
use crate::delivered::Delivered;

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
/// An identity takes 32 bytes in `order` and, because the table doubles, 13 to 26 in `latest`.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    span_ms: u64,
    most: usize,
    // In the order in which they were noted; one that came again is here once more.
    order: Order,
    // Of each identity the latest in that order.
    latest: Index,
    forgotten: u64,
    // Of the records in hand; kept for its memory.
    tags: Vec<Tag>,
}

impl Window {
    /// An empty window over this time, of at most this many identities.
    pub(crate) fn new(span: Duration, most: usize) -> Self {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (order, latest) = (Order::default(), Index::new());
        Self { span_ms, most, order, latest, forgotten: 0, tags: Vec::new() }
    }

    /// Removes the repeats from records that follow, in order, on everything noted so far.
    pub(crate) fn drop_repeats(&mut self, records: &mut Vec<Delivered>) -> Dropped {
        let before = records.len();
        let mut tags = std::mem::take(&mut self.tags);
        tags.clear();
        let identities = records.iter().filter_map(|record| record.record.headers.creation().map(identity));
        tags.extend(identities.map(|identity| self.latest.tag(identity)));
        self.latest.fetch(tags.iter().copied());
        if let Some(last) = records.last() {
            self.fetch_old(last.arrival_ms, tags.len());
        }
        let mut tagged = tags.iter();
        records.retain(|record| {
            let creation = record.record.headers.creation();
            let Some((creation, tag)) = creation.and_then(|creation| Some((creation, tagged.next()?))) else {
                return true;
            };
            !self.note(Entry { identity: identity(creation), arrival_ms: record.arrival_ms }, *tag)
        });
        self.tags = tags;
        let repeats = (before - records.len()) as u64;
        Dropped { repeats, forgotten: std::mem::take(&mut self.forgotten) }
    }

    /// Takes in a record that was dealt with before.
    pub(crate) fn remember(&mut self, record: &Delivered) {
        if let Some(creation) = record.record.headers.creation() {
            let identity = identity(creation);
            let tag = self.latest.tag(identity);
            self.note(Entry { identity, arrival_ms: record.arrival_ms }, tag);
        }
    }

    /// Takes in what another window remembers.
    pub(crate) fn absorb(&mut self, other: &Window) {
        for entry in other.order.iter() {
            self.note(*entry, self.latest.tag(entry.identity));
        }
    }

    /// Tells whether it is a repeat.
    fn note(&mut self, entry: Entry, tag: Tag) -> bool {
        // Those that are too old for this record; where arrivals are not quite in order, some stay a
        // little longer, which the comparison below does not mind.
        while self.order.oldest().is_some_and(|oldest| self.is_old(oldest, entry.arrival_ms)) {
            self.forget_oldest();
        }
        let order = &self.order;
        let found = self
            .latest
            .find(tag, |number| order.by_half(number).is_some_and(|other| other.identity == entry.identity));
        let before = found.and_then(|slot| self.order.by_half(self.latest.number(slot))).copied();
        if before.is_none_or(|before| before.arrival_ms < entry.arrival_ms) {
            let number = self.order.push(entry) as u32;
            match found {
                Some(slot) => self.latest.renumber(slot, number),
                None => self.latest.insert(tag, number),
            }
            if self.order.len() > self.most && self.forget_oldest() {
                self.forgotten += 1;
            }
        }
        before.is_some_and(|before| !self.is_old(&before, entry.arrival_ms))
    }

    /// Tells whether the identity is gone: it stays if it came again since.
    fn forget_oldest(&mut self) -> bool {
        let Some((number, oldest)) = self.order.pop() else { return false };
        let slot = self.latest.find(self.latest.tag(oldest.identity), |other| other == number as u32);
        slot.inspect(|slot| self.latest.remove(*slot)).is_some()
    }

    /// As [`Index::fetch`], for what records that arrived then will make it forget, as far as that goes.
    fn fetch_old(&self, arrival_ms: u64, most: usize) {
        let old = self.order.iter().take(most).take_while(|entry| self.is_old(entry, arrival_ms));
        self.latest.fetch(old.map(|entry| self.latest.tag(entry.identity)));
    }

    fn is_old(&self, entry: &Entry, arrival_ms: u64) -> bool {
        entry.arrival_ms.saturating_add(self.span_ms) < arrival_ms
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
        assert!(window.order.len() <= 2 && window.latest.len() <= 2);
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

    /// What the window does, at the cost of a search through everything.
    #[derive(Default)]
    struct Plain {
        order: Vec<(u8, u64)>,
        forgotten: u64,
    }

    impl Plain {
        fn note(&mut self, span: u64, most: usize, id: u8, at: u64) -> bool {
            let old = self.order.iter().take_while(|(_, before)| before + span < at).count();
            self.order.drain(..old);
            let before = self.order.iter().rev().find(|(other, _)| *other == id).map(|(_, at)| *at);
            if before.is_none_or(|before| before < at) {
                self.order.push((id, at));
            }
            if self.order.len() > most {
                let (oldest, _) = self.order.remove(0);
                self.forgotten += u64::from(self.order.iter().all(|(other, _)| *other != oldest));
            }
            before.is_some_and(|before| before + span >= at)
        }
    }

    proptest! {
        /// Also where it is too small and arrivals are out of order.
        #[test]
        fn it_does_what_a_plain_one_does(
            steps in proptest::collection::vec((0u8..40, 0u64..60), 1..400),
            most in 1usize..60,
        ) {
            let (mut window, mut plain) = (window(most), Plain::default());
            let mut now = 0;
            for part in steps.chunks(7) {
                let part: Vec<(u8, u64)> = part.iter().map(|(id, late)| { now += 20; (*id, now - now.min(*late)) }).collect();
                let mut records: Vec<_> = part.iter().map(|(id, at)| record(Some(*id), *at)).collect();
                let dropped = window.drop_repeats(&mut records);
                let kept = part.iter().filter(|(id, at)| !plain.note(100, most, *id, *at));
                let kept: Vec<u64> = kept.map(|(_, at)| *at).collect();
                prop_assert_eq!(records.iter().map(|record| record.arrival_ms).collect::<Vec<_>>(), kept);
                prop_assert_eq!(dropped.repeats as usize, part.len() - records.len());
                prop_assert_eq!(dropped.forgotten, std::mem::take(&mut plain.forgotten));
                let identities: std::collections::BTreeSet<_> = plain.order.iter().map(|(id, _)| id).collect();
                prop_assert_eq!((window.order.len(), window.latest.len()), (plain.order.len(), identities.len()));
            }
        }

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
