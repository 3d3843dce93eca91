//! One worker: a process that consumes with exactly-once effects until it is killed.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::types::AttributeValue;
use headworks_consumer::effects::Identities;
use headworks_consumer::{Batch, Consumer, Handler, HandlerError, Start};
use tokio_util::sync::CancellationToken;

use super::effects::Count;
use super::{APPLICATION, EFFECTS, IDENTITIES, STREAM};

/// Runs until it is killed.
pub async fn run(name: &str, careless: bool) -> anyhow::Result<()> {
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    let consumer = Consumer::builder(APPLICATION, STREAM)
        .kinesis(aws_sdk_kinesis::Client::new(&config))
        .dynamodb(dynamodb.clone())
        .worker_id(name)
        .start(Start::TrimHorizon)
        .dedup_window(if careless { Duration::ZERO } else { Duration::from_secs(60) })
        .build()?;
    if careless {
        let handler = move |_: &_| Careless(dynamodb.clone());
        consumer.run(handler, CancellationToken::new()).await?;
        return Ok(());
    }
    consumer.run_exactly_once(|_| Count, Identities::new(IDENTITIES), CancellationToken::new()).await?;
    Ok(())
}

/// Counts at least once: what comes again is counted again.
struct Careless(aws_sdk_dynamodb::Client);

impl Handler for Careless {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        for delivered in batch.records() {
            let id = std::str::from_utf8(&delivered.record.data)?.to_owned();
            self.0
                .update_item()
                .table_name(EFFECTS)
                .key("id", AttributeValue::S(id))
                .update_expression("ADD n :one")
                .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
                .send()
                .await?;
        }
        Ok(())
    }
}
