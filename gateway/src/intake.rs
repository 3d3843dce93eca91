//! Checks each record of a batch and settles its identity.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use headworks_proto::convert::{self, Identity};
use headworks_proto::{MAX_BATCH_RECORDS, v1, wire};
use headworks_record::Headers;
use headworks_telemetry::Parent;
use headworks_writer::{Batch, Put};
use tokio::time::Instant;

use crate::answer::{Kin, Minted, Pending, Special};
use crate::call;
use crate::hand_over::Load;
use crate::principal::Principal;
use crate::protect::{self, Protection};
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
    #[error(transparent)]
    Protect(#[from] protect::Refused),
    #[error(transparent)]
    Size(#[from] headworks_writer::Failure),
    #[error(
        "{principal:?} may not hand over creation contexts; leave `creation` out, the gateway mints one: use `id` for idempotent retries and `traceparent` for a parent"
    )]
    MayNotMint { principal: String },
    #[error(
        "{principal:?} may not send the header {name:?} with {value:?}, only one of {allowed:?}; use such a value, or add this one to the [[principals]] entry"
    )]
    HeaderNotAllowed { principal: String, name: String, value: String, allowed: Vec<String> },
}

impl Error {
    fn code(&self) -> &'static str {
        match self {
            Error::Wire(error) => error.code(),
            Error::Protect(error) => error.code(),
            Error::Size(error) => error.code(),
            Error::TooLarge { .. } => "record-too-large",
            Error::MayNotMint { .. } => "creation-not-allowed",
            Error::HeaderNotAllowed { .. } => "header-not-allowed",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Error::Wire(error) => error.is_retryable(),
            Error::Protect(error) => error.is_retryable(),
            Error::Size(error) => error.is_retryable(),
            Error::TooLarge { .. } | Error::MayNotMint { .. } | Error::HeaderNotAllowed { .. } => false,
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
    /// Checks the batch's size, then each record: what is handed over, and what waits for it.
    pub(crate) fn take(&self, records: &wire::Records) -> Result<(Load, Pending), call::Error> {
        match records.len() {
            0 => return Err(call::Error::EmptyBatch),
            1..=MAX_BATCH_RECORDS => {}
            records => return Err(call::Error::TooManyRecords { records }),
        }
        let deadline = Instant::now() + self.timeout;
        let mut load = match self.inbound.spool {
            None => Load::Batch(Batch::with_capacity(records.len(), records.user_bytes(), deadline)),
            Some(_) => Load::Puts(Vec::with_capacity(records.len())),
        };
        let mut pending = Pending { records: records.len(), special: Vec::new(), arrived: SystemTime::now() };
        let protection = self.inbound.protection();
        let mut headers = Vec::new();
        for (place, wire) in records.iter().enumerate() {
            let special = match self.check(wire, &mut headers, &protection, deadline, &mut load) {
                Ok(minted) => minted.map(Special::Minted),
                Err(error) => Some(Special::Refused(v1::Error {
                    code: error.code().to_owned(),
                    message: error.to_string(),
                    retryable: error.is_retryable(),
                    outcome_unknown: false,
                })),
            };
            pending.special.extend(special.map(|special| (place, special)));
        }
        Ok((load, pending))
    }

    /// Checks a record and loads it.
    fn check<'r>(
        &self,
        wire: wire::Record<'r>,
        headers: &mut Vec<(&'r str, &'r str)>,
        protection: &Protection,
        deadline: Instant,
        load: &mut Load,
    ) -> Result<Option<Minted>, Error> {
        let (mut record, identity) = convert::check(wire, headers)?;
        let (bytes, limit) = (record.user_bytes(), self.shared.config.max_record_bytes);
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        if let Some((name, value, allowed)) = self.principal.forbidden(&record) {
            return Err(Error::HeaderNotAllowed {
                principal: self.principal.name.to_string(),
                name: name.to_owned(),
                value: value.chars().take(128).collect(),
                allowed: allowed.iter().take(16).cloned().collect(),
            });
        }
        // Nothing below sees the payload as it came.
        let protected = protection
            .concerns_anything()
            .then(|| {
                let headers = Headers::from_wire(record.headers.iter().copied());
                protection.apply(&headers, Bytes::copy_from_slice(record.data), limit)
            })
            .transpose()?;
        if let Some(protected) = &protected {
            record.data = protected;
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
                let link = match wire.traceparent() {
                    "" => self.caller,
                    text => Parent::from_traceparent(text).map_err(convert::Error::from)?,
                };
                let creation = minter.mint_for_id(&self.principal.name, &self.inbound.name, id);
                (creation, Some(Kin::Linked(link)))
            }
        };
        record.creation = Some(creation);
        match load {
            Load::Batch(batch) => batch.push(&record),
            Load::Puts(puts) => {
                let record = record.to_record().map_err(convert::Error::from)?;
                let put = Put { record, origin: None, deadline: Some(deadline) };
                // Once it is spooled there is nobody to tell.
                self.inbound.writer.check_size(&put)?;
                puts.push(put);
            }
        }
        // A span of it is told from here only if the gateway minted it, and somebody wants spans.
        Ok(kin.filter(|_| self.shared.tracer.wants(&creation)).map(|kin| Minted { creation, kin }))
    }
}
