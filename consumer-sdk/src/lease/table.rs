//! The lease table and the heartbeat table in DynamoDB.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TableStatus, TimeToLiveSpecification, Update,
};
use headworks_record::ShardId;
use tokio::time::Instant;

use super::item::{self, Item};
use super::model::{Holding, Lease, PendingCheckpoint};
use super::store::{Beat, Error, LeaseStore};
use crate::position::Checkpoint;

const WORKER: &str = "worker";
const INCARNATION: &str = "incarnation";
const BEATS: &str = "beats";
const CHANGES: &str = "changes";
const LOAD: &str = "load";
const EXPIRES: &str = "expires";

/// How long the heartbeat of a worker that vanished stays in its table. DynamoDB removes it some time
/// after; nothing rests on this clock.
const KEEP_BEATS: Duration = Duration::from_secs(3600);
const CREATE_POLL: Duration = Duration::from_millis(100);
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

/// The tables of one application in DynamoDB.
///
/// Leases are in the KCL's layout in a table named like the application; heartbeats are in a table of
/// their own, because KCL 2.x to 3.4 take every item of the lease table for a lease.
#[derive(Debug, Clone)]
pub struct Table {
    client: Client,
    leases: String,
    workers: String,
}

impl Table {
    /// The tables with these names; nothing is created before [`LeaseStore::prepare`].
    pub fn new(client: Client, leases: impl Into<String>, workers: impl Into<String>) -> Self {
        Self { client, leases: leases.into(), workers: workers.into() }
    }

    async fn ensure(&self, table: &str, key: &str) -> Result<(), Error> {
        let give_up = Instant::now() + CREATE_TIMEOUT;
        loop {
            let described = self.client.describe_table().table_name(table).send().await;
            match described {
                Ok(output) => {
                    let Some(description) = output.table else {
                        let reason = "it cannot be described".to_owned();
                        return Err(Error::InvalidTable { table: table.to_owned(), reason });
                    };
                    let keys: Vec<_> = description.key_schema().iter().map(|k| k.attribute_name()).collect();
                    if keys != [key] {
                        let reason = format!("its key is {keys:?}, not {key:?}");
                        return Err(Error::InvalidTable { table: table.to_owned(), reason });
                    }
                    match description.table_status() {
                        Some(TableStatus::Active | TableStatus::Updating) => return Ok(()),
                        _ if Instant::now() >= give_up => {
                            let reason =
                                format!("it did not become ACTIVE within {} s", CREATE_TIMEOUT.as_secs());
                            return Err(Error::InvalidTable { table: table.to_owned(), reason });
                        }
                        _ => tokio::time::sleep(CREATE_POLL).await,
                    }
                }
                Err(error) if error.code() == Some("ResourceNotFoundException") => {
                    self.create_table(table, key).await?;
                    // A table that was just created is not seen everywhere at once.
                    tokio::time::sleep(CREATE_POLL).await;
                }
                Err(error) => return Err(failed("DescribeTable", table, &error)),
            }
        }
    }

    async fn create_table(&self, table: &str, key: &str) -> Result<(), Error> {
        let broken = |error: aws_sdk_dynamodb::error::BuildError| Error::Refused {
            operation: "CreateTable",
            table: table.to_owned(),
            reason: error.to_string(),
        };
        let attribute = AttributeDefinition::builder()
            .attribute_name(key)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .map_err(broken)?;
        let schema = KeySchemaElement::builder()
            .attribute_name(key)
            .key_type(KeyType::Hash)
            .build()
            .map_err(broken)?;
        let request = self.client.create_table().table_name(table).attribute_definitions(attribute);
        match request.key_schema(schema).billing_mode(BillingMode::PayPerRequest).send().await {
            Ok(_) => tracing::info!(table, "created the table"),
            // Another worker was faster.
            Err(error) if error.code() == Some("ResourceInUseException") => {}
            Err(error) => return Err(failed("CreateTable", table, &error)),
        }
        Ok(())
    }

