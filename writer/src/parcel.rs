//! Members of aggregates that are encoded already, to be put without decoding their payloads.

use std::sync::Arc;

use headworks_record::aggregate::{Aggregate, Error, Origin};
use headworks_record::{Creation, PartitionKey, key};
use tokio::time::Instant;

use crate::item::Item;
use crate::outcome::Put;

/// What [`Handle::put_parcels`](crate::Handle::put_parcels) takes: a record, or members of an aggregate.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// One record.
    Record(Put),
    /// Members of an encoded aggregate.
    Members(Encoded),
}

impl Parcel {
    /// How many records it holds: that many outcomes answer it.
    pub fn records(&self) -> usize {
        match self {
            Parcel::Record(_) => 1,
            Parcel::Members(encoded) => encoded.len(),
        }
    }

    pub(crate) fn record(&self) -> Option<&Put> {
        match self {
            Parcel::Record(put) => Some(put),
            Parcel::Members(_) => None,
        }
    }

    /// Bytes of keys, headers and data, roughly for members: it is what they weigh in the budget.
    pub fn bytes(&self) -> usize {
        match self {
            Parcel::Record(put) => put.record.user_bytes(),
            Parcel::Members(encoded) => encoded.members().map(|(_, bytes)| bytes).sum(),
        }
    }
}

impl From<Put> for Parcel {
    fn from(put: Put) -> Self {
        Parcel::Record(put)
    }
}

impl From<Encoded> for Parcel {
    fn from(encoded: Encoded) -> Self {
        Parcel::Members(encoded)
    }
}

/// Some or all members of an aggregate, in their order there.
///
/// If all of them go to one lane and nothing else would share their Kinesis record, the blob is put as it
/// is, with the origin appended; if not, each one's bytes are copied into the aggregate of its lane.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub(crate) aggregate: Arc<Aggregate>,
    /// `None`: all of them.
    pub(crate) places: Option<Vec<u32>>,
    pub(crate) origin: Option<Arc<Origin>>,
    pub(crate) deadline: Option<Instant>,
}

impl Encoded {
    /// All members. Fails as [`Member::to_record`](headworks_record::aggregate::Member::to_record) would.
    pub fn whole(aggregate: Arc<Aggregate>) -> Result<Self, Error> {
        Self::check(&aggregate, 0..aggregate.len())?;
        Ok(Self { aggregate, places: None, origin: None, deadline: None })
    }

    /// The members at these places, which ascend.
    pub fn members_at(aggregate: Arc<Aggregate>, places: Vec<u32>) -> Result<Self, Error> {
        Self::check(&aggregate, places.iter().map(|place| *place as usize))?;
        Ok(Self { aggregate, places: Some(places), origin: None, deadline: None })
    }

    /// Says where a router found the aggregate.
    pub fn origin(mut self, origin: Arc<Origin>) -> Self {
        self.origin = Some(origin);
        self
    }

    /// How long the members are tried; without it, the writer's default.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How many members it holds.
    pub fn len(&self) -> usize {
        self.places.as_ref().map_or(self.aggregate.len(), Vec::len)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places and encoded bytes.
    pub(crate) fn members(&self) -> impl Iterator<Item = (u32, usize)> {
        (0..self.len()).filter_map(|i| {
            let place = self.places.as_ref().map_or(i as u32, |places| places[i]);
            let member = self.aggregate.member(place as usize)?;
            Some((place, member.encoded_len() + member.key().len()))
        })
    }

    /// An item for each member, and the member's place in the aggregate; the first item has this place in its batch.
    pub(crate) fn items(&self, first: u32, deadline: Instant) -> impl Iterator<Item = (Item, u32)> {
        let deadline = self.deadline.unwrap_or(deadline);
        (first..).zip(self.members()).filter_map(move |(place, (at, bytes))| {
            let member = self.aggregate.member(at as usize)?;
            let item = Item {
                // Checked when the parcel was made.
                hash: member.hash_key().unwrap_or_else(|_| key::hash_of(member.key())),
                deadline,
                last: None,
                batch: 0,
                place,
                attempts: 0,
                user_bytes: member.user_bytes() as u32,
                encoded_bytes: (bytes + 8) as u32,
                fault: None,
                maybe_stored: false,
                sampled: member.known_creation().is_some_and(Creation::is_sampled),
            };
            Some((item, at))
        })
    }

    fn check(aggregate: &Aggregate, mut places: impl Iterator<Item = usize>) -> Result<(), Error> {
        let bad = |place, reason: String| Error::BadMember { member: place, reason };
        places.try_for_each(|place| {
            let Some(member) = aggregate.member(place) else {
                return Err(bad(place, format!("the aggregate has {} members", aggregate.len())));
            };
            PartitionKey::check(member.key()).map_err(|error| bad(place, error.to_string()))?;
            if member.explicit_hash_key().is_some() {
                member.hash_key().map_err(|error| bad(place, error.to_string()))?;
            }
            Ok(())
        })
    }
}
