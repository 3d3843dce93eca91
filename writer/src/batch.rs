//! Records on their way into a writer.

use headworks_record::aggregate::{Prepared, Ready};
use headworks_record::{HashKey, RecordRef, key};
use tokio::time::Instant;

use crate::item::Item;
use crate::outcome::Put;

/// Records that are handed over together: encoded as they are added, in their order, and put with one deadline.
///
/// For those who receive records from elsewhere and have no use for a [`Record`](headworks_record::Record) of their
/// own; [`Put`]s become one as well.
#[derive(Debug)]
pub struct Batch {
    prepared: Prepared,
    items: Vec<Item>,
    user_bytes: usize,
    deadline: Instant,
}

impl Batch {
    /// None yet, with room for this many, which have this many bytes of keys, headers and data.
    pub fn with_capacity(records: usize, user_bytes: usize, deadline: Instant) -> Self {
        let prepared = Prepared::with_capacity(records, user_bytes);
        Self { prepared, items: Vec::with_capacity(records), user_bytes: 0, deadline }
    }

    /// Adds a record.
    pub fn push(&mut self, record: &RecordRef<'_>) {
        self.prepared.push_ref(record);
        let sampled = record.creation.is_some_and(|creation| creation.is_sampled());
        self.add(record.user_bytes(), sampled, self.deadline);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of keys, headers and data.
    pub fn user_bytes(&self) -> usize {
        self.user_bytes
    }

    /// Each has the deadline that it brings, or else this one.
    pub(crate) fn of_puts<'p>(
        puts: impl IntoIterator<Item = &'p Put, IntoIter: Clone>,
        deadline: Instant,
    ) -> Self {
        let puts = puts.into_iter();
        let bytes = puts.clone().map(|put| put.record.user_bytes()).sum();
        let mut batch = Self::with_capacity(puts.size_hint().0, bytes, deadline);
        for Put { record, deadline, .. } in puts {
            batch.prepared.push(record);
            let sampled = record.headers.creation().is_some_and(|creation| creation.is_sampled());
            batch.add(record.user_bytes(), sampled, deadline.unwrap_or(batch.deadline));
        }
        batch
    }

    fn add(&mut self, user_bytes: usize, sampled: bool, deadline: Instant) {
        self.user_bytes += user_bytes;
        let place = self.items.len() as u32;
        let Some(ready) = self.prepared.get(place as usize) else { return };
        // Beside the key's text there are its index and the lengths of fields.
        let encoded_bytes = ready.encoded_len() + ready.key_bytes().len() + 8;
        self.items.push(Item {
            hash: HashKey::MIN,
            deadline,
            last: None,
            batch: 0,
            place,
            attempts: 0,
            user_bytes: user_bytes as u32,
            encoded_bytes: encoded_bytes as u32,
            fault: None,
            maybe_stored: false,
            sampled,
        });
    }

    /// The records and their items, hashed.
    pub(crate) fn finish(self) -> (Prepared, Vec<Item>) {
        let Self { prepared, mut items, .. } = self;
        let hashed = |ready: &Ready<'_>| ready.explicit_hash_key().is_none();
        let all = || (0..items.len()).filter_map(|place| prepared.get(place));
        // Eight keys at a time take little longer than one.
        let hashes = key::hashes_of(all().filter(hashed).map(|ready| ready.key()));
        let mut hashes = hashes.into_iter();
        for item in &mut items {
            let explicit = prepared.get(item.place as usize).and_then(|ready| ready.explicit_hash_key());
            item.hash = explicit.or_else(|| hashes.next()).unwrap_or(HashKey::MIN);
        }
        (prepared, items)
    }
}