    /// Every table of the account whose key is that of leases.
    pub(crate) async fn lease_tables(client: &Client) -> Result<Vec<String>, Error> {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let page = client.list_tables().set_exclusive_start_table_name(from).send().await;
            let page = page.map_err(|error| failed("ListTables", "*", &error))?;
            for table in page.table_names.unwrap_or_default() {
                let described = client.describe_table().table_name(&table).send().await;
                let described = described.map_err(|error| failed("DescribeTable", &table, &error))?;
                let keys = described.table.and_then(|table| table.key_schema).unwrap_or_default();
                if matches!(&keys[..], [key] if key.attribute_name() == item::KEY) {
                    found.push(table);
                }
            }
            from = page.last_evaluated_table_name;
            if from.is_none() {
                found.sort();
                return Ok(found);
            }
        }
    }

    /// A table for identities of records, beside the application's own.
    pub(crate) async fn prepare_identities(&self, table: &str, key: &str) -> Result<(), Error> {
        self.ensure(table, key).await?;
        self.expire(table).await;
        Ok(())
    }

    async fn expire(&self, table: &str) {
        let enabled = self.client.describe_time_to_live().table_name(table).send().await;
        let status = enabled.ok().and_then(|o| o.time_to_live_description?.time_to_live_status);
        if status.is_some_and(|status| matches!(status.as_str(), "ENABLED" | "ENABLING")) {
            return;
        }
        let Ok(ttl) = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build() else {
            return;
        };
        let request = self.client.update_time_to_live().table_name(table);
        if let Err(error) = request.time_to_live_specification(ttl).send().await {
            // Only tidiness is lost: items that nobody needs stay.
            tracing::warn!(table, code = error.code(), "cannot enable expiry of items");
        }
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

    /// A checkpoint as one action of a transaction, with the same condition as [`LeaseStore::checkpoint`].
    pub(crate) fn checkpoint_action(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
    ) -> Result<Update, Error> {
        Update::builder()
            .table_name(&self.leases)
            .key(item::KEY, AttributeValue::S(holding.shard.to_string()))
            .update_expression(
                "SET #checkpoint = :checkpoint, #sub = :sub, #counter = :next, #switches = :zero \
                 REMOVE pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState",
            )
            .condition_expression("#owner = :me AND #counter = :counter")
            .expression_attribute_names("#owner", item::OWNER)
            .expression_attribute_names("#counter", item::COUNTER)
            .expression_attribute_names("#switches", item::OWNER_SWITCHES)
            .expression_attribute_names("#checkpoint", item::CHECKPOINT)
            .expression_attribute_names("#sub", item::SUB)
            .expression_attribute_values(":me", AttributeValue::S(holding.owner.clone()))
            .expression_attribute_values(":counter", item::num(holding.counter))
            .expression_attribute_values(":next", item::num(holding.counter + 1))
            .expression_attribute_values(":zero", item::num(0))
            .expression_attribute_values(":checkpoint", AttributeValue::S(checkpoint.text().into_owned()))
            .expression_attribute_values(":sub", item::num(checkpoint.sub()))
            .build()
            .map_err(|error| Error::Refused {
                operation: "TransactWriteItems",
                table: self.leases.clone(),
                reason: error.to_string(),
            })
    }

    fn read(&self, item: &Item) -> Result<Lease, Error> {
        item::read(item).map_err(|reason| Error::InvalidItem {
            table: self.leases.clone(),
            key: item.get(item::KEY).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default(),
            reason,
        })
    }

    fn read_beat(&self, item: &Item) -> Result<Beat, Error> {
        let read = || -> Result<Beat, String> {
            Ok(Beat {
                worker: item::text(item, WORKER)?.unwrap_or_default().to_owned(),
                incarnation: item::text(item, INCARNATION)?.unwrap_or_default().to_owned(),
                counter: item::number(item, BEATS)?.unwrap_or(0),
                changes: item::number(item, CHANGES)?.unwrap_or(0),
                load: item::number(item, LOAD)?.unwrap_or(0),
            })
        };
        read().map_err(|reason| Error::InvalidItem {
            table: self.workers.clone(),
            key: item.get(WORKER).and_then(|key| key.as_s().ok()).cloned().unwrap_or_default(),
            reason,
        })
    }

    /// The lease as it is, after a conditional write was refused.
    async fn refused(
        &self,
        shard: &ShardId,
        error: SdkError<UpdateItemError>,
    ) -> Result<Option<Lease>, Error> {
        if let Some(UpdateItemError::ConditionalCheckFailedException(failure)) = error.as_service_error() {
            return match &failure.item {
                Some(item) if item::is_lease(item) => self.read(item).map(Some),
                _ => self.lease(shard).await,
            };
        }
        Err(failed("UpdateItem", &self.leases, &error))
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
        let switched = seen.owner.as_deref() != Some(worker);
        let claimed = Lease {
            owner: Some(worker.to_owned()),
            counter: seen.counter + 1,
            owner_switches: seen.owner_switches + u64::from(switched),
            ..seen.clone()
        };
        let mut request = self
            .client
            .update_item()
            .table_name(&self.leases)
            .key(item::KEY, AttributeValue::S(seen.shard.to_string()))
            // The KCL's graceful hand-off leaves a `checkpointOwner` behind; whoever claims ends it.
            .update_expression(
                "SET #owner = :me, #counter = :next, #switches = :switches REMOVE checkpointOwner",
            )
            .expression_attribute_names("#owner", item::OWNER)
            .expression_attribute_names("#counter", item::COUNTER)
            .expression_attribute_names("#switches", item::OWNER_SWITCHES)
            .expression_attribute_values(":me", AttributeValue::S(worker.to_owned()))
            .expression_attribute_values(":next", item::num(claimed.counter))
            .expression_attribute_values(":switches", item::num(claimed.owner_switches))
            .expression_attribute_values(":counter", item::num(seen.counter))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request = match &seen.owner {
            Some(owner) => request
                .condition_expression("#counter = :counter AND #owner = :owner")
                .expression_attribute_values(":owner", AttributeValue::S(owner.clone())),
            None => request.condition_expression("#counter = :counter AND attribute_not_exists(#owner)"),
        };
        match request.send().await {
            Ok(_) => Ok(claimed),
            Err(error) => match self.refused(&seen.shard, error).await? {
                // The answer to the same write was lost. Everything has to agree: owner and counter alone may
                // also come from a checkpoint that an earlier life of this worker had on its way.
                Some(now) if now == claimed => Ok(claimed),
                _ => Err(Error::Conflict { shard: seen.shard.clone() }),
            },
        }
    }

    async fn checkpoint(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
        children: &[ShardId],
    ) -> Result<Holding, Error> {
        let next = Holding { counter: holding.counter + 1, ..holding.clone() };
        let mut set =
            "SET #checkpoint = :checkpoint, #sub = :sub, #counter = :next, #switches = :zero".to_owned();
        let mut request = self
            .client
            .update_item()
            .table_name(&self.leases)
            .key(item::KEY, AttributeValue::S(holding.shard.to_string()))
            .condition_expression("#owner = :me AND #counter = :counter")
            .expression_attribute_names("#owner", item::OWNER)
            .expression_attribute_names("#counter", item::COUNTER)
            .expression_attribute_names("#switches", item::OWNER_SWITCHES)
            .expression_attribute_names("#checkpoint", item::CHECKPOINT)
            .expression_attribute_names("#sub", item::SUB)
            .expression_attribute_values(":me", AttributeValue::S(holding.owner.clone()))
            .expression_attribute_values(":counter", item::num(holding.counter))
            .expression_attribute_values(":next", item::num(next.counter))
            .expression_attribute_values(":zero", item::num(0))
            .expression_attribute_values(":checkpoint", AttributeValue::S(checkpoint.text().into_owned()))
            .expression_attribute_values(":sub", item::num(checkpoint.sub()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if !children.is_empty() {
            set.push_str(", #children = :children");
            request = request
                .expression_attribute_names("#children", item::CHILDREN)
                .expression_attribute_values(":children", item::set(children));
        }
        // What a KCL prepared and did not finish is overtaken by this checkpoint.
        set.push_str(" REMOVE pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState");
        match request.update_expression(set).send().await {
            Ok(_) => Ok(next),
            Err(error) => match self.refused(&holding.shard, error).await? {
                Some(now)
                    if now.owner.as_deref() == Some(&next.owner)
                        && now.counter == next.counter
                        && now.checkpoint == *checkpoint =>
                {
                    Ok(next)
                }
                _ => Err(Error::Conflict { shard: holding.shard.clone() }),
            },
        }
    }

    async fn prepare_checkpoint(
        &self,
        holding: &Holding,
        pending: &PendingCheckpoint,
    ) -> Result<Holding, Error> {
        let next = Holding { counter: holding.counter + 1, ..holding.clone() };
        let mut expression = "SET #counter = :next, #pending = :pending, #pending_sub = :sub".to_owned();
        let mut request = self
            .client
            .update_item()
            .table_name(&self.leases)
            .key(item::KEY, AttributeValue::S(holding.shard.to_string()))
            .condition_expression("#owner = :me AND #counter = :counter")
            .expression_attribute_names("#owner", item::OWNER)
            .expression_attribute_names("#counter", item::COUNTER)
            .expression_attribute_names("#pending", item::PENDING)
            .expression_attribute_names("#pending_sub", item::PENDING_SUB)
            .expression_attribute_names("#pending_state", item::PENDING_STATE)
            .expression_attribute_values(":me", AttributeValue::S(holding.owner.clone()))
            .expression_attribute_values(":counter", item::num(holding.counter))
            .expression_attribute_values(":next", item::num(next.counter))
            .expression_attribute_values(":pending", AttributeValue::S(pending.position.sequence.to_string()))
            .expression_attribute_values(":sub", item::num(pending.position.sub))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match &pending.state {
            Some(state) => {
                expression.push_str(", #pending_state = :state");
                let state = AttributeValue::B(Blob::new(state.to_vec()));
                request = request.expression_attribute_values(":state", state);
            }
            None => expression.push_str(" REMOVE #pending_state"),
        }
        match request.update_expression(expression).send().await {
            Ok(_) => Ok(next),
            Err(error) => match self.refused(&holding.shard, error).await? {
                Some(now)
                    if now.owner.as_deref() == Some(&next.owner)
                        && now.counter == next.counter
                        && now.pending.as_ref() == Some(pending) =>
                {
                    Ok(next)
                }
                _ => Err(Error::Conflict { shard: holding.shard.clone() }),
            },
        }
    }

    async fn release(&self, holding: &Holding) -> Result<(), Error> {
        let request = self
            .client
            .update_item()
            .table_name(&self.leases)
            .key(item::KEY, AttributeValue::S(holding.shard.to_string()))
            .update_expression("SET #counter = :next REMOVE #owner")
            .condition_expression("#owner = :me AND #counter = :counter")
            .expression_attribute_names("#owner", item::OWNER)
            .expression_attribute_names("#counter", item::COUNTER)
            .expression_attribute_values(":me", AttributeValue::S(holding.owner.clone()))
            .expression_attribute_values(":counter", item::num(holding.counter))
            .expression_attribute_values(":next", item::num(holding.counter + 1))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(_) => Ok(()),
            // Whoever has it now, it is not this worker: that is what was wanted.
            Err(error) => match self.refused(&holding.shard, error).await? {
                Some(now) if now.owner.as_deref() == Some(&holding.owner) => {
                    Err(Error::Conflict { shard: holding.shard.clone() })
                }
                _ => Ok(()),
            },
        }
    }

    async fn beat(&self, beat: &Beat, first: bool) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut request = self
            .client
            .update_item()
            .table_name(&self.workers)
            .key(WORKER, AttributeValue::S(beat.worker.clone()))
            .update_expression(
                "SET #incarnation = :me, #changes = :changes, #load = :load, #expires = :expires ADD #beats :one",
            )
            .expression_attribute_names("#incarnation", INCARNATION)
            .expression_attribute_names("#changes", CHANGES)
            .expression_attribute_names("#load", LOAD)
            .expression_attribute_names("#expires", EXPIRES)
            .expression_attribute_names("#beats", BEATS)
            .expression_attribute_values(":me", AttributeValue::S(beat.incarnation.clone()))
            .expression_attribute_values(":changes", item::num(beat.changes))
            .expression_attribute_values(":load", item::num(beat.load))
            .expression_attribute_values(":expires", item::num((now + KEEP_BEATS).as_secs()))
            .expression_attribute_values(":one", item::num(1));
        if !first {
            request =
                request.condition_expression("attribute_not_exists(#incarnation) OR #incarnation = :me");
        }
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => {
                Err(Error::WorkerTaken { worker: beat.worker.clone() })
            }
            Err(error) => Err(failed("UpdateItem", &self.workers, &error)),
        }
    }

    async fn beats(&self) -> Result<Vec<Beat>, Error> {
        // A read that is a little old may show a worker silent that is not: see `beat_of`.
        let items = self.scan(&self.workers, false).await?;
        items.iter().map(|item| self.read_beat(item)).collect()
    }

    async fn beat_of(&self, worker: &str) -> Result<Option<Beat>, Error> {
        let request = self.client.get_item().table_name(&self.workers).consistent_read(true);
        let found = request
            .key(WORKER, AttributeValue::S(worker.to_owned()))
            .send()
            .await
            .map_err(|error| failed("GetItem", &self.workers, &error))?;
        found.item.map(|item| self.read_beat(&item)).transpose()
    }

    async fn retire(&self, beat: &Beat) -> Result<(), Error> {
        let request = self.client.delete_item().table_name(&self.workers);
        let deleted = request
            .key(WORKER, AttributeValue::S(beat.worker.clone()))
            .condition_expression("#incarnation = :me")
            .expression_attribute_names("#incarnation", INCARNATION)
            .expression_attribute_values(":me", AttributeValue::S(beat.incarnation.clone()))
            .send()
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(()),
            Err(error) => Err(failed("DeleteItem", &self.workers, &error)),
        }
    }
}

/// Sorts a failure into what may pass and what will not.
fn failed<E>(operation: &'static str, table: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let table = table.to_owned();
    let reason = crate::streams::describe(error);
    let refused = match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::ServiceError(service) => matches!(
            service.err().code(),
            Some(
                "AccessDeniedException"
                    | "ValidationException"
                    | "ResourceNotFoundException"
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
