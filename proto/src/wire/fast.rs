//! Reads a record that is written as every known client writes it. All else is left to the general way: unknown fields,
//! long tags, and whatever is to be refused.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Header, Record};
use crate::v1::CreationContext;

// The keys of fields of bytes, texts and messages, by tag, and of numbers.
const SIZED_1: u8 = 1 << 3 | 2;
const SIZED_2: u8 = 2 << 3 | 2;
const SIZED_3: u8 = 3 << 3 | 2;
const SIZED_4: u8 = 4 << 3 | 2;
const SIZED_5: u8 = 5 << 3 | 2;
const SIZED_6: u8 = 6 << 3 | 2;
const SIZED_7: u8 = 7 << 3 | 2;
const NUMBER_3: u8 = 3 << 3;
const NUMBER_4: u8 = 4 << 3;

/// Where a reader stands in a message.
struct Reader<'m> {
    message: &'m Bytes,
    at: usize,
    end: usize,
}

impl<'m> Reader<'m> {
    /// A field's key; `None` at the end.
    fn key(&mut self) -> Option<u8> {
        (self.at < self.end).then(|| {
            self.at += 1;
            self.message[self.at - 1]
        })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = *self.message[..self.end].get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// What a sized field holds.
    fn sized(&mut self) -> Option<Reader<'m>> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (at, end) = (self.at, self.at.checked_add(length)?);
        self.at = end;
        (end <= self.end).then_some(Reader { message: self.message, at, end })
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let of = self.sized()?;
        Some(self.message.slice(of.at..of.end))
    }

    fn text(&mut self) -> Option<ByteString> {
        ByteString::try_from(self.bytes()?).ok()
    }
}

pub(super) fn record(message: &Bytes) -> Option<Record> {
    let mut record = Record::default();
    let mut reader = Reader { message, at: 0, end: message.len() };
    while let Some(key) = reader.key() {
        match key {
            SIZED_1 => record.key = reader.text()?,
            SIZED_2 => record.explicit_hash_key = reader.text()?,
            SIZED_3 => record.headers.push(header(reader.sized()?)?),
            SIZED_4 => record.data = reader.bytes()?,
            SIZED_5 => record.id = reader.text()?,
            SIZED_6 => record.traceparent = reader.text()?,
            // A second one is merged into the first.
            SIZED_7 if record.creation.is_none() => {
                record.creation = Some(creation(reader.sized()?)?);
            }
            _ => return None,
        }
    }
    Some(record)
}

fn header(mut reader: Reader<'_>) -> Option<Header> {
    let mut header = Header::default();
    while let Some(key) = reader.key() {
        match key {
            SIZED_1 => header.name = reader.text()?,
            SIZED_2 => header.value = reader.text()?,
            _ => return None,
        }
    }
    Some(header)
}

fn creation(mut reader: Reader<'_>) -> Option<CreationContext> {
    let mut creation = CreationContext::default();
    while let Some(key) = reader.key() {
        match key {
            SIZED_1 => creation.trace_id = reader.bytes()?,
            SIZED_2 => creation.span_id = reader.bytes()?,
            NUMBER_3 => creation.flags = u32::try_from(reader.varint()?).ok()?,
            NUMBER_4 => creation.created_unix_ms = reader.varint()?,
            _ => return None,
        }
    }
    Some(creation)
}
