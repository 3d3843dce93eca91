//! Taking an aggregate apart, borrowing from the blob.

use bytes::Bytes;
use md5::{Digest, Md5};

use super::envelope::{Envelope, Origin};
use super::member::{Member, Parts};
use super::wire::{self, Span, Value};
use super::zstd::{self, Inflated};
use super::{COMPRESSED_VERSION, DIGEST_LEN, MAGIC, field};

/// What a Kinesis record's data turned out to be.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one per Kinesis record, which is nearly always an aggregate")]
pub enum Decoded {
    /// Not in the aggregated format: one record with no headers and that data.
    Plain,
    /// An aggregate, of ours or of another writer.
    Aggregate(Aggregate),
    /// It begins like an aggregate but is not one: the raw bytes are the record, as for the KCL.
    /// Readers count these.
    Damaged(Damage),
}

/// What is wrong with data that begins like an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// There is no room for an MD5 after the magic.
    #[error("cut off after the magic")]
    Truncated,
    /// The MD5 at the end is not that of the protobuf.
    #[error("the MD5 does not match")]
    Digest,
    /// The protobuf is malformed, or lacks a field that the KPL requires.
    #[error("the protobuf is malformed")]
    Protobuf,
    /// The zstd frame is malformed, or holds no aggregate.
    #[error("the zstd frame is malformed, or holds no aggregate")]
    Frame,
}

/// Why a whole Kinesis record cannot be delivered. It goes to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A member refers to a key that the table does not have.
    #[error(
        "member {member} refers to entry {index} of the {table} table, which has {len}; the writer is at fault"
    )]
    IndexOutOfRange {
        /// The member's position in the aggregate, from 0.
        member: usize,
        /// Which table.
        table: &'static str,
        /// The index that it names.
        index: u64,
        /// How many entries the table has.
        len: usize,
    },
    /// The envelope is newer than this reader.
    #[error(
        "the aggregate's envelope has version {found}, this reader knows up to {COMPRESSED_VERSION}; deploy readers before writers"
    )]
    UnsupportedVersion {
        /// The version found.
        found: u64,
    },
    /// A compressed aggregate would take more memory than a reader gives it.
    #[error(
        "the compressed aggregate of {compressed} bytes claims to hold {inflated}, the limit is {limit} (12 MiB, and 500 bytes for each compressed one); its writer is at fault, switch its compression off"
    )]
    Inflates {
        /// Bytes of the frame.
        compressed: usize,
        /// Bytes that it says it holds.
        inflated: u64,
        /// The most that a frame of this size may hold.
        limit: u64,
    },
    /// A member's explicit hash key or creation context cannot be read.
    #[error("member {member} cannot be read: {reason}")]
    BadMember {
        /// The member's position in the aggregate, from 0.
        member: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::IndexOutOfRange { .. } => "aggregate-index-out-of-range",
            Error::UnsupportedVersion { .. } => "aggregate-version-unsupported",
            Error::Inflates { .. } => "aggregate-inflates-too-far",
            Error::BadMember { .. } => "aggregate-member-invalid",
        }
    }

    /// Whether the same bytes may be readable later: only by a newer reader.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// An aggregate whose every index has been checked; members borrow from the blob.
#[derive(Debug, Clone)]
pub struct Aggregate {
    pub(super) blob: Bytes,
    pub(super) keys: Vec<Span>,
    pub(super) hash_keys: Vec<Span>,
    pub(super) members: Vec<Parts>,
    /// The MD5 of the protobuf, to go on from.
    pub(super) digest: Md5,
    envelope: Option<Envelope>,
    origins: Vec<(Origin, u64)>,
}

impl Aggregate {
    /// How many members it has; zero is legal.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no members: nothing is delivered, and the checkpoint moves on.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members in order. A member's place here is its sub-sequence number.
    pub fn members(&self) -> impl ExactSizeIterator<Item = Member<'_>> {
        self.members.iter().map(|parts| Member { aggregate: self, parts })
    }

    /// The member at this place, if there is one.
    pub fn member(&self, place: usize) -> Option<Member<'_>> {
        self.members.get(place).map(|parts| Member { aggregate: self, parts })
    }

    /// Our envelope; `None` for aggregates of other writers.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.envelope.as_ref()
    }

    /// Where a router found the members: one entry per member, in order; empty on the inbound stream.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.origins.iter().flat_map(|(origin, run)| std::iter::repeat_n(origin, *run as usize))
    }

    pub(super) fn base_ms(&self) -> u64 {
        self.envelope.map_or(0, |envelope| envelope.base_ms)
    }
}

