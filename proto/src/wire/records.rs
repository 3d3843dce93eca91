//! The records of a request.

use bytes::Bytes;
use prost::DecodeError;
use prost::encoding::{WireType, check_wire_type};

use super::read::{Reader, Span, no_text};
use crate::{MAX_BATCH_RECORDS, v1};

/// The records of a request, in their order.
#[derive(Debug, Default)]
pub struct Records {
    /// Data and ids lie in it.
    message: Bytes,
    /// All other parts of the records.
    texts: String,
    places: Vec<Place>,
    headers: Vec<(Span, Span)>,
    /// More records than a batch may have are counted, and not kept.
    beyond: usize,
    user_bytes: usize,
}

/// The records of a message that is being read.
#[derive(Debug)]
pub(super) struct Builder {
    records: Records,
    /// Texts that are checked together at the end. A zero stands between them: what is cut off in one does not become
    /// whole with the next.
    texts: Vec<u8>,
}

/// Where the parts of a record lie.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    key: Span,
    explicit_hash_key: Span,
    id: Span,
    traceparent: Span,
    /// The first of its headers, and how many there are.
    headers: (u32, u32),
    data: Span,
    creation: Option<CreationPlace>,
}

#[derive(Debug, Clone, Copy, Default)]
struct CreationPlace {
    trace_id: Span,
    span_id: Span,
    flags: u32,
    created_unix_ms: u64,
}

impl Records {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len() + self.beyond
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys, headers and data.
    pub fn user_bytes(&self) -> usize {
        self.user_bytes
    }

    /// The records, as many as a batch may have.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.places.iter().map(|place| Record { records: self, place })
    }

    fn add(&mut self, place: Place) {
        self.places.push(place);
        let (from, count) = place.headers;
        let headers = &self.headers[from as usize..(from + count) as usize];
        let headers: u32 = headers.iter().map(|(name, value)| name.len + value.len).sum();
        self.user_bytes += (place.key.len + headers + place.data.len) as usize;
    }
}

impl Builder {
    /// None yet of this message.
    pub(super) fn new(message: Bytes) -> Self {
        Self { records: Records { message, ..Records::default() }, texts: Vec::new() }
    }

    /// The records, if every text is one.
    pub(super) fn finish(self) -> Result<Records, DecodeError> {
        let texts = String::from_utf8(self.texts).map_err(|_| no_text())?;
        Ok(Records { texts, ..self.records })
    }

    #[inline]
    fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.texts.len() as u32;
        self.texts.extend_from_slice(text);
        self.texts.push(0);
        Span { start, len: text.len() as u32 }
    }

    /// Reads one more record of the message.
    pub(super) fn push(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        let encoded = reader.rest().len();
        let mut place = Place { headers: (self.records.headers.len() as u32, 0), ..Place::default() };
        let texts = self.texts.len();
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                1 => place.key = self.keep(reader.text(wire_type)?),
                2 => place.explicit_hash_key = self.keep(reader.text(wire_type)?),
                3 => {
                    let header = self.header(reader.sized(wire_type)?)?;
                    self.records.headers.push(header);
                }
                4 => place.data = reader.sized(wire_type)?.span(),
                5 => place.id = self.keep(reader.text(wire_type)?),
                6 => place.traceparent = self.keep(reader.text(wire_type)?),
                7 => place.creation.get_or_insert_default().merge(reader.sized(wire_type)?)?,
                _ => reader.skip(field, wire_type)?,
            }
        }
        let records = &mut self.records;
        place.headers.1 = records.headers.len() as u32 - place.headers.0;
        if records.places.len() == MAX_BATCH_RECORDS {
            // Refused as a whole: nothing of it is looked at but its texts.
            std::str::from_utf8(&self.texts[texts..]).map_err(|_| no_text())?;
            self.texts.truncate(texts);
            records.headers.truncate(place.headers.0 as usize);
            records.beyond += 1;
            return Ok(());
        }
        records.add(place);
        if records.places.len() == 1 {
            self.expect_alike(encoded);
        }
        Ok(())
    }

    /// The records of a batch are much alike, so the first one tells how much there will be: what grew as they come
    /// would be moved several times. A stranger's first record may promise what it likes: the message bounds it.
    fn expect_alike(&mut self, encoded: usize) {
        let records = &mut self.records;
        let more = (records.message.len() / encoded.max(8)).min(MAX_BATCH_RECORDS);
        records.places.reserve(more);
        records.headers.reserve(records.headers.len() * more);
        self.texts.reserve((self.texts.len() * more).min(records.message.len()));
    }

    fn header(&mut self, mut reader: Reader<'_>) -> Result<(Span, Span), DecodeError> {
        let (mut name, mut value) = (Span::default(), Span::default());
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                1 => name = self.keep(reader.text(wire_type)?),
                2 => value = self.keep(reader.text(wire_type)?),
                _ => reader.skip(field, wire_type)?,
            }
        }
        Ok((name, value))
    }
}

