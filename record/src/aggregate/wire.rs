//! The protobuf wire format, as little of it as the codec needs.

/// A varint field.
pub(crate) const VARINT: u32 = 0;
/// A length-delimited field.
pub(crate) const BYTES: u32 = 2;

pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bytes that a varint takes: 1 to 10.
pub(crate) const fn varint_len(value: u64) -> usize {
    // 9/64 is just above 1/7: exact for all 64 bit lengths.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Bytes of a field's key.
pub(crate) const fn key_len(field: u32) -> usize {
    varint_len((field as u64) << 3)
}

/// Bytes of a varint field, key included.
pub(crate) const fn varint_field_len(field: u32, value: u64) -> usize {
    key_len(field) + varint_len(value)
}

/// Bytes of a length-delimited field, key and length included.
pub(crate) const fn bytes_field_len(field: u32, len: usize) -> usize {
    key_len(field) + varint_len(len as u64) + len
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field << 3 | VARINT));
    put_varint(out, value);
}

/// Writes the key and the length; the caller appends the bytes.
#[inline]
pub(crate) fn put_bytes_key(out: &mut Vec<u8>, field: u32, len: usize) {
    put_varint(out, u64::from(field << 3 | BYTES));
    put_varint(out, len as u64);
}

#[inline]
pub(crate) fn put_bytes_field(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_bytes_key(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads a varint; `None` if it is cut off or has more than 64 bits.
#[inline(always)]
pub(crate) fn read_varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let first = *data.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    // Lengths of payloads have two bytes.
    if let Some(second @ ..0x80) = data.get(*at).copied() {
        *at += 1;
        return Some(u64::from(first & 0x7f) | u64::from(second) << 7);
    }
    read_long_varint(data, at, first)
}

fn read_long_varint(data: &[u8], at: &mut usize, first: u8) -> Option<u64> {
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let byte = *data.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A field's value: a varint, or where its bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Varint(u64),
    Bytes(Span),
    /// A fixed-size or group field: none of the ones that we know.
    Other,
}

/// Where bytes lie in a blob of less than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) const EMPTY: Span = Span { start: 0, end: 0 };

    #[inline]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    #[inline]
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    #[inline]
    pub(crate) fn end(self) -> usize {
        self.end as usize
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    #[inline]
    pub(crate) fn of(self, blob: &[u8]) -> &[u8] {
        &blob[self.start()..self.end()]
    }
}

/// Reads the field at `at` of `data`, whose message ends at `end`; `None` if it is malformed.
#[inline(always)]
pub(crate) fn read_field(data: &[u8], at: &mut usize, end: usize) -> Option<(u32, Value)> {
    let data = &data[..end];
    // Nearly every field of an aggregate has a key of one byte, and is a number or bytes.
    let key = match *data.get(*at)? {
        key if key < 0x80 => {
            *at += 1;
            u64::from(key)
        }
        _ => read_varint(data, at)?,
    };
    let field = u32::try_from(key >> 3).ok().filter(|f| *f > 0)?;
    let value = match key & 7 {
        0 => Value::Varint(read_varint(data, at)?),
        2 => {
            let len = usize::try_from(read_varint(data, at)?).ok()?;
            let start = *at;
            *at = start.checked_add(len).filter(|e| *e <= end)?;
            Value::Bytes(Span::new(start, *at))
        }
        1 => {
            *at = at.checked_add(8).filter(|e| *e <= end)?;
            Value::Other
        }
        5 => {
            *at = at.checked_add(4).filter(|e| *e <= end)?;
            Value::Other
        }
        // Groups (3, 4) are not used by anyone here, and 6 and 7 do not exist.
        _ => return None,
    };
    Some((field, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut at = 0;
            prop_assert_eq!(read_varint(&out, &mut at), Some(value));
            prop_assert_eq!(at, out.len());
            prop_assert_eq!(read_varint(&out[..out.len() - 1], &mut 0), None);
        }

        #[test]
        fn zigzag_round_trips(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn over_long_varints_are_refused() {
        assert_eq!(read_varint(&[0xff; 11], &mut 0), None);
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &mut 0), None);
    }
}
