//! The Kinesis streams behind a gateway.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region};
use headworks_writer::{KinesisStream, Stream};

use crate::config::Config;

/// The endpoint that is used, if it is not AWS's own: the configuration's, else the environment's.
pub fn endpoint(config: &Config) -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    config
        .kinesis_endpoint
        .clone()
        .or_else(|| variable("AWS_ENDPOINT_URL_KINESIS"))
        .or_else(|| variable("AWS_ENDPOINT_URL"))
}

/// A client with the environment's credentials, for the configured endpoint and region.
pub async fn client(config: &Config) -> aws_sdk_kinesis::Client {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let mut settings = aws_sdk_kinesis::config::Builder::from(&loader.load().await);
    if let Some(endpoint) = endpoint(config) {
        settings = settings.endpoint_url(endpoint);
    }
    aws_sdk_kinesis::Client::from_conf(settings.build())
}

/// What [`Gateway::bind`](crate::Gateway::bind) needs to reach the streams through one such client.
pub async fn streams(config: &Config) -> impl Fn(&str) -> Arc<dyn Stream> + use<> {
    let client = client(config).await;
    move |name: &str| Arc::new(KinesisStream::new(client.clone(), name)) as Arc<dyn Stream>
}
