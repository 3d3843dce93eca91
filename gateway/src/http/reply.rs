//! From results to JSON.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use headworks_proto::v1::{self, record_result::Outcome};
use serde::Serialize;

use super::error::RETRY_AFTER;

#[derive(Debug, Clone, Serialize)]
pub(super) struct ErrorBody<'a> {
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    pub(super) retryable: bool,
    pub(super) outcome_unknown: bool,
}

/// The body of a call that failed.
#[derive(Debug, Serialize)]
pub(super) struct Failed<'a> {
    pub(super) error: ErrorBody<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ResultBody<'a> {
    Stored { shard_id: &'a str, sequence_number: &'a str, sub_sequence_number: u32, attempts: u32 },
    Spooled { spooled: bool },
    Refused { error: ErrorBody<'a> },
}

#[derive(Debug, Serialize)]
struct Results<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
    results: Vec<ResultBody<'a>>,
}

fn error_of(result: &v1::RecordResult) -> Option<ErrorBody<'_>> {
    match &result.outcome {
        Some(Outcome::Error(error)) => Some(ErrorBody {
            code: &error.code,
            message: &error.message,
            retryable: error.retryable,
            outcome_unknown: error.outcome_unknown,
        }),
        Some(Outcome::Stored(_) | Outcome::Spooled(_)) => None,
        // The intake makes no such thing; if it did, nobody could say what became of the record.
        None => Some(ErrorBody {
            code: "internal",
            message: "the gateway gave no result",
            retryable: true,
            outcome_unknown: true,
        }),
    }
}

fn body(results: &[v1::RecordResult]) -> Vec<ResultBody<'_>> {
    let body = |result| match (error_of(result), &result.outcome) {
        (None, Some(Outcome::Stored(stored))) => Some(ResultBody::Stored {
            shard_id: &stored.shard_id,
            sequence_number: &stored.sequence_number,
            sub_sequence_number: stored.sub_sequence_number,
            attempts: stored.attempts,
        }),
        (None, Some(Outcome::Spooled(_))) => Some(ResultBody::Spooled { spooled: true }),
        (error, _) => error.map(|error| ResultBody::Refused { error }),
    };
    results.iter().filter_map(body).collect()
}

/// The answer to records: what became of each is in the body.
pub(super) fn of_records(results: Vec<v1::RecordResult>) -> Response {
    Json(Results { error: None, results: body(&results) }).into_response()
}

/// The answer to CloudEvents. Their senders look at the status alone: it is that of the error which is
/// most worth a retry. Sending stored events again repeats their identity, which consumers recognize.
pub(super) fn of_events(results: Vec<v1::RecordResult>) -> Response {
    let error = results.iter().filter_map(error_of).max_by_key(|error| error.retryable);
    let status = match &error {
        None => StatusCode::OK,
        Some(error) if error.retryable => StatusCode::SERVICE_UNAVAILABLE,
        Some(error) if error.code == "record-too-large" => StatusCode::PAYLOAD_TOO_LARGE,
        Some(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = (status, Json(Results { error, results: body(&results) })).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.into());
    }
    response
}
