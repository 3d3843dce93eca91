//! Putting an aggregate together.

use bytes::Bytes;
use bytestring::ByteString;
use md5::{Digest, Md5};
use rustc_hash::FxHashMap;

use super::envelope::{Envelope, Origin};
use super::{DIGEST_LEN, MAGIC, VERSION, field, wire};
use crate::creation;
use crate::key::HashKey;
use crate::record::Record;

/// Puts records together into one aggregated blob.
///
/// [`Builder::len_with`] tells the exact length that the blob would have with one more record, so that
/// a caller can stop before a limit.
#[derive(Debug, Default)]
pub struct Builder {
    keys: FxHashMap<ByteString, u64>,
    hash_keys: FxHashMap<HashKey, u64>,
    // The three parts of the message, each already encoded.
    key_table: Vec<u8>,
    hash_key_table: Vec<u8>,
    records: Vec<u8>,
    members: usize,
    base_ms: u64,
    origins: Vec<(Origin, u64)>,
    closed_origins_len: usize,
}

/// The sizes that one more record would bring.
struct Addition {
    key_index: u64,
    new_key: bool,
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
        let add = self.addition(record);
        let open = match (self.origins.last(), origin) {
            (Some((last, run)), Some(origin)) if last == origin => origin_len(last, run + 1),
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

    /// Adds a record that was created here.
    pub fn push(&mut self, record: &Record) {
        self.push_from(record, None);
    }

    /// Adds a record, saying where a router found it.
    ///
    /// Either all members of an aggregate have an origin or none has.
    pub fn push_from(&mut self, record: &Record, origin: Option<&Origin>) {
        let add = self.addition(record);
        self.base_ms = add.base_ms;
        if add.new_key {
            let key = record.key.text();
            wire::put_bytes_field(&mut self.key_table, field::PARTITION_KEY, key.as_bytes());
            self.keys.insert(key.clone(), add.key_index);
        }
        if let (Some((index, true)), Some(hash_key)) = (add.hash_key, record.explicit_hash_key) {
            wire::put_bytes_field(&mut self.hash_key_table, field::HASH_KEY, hash_key.to_string().as_bytes());
            self.hash_keys.insert(hash_key, index);
        }
        let out = &mut self.records;
        wire::put_bytes_key(out, field::RECORD, add.body);
        wire::put_varint_field(out, field::record::KEY_INDEX, add.key_index);
        if let Some((index, _)) = add.hash_key {
            wire::put_varint_field(out, field::record::HASH_KEY_INDEX, index);
        }
        wire::put_bytes_field(out, field::record::DATA, &record.data);
        if let Some(creation) = record.headers.creation() {
            let len = creation.tag_len(self.base_ms);
            wire::put_bytes_key(out, field::record::TAG, tag_body_len(creation::TAG.len(), len));
            wire::put_bytes_field(out, field::tag::NAME, creation::TAG.as_bytes());
            wire::put_bytes_key(out, field::tag::VALUE, len);
            creation.write_tag(self.base_ms, out);
        }
        for (name, value) in record.headers.entries() {
            wire::put_bytes_key(out, field::record::TAG, tag_body_len(name.len(), value.len()));
            wire::put_bytes_field(out, field::tag::NAME, name.as_bytes());
            wire::put_bytes_field(out, field::tag::VALUE, value.as_bytes());
        }
        self.members += 1;
        if let Some(origin) = origin {
            self.extend_origins(origin);
        }
    }

    /// The blob: what goes into a Kinesis record's data.
    pub fn finish(self) -> Bytes {
        let len = self.len();
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.key_table);
        out.extend_from_slice(&self.hash_key_table);
        out.extend_from_slice(&self.records);
        let envelope = Envelope { version: VERSION, base_ms: self.base_ms };
        wire::put_bytes_key(&mut out, field::ENVELOPE, envelope.body_len());
        envelope.write_body(&mut out);
        for (origin, run) in &self.origins {
            wire::put_bytes_key(&mut out, field::ORIGIN, origin.body_len(*run));
            origin.write_body(*run, &mut out);
        }
        let digest = Md5::digest(&out[MAGIC.len()..]);
        out.extend_from_slice(&digest);
        debug_assert_eq!(out.len(), len);
        Bytes::from(out)
    }

    fn fixed_len(&self) -> usize {
        MAGIC.len() + self.key_table.len() + self.hash_key_table.len() + self.records.len() + DIGEST_LEN
    }

    fn addition(&self, record: &Record) -> Addition {
        let mut tables = 0;
        let known = self.keys.get(record.key.text()).copied();
        let key_index = known.unwrap_or(self.keys.len() as u64);
        if known.is_none() {
            tables += wire::bytes_field_len(field::PARTITION_KEY, record.key.text().len());
        }
        let mut body = wire::varint_field_len(field::record::KEY_INDEX, key_index)
            + wire::bytes_field_len(field::record::DATA, record.data.len());
        let hash_key = record.explicit_hash_key.map(|hash_key| {
            let known = self.hash_keys.get(&hash_key).copied();
            let index = known.unwrap_or(self.hash_keys.len() as u64);
            if known.is_none() {
                tables += wire::bytes_field_len(field::HASH_KEY, decimal_len(hash_key.0));
            }
            body += wire::varint_field_len(field::record::HASH_KEY_INDEX, index);
            (index, known.is_none())
        });
        // The first member whose time is not in its trace id sets the base for those that follow.
        let mut base_ms = self.base_ms;
        if let Some(creation) = record.headers.creation() {
            if base_ms == 0 && !creation.time_is_in_trace_id() {
                base_ms = creation.created_ms;
            }
            body += tag_len(creation::TAG.len(), creation.tag_len(base_ms));
        }
        body += record.headers.entries().iter().map(|(n, v)| tag_len(n.len(), v.len())).sum::<usize>();
        Addition { key_index, new_key: known.is_none(), hash_key, body, base_ms, tables }
    }

    fn extend_origins(&mut self, origin: &Origin) {
        match self.origins.last_mut() {
            Some((last, run)) if last == origin => *run += 1,
            last => {
                self.closed_origins_len += last.map_or(0, |(origin, run)| origin_len(origin, *run));
                self.origins.push((origin.clone(), 1));
            }
        }
    }
}

fn tag_body_len(name: usize, value: usize) -> usize {
    wire::bytes_field_len(field::tag::NAME, name) + wire::bytes_field_len(field::tag::VALUE, value)
}

fn tag_len(name: usize, value: usize) -> usize {
    wire::bytes_field_len(field::record::TAG, tag_body_len(name, value))
}

fn origin_len(origin: &Origin, run: u64) -> usize {
    wire::bytes_field_len(field::ORIGIN, origin.body_len(run))
}

fn envelope_len(base_ms: u64) -> usize {
    wire::bytes_field_len(field::ENVELOPE, Envelope { version: VERSION, base_ms }.body_len())
}

fn decimal_len(value: u128) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}
