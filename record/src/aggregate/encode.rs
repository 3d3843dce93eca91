//! Putting an aggregate together.

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::envelope::{Envelope, Origin};
use super::keys::{Keys, Missing};
use super::member::Member;
use super::members::Members;
use super::prepared::Ready;
use super::sealed::Unsealed;
use super::splice::Rest;
use super::{COMPRESSED_VERSION, DIGEST_LEN, MAGIC, VERSION, field, wire};
use crate::creation::{self, Creation};
use crate::key::HashKey;
use crate::record::Record;

/// Puts records together into one aggregated blob.
///
/// [`Builder::len_with`] tells the exact length that the blob would have with one more record, so that
/// a caller can stop before a limit.
#[derive(Debug, Default)]
pub struct Builder {
    keys: Keys,
    hash_keys: FxHashMap<HashKey, u64>,
    // Parts of the message, already encoded, as the table of keys is.
    hash_key_table: Vec<u8>,
    records: Members,
    members: usize,
    base_ms: u64,
    origins: Vec<(Origin, u64)>,
    closed_origins_len: usize,
    compressed: bool,
}

/// The sizes that one more record would bring.
struct Addition {
    key: Result<u64, Missing>,
    hash_key: Option<(u64, bool)>,
    body: usize,
    base_ms: u64,
    tables: usize,
}

