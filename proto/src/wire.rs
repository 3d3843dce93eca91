//! The requests as a gateway reads them: texts are slices of the received message, not copies of it.
//!
//! What `prost` generates copies each text into memory of its own: for a record of three headers that is seven
//! allocations, which other threads free. [`Record`] reads and writes the same bytes as [`v1::Record`]; the messages
//! that hold records, and the server, are generated once more over it. Everything else is [`v1`]'s.

use ::bytes::{Buf, BufMut, Bytes};
use bytestring::ByteString;
use prost::encoding::{
    DecodeContext, WireType, bytes, check_wire_type, decode_key, message, skip_field, uint64,
};
use prost::{DecodeError, Message};

use crate::v1;

mod fast;

pub use self::generated::{PutRequest, PutStreamRequest, gateway_server, put_stream_request};

#[allow(missing_debug_implementations, unreachable_pub, missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/wire/headworks.v1.rs"));
}

/// The message `headworks.v1.Record`, whose fields the contract describes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Record {
    pub key: ByteString,
    pub explicit_hash_key: ByteString,
    pub headers: Vec<Header>,
    pub data: Bytes,
    pub id: ByteString,
    pub traceparent: ByteString,
    pub creation: Option<v1::CreationContext>,
}

/// The message `headworks.v1.PutStreamRequest.Batch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Batch {
    pub number: u64,
    pub records: Vec<Record>,
}

/// The message `headworks.v1.Header`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub name: ByteString,
    pub value: ByteString,
}

impl From<v1::Record> for Record {
    fn from(record: v1::Record) -> Self {
        let header = |v1::Header { name, value }| Header { name: name.into(), value: value.into() };
        Self {
            key: record.key.into(),
            explicit_hash_key: record.explicit_hash_key.into(),
            headers: record.headers.into_iter().map(header).collect(),
            data: record.data,
            id: record.id.into(),
            traceparent: record.traceparent.into(),
            creation: record.creation,
        }
    }
}

/// Reads one more record. The records of a batch are much alike, so the first one tells how many there are: growing as
/// they come would move each of them several times.
fn merge_record(
    wire_type: WireType,
    records: &mut Vec<Record>,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    let before = buf.remaining();
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    let mut record = Bytes::new();
    bytes::merge(wire_type, &mut record, buf, ctx.clone())?;
    records.push(match fast::record(&record) {
        Some(record) => record,
        None => {
            let mut slow = Record::default();
            while record.has_remaining() {
                let (tag, wire_type) = decode_key(&mut record)?;
                slow.merge_field(tag, wire_type, &mut record, ctx.clone())?;
            }
            slow
        }
    });
    if records.len() == 1 {
        let left = buf.remaining();
        // At most as many as the contract allows: what a stranger's first record seems to promise is not believed.
        records.reserve((left / (before - left).max(1) + 1).min(crate::MAX_BATCH_RECORDS));
    }
    Ok(())
}

fn merge_text(
    wire_type: WireType,
    value: &mut ByteString,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    let mut read = Bytes::new();
    bytes::merge(wire_type, &mut read, buf, ctx)?;
    #[allow(deprecated, reason = "an error of this kind can be made in no other way")]
    let text = ByteString::try_from(read)
        .map_err(|_| DecodeError::new("invalid string value: data is not UTF-8 encoded"))?;
    *value = text;
    Ok(())
}

/// Proto3 leaves out what is empty.
fn encode_text(tag: u32, value: &ByteString, buf: &mut impl BufMut) {
    if !value.is_empty() {
        bytes::encode(tag, value.as_bytes(), buf);
    }
}

/// A decoding error tells in which message and field it is.
fn placed(
    merged: Result<(), DecodeError>,
    message: &'static str,
    field: &'static str,
) -> Result<(), DecodeError> {
    merged.map_err(|mut error| {
        error.push(message, field);
        error
    })
}

fn text_len(tag: u32, value: &ByteString) -> usize {
    if value.is_empty() { 0 } else { bytes::encoded_len(tag, value.as_bytes()) }
}

