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
    /// Everything but the indices, if it is in one piece, as all known writers have it.
    pub(super) tail: Option<Span>,
    /// The creation context, in an aggregate of ours.
    pub(super) creation: Option<Creation>,
    /// Its time is relative to the aggregate's base time.
    pub(super) time_is_relative: bool,
    /// The member's tags among those of the aggregate.
    tags_from: u32,
    tags: u32,
    /// The first of them that has the name of the creation context; [`Parts::NONE`] if none has.
    creation_tag: u32,
}

/// Where a tag's name and value lie. A value that is missing is empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    name: Span,
    value: Span,
}

impl Parts {
    const NONE: u32 = u32::MAX;

    /// Reads one member and checks all of its tags, which are added to `tags`; `None` if it is malformed or lacks
    /// what the KPL requires (key index and data).
    pub(super) fn parse(blob: &[u8], body: Span, tags: &mut Vec<Tag>) -> Option<Self> {
        let (mut key, mut hash_key, mut data) = (None, None, None);
        let (mut tail, mut in_one_piece) = (None, true);
        let tags_from = tags.len();
        let mut creation_tag = Self::NONE;
        let mut ascii = None;
        let (mut at, end) = (body.start(), body.end());
        while at < end {
            let start = at;
            let (number, value) = wire::read_field(blob, &mut at, end)?;
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
                    // Tags are what is left of a member, and short: where all of it is ASCII, so is each text.
                    let ascii = *ascii.get_or_insert_with(|| blob[start..end].is_ascii());
                    let tag = Tag::parse(blob, span, ascii)?;
                    if creation_tag == Self::NONE && tag.name.of(blob) == creation::TAG.as_bytes() {
                        creation_tag = tags.len() as u32;
                    }
                    tags.push(tag);
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
            tail: tail.filter(|_| in_one_piece).map(|tail| Span::new(tail, end)),
            creation: None,
            time_is_relative: false,
            tags_from: tags_from as u32,
            tags: (tags.len() - tags_from) as u32,
            creation_tag,
        })
    }

    /// Reads the creation context that a member of an aggregate of ours may have, and whether its time is
    /// relative to the aggregate's base time.
    pub(super) fn read_creation(&mut self, blob: &[u8], tags: &[Tag], base_ms: u64) -> Result<(), String> {
        let Some(tag) = tags.get(self.creation_tag as usize) else { return Ok(()) };
        let text = tag.value.of(blob);
        self.creation = Some(Creation::read_tag(text, base_ms).map_err(|error| error.to_string())?);
        self.time_is_relative = text.len() > Creation::ABSOLUTE_TAG_LEN;
        Ok(())
    }
}

