//! The conditional writes to a lease.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure, Update};
use headworks_record::ShardId;

use super::{Table, failed};
use crate::lease::item;
use crate::lease::model::{Holding, Lease, PendingCheckpoint};
use crate::lease::store::{Error, LeaseStore};
use crate::position::Checkpoint;
use crate::sync::lock;

/// What its owner writes to a lease, if it still is the owner and nothing was written since.
const HELD: &str = "#owner = :me AND #counter = :counter";

impl Table {
    /// A write by the lease's owner, which raises the counter.
    fn write(&self, holding: &Holding) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.leases)
            .key(item::KEY, AttributeValue::S(holding.shard.to_string()))
            .condition_expression(HELD)
            .expression_attribute_names("#owner", item::OWNER)
            .expression_attribute_names("#counter", item::COUNTER)
            .expression_attribute_values(":me", AttributeValue::S(holding.owner.clone()))
            .expression_attribute_values(":counter", item::num(holding.counter))
            .expression_attribute_values(":next", item::num(holding.counter + 1))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    /// Sends a write; one that was refused because the very same write succeeded before is a success.
    async fn settled(
        &self,
        holding: &Holding,
        request: UpdateItemFluentBuilder,
        same: impl FnOnce(&Lease) -> bool,
    ) -> Result<Holding, Error> {
        let next = Holding { counter: holding.counter + 1, ..holding.clone() };
        match request.send().await {
            Ok(_) => Ok(next),
            Err(error) => match self.refused(&holding.shard, error).await? {
                Some(now) if now.holding().as_ref() == Some(&next) && same(&now) => Ok(next),
                _ => Err(Error::Conflict { shard: holding.shard.clone() }),
            },
        }
    }

    /// What the shard brings, as the KCL writes it.
    fn throughput(&self, shard: &ShardId) -> Option<AttributeValue> {
        lock(&self.rates).get(shard).map(|rate| item::kilobytes(*rate))
    }

    pub(super) async fn write_claim(&self, seen: &Lease, worker: &str) -> Result<Lease, Error> {
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

    pub(super) async fn write_checkpoint(
        &self,
        holding: &Holding,
        checkpoint: &Checkpoint,
        children: &[ShardId],
    ) -> Result<Holding, Error> {
        let mut set =
            "SET #checkpoint = :checkpoint, #sub = :sub, #counter = :next, #switches = :zero".to_owned();
        let mut request = self
            .write(holding)
            .expression_attribute_names("#switches", item::OWNER_SWITCHES)
            .expression_attribute_names("#checkpoint", item::CHECKPOINT)
            .expression_attribute_names("#sub", item::SUB)
            .expression_attribute_values(":zero", item::num(0))
            .expression_attribute_values(":checkpoint", AttributeValue::S(checkpoint.text().into_owned()))
            .expression_attribute_values(":sub", item::num(checkpoint.sub()));
        if !children.is_empty() {
            set.push_str(", #children = :children");
            request = request
                .expression_attribute_names("#children", item::CHILDREN)
                .expression_attribute_values(":children", item::set(children));
        }
        if let Some(throughput) = self.throughput(&holding.shard) {
            set.push_str(", #throughput = :throughput");
            request = request
                .expression_attribute_names("#throughput", item::THROUGHPUT)
                .expression_attribute_values(":throughput", throughput);
        }
        // What a KCL prepared and did not finish is overtaken by this checkpoint.
        set.push_str(" REMOVE pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState");
        self.settled(holding, request.update_expression(set), |now| now.checkpoint == *checkpoint).await
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
            .condition_expression(HELD)
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

    pub(super) async fn write_pending(
        &self,
        holding: &Holding,
        pending: &PendingCheckpoint,
    ) -> Result<Holding, Error> {
        let mut expression = "SET #counter = :next, #pending = :pending, #pending_sub = :sub".to_owned();
        let mut request = self
            .write(holding)
            .expression_attribute_names("#pending", item::PENDING)
            .expression_attribute_names("#pending_sub", item::PENDING_SUB)
            .expression_attribute_names("#pending_state", item::PENDING_STATE)
            .expression_attribute_values(":pending", AttributeValue::S(pending.position.sequence.to_string()))
            .expression_attribute_values(":sub", item::num(pending.position.sub));
        match &pending.state {
            Some(state) => {
                expression.push_str(", #pending_state = :state");
                let state = AttributeValue::B(Blob::new(state.to_vec()));
                request = request.expression_attribute_values(":state", state);
            }
            None => expression.push_str(" REMOVE #pending_state"),
        }
        let request = request.update_expression(expression);
        self.settled(holding, request, |now| now.pending.as_ref() == Some(pending)).await
    }

    pub(super) async fn write_renewal(&self, holding: &Holding) -> Result<Holding, Error> {
        let request = match self.throughput(&holding.shard) {
            Some(throughput) => self
                .write(holding)
                .update_expression("SET #counter = :next, #throughput = :throughput")
                .expression_attribute_names("#throughput", item::THROUGHPUT)
                .expression_attribute_values(":throughput", throughput),
            None => self.write(holding).update_expression("SET #counter = :next"),
        };
        // Nobody but this worker raises the counter while it is the owner.
        self.settled(holding, request, |_| true).await
    }

    pub(super) async fn write_release(&self, holding: &Holding) -> Result<(), Error> {
        let request = self.write(holding).update_expression("SET #counter = :next REMOVE #owner");
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

    pub(super) async fn remove(&self, seen: &Lease) -> Result<bool, Error> {
        let request = self
            .client
            .delete_item()
            .table_name(&self.leases)
            .key(item::KEY, AttributeValue::S(seen.shard.to_string()))
            .condition_expression("#counter = :counter AND #checkpoint = :checkpoint")
            .expression_attribute_names("#counter", item::COUNTER)
            .expression_attribute_names("#checkpoint", item::CHECKPOINT)
            .expression_attribute_values(":counter", item::num(seen.counter))
            .expression_attribute_values(
                ":checkpoint",
                AttributeValue::S(seen.checkpoint.text().into_owned()),
            );
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(failed("DeleteItem", &self.leases, &error)),
        }
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
