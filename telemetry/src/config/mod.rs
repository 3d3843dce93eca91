//! What a process exports and how it logs.
//!
//! The standard OpenTelemetry variables are honoured, with one departure: without
//! `OTEL_TRACES_SAMPLER` one record in a hundred is sampled, not every one, because a gateway takes
//! hundreds of thousands of records per second. A value that is not understood is an error, where
//! the OpenTelemetry SDKs fall back in silence.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT` | none: nothing is exported | `http://` or `https://` address of an OTLP/gRPC receiver |
//! | `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER` | `false`, `otlp` | `true` or `none`: nothing is exported |
//! | `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`, `OTEL_EXPORTER_OTLP_PROTOCOL` | `grpc` | only `grpc` is spoken |
//! | `OTEL_TRACES_SAMPLER` | `parentbased_traceidratio` | also `parentbased_always_on`, `parentbased_always_off`, and the three without `parentbased_`, which ignore a caller's decision |
//! | `OTEL_TRACES_SAMPLER_ARG` | 0.01; 1 if a ratio sampler is named | share of traces, 0 to 1 |
//! | `OTEL_SERVICE_NAME` | the program's own | `service.name` |
//! | `OTEL_RESOURCE_ATTRIBUTES` | none | `key=value,...`, percent-encoded |
//! | `OTEL_BSP_MAX_QUEUE_SIZE` | 8192 spans | beyond it spans are dropped and counted; 1 to 1,000,000 |
//! | `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` | 512 spans | 1 to the queue's size |
//! | `OTEL_BSP_SCHEDULE_DELAY` | 5000 ms | longest wait before an export; 1 to 600,000 |
//! | `HEADWORKS_LOG`, `RUST_LOG` | `info` | filter of the log on stderr |
//! | `HEADWORKS_LOG_FORMAT` | `text` | `text` or `json` |
//!
//! Headers, time-out and compression of the export (`OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT`,
//! `_COMPRESSION`) are read by the exporter itself.

mod env;

use std::str::FromStr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::{Sampler, sampler};

/// Share of records that are sampled unless something else is asked for.
pub const DEFAULT_SAMPLE_RATIO: f64 = 0.01;
/// Spans that may wait for export: about 8 MiB, more where batch spans carry many links.
pub const DEFAULT_QUEUE_SPANS: usize = 8_192;
/// Upper bound of the queue.
pub const MAX_QUEUE_SPANS: usize = 1_000_000;
/// Spans per export.
pub const DEFAULT_EXPORT_SPANS: usize = 512;
/// Longest wait before an export.
pub const DEFAULT_EXPORT_DELAY: Duration = Duration::from_secs(5);
/// Upper bound of that wait.
pub const MAX_EXPORT_DELAY: Duration = Duration::from_secs(600);

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has a value that is not understood or out of bounds.
    #[error("{setting}={value:?} is not valid: {expected}")]
    Invalid {
        /// The environment variable or configuration field.
        setting: String,
        /// The value that was given.
        value: String,
        /// What it may be.
        expected: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "telemetry-config-invalid"
    }

    /// Whether the same input may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }

    fn new(setting: &str, value: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Invalid { setting: setting.to_owned(), value: value.into(), expected: expected.into() }
    }
}

/// The form of the log on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for a reader.
    #[default]
    Text,
    /// One JSON object per line, for a collector of logs.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("text or json"),
        }
    }
}

/// What a process exports and how it logs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `service.name` of everything that the process exports.
    pub service_name: String,
    /// Address of an OTLP/gRPC receiver, `http://` or `https://`; `None`: nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// Share of traces to sample, 0 to 1. Default 0.01.
    pub sample_ratio: f64,
    /// Whether the sampling decision of a caller stands. Default true.
    pub parent_based: bool,
    /// Further attributes of the resource, as `service.version` or `deployment.environment.name`.
    pub resource: Vec<(String, String)>,
    /// Spans that may wait for export, 1 to 1,000,000; beyond it they are dropped and counted.
    pub queue_spans: usize,
    /// Spans per export, 1 to `queue_spans`.
    pub export_spans: usize,
    /// Longest wait before an export, 1 ms to 10 min.
    pub export_delay: Duration,
    /// The form of the log.
    pub log_format: LogFormat,
    /// Filter of the log: directives as `info,headworks_gateway=debug`.
    pub log_filter: String,
}

