//! Why a request fails.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tonic::Code;

use super::reply::{ErrorBody, Failed};
use crate::call;

/// The delay that is asked for, in seconds, where the error knows none of its own: the least that the
/// header can say.
pub(super) const RETRY_AFTER: u64 = 1;

/// Why a request fails; nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// What gRPC would say as well.
    #[error(transparent)]
    Call(#[from] call::Error),
    #[error(
        "the Content-Type {given:?} is not taken here; send application/json, application/x-ndjson, application/cloudevents+json or application/cloudevents-batch+json, in UTF-8, or a CloudEvent in binary mode with its ce- headers"
    )]
    MediaType { given: String },
    #[error("the Content-Encoding {given:?} is not taken here; send the body as it is")]
    Encoding { given: String },
    #[error("{part} cannot be read: {reason}")]
    Malformed { part: String, reason: String },
    #[error("{event} is not a CloudEvent 1.0: {reason}")]
    Event { event: String, reason: String },
    #[error(
        "no room for the body: bodies of {limit} bytes are being read or have unanswered records; try again, or raise http_buffer_bytes"
    )]
    Full { limit: usize },
    #[error("the body did not arrive within {seconds} s; send it faster, or in smaller batches")]
    Slow { seconds: u64 },
    #[error(
        "web pages of {origin:?} may not send records here; add the origin to cors_origins if they are to"
    )]
    Origin { origin: String },
    #[error(
        "there is nothing at {path:?}; records go to /v1/records, and there are /healthz, /readyz and /metrics"
    )]
    Path { path: String },
    #[error("{path} does not take {method}; records are sent with POST, everything else is asked with GET")]
    Method { method: String, path: String },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Error::Call(error) => error.code(),
            Error::MediaType { .. } | Error::Encoding { .. } => "media-type-unsupported",
            Error::Malformed { .. } => "request-malformed",
            Error::Event { .. } => "cloudevent-invalid",
            Error::Full { .. } => "http-buffer-full",
            Error::Slow { .. } => "request-too-slow",
            Error::Origin { .. } => "origin-not-allowed",
            Error::Path { .. } => "path-unknown",
            Error::Method { .. } => "method-not-allowed",
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Error::Call(error) => error.is_retryable(),
            Error::Full { .. } | Error::Slow { .. } => true,
            _ => false,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Error::Call(error) => match error {
                call::Error::UnknownStream { .. } => StatusCode::NOT_FOUND,
                call::Error::TooManyRecords { .. }
                | call::Error::MessageTooLarge { .. }
                | call::Error::BatchTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                call::Error::Auth(error) => match error.grpc() {
                    Code::Unauthenticated => StatusCode::UNAUTHORIZED,
                    Code::PermissionDenied => StatusCode::FORBIDDEN,
                    Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                },
                call::Error::StreamNotAllowed { .. } => StatusCode::FORBIDDEN,
                call::Error::Full { .. } | call::Error::SpoolFull { .. } | call::Error::Quota { .. } => {
                    StatusCode::TOO_MANY_REQUESTS
                }
                call::Error::Draining => StatusCode::SERVICE_UNAVAILABLE,
                call::Error::Lost { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            },
            Error::MediaType { .. } | Error::Encoding { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Error::Malformed { .. } | Error::Event { .. } => StatusCode::BAD_REQUEST,
            Error::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Slow { .. } => StatusCode::REQUEST_TIMEOUT,
            Error::Origin { .. } => StatusCode::FORBIDDEN,
            Error::Path { .. } => StatusCode::NOT_FOUND,
            Error::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// Seconds, rounded up.
    fn retry_after(&self) -> u64 {
        match self {
            Error::Call(error) => error.retry_after().map_or(RETRY_AFTER, |delay| {
                delay.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(RETRY_AFTER)
            }),
            _ => RETRY_AFTER,
        }
    }

    /// A body over the limit of one batch.
    pub(super) fn too_large(what: impl Into<String>) -> Self {
        Self::Call(call::Error::MessageTooLarge { detail: what.into() })
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let message = self.to_string();
        let body = Failed {
            error: ErrorBody {
                code: self.code(),
                message: &message,
                retryable: self.is_retryable(),
                // As with gRPC, a call that was lost is the one that may have left something behind.
                outcome_unknown: matches!(self, Error::Call(call::Error::Lost { .. })),
            },
        };
        let mut response = (self.status(), Json(body)).into_response();
        if response.status() == StatusCode::UNAUTHORIZED {
            let scheme = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if self.is_retryable() {
            response.headers_mut().insert(header::RETRY_AFTER, self.retry_after().into());
        }
        response
    }
}
