//! The boundary to the lease table.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use headworks_record::ShardId;
use tokio::time::timeout;

use super::model::{Holding, Lease, PendingCheckpoint};
use crate::position::Checkpoint;

/// One worker's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The worker's id.
    pub worker: String,
    /// One process's life of that worker: two processes must not beat under one id.
    pub incarnation: String,
    /// Raised by every beat; observers watch it move.
    pub counter: u64,
    /// How often this worker changed leases in a way that others should look at soon.
    pub changes: u64,
    /// Bytes/s that this worker reads from all of its shards.
    pub load: u64,
}

/// Where leases and heartbeats are kept. Every write to a lease is conditional: see [`Lease::counter`].
///
/// An implementation settles answers that were lost: if a conditional write fails because the very same
/// write succeeded before, it is a success.
#[async_trait]
pub trait LeaseStore: std::fmt::Debug + Send + Sync + 'static {
    /// Creates what is missing and waits until it can be used.
    async fn prepare(&self) -> Result<(), Error>;

    /// All leases, by a consistent read.
    async fn leases(&self) -> Result<Vec<Lease>, Error>;

    /// One lease, by a consistent read.
    async fn lease(&self, shard: &ShardId) -> Result<Option<Lease>, Error>;

    /// Adds a lease unless the shard has one; tells whether it was added.
    async fn create(&self, lease: &Lease) -> Result<bool, Error>;

    /// Makes `worker` the owner if owner and counter are still those of `seen`.
    async fn claim(&self, seen: &Lease, worker: &str) -> Result<Lease, Error>;

    /// Writes how far the shard was read; returns the holding for the next write.
    async fn checkpoint(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
        children: &[ShardId],
    ) -> Result<Holding, Error>;

    /// Announces a checkpoint that will be committed by [`LeaseStore::checkpoint`]; returns the holding for the
    /// next write.
    async fn prepare_checkpoint(
        &self,
        holding: &Holding,
        pending: &PendingCheckpoint,
    ) -> Result<Holding, Error> {
        let _ = pending;
        Err(Error::Refused {
            operation: "a prepared checkpoint",
            table: holding.shard.to_string(),
            reason: "this lease store has none".to_owned(),
        })
    }

    /// Raises the lease's counter and nothing else, for workers that take a lease whose counter stands still
    /// for one that nobody reads; returns the holding for the next write.
    async fn renew(&self, holding: &Holding) -> Result<Holding, Error> {
        Err(Error::Refused {
            operation: "a renewal",
            table: holding.shard.to_string(),
            reason: "this lease store has none".to_owned(),
        })
    }

    /// Removes a lease that has not changed since it was seen; tells whether it was removed. A store without
    /// it keeps the leases of shards that are long gone.
    async fn delete(&self, seen: &Lease) -> Result<bool, Error> {
        let _ = seen;
        Ok(false)
    }

    /// Takes note of what this worker's shards bring, in bytes/s: to be written with their next checkpoints.
    fn measured(&self, rates: &BTreeMap<ShardId, u64>) {
        let _ = rates;
    }

    /// Gives the lease up.
    async fn release(&self, holding: &Holding) -> Result<(), Error>;

    /// Raises the worker's counter. The `first` beat takes the id over from an earlier incarnation; later
    /// ones fail with [`Error::WorkerTaken`] if another incarnation did so.
    async fn beat(&self, beat: &Beat, first: bool) -> Result<(), Error>;

    /// All heartbeats; the read may be a little old.
    async fn beats(&self) -> Result<Vec<Beat>, Error>;

    /// One worker's heartbeat, by a consistent read: asked before a worker is taken for dead. An
    /// implementation may leave it out if its [`LeaseStore::beats`] is consistent.
    async fn beat_of(&self, worker: &str) -> Result<Option<Beat>, Error> {
        Ok(self.beats().await?.into_iter().find(|beat| beat.worker == worker))
    }

    /// Removes the worker's heartbeat, if it is still this incarnation's.
    async fn retire(&self, beat: &Beat) -> Result<(), Error>;
}

/// A call that counts as unavailable when it gets no answer within the limit.
pub(crate) async fn answered<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Error::Unavailable {
            operation: "a request",
            table: "leases or heartbeats".to_owned(),
            reason: format!("no answer within {limit:?}"),
        })
    })
}

/// Why the lease table could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lease belongs to somebody else by now.
    #[error("the lease of {shard} was changed by another worker; this worker's write was refused")]
    Conflict {
        /// The shard.
        shard: ShardId,
    },
    /// Another process uses this worker's id.
    #[error(
        "another process took over the worker id {worker:?}; give every process its own id, or leave it out to get a random one"
    )]
    WorkerTaken {
        /// The id.
        worker: String,
    },
    /// An item of the table is not a lease.
    #[error(
        "the item {key:?} of table {table:?} cannot be read as a lease: {reason}; correct or delete it, or choose another application name"
    )]
    InvalidItem {
        /// The table.
        table: String,
        /// The item's lease key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The table exists and is not what is needed.
    #[error("the table {table:?} cannot hold leases: {reason}; choose another table or application name")]
    InvalidTable {
        /// The table.
        table: String,
        /// What is wrong with it.
        reason: String,
    },
    /// DynamoDB cannot be reached or is overloaded.
    #[error("{operation} on table {table:?} failed: {reason}")]
    Unavailable {
        /// The API operation.
        operation: &'static str,
        /// The table.
        table: String,
        /// The service's code and message, or what broke on the way.
        reason: String,
    },
    /// The table does not exist.
    #[error(
        "{operation}: there is no table {table:?}: {reason}; check its name and the region, or start the application once, which makes it"
    )]
    NoTable {
        /// The API operation.
        operation: &'static str,
        /// The table.
        table: String,
        /// The service's code and message.
        reason: String,
    },
    /// DynamoDB refused the request for good.
    #[error("{operation} on table {table:?} was refused: {reason}; check the role's permissions")]
    Refused {
        /// The API operation.
        operation: &'static str,
        /// The table.
        table: String,
        /// The service's code and message.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Conflict { .. } => "lease-lost",
            Error::WorkerTaken { .. } => "worker-id-taken",
            Error::InvalidItem { .. } => "lease-item-invalid",
            Error::InvalidTable { .. } => "lease-table-invalid",
            Error::Unavailable { .. } => "lease-table-unavailable",
            Error::NoTable { .. } | Error::Refused { .. } => "lease-table-refused",
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable { .. })
    }
}
