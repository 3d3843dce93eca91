//! One connection: opened, granted credit, ready for batches.

use std::sync::Arc;
use std::time::Duration;

use headworks_proto::MAX_MESSAGE_BYTES;
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_proto::v1::put_stream_request::{Message as Asked, Open};
use headworks_proto::v1::put_stream_response::{Credit, Message as Told};
use headworks_proto::v1::{PutStreamRequest, PutStreamResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};

use crate::builder::Config;
use crate::connect::ConnectError;

/// Messages that wait for the transport. Few: what waits here cannot grow into larger batches.
const MESSAGES_WAITING: usize = 2;
/// How long one attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// A gateway that is gone without a word is noticed within the sum of these.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Why there is no connection, or no longer.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// Whether trying again is of no use.
    pub(crate) is_final: bool,
}

impl Failure {
    pub(crate) fn from_status(status: &Status) -> Self {
        let is_final = matches!(
            status.code(),
            Code::NotFound
                | Code::InvalidArgument
                | Code::Unimplemented
                | Code::PermissionDenied
                | Code::Unauthenticated
        );
        Self { reason: format!("{:?}: {}", status.code(), status.message()), is_final }
    }

    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_final: false }
    }
}

/// A conversation with the gateway.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) asks: PollSender<PutStreamRequest>,
    /// Whether the gateway takes more.
    pub(crate) takes: bool,
    pub(crate) tells: Streaming<PutStreamResponse>,
    pub(crate) credit: Credit,
}

/// The address as the transport takes it.
pub(crate) fn endpoint(config: &Config, address: &str) -> Result<Endpoint, ConnectError> {
    let refuse = |reason: String| ConnectError::Endpoint { endpoint: address.to_owned(), reason };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| refuse(chain(&error)))?;
    let endpoint = match endpoint.uri().scheme_str() {
        Some("http") => endpoint,
        Some("https") => endpoint.tls_config(config.tls.client()).map_err(|error| refuse(chain(&error)))?,
        Some(other) => return Err(refuse(format!("{other:?} is no scheme of a gateway"))),
        None => return Err(refuse("it has no scheme".to_owned())),
    };
    Ok(endpoint
        .connect_timeout(ATTEMPT)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

impl Session {
    /// Connects, opens the stream, and waits for the credit.
    pub(crate) async fn open(endpoint: Endpoint, config: Arc<Config>) -> Result<Self, Failure> {
        tokio::time::timeout(ATTEMPT, Self::try_open(endpoint, &config))
            .await
            .unwrap_or_else(|_| Err(Failure::passing(format!("no answer within {ATTEMPT:?}"))))
    }

    async fn try_open(endpoint: Endpoint, config: &Config) -> Result<Self, Failure> {
        let channel = endpoint.connect().await.map_err(|error| Failure::passing(chain(&error)))?;
        let mut client = GatewayClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (asks, messages) = mpsc::channel(MESSAGES_WAITING);
        let open = Open {
            stream: config.stream.clone(),
            timeout: config.timeout.try_into().ok(),
            compact_results: true,
        };
        let open = PutStreamRequest { message: Some(Asked::Open(open)) };
        // There is room for it.
        let _ = asks.send(open).await;
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = config.token.read() {
            let value = format!("Bearer {token}").parse::<AsciiMetadataValue>().map(|mut value| {
                value.set_sensitive(true);
                value
            });
            let value = value.map_err(|_| Failure {
                reason: "the token has characters that no header may have; it must be printable ASCII"
                    .to_owned(),
                is_final: true,
            })?;
            request.metadata_mut().insert("authorization", value);
        }
        let failed = |status: Status| Failure::from_status(&status);
        let mut tells = client.put_stream(request).await.map_err(failed)?.into_inner();
        match tells.message().await.map_err(failed)? {
            Some(PutStreamResponse { message: Some(Told::Credit(credit)) }) => {
                Ok(Self { asks: PollSender::new(asks), takes: true, tells, credit })
            }
            Some(_) => Err(Failure::passing("the gateway did not begin with a credit")),
            None => Err(Failure::passing("the gateway closed the stream at once")),
        }
    }
}

/// An error with its causes: the transport's own text says no more than "transport error".
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
