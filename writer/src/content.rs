//! What is to be put: a record of its own, or a member of an encoded aggregate.

use std::sync::Arc;

use headworks_record::Creation;
use headworks_record::aggregate::{Aggregate, Builder, Member, Origin, Prepared, Ready};

use crate::parcel::Encoded;

/// The records of a batch, in their order.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Records that were made here.
    Records(Prepared),
    /// Some that come from elsewhere.
    Mixed(Box<Mixed>),
}

impl Contents {
    pub(crate) fn len(&self) -> usize {
        match self {
            Contents::Records(prepared) => prepared.len(),
            Contents::Mixed(mixed) => mixed.units.len(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<Content<'_>> {
        match self {
            Contents::Records(prepared) => prepared.get(place).map(|ready| Content::Record(ready, None)),
            Contents::Mixed(mixed) => mixed.get(place),
        }
    }
}

/// Records and members of aggregates.
#[derive(Debug)]
pub(crate) struct Mixed {
    records: Prepared,
    /// Those of the records.
    origins: Vec<Option<Arc<Origin>>>,
    aggregates: Vec<(Arc<Aggregate>, Option<Arc<Origin>>)>,
    units: Vec<Unit>,
}

/// Where one of them is.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// Among the records.
    Record(u32),
    /// In this aggregate, at this place: its bytes are copied as they are encoded there.
    Member(u32, u32),
}

impl Mixed {
    /// None yet; these are the records that will be among them.
    pub(crate) fn new(records: Prepared, count: usize) -> Self {
        let units = Vec::with_capacity(count);
        Self { records, origins: Vec::new(), aggregates: Vec::new(), units }
    }

    /// Adds the next of the records.
    pub(crate) fn record(&mut self, origin: Option<Arc<Origin>>) {
        self.units.push(Unit::Record(self.origins.len() as u32));
        self.origins.push(origin);
    }

    /// Adds members of an aggregate.
    pub(crate) fn members(&mut self, encoded: &Encoded, places: impl Iterator<Item = u32>) {
        let of = self.aggregates.len() as u32;
        self.units.extend(places.map(|place| Unit::Member(of, place)));
        self.aggregates.push((Arc::clone(&encoded.aggregate), encoded.origin.clone()));
    }

    fn get(&self, place: usize) -> Option<Content<'_>> {
        match *self.units.get(place)? {
            Unit::Record(at) => {
                let origin = self.origins.get(at as usize)?.as_deref();
                self.records.get(at as usize).map(|ready| Content::Record(ready, origin))
            }
            Unit::Member(of, at) => {
                let (aggregate, origin) = self.aggregates.get(of as usize)?;
                Some(Content::Member(aggregate, at as usize, origin.as_deref()))
            }
        }
    }
}

/// One of them, where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'b> {
    Record(Ready<'b>, Option<&'b Origin>),
    Member(&'b Arc<Aggregate>, usize, Option<&'b Origin>),
}

impl<'b> Content<'b> {
    fn member(aggregate: &'b Aggregate, place: usize) -> Option<Member<'b>> {
        aggregate.member(place)
    }

    pub(crate) fn creation(self) -> Option<Creation> {
        match self {
            Content::Record(ready, _) => ready.creation(),
            Content::Member(aggregate, place, _) => Self::member(aggregate, place)?.known_creation().copied(),
        }
    }

    pub(crate) fn key(self) -> &'b str {
        match self {
            Content::Record(ready, _) => ready.key(),
            Content::Member(aggregate, place, _) => {
                Self::member(aggregate, place).map_or("", |member| member.key())
            }
        }
    }

    /// Something of its encoded text, for who wants that near.
    #[inline]
    pub(crate) fn first_byte(self) -> u8 {
        match self {
            Content::Record(ready, _) => ready.key_bytes().first().copied().unwrap_or_default(),
            // Those of an aggregate lie together as they are, and were parsed a moment ago.
            Content::Member(..) => 0,
        }
    }

    /// The length of an aggregate of it alone.
    pub(crate) fn len_alone(self) -> usize {
        let builder = Builder::new();
        match self {
            Content::Record(ready, origin) => builder.len_with_ready(&ready, origin),
            Content::Member(aggregate, place, origin) => {
                Self::member(aggregate, place).map_or(0, |member| builder.len_with_member(&member, origin))
            }
        }
    }

    pub(crate) fn push_to(self, builder: &mut Builder) {
        match self {
            Content::Record(ready, origin) => builder.push_ready(&ready, origin),
            Content::Member(aggregate, place, origin) => {
                if let Some(member) = Self::member(aggregate, place) {
                    builder.push_member(&member, origin);
                }
            }
        }
    }

    /// Puts it into the aggregate if that stays within the limit; tells whether it did.
    pub(crate) fn push_within(self, builder: &mut Builder, limit: usize) -> bool {
        match self {
            Content::Record(ready, origin) => builder.push_ready_within(&ready, origin, limit),
            Content::Member(aggregate, place, origin) => Self::member(aggregate, place)
                .is_none_or(|member| builder.push_member_within(&member, origin, limit)),
        }
    }

    /// The aggregate that begins with this one if all of its members follow each other here.
    pub(crate) fn whole(
        self,
        mut all: impl Iterator<Item = Content<'b>>,
    ) -> Option<(&'b Aggregate, Option<&'b Origin>)> {
        let Content::Member(first, 0, origin) = self else { return None };
        let is_next = |next: Content<'b>, at: usize| match next {
            Content::Member(aggregate, place, of) => {
                Arc::ptr_eq(aggregate, first) && place == at && of == origin
            }
            Content::Record(..) => false,
        };
        let complete = (0..first.len()).all(|at| all.next().is_some_and(|next| is_next(next, at)));
        complete.then_some((&**first, origin))
    }
}
