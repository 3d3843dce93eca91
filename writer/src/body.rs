//! The body of a `PutRecords` request.
//!
//! The SDK's own serializers copy each blob into a body which grows as it goes; its JSON encodes each one into a string
//! of its own first. At a megabyte per call, that costs more than the encoding itself. Here JSON is written once into
//! memory of its exact size, and in CBOR large blobs stay where they are.

use aws_smithy_schema::Schema;
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeSerializer};
use aws_smithy_types::{BigDecimal, BigInteger, Blob, DateTime, Document};
use base64_simd::STANDARD;
use bytes::Bytes;

use crate::parts::Parts;

/// How bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Blobs as base64.
    Json,
    /// Blobs as they are.
    Cbor,
}

impl Encoding {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }
}

/// As far as `PutRecords` needs it.
pub(crate) struct Body {
    encoding: Encoding,
    text: Vec<u8>,
    /// What is not written yet, and where in the text it belongs.
    blobs: Vec<(usize, Blob)>,
    in_list: bool,
    /// Whether something stands before in the same structure or list.
    follows: bool,
}

impl Body {
    /// Of a request whose members are of the types that `PutRecords` has.
    pub(crate) fn of(
        encoding: Encoding,
        input: &dyn SerializableStruct,
        schema: &Schema<'_>,
    ) -> Result<Parts, SerdeError> {
        let mut body = Self { encoding, text: Vec::new(), blobs: Vec::new(), in_list: false, follows: false };
        body.write_struct(schema, input)?;
        Ok(body.finish())
    }

    fn begin(&mut self, schema: &Schema<'_>) {
        let follows = std::mem::replace(&mut self.follows, true);
        let name = schema.member_name().filter(|_| !self.in_list);
        match self.encoding {
            Encoding::Json => {
                if follows {
                    self.text.push(b',');
                }
                if let Some(name) = name {
                    self.text.push(b'"');
                    self.text.extend_from_slice(name.as_bytes());
                    self.text.extend_from_slice(b"\":");
                }
            }
            Encoding::Cbor => {
                if let Some(name) = name {
                    self.cbor(TEXT, name.as_bytes());
                }
            }
        }
    }

    /// A string of this kind.
    fn cbor(&mut self, kind: u8, bytes: &[u8]) {
        self.cbor_head(kind, bytes.len());
        self.text.extend_from_slice(bytes);
    }

