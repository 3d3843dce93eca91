//! Items by BatchGetItem.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use super::{Error, Items};
use crate::table::Enrich;
use crate::table::enrich::Found;

/// [`Items`] by the service.
#[derive(Debug, Clone)]
pub struct DynamoItems {
    client: Client,
}

impl DynamoItems {
    /// Reads through this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Items for DynamoItems {
    async fn get(&self, lookup: &Enrich, keys: &[String]) -> Result<HashMap<String, Found>, Error> {
        let unavailable = |reason: String| Error::Unavailable { table: lookup.table.clone(), reason };
        // Attributes may bear reserved words: each gets a name of ours.
        let mut names = HashMap::from([("#k".to_owned(), lookup.key.clone())]);
        let mut projection = "#k".to_owned();
        for (i, (attribute, _)) in lookup.attributes.iter().enumerate() {
            if *attribute != lookup.key {
                projection.push_str(&format!(",#a{i}"));
                names.insert(format!("#a{i}"), attribute.clone());
            }
        }
        let key = |key: &String| HashMap::from([(lookup.key.clone(), AttributeValue::S(key.clone()))]);
        let wanted = KeysAndAttributes::builder()
            .set_keys(Some(keys.iter().map(key).collect()))
            .projection_expression(projection)
            .set_expression_attribute_names(Some(names))
            .build()
            .map_err(|error| unavailable(error.to_string()))?;
        let mut found = HashMap::new();
        let mut rest = Some(wanted);
        while let Some(wanted) = rest.take() {
            let before = wanted.keys().len();
            let request = self.client.batch_get_item().request_items(&lookup.table, wanted);
            let answer = request.send().await.map_err(|error| {
                unavailable(match (error.code(), error.message()) {
                    (Some(code), Some(message)) => format!("{code}: {message}"),
                    (Some(code), None) => code.to_owned(),
                    _ => DisplayErrorContext(&error).to_string(),
                })
            })?;
            for item in answer.responses.unwrap_or_default().remove(&lookup.table).unwrap_or_default() {
                if let Some(Ok(key)) = item.get(&lookup.key).map(AttributeValue::as_s) {
                    found.insert(key.clone(), headers_of(lookup, &item));
                }
            }
            // Keys left out for lack of capacity or room: asked for again while the answer gets on.
            rest = answer.unprocessed_keys.unwrap_or_default().remove(&lookup.table);
            if rest.as_ref().is_some_and(|rest| rest.keys().len() >= before) {
                return Err(unavailable("it is throttled".to_owned()));
            }
        }
        Ok(found)
    }
}

/// Strings, numbers and truth values; other types make no header.
fn headers_of(lookup: &Enrich, item: &HashMap<String, AttributeValue>) -> Found {
    let text = |value: &AttributeValue| match value {
        AttributeValue::S(text) | AttributeValue::N(text) => Some(text.clone()),
        AttributeValue::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    let header = |(attribute, header): &(String, _)| {
        Some((bytestring::ByteString::clone(header), text(item.get(attribute)?)?.into()))
    };
    lookup.attributes.iter().filter_map(header).collect()
}
