//! A record on its way through the plan: encoded, decoded or both.

use std::sync::Arc;

use headworks_record::Record;
use headworks_record::aggregate::{self, Aggregate, Member};

/// A member as it is encoded in the aggregate that it was found in.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'m> {
    pub(super) aggregate: &'m Arc<Aggregate>,
    pub(super) member: &'m Member<'m>,
}

/// What there is of a record while it is routed.
pub(super) enum Found<'m> {
    /// It was not decoded so far, and perhaps need not be.
    Encoded(Encoded<'m>),
    /// It was decoded, and is as it was found.
    Both(Encoded<'m>, Record),
    /// It is only in this form.
    Record(Record),
}

impl<'m> Found<'m> {
    pub(super) fn encoded(&self) -> Option<Encoded<'m>> {
        match self {
            Found::Encoded(encoded) | Found::Both(encoded, _) => Some(*encoded),
            Found::Record(_) => None,
        }
    }

    pub(super) fn record(&self) -> Result<Record, aggregate::Error> {
        match self {
            Found::Encoded(encoded) => encoded.member.to_record(),
            Found::Both(_, record) | Found::Record(record) => Ok(record.clone()),
        }
    }

    pub(super) fn into_record(self) -> Result<Record, aggregate::Error> {
        match self {
            Found::Encoded(encoded) => encoded.member.to_record(),
            Found::Both(_, record) | Found::Record(record) => Ok(record),
        }
    }
}
