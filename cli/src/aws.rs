//! Clients of AWS, or of anything that speaks its protocols.

use aws_config::SdkConfig;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Region;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

use crate::exit::Failure;

const DEFAULT_REGION: &str = "us-east-1";

/// Where Kinesis is.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Address of Kinesis. Default: AWS's own for the region. Credentials come from the usual places
    /// (AWS_ACCESS_KEY_ID and so on); `headworks dev` prints what to set for the stack on this machine.
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_KINESIS")]
    endpoint_url: Option<String>,
    /// AWS region. Default: AWS_REGION, AWS_DEFAULT_REGION, the profile's region, else us-east-1.
    #[arg(long, value_name = "REGION", env = "HEADWORKS_REGION")]
    region: Option<String>,
}

/// A client of Kinesis, and how its place is called in messages.
#[derive(Debug, Clone)]
pub(crate) struct Kinesis {
    pub(crate) client: Client,
    pub(crate) place: String,
}

/// Kinesis, and what the clients of other services are made of. Their addresses come from AWS_ENDPOINT_URL_DYNAMODB
/// and AWS_ENDPOINT_URL_S3.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) kinesis: Kinesis,
    config: SdkConfig,
}

impl Args {
    pub(crate) async fn kinesis(&self) -> Result<Kinesis, Failure> {
        Ok(self.services().await?.kinesis)
    }

    pub(crate) async fn services(&self) -> Result<Services, Failure> {
        if let Some(url) = &self.endpoint_url {
            check_url("endpoint-url-invalid", "--endpoint-url", url)?;
        }
        // Not the SDK's whole chain: it ends at the instance metadata service, which takes seconds to be
        // missing on a laptop.
        let region = RegionProviderChain::first_try(self.region.clone().map(Region::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(DEFAULT_REGION));
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest()).region(region).load().await;
        let mut kinesis = aws_sdk_kinesis::config::Builder::from(&config);
        if let Some(url) = &self.endpoint_url {
            kinesis = kinesis.endpoint_url(url);
        }
        let place = match self.endpoint_url.as_deref().or(config.endpoint_url()) {
            Some(url) => url.to_owned(),
            None => {
                format!("AWS, region {}", config.region().map_or(DEFAULT_REGION, |region| region.as_ref()))
            }
        };
        Ok(Services { kinesis: Kinesis { client: Client::from_conf(kinesis.build()), place }, config })
    }
}

impl Services {
    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.config)
    }

    /// With `path_style` the bucket's name stands in the path, as servers other than AWS's want it.
    pub(crate) fn s3(&self, path_style: bool) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(&self.config).force_path_style(path_style).build();
        aws_sdk_s3::Client::from_conf(config)
    }
}

impl Kinesis {
    /// What a failed call means for a command.
    pub(crate) fn failure<E, R>(&self, operation: &str, error: &SdkError<E, R>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let what = describe(error);
        match error {
            SdkError::ServiceError(_) => Failure::environment(
                "kinesis-refused",
                format_args!(
                    "{operation} at {} was refused: {what}; check the credentials, the region and the address",
                    self.place
                ),
            ),
            SdkError::ConstructionFailure(_) => {
                Failure::usage("kinesis-request-invalid", format_args!("{operation}: {what}"))
            }
            _ if what.contains("credential") => Failure::environment(
                "credentials-missing",
                format_args!(
                    "{operation} at {} cannot be signed: {what}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, any values for a local stack",
                    self.place
                ),
            ),
            _ => Failure::environment(
                "kinesis-unreachable",
                format_args!(
                    "Kinesis at {} cannot be reached: {what}; check the address, or start a stack on this machine with headworks dev",
                    self.place
                ),
            ),
        }
    }
}

/// Refuses an address that is not `http://` or `https://` with a host.
pub(crate) fn check_url(code: &'static str, option: &str, url: &str) -> Result<(), Failure> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default()).unwrap_or_default();
    if host.is_empty() || host.starts_with(':') || url.contains(char::is_whitespace) {
        return Err(Failure::usage(
            code,
            format_args!(
                "the address {url:?} of {option} is not http://HOST:PORT or https://HOST:PORT; write for example http://127.0.0.1:4400"
            ),
        ));
    }
    Ok(())
}

/// The service's code and message, or the whole chain of what broke on the way.
pub(crate) fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    if let SdkError::ServiceError(service) = error
        && let Some(code) = service.err().code()
    {
        return format!("{code}: {}", service.err().message().unwrap_or("no message"));
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["http://127.0.0.1:4400", "https://kinesis.example.com/", "http://[::1]:1"] {
            check_url("c", "--x", good).unwrap();
        }
        for bad in ["", "127.0.0.1:4400", "http://", "http://:80", "ftp://x", "http://a b"] {
            assert!(check_url("c", "--x", bad).is_err(), "{bad}");
        }
    }
}
