//! A segment file, byte for byte.
//!
//! A segment is a header of 72 bytes, then blocks. A block is what one fsync made durable: a header of
//! 44 bytes and the records, each behind its length. Numbers are little-endian.
//!
//! ```text
//! header   "HWSPOOL1"  number u64  first u64  previous u64  previous length u64  done u64  salt u64  time u64
//!          crc u32  0 u32
//! block    "HWB1"  length u32  first u64  count u32  0 u32  done u64  time u64  crc u32
//! record   length u32  bytes
//! ```
//!
//! The CRC of a block covers its header, its records, and the segment's salt, which is random: so no
//! payload can pass for a block. A block is written only when the one before it is durable: hence a block
//! that is whole proves that everything before it was acknowledged.

use super::disk::{Input, read_full};
use std::io;

/// The length of a segment's header.
pub(crate) const HEADER: usize = 72;
/// The length of a block's header.
pub(crate) const BLOCK_HEADER: usize = 44;
/// The most bytes of a block's records; far more than one batch has.
pub(crate) const MAX_BLOCK: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"HWSPOOL1";
const BLOCK_MAGIC: [u8; 4] = *b"HWB1";
const CRC_AT: usize = 64;
const SUFFIX: &str = ".spool";

/// How a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Names the file; grows with each segment.
    pub(crate) number: u64,
    /// The position of its first record.
    pub(crate) first: u64,
    /// The segment before it; 0 if there is none.
    pub(crate) previous: u64,
    /// How much of that one counts.
    pub(crate) previous_len: u64,
    /// Every position up to this was settled when it was begun.
    pub(crate) done: u64,
    /// Random.
    pub(crate) salt: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub(crate) time_ms: u64,
}

/// How a block begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Bytes of its records with their lengths.
    pub(crate) len: u32,
    /// The position of its first record, or of the next one if it has none.
    pub(crate) first: u64,
    /// How many records it has.
    pub(crate) count: u32,
    /// Every position up to this was settled when it was written.
    pub(crate) done: u64,
    /// When it was written.
    pub(crate) time_ms: u64,
}

impl Block {
    /// Its length in the file.
    pub(crate) fn bytes(&self) -> u64 {
        (BLOCK_HEADER as u64) + u64::from(self.len)
    }

    /// The position after its last record.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// The name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number of a segment's file, if it is one.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers =
            [self.number, self.first, self.previous, self.previous_len, self.done, self.salt, self.time_ms];
        for (place, number) in bytes[8..CRC_AT].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are no whole header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return None;
        }
        Some(Self {
            number: u64_at(bytes, 8),
            first: u64_at(bytes, 16),
            previous: u64_at(bytes, 24),
            previous_len: u64_at(bytes, 32),
            done: u64_at(bytes, 40),
            salt: u64_at(bytes, 48),
            time_ms: u64_at(bytes, 56),
        })
    }

    fn crc(&self, block: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.salt.to_le_bytes());
        crc.update(&self.number.to_le_bytes());
        crc.update(&block[..BLOCK_HEADER - 4]);
        crc.update(&block[BLOCK_HEADER..]);
        crc.finalize()
    }

    /// Gives an encoded block the parts that depend on the segment.
    pub(crate) fn seal(&self, block: &mut [u8]) {
        let crc = self.crc(block);
        block[BLOCK_HEADER - 4..BLOCK_HEADER].copy_from_slice(&crc.to_le_bytes());
    }

    fn is_whole(&self, block: &[u8]) -> bool {
        self.crc(block) == u32_at(block, BLOCK_HEADER - 4)
    }
}

/// A block that is not sealed yet. `records` are bodies, without their lengths.
pub(crate) fn encode_block<'a>(
    first: u64,
    records: impl Iterator<Item = &'a [u8]>,
    done: u64,
    time_ms: u64,
) -> (Block, Vec<u8>) {
    let mut bytes = vec![0; BLOCK_HEADER];
    let mut count = 0;
    for record in records {
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(record);
        count += 1;
    }
    let block = Block { len: (bytes.len() - BLOCK_HEADER) as u32, first, count, done, time_ms };
    bytes[..4].copy_from_slice(&BLOCK_MAGIC);
    bytes[4..8].copy_from_slice(&block.len.to_le_bytes());
    bytes[8..16].copy_from_slice(&block.first.to_le_bytes());
    bytes[16..20].copy_from_slice(&block.count.to_le_bytes());
    bytes[24..32].copy_from_slice(&block.done.to_le_bytes());
    bytes[32..40].copy_from_slice(&block.time_ms.to_le_bytes());
    (block, bytes)
}

/// Reads a block's header, without a look at what follows.
pub(crate) fn peek(bytes: &[u8]) -> Option<Block> {
    let bytes = bytes.get(..BLOCK_HEADER)?;
    let block = Block {
        len: u32_at(bytes, 4),
        first: u64_at(bytes, 8),
        count: u32_at(bytes, 16),
        done: u64_at(bytes, 24),
        time_ms: u64_at(bytes, 32),
    };
    (bytes[..4] == BLOCK_MAGIC && block.len as usize <= MAX_BLOCK).then_some(block)
}

/// Reads the block at a place, header and records; `None` if it is not whole.
pub(crate) fn read_block(
    input: &dyn Input,
    header: &Header,
    offset: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Block>> {
    buffer.resize(BLOCK_HEADER, 0);
    if read_full(input, buffer, offset)? < BLOCK_HEADER {
        return Ok(None);
    }
    let Some(block) = peek(buffer) else { return Ok(None) };
    // A length that is damage must not claim memory.
    if offset + block.bytes() > input.len()? {
        return Ok(None);
    }
    buffer.resize(block.bytes() as usize, 0);
    let (_, records) = buffer.split_at_mut(BLOCK_HEADER);
    if read_full(input, records, offset + BLOCK_HEADER as u64)? < records.len() {
        return Ok(None);
    }
    Ok(header.is_whole(buffer).then_some(block))
}

/// The place of a whole block somewhere in the bytes.
pub(crate) fn find_block(header: &Header, bytes: &[u8]) -> Option<usize> {
    (0..bytes.len().saturating_sub(BLOCK_HEADER - 1)).find(|at| {
        let rest = &bytes[*at..];
        let block = if rest[..4] == BLOCK_MAGIC { peek(rest) } else { None };
        block.and_then(|block| rest.get(..block.bytes() as usize)).is_some_and(|whole| header.is_whole(whole))
    })
}

/// The records of a block, `bytes` being all of it; `None` if lengths and count do not agree.
pub(crate) fn records(block: &Block, bytes: &bytes::Bytes) -> Option<Vec<bytes::Bytes>> {
    let mut records = Vec::with_capacity(block.count.min(1 << 20) as usize);
    let mut at = BLOCK_HEADER;
    while at < bytes.len() {
        let len = u32_at(bytes.get(at..at + 4)?, 0) as usize;
        at += 4;
        if at + len > bytes.len() {
            return None;
        }
        records.push(bytes.slice(at..at + len));
        at += len;
    }
    (records.len() == block.count as usize).then_some(records)
}
