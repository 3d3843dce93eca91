//! What an aggregate of ours says beyond the KPL's fields.

use bytestring::ByteString;

use super::wire::{self, Value};
use crate::shard::ShardId;

/// Marks an aggregate as ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The envelope's version: readers refuse what is newer than they are, so that they can be
    /// deployed before writers.
    pub version: u64,
    /// The time, in milliseconds since the Unix epoch, that members' creation times are relative to;
    /// 0 where every member carries its time in its trace id.
    pub base_ms: u64,
}

impl Envelope {
    const VERSION: u32 = 1;
    const BASE_MS: u32 = 2;

    pub(super) fn body_len(&self) -> usize {
        let base = if self.base_ms == 0 { 0 } else { wire::varint_field_len(Self::BASE_MS, self.base_ms) };
        wire::varint_field_len(Self::VERSION, self.version) + base
    }

    pub(super) fn write_body(&self, out: &mut Vec<u8>) {
        wire::put_varint_field(out, Self::VERSION, self.version);
        if self.base_ms != 0 {
            wire::put_varint_field(out, Self::BASE_MS, self.base_ms);
        }
    }

    pub(super) fn read_body(body: &[u8]) -> Option<Self> {
        let mut envelope = Envelope { version: 0, base_ms: 0 };
        let mut at = 0;
        while at < body.len() {
            match wire::read_field(body, &mut at, body.len())? {
                (Self::VERSION, Value::Varint(v)) => envelope.version = v,
                (Self::BASE_MS, Value::Varint(v)) => envelope.base_ms = v,
                _ => {}
            }
        }
        Some(envelope)
    }
}

/// Where a router found the members that it put into an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The inbound shard.
    pub shard: ShardId,
    /// The inbound Kinesis record's sequence number.
    pub sequence_number: ByteString,
    /// When it arrived there: the inbound stream's approximate arrival time, in milliseconds since the
    /// Unix epoch.
    pub arrival_ms: u64,
}

impl Origin {
    const SHARD: u32 = 1;
    const SEQUENCE_NUMBER: u32 = 2;
    const ARRIVAL_MS: u32 = 3;
    const MEMBERS: u32 = 4;

    /// Whether the two are the same. What goes on together mostly shares its texts, so they need not be compared.
    pub(super) fn is(&self, other: &Self) -> bool {
        let same = |a: &str, b: &str| std::ptr::eq(a, b) || a == b;
        self.arrival_ms == other.arrival_ms
            && same(&self.sequence_number, &other.sequence_number)
            && same(self.shard.as_str(), other.shard.as_str())
    }

    /// Bytes of the body for a run of `members` members.
    pub(super) fn body_len(&self, members: u64) -> usize {
        wire::bytes_field_len(Self::SHARD, self.shard.as_str().len())
            + wire::bytes_field_len(Self::SEQUENCE_NUMBER, self.sequence_number.len())
            + wire::varint_field_len(Self::ARRIVAL_MS, self.arrival_ms)
            + wire::varint_field_len(Self::MEMBERS, members)
    }

    pub(super) fn write_body(&self, members: u64, out: &mut Vec<u8>) {
        wire::put_bytes_field(out, Self::SHARD, self.shard.as_str().as_bytes());
        wire::put_bytes_field(out, Self::SEQUENCE_NUMBER, self.sequence_number.as_bytes());
        wire::put_varint_field(out, Self::ARRIVAL_MS, self.arrival_ms);
        wire::put_varint_field(out, Self::MEMBERS, members);
    }

    pub(super) fn read_body(body: &[u8]) -> Option<(Self, u64)> {
        let (mut shard, mut sequence, mut arrival_ms, mut members) = ("", "", 0, 0);
        let mut at = 0;
        while at < body.len() {
            match wire::read_field(body, &mut at, body.len())? {
                (Self::SHARD, Value::Bytes(span)) => shard = std::str::from_utf8(span.of(body)).ok()?,
                (Self::SEQUENCE_NUMBER, Value::Bytes(span)) => {
                    sequence = std::str::from_utf8(span.of(body)).ok()?
                }
                (Self::ARRIVAL_MS, Value::Varint(v)) => arrival_ms = v,
                (Self::MEMBERS, Value::Varint(v)) => members = v,
                _ => {}
            }
        }
        Some((Origin { shard: shard.into(), sequence_number: sequence.into(), arrival_ms }, members))
    }
}
