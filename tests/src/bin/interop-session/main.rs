//! Runs the interop suite's scripted sessions with the Rust SDK.
//!
//! Reads `{endpoint, sessions: [{stream, steps}]}` as JSON from stdin and answers a list of the answers of each on
//! stdout. The language of the sessions is described in `tests/interop/suite/sessions.py`; `suite/boto.py` and
//! `node/session.mjs` are the same for other SDKs.

mod answer;
mod calls;
mod fill;
mod runner;
mod subscription;

use std::io::Read as _;

use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use serde::Deserialize;

use crate::runner::{Runner, Step};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    endpoint: String,
    sessions: Vec<Session>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    stream: String,
    steps: Vec<Step>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let input: Input = serde_json::from_str(&text)?;
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "interop"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(&input.endpoint)
        .build();
    let client = aws_sdk_kinesis::Client::from_conf(config);
    let runs = input.sessions.into_iter().map(|session| {
        let runner = Runner::new(client.clone(), session.stream);
        async move { runner.run(&session.steps).await }
    });
    let answers = futures_util::future::join_all(runs).await;
    println!("{}", serde_json::to_string(&answers)?);
    Ok(())
}
