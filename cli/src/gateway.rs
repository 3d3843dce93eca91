//! Reaching a gateway.

use std::time::Duration;

use headworks_producer::{ConnectError, Producer};
use headworks_telemetry::Telemetry;

use crate::exit::Failure;
use crate::simulate::duration_of;

/// Where records are sent.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Address of the gateway, http://HOST:PORT.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4400", env = "HEADWORKS_GATEWAY")]
    gateway: String,
    /// Inbound stream. Default: the gateway's default stream.
    #[arg(
        long,
        value_name = "STREAM",
        default_value = "",
        hide_default_value = true,
        env = "HEADWORKS_STREAM"
    )]
    pub(crate) stream: String,
    /// How long each record may take until the stream has it, 1ms to 10m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration_of, env = "HEADWORKS_TIMEOUT")]
    timeout: Duration,
    /// How long to try to reach the gateway, 1ms to 10m.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration_of, env = "HEADWORKS_CONNECT_TIMEOUT")]
    connect_timeout: Duration,
}

impl Args {
    /// Connects, or says why not.
    pub(crate) async fn connect(&self, telemetry: &Telemetry) -> Result<Producer, Failure> {
        let builder = Producer::builder()
            .endpoint(&self.gateway)
            .stream(&self.stream)
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout)
            .telemetry(telemetry);
        builder.connect().await.map_err(|error| match error {
            ConnectError::Endpoint { .. } | ConnectError::OutOfBounds { .. } => {
                Failure::usage(error.code(), error)
            }
            ConnectError::Unreachable { ref endpoint, ref last, patience } => Failure::environment(
                error.code(),
                format_args!(
                    "no gateway answers at {endpoint} within {patience:?}: {last}; check --gateway, or start everything on this machine with headworks dev"
                ),
            ),
            _ => Failure::environment(error.code(), error),
        })
    }
}
