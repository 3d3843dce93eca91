//! The dead letter of a record, and the identity of one that came without.

use headworks_record::Creation;
use headworks_record::aggregate::{Decoded, Member, decode};

use super::{Plan, Slot};
use crate::dead_letter::{LETTER_VERSION, Letter, Position, Reason};

impl Plan<'_> {
    /// The dead letter of a record, and the record's creation context.
    ///
    /// The batch is taken apart once more: that costs nothing where nothing is poison.
    pub(crate) fn letter(&self, slot: Slot, reasons: &[Reason]) -> (Letter, Creation) {
        let found = &self.event.records[slot.record];
        let mut letter = Letter {
            version: LETTER_VERSION,
            reasons: reasons.to_vec(),
            origin: Position {
                stream: self.event.stream.to_string(),
                shard: found.shard.to_string(),
                sequence_number: found.sequence_number.to_string(),
                sub_sequence_number: slot.member,
                arrival_ms: found.arrival_ms,
            },
            partition_key: found.partition_key.to_string(),
            explicit_hash_key: None,
            traceparent: String::new(),
            created_ms: 0,
            headers: Vec::new(),
            data: found.data.clone(),
        };
        let mut creation = None;
        if let (Some(place), Ok(Decoded::Aggregate(aggregate))) = (slot.member, decode(&found.data))
            && let Some(member) = aggregate.members().nth(place as usize)
        {
            creation = describe(&member, &mut letter);
        }
        let creation = creation.unwrap_or_else(|| self.identity(slot));
        letter.traceparent = creation.traceparent();
        letter.created_ms = creation.created_ms;
        (letter, creation)
    }

    /// The identity of a record that has none.
    pub(super) fn identity(&self, slot: Slot) -> Creation {
        let found = &self.event.records[slot.record];
        let creation = identity(
            &self.event.stream,
            found.shard.as_str(),
            &found.sequence_number,
            slot.member.unwrap_or(0),
            found.arrival_ms,
        );
        creation.with_sampled(self.sampler.samples(creation.trace_id))
    }
}

/// The identity of a record that has none: the same whenever the record is handed over again.
pub(crate) fn identity(
    stream: &str,
    shard: &str,
    sequence_number: &str,
    place: u32,
    arrival_ms: u64,
) -> Creation {
    let place = place.to_be_bytes();
    let parts: [&[u8]; 4] = [stream.as_bytes(), shard.as_bytes(), sequence_number.as_bytes(), &place];
    Creation::derive(&parts, arrival_ms)
}

/// Copies a member into a letter; its creation context, if it has a readable one.
fn describe(member: &Member<'_>, letter: &mut Letter) -> Option<Creation> {
    letter.partition_key = member.key().to_owned();
    letter.explicit_hash_key = member.explicit_hash_key().map(str::to_owned);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    match member.to_record() {
        Ok(record) => {
            letter.headers = record.headers.iter().map(owned).collect();
            letter.data = record.data;
            record.headers.creation().copied()
        }
        Err(_) => {
            letter.headers = member.tags().map(owned).collect();
            letter.data = bytes::Bytes::copy_from_slice(member.data());
            member.creation().ok().flatten()
        }
    }
}
