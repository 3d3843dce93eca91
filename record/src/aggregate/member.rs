//! One member of an aggregate, borrowed.

use bytes::Bytes;
use bytestring::ByteString;

use super::decode::{Aggregate, Error, text};
use super::field;
use super::wire::{self, Span, Value};
use crate::creation::{self, Creation};
use crate::headers::Headers;
use crate::key::{self, HashKey, PartitionKey};
use crate::record::Record;

/// Where the parts of a member lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) key: u64,
    pub(super) hash_key: Option<u64>,
    data: Span,
    pub(super) body: Span,
    /// Where everything but the indices lies, if it is in one piece, as all known writers have it.
    pub(super) tail: Option<usize>,
    /// The creation context, in an aggregate of ours.
    pub(super) creation: Option<Creation>,
    /// Its time is relative to the aggregate's base time.
    pub(super) time_is_relative: bool,
}

impl Parts {
    /// Reads one member and checks all of its tags; `None` if it is malformed or lacks what the KPL
    /// requires (key index and data).
    pub(super) fn parse(blob: &[u8], body: Span) -> Option<Self> {
        let (mut key, mut hash_key, mut data) = (None, None, None);
        let (mut tail, mut in_one_piece) = (None, true);
        let mut at = body.start;
        while at < body.end {
            let start = at;
            let (number, value) = wire::read_field(blob, &mut at, body.end)?;
            if matches!(number, field::record::KEY_INDEX | field::record::HASH_KEY_INDEX) {
                in_one_piece &= tail.is_none();
            } else {
                tail.get_or_insert(start);
            }
            match (number, value) {
                (field::record::KEY_INDEX, Value::Varint(index)) => key = Some(index),
                (field::record::HASH_KEY_INDEX, Value::Varint(index)) => hash_key = Some(index),
                (field::record::DATA, Value::Bytes(span)) => data = Some(span),
                (field::record::TAG, Value::Bytes(span)) => {
                    parse_tag(blob, span)?;
                }
                (field::record::KEY_INDEX..=field::record::TAG, _) => return None,
                _ => {}
            }
        }
        Some(Self {
            key: key?,
            hash_key,
            data: data?,
            body,
            tail: tail.filter(|_| in_one_piece),
            creation: None,
            time_is_relative: false,
        })
    }
}

/// Reads a tag; its value may be missing, its name may not.
fn parse_tag(blob: &[u8], body: Span) -> Option<(Span, Option<Span>)> {
    let (mut name, mut value) = (None, None);
    let mut at = body.start;
    while at < body.end {
        match wire::read_field(blob, &mut at, body.end)? {
            (field::tag::NAME, Value::Bytes(span)) => name = Some(text(blob, span)?),
            (field::tag::VALUE, Value::Bytes(span)) => value = Some(text(blob, span)?),
            (field::tag::NAME | field::tag::VALUE, _) => return None,
            _ => {}
        }
    }
    Some((name?, value))
}

/// One member of an aggregate; nothing is copied until [`Member::to_record`].
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub(super) aggregate: &'a Aggregate,
    pub(super) parts: &'a Parts,
}

