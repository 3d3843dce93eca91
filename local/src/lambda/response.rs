//! [`verdict`]: what a function's partial batch response says about the batch.
//!
//! The cases are those of Lambda's guide for streams: an empty or null response, and an empty or null list, are
//! success; an identifier that is empty, null, misspelt or not in the batch fails the whole batch.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchResponse {
    #[serde(default)]
    batch_item_failures: Option<Vec<ItemFailure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    #[serde(default)]
    item_identifier: Option<String>,
}

/// What a batch response means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything was processed.
    Success,
    /// Everything from this index on is to be retried.
    FailedFrom(usize),
    /// The response does not say which records failed, so all did; why.
    Invalid(String),
}

/// Reads a response; `position` gives the index of a sequence number in the batch.
pub(super) fn verdict(response: &[u8], position: impl Fn(&str) -> Option<usize>) -> Verdict {
    if response.trim_ascii().is_empty() {
        return Verdict::Success;
    }
    let parsed: Option<BatchResponse> = match serde_json::from_slice(response) {
        Ok(parsed) => parsed,
        Err(error) => return Verdict::Invalid(format!("the batch response cannot be read: {error}")),
    };
    let failures = parsed.and_then(|response| response.batch_item_failures).unwrap_or_default();
    let mut lowest = None;
    for failure in failures {
        let Some(identifier) = failure.item_identifier.filter(|identifier| !identifier.is_empty()) else {
            return Verdict::Invalid(
                "the batch response has an item failure without an itemIdentifier".to_owned(),
            );
        };
        let Some(index) = position(&identifier) else {
            return Verdict::Invalid(format!(
                "the batch response names {identifier:?}, which is no sequence number of the batch"
            ));
        };
        lowest = Some(lowest.map_or(index, |lowest: usize| lowest.min(index)));
    }
    lowest.map_or(Verdict::Success, Verdict::FailedFrom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(response: &str) -> Verdict {
        verdict(response.as_bytes(), |identifier| {
            ["10", "11", "12"].iter().position(|known| *known == identifier)
        })
    }

    #[test]
    fn empty_and_null_mean_success() {
        for response in
            ["", " ", "null", "{}", r#"{"batchItemFailures":null}"#, r#"{"batchItemFailures":[]}"#]
        {
            assert_eq!(read(response), Verdict::Success, "{response}");
        }
    }

    #[test]
    fn the_lowest_identifier_counts() {
        let response = r#"{"batchItemFailures":[{"itemIdentifier":"12"},{"itemIdentifier":"11"}]}"#;
        assert_eq!(read(response), Verdict::FailedFrom(1));
    }

    #[test]
    fn anything_else_fails_the_whole_batch() {
        for response in [
            "not json",
            "\"OK\"",
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifer":"11"}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"11"},{"itemIdentifier":"99"}]}"#,
        ] {
            assert!(matches!(read(response), Verdict::Invalid(_)), "{response}");
        }
    }
}