/// Takes a Kinesis record's data apart. Of a [compressed](zstd) aggregate it gives the inner one.
///
/// Never panics, whatever the bytes. Every index is checked before anything is returned, so a reader
/// never delivers half of an aggregate.
pub fn decode(data: &Bytes) -> Result<Decoded, Error> {
    let outer = match unpack(data)? {
        Decoded::Aggregate(aggregate) if is_compressed(&aggregate) => aggregate,
        decoded => return Ok(decoded),
    };
    match zstd::inflate(&outer)? {
        Inflated::Aggregate(blob) => match unpack(&blob)? {
            // Once, never nested.
            Decoded::Aggregate(inner) if !is_compressed(&inner) => Ok(Decoded::Aggregate(inner)),
            _ => Ok(Decoded::Damaged(Damage::Frame)),
        },
        Inflated::Damaged => Ok(Decoded::Damaged(Damage::Frame)),
    }
}

fn is_compressed(aggregate: &Aggregate) -> bool {
    aggregate.envelope.is_some_and(|envelope| envelope.version == COMPRESSED_VERSION)
}

fn unpack(data: &Bytes) -> Result<Decoded, Error> {
    if !data.starts_with(&MAGIC) {
        return Ok(Decoded::Plain);
    }
    let Some(end) = data.len().checked_sub(DIGEST_LEN).filter(|end| *end >= MAGIC.len()) else {
        return Ok(Decoded::Damaged(Damage::Truncated));
    };
    let digest = Md5::new_with_prefix(&data[MAGIC.len()..end]);
    if digest.clone().finalize()[..] != data[end..] {
        return Ok(Decoded::Damaged(Damage::Digest));
    }
    let Some(mut aggregate) = parse(data, end, digest) else {
        return Ok(Decoded::Damaged(Damage::Protobuf));
    };
    check(&aggregate)?;
    read_creations(&mut aggregate)?;
    Ok(Decoded::Aggregate(aggregate))
}

fn parse(data: &Bytes, end: usize, digest: Md5) -> Option<Aggregate> {
    let mut aggregate = Aggregate {
        blob: data.clone(),
        keys: Vec::new(),
        hash_keys: Vec::new(),
        members: Vec::new(),
        digest,
        envelope: None,
        origins: Vec::new(),
    };
    let mut at = MAGIC.len();
    while at < end {
        match wire::read_field(data, &mut at, end)? {
            (field::PARTITION_KEY, Value::Bytes(span)) => aggregate.keys.push(text(data, span)?),
            (field::HASH_KEY, Value::Bytes(span)) => aggregate.hash_keys.push(text(data, span)?),
            (field::RECORD, Value::Bytes(span)) => aggregate.members.push(Parts::parse(data, span)?),
            (field::ENVELOPE, Value::Bytes(span)) => {
                aggregate.envelope = Some(Envelope::read_body(span.of(data))?)
            }
            (field::ORIGIN, Value::Bytes(span)) => aggregate.origins.push(Origin::read_body(span.of(data))?),
            (field::PARTITION_KEY | field::HASH_KEY | field::RECORD, _) => return None,
            _ => {}
        }
    }
    Some(aggregate)
}

pub(super) fn text(data: &[u8], span: Span) -> Option<Span> {
    std::str::from_utf8(span.of(data)).ok().map(|_| span)
}

fn check(aggregate: &Aggregate) -> Result<(), Error> {
    if let Some(envelope) = aggregate.envelope.filter(|e| e.version > COMPRESSED_VERSION) {
        return Err(Error::UnsupportedVersion { found: envelope.version });
    }
    for (i, member) in aggregate.members.iter().enumerate() {
        let out = |table, index, len| Error::IndexOutOfRange { member: i, table, index, len };
        if member.key >= aggregate.keys.len() as u64 {
            return Err(out("partition key", member.key, aggregate.keys.len()));
        }
        if let Some(index) = member.hash_key.filter(|index| *index >= aggregate.hash_keys.len() as u64) {
            return Err(out("explicit hash key", index, aggregate.hash_keys.len()));
        }
    }
    let mut left = aggregate.members.len() as u64;
    for (_, run) in &aggregate.origins {
        left = left.checked_sub(*run).ok_or(Error::BadMember {
            member: aggregate.members.len(),
            reason: "the origins name more members than there are".to_owned(),
        })?;
    }
    Ok(())
}

/// Checks what an aggregate of ours promises about each member, and keeps what had to be read for it.
fn read_creations(aggregate: &mut Aggregate) -> Result<(), Error> {
    if aggregate.envelope.is_none() {
        return Ok(());
    }
    for place in 0..aggregate.members.len() {
        let member = Member { aggregate, parts: &aggregate.members[place] };
        let bad = |reason| Error::BadMember { member: place, reason };
        if member.explicit_hash_key().is_some() {
            member.hash_key().map_err(|error| bad(error.to_string()))?;
        }
        let read = member.read_creation().map_err(bad)?;
        if let Some((creation, relative)) = read {
            let parts = &mut aggregate.members[place];
            parts.creation = Some(creation);
            parts.time_is_relative = relative;
        }
    }
    Ok(())
}
