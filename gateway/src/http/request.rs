//! What a request asks for, in whichever form.

use std::time::Duration;

use axum::extract::Query;
use axum::http::{HeaderMap, Uri, header};
use bytes::Bytes;
use headworks_proto::v1;
use serde::Deserialize;

use super::error::Error;
use super::{cloudevent, json};

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An object with records.
    Batch,
    /// A record per line.
    Lines,
    /// A CloudEvent in structured mode.
    Event,
    /// CloudEvents in batched mode.
    Events,
    /// A CloudEvent in binary mode.
    BinaryEvent,
}

impl Form {
    /// The form that the headers tell of.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        if let Some(encoding) = text(header::CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return Err(Error::Encoding { given: encoding.chars().take(64).collect() });
        }
        let given = text(header::CONTENT_TYPE).unwrap_or_default();
        let (essence, parameters) = given.split_once(';').unwrap_or((&given, ""));
        let essence = essence.trim().to_ascii_lowercase();
        let form = match &essence[..] {
            "application/cloudevents+json" => Some(Form::Event),
            "application/cloudevents-batch+json" => Some(Form::Events),
            // Another format of the same modes, XML for one.
            other if other.starts_with("application/cloudevents") => None,
            _ if cloudevent::is_binary(headers) => return Ok(Form::BinaryEvent),
            "application/json" => Some(Form::Batch),
            "application/x-ndjson" => Some(Form::Lines),
            _ => None,
        };
        let foreign = |parameter: &str| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("charset")
                    && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        };
        form.filter(|_| !parameters.split(';').any(foreign))
            .ok_or_else(|| Error::MediaType { given: given.chars().take(128).collect() })
    }

    /// Whether the sender speaks CloudEvents.
    pub(super) fn is_event(self) -> bool {
        matches!(self, Form::Event | Form::Events | Form::BinaryEvent)
    }
}

/// What the address asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    stream: Option<String>,
    timeout_ms: Option<u64>,
}

impl Asked {
    pub(super) fn of(uri: &Uri) -> Result<Self, Error> {
        Query::try_from_uri(uri).map(|Query(asked)| asked).map_err(|error| {
            let reason =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::Malformed {
                part: "the query".to_owned(),
                reason: format!("{}; it takes stream and timeout_ms", json::shown(&reason)),
            }
        })
    }

    /// What either of the two says; what both say is a mistake, since one would be passed over.
    fn beside(self, stream: Option<String>, timeout_ms: Option<u64>) -> Result<Self, Error> {
        let twice = |name: &str| Error::Malformed {
            part: "the request".to_owned(),
            reason: format!("{name} stands in the query and in the body; leave one of them out"),
        };
        if self.stream.is_some() && stream.is_some() {
            return Err(twice("stream"));
        }
        if self.timeout_ms.is_some() && timeout_ms.is_some() {
            return Err(twice("timeout_ms"));
        }
        Ok(Self { stream: self.stream.or(stream), timeout_ms: self.timeout_ms.or(timeout_ms) })
    }
}

/// A request in the terms of the contract.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) stream: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) records: Vec<v1::Record>,
}

/// Reads a body of this form. Data of records are parts of the body, not copies.
pub(super) fn parse(form: Form, asked: Asked, headers: &HeaderMap, body: &Bytes) -> Result<Parsed, Error> {
    let (asked, records) = match form {
        Form::Batch => {
            let (stream, timeout_ms, records) = json::batch(body)?;
            (asked.beside(stream, timeout_ms)?, records)
        }
        Form::Lines => (asked, json::lines(body)?),
        Form::Event => (asked, vec![cloudevent::structured(body)?]),
        Form::Events => (asked, cloudevent::batched(body)?),
        Form::BinaryEvent => (asked, vec![cloudevent::binary(headers, body)?]),
    };
    let timeout = asked.timeout_ms.map(Duration::from_millis);
    Ok(Parsed { stream: asked.stream, timeout, records })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(headers: &[(&'static str, &'static str)]) -> Result<Form, &'static str> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>();
        Form::of(&headers).map_err(|error| error.code())
    }

    #[test]
    fn the_headers_tell_the_form() {
        let of = |content_type| form(&[("content-type", content_type)]);
        assert_eq!(of("application/json"), Ok(Form::Batch));
        assert_eq!(of("Application/JSON; charset=\"UTF-8\""), Ok(Form::Batch));
        assert_eq!(of("application/x-ndjson;x=y"), Ok(Form::Lines));
        assert_eq!(of("application/cloudevents+json; charset=utf-8"), Ok(Form::Event));
        assert_eq!(of("application/cloudevents-batch+json"), Ok(Form::Events));
        for other in ["", "text/plain", "application/cloudevents+xml", "application/json; charset=latin1"] {
            assert_eq!(of(other), Err("media-type-unsupported"), "{other}");
        }
        assert_eq!(form(&[]), Err("media-type-unsupported"));
        assert_eq!(form(&[("ce-specversion", "1.0")]), Ok(Form::BinaryEvent));
        // Half an event is told what it lacks, and not taken for something else.
        assert_eq!(form(&[("ce-id", "1"), ("content-type", "application/json")]), Ok(Form::BinaryEvent));
        let json = ("content-type", "application/json");
        assert_eq!(form(&[json, ("content-encoding", "identity")]), Ok(Form::Batch));
        assert_eq!(form(&[json, ("content-encoding", "gzip")]), Err("media-type-unsupported"));
    }

    #[test]
    fn what_the_query_asks_for() {
        let of = |query: &str| Asked::of(&format!("/v1/records{query}").parse().unwrap());
        assert_eq!(of("").unwrap(), Asked::default());
        let asked = of("?stream=a%2Eb&timeout_ms=5").unwrap();
        assert_eq!(asked, Asked { stream: Some("a.b".into()), timeout_ms: Some(5) });
        for wrong in ["?steam=a", "?timeout_ms=soon", "?timeout_ms=-1"] {
            let error = of(wrong).unwrap_err();
            assert_eq!(error.code(), "request-malformed");
            assert!(error.to_string().contains("stream and timeout_ms"), "{error}");
        }
        assert!(of("?steam=a").unwrap_err().to_string().contains("steam"));
        assert!(asked.clone().beside(Some("b".into()), None).unwrap_err().to_string().contains("stream"));
        assert!(asked.clone().beside(None, Some(5)).unwrap_err().to_string().contains("timeout_ms"));
        assert_eq!(asked.clone().beside(None, None).unwrap(), asked);
    }
}
