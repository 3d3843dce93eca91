//! The gRPC door: `headworks.v1.Gateway`.

mod conversation;
mod limit;

use std::sync::Arc;

use headworks_proto::MAX_MESSAGE_BYTES;
use headworks_proto::v1::gateway_server::{Gateway, GatewayServer};
use headworks_proto::v1::{PutRequest, PutResponse, PutStreamRequest, PutStreamResponse};
use headworks_telemetry::Parent;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use self::conversation::Conversation;
use self::limit::MessageLimit;
use crate::call;
use crate::intake::Intake;
use crate::principal::Principal;
use crate::shared::Shared;

/// Answers of a `PutStream` that wait for the transport. Few: a client that does not read its
/// answers is not read from either.
const ANSWERS_WAITING: usize = 16;

/// The gRPC service.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    shared: Arc<Shared>,
}

impl Door {
    /// The service with its limits, ready to be served.
    pub(crate) fn service(shared: Arc<Shared>) -> MessageLimit<GatewayServer<Self>> {
        let server = GatewayServer::new(Self { shared })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Gzip);
        MessageLimit::new(server)
    }

    /// Who calls. Reachable from loopback, or by the operator's explicit decision, only.
    fn principal(&self, _metadata: &MetadataMap) -> Principal {
        Principal::local()
    }

    fn check_open(&self) -> Result<(), call::Error> {
        if self.shared.draining.is_cancelled() { Err(call::Error::Draining) } else { Ok(()) }
    }
}

/// The call's own trace context. As W3C asks, a malformed one counts as none.
fn caller(metadata: &MetadataMap) -> Parent {
    metadata
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Parent::from_traceparent(text).ok())
        .unwrap_or(Parent::None)
}

#[tonic::async_trait]
impl Gateway for Door {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.check_open()?;
        let (metadata, _, request) = request.into_parts();
        let inbound = self.shared.inbound(&request.stream)?;
        let intake = Intake {
            shared: &self.shared,
            inbound,
            principal: &self.principal(&metadata),
            caller: caller(&metadata),
            timeout: self.shared.timeout(request.timeout)?,
        };
        let (puts, pending) = intake.take(request.records)?;
        let ticket = inbound
            .writer
            .try_put(puts)
            .await
            .map_err(|refused| call::Error::from_refused(refused, &inbound.name))?;
        // A task of its own: the records stay on their way, and their spans are told, even if the
        // client gives up.
        let (shared, inbound) = (Arc::clone(&self.shared), Arc::clone(inbound));
        let answered = self
            .shared
            .calls
            .spawn(async move { pending.answer(ticket.await, &inbound.name, &shared.tracer) });
        let results = answered.await.map_err(|error| call::Error::Lost { reason: error.to_string() })?;
        Ok(Response::new(PutResponse { results }))
    }

    type PutStreamStream = ReceiverStream<Result<PutStreamResponse, Status>>;

    async fn put_stream(
        &self,
        request: Request<Streaming<PutStreamRequest>>,
    ) -> Result<Response<Self::PutStreamStream>, Status> {
        self.check_open()?;
        let (metadata, _, requests) = request.into_parts();
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING);
        let conversation = Conversation::new(
            Arc::clone(&self.shared),
            self.principal(&metadata),
            caller(&metadata),
            requests,
            answers,
        );
        self.shared.calls.spawn(conversation.run());
        // At once: a client may wait for the headers before it sends its first message.
        Ok(Response::new(ReceiverStream::new(waiting)))
    }
}
