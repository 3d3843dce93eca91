//! The heartbeat table: one item for each worker.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::AttributeValue;

use super::{EXPIRES, Table, WORKER, failed};
use crate::lease::item::{self, Item};
use crate::lease::store::{Beat, Error};

const INCARNATION: &str = "incarnation";
const BEATS: &str = "beats";
const CHANGES: &str = "changes";
const LOAD: &str = "load";

/// How long the heartbeat of a worker that vanished stays in its table. DynamoDB removes it some time
/// after; nothing rests on this clock.
const KEEP_BEATS: Duration = Duration::from_secs(3600);

impl Table {
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

    pub(super) async fn write_beat(&self, beat: &Beat, first: bool) -> Result<(), Error> {
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

    pub(super) async fn read_beats(&self) -> Result<Vec<Beat>, Error> {
        // A read that is a little old may show a worker silent that is not: see `beat_of`.
        let items = self.scan(&self.workers, false).await?;
        items.iter().map(|item| self.read_beat(item)).collect()
    }

    pub(super) async fn read_beat_of(&self, worker: &str) -> Result<Option<Beat>, Error> {
        let request = self.client.get_item().table_name(&self.workers).consistent_read(true);
        let found = request
            .key(WORKER, AttributeValue::S(worker.to_owned()))
            .send()
            .await
            .map_err(|error| failed("GetItem", &self.workers, &error))?;
        found.item.map(|item| self.read_beat(&item)).transpose()
    }

    pub(super) async fn remove_beat(&self, beat: &Beat) -> Result<(), Error> {
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
