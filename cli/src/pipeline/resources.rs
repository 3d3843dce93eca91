//! What the pipeline finds in an AWS account: streams, tags, the dead-letter bucket.

use anyhow::Context as _;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use aws_sdk_kinesis::types::StreamStatus;
use headworks_local::Stack;
use headworks_writer::LANES_TAG;

use super::{Config, DEAD_LETTERS, INBOUND, PROGRESS};

/// Two lanes a shard, so that the router works on a shard's lanes side by side.
const INBOUND_LANES: &str = "2";

pub(super) async fn create(stack: &Stack, config: &Config, outbound: &[String]) -> anyhow::Result<()> {
    stream(stack, INBOUND, config.inbound_shards, Some(INBOUND_LANES)).await?;
    for name in outbound {
        stream(stack, name, config.outbound_shards, None).await?;
    }
    progress_table(stack).await?;
    let created = stack.s3().create_bucket().bucket(DEAD_LETTERS).send().await;
    match created {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.code(), Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")) => {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("creating the bucket {DEAD_LETTERS}")),
    }
}

/// The table in which the router keeps how far each destination got when a batch failed in part.
async fn progress_table(stack: &Stack) -> anyhow::Result<()> {
    let key = KeySchemaElement::builder().attribute_name("lane").key_type(KeyType::Hash).build()?;
    let lane = AttributeDefinition::builder()
        .attribute_name("lane")
        .attribute_type(ScalarAttributeType::S)
        .build()?;
    let created = stack
        .dynamodb()
        .create_table()
        .table_name(PROGRESS)
        .key_schema(key)
        .attribute_definitions(lane)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await;
    match created {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(error).with_context(|| format!("creating the table {PROGRESS}")),
    }
}

/// Creates a stream, unless a data directory brought it back, and waits until it is active.
async fn stream(stack: &Stack, name: &str, shards: u32, lanes: Option<&str>) -> anyhow::Result<()> {
    let kinesis = stack.kinesis();
    let shards = i32::try_from(shards)?;
    let created = kinesis.create_stream().stream_name(name).shard_count(shards).send().await;
    match created {
        Ok(_) => {}
        Err(error) if error.code() == Some("ResourceInUseException") => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("creating the stream {name}")),
    }
    loop {
        let described = kinesis.describe_stream_summary().stream_name(name).send().await?;
        let status = described.stream_description_summary().map(|summary| summary.stream_status());
        if status == Some(&StreamStatus::Active) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    if let Some(lanes) = lanes {
        kinesis.add_tags_to_stream().stream_name(name).tags(LANES_TAG, lanes).send().await?;
    }
    Ok(())
}
