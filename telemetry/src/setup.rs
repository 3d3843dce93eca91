//! The one-time set-up of a process: where spans go and how it logs.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SdkTracerProvider, SpanProcessor as _};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{self, Config, LogFormat};
use crate::pipeline::{Pipeline, Report};
use crate::{Minter, RecordTracer, Sampler, names};

/// How long [`Telemetry::shutdown`] waits for the last export.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why telemetry could not be set up or flushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The exporter could not be built.
    #[error("spans cannot be exported to {endpoint:?}: {source}; check the address and its scheme")]
    Exporter {
        /// The receiver's address.
        endpoint: String,
        /// What the exporter says.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The exporter's connection needs a tokio runtime.
    #[error("spans can only be exported from within a tokio runtime; call start inside one")]
    NoRuntime,
    /// Somebody else has set the process's subscriber.
    #[error("the process has a tracing subscriber already; install ours once, or add subscriber_layer to it")]
    AlreadyInstalled,
    /// Not every span could be exported in time.
    #[error("spans could not be flushed: {reason}")]
    Flush {
        /// What the exporter says.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Config(error) => error.code(),
            Error::Exporter { .. } => "telemetry-exporter-invalid",
            Error::NoRuntime => "telemetry-no-runtime",
            Error::AlreadyInstalled => "telemetry-already-installed",
            Error::Flush { .. } => "telemetry-flush-failed",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Flush { .. })
    }
}

/// A process's telemetry. Clones share it.
///
/// End with [`shutdown`](Self::shutdown): a clone that is merely dropped last blocks its thread while
/// the rest is exported, which on a single-threaded runtime can only time out.
#[derive(Debug, Clone)]
pub struct Telemetry {
    config: Config,
    sampler: Sampler,
    export: Option<Export>,
}

#[derive(Debug, Clone)]
struct Export {
    pipeline: Pipeline,
    provider: SdkTracerProvider,
    tracer: RecordTracer,
}

impl Telemetry {
    /// Starts what the configuration asks for. Where spans are exported this must be called within a
    /// tokio runtime; the connection is made when the first spans leave, so a receiver that is not
    /// there yet is no error.
    pub fn start(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let sampler = config.sampler()?;
        let export = match &config.otlp_endpoint {
            None => None,
            Some(endpoint) => Some(Export::start(endpoint, sampler, &config)?),
        };
        Ok(Self { config, sampler, export })
    }

    /// Emits the spans of records; disabled where nothing is exported.
    pub fn tracer(&self) -> RecordTracer {
        self.export.as_ref().map_or_else(RecordTracer::disabled, |export| export.tracer.clone())
    }

    /// Mints identities with the configured sampler.
    ///
    /// The decision is made even where this process exports nothing: it travels with the record, for
    /// processes further on that do.
    pub fn minter(&self) -> Minter {
        Minter::new(self.sampler)
    }

    /// Whether spans are exported.
    pub fn is_exporting(&self) -> bool {
        self.export.is_some()
    }

    /// The layer that exports the spans of `tracing`, for a process with a subscriber of its own;
    /// `None`, which is a layer too, where nothing is exported.
    ///
    /// It takes spans and events from INFO up, and none of the transport's: exporting those
    /// would make new ones, for ever.
    pub fn subscriber_layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + 'static>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync + 'static,
    {
        let export = self.export.as_ref()?;
        let transport = ["h2", "hyper", "hyper_util", "tonic", "tower", "rustls", "opentelemetry"];
        let filter = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_targets(transport.map(|target| (target, LevelFilter::OFF)));
        let layer = tracing_opentelemetry::layer()
            .with_tracer(export.provider.tracer("headworks"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        Some(layer.with_filter(filter))
    }

    /// Installs the process's subscriber: a log on stderr, and the exporting layer.
    pub fn install(&self) -> Result<(), Error> {
        let filter = EnvFilter::try_new(&self.config.log_filter).map_err(|error| {
            Error::Config(config::Error::Invalid {
                setting: "log_filter".to_owned(),
                value: self.config.log_filter.clone(),
                expected: error.to_string(),
            })
        })?;
        // Colour is for a terminal; in a file it is noise.
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
        let log: Box<dyn Layer<_> + Send + Sync> = match self.config.log_format {
            LogFormat::Text => Box::new(log),
            LogFormat::Json => Box::new(log.json().with_ansi(false)),
        };
        Registry::default()
            .with(self.subscriber_layer())
            .with(log.with_filter(filter))
            .try_init()
            .map_err(|_| Error::AlreadyInstalled)
    }

    /// Exports what waits, within five seconds.
    pub async fn flush(&self) -> Result<(), Error> {
        let Some(export) = &self.export else { return Ok(()) };
        let pipeline = export.pipeline.clone();
        // The SDK's flush blocks, and the connection needs this runtime to move on meanwhile.
        let flushed = tokio::task::spawn_blocking(move || pipeline.force_flush()).await;
        let reason = match flushed {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Error::Flush { reason })
    }

    /// Exports what waits, within [`SHUTDOWN_TIMEOUT`], and ends the export. Says what became of
    /// all spans, and warns if any was lost. Calling it again is harmless.
    pub async fn shutdown(&self) -> Report {
        self.shutdown_within(SHUTDOWN_TIMEOUT).await
    }

    /// As [`shutdown`](Self::shutdown), with a bound of the caller's choice.
    pub async fn shutdown_within(&self, timeout: Duration) -> Report {
        let Some(export) = &self.export else { return Report::default() };
        let pipeline = export.pipeline.clone();
        let ended = tokio::task::spawn_blocking(move || pipeline.shutdown_with_timeout(timeout));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "the export of spans did not end in time");
        }
        let report = self.report();
        if report.lost() > 0 {
            tracing::warn!(
                failed = report.failed,
                dropped = report.dropped,
                exported = report.exported,
                "spans were lost; a greater OTEL_BSP_MAX_QUEUE_SIZE or a lower OTEL_TRACES_SAMPLER_ARG \
                 helps where they were dropped"
            );
        }
        report
    }

