//! A record on its way through the writer, as a record of its own or as a member of an encoded aggregate.

use std::sync::Arc;

use headworks_record::aggregate::{Aggregate, Builder, Member, Origin};
use headworks_record::{Creation, HashKey, Record};
use tokio::time::Instant;

/// What is to be put.
#[derive(Debug)]
pub(crate) enum Content {
    Record(Record),
    /// The member at this place: its bytes are copied as they are encoded there.
    Member(Arc<Aggregate>, u32),
}

impl Content {
    fn member(aggregate: &Aggregate, place: u32) -> Option<Member<'_>> {
        aggregate.member(place as usize)
    }
}

/// A record that is taken and not yet answered.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) content: Content,
    pub(crate) origin: Option<Arc<Origin>>,
    pub(crate) hash: HashKey,
    pub(crate) deadline: Instant,
    /// Where its outcome goes: a batch, and a place in it.
    pub(crate) batch: usize,
    pub(crate) place: usize,
    pub(crate) attempts: u32,
    /// A put of it was not answered, or landed where readers skip it.
    pub(crate) maybe_stored: bool,
    /// What went wrong last.
    pub(crate) last: Option<Arc<str>>,
    /// Key, headers and data, once each.
    pub(crate) user_bytes: u32,
    /// What it adds to an aggregate, its key included: it adds less where that is there already.
    pub(crate) encoded_bytes: u32,
}

impl Item {
    pub(crate) fn creation(&self) -> Option<&Creation> {
        match &self.content {
            Content::Record(record) => record.headers.creation(),
            Content::Member(aggregate, place) => Content::member(aggregate, *place)?.known_creation(),
        }
    }

    pub(crate) fn key(&self) -> &str {
        match &self.content {
            Content::Record(record) => record.key.as_str(),
            Content::Member(aggregate, place) => {
                Content::member(aggregate, *place).map_or("", |member| member.key())
            }
        }
    }

    pub(crate) fn push_to(&self, builder: &mut Builder) {
        let origin = self.origin.as_deref();
        match &self.content {
            Content::Record(record) => builder.push_from(record, origin),
            Content::Member(aggregate, place) => {
                if let Some(member) = Content::member(aggregate, *place) {
                    builder.push_member(&member, origin);
                }
            }
        }
    }

    /// Puts it into the aggregate if that stays within the limit; tells whether it did.
    pub(crate) fn push_within(&self, builder: &mut Builder, limit: usize) -> bool {
        let origin = self.origin.as_deref();
        match &self.content {
            Content::Record(record) => builder.push_within(record, origin, limit),
            Content::Member(aggregate, place) => Content::member(aggregate, *place)
                .is_none_or(|member| builder.push_member_within(&member, origin, limit)),
        }
    }

    /// Whether it is the member of this aggregate at this place, with this origin.
    fn is_member(&self, of: &Arc<Aggregate>, at: usize, origin: Option<&Origin>) -> bool {
        match &self.content {
            Content::Member(aggregate, place) => {
                Arc::ptr_eq(aggregate, of) && *place as usize == at && self.origin.as_deref() == origin
            }
            Content::Record(_) => false,
        }
    }

    /// The aggregate that begins with this item if all of its members follow each other here.
    pub(crate) fn whole<'i>(
        &'i self,
        mut all: impl ExactSizeIterator<Item = &'i Item>,
    ) -> Option<&'i Arc<Aggregate>> {
        let Content::Member(aggregate, 0) = &self.content else { return None };
        let members = aggregate.len();
        let origin = self.origin.as_deref();
        let complete = all.len() >= members
            && (0..members).all(|at| all.next().is_some_and(|item| item.is_member(aggregate, at, origin)));
        complete.then_some(aggregate)
    }
}
