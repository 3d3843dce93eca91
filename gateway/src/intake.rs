//! Checks each record of a batch and settles its identity.

use std::time::{Duration, SystemTime};

use headworks_proto::convert::{self, Identity};
use headworks_proto::{MAX_BATCH_RECORDS, v1};
use headworks_record::{Creation, Record};
use headworks_telemetry::Parent;
use headworks_writer::Put;
use tokio::time::Instant;

use crate::answer::{Kin, Minted, Pending, Slot};
use crate::call;
use crate::principal::Principal;
use crate::shared::{Inbound, Shared};

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Wire(#[from] convert::Error),
    #[error(
        "the record has {bytes} bytes of key, headers and data, the limit is {limit}; shrink its data, store it elsewhere and send a reference, or raise max_record_bytes"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error(
        "{principal:?} may not hand over creation contexts; leave `creation` out, the gateway mints one: use `id` for idempotent retries and `traceparent` for a parent"
    )]
    MayNotMint { principal: String },
}

impl Error {
    fn code(&self) -> &'static str {
        match self {
            Error::Wire(error) => error.code(),
            Error::TooLarge { .. } => "record-too-large",
            Error::MayNotMint { .. } => "creation-not-allowed",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Error::Wire(error) => error.is_retryable(),
            Error::TooLarge { .. } | Error::MayNotMint { .. } => false,
        }
    }
}

/// What the records of one call have in common.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) inbound: &'a Inbound,
    pub(crate) principal: &'a Principal,
    /// The call's own trace context.
    pub(crate) caller: Parent,
    pub(crate) timeout: Duration,
}

impl Intake<'_> {
    /// Checks the batch's size, then each record: what goes to the writer, and what waits for it.
    pub(crate) fn take(&self, records: Vec<v1::Record>) -> Result<(Vec<Put>, Pending), call::Error> {
        match records.len() {
            0 => return Err(call::Error::EmptyBatch),
            1..=MAX_BATCH_RECORDS => {}
            records => return Err(call::Error::TooManyRecords { records }),
        }
        let deadline = Some(Instant::now() + self.timeout);
        let mut puts = Vec::with_capacity(records.len());
        let mut slots = Vec::with_capacity(records.len());
        for wire in records {
            slots.push(match self.check(wire) {
                Ok((record, slot)) => {
                    puts.push(Put { record, origin: None, deadline });
                    slot
                }
                Err(error) => Slot::Refused(v1::Error {
                    code: error.code().to_owned(),
                    message: error.to_string(),
                    retryable: error.is_retryable(),
                    outcome_unknown: false,
                }),
            });
        }
        Ok((puts, Pending { slots, arrived: SystemTime::now() }))
    }

    fn check(&self, mut wire: v1::Record) -> Result<(Record, Slot), Error> {
        // The conversion lets go of the context that stands beside an id; it becomes a link.
        let beside = if wire.id.is_empty() { String::new() } else { std::mem::take(&mut wire.traceparent) };
        let (mut record, identity) = convert::from_wire(wire)?;
        let (bytes, limit) = (record.user_bytes(), self.shared.config.max_record_bytes);
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        let minter = &self.shared.minter;
        let (creation, kin) = match identity {
            Identity::Minted(_) if !self.principal.may_mint => {
                return Err(Error::MayNotMint { principal: self.principal.name.to_string() });
            }
            Identity::Minted(creation) => (creation, None),
            Identity::Parent { trace_id, span_id, flags } => {
                let parent = Parent::Remote { trace_id, span_id, flags };
                (minter.mint(parent), Some(Kin::Child(parent)))
            }
            Identity::None => (minter.mint(self.caller), Some(Kin::Child(self.caller))),
            Identity::Id(id) => {
                let link = match beside.as_str() {
                    "" => self.caller,
                    text => Parent::from_traceparent(text).map_err(convert::Error::from)?,
                };
                let creation = minter.mint_for_id(&self.principal.name, &self.inbound.name, &id);
                (creation, Some(Kin::Linked(link)))
            }
        };
        record.headers.set_creation(creation);
        Ok((record, self.slot(creation, kin)))
    }

    fn slot(&self, creation: Creation, kin: Option<Kin>) -> Slot {
        match kin {
            Some(kin) if self.shared.tracer.wants(&creation) => {
                Slot::Minted(Box::new(Minted { creation, kin }))
            }
            _ => Slot::Taken,
        }
    }
}