impl Builder {
    /// An aggregate without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// An aggregate without members, with room for this many bytes of them.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { records: Members::with_capacity(bytes), ..Self::default() }
    }

    /// An aggregate for the one record that holds a frame.
    pub(super) fn compressed() -> Self {
        Self { compressed: true, ..Self::default() }
    }

    /// How many members it has.
    pub fn members(&self) -> usize {
        self.members
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// The exact length of the blob, magic and MD5 included.
    pub fn len(&self) -> usize {
        let open = self.origins.last().map_or(0, |(origin, run)| origin_len(origin, *run));
        self.fixed_len() + envelope_len(self.base_ms) + self.closed_origins_len + open
    }

    /// The exact length that the blob would have with this record.
    pub fn len_with(&self, record: &Record, origin: Option<&Origin>) -> usize {
        self.grown(&self.addition_of(record), origin)
    }

    /// The exact length that the blob would have with this member of another aggregate.
    pub fn len_with_member(&self, member: &Member<'_>, origin: Option<&Origin>) -> usize {
        self.grown(&self.addition_of_member(member).0, origin)
    }

    /// The exact length that the blob would have with this prepared record.
    pub fn len_with_ready(&self, ready: &Ready<'_>, origin: Option<&Origin>) -> usize {
        self.grown(&self.addition_of_ready(ready).0, origin)
    }

    /// Adds a record that was created here.
    pub fn push(&mut self, record: &Record) {
        self.push_from(record, None);
    }

    /// Adds a record, saying where a router found it.
    ///
    /// Either all members of an aggregate have an origin or none has.
    pub fn push_from(&mut self, record: &Record, origin: Option<&Origin>) {
        let add = self.addition_of(record);
        self.append(&add, record, origin);
    }

    /// Adds a record if the blob stays within this length; tells whether it did.
    pub fn push_within(&mut self, record: &Record, origin: Option<&Origin>, limit: usize) -> bool {
        let add = self.addition_of(record);
        let fits = self.grown(&add, origin) <= limit;
        if fits {
            self.append(&add, record, origin);
        }
        fits
    }

    /// Adds a member of another aggregate, copying its payload and tags as they are encoded there.
    ///
    /// An explicit hash key of another writer that is no number is left out; [`Member::hash_key`] tells
    /// beforehand.
    pub fn push_member(&mut self, member: &Member<'_>, origin: Option<&Origin>) {
        let (add, rest) = self.addition_of_member(member);
        self.append_member(&add, &rest, member, origin);
    }

    /// Adds a member of another aggregate if the blob stays within this length; tells whether it did.
    pub fn push_member_within(&mut self, member: &Member<'_>, origin: Option<&Origin>, limit: usize) -> bool {
        let (add, rest) = self.addition_of_member(member);
        let fits = self.grown(&add, origin) <= limit;
        if fits {
            self.append_member(&add, &rest, member, origin);
        }
        fits
    }

    /// Adds a prepared record, copying its payload and tags as they are encoded.
    pub fn push_ready(&mut self, ready: &Ready<'_>, origin: Option<&Origin>) {
        let (add, rest) = self.addition_of_ready(ready);
        self.append_ready(&add, &rest, ready, origin);
    }

    /// Adds a prepared record if the blob stays within this length; tells whether it did.
    #[inline]
    pub fn push_ready_within(&mut self, ready: &Ready<'_>, origin: Option<&Origin>, limit: usize) -> bool {
        let (add, rest) = self.addition_of_ready(ready);
        let fits = self.grown(&add, origin) <= limit;
        if fits {
            self.append_ready(&add, &rest, ready, origin);
        }
        fits
    }

    /// The blob: what goes into a Kinesis record's data.
    pub fn finish(mut self) -> Bytes {
        self.take()
    }

    /// The blob, leaving an aggregate without members that has the memory of this one.
    pub fn take(&mut self) -> Bytes {
        self.take_unsealed().seal()
    }

    /// As [`Builder::take`], without the MD5: those of several aggregates are taken together, with
    /// [`Unsealed::seal_all`].
    pub fn take_unsealed(&mut self) -> Unsealed {
        let blob = self.encode();
        self.keys.clear();
        self.hash_keys.clear();
        self.hash_key_table.clear();
        self.members = 0;
        self.base_ms = 0;
        self.origins.clear();
        self.closed_origins_len = 0;
        blob
    }

    /// Takes the members' bytes with it, if that saves copying them.
    fn encode(&mut self) -> Unsealed {
        let len = self.len();
        let head = [&MAGIC[..], self.keys.encoded(), &self.hash_key_table];
        let (mut out, start) = self.records.take_behind(head, len);
        let version = if self.compressed { COMPRESSED_VERSION } else { VERSION };
        let envelope = Envelope { version, base_ms: self.base_ms };
        wire::put_bytes_key(&mut out, field::ENVELOPE, envelope.body_len());
        envelope.write_body(&mut out);
        for (origin, run) in &self.origins {
            wire::put_bytes_key(&mut out, field::ORIGIN, origin.body_len(*run));
            origin.write_body(*run, &mut out);
        }
        debug_assert_eq!(out.len() - start + DIGEST_LEN, len);
        Unsealed::new(out, start)
    }

    fn fixed_len(&self) -> usize {
        MAGIC.len() + self.keys.encoded().len() + self.hash_key_table.len() + self.records.len() + DIGEST_LEN
    }

    fn grown(&self, add: &Addition, origin: Option<&Origin>) -> usize {
        let open = match (self.origins.last(), origin) {
            (Some((last, run)), Some(origin)) if last.is(origin) => origin_len(last, run + 1),
            (Some((last, run)), Some(origin)) => origin_len(last, *run) + origin_len(origin, 1),
            (Some((last, run)), None) => origin_len(last, *run),
            (None, Some(origin)) => origin_len(origin, 1),
            (None, None) => 0,
        };
        self.fixed_len()
            + add.tables
            + wire::bytes_field_len(field::RECORD, add.body)
            + envelope_len(add.base_ms)
            + self.closed_origins_len
            + open
    }

    /// `rest`: the length of everything in the member but its indices.
    fn addition(&self, key: &[u8], hash_key: Option<HashKey>, base_ms: u64, rest: usize) -> Addition {
        let mut tables = 0;
        let found = self.keys.find(key);
        if found.is_err() {
            tables += wire::bytes_field_len(field::PARTITION_KEY, key.len());
        }
        let index = found.unwrap_or(self.keys.len() as u64);
        let mut body = wire::varint_field_len(field::record::KEY_INDEX, index) + rest;
        let hash_key = hash_key.map(|hash_key| {
            let known = self.hash_keys.get(&hash_key).copied();
            let index = known.unwrap_or(self.hash_keys.len() as u64);
            if known.is_none() {
                tables += wire::bytes_field_len(field::HASH_KEY, decimal_len(hash_key.0));
            }
            body += wire::varint_field_len(field::record::HASH_KEY_INDEX, index);
            (index, known.is_none())
        });
        Addition { key: found, hash_key, body, base_ms, tables }
    }

    fn addition_of(&self, record: &Record) -> Addition {
        // The first member whose time is not in its trace id sets the base for those that follow.
        let mut base_ms = self.base_ms;
        let mut rest = wire::bytes_field_len(field::record::DATA, record.data.len());
        if let Some(creation) = record.headers.creation() {
            if base_ms == 0 && !creation.time_is_in_trace_id() {
                base_ms = creation.created_ms;
            }
            rest += creation_len(creation, base_ms);
        }
        rest += record.headers.entries().iter().map(|(n, v)| tag_len(n.len(), v.len())).sum::<usize>();
        self.addition(record.key.as_str().as_bytes(), record.explicit_hash_key, base_ms, rest)
    }

    fn addition_of_member<'m>(&self, member: &Member<'m>) -> (Addition, Rest<'m>) {
        let (base_ms, rest) = Rest::of(member, self.base_ms);
        let hash_key = member.explicit_hash_key().and_then(|text| text.parse().ok());
        (self.addition(member.key_bytes(), hash_key, base_ms, rest.len(base_ms)), rest)
    }

    fn addition_of_ready<'r>(&self, ready: &Ready<'r>) -> (Addition, Rest<'r>) {
        let (base_ms, rest) = ready.rest(self.base_ms);
        (self.addition(ready.key_bytes(), ready.explicit_hash_key(), base_ms, rest.len(base_ms)), rest)
    }

    fn append_ready(&mut self, add: &Addition, rest: &Rest<'_>, ready: &Ready<'_>, origin: Option<&Origin>) {
        self.begin(add, ready.key_bytes(), ready.explicit_hash_key());
        rest.write(add.base_ms, self.records.end());
        self.count(origin);
    }

    fn append(&mut self, add: &Addition, record: &Record, origin: Option<&Origin>) {
        self.begin(add, record.key.as_str().as_bytes(), record.explicit_hash_key);
        let out = self.records.end();
        put_data(out, &record.data);
        if let Some(creation) = record.headers.creation() {
            put_creation(out, creation, add.base_ms);
        }
        for (name, value) in record.headers.entries() {
            put_tag(out, name, value);
        }
        self.count(origin);
    }

    fn append_member(
        &mut self,
        add: &Addition,
        rest: &Rest<'_>,
        member: &Member<'_>,
        origin: Option<&Origin>,
    ) {
        let hash_key = member.explicit_hash_key().and_then(|text| text.parse().ok());
        self.begin(add, member.key_bytes(), hash_key);
        rest.write(add.base_ms, self.records.end());
        self.count(origin);
    }

    /// Begins a member: its frame and its indices.
    fn begin(&mut self, add: &Addition, key: &[u8], hash_key: Option<HashKey>) {
        self.base_ms = add.base_ms;
        let key_index = add.key.unwrap_or_else(|missing| {
            self.keys.add(key, missing);
            self.keys.len() as u64 - 1
        });
        if let (Some((index, true)), Some(hash_key)) = (add.hash_key, hash_key) {
            wire::put_bytes_field(&mut self.hash_key_table, field::HASH_KEY, hash_key.to_string().as_bytes());
            self.hash_keys.insert(hash_key, index);
        }
        let out = self.records.end();
        wire::put_bytes_key(out, field::RECORD, add.body);
        wire::put_varint_field(out, field::record::KEY_INDEX, key_index);
        if let Some((index, _)) = add.hash_key {
            wire::put_varint_field(out, field::record::HASH_KEY_INDEX, index);
        }
    }

    fn count(&mut self, origin: Option<&Origin>) {
        self.members += 1;
        if let Some(origin) = origin {
            self.extend_origins(origin);
        }
    }

    fn extend_origins(&mut self, origin: &Origin) {
        match self.origins.last_mut() {
            Some((last, run)) if last.is(origin) => *run += 1,
            last => {
                self.closed_origins_len += last.map_or(0, |(origin, run)| origin_len(origin, *run));
                self.origins.push((origin.clone(), 1));
            }
        }
    }
}

