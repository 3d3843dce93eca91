//! The router as a Lambda function: the custom runtime's loop around [`Router`].
//!
//! Nothing of a batch is left when it has been answered, so a sandbox that is frozen or killed between
//! invocations loses nothing. Lambda sends SIGTERM only to functions with a registered extension; local
//! stacks and containers send it always: the invocation in flight is then finished.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lambda_runtime::tower::{Layer, Service};
use lambda_runtime::{Diagnostic, LambdaEvent, LambdaInvocation, Runtime, service_fn};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use headworks_telemetry::{Telemetry, now_ms};

use crate::config::{Config, ConfigError};
use crate::dead_letter::{Bucket, DeadLetters, NoDeadLetters};
use crate::event::Event;
use crate::handler::{Invocation, Router};
use crate::lookup::DynamoItems;
use crate::outbound::{Writers, writer_config};
use crate::shards::KinesisShards;
use crate::source::{self, Location, Reload, Reloader, Source};
use crate::{metrics, progress};

/// How long spans may take to leave after an answer was given.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// How long an invocation in flight may take after SIGTERM.
const TERMINATION_LIMIT: Duration = Duration::from_secs(20);

/// Why the function did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was not started by Lambda.
    #[error(
        "{variable} is not set: this program is a Lambda function and is started by Lambda or a local Runtime API; to try a route table use `headworks routes test`"
    )]
    NotInLambda {
        /// What Lambda would have set.
        variable: &'static str,
    },
    /// A setting was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A writer's setting was refused.
    #[error(transparent)]
    Writer(#[from] headworks_writer::ConfigError),
    /// The route table cannot be read, or was refused.
    #[error(transparent)]
    Table(#[from] source::Error),
    /// Telemetry could not be set up.
    #[error(transparent)]
    Telemetry(#[from] headworks_telemetry::setup::Error),
    /// Signals cannot be received.
    #[error("SIGTERM cannot be received: {0}")]
    Signal(#[source] std::io::Error),
    /// The Runtime API failed.
    #[error("the Lambda Runtime API failed: {0}")]
    Runtime(#[source] lambda_runtime::Error),
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotInLambda { .. } => "not-in-lambda",
            Error::Config(error) => error.code(),
            Error::Writer(error) => error.code(),
            Error::Table(error) => error.code(),
            Error::Telemetry(error) => error.code(),
            Error::Signal(_) => "signal-unavailable",
            Error::Runtime(_) => "runtime-api-failed",
        }
    }

    /// Whether a later start may succeed with the same settings.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Runtime(_) => true,
            Error::Table(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Serves invocations until SIGTERM or until the Runtime API fails.
pub async fn run() -> Result<(), Error> {
    // The runtime crate panics where these are missing.
    for variable in ["AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION"] {
        if std::env::var_os(variable).is_none() {
            return Err(Error::NotInLambda { variable });
        }
    }
    let memory = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
    if std::env::var(memory).ok().and_then(|text| text.parse::<i32>().ok()).is_none() {
        return Err(Error::NotInLambda { variable: memory });
    }
    let telemetry_config = headworks_telemetry::Config::from_env("headworks-router")
        .map_err(headworks_telemetry::setup::Error::from)?;
    let telemetry = Telemetry::start(telemetry_config)?;
    telemetry.install()?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;

    let config = Config::from_env()?;
    let Parts { router, reloader, writers } = assemble(&config, &telemetry).await?;
    let (router, reloader) = (Arc::new(router), Arc::new(reloader));
    let metrics = config
        .metrics
        .then(|| -> Arc<str> { std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default().into() });
    tracing::info!(routes = %config.routes, rules = router.table().len(), "the router is ready");

    let (busy, idle) = watch::channel(false);
    let handler = service_fn(move |event: LambdaEvent<Event>| {
        let (router, reloader, metrics) = (Arc::clone(&router), Arc::clone(&reloader), metrics.clone());
        async move {
            let LambdaEvent { payload, context } = event;
            let reloaded = reloader.check(&router).await;
            if let (Some(function), Reload::Replaced | Reload::Refused(_)) = (&metrics, &reloaded) {
                metrics::write(&[metrics::of_table(
                    matches!(reloaded, Reload::Replaced),
                    function,
                    now_ms(),
                )]);
            }
            let left = Duration::from_millis(context.deadline.saturating_sub(now_ms()));
            let invocation =
                Invocation { deadline: Instant::now() + left, request_id: Some(context.request_id) };
            match router.handle(&payload, &invocation).await {
                Ok(report) => {
                    if let Some(function) = &metrics {
                        metrics::write(&metrics::of_report(&report, function, &payload.stream, now_ms()));
                    }
                    Ok(report.response())
                }
                Err(error) => {
                    Err(Diagnostic { error_type: error.code().to_owned(), error_message: error.to_string() })
                }
            }
        }
    });
    let runtime = Runtime::new(handler).layer(AfterAnswer { telemetry: telemetry.clone(), busy }).run();
    tokio::pin!(runtime);
    let ended = tokio::select! {
        ended = &mut runtime => ended,
        _ = terminate.recv() => {
            tracing::info!("SIGTERM: the invocation in flight is finished");
            tokio::select! {
                ended = &mut runtime => ended,
                () = settled(idle) => Ok(()),
                () = tokio::time::sleep(TERMINATION_LIMIT) => {
                    tracing::warn!("the invocation in flight did not end; Lambda hands it over again");
                    Ok(())
                }
            }
        }
    };
    writers.shutdown().await;
    telemetry.shutdown().await;
    ended.map_err(Error::Runtime)
}

/// A router with the real streams, tables and bucket behind it.
#[derive(Debug)]
pub struct Parts {
    /// The router.
    pub router: Router,
    /// Looks for other route tables.
    pub reloader: Reloader,
    /// Its writers, to be ended last.
    pub writers: Arc<Writers>,
}

/// Puts a router together as the settings say. `AWS_LAMBDA_FUNCTION_NAME` keeps the progress of several functions
/// that read one stream apart.
pub async fn assemble(config: &Config, telemetry: &Telemetry) -> Result<Parts, Error> {
    let mut aws: Option<aws_config::SdkConfig> = None;
    // A file that is refused is refused before anything is asked for on the way to AWS.
    let dead_letters = config.dead_letter_bucket.is_some();
    let source: Box<dyn Source> = match &config.routes {
        Location::File(path) => Box::new(source::File(path.clone())),
        Location::Http(url) => {
            Box::new(source::Endpoint::new(url.as_str(), std::env::var("AWS_SESSION_TOKEN").ok())?)
        }
        Location::S3 { bucket, key } => {
            let client = s3(aws.insert(load().await), config);
            Box::new(source::Object::new(client, bucket, key))
        }
    };
    let (reloader, table) = Reloader::start(source, config.routes_check, dead_letters).await?;
    let aws = match aws {
        Some(aws) => aws,
        None => load().await,
    };
    let kinesis = aws_sdk_kinesis::Client::new(&aws);
    let dead_letters: Arc<dyn DeadLetters> = match &config.dead_letter_bucket {
        None => Arc::new(NoDeadLetters),
        Some(bucket) => Arc::new(Bucket::new(s3(&aws, config), bucket)),
    };
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let tracer = telemetry.tracer();
    let writers = Arc::new(Writers::new(kinesis.clone(), writer_config(), tracer.clone())?);
    let outbound: Arc<Writers> = Arc::clone(&writers);
    let mut router =
        Router::new(Arc::new(table), outbound, dead_letters, Arc::new(KinesisShards::new(kinesis)))
            .with_tracer(tracer, telemetry.minter().sampler())
            .with_margin(config.deadline_margin)
            .with_items(Arc::new(DynamoItems::new(dynamodb.clone())));
    if let Some(table) = &config.progress_table {
        let scope = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
        router = router.with_progress(Arc::new(progress::Dynamo::new(dynamodb, table, scope)));
    }
    Ok(Parts { router, reloader, writers })
}

async fn load() -> aws_config::SdkConfig {
    aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await
}

fn s3(aws: &aws_config::SdkConfig, config: &Config) -> aws_sdk_s3::Client {
    let s3 = aws_sdk_s3::config::Builder::from(aws).force_path_style(config.s3_path_style).build();
    aws_sdk_s3::Client::from_conf(s3)
}

async fn settled(mut idle: watch::Receiver<bool>) {
    // An error means that the runtime is gone: nothing is in flight.
    let _ = idle.wait_for(|busy| !busy).await;
}

/// Exports spans after an answer was given and before the next call is asked for: asking lets Lambda
/// freeze the sandbox, with whatever waits in it. Without new spans it costs nothing.
#[derive(Clone)]
struct AfterAnswer {
    telemetry: Telemetry,
    busy: watch::Sender<bool>,
}

impl<S> Layer<S> for AfterAnswer {
    type Service = Flushing<S>;

    fn layer(&self, inner: S) -> Flushing<S> {
        Flushing { inner, after: self.clone() }
    }
}

struct Flushing<S> {
    inner: S,
    after: AfterAnswer,
}

impl<S> Service<LambdaInvocation> for Flushing<S>
where
    S: Service<LambdaInvocation, Response = (), Error = lambda_runtime::Error>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = lambda_runtime::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let after = self.after.clone();
        after.busy.send_replace(true);
        let answered = self.inner.call(invocation);
        Box::pin(async move {
            let result = answered.await;
            let spans = after.telemetry.report();
            if spans.submitted > spans.exported + spans.failed {
                match timeout(FLUSH_LIMIT, after.telemetry.flush()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "spans were not exported"),
                    Err(_elapsed) => tracing::warn!(limit = ?FLUSH_LIMIT, "spans were not exported in time"),
                }
            }
            after.busy.send_replace(false);
            result
        })
    }
}
