//! The keyword arguments of a consumer, turned into its configuration. The consumer SDK checks the bounds.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use headworks_consumer::{Config, ConsumerId, Start, Undecodable};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::error::Fault;

/// Where AWS is, as far as the environment does not say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aws {
    kinesis: Option<String>,
    dynamodb: Option<String>,
    region: Option<String>,
}

impl Aws {
    /// Clients of Kinesis and DynamoDB. Nothing is contacted.
    pub(crate) async fn clients(&self) -> Result<(aws_sdk_kinesis::Client, aws_sdk_dynamodb::Client), Fault> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let shared = loader.load().await;
        if shared.region().is_none() {
            let message =
                "no AWS region is known; pass region=\"eu-central-1\", for example, or set AWS_REGION";
            return Err(Fault::argument(message));
        }
        // Without one of these, the environment's (AWS_ENDPOINT_URL_KINESIS and the like) stands.
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(&shared);
        if let Some(url) = &self.kinesis {
            kinesis = kinesis.endpoint_url(url);
        }
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&shared);
        if let Some(url) = &self.dynamodb {
            dynamodb = dynamodb.endpoint_url(url);
        }
        Ok((
            aws_sdk_kinesis::Client::from_conf(kinesis.build()),
            aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        ))
    }
}

/// What a consumer is made from.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) config: Config,
    pub(crate) aws: Aws,
}

impl Options {
    pub(crate) fn new(
        application: &str,
        stream: &str,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut options = Self { config: Config::new(application, stream), aws: Aws::default() };
        for (name, value) in keywords.into_iter().flatten() {
            // None is the same as leaving the argument out.
            if !value.is_none() {
                options.set(name.cast::<PyString>()?.to_str()?, &value)?;
            }
        }
        options.config.validate().map_err(Fault::from)?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (config, aws) = (&mut self.config, &mut self.aws);
        match name {
            "start" => config.start = start(value)?,
            "endpoint_url" => {
                // The more specific argument wins, whichever comes first.
                let url: String = typed(name, value)?;
                aws.kinesis.get_or_insert_with(|| url.clone());
                aws.dynamodb.get_or_insert(url);
            }
            "kinesis_endpoint_url" => aws.kinesis = Some(typed(name, value)?),
            "dynamodb_endpoint_url" => aws.dynamodb = Some(typed(name, value)?),
            "region" => aws.region = Some(typed(name, value)?),
            "consumer_name" => config.consumer = ConsumerId::Name(typed(name, value)?),
            "consumer_arn" => config.consumer = ConsumerId::Arn(typed(name, value)?),
            "worker_id" => config.worker_id = typed(name, value)?,
            "lease_table" => config.lease_table = typed(name, value)?,
            "worker_table" => config.worker_table = typed(name, value)?,
            "take_over_after" => {
                config.take_over_after = seconds(name, value)?;
                config.heartbeat_interval = config.take_over_after / 6;
                config.foreign_take_over_after = config.foreign_take_over_after.max(config.take_over_after);
            }
            "checkpoint_interval" => config.checkpoint_interval = seconds(name, value)?,
            "drain_timeout" => config.drain_timeout = seconds(name, value)?,
            "startup_timeout" => config.startup_timeout = seconds(name, value)?,
            "call_timeout" => config.call_timeout = seconds(name, value)?,
            "max_unacknowledged" => config.max_unacknowledged = typed(name, value)?,
            "read_ahead_bytes" => config.read_ahead_bytes = typed(name, value)?,
            "dedup_window" => config.dedup_window = seconds(name, value)?,
            "dedup_max_identities" => config.dedup_max_identities = typed(name, value)?,
            "undecodable" => config.undecodable = undecodable(value)?,
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "a consumer has no argument {name:?}; known are {}",
                    KNOWN.join(", ")
                )));
            }
        }
        Ok(())
    }
}

const KNOWN: [&str; 20] = [
    "start",
    "endpoint_url",
    "kinesis_endpoint_url",
    "dynamodb_endpoint_url",
    "region",
    "consumer_name",
    "consumer_arn",
    "worker_id",
    "lease_table",
    "worker_table",
    "take_over_after",
    "checkpoint_interval",
    "drain_timeout",
    "startup_timeout",
    "call_timeout",
    "max_unacknowledged",
    "read_ahead_bytes",
    "dedup_window",
    "dedup_max_identities",
    "undecodable",
];

/// An argument of the type that its option has. One of the right kind that the type cannot hold, such as a
/// negative count, is bad input as one out of the option's bounds is.
pub(crate) fn typed<'py, T>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    value.extract().map_err(|error: <T as FromPyObject<'_, 'py>>::Error| {
        let (py, error): (_, PyErr) = (value.py(), error.into());
        if error.is_instance_of::<PyOverflowError>(py) {
            let shown =
                value.repr().map_or_else(|_| "a very large number".to_owned(), |shown| shown.to_string());
            let shown: String = shown.chars().take(100).collect();
            let message =
                format!("the argument {name} is {shown}; it takes a number from 0 to the option's limit");
            return Fault::argument(message).into();
        }
        PyTypeError::new_err(format!("the argument {name}: {}", error.value(py)))
    })
}

/// Seconds, as `time.sleep` and `asyncio.wait_for` take them.
pub(crate) fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = typed(name, value)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        let message = format!("the argument {name} is {seconds}; it takes seconds, zero or more");
        Fault::argument(message).into()
    })
}

fn start(value: &Bound<'_, PyAny>) -> PyResult<Start> {
    let bad = || {
        let shown = value.repr().map_or_else(|_| "?".to_owned(), |shown| shown.to_string());
        let message = format!(
            "the start {shown} is none of \"TRIM_HORIZON\", \"LATEST\" and a datetime with a time zone since 1970, \
             such as datetime.now(UTC)"
        );
        PyErr::from(Fault::argument(message))
    };
    match value.extract::<String>().as_deref() {
        Ok("TRIM_HORIZON") => Ok(Start::TrimHorizon),
        Ok("LATEST") => Ok(Start::Latest),
        Ok(_) => Err(bad()),
        Err(_) => {
            let aware = value.getattr("tzinfo").is_ok_and(|zone| !zone.is_none());
            let stamp = value.call_method0("timestamp").ok().filter(|_| aware).ok_or_else(bad)?;
            let since_epoch = Duration::try_from_secs_f64(stamp.extract()?).map_err(|_| bad())?;
            Ok(Start::AtTimestamp(SystemTime::UNIX_EPOCH + since_epoch))
        }
    }
}

fn undecodable(value: &Bound<'_, PyAny>) -> PyResult<Undecodable> {
    match typed::<String>("undecodable", value)?.as_str() {
        "stop" => Ok(Undecodable::Stop),
        "deliver_raw" => Ok(Undecodable::DeliverRaw),
        other => {
            let message = format!("undecodable={other:?} is neither \"stop\" nor \"deliver_raw\"");
            Err(Fault::argument(message).into())
        }
    }
}
