//! The gRPC door: `headworks.v1.Gateway`.

mod conversation;
mod gate;
mod limit;
mod receive;

use std::sync::Arc;

use headworks_proto::MAX_MESSAGE_BYTES;
use headworks_proto::v1::{PutResponse, PutStreamResponse};
use headworks_proto::wire::gateway_server::{Gateway, GatewayServer};
use headworks_proto::wire::{PutRequest, PutStreamRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Extensions, Request, Response, Status, Streaming};

use self::conversation::Conversation;
use self::gate::Gate;
use self::limit::MessageLimit;
use crate::auth::Session;
use crate::call;
use crate::shared::Shared;
use crate::tally;
use crate::unary::{self, TRACEPARENT, Unary};

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
    pub(crate) fn service(shared: Arc<Shared>) -> Gate<MessageLimit<GatewayServer<Self>>> {
        let server = GatewayServer::new(Self { shared: Arc::clone(&shared) })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Gzip);
        Gate::new(MessageLimit::new(server, Arc::clone(&shared)), shared)
    }
}

#[tonic::async_trait]
impl Gateway for Door {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let counted = tally::Call::new(&self.shared.ended.put);
        let (metadata, extensions, PutRequest { stream, timeout, records }) = request.into_parts();
        let session = session(&extensions)?;
        let call = Unary {
            principal: session.principal(),
            caller: unary::caller(metadata.get(TRACEPARENT).map(|value| value.as_bytes())),
            stream: &stream,
            timeout,
        };
        let answered = call.put(&self.shared, records, ()).await;
        counted.ended(answered.as_ref().map_or_else(call::Error::code, |_| tally::OK));
        Ok(Response::new(PutResponse { results: answered? }))
    }

    type PutStreamStream = ReceiverStream<Result<PutStreamResponse, Status>>;

    async fn put_stream(
        &self,
        request: Request<Streaming<PutStreamRequest>>,
    ) -> Result<Response<Self::PutStreamStream>, Status> {
        if let Err(draining) = self.shared.check_open() {
            self.shared.ended.put_stream.count(draining.code());
            return Err(draining.into());
        }
        let (metadata, extensions, requests) = request.into_parts();
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING);
        let conversation = Conversation::new(
            Arc::clone(&self.shared),
            session(&extensions)?.clone(),
            unary::caller(metadata.get(TRACEPARENT).map(|value| value.as_bytes())),
            requests,
            answers,
        );
        self.shared.calls.spawn(conversation.run());
        // At once: a client may wait for the headers before it sends its first message.
        Ok(Response::new(ReceiverStream::new(waiting)))
    }
}

/// Whom the gate let in.
fn session(extensions: &Extensions) -> Result<&Session, Status> {
    let session = extensions.get::<Session>();
    session.ok_or_else(|| call::Error::Lost { reason: "nobody asked who calls".to_owned() }.into())
}
