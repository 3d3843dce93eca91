//! The creation context: a record's identity, its place in a trace, and its time of creation.
//!
//! On the wire (tag `hw-t`) it is the base64 of: trace id (16 bytes), span id (8), trace flags (1), and,
//! only where the trace id is not ours, the creation time as a zigzag varint in milliseconds relative
//! to the aggregate's base time. A trace id that we mint begins with that time, so nothing more is stored.

use sha2::{Digest, Sha256};

use crate::aggregate::wire;

/// The tag under which the creation context travels.
pub(crate) const TAG: &str = "hw-t";
const FIXED: usize = 25;
const MAX: usize = FIXED + 10;
/// In whole groups of three, as base64 takes them.
const PADDED: usize = MAX.next_multiple_of(3);

/// A W3C trace id; all zeroes is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// A W3C span id; all zeroes is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

macro_rules! hex_id {
    ($name:ident, $n:expr) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
        impl $name {
            /// Parses lower-case hexadecimal; `None` for anything else and for all zeroes.
            pub fn parse(text: &str) -> Option<Self> {
                let text = text.as_bytes();
                if text.len() != 2 * $n {
                    return None;
                }
                let mut id = [0; $n];
                for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
                    *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
                }
                (id != [0; $n]).then_some(Self(id))
            }
        }
    };
}
hex_id!(TraceId, 16);
hex_id!(SpanId, 8);

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Why a creation context was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a version-00 traceparent.
    #[error(
        "the traceparent {value:?} is not of the form 00-<32 hex>-<16 hex>-<2 hex> with ids that are not all zero (W3C Trace Context); leave it out to start a new trace"
    )]
    BadTraceparent {
        /// The text that was given.
        value: String,
    },
    /// The `hw-t` tag does not hold a creation context.
    #[error(
        "the creation context {value:?} is not base64 of {FIXED} to {MAX} bytes with ids that are not all zero"
    )]
    BadTag {
        /// The text that was found.
        value: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "creation-context-invalid"
    }

    /// Whether the same input may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A record's identity, its place in a trace, and its time of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Creation {
    /// The trace that the record belongs to.
    pub trace_id: TraceId,
    /// The id of the span in which the record was created.
    pub span_id: SpanId,
    /// W3C trace flags; bit 0: sampled.
    pub flags: u8,
    /// When the record was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

impl Creation {
    /// The flag of a sampled trace.
    pub const SAMPLED: u8 = 1;
    /// The length of a tag's value that holds no time of its own.
    pub(crate) const ABSOLUTE_TAG_LEN: usize = (FIXED * 4).div_ceil(3);

    /// Mints a new root: six bytes of milliseconds, then random bytes, with no version or variant
    /// bits, because samplers read the low eight bytes as a random number.
    pub fn mint(now_ms: u64, random: [u8; 18]) -> Self {
        let mut trace_id = [0; 16];
        trace_id[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        trace_id[6..].copy_from_slice(&random[..10]);
        let created_ms = now_ms & TIME_MASK;
        Self { trace_id: TraceId(trace_id), span_id: span_from(&random[10..]), flags: 0, created_ms }
    }

    /// Mints a child of a trace that somebody else began: their trace id, a new span id.
    pub fn child_of(trace_id: TraceId, flags: u8, now_ms: u64, random: [u8; 8]) -> Self {
        Self { trace_id, span_id: span_from(&random), flags, created_ms: now_ms }
    }

    /// Derives the identity from parts alone, so that a repeated request gets the same identity.
    ///
    /// Each part is hashed with its length: `["ab", "c"]` and `["a", "bc"]` differ.
    pub fn derive(parts: &[&[u8]], now_ms: u64) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut trace_id = [0; 16];
        trace_id.copy_from_slice(&digest[..16]);
        if trace_id == [0; 16] {
            trace_id[15] = 1;
        }
        Self {
            trace_id: TraceId(trace_id),
            span_id: span_from(&digest[16..24]),
            flags: 0,
            created_ms: now_ms,
        }
    }

    /// Whether the trace is sampled.
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// The same context with the sampled flag set or cleared.
    pub fn with_sampled(mut self, sampled: bool) -> Self {
        self.flags = (self.flags & !Self::SAMPLED) | u8::from(sampled);
        self
    }

