//! [`RuntimeApi`]: the HTTP interface through which one execution environment fetches invocations and answers.
//!
//! One listener serves one process, as on Lambda, so a request needs no more than its path to be attributed.
//! Paths, headers and status codes follow the OpenAPI description of AWS's custom runtimes, version 2018-06-01.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::error::FunctionError;

/// The largest response that Lambda takes from a function, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 6 * 1024 * 1024;

const PREFIX: &str = "/2018-06-01/runtime/";

/// What the function is handed.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    pub(super) request_id: String,
    pub(super) function_arn: Arc<str>,
    pub(super) trace_id: String,
    pub(super) deadline_unix_ms: u64,
    pub(super) payload: Bytes,
}

type Answer = Result<Bytes, FunctionError>;

/// A Runtime API listener on a loopback port of its own. Dropping it closes all connections.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the long poll.
    queued: Notify,
    /// Wakes whoever waits for the end of the initialization.
    initialized: Notify,
}

#[derive(Debug, Default)]
struct State {
    init: Option<Result<(), FunctionError>>,
    queued: Option<(Invocation, oneshot::Sender<Answer>)>,
    running: Option<(String, oneshot::Sender<Answer>)>,
}

impl RuntimeApi {
    pub(super) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let server = AbortOnDropHandle::new(tokio::spawn(serve(listener, Arc::clone(&shared))));
        Ok(Self { address, shared, _server: server })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the process to ask for its first invocation or to report that it cannot start.
    pub(super) async fn initialized(&self) -> Result<(), FunctionError> {
        loop {
            let initialized = self.shared.initialized.notified();
            tokio::pin!(initialized);
            initialized.as_mut().enable();
            if let Some(outcome) = self.shared.lock().init.clone() {
                return outcome;
            }
            initialized.await;
        }
    }

    /// Offers an invocation; the answer arrives on the receiver. The caller offers the next one only after that.
    pub(super) fn offer(&self, invocation: Invocation) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.shared.lock().queued = Some((invocation, sender));
        self.shared.queued.notify_one();
        receiver
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish_init(&self, outcome: Result<(), FunctionError>) {
        self.lock().init.get_or_insert(outcome);
        self.initialized.notify_waiters();
    }

    async fn next(&self) -> Reply {
        self.finish_init(Ok(()));
        loop {
            if let Some(reply) = self.take_next() {
                return reply;
            }
            self.queued.notified().await;
        }
    }

    fn take_next(&self) -> Option<Reply> {
        let mut state = self.lock();
        if let Some((id, _)) = &state.running {
            return Some(refusal(
                StatusCode::FORBIDDEN,
                "InvalidStateTransition",
                &format!("invocation {id} has not been answered yet: post its response or its error first"),
            ));
        }
        let (invocation, sender) = state.queued.take()?;
        let response = Response::builder()
            .header("Content-Type", "application/json")
            .header("Lambda-Runtime-Aws-Request-Id", &invocation.request_id)
            .header("Lambda-Runtime-Deadline-Ms", invocation.deadline_unix_ms)
            .header("Lambda-Runtime-Invoked-Function-Arn", &*invocation.function_arn)
            .header("Lambda-Runtime-Trace-Id", &invocation.trace_id)
            .body(Full::new(invocation.payload));
        match response {
            Ok(response) => {
                state.running = Some((invocation.request_id, sender));
                Some(response)
            }
            Err(error) => {
                // Unreachable with validated names, but a broken header must fail its invocation, not hang it.
                let _ = sender.send(Err(FunctionError::reported("Runtime.InvalidHeader", error.to_string())));
                None
            }
        }
    }

    /// Settles the running invocation if `id` names it.
    fn settle(&self, id: &str, answer: Answer) -> bool {
        let mut state = self.lock();
        match state.running.take() {
            Some((running, sender)) if running == id => {
                // The caller may have given up; the process is then on its way out.
                let _ = sender.send(answer);
                true
            }
            other => {
                state.running = other;
                false
            }
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let _ = socket.set_nodelay(true);
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let shared = Arc::clone(&shared);
                            async move { Ok::<_, Infallible>(answer(&shared, request).await) }
                        });
                        let connection =
                            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a Runtime API connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the Runtime API cannot accept a connection");
                    // Out of descriptors, most likely: accepting at once again would only spin.
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

type Reply = Response<Full<Bytes>>;

async fn answer(shared: &Shared, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Some(path) = parts.uri.path().strip_prefix(PREFIX) else {
        return not_found(parts.uri.path());
    };
    if path == "invocation/next" {
        return if parts.method == Method::GET { shared.next().await } else { not_allowed(&parts.method) };
    }
    let operation = if path == "init/error" {
        Some((None, "error"))
    } else {
        path.strip_prefix("invocation/")
            .and_then(|rest| rest.split_once('/'))
            .map(|(id, verb)| (Some(id), verb))
    };
    let Some((id, verb @ ("response" | "error"))) = operation else {
        return not_found(parts.uri.path());
    };
    if parts.method != Method::POST {
        return not_allowed(&parts.method);
    }
    let body = match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            if let Some(id) = id {
                shared.settle(id, Err(FunctionError::ResponseTooLarge { limit: MAX_RESPONSE_BYTES }));
            }
            return refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                &format!("a response has at most {MAX_RESPONSE_BYTES} bytes"),
            );
        }
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
    };
    let Some(id) = id else {
        let (error_type, message) = reported(&parts.headers, &body);
        shared.finish_init(Err(FunctionError::Init { error_type, message }));
        return accepted();
    };
    let outcome = match verb {
        "response" => Ok(body),
        _ => {
            let (error_type, message) = reported(&parts.headers, &body);
            Err(FunctionError::Reported { error_type, message })
        }
    };
    if shared.settle(id, outcome) {
        accepted()
    } else {
        refusal(
            StatusCode::BAD_REQUEST,
            "InvalidRequestID",
            &format!("no invocation {id:?} is waiting for an answer"),
        )
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ErrorBody {
    error_message: Option<String>,
    error_type: Option<String>,
}

/// The error's type and message: the body's, else the header's, else the body as it is.
fn reported(headers: &HeaderMap, body: &[u8]) -> (String, String) {
    let parsed: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let header = headers.get("Lambda-Runtime-Function-Error-Type").and_then(|value| value.to_str().ok());
    let error_type =
        parsed.error_type.or_else(|| header.map(str::to_owned)).unwrap_or_else(|| "Unknown".to_owned());
    let message = parsed.error_message.unwrap_or_else(|| {
        const SHOWN: usize = 1024;
        String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned()
    });
    (error_type, message)
}

fn accepted() -> Reply {
    json(StatusCode::ACCEPTED, Bytes::from_static(b"{\"status\":\"OK\"}"))
}

fn not_found(path: &str) -> Reply {
    refusal(StatusCode::NOT_FOUND, "NotFound", &format!("the Runtime API has no {path}"))
}

fn not_allowed(method: &Method) -> Reply {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", &format!("{method} is not served here"))
}

fn refusal(status: StatusCode, error_type: &str, message: &str) -> Reply {
    let body = serde_json::json!({ "errorType": error_type, "errorMessage": message });
    json(status, Bytes::from(body.to_string()))
}

fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert("Content-Type", http::HeaderValue::from_static("application/json"));
    response
}