pub(super) fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    wire::put_bytes_field(out, field::record::DATA, data);
}

pub(super) fn put_tag(out: &mut Vec<u8>, name: &str, value: &str) {
    wire::put_bytes_key(out, field::record::TAG, tag_body_len(name.len(), value.len()));
    wire::put_bytes_field(out, field::tag::NAME, name.as_bytes());
    wire::put_bytes_field(out, field::tag::VALUE, value.as_bytes());
}

pub(super) fn put_creation(out: &mut Vec<u8>, creation: &Creation, base_ms: u64) {
    let len = creation.tag_len(base_ms);
    wire::put_bytes_key(out, field::record::TAG, tag_body_len(creation::TAG.len(), len));
    wire::put_bytes_field(out, field::tag::NAME, creation::TAG.as_bytes());
    wire::put_bytes_key(out, field::tag::VALUE, len);
    creation.write_tag(base_ms, out);
}

pub(super) fn creation_len(creation: &Creation, base_ms: u64) -> usize {
    tag_len(creation::TAG.len(), creation.tag_len(base_ms))
}

/// The length of a creation context whose time is in its trace id.
pub(super) fn absolute_creation_len() -> usize {
    tag_len(creation::TAG.len(), Creation::ABSOLUTE_TAG_LEN)
}

fn tag_body_len(name: usize, value: usize) -> usize {
    wire::bytes_field_len(field::tag::NAME, name) + wire::bytes_field_len(field::tag::VALUE, value)
}

fn tag_len(name: usize, value: usize) -> usize {
    wire::bytes_field_len(field::record::TAG, tag_body_len(name, value))
}

pub(super) fn origin_len(origin: &Origin, run: u64) -> usize {
    wire::bytes_field_len(field::ORIGIN, origin.body_len(run))
}

fn envelope_len(base_ms: u64) -> usize {
    // Both versions take one byte.
    wire::bytes_field_len(field::ENVELOPE, Envelope { version: VERSION, base_ms }.body_len())
}

fn decimal_len(value: u128) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}