    /// The W3C `traceparent` text, version 00.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    /// Parses a W3C `traceparent` into trace id, span id and flags.
    ///
    /// Later versions are read as far as version 00 goes, as the specification asks.
    pub fn parse_traceparent(text: &str) -> Result<(TraceId, SpanId, u8), Error> {
        let parse = || {
            let mut parts = text.split('-');
            let version = parts.next().filter(|v| v.len() == 2 && *v != "ff")?;
            let version = (nibble(version.as_bytes()[0])? << 4) | nibble(version.as_bytes()[1])?;
            let trace_id = TraceId::parse(parts.next()?)?;
            let span_id = SpanId::parse(parts.next()?)?;
            let flags = parts.next().filter(|f| f.len() == 2)?.as_bytes();
            let flags = (nibble(flags[0])? << 4) | nibble(flags[1])?;
            (version > 0 || parts.next().is_none()).then_some((trace_id, span_id, flags))
        };
        parse().ok_or_else(|| Error::BadTraceparent { value: text.chars().take(80).collect() })
    }

    /// Whether the creation time is in the trace id, so that it needs no room of its own.
    pub fn time_is_in_trace_id(&self) -> bool {
        self.created_ms == minted_ms(&self.trace_id)
    }

    /// Length of the tag's value for this base time.
    pub(crate) fn tag_len(&self, base_ms: u64) -> usize {
        let binary = if self.time_is_in_trace_id() {
            FIXED
        } else {
            FIXED + wire::varint_len(wire::zigzag(self.delta(base_ms)))
        };
        base64_len(binary)
    }

    /// Appends the tag's value.
    pub(crate) fn write_tag(&self, base_ms: u64, out: &mut Vec<u8>) {
        let mut binary = [0; PADDED];
        binary[..16].copy_from_slice(&self.trace_id.0);
        binary[16..24].copy_from_slice(&self.span_id.0);
        binary[24] = self.flags;
        let mut len = FIXED;
        if !self.time_is_in_trace_id() {
            let mut delta = wire::zigzag(self.delta(base_ms));
            while delta >= 0x80 {
                binary[len] = delta as u8 | 0x80;
                delta >>= 7;
                len += 1;
            }
            binary[len] = delta as u8;
            len += 1;
        }
        encode_base64(&binary, len, out);
    }

    /// Reads the tag's value.
    pub(crate) fn read_tag(text: &[u8], base_ms: u64) -> Result<Self, Error> {
        let parse = || {
            let mut binary = [0; MAX + 2];
            let len = decode_base64(text, &mut binary)?;
            if len < FIXED {
                return None;
            }
            let mut trace_id = [0; 16];
            trace_id.copy_from_slice(&binary[..16]);
            let mut span_id = [0; 8];
            span_id.copy_from_slice(&binary[16..24]);
            if trace_id == [0; 16] || span_id == [0; 8] {
                return None;
            }
            let trace_id = TraceId(trace_id);
            let created_ms = if len == FIXED {
                minted_ms(&trace_id)
            } else {
                let mut at = FIXED;
                let delta = wire::read_varint(&binary[..len], &mut at)?;
                if at != len {
                    return None;
                }
                base_ms.wrapping_add_signed(wire::unzigzag(delta))
            };
            Some(Self { trace_id, span_id: SpanId(span_id), flags: binary[24], created_ms })
        };
        parse()
            .ok_or_else(|| Error::BadTag { value: String::from_utf8_lossy(text).chars().take(64).collect() })
    }

    fn delta(&self, base_ms: u64) -> i64 {
        self.created_ms.wrapping_sub(base_ms) as i64
    }
}

const TIME_MASK: u64 = (1 << 48) - 1;

fn minted_ms(trace_id: &TraceId) -> u64 {
    let mut ms = [0; 8];
    ms[2..].copy_from_slice(&trace_id.0[..6]);
    u64::from_be_bytes(ms)
}

fn span_from(random: &[u8]) -> SpanId {
    let mut id = [0; 8];
    id.copy_from_slice(&random[..8]);
    if id == [0; 8] {
        id[7] = 1;
    }
    SpanId(id)
}

fn base64_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Appends the base64 of the first `len` bytes, without padding; those beyond are zero. Each record is written with this.
fn encode_base64(binary: &[u8; PADDED], len: usize, out: &mut Vec<u8>) {
    let mut text = [0; PADDED / 3 * 4];
    let groups = &binary.as_chunks::<3>().0[..len.div_ceil(3)];
    for ([a, b, c], text) in groups.iter().zip(text.as_chunks_mut::<4>().0) {
        let bits = u32::from_be_bytes([0, *a, *b, *c]);
        *text = [bits >> 18, bits >> 12, bits >> 6, bits].map(|bits| ALPHABET[bits as usize & 63]);
    }
    out.extend_from_slice(&text[..base64_len(len)]);
}

