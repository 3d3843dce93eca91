//! What records do: each adds one to a counter of its own.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TransactWriteItem, Update,
};
use headworks_consumer::effects::Effects;
use headworks_consumer::{Delivered, HandlerError};

use super::EFFECTS;

/// Counts records by what their data says.
#[derive(Debug)]
pub(super) struct Count;

impl Effects for Count {
    async fn effects(&mut self, delivered: &Delivered) -> Result<Vec<TransactWriteItem>, HandlerError> {
        let id = std::str::from_utf8(&delivered.record.data)?.to_owned();
        let update = Update::builder()
            .table_name(EFFECTS)
            .key("id", AttributeValue::S(id))
            .update_expression("ADD n :one")
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .build()?;
        Ok(vec![TransactWriteItem::builder().update(update).build()])
    }
}

pub(super) async fn create_table(client: &Client) -> anyhow::Result<()> {
    let id =
        AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S).build()?;
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build()?;
    client
        .create_table()
        .table_name(EFFECTS)
        .attribute_definitions(id)
        .key_schema(key)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await?;
    Ok(())
}

/// How often each record had its effect.
pub(super) async fn counts(client: &Client) -> anyhow::Result<HashMap<u64, u64>> {
    let mut counts = HashMap::new();
    let mut from = None;
    loop {
        let page = client
            .scan()
            .table_name(EFFECTS)
            .consistent_read(true)
            .set_exclusive_start_key(from)
            .send()
            .await?;
        for item in page.items() {
            let id = item.get("id").and_then(|id| id.as_s().ok()).map(|id| id.parse());
            let n = item.get("n").and_then(|n| n.as_n().ok()).map(|n| n.parse());
            if let (Some(id), Some(n)) = (id, n) {
                counts.insert(id?, n?);
            }
        }
        from = page.last_evaluated_key;
        if from.is_none() {
            return Ok(counts);
        }
    }
}
