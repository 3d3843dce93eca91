//! Members made ready for an aggregate before it is known which one they go into.

use super::encode::{absolute_creation_len, put_creation, put_data, put_tag};
use super::splice::Rest;
use crate::creation::Creation;
use crate::key::HashKey;
use crate::record::{Record, RecordRef};

/// Records with their payloads and tags encoded, one after the other in memory of their own.
///
/// Whoever receives records prepares them while they are in its processor's cache, and lets go of them. To put one into
/// an aggregate is then to look its key up and to copy its bytes.
///
/// Together they have less than 4 GiB.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Of each record the key, the data field and the tags.
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Creation contexts whose encoding depends on the aggregate.
    relative: Vec<Creation>,
    hash_keys: Vec<HashKey>,
}

/// Where a record lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    data: u32,
    tags: u32,
    end: u32,
    /// Its place among the explicit hash keys, or none.
    hash_key: u32,
    creation: Told,
}

/// Stands for no explicit hash key: as every other record has it.
const NONE: u32 = u32::MAX;

/// Where a record's creation context is.
#[derive(Debug, Clone, Copy)]
enum Told {
    Nowhere,
    /// First among the tags.
    Encoded,
    /// Among those that are kept aside.
    Aside(u32),
}

impl Prepared {
    /// Room for this many records with this many bytes of keys, headers and data.
    pub fn with_capacity(records: usize, user_bytes: usize) -> Self {
        // Field keys, lengths, and a creation context.
        let beside = 64 * records;
        Self {
            bytes: Vec::with_capacity(user_bytes + beside),
            places: Vec::with_capacity(records),
            ..Self::default()
        }
    }

    /// Adds a record, behind those that are there.
    pub fn push(&mut self, record: &Record) {
        let headers = record.headers.iter();
        let creation = record.headers.creation();
        self.add(record.key.as_str(), record.explicit_hash_key, creation, &record.data, headers);
    }

    /// Adds a record whose parts lie elsewhere.
    pub fn push_ref(&mut self, record: &RecordRef<'_>) {
        let RecordRef { key, explicit_hash_key, creation, headers, data } = record;
        self.add(key, *explicit_hash_key, creation.as_ref(), data, headers.iter().copied());
    }

    #[inline]
    fn add<'h>(
        &mut self,
        key: &str,
        hash_key: Option<HashKey>,
        creation: Option<&Creation>,
        data: &[u8],
        headers: impl Iterator<Item = (&'h str, &'h str)>,
    ) {
        let out = &mut self.bytes;
        let start = out.len() as u32;
        out.extend_from_slice(key.as_bytes());
        let data_from = out.len() as u32;
        put_data(out, data);
        let tags = out.len() as u32;
        let creation = match creation {
            None => Told::Nowhere,
            Some(creation) if creation.time_is_in_trace_id() => {
                put_creation(out, creation, 0);
                Told::Encoded
            }
            Some(creation) => {
                self.relative.push(*creation);
                Told::Aside((self.relative.len() - 1) as u32)
            }
        };
        headers.for_each(|(name, value)| put_tag(out, name, value));
        let end = out.len() as u32;
        let hash_key = hash_key.map_or(NONE, |hash_key| {
            self.hash_keys.push(hash_key);
            (self.hash_keys.len() - 1) as u32
        });
        self.places.push(Place { start, data: data_from, tags, end, hash_key, creation });
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The record at this place, in the order in which they were added.
    #[inline]
    pub fn get(&self, place: usize) -> Option<Ready<'_>> {
        let place = self.places.get(place)?;
        let aside = match place.creation {
            Told::Aside(at) => self.relative.get(at as usize),
            Told::Nowhere | Told::Encoded => None,
        };
        let hash_key = match place.hash_key {
            NONE => None,
            at => self.hash_keys.get(at as usize).copied(),
        };
        Some(Ready { bytes: &self.bytes, place, hash_key, aside })
    }
}

/// One of [`Prepared`].
#[derive(Debug, Clone, Copy)]
pub struct Ready<'p> {
    bytes: &'p [u8],
    place: &'p Place,
    hash_key: Option<HashKey>,
    aside: Option<&'p Creation>,
}

impl<'p> Ready<'p> {
    /// Its partition key.
    pub fn key(&self) -> &'p str {
        // It was text when it was written.
        std::str::from_utf8(self.key_bytes()).unwrap_or_default()
    }

    /// The hash key that places it regardless of its partition key.
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        self.hash_key
    }

    /// Its creation context.
    pub fn creation(&self) -> Option<Creation> {
        match self.place.creation {
            Told::Nowhere => None,
            Told::Aside(_) => self.aside.copied(),
            Told::Encoded => {
                // The value is the last of the tag's fields.
                let end = self.place.tags as usize + absolute_creation_len();
                let text = self.bytes.get(end - Creation::ABSOLUTE_TAG_LEN..end)?;
                Creation::read_tag(text, 0).ok()
            }
        }
    }

    /// About how many bytes its payload and tags take in an aggregate.
    pub fn encoded_len(&self) -> usize {
        let aside = self.aside.map_or(0, |_| absolute_creation_len());
        (self.place.end - self.place.data) as usize + aside
    }

    /// The bytes of its partition key.
    #[inline]
    pub fn key_bytes(&self) -> &'p [u8] {
        &self.bytes[self.place.start as usize..self.place.data as usize]
    }

    /// How it goes into an aggregate with this base time, and that aggregate's base time then.
    pub(super) fn rest(&self, base_ms: u64) -> (u64, Rest<'p>) {
        let [data, tags, end] = [self.place.data, self.place.tags, self.place.end].map(|at| at as usize);
        match self.aside {
            None => (base_ms, Rest::Whole(&self.bytes[data..end])),
            Some(creation) => {
                // The first member whose time is not in its trace id sets the base for those that follow.
                let base_ms = if base_ms == 0 { creation.created_ms } else { base_ms };
                let (data, tags) = (&self.bytes[data..tags], &self.bytes[tags..end]);
                (base_ms, Rest::Around { data, creation, tags })
            }
        }
    }
}
