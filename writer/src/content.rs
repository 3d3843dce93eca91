//! What is to be put: a record of its own, or a member of an encoded aggregate.

use std::sync::Arc;

use headworks_record::Creation;
use headworks_record::aggregate::{Aggregate, Builder, Member, Origin};

use crate::outcome::Put;

/// One of a batch that holds members of encoded aggregates.
#[derive(Debug)]
pub(crate) enum Unit {
    Record(Put),
    /// The member at this place: its bytes are copied as they are encoded there.
    Member(Arc<Aggregate>, u32, Option<Arc<Origin>>),
}

impl Unit {
    pub(crate) fn content(&self) -> Content<'_> {
        match self {
            Unit::Record(put) => Content::Record(put),
            Unit::Member(aggregate, place, origin) => {
                Content::Member(aggregate, *place as usize, origin.as_deref())
            }
        }
    }
}

/// The same where it lies in its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'b> {
    Record(&'b Put),
    Member(&'b Arc<Aggregate>, usize, Option<&'b Origin>),
}

impl<'b> Content<'b> {
    fn member(aggregate: &'b Aggregate, place: usize) -> Option<Member<'b>> {
        aggregate.member(place)
    }

    pub(crate) fn creation(self) -> Option<&'b Creation> {
        match self {
            Content::Record(put) => put.record.headers.creation(),
            Content::Member(aggregate, place, _) => Self::member(aggregate, place)?.known_creation(),
        }
    }

    pub(crate) fn key(self) -> &'b str {
        match self {
            Content::Record(put) => put.record.key.as_str(),
            Content::Member(aggregate, place, _) => {
                Self::member(aggregate, place).map_or("", |member| member.key())
            }
        }
    }

    pub(crate) fn push_to(self, builder: &mut Builder) {
        match self {
            Content::Record(put) => builder.push_from(&put.record, put.origin.as_deref()),
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
            Content::Record(put) => builder.push_within(&put.record, put.origin.as_deref(), limit),
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
            Content::Record(_) => false,
        };
        let complete = (0..first.len()).all(|at| all.next().is_some_and(|next| is_next(next, at)));
        complete.then_some((&**first, origin))
    }
}
