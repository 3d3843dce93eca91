//! The tables themselves: created where they are missing, checked where they are there.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification,
};
use tokio::time::Instant;

use super::{EXPIRES, Table, failed};
use crate::lease::item;
use crate::lease::store::Error;

const CREATE_POLL: Duration = Duration::from_millis(100);
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

impl Table {
    pub(super) async fn ensure(&self, table: &str, key: &str) -> Result<(), Error> {
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

    pub(super) async fn expire(&self, table: &str) {
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
}