/// Decodes base64 without padding; `None` if it is none, or does not fit. Each record is read with this: an engine
/// for any length and alphabet takes several times as long for these 34 characters.
fn decode_base64(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let (groups, rest) = text.as_chunks::<4>();
    let len = groups.len() * 3 + rest.len() * 3 / 4;
    // Of a single character nothing comes.
    if len > out.len() || rest.len() == 1 {
        return None;
    }
    let value = |character: u8| u32::from(VALUES[character as usize]);
    let mut bad = 0;
    let (whole, end) = out[..len].split_at_mut(groups.len() * 3);
    for (group, out) in groups.iter().zip(whole.as_chunks_mut::<3>().0) {
        let [a, b, c, d] = group.map(value);
        bad |= a | b | c | d;
        let [_, bytes @ ..] = (a << 18 | b << 12 | c << 6 | d).to_be_bytes();
        *out = bytes;
    }
    let bits = rest.iter().fold(0, |bits, character| {
        bad |= value(*character);
        bits << 6 | value(*character)
    });
    // The bits beyond the last whole byte are zero in what encoders write.
    let spare = rest.len() * 6 - end.len() * 8;
    let kept = (bits >> spare).to_be_bytes();
    end.copy_from_slice(&kept[4 - end.len()..]);
    (bad < 64 && bits & ((1 << spare) - 1) == 0).then_some(len)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What each character stands for; 64 for those that stand for nothing.
const VALUES: [u8; 256] = {
    let mut values = [64; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn base64_is_written_and_read_as_by_an_engine(
            binary in proptest::collection::vec(any::<u8>(), 0..=MAX),
            flaw in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
            cut in 0usize..4,
        ) {
            let mut text = STANDARD_NO_PAD.encode(&binary).into_bytes();
            let (mut padded, mut written) = ([0; PADDED], Vec::new());
            padded[..binary.len()].copy_from_slice(&binary);
            encode_base64(&padded, binary.len(), &mut written);
            prop_assert_eq!(&written, &text);
            text.truncate(text.len().saturating_sub(cut));
            if let Some((at, byte)) = flaw && !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let mut out = [0; MAX + 2];
            let read = decode_base64(&text, &mut out).map(|len| out[..len].to_vec());
            prop_assert_eq!(read, STANDARD_NO_PAD.decode(&text).ok());
        }
    }

    fn tag(creation: &Creation, base: u64) -> String {
        let mut out = Vec::new();
        creation.write_tag(base, &mut out);
        assert_eq!(out.len(), creation.tag_len(base));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn minted_time_needs_no_room() {
        let minted = Creation::mint(1_790_000_000_123, [7; 18]).with_sampled(true);
        assert_eq!(minted.created_ms, 1_790_000_000_123);
        let text = tag(&minted, 5);
        assert_eq!(text.len(), 34);
        assert_eq!(Creation::read_tag(text.as_bytes(), 99).unwrap(), minted);
    }

    #[test]
    fn foreign_time_is_a_delta() {
        let base = 1_790_000_000_000u64;
        for offset in [-1_000_000i64, -1, 0, 1, 63, 64, 86_400_000] {
            let now = base.checked_add_signed(offset).unwrap();
            let child = Creation::child_of(TraceId([9; 16]), 1, now, [3; 8]);
            assert_eq!(Creation::read_tag(tag(&child, base).as_bytes(), base).unwrap(), child);
        }
    }

    #[test]
    fn derived_identity_depends_on_the_parts_alone() {
        let a = Creation::derive(&[b"p", b"stream", b"id"], 1);
        let b = Creation::derive(&[b"p", b"stream", b"id"], 2);
        assert_eq!((a.trace_id, a.span_id), (b.trace_id, b.span_id));
        let c = Creation::derive(&[b"p", b"streami", b"d"], 1);
        assert_ne!(a.trace_id, c.trace_id);
    }

    #[test]
    fn traceparent_round_trip_and_refusals() {
        let minted = Creation::mint(1_790_000_000_123, [7; 18]);
        let text = minted.traceparent();
        assert_eq!(Creation::parse_traceparent(&text).unwrap(), (minted.trace_id, minted.span_id, 0));
        let zero = format!("00-{}-{}-01", "0".repeat(32), "1".repeat(16));
        let later = format!("01-{}-{}-01-extra", "a".repeat(32), "b".repeat(16));
        assert!(Creation::parse_traceparent(&later).is_ok());
        let upper = later.to_uppercase();
        for bad in ["", "00", zero.as_str(), &text[..54], &format!("{text}-x"), &upper, "ff-a-b-c"] {
            assert!(Creation::parse_traceparent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn damaged_tags_are_refused() {
        for bad in ["", "AAAA", "not base64!", &"A".repeat(34), &"B".repeat(60)] {
            assert!(Creation::read_tag(bad.as_bytes(), 0).is_err(), "{bad}");
        }
    }
}
