//! Which web pages may send records.
//!
//! A browser names the page's origin in `Origin`. Requests of an origin that is not configured are
//! refused, and not merely left unlabelled: a page must not be able to write to a gateway on its
//! visitor's machine, whether or not it can read the answer.

use axum::http::{HeaderMap, HeaderValue, header};

use super::error::Error;
use crate::config::Config;

/// How long a browser may remember a permission, in seconds.
const MAX_AGE: u64 = 600;

fn allows(config: &Config, origin: &HeaderValue) -> bool {
    config.cors_origins.iter().any(|allowed| allowed == "*" || origin.as_bytes() == allowed.as_bytes())
}

/// Refuses origins that are not configured. What is no browser sends none.
pub(super) fn check(config: &Config, headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(header::ORIGIN) {
        Some(origin) if !allows(config, origin) => {
            let origin = String::from_utf8_lossy(origin.as_bytes()).chars().take(128).collect();
            Err(Error::Origin { origin })
        }
        _ => Ok(()),
    }
}

/// Lets pages of a configured origin read the answer.
pub(super) fn label(config: &Config, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
    if config.cors_origins.is_empty() {
        return;
    }
    answer.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin.filter(|origin| allows(config, origin)) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    }
}

/// The answer to a preflight: the method, and those of the headers asked for that mean something here.
pub(super) fn permit(asked: &HeaderMap, answer: &mut HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE.into());
    let asked = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let known = |name: &&str| {
        let name = name.to_ascii_lowercase();
        matches!(&name[..], "content-type" | "traceparent" | "authorization" | "x-api-key")
            || name.starts_with("ce-")
    };
    let headers: Vec<&str> = asked.unwrap_or_default().split(',').map(str::trim).filter(known).collect();
    // Made of parts of a header's value.
    if let Ok(headers) = HeaderValue::try_from(headers.join(", ")) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
    }
}
