//! The HTTP door: `POST /v1/records`, and what operators ask.

mod body;
mod cloudevent;
mod cors;
mod error;
mod json;
mod reply;
mod request;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
use axum::{Json, Router};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::error::Error;
use self::request::Parsed;
use crate::auth::{Credential, Session};
use crate::conn::{Conn, Peer};
use crate::health;
use crate::metrics;
use crate::shared::{Inbound, Shared};
use crate::tally;
use crate::unary::{self, TRACEPARENT, Unary};

/// What every request looks at.
#[derive(Debug)]
struct Door {
    shared: Arc<Shared>,
    /// Bytes of bodies that may still be taken in.
    room: Arc<Semaphore>,
}

impl Door {
    fn new(shared: Arc<Shared>) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(shared.config.http_buffer_bytes));
        Arc::new(Self { shared, room })
    }
}

/// Serves until `stop` is cancelled, then closes connections as they fall idle.
pub(crate) async fn serve(
    incoming: Incoming,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/records", post(records).options(preflight))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(Door::new(shared));
    let router = router.into_make_service_with_connect_info::<At>();
    axum::serve(incoming, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The connections of the listener.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) conns: mpsc::Receiver<Conn>,
    pub(crate) address: SocketAddr,
}

impl Listener for Incoming {
    type Io = Conn;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Conn, SocketAddr) {
        match self.conns.recv().await {
            Some(conn) => {
                let address = conn.peer.address;
                (conn, address)
            }
            // Nobody accepts any more; the server is told to stop on another way.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone)]
struct At(Arc<Peer>);

impl axum::extract::connect_info::Connected<IncomingStream<'_, Incoming>> for At {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        Self(Arc::clone(&stream.io().peer))
    }
}

async fn records(State(door): State<Arc<Door>>, request: Request) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let counted = tally::Call::new(&door.shared.ended.http);
    let (code, mut response) = match take(&door, request).await {
        Ok(response) => (tally::OK, response),
        Err(error) => {
            debug!(code = error.code(), "a POST fails: {error}");
            (error.code(), error.into_response())
        }
    };
    counted.ended(code);
    cors::label(&door.shared.config, origin.as_ref(), response.headers_mut());
    response
}

async fn take(door: &Door, request: Request) -> Result<Response, Error> {
    let shared = &door.shared;
    let (head, body) = request.into_parts();
    // Everything that can be said without the body, first.
    let checked = cors::check(&shared.config, &head.headers)
        .and_then(|()| Ok(shared.check_open()?))
        .and_then(|()| request::Form::of(&head.headers))
        .and_then(|form| Ok((form, request::Asked::of(&head.uri)?)));
    let known = match checked {
        Ok(checked) => session(shared, &head).await.map(|session| (checked, session)),
        Err(error) => Err(error),
    };
    let ((form, asked), session) = match known {
        Ok(known) => known,
        Err(error) => {
            body::discard(body, &head.headers).await;
            return Err(error);
        }
    };
    let (body, held) = body::read(body, &head.headers, &door.room, &shared.config).await?;
    let Parsed { stream, timeout, records } = request::parse(form, asked, &head.headers, &body)?;
    let call = Unary {
        principal: session.principal(),
        caller: unary::caller(head.headers.get(TRACEPARENT).map(|value| value.as_bytes())),
        stream: stream.as_deref().unwrap_or_default(),
        timeout,
    };
    // Records' data are parts of the body, which lives as long as any of them.
    let results = call.put(shared, records.into(), held).await?;
    Ok(if form.is_event() { reply::of_events(results) } else { reply::of_records(results) })
}

/// Who calls.
async fn session(shared: &Shared, head: &Parts) -> Result<Session, Error> {
    let peer = head.extensions.get::<ConnectInfo<At>>().map(|ConnectInfo(At(peer))| peer);
    let credential = Credential::of(&head.headers, peer);
    Ok(Session::open(shared, credential, peer.map(|peer| peer.ip()), "http").await?)
}

async fn preflight(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    match cors::check(&door.shared.config, &headers) {
        Ok(()) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            let origin = headers.get(header::ORIGIN);
            cors::label(&door.shared.config, origin, response.headers_mut());
            cors::permit(&headers, response.headers_mut());
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(door): State<Arc<Door>>) -> Response {
    let shared = &door.shared;
    let serve = |stream: &&Arc<Inbound>| health::serves(stream);
    let ready = !shared.draining.is_cancelled() && shared.streams.iter().any(|stream| serve(&stream));
    let name = |stream: &Arc<Inbound>| stream.name.to_string();
    let streams: Vec<String> = shared.streams.iter().map(name).collect();
    let failing: Vec<String> = shared.streams.iter().filter(|stream| !serve(stream)).map(name).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": ready, "streams": streams, "not_serving": failing });
    (status, Json(body)).into_response()
}

async fn exposition(State(door): State<Arc<Door>>, request: Request) -> Response {
    if door.shared.auth().is_enabled() && !door.shared.config.auth.open_metrics {
        let (head, _) = request.into_parts();
        if let Err(error) = session(&door.shared, &head).await {
            return error.into_response();
        }
    }
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&door.shared)).into_response()
}

async fn unknown_path(uri: Uri) -> Error {
    Error::Path { path: uri.path().chars().take(128).collect() }
}

async fn unknown_method(method: Method, uri: Uri) -> Error {
    Error::Method {
        method: method.as_str().chars().take(32).collect(),
        path: uri.path().chars().take(128).collect(),
    }
}
