//! Taking an aggregate apart, borrowing from the blob.

use std::sync::OnceLock;

use bytes::Bytes;

use super::envelope::{Envelope, Origin};
use super::member::{Member, Parts, Tag};
use super::wire::{self, Span, Value};
use super::zstd::{self, Inflated};
use super::{COMPRESSED_VERSION, DIGEST_LEN, MAGIC, field};
use crate::digest::{self, Chain};
use crate::key::{self, HashKey};

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
    /// The tags of all members.
    pub(super) tags: Vec<Tag>,
    /// The MD5 of the protobuf, to go on from.
    pub(super) chain: Chain,
    /// Where the partition keys lie in the hash space, once somebody has asked.
    key_hashes: OnceLock<Vec<HashKey>>,
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

    /// Where each entry of the table of partition keys lies in the hash space.
    pub(super) fn key_hashes(&self) -> &[HashKey] {
        self.key_hashes.get_or_init(|| {
            let text = |span: &Span| std::str::from_utf8(span.of(&self.blob)).unwrap_or_default();
            key::hashes_of(self.keys.iter().map(text))
        })
    }

    pub(super) fn base_ms(&self) -> u64 {
        self.envelope.map_or(0, |envelope| envelope.base_ms)
    }
}

/// Takes a Kinesis record's data apart. Of a [compressed](zstd) aggregate it gives the inner one.
///
/// Never panics, whatever the bytes. Every index is checked before anything is returned, so a reader
/// never delivers half of an aggregate. Who has several at hand uses [`decode_all`].
pub fn decode(data: &Bytes) -> Result<Decoded, Error> {
    decode_framed(data, Framed::of(data), Chain::of)
}

/// [`decode`] for each of them, in order. Their MD5s are taken side by side, which makes up most of the work: of eight
/// or more, each takes a fraction of the time that it takes alone.
pub fn decode_all<'d>(all: impl IntoIterator<Item = &'d Bytes>) -> Vec<Result<Decoded, Error>> {
    let all: Vec<(&Bytes, Framed)> = all.into_iter().map(|data| (data, Framed::of(data))).collect();
    let mut decoded = Vec::with_capacity(all.len());
    for group in all.chunks(DECODED_TOGETHER) {
        let texts: Vec<&[u8]> = group.iter().map(|(data, framed)| framed.text(data)).collect();
        let chains = digest::chains(&texts);
        let each = group.iter().zip(chains);
        decoded.extend(each.map(|((data, framed), chain)| decode_framed(data, *framed, |_| chain)));
    }
    decoded
}

/// Twice as many as are hashed side by side, so that long and short ones go together; and few enough to be in the
/// core's cache still when they are taken apart.
const DECODED_TOGETHER: usize = 16;

/// What can be said of data without looking at what is between magic and MD5.
#[derive(Debug, Clone, Copy)]
enum Framed {
    Plain,
    Damaged(Damage),
    /// The protobuf ends here.
    To(usize),
}

impl Framed {
    fn of(data: &[u8]) -> Self {
        if !data.starts_with(&MAGIC) {
            return Framed::Plain;
        }
        match data.len().checked_sub(DIGEST_LEN).filter(|end| *end >= MAGIC.len()) {
            None => Framed::Damaged(Damage::Truncated),
            // Far beyond anything that the service takes, and beyond what spans can say.
            Some(end) if u32::try_from(end).is_err() => Framed::Damaged(Damage::Protobuf),
            Some(end) => Framed::To(end),
        }
    }

    /// What the MD5 is of; nothing where there is none.
    fn text(self, data: &[u8]) -> &[u8] {
        match self {
            Framed::To(end) => &data[MAGIC.len()..end],
            Framed::Plain | Framed::Damaged(_) => &[],
        }
    }
}

fn decode_framed(data: &Bytes, framed: Framed, chain: impl FnOnce(&[u8]) -> Chain) -> Result<Decoded, Error> {
    let outer = match unpack(data, framed, chain)? {
        Decoded::Aggregate(aggregate) if is_compressed(&aggregate) => aggregate,
        decoded => return Ok(decoded),
    };
    match zstd::inflate(&outer)? {
        Inflated::Aggregate(blob) => match unpack(&blob, Framed::of(&blob), Chain::of)? {
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

fn unpack(data: &Bytes, framed: Framed, chain: impl FnOnce(&[u8]) -> Chain) -> Result<Decoded, Error> {
    let end = match framed {
        Framed::Plain => return Ok(Decoded::Plain),
        Framed::Damaged(damage) => return Ok(Decoded::Damaged(damage)),
        Framed::To(end) => end,
    };
    let text = framed.text(data);
    let chain = chain(text);
    if chain.finish(&text[digest::whole(text.len())..], text.len())[..] != data[end..] {
        return Ok(Decoded::Damaged(Damage::Digest));
    }
    let Some(mut aggregate) = parse(data, end, chain) else {
        return Ok(Decoded::Damaged(Damage::Protobuf));
    };
    check(&aggregate)?;
    read_creations(&mut aggregate)?;
    Ok(Decoded::Aggregate(aggregate))
}

fn parse(data: &Bytes, end: usize, chain: Chain) -> Option<Aggregate> {
    let (mut keys, mut hash_keys, mut origins) = (Vec::new(), Vec::new(), Vec::new());
    let (mut members, mut tags): (Vec<Parts>, Vec<Tag>) = (Vec::new(), Vec::new());
    let mut envelope = None;
    let blob: &[u8] = data;
    let mut at = MAGIC.len();
    while at < end {
        match wire::read_field(blob, &mut at, end)? {
            (field::PARTITION_KEY, Value::Bytes(span)) => keys.push(text(blob, span)?),
            (field::HASH_KEY, Value::Bytes(span)) => hash_keys.push(text(blob, span)?),
            (field::RECORD, Value::Bytes(span)) => {
                members.push(Parts::parse(blob, span, &mut tags)?);
                if members.len() == 1 {
                    // Members are much alike, so the first one tells how many there are, and their tags.
                    let members_left = (end - at) / (span.len() + 2);
                    members.reserve(members_left);
                    tags.reserve(members_left * tags.len());
                }
            }
            (field::ENVELOPE, Value::Bytes(span)) => envelope = Some(Envelope::read_body(span.of(blob))?),
            (field::ORIGIN, Value::Bytes(span)) => origins.push(Origin::read_body(span.of(blob))?),
            (field::PARTITION_KEY | field::HASH_KEY | field::RECORD, _) => return None,
            _ => {}
        }
    }
    let (blob, key_hashes) = (data.clone(), OnceLock::new());
    Some(Aggregate { blob, keys, hash_keys, members, tags, chain, key_hashes, envelope, origins })
}

pub(super) fn text(data: &[u8], span: Span) -> Option<Span> {
    let bytes = span.of(data);
    (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()).then_some(span)
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
    let Some(Envelope { base_ms, .. }) = aggregate.envelope else { return Ok(()) };
    let Aggregate { blob, hash_keys, members, tags, .. } = aggregate;
    for (place, parts) in members.iter_mut().enumerate() {
        let bad = |reason| Error::BadMember { member: place, reason };
        if let Some(index) = parts.hash_key {
            let text = std::str::from_utf8(hash_keys[index as usize].of(blob)).unwrap_or_default();
            text.parse::<HashKey>().map_err(|error| bad(error.to_string()))?;
        }
        parts.read_creation(blob, tags, base_ms).map_err(bad)?;
    }
    Ok(())
}