impl<'a> Member<'a> {
    /// The partition key.
    pub fn key(&self) -> &'a str {
        self.str(self.aggregate.keys[self.parts.key as usize])
    }

    /// The explicit hash key as it stands, if there is one.
    pub fn explicit_hash_key(&self) -> Option<&'a str> {
        self.parts.hash_key.map(|index| self.str(self.aggregate.hash_keys[index as usize]))
    }

    /// Where the member lies in the hash space.
    pub fn hash_key(&self) -> Result<HashKey, key::Error> {
        match self.explicit_hash_key() {
            Some(text) => text.parse(),
            None => Ok(key::hash_of(self.key())),
        }
    }

    /// The payload.
    pub fn data(&self) -> &'a [u8] {
        self.parts.data.of(&self.aggregate.blob)
    }

    /// Bytes that the member takes in its aggregate, the tables and its frame not counted.
    pub fn encoded_len(&self) -> usize {
        self.parts.body.end - self.parts.body.start
    }

    /// Key, headers and data, once each; the creation context not counted.
    pub fn user_bytes(&self) -> usize {
        let tags = self.tag_spans().map(|(name, value)| {
            let bytes = |span: Span| span.end - span.start;
            let value = value.map_or(0, bytes);
            if name.of(&self.aggregate.blob) == creation::TAG.as_bytes() { 0 } else { bytes(name) + value }
        });
        self.key().len() + self.data().len() + tags.sum::<usize>()
    }

    /// The tags in order, ours included: names and values.
    pub fn tags(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let this = *self;
        this.tag_spans().map(move |(name, value)| (this.str(name), value.map_or("", |v| this.str(v))))
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.tags().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The creation context, if there is one.
    pub fn creation(&self) -> Result<Option<Creation>, creation::Error> {
        if self.aggregate.envelope().is_some() {
            return Ok(self.parts.creation);
        }
        self.header(creation::TAG).map(|text| Creation::read_tag(text, self.aggregate.base_ms())).transpose()
    }

    /// The creation context of a member of an aggregate of ours; those of other writers have none that is
    /// known without looking.
    pub fn known_creation(&self) -> Option<&'a Creation> {
        self.parts.creation.as_ref()
    }

    /// The record, sharing the blob's memory.
    ///
    /// A `hw-t` tag in the aggregate of another writer that is no creation context is kept as a header.
    pub fn to_record(&self) -> Result<Record, Error> {
        let bad = |reason: String| Error::BadMember { member: self.place(), reason };
        let mut headers = Headers::new();
        for (name, value) in self.tag_spans() {
            if headers.creation().is_none() && self.str(name) == creation::TAG {
                let read = || {
                    let text = value.map_or("", |v| self.str(v));
                    Creation::read_tag(text, self.aggregate.base_ms()).ok()
                };
                // In an aggregate of ours it was read already; elsewhere it may be anything.
                if let Some(creation) = self.parts.creation.or_else(read) {
                    headers.set_creation(creation);
                    continue;
                }
            }
            headers.push_wire(self.share(name), value.map_or_else(ByteString::new, |v| self.share(v)));
        }
        Ok(Record {
            key: PartitionKey::new(self.share(self.aggregate.keys[self.parts.key as usize]))
                .map_err(|e| bad(e.to_string()))?,
            explicit_hash_key: self
                .explicit_hash_key()
                .map(str::parse)
                .transpose()
                .map_err(|e: key::Error| bad(e.to_string()))?,
            headers,
            data: self.slice(self.parts.data),
        })
    }

    /// Reads the creation context that a member of an aggregate of ours may have, and whether its time is
    /// relative to the aggregate's base time.
    pub(super) fn read_creation(&self) -> Result<Option<(Creation, bool)>, String> {
        let Some(text) = self.header(creation::TAG) else { return Ok(None) };
        let creation = Creation::read_tag(text, self.aggregate.base_ms()).map_err(|e| e.to_string())?;
        Ok(Some((creation, text.len() > Creation::ABSOLUTE_TAG_LEN)))
    }

    pub(super) fn is_creation_tag(blob: &[u8], body: Span) -> bool {
        parse_tag(blob, body).is_some_and(|(name, _)| name.of(blob) == creation::TAG.as_bytes())
    }

    fn place(&self) -> usize {
        let start = self.parts.body.start;
        self.aggregate.members().position(|m| m.parts.body.start == start).unwrap_or(0)
    }

    fn tag_spans(self) -> impl Iterator<Item = (Span, Option<Span>)> + use<'a> {
        let mut at = self.parts.body.start;
        std::iter::from_fn(move || {
            // Everything was checked when the member was parsed: a malformed field cannot come here.
            while at < self.parts.body.end {
                let field = wire::read_field(&self.aggregate.blob, &mut at, self.parts.body.end)?;
                if let (field::record::TAG, Value::Bytes(span)) = field {
                    return parse_tag(&self.aggregate.blob, span);
                }
            }
            None
        })
    }

    fn str(&self, span: Span) -> &'a str {
        // Checked to be UTF-8 when it was parsed; the check is cheap beside the MD5 of the blob.
        std::str::from_utf8(span.of(&self.aggregate.blob)).unwrap_or_default()
    }

    fn slice(&self, span: Span) -> Bytes {
        self.aggregate.blob.slice(span.start..span.end)
    }

    fn share(&self, span: Span) -> ByteString {
        ByteString::try_from(self.slice(span)).unwrap_or_default()
    }
}