impl Message for Record {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encode_text(1, &self.key, buf);
        encode_text(2, &self.explicit_hash_key, buf);
        message::encode_repeated(3, &self.headers, buf);
        if !self.data.is_empty() {
            bytes::encode(4, &self.data, buf);
        }
        encode_text(5, &self.id, buf);
        encode_text(6, &self.traceparent, buf);
        if let Some(creation) = &self.creation {
            message::encode(7, creation, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (merged, field) = match tag {
            1 => (merge_text(wire_type, &mut self.key, buf, ctx), "key"),
            2 => (merge_text(wire_type, &mut self.explicit_hash_key, buf, ctx), "explicit_hash_key"),
            3 => (message::merge_repeated(wire_type, &mut self.headers, buf, ctx), "headers"),
            4 => (bytes::merge(wire_type, &mut self.data, buf, ctx), "data"),
            5 => (merge_text(wire_type, &mut self.id, buf, ctx), "id"),
            6 => (merge_text(wire_type, &mut self.traceparent, buf, ctx), "traceparent"),
            7 => {
                let creation = self.creation.get_or_insert_default();
                (message::merge(wire_type, creation, buf, ctx), "creation")
            }
            _ => return skip_field(wire_type, tag, buf, ctx),
        };
        placed(merged, "Record", field)
    }

    fn encoded_len(&self) -> usize {
        text_len(1, &self.key)
            + text_len(2, &self.explicit_hash_key)
            + message::encoded_len_repeated(3, &self.headers)
            + if self.data.is_empty() { 0 } else { bytes::encoded_len(4, &self.data) }
            + text_len(5, &self.id)
            + text_len(6, &self.traceparent)
            + self.creation.as_ref().map_or(0, |creation| message::encoded_len(7, creation))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for Batch {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.number != 0 {
            uint64::encode(1, &self.number, buf);
        }
        message::encode_repeated(2, &self.records, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (merged, field) = match tag {
            1 => (uint64::merge(wire_type, &mut self.number, buf, ctx), "number"),
            2 => (merge_record(wire_type, &mut self.records, buf, ctx), "records"),
            _ => return skip_field(wire_type, tag, buf, ctx),
        };
        placed(merged, "Batch", field)
    }

    fn encoded_len(&self) -> usize {
        let number = if self.number == 0 { 0 } else { uint64::encoded_len(1, &self.number) };
        number + message::encoded_len_repeated(2, &self.records)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for Header {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encode_text(1, &self.name, buf);
        encode_text(2, &self.value, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (merged, field) = match tag {
            1 => (merge_text(wire_type, &mut self.name, buf, ctx), "name"),
            2 => (merge_text(wire_type, &mut self.value, buf, ctx), "value"),
            _ => return skip_field(wire_type, tag, buf, ctx),
        };
        placed(merged, "Header", field)
    }

    fn encoded_len(&self) -> usize {
        text_len(1, &self.name) + text_len(2, &self.value)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context() -> impl Strategy<Value = v1::CreationContext> {
        (any::<Vec<u8>>(), any::<Vec<u8>>(), any::<u32>(), any::<u64>()).prop_map(
            |(trace, span, flags, ms)| v1::CreationContext {
                trace_id: trace.into(),
                span_id: span.into(),
                flags,
                created_unix_ms: ms,
            },
        )
    }

    fn record() -> impl Strategy<Value = v1::Record> {
        let text = || proptest::string::string_regex(".{0,20}").unwrap();
        let header = (text(), text()).prop_map(|(name, value)| v1::Header { name, value });
        let headers = proptest::collection::vec(header, 0..4);
        let texts = (text(), text(), text(), text());
        (texts, headers, any::<Vec<u8>>(), proptest::option::of(context())).prop_map(
            |((key, explicit_hash_key, id, traceparent), headers, data, creation)| v1::Record {
                key,
                explicit_hash_key,
                headers,
                data: data.into(),
                id,
                traceparent,
                creation,
            },
        )
    }

    proptest! {
        #[test]
        fn reads_and_writes_what_the_generated_message_does(record in record()) {
            let bytes = record.encode_to_vec();
            let ours = Record::decode(&bytes[..]).unwrap();
            prop_assert_eq!(&ours, &Record::from(record));
            prop_assert_eq!(ours.encoded_len(), bytes.len());
            prop_assert_eq!(ours.encode_to_vec(), bytes);
        }

        #[test]
        fn the_fast_way_reads_what_the_slow_one_does(record in record()) {
            let bytes = record.encode_to_vec();
            // It leaves numbers of ten bytes to the general way.
            let late = record.creation.as_ref().is_some_and(|creation| creation.created_unix_ms >> 63 == 1);
            prop_assert_eq!(fast::record(&bytes.into()), (!late).then(|| Record::from(record)));
        }

        #[test]
        fn the_fast_way_takes_nothing_that_the_slow_one_refuses(bytes: Vec<u8>, record in record(), cut: prop::sample::Index, flip: u8) {
            let mut damaged = record.encode_to_vec();
            if !damaged.is_empty() {
                let at = cut.index(damaged.len());
                damaged[at] ^= flip;
            }
            for bytes in [bytes, damaged] {
                if let Some(fast) = fast::record(&bytes.clone().into()) {
                    prop_assert_eq!(Ok(fast), Record::decode(&bytes[..]));
                }
            }
        }

        #[test]
        fn a_batch_refuses_what_the_generated_message_refuses(bytes: Vec<u8>, records in proptest::collection::vec(record(), 1..3), cut: prop::sample::Index, flip: u8) {
            let mut damaged = v1::put_stream_request::Batch { number: 7, records }.encode_to_vec();
            let at = cut.index(damaged.len());
            damaged[at] ^= flip;
            for bytes in [bytes, damaged] {
                let theirs = v1::put_stream_request::Batch::decode(&bytes[..]);
                let same = |batch: v1::put_stream_request::Batch| Batch {
                    number: batch.number,
                    records: batch.records.into_iter().map(Record::from).collect(),
                };
                // Which of several errors is told may differ.
                prop_assert_eq!(Batch::decode(&bytes[..]).ok(), theirs.ok().map(same));
            }
        }

        #[test]
        fn so_does_a_batch(number: u64, records in proptest::collection::vec(record(), 0..5)) {
            let ours = Batch { number, records: records.iter().cloned().map(Record::from).collect() };
            let bytes = v1::put_stream_request::Batch { number, records }.encode_to_vec();
            prop_assert_eq!(&Batch::decode(&bytes[..]).unwrap(), &ours);
            prop_assert_eq!(ours.encoded_len(), bytes.len());
            prop_assert_eq!(ours.encode_to_vec(), bytes);
        }

        #[test]
        fn refuses_what_the_generated_message_refuses(bytes: Vec<u8>) {
            let (ours, theirs) = (Record::decode(&bytes[..]), v1::Record::decode(&bytes[..]));
            let text = |error: DecodeError| error.to_string();
            prop_assert_eq!(ours.map_err(text), theirs.map(Record::from).map_err(text));
        }
    }

    #[test]
    fn text_that_is_no_utf_8_is_refused_and_unknown_fields_are_skipped() {
        let of = |bytes: &[u8]| Record::decode(bytes).map_err(|error| error.to_string());
        // The key, and the name of a header.
        for bad in [&b"\x0a\x02k\xff"[..], &b"\x1a\x03\x0a\x01\xff"[..]] {
            assert_eq!(of(bad).unwrap_err(), v1::Record::decode(bad).unwrap_err().to_string());
        }
        let record = of(b"\x0a\x01k\x7a\x01?\x22\x02ab").unwrap();
        assert_eq!((&*record.key, &record.data[..]), ("k", &b"ab"[..]));
    }

    #[test]
    fn texts_are_slices_of_the_message() {
        let message = Bytes::from(v1::Record { key: "session".into(), ..Default::default() }.encode_to_vec());
        let record = Record::decode(message.clone()).unwrap();
        assert_eq!(record.key.as_bytes().as_ptr(), message[2..].as_ptr());
    }
}