    /// The shortest head of a kind and a length (RFC 8949, 3).
    fn cbor_head(&mut self, kind: u8, length: usize) {
        match length {
            0..=23 => self.text.push(kind | length as u8),
            24..=0xff => self.text.extend_from_slice(&[kind | 24, length as u8]),
            0x100..=0xffff => {
                self.text.push(kind | 25);
                self.text.extend_from_slice(&(length as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.text.push(kind | 26);
                self.text.extend_from_slice(&(length as u32).to_be_bytes());
            }
            _ => {
                self.text.push(kind | 27);
                self.text.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
    }

    fn nested(
        &mut self,
        schema: &Schema<'_>,
        in_list: bool,
        write: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        let [open, close] = match (self.encoding, in_list) {
            (Encoding::Json, false) => *b"{}",
            (Encoding::Json, true) => *b"[]",
            // How many members a structure has shows only as they are written.
            (Encoding::Cbor, false) => [MAP | UNTIL_BREAK, BREAK],
            (Encoding::Cbor, true) => [ARRAY | UNTIL_BREAK, BREAK],
        };
        self.begin(schema);
        self.text.push(open);
        let outer = std::mem::replace(&mut self.in_list, in_list);
        self.follows = false;
        write(self)?;
        self.in_list = outer;
        self.follows = true;
        self.text.push(close);
        Ok(())
    }

    fn finish(self) -> Parts {
        match self.encoding {
            Encoding::Json => self.copied().into(),
            Encoding::Cbor => self.parts(),
        }
    }

    fn copied(self) -> Bytes {
        let encoded = |blob: &Blob| STANDARD.encoded_length(blob.as_ref().len());
        let blobs: usize = self.blobs.iter().map(|(_, blob)| encoded(blob)).sum();
        let mut body = Vec::with_capacity(self.text.len() + blobs);
        let mut written = 0;
        for (at, blob) in &self.blobs {
            body.extend_from_slice(&self.text[written..*at]);
            STANDARD.encode_append(blob.as_ref(), &mut body);
            written = *at;
        }
        body.extend_from_slice(&self.text[written..]);
        body.into()
    }

    fn parts(self) -> Parts {
        let text = Bytes::from(self.text);
        let mut parts = Vec::with_capacity(2 * self.blobs.len() + 1);
        let mut written = 0;
        for (at, blob) in self.blobs {
            parts.extend([text.slice(written..at), blob.into_bytes()]);
            written = at;
        }
        parts.push(text.slice(written..));
        parts.into()
    }
}

/// A blob that is shorter costs less to copy than to send as a part of its own.
const COPIED: usize = 4 * 1024;

/// Major types of CBOR.
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
/// In place of a length.
const UNTIL_BREAK: u8 = 31;
const BREAK: u8 = 0xff;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

fn unsupported<T>(what: &str) -> Result<T, SerdeError> {
    Err(SerdeError::unsupported(format!("{what} in the body of PutRecords")))
}

impl ShapeSerializer for Body {
    fn write_struct(
        &mut self,
        schema: &Schema<'_>,
        value: &dyn SerializableStruct,
    ) -> Result<(), SerdeError> {
        self.nested(schema, false, &|body| value.serialize_members(body))
    }

    fn write_list(
        &mut self,
        schema: &Schema<'_>,
        write_elements: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.nested(schema, true, write_elements)
    }

    fn write_string(&mut self, schema: &Schema<'_>, value: &str) -> Result<(), SerdeError> {
        self.begin(schema);
        match self.encoding {
            Encoding::Json => serde_json::to_writer(&mut self.text, value)
                .map_err(|error| SerdeError::custom(error.to_string())),
            Encoding::Cbor => {
                self.cbor(TEXT, value.as_bytes());
                Ok(())
            }
        }
    }

    fn write_blob(&mut self, schema: &Schema<'_>, value: Blob) -> Result<(), SerdeError> {
        self.begin(schema);
        match self.encoding {
            Encoding::Json => {
                self.text.push(b'"');
                self.blobs.push((self.text.len(), value));
                self.text.push(b'"');
            }
            Encoding::Cbor => {
                let length = value.as_ref().len();
                self.cbor_head(BYTES, length);
                match length < COPIED {
                    true => self.text.extend_from_slice(value.as_ref()),
                    false => self.blobs.push((self.text.len(), value)),
                }
            }
        }
        Ok(())
    }

    fn write_boolean(&mut self, schema: &Schema<'_>, value: bool) -> Result<(), SerdeError> {
        self.begin(schema);
        match self.encoding {
            Encoding::Json => self.text.extend_from_slice(if value { b"true" } else { b"false" }),
            Encoding::Cbor => self.text.push(if value { TRUE } else { FALSE }),
        }
        Ok(())
    }

    fn write_map(
        &mut self,
        _: &Schema<'_>,
        _: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        unsupported("a map")
    }

    fn write_byte(&mut self, _: &Schema<'_>, _: i8) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_short(&mut self, _: &Schema<'_>, _: i16) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_integer(&mut self, _: &Schema<'_>, _: i32) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_long(&mut self, _: &Schema<'_>, _: i64) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_float(&mut self, _: &Schema<'_>, _: f32) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_double(&mut self, _: &Schema<'_>, _: f64) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_big_integer(&mut self, _: &Schema<'_>, _: &BigInteger) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_big_decimal(&mut self, _: &Schema<'_>, _: &BigDecimal) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_timestamp(&mut self, _: &Schema<'_>, _: &DateTime) -> Result<(), SerdeError> {
        unsupported("a time")
    }

    fn write_document(&mut self, _: &Schema<'_>, _: &Document) -> Result<(), SerdeError> {
        unsupported("a document")
    }

    fn write_null(&mut self, _: &Schema<'_>) -> Result<(), SerdeError> {
        unsupported("a null")
    }
}
