//! Reading a message that lies in one piece.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field};

/// Where bytes lie in a message, which has less than 4 GiB, or in the texts of its records.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Span {
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..(self.start + self.len) as usize]
    }

    pub(super) fn in_text(self, text: &str) -> &str {
        &text[self.start as usize..(self.start + self.len) as usize]
    }
}

/// What is left of a message, or of one inside of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'m> {
    rest: &'m [u8],
    /// Where it ends in the outermost message.
    end: usize,
}

#[allow(deprecated, reason = "an error of this kind can be made in no other way")]
pub(super) fn error(what: &'static str) -> DecodeError {
    DecodeError::new(what)
}

pub(super) fn no_text() -> DecodeError {
    error("invalid string value: data is not UTF-8 encoded")
}

impl<'m> Reader<'m> {
    pub(super) fn new(message: &'m [u8]) -> Self {
        Self { rest: message, end: message.len() }
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'m [u8] {
        self.rest
    }

    /// Where what is left lies in the outermost message.
    pub(super) fn span(&self) -> Span {
        Span { start: (self.end - self.rest.len()) as u32, len: self.rest.len() as u32 }
    }

    /// The next field's number and type; `None` at the end.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<(u32, WireType)>, DecodeError> {
        match self.rest {
            [] => Ok(None),
            // Nearly every field has a number below 16, and holds bytes.
            [key, rest @ ..] if *key < 0x80 && key & 7 == 2 && *key > 7 => {
                self.rest = rest;
                Ok(Some((u32::from(key >> 3), WireType::LengthDelimited)))
            }
            _ => decode_key(&mut self.rest).map(Some),
        }
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        // Most lengths have one byte, and those of data two.
        match self.rest {
            [byte @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            [low, high @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
            }
            _ => decode_varint(&mut self.rest),
        }
    }

    /// What a field of bytes, text or a message holds.
    #[inline]
    pub(super) fn sized(&mut self, wire_type: WireType) -> Result<Reader<'m>, DecodeError> {
        check_wire_type(WireType::LengthDelimited, wire_type)?;
        let len = self.varint()?;
        if len > self.rest.len() as u64 {
            return Err(error("buffer underflow"));
        }
        let (inside, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(Reader { rest: inside, end: self.end - rest.len() })
    }

    /// What a text holds, unchecked.
    #[inline]
    pub(super) fn text(&mut self, wire_type: WireType) -> Result<&'m [u8], DecodeError> {
        Ok(self.sized(wire_type)?.rest)
    }

    /// Passes over a field that nobody here knows.
    pub(super) fn skip(&mut self, field: u32, wire_type: WireType) -> Result<(), DecodeError> {
        skip_field(wire_type, field, &mut self.rest, DecodeContext::default())
    }
}
