//! Taking an aggregate apart, borrowing from the blob.

use bytes::Bytes;
use md5::{Digest, Md5};

use super::envelope::{Envelope, Origin};
use super::member::{Member, Parts};
use super::wire::{self, Span, Value};
use super::{DIGEST_LEN, MAGIC, VERSION, field};

/// What a Kinesis record's data turned out to be.
#[derive(Debug, Clone)]
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
        "the aggregate's envelope has version {found}, this reader knows up to {VERSION}; deploy readers before writers"
    )]
    UnsupportedVersion {
        /// The version found.
        found: u64,
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
    members: Vec<Parts>,
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
        self.members.iter().map(|parts| Member { aggregate: self, parts: *parts })
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

/// Takes a Kinesis record's data apart.
///
/// Never panics, whatever the bytes. Every index is checked before anything is returned, so a reader
/// never delivers half of an aggregate.
pub fn decode(data: &Bytes) -> Result<Decoded, Error> {
    if !data.starts_with(&MAGIC) {
        return Ok(Decoded::Plain);
    }
    let Some(end) = data.len().checked_sub(DIGEST_LEN).filter(|end| *end >= MAGIC.len()) else {
        return Ok(Decoded::Damaged(Damage::Truncated));
    };
    if Md5::digest(&data[MAGIC.len()..end])[..] != data[end..] {
        return Ok(Decoded::Damaged(Damage::Digest));
    }
    let Some(aggregate) = parse(data, end) else {
        return Ok(Decoded::Damaged(Damage::Protobuf));
    };
    check(&aggregate)?;
    Ok(Decoded::Aggregate(aggregate))
}

fn parse(data: &Bytes, end: usize) -> Option<Aggregate> {
    let mut aggregate = Aggregate {
        blob: data.clone(),
        keys: Vec::new(),
        hash_keys: Vec::new(),
        members: Vec::new(),
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
    if let Some(envelope) = aggregate.envelope.filter(|e| e.version > VERSION) {
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
    if aggregate.envelope.is_some() {
        for (i, member) in aggregate.members().enumerate() {
            member.check().map_err(|reason| Error::BadMember { member: i, reason })?;
        }
    }
    Ok(())
}
