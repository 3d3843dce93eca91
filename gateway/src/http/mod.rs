//! The HTTP door: `POST /v1/records`, and what operators ask.

mod body;
mod cloudevent;
mod cors;
mod error;
mod json;
mod reply;
mod request;

use std::io;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::error::Error;
use self::request::Parsed;
use crate::metrics;
use crate::principal::Principal;
use crate::shared::Shared;
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
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            debug!("a connection answers with delay: {error}");
        }
    });
    let router = Router::new()
        .route("/v1/records", post(records).options(preflight))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(Door::new(shared));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
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
    let (form, asked) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            body::discard(body, &head.headers).await;
            return Err(error);
        }
    };
    let (body, held) = body::read(body, &head.headers, &door.room, &shared.config).await?;
    let Parsed { stream, timeout, records } = request::parse(form, asked, &head.headers, &body)?;
    let call = Unary {
        principal: &principal(&head.headers),
        caller: unary::caller(head.headers.get(TRACEPARENT).map(|value| value.as_bytes())),
        stream: stream.as_deref().unwrap_or_default(),
        timeout,
    };
    // Records' data are parts of the body, which lives as long as any of them.
    let results = call.put(shared, records, held).await?;
    Ok(if form.is_event() { reply::of_events(results) } else { reply::of_records(results) })
}

/// Who calls. Reachable from loopback, or by the operator's explicit decision, only.
fn principal(_headers: &HeaderMap) -> Principal {
    Principal::local()
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
    let ready = !door.shared.draining.is_cancelled();
    let streams: Vec<&str> = door.shared.streams.iter().map(|stream| &*stream.name).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": ready, "streams": streams }))).into_response()
}

async fn exposition(State(door): State<Arc<Door>>) -> Response {
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
