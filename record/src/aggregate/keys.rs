//! The table of partition keys of an aggregate that is being built.

use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::{field, wire};

/// Each key once, encoded, and found by its text. It keeps no second copy of a key, and no share of the
/// record's: to count a reference up and down again costs more than to find the key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    encoded: Vec<u8>,
    places: Vec<Place>,
    /// The last key of each hash.
    last: FxHashMap<u64, u32>,
}

/// A key that is not in the table, by its hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing(u64);

/// Where a key stands in the encoded table.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
    /// The key before it that has the same hash.
    before: Option<u32>,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Looks a key up; what is said of one that is not there is for [`Keys::add`].
    pub(super) fn find(&self, key: &[u8]) -> Result<u64, Missing> {
        let hash = hash(key);
        let mut index = self.last.get(&hash).copied();
        while let Some(place) = index.and_then(|index| self.places.get(index as usize)) {
            if self.encoded.get(place.start..place.start + place.len) == Some(key) {
                return Ok(u64::from(index.unwrap_or_default()));
            }
            index = place.before;
        }
        Err(Missing(hash))
    }

    /// Adds a key that is not there yet.
    pub(super) fn add(&mut self, key: &[u8], Missing(hash): Missing) {
        wire::put_bytes_field(&mut self.encoded, field::PARTITION_KEY, key);
        let (start, len) = (self.encoded.len() - key.len(), key.len());
        let before = self.last.insert(hash, self.places.len() as u32);
        self.places.push(Place { start, len, before });
    }

    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    pub(super) fn clear(&mut self) {
        self.encoded.clear();
        self.places.clear();
        self.last.clear();
    }
}

fn hash(key: &[u8]) -> u64 {
    FxBuildHasher.hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_text_and_only_then() {
        let mut keys = Keys::default();
        let text = |n: u32| format!("key-{n}");
        for _ in 0..2 {
            for n in 0..1000 {
                let missing = keys.find(text(n).as_bytes()).expect_err("it is not there");
                keys.add(text(n).as_bytes(), missing);
            }
            for n in 0..1000 {
                assert_eq!(keys.find(text(n).as_bytes()).unwrap(), u64::from(n));
            }
            assert!(keys.find(b"key-").is_err() && keys.find(b"").is_err());
            keys.clear();
            assert!(keys.len() == 0 && keys.encoded().is_empty());
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let mut keys = Keys::default();
        for key in [b"a", b"b", b"c"] {
            keys.add(key, Missing(hash(key)));
        }
        // As if all three had the hash of "a".
        keys.places[1].before = Some(0);
        keys.places[2].before = Some(1);
        keys.last.insert(hash(b"a"), 2);
        assert_eq!(keys.find(b"a").unwrap(), 0);
        keys.last.insert(hash(b"x"), 2);
        assert!(keys.find(b"x").is_err());
    }
}
