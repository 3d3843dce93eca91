//! Asks who calls before anything of the message is read: what a stranger sends must not be held.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt as _};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use super::receive::Receiving;
use crate::auth::{Credential, Session};
use crate::conn::Peer;
use crate::shared::Shared;

/// A service that is called by principals alone, each known by its [`Session`] among the extensions.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Gate<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        // The one that is ready is called; the copy becomes ready on its own.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        async move {
            let peer = request.extensions().get::<Arc<Peer>>();
            let credential = Credential::of(request.headers(), peer);
            let source = peer.map(|peer| peer.ip());
            let (door, ended) = match request.uri().path().rsplit('/').next() {
                Some("PutStream") => ("put_stream", &shared.ended.put_stream),
                _ => ("put", &shared.ended.put),
            };
            match Session::open(&shared, credential, source, door).await {
                Ok(session) => {
                    request.extensions_mut().insert(session);
                    let room = Arc::clone(&shared.receiving);
                    inner.call(request.map(|body| Body::new(Receiving::new(body, room)))).await
                }
                Err(error) => {
                    ended.count(error.code());
                    Ok(Status::from(error).into_http())
                }
            }
        }
        .boxed()
    }
}
