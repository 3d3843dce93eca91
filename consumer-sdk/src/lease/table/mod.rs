//! The lease table and the heartbeat table in DynamoDB.

mod beats;
mod schema;
mod writes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use headworks_record::ShardId;

use super::item::{self, Item};
use super::model::{Holding, Lease, PendingCheckpoint};
use super::store::{Beat, Error, LeaseStore};
use crate::position::Checkpoint;
use crate::sync::lock;

const WORKER: &str = "worker";
const EXPIRES: &str = "expires";

/// The tables of one application in DynamoDB.
///
/// Leases are in the KCL's layout in a table named like the application; heartbeats are in a table of
/// their own, because KCL 2.x to 3.4 take every item of the lease table for a lease.
#[derive(Debug, Clone)]
pub struct Table {
    client: Client,
    leases: String,
    workers: String,
    // Bytes/s by shard, to be written with the next checkpoints.
    rates: Arc<Mutex<BTreeMap<ShardId, u64>>>,
}

impl Table {
    /// The tables with these names; nothing is created before [`LeaseStore::prepare`].
    pub fn new(client: Client, leases: impl Into<String>, workers: impl Into<String>) -> Self {
        let (leases, workers) = (leases.into(), workers.into());
        Self { client, leases, workers, rates: Arc::default() }
    }

    async fn scan(&self, table: &str, consistent: bool) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let request = self.client.scan().table_name(table).consistent_read(consistent);
            let page = request
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| failed("Scan", table, &error))?;
            items.extend(page.items.unwrap_or_default());
            from = page.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() {
                return Ok(items);
            }
        }
    }

    fn read(&self, item: &Item) -> Result<Lease, Error> {
        item::read(item).map_err(|reason| Error::InvalidItem {
            table: self.leases.clone(),
            key: item.get(item::KEY).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default(),
            reason,
        })
    }
}

#[async_trait]
impl LeaseStore for Table {
    async fn prepare(&self) -> Result<(), Error> {
        tokio::try_join!(self.ensure(&self.leases, item::KEY), self.ensure(&self.workers, WORKER))?;
        self.expire(&self.workers).await;
        Ok(())
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let items = self.scan(&self.leases, true).await?;
        items.iter().filter(|item| item::is_lease(item)).map(|item| self.read(item)).collect()
    }

    async fn lease(&self, shard: &ShardId) -> Result<Option<Lease>, Error> {
        let request = self.client.get_item().table_name(&self.leases).consistent_read(true);
        let found = request
            .key(item::KEY, AttributeValue::S(shard.to_string()))
            .send()
            .await
            .map_err(|error| failed("GetItem", &self.leases, &error))?;
        found.item.filter(item::is_lease).map(|item| self.read(&item)).transpose()
    }

    async fn create(&self, lease: &Lease) -> Result<bool, Error> {
        let request = self.client.put_item().table_name(&self.leases).set_item(Some(item::write(lease)));
        let put = request
            .condition_expression("attribute_not_exists(#key)")
            .expression_attribute_names("#key", item::KEY)
            .send()
            .await;
        match put {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(failed("PutItem", &self.leases, &error)),
        }
    }

    async fn claim(&self, seen: &Lease, worker: &str) -> Result<Lease, Error> {
        self.write_claim(seen, worker).await
    }

    async fn checkpoint(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
        children: &[ShardId],
    ) -> Result<Holding, Error> {
        self.write_checkpoint(holding, checkpoint, children).await
    }

    async fn prepare_checkpoint(
        &self,
        holding: &Holding,
        pending: &PendingCheckpoint,
    ) -> Result<Holding, Error> {
        self.write_pending(holding, pending).await
    }

    async fn renew(&self, holding: &Holding) -> Result<Holding, Error> {
        self.write_renewal(holding).await
    }

    async fn release(&self, holding: &Holding) -> Result<(), Error> {
        self.write_release(holding).await
    }

    async fn delete(&self, seen: &Lease) -> Result<bool, Error> {
        self.remove(seen).await
    }

    fn measured(&self, rates: &BTreeMap<ShardId, u64>) {
        lock(&self.rates).clone_from(rates);
    }

    async fn beat(&self, beat: &Beat, first: bool) -> Result<(), Error> {
        self.write_beat(beat, first).await
    }

    async fn beats(&self) -> Result<Vec<Beat>, Error> {
        self.read_beats().await
    }

    async fn beat_of(&self, worker: &str) -> Result<Option<Beat>, Error> {
        self.read_beat_of(worker).await
    }

    async fn retire(&self, beat: &Beat) -> Result<(), Error> {
        self.remove_beat(beat).await
    }
}

/// Sorts a failure into what may pass and what will not.
fn failed<E>(operation: &'static str, table: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let table = table.to_owned();
    let reason = crate::streams::describe(error);
    if error.code() == Some("ResourceNotFoundException") {
        return Error::NoTable { operation, table, reason };
    }
    let refused = match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::ServiceError(service) => matches!(
            service.err().code(),
            Some(
                "AccessDeniedException"
                    | "ValidationException"
                    | "UnrecognizedClientException"
                    | "InvalidSignatureException"
                    | "MissingAuthenticationTokenException"
                    | "ItemCollectionSizeLimitExceededException"
            )
        ),
        _ => false,
    };
    match refused {
        true => Error::Refused { operation, table, reason },
        false => Error::Unavailable { operation, table, reason },
    }
}