    /// What became of the spans so far.
    pub fn report(&self) -> Report {
        self.export.as_ref().map_or_else(Report::default, |export| export.pipeline.report())
    }
}

impl Export {
    fn start(endpoint: &str, sampler: Sampler, config: &Config) -> Result<Self, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::NoRuntime);
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
        let resource = resource(config);
        let pipeline = Pipeline::start(exporter, endpoint, &resource, config);
        let ratio = SdkSampler::TraceIdRatioBased(sampler.as_ratio());
        let ratio = if sampler.follows_parent() { SdkSampler::ParentBased(Box::new(ratio)) } else { ratio };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(ratio)
            .with_span_processor(pipeline.clone())
            .build();
        let tracer = RecordTracer::new(pipeline.clone());
        Ok(Self { pipeline, provider, tracer })
    }
}

fn resource(config: &Config) -> Resource {
    let attribute = |(key, value): &(String, String)| KeyValue::new(key.clone(), value.clone());
    // Later attributes win: the environment may name an instance, the service's name is decided.
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new(names::SERVICE_INSTANCE_ID, uuid::Uuid::new_v4().to_string()))
        .with_attributes(config.resource.iter().map(attribute))
        .with_service_name(config.service_name.clone())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::Key;

    #[test]
    fn without_an_endpoint_nothing_is_exported_and_no_runtime_is_needed() {
        let telemetry = Telemetry::start(Config::new("test")).unwrap();
        assert!(!telemetry.is_exporting());
        assert!(!telemetry.tracer().is_enabled());
        assert!(telemetry.subscriber_layer::<Registry>().is_none());
        assert_eq!(telemetry.report(), Report::default());
    }

    #[test]
    fn an_export_needs_a_runtime() {
        let mut config = Config::new("test");
        config.otlp_endpoint = Some("http://127.0.0.1:4317".into());
        let error = Telemetry::start(config).unwrap_err();
        assert_eq!(error.code(), "telemetry-no-runtime");
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_bad_configuration_does_not_start() {
        let mut config = Config::new("test");
        config.sample_ratio = 2.0;
        let error = Telemetry::start(config).unwrap_err();
        assert_eq!(error.code(), "telemetry-config-invalid");
        assert!(error.to_string().contains("sample_ratio"), "{error}");
    }

    #[test]
    fn every_process_is_an_instance_of_its_own_unless_told() {
        let mut config = Config::new("test");
        config.resource.push((names::SERVICE_VERSION.into(), "1.2".into()));
        let id = |resource: &Resource| resource.get(&Key::from(names::SERVICE_INSTANCE_ID)).unwrap();
        let (one, two) = (resource(&config), resource(&config));
        assert_ne!(id(&one), id(&two));
        assert_eq!(one.get(&Key::from(names::SERVICE_NAME)).unwrap().as_str(), "test");
        assert_eq!(one.get(&Key::from(names::SERVICE_VERSION)).unwrap().as_str(), "1.2");
        assert_eq!(one.get(&Key::from("telemetry.sdk.language")).unwrap().as_str(), "rust");
        config.resource.push((names::SERVICE_INSTANCE_ID.into(), "pod-3".into()));
        assert_eq!(id(&resource(&config)).as_str(), "pod-3");
    }
}
