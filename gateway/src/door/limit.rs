//! Tells clients that a message is too large in the terms of the contract.
//!
//! The transport refuses an oversized message before any code of ours sees it, with OUT_OF_RANGE, or
//! RESOURCE_EXHAUSTED where it was compressed. By the contract a batch over the limits is
//! INVALID_ARGUMENT, and RESOURCE_EXHAUSTED would ask the client to try again.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt as _};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::call;
use crate::shared::Shared;

/// A service whose answers to oversized requests follow the contract.
#[derive(Debug, Clone)]
pub(crate) struct MessageLimit<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> MessageLimit<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S: NamedService> NamedService for MessageLimit<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for MessageLimit<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.inner.call(request);
        let shared = Arc::clone(&self.shared);
        async move {
            let response = response.await?;
            // A call that fails before it answers has its status among the headers.
            Ok(match Status::from_header_map(response.headers()) {
                Some(status) if is_too_large(&status) => {
                    let error = call::Error::MessageTooLarge { detail: status.message().to_owned() };
                    // Only unary calls are refused before they answer.
                    shared.ended.put.count(error.code());
                    Status::from(error).into_http()
                }
                _ => response,
            })
        }
        .boxed()
    }
}

/// Whether the transport refused a message for its size.
pub(super) fn is_too_large(status: &Status) -> bool {
    match status.code() {
        Code::OutOfRange => status.message().contains("message length too large"),
        Code::ResourceExhausted => status.message().contains("exceeded while decompressing"),
        _ => false,
    }
}