impl Tag {
    /// Reads a tag; its value may be missing, its name may not.
    #[inline]
    fn parse(blob: &[u8], body: Span, ascii: bool) -> Option<Self> {
        let text = |span| if ascii { Some(span) } else { text(blob, span) };
        let (mut name, mut value) = (None, Span::EMPTY);
        let mut at = body.start();
        while at < body.end() {
            match wire::read_field(blob, &mut at, body.end())? {
                (field::tag::NAME, Value::Bytes(span)) => name = Some(text(span)?),
                (field::tag::VALUE, Value::Bytes(span)) => value = text(span)?,
                (field::tag::NAME | field::tag::VALUE, _) => return None,
                _ => {}
            }
        }
        Some(Self { name: name?, value })
    }
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
        self.str(self.key_span())
    }

    /// The explicit hash key as it stands, if there is one.
    pub fn explicit_hash_key(&self) -> Option<&'a str> {
        self.parts.hash_key.map(|index| self.str(self.aggregate.hash_keys[index as usize]))
    }

    /// Where the member lies in the hash space. The aggregate's keys are hashed together, when the first of them is
    /// asked for.
    pub fn hash_key(&self) -> Result<HashKey, key::Error> {
        match self.explicit_hash_key() {
            Some(text) => text.parse(),
            None => Ok(self.aggregate.key_hashes()[self.parts.key as usize]),
        }
    }

    /// The payload.
    pub fn data(&self) -> &'a [u8] {
        self.parts.data.of(&self.aggregate.blob)
    }

    /// Bytes that the member takes in its aggregate, the tables and its frame not counted.
    pub fn encoded_len(&self) -> usize {
        self.parts.body.len()
    }

    pub(super) fn key_bytes(&self) -> &'a [u8] {
        self.key_span().of(&self.aggregate.blob)
    }

    /// Bytes of the partition key.
    pub fn key_len(&self) -> usize {
        self.key_span().len()
    }

    /// Key, headers and data, once each; the creation context not counted.
    pub fn user_bytes(&self) -> usize {
        // The blob is not looked at: it may have left the cache since it was taken apart.
        let tags = self.raw().iter().zip(self.parts.tags_from..);
        let bytes = tags.map(|(tag, place)| match place == self.parts.creation_tag {
            true => 0,
            false => tag.name.len() + tag.value.len(),
        });
        self.key_len() + self.parts.data.len() + bytes.sum::<usize>()
    }

    /// The tags in order, ours included: names and values.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + use<'a> {
        let this = *self;
        this.raw().iter().map(move |tag| (this.str(tag.name), this.str(tag.value)))
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let blob = &self.aggregate.blob;
        let tag = self.raw().iter().find(|tag| tag.name.of(blob) == name.as_bytes())?;
        Some(self.str(tag.value))
    }

    /// Collects the values of several headers in one walk over the tags. `place_of` says where in `values` the value
    /// of a name belongs, if it is wanted; of a header that stands several times, the first one counts.
    pub fn header_values(&self, place_of: impl Fn(&[u8]) -> Option<usize>, values: &mut [Option<&'a str>]) {
        let blob = &self.aggregate.blob;
        for tag in self.raw() {
            let wanted = place_of(tag.name.of(blob)).and_then(|place| values.get_mut(place));
            if let Some(value @ None) = wanted {
                *value = Some(self.str(tag.value));
            }
        }
    }

    /// The creation context, if there is one.
    pub fn creation(&self) -> Result<Option<Creation>, creation::Error> {
        if self.aggregate.envelope().is_some() {
            return Ok(self.parts.creation);
        }
        let tag = self.aggregate.tags.get(self.parts.creation_tag as usize);
        tag.map(|tag| self.read_creation(tag)).transpose()
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
        let mut headers = Headers::with_capacity(self.raw().len());
        for (tag, place) in self.raw().iter().zip(self.parts.tags_from..) {
            if headers.creation().is_none() && place >= self.parts.creation_tag && self.is_creation(tag) {
                // In an aggregate of ours it was read already; elsewhere it may be anything.
                if let Some(creation) = self.parts.creation.or_else(|| self.read_creation(tag).ok()) {
                    headers.set_creation(creation);
                    continue;
                }
            }
            headers.push_wire(self.share(tag.name), self.share(tag.value));
        }
        Ok(Record {
            key: PartitionKey::new(self.share(self.key_span())).map_err(|e| bad(e.to_string()))?,
            explicit_hash_key: self
                .explicit_hash_key()
                .map(str::parse)
                .transpose()
                .map_err(|e: key::Error| bad(e.to_string()))?,
            headers,
            data: self.slice(self.parts.data),
        })
    }

    pub(super) fn is_creation_tag(blob: &[u8], body: Span) -> bool {
        Tag::parse(blob, body, false).is_some_and(|tag| tag.name.of(blob) == creation::TAG.as_bytes())
    }

    fn read_creation(&self, tag: &Tag) -> Result<Creation, creation::Error> {
        Creation::read_tag(tag.value.of(&self.aggregate.blob), self.aggregate.base_ms())
    }

    fn is_creation(&self, tag: &Tag) -> bool {
        tag.name.of(&self.aggregate.blob) == creation::TAG.as_bytes()
    }

    fn place(&self) -> usize {
        let body = self.parts.body;
        self.aggregate.members().position(|m| m.parts.body == body).unwrap_or(0)
    }

    fn key_span(&self) -> Span {
        self.aggregate.keys[self.parts.key as usize]
    }

    /// The tags in order.
    fn raw(self) -> &'a [Tag] {
        let from = self.parts.tags_from as usize;
        &self.aggregate.tags[from..from + self.parts.tags as usize]
    }

    fn str(&self, span: Span) -> &'a str {
        // Checked to be UTF-8 when it was parsed; the check is cheap beside the MD5 of the blob.
        std::str::from_utf8(span.of(&self.aggregate.blob)).unwrap_or_default()
    }

    fn slice(&self, span: Span) -> Bytes {
        self.aggregate.blob.slice(span.start()..span.end())
    }

    fn share(&self, span: Span) -> ByteString {
        ByteString::try_from(self.slice(span)).unwrap_or_default()
    }
}
