//! Exactly-once effects in DynamoDB: what records do to tables, in one transaction with the checkpoint.
//!
//! For each record, [`Effects`] says which items it puts, updates or deletes.
//! [`Consumer::run_exactly_once`](crate::Consumer::run_exactly_once) commits them together with the lease's
//! checkpoint and, for each record, an identity item that must not exist yet. So whatever happens, each
//! effect is there once:
//!
//! - a crash before the commit leaves nothing, one after it leaves the checkpoint as well;
//! - the checkpoint is conditional on the lease's owner and counter: a worker that lost the lease commits
//!   nothing;
//! - an answer that got lost is asked for again under the same client token, and the lease tells in the end
//!   whose write it was;
//! - a record that comes again (a producer's retry, a redrive, a replay, however late) meets its identity
//!   item and is dropped. [`Identities::keep`] bounds for how long.
//!
//! A transaction of DynamoDB has at most 100 actions and 4 MB, and touches no item twice. Batches are split
//! at record boundaries to fit, each part with its own position; a record that needs more by itself is
//! refused with [`Error::TooMany`] or [`Error::TooLarge`], and
//! [`Config::on_failure`](crate::Config::on_failure) says what happens with it. So do effects whose own
//! conditions fail.
//!
//! Each record costs a write unit for its identity, twice because it is transactional.

mod commit;
mod identity;
mod part;
mod transacting;

use aws_sdk_dynamodb::types::TransactWriteItem;

pub(crate) use commit::Committer;
pub(crate) use identity::IDENTITY;
pub use identity::Identities;
pub(crate) use transacting::Transacting;

use crate::delivered::Delivered;
use crate::delivery::HandlerError;

/// The most actions of one transaction.
pub const MAX_ACTIONS: usize = 100;
/// The most bytes of one transaction.
pub const MAX_BYTES: usize = 4 << 20;

/// Says what a record does to tables.
///
/// ```
/// use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
/// use headworks_consumer::effects::Effects;
/// use headworks_consumer::{Delivered, HandlerError};
///
/// struct Orders;
///
/// impl Effects for Orders {
///     async fn effects(&mut self, delivered: &Delivered) -> Result<Vec<TransactWriteItem>, HandlerError> {
///         let text = |text: &str| AttributeValue::S(text.to_owned());
///         let put = Put::builder()
///             .table_name("orders")
///             .item("id", text(delivered.record.key.as_str()))
///             .item("order", text(std::str::from_utf8(&delivered.record.data)?))
///             .build()?;
///         Ok(vec![TransactWriteItem::builder().put(put).build()])
///     }
/// }
/// ```
pub trait Effects: Send + 'static {
    /// The record's effects: at most 98 actions, which may have conditions of their own; none is legal. It is
    /// called again for the same record after a failure, so it should change nothing by itself.
    fn effects(
        &mut self,
        delivered: &Delivered,
    ) -> impl Future<Output = Result<Vec<TransactWriteItem>, HandlerError>> + Send;
}

/// Why the effects of a record cannot be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More actions than one transaction takes.
    #[error(
        "the record has {actions} effects, and one transaction takes {} beside the checkpoint and the record's identity; give it fewer, or keep what belongs together in one item",
        MAX_ACTIONS - 2
    )]
    TooMany {
        /// How many.
        actions: usize,
    },
    /// More bytes than one transaction takes.
    #[error(
        "the effects of the record have {bytes} bytes, and one transaction takes {MAX_BYTES}; put large values into S3 and their names into the items"
    )]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// A condition of an effect failed, or DynamoDB refuses it.
    #[error("an effect of the record was refused: {reason}; correct the effect or its condition")]
    Refused {
        /// What DynamoDB said.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::TooMany { .. } | Error::TooLarge { .. } => "effects-too-large",
            Error::Refused { .. } => "effects-refused",
        }
    }

    /// Whether the same effects may be committed later: never by themselves.
    pub fn is_retryable(&self) -> bool {
        false
    }
}