impl Config {
    /// The defaults: a log on stderr, nothing exported.
    pub fn new(service_name: impl Into<String>) -> Self {
        Self {
            service_name: service_name.into(),
            otlp_endpoint: None,
            sample_ratio: DEFAULT_SAMPLE_RATIO,
            parent_based: true,
            resource: Vec::new(),
            queue_spans: DEFAULT_QUEUE_SPANS,
            export_spans: DEFAULT_EXPORT_SPANS,
            export_delay: DEFAULT_EXPORT_DELAY,
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
        }
    }

    /// Checks every bound, naming the field that breaks one.
    pub fn validate(&self) -> Result<(), Error> {
        if self.service_name.is_empty() {
            return Err(Error::new("service_name", "", "name the service, as in headworks-gateway"));
        }
        if let Some(endpoint) = &self.otlp_endpoint {
            check_endpoint("otlp_endpoint", endpoint)?;
        }
        self.sampler()?;
        let bounded = |field, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::new(field, value.to_string(), format!("a whole number from 1 to {max}")))
        };
        bounded("queue_spans", self.queue_spans, MAX_QUEUE_SPANS)?;
        bounded("export_spans", self.export_spans, self.queue_spans)?;
        if !(Duration::from_millis(1)..=MAX_EXPORT_DELAY).contains(&self.export_delay) {
            let value = format!("{:?}", self.export_delay);
            return Err(Error::new("export_delay", value, "from 1 ms to 600 s"));
        }
        check_filter("log_filter", &self.log_filter)
    }

    /// The sampler that this configuration describes.
    pub fn sampler(&self) -> Result<Sampler, Error> {
        let sampler =
            Sampler::ratio(self.sample_ratio).map_err(|sampler::Error::RatioOutOfRange { ratio }| {
                Error::new("sample_ratio", ratio.to_string(), "a number from 0 to 1")
            })?;
        Ok(if self.parent_based { sampler } else { sampler.ignoring_parent() })
    }
}

fn check_endpoint(setting: &str, endpoint: &str) -> Result<(), Error> {
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    let host = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', ' ']) => Ok(()),
        Some(host) if host.contains('/') => Err(Error::new(
            setting,
            endpoint,
            "gRPC takes no path; leave it out, as in http://127.0.0.1:4317",
        )),
        _ => Err(Error::new(
            setting,
            endpoint,
            "the address of an OTLP/gRPC receiver with its scheme, as in http://127.0.0.1:4317",
        )),
    }
}

fn check_filter(setting: &str, filter: &str) -> Result<(), Error> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| {
        let expected =
            format!("{error}; write levels and targets, as in info or info,headworks_gateway=debug");
        Error::new(setting, filter, expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_as_variables_are() {
        let good = Config::new("x");
        good.validate().unwrap();
        type Change = fn(&mut Config);
        let changes: [(&str, Change); 7] = [
            ("service_name", |c| c.service_name.clear()),
            ("otlp_endpoint", |c| c.otlp_endpoint = Some("host".into())),
            ("sample_ratio", |c| c.sample_ratio = -0.1),
            ("queue_spans", |c| c.queue_spans = 0),
            ("export_spans", |c| c.export_spans = c.queue_spans + 1),
            ("export_delay", |c| c.export_delay = Duration::ZERO),
            ("log_filter", |c| c.log_filter = "a=b=c".into()),
        ];
        for (field, change) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            let text = bad.validate().unwrap_err().to_string();
            assert!(text.starts_with(field), "{text}");
        }
    }
}