impl CreationPlace {
    fn merge(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                1 => self.trace_id = reader.sized(wire_type)?.span(),
                2 => self.span_id = reader.sized(wire_type)?.span(),
                3 | 4 => {
                    check_wire_type(WireType::Varint, wire_type)?;
                    let value = reader.varint()?;
                    match field {
                        // As protobuf has it: the lower bits.
                        3 => self.flags = value as u32,
                        _ => self.created_unix_ms = value,
                    }
                }
                _ => reader.skip(field, wire_type)?,
            }
        }
        Ok(())
    }
}

/// Records that did not come as such a message are laid out like those that did.
impl From<Vec<v1::Record>> for Records {
    fn from(given: Vec<v1::Record>) -> Self {
        let mut records = Self::default();
        let mut texts = String::new();
        let mut keep = |text: &str| {
            let start = texts.len() as u32;
            texts.push_str(text);
            Span { start, len: text.len() as u32 }
        };
        let bytes = given.iter().map(|record| record.data.len() + 24).sum();
        let mut message = Vec::with_capacity(bytes);
        let mut lay = |bytes: &[u8]| {
            let start = message.len() as u32;
            message.extend_from_slice(bytes);
            Span { start, len: bytes.len() as u32 }
        };
        for record in given {
            let from = records.headers.len() as u32;
            for v1::Header { name, value } in &record.headers {
                let header = (keep(name), keep(value));
                records.headers.push(header);
            }
            let creation = record.creation.map(|creation| CreationPlace {
                trace_id: lay(&creation.trace_id),
                span_id: lay(&creation.span_id),
                flags: creation.flags,
                created_unix_ms: creation.created_unix_ms,
            });
            let place = Place {
                key: keep(&record.key),
                explicit_hash_key: keep(&record.explicit_hash_key),
                id: keep(&record.id),
                traceparent: keep(&record.traceparent),
                headers: (from, record.headers.len() as u32),
                data: lay(&record.data),
                creation,
            };
            records.add(place);
        }
        (records.message, records.texts) = (message.into(), texts);
        records
    }
}

/// One record of a request, whose fields the contract describes.
#[derive(Debug, Clone, Copy)]
pub struct Record<'r> {
    records: &'r Records,
    place: &'r Place,
}

/// A creation context, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Context<'r> {
    pub trace_id: &'r [u8],
    pub span_id: &'r [u8],
    pub flags: u32,
    pub created_unix_ms: u64,
}

#[allow(missing_docs)]
impl<'r> Record<'r> {
    fn text(&self, span: Span) -> &'r str {
        span.in_text(&self.records.texts)
    }

    pub fn key(&self) -> &'r str {
        self.text(self.place.key)
    }

    pub fn explicit_hash_key(&self) -> &'r str {
        self.text(self.place.explicit_hash_key)
    }

    pub fn id(&self) -> &'r str {
        self.text(self.place.id)
    }

    pub fn traceparent(&self) -> &'r str {
        self.text(self.place.traceparent)
    }

    /// Names and values.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'r str, &'r str)> + use<'r> {
        let (from, count) = self.place.headers;
        let texts = &*self.records.texts;
        let headers = &self.records.headers[from as usize..(from + count) as usize];
        headers.iter().map(|(name, value)| (name.in_text(texts), value.in_text(texts)))
    }

    pub fn data(&self) -> &'r [u8] {
        self.place.data.of(&self.records.message)
    }

    pub fn creation(&self) -> Option<Context<'r>> {
        let message = &*self.records.message;
        self.place.creation.map(|creation| Context {
            trace_id: creation.trace_id.of(message),
            span_id: creation.span_id.of(message),
            flags: creation.flags,
            created_unix_ms: creation.created_unix_ms,
        })
    }
}
