//! Reaching gateways: one set of options for every command that sends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headworks_producer::{ConnectError, Producer};
use headworks_telemetry::Telemetry;

use crate::exit::Failure;
use crate::simulate::duration_of;

/// Where records are sent, and what is shown there.
#[derive(Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Address of the gateway, http://HOST:PORT or https://HOST:PORT; repeat it, or separate addresses by commas, for
    /// several gateways of one stream, at most 64.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:4400",
        env = "HEADWORKS_GATEWAY"
    )]
    gateway: Vec<String>,
    /// Inbound stream. Default: the gateway's default stream.
    #[arg(
        long,
        value_name = "STREAM",
        default_value = "",
        hide_default_value = true,
        env = "HEADWORKS_STREAM"
    )]
    pub(crate) stream: String,
    /// API key or token (JWT) that is shown to the gateway; better in the variable, which other users of this
    /// machine do not see. Default: none.
    #[arg(long, value_name = "TOKEN", env = "HEADWORKS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File of the authorities (PEM) that sign the gateway's certificate. Default: the system's.
    #[arg(long, value_name = "FILE", env = "HEADWORKS_CA")]
    ca: Option<PathBuf>,
    /// File of the client's certificate (PEM, with its chain). Default: none is shown.
    #[arg(long, value_name = "FILE", requires = "client_key", env = "HEADWORKS_CLIENT_CERT")]
    client_cert: Option<PathBuf>,
    /// File of the key (PEM) of --client-cert.
    #[arg(long, value_name = "FILE", requires = "client_cert", env = "HEADWORKS_CLIENT_KEY")]
    client_key: Option<PathBuf>,
    /// Name that the gateway's certificate must bear. Default: the address's host.
    #[arg(long, value_name = "NAME", env = "HEADWORKS_SERVER_NAME")]
    server_name: Option<String>,
    /// How long each record may take until the stream has it, 1ms to 10m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration_of, env = "HEADWORKS_TIMEOUT")]
    timeout: Duration,
    /// How long to try to reach the gateway, 1ms to 10m.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration_of, env = "HEADWORKS_CONNECT_TIMEOUT")]
    connect_timeout: Duration,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the token.
        f.debug_struct("Options")
            .field("gateway", &self.gateway)
            .field("stream", &self.stream)
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Connects, or says why not.
    pub(crate) async fn connect(&self, telemetry: &Telemetry) -> Result<Producer, Failure> {
        let mut builder = Producer::builder()
            .endpoints(&self.gateway)
            .stream(&self.stream)
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout)
            .telemetry(telemetry);
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        if let Some(file) = &self.ca {
            builder = builder.ca_certificates(pem("--ca", file)?);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            builder = builder.identity(pem("--client-cert", certificate)?, pem("--client-key", key)?);
        }
        if let Some(name) = &self.server_name {
            builder = builder.server_name(name);
        }
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

fn pem(option: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| {
        Failure::environment(
            "input-unreadable",
            format_args!("the file {} of {option} cannot be read: {error}; check the path", file.display()),
        )
    })
}
