//! What goes to one outbound stream, and where it came from.

use std::sync::Arc;

use headworks_record::aggregate::Origin;
use tokio::time::Instant;

use super::found::Encoded;
use crate::outbound::{Load, Members};

/// A record's place in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot {
    /// The Kinesis record, by its place in the event.
    pub(crate) record: usize,
    /// The member; `None` is the Kinesis record as a whole.
    pub(crate) member: Option<u32>,
}

/// What goes to one outbound stream.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) loads: Vec<Load>,
    /// Where each record in them came from.
    pub(crate) sent: Vec<Sent>,
}

/// A put's place in a batch, and from when on its failure means the dead letters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) slot: Slot,
    /// In milliseconds since the Unix epoch; `None` means never.
    pub(crate) spills_at: Option<u64>,
}

impl Batch {
    pub(super) fn push_member(
        &mut self,
        encoded: Encoded<'_>,
        slot: Slot,
        origin: &Arc<Origin>,
        deadline: Instant,
    ) {
        let place = slot.member.unwrap_or(0);
        if let Some(Load::Members(last)) = self.loads.last_mut()
            && Arc::ptr_eq(&last.aggregate, encoded.aggregate)
            && last.deadline == deadline
        {
            last.places.push(place);
            return;
        }
        let (aggregate, origin) = (Arc::clone(encoded.aggregate), Arc::clone(origin));
        self.loads.push(Load::Members(Members { aggregate, places: vec![place], origin, deadline }));
    }

    /// Leaves out what comes from this Kinesis record and later ones.
    pub(super) fn cut(&mut self, index: usize) {
        let kept = self.sent.partition_point(|sent| sent.slot.record < index);
        self.sent.truncate(kept);
        // A load holds records of one Kinesis record only, so it is kept or left out as a whole.
        let mut records = 0;
        let loads = self.loads.iter().take_while(|load| {
            records += load.len();
            records <= kept
        });
        let loads = loads.count();
        self.loads.truncate(loads);
    }
}
