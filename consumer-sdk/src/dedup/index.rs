//! Finds an identity among those that a window remembers.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Trace id and span id. They are compared whole: a fingerprint that two records share would drop one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(pub(super) [u64; 3]);

/// Part of an identity's hash; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

/// Slots of a table that has seen few identities.
const FEWEST: usize = 64;

/// Numbers of identities by their hash.
///
/// Open addressing: a slot holds a tag and the low half of the number, and lies at or behind the place that the
/// tag's upper bits name. So the table's memory is eight bytes a slot, an identity that is not there costs one
/// look at memory that is not cached, and growing reads and writes from one end to the other.
#[derive(Debug, Clone)]
pub(super) struct Index {
    keys: [u64; 3],
    // A power of two of them, empty or full.
    slots: Vec<u64>,
    len: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        // Drawn for each process, so that nobody can choose identities whose hashes are one.
        let random = RandomState::new();
        let keys = [0, 1, 2].map(|key| random.hash_one(key) | 1);
        Self { keys, slots: vec![0; FEWEST], len: 0 }
    }

    /// Identities are random for the most part: two multiplications spread them.
    pub(super) fn tag(&self, Identity([a, b, c]): Identity) -> Tag {
        let [first, second, third] = self.keys;
        let folded = fold(fold(a ^ first, b ^ second) ^ c, third);
        Tag((folded >> 32) as u32 | 1)
    }

    /// Has the slots of these identities fetched from memory, all at once: what looks for them one after
    /// another would wait for each.
    pub(super) fn fetch(&self, tags: impl IntoIterator<Item = Tag>) {
        let seen = tags.into_iter().fold(0, |seen, tag| seen ^ self.slots[self.home(tag.0)]);
        std::hint::black_box(seen);
    }

    /// The number of an identity with this tag; `is_it` tells whether the low half is that of its number.
    pub(super) fn find(&self, tag: Tag, mut is_it: impl FnMut(u32) -> bool) -> Option<Slot> {
        let mut at = self.home(tag.0);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if tag_of(slot) == tag.0 && is_it(slot as u32) {
                return Some(Slot(at));
            }
            at = self.after(at);
        }
    }

    /// The low half of the number in a slot that was found.
    pub(super) fn number(&self, Slot(at): Slot) -> u32 {
        self.slots[at] as u32
    }

    /// Changes the number in a slot that was found.
    pub(super) fn renumber(&mut self, Slot(at): Slot, number: u32) {
        self.slots[at] = slot(tag_of(self.slots[at]), number);
    }

    /// Adds an identity that is not there.
    pub(super) fn insert(&mut self, tag: Tag, number: u32) {
        if self.len >= self.slots.len() / 8 * 5 {
            self.resize(self.slots.len() * 2);
        }
        self.put(slot(tag.0, number));
        self.len += 1;
    }

    /// Empties a slot that was found; others move up, so that none is cut off from its place.
    pub(super) fn remove(&mut self, Slot(mut gap): Slot) {
        let mask = self.slots.len() - 1;
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let (strayed, from_gap) = (at.wrapping_sub(self.home(tag_of(slot))), at.wrapping_sub(gap));
            if strayed & mask >= from_gap & mask {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = 0;
        self.len -= 1;
        // What a burst left behind is given back.
        if self.slots.len() > FEWEST && self.len < self.slots.len() / 16 {
            self.resize(self.slots.len() / 2);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        old.into_iter().filter(|slot| *slot != 0).for_each(|slot| self.put(slot));
    }

    fn put(&mut self, slot: u64) {
        let mut at = self.home(tag_of(slot));
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    /// There are fewer slots than tags: the configuration allows a hundred million identities.
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.slots.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

/// Where an identity was found; true until the table changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(usize);

fn slot(tag: u32, number: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(number)
}

fn tag_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_spread_over_all_bits() {
        let index = Index::new();
        let tags: Vec<u32> = (0..4096u64).map(|i| index.tag(Identity([i, 7, i << 40])).0).collect();
        for bit in 1..32 {
            let set = tags.iter().filter(|tag| *tag >> bit & 1 == 1).count();
            assert!((1500..2600).contains(&set), "bit {bit} is set in {set} of 4096");
        }
    }

    #[test]
    fn it_grows_and_shrinks_with_what_it_holds() {
        let mut index = Index::new();
        let tags: Vec<Tag> = (0..10_000).map(|i| index.tag(Identity([i, 0, 0]))).collect();
        for (number, tag) in (0..).zip(&tags) {
            index.insert(*tag, number);
            assert!(index.slots.len() <= FEWEST || index.slots.len() < index.len() * 4);
        }
        for (number, tag) in (0..).zip(&tags) {
            let slot = index.find(*tag, |other| other == number).unwrap();
            index.remove(slot);
            assert!(index.slots.len() <= FEWEST || index.slots.len() <= index.len() * 16);
        }
        assert_eq!((index.len(), index.slots.len()), (0, FEWEST));
    }

    proptest! {
        /// Tags of few values, so that chains are long, meet and go round the end.
        #[test]
        fn it_is_a_map(
            steps in proptest::collection::vec((any::<bool>(), 0u32..400), 1..600),
            spread in prop_oneof![Just(1u32), Just(1 << 20), Just(1 << 29)],
        ) {
            let tag = |n: u32| Tag((u32::MAX - (n % 37).wrapping_mul(spread)) | 1);
            let mut index = Index::new();
            let mut model = std::collections::BTreeSet::new();
            for (insert, number) in steps {
                let found = index.find(tag(number), |other| other == number);
                prop_assert_eq!(found.is_some(), model.contains(&number));
                match found {
                    None if insert => {
                        index.insert(tag(number), number);
                        model.insert(number);
                    }
                    Some(slot) if !insert => {
                        prop_assert_eq!(index.number(slot), number);
                        index.remove(slot);
                        model.remove(&number);
                    }
                    _ => {}
                }
                prop_assert_eq!(index.len(), model.len());
                prop_assert_eq!(index.slots.iter().filter(|slot| **slot != 0).count(), model.len());
            }
            for number in 0..400 {
                let found = index.find(tag(number), |other| other == number);
                prop_assert_eq!(found.is_some(), model.contains(&number));
            }
        }
    }
}
