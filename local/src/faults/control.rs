//! The control port: faults from any language, or from a terminal.
//!
//! * `POST /faults` with a fault as text puts it in force: `{"id":1}`.
//! * `GET /faults` lists them: `[{"id":1,"fault":"PutRecords throttle","seen":12,"fired":12}]`.
//! * `DELETE /faults/1` takes one out of force and says what it has done; `DELETE /faults` takes all.
//!
//! Refusals are `{"code":"local-fault-invalid","message":"..."}`.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::rules::{FaultId, Faults, Fired};
use crate::http::Failure;

/// A fault is a line.
const MAX_BODY: usize = 4_096;

/// Serves the control port until `shutdown`.
pub(crate) async fn run(faults: Faults, listener: TcpListener, shutdown: CancellationToken) {
    let service = service_fn(move |request| {
        let faults = faults.clone();
        async move { handle(&faults, request).await }
    });
    crate::http::serve(listener, service, shutdown).await;
}

async fn handle(faults: &Faults, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
    // Browsers name the page that asks; no page has any business here.
    if request.headers().contains_key(ORIGIN) {
        return Ok(refuse(StatusCode::FORBIDDEN, "this port is not for web pages"));
    }
    let path = request.uri().path().to_owned();
    let id = path.strip_prefix("/faults/").and_then(|id| id.parse().ok()).map(FaultId::from_number);
    Ok(match (request.method().clone(), id) {
        (Method::GET, None) if path == "/faults" => {
            answer(StatusCode::OK, &faults.list().iter().map(describe).collect())
        }
        (Method::POST, None) if path == "/faults" => {
            let body = Limited::new(request.into_body(), MAX_BODY).collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            match Fault::parse(text.trim()).and_then(|fault| faults.add(fault)) {
                Ok(id) => answer(StatusCode::CREATED, &json!({ "id": id.number() })),
                Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
            }
        }
        (Method::DELETE, None) if path == "/faults" => {
            let done: Value = faults.list().iter().map(describe).collect();
            faults.clear();
            answer(StatusCode::OK, &done)
        }
        (Method::DELETE, Some(id)) => match faults.remove(id) {
            Some(fired) => answer(StatusCode::OK, &describe(&fired)),
            None => refuse(StatusCode::NOT_FOUND, &format!("fault {} is not in force", id.number())),
        },
        (method, _) => refuse(
            StatusCode::NOT_FOUND,
            &format!(
                "{method} {path} is nothing here: POST /faults with a fault as text, GET /faults, DELETE /faults or \
                 DELETE /faults/ID"
            ),
        ),
    })
}

fn describe(fired: &Fired) -> Value {
    json!({
        "id": fired.id.number(),
        "fault": fired.fault.to_string(),
        "seen": fired.seen,
        "fired": fired.fired,
    })
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({ "code": "local-fault-invalid", "message": message }))
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
