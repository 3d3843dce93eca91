//! The AWS protocol over the engine: JSON 1.1 and CBOR 1.1, HTTP/1.1 and h2c on one port.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Request;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::api::{self, Reply};
use super::bodies::{Bodies, Collected};
use super::codec::Codec;
use super::engine::Engine;
use super::error::Error;
use super::{store, target};
use crate::faults::pause;
use crate::http::Dropped;

/// The prefix of every operation's target.
const TARGET: &str = "Kinesis_20131202.";
/// How often shards that nobody touches are trimmed.
const SWEEP: Duration = Duration::from_mins(1);
/// How often the log is looked at: a fast client writes hundreds of MiB to it in a second.
const COMPACTION: Duration = Duration::from_secs(1);

type ResponseBody = UnsyncBoxBody<Bytes, Dropped>;

/// Serves `engine` on `listener` until `shutdown`; subscriptions end with it.
pub async fn run(engine: Arc<Engine>, listener: TcpListener, shutdown: CancellationToken) {
    let service = {
        let (engine, shutdown) = (Arc::clone(&engine), shutdown.clone());
        let bodies = Arc::new(Bodies::new(engine.settings().request_limits));
        service_fn(move |request| {
            let (engine, shutdown, bodies) = (Arc::clone(&engine), shutdown.clone(), Arc::clone(&bodies));
            async move { handle(&engine, &bodies, request, &shutdown).await }
        })
    };
    tokio::join!(
        crate::http::serve(listener, service, shutdown.clone()),
        sweep(&engine, &shutdown),
        compact(&engine, &shutdown)
    );
}

async fn sweep(engine: &Arc<Engine>, shutdown: &CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => engine.sweep(),
        }
    }
}

/// Keeps what is on disk in proportion to what is held.
async fn compact(engine: &Arc<Engine>, shutdown: &CancellationToken) {
    if engine.store().is_none() {
        return;
    }
    let mut pause = COMPACTION;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if !store::has_grown(engine) {
            continue;
        }
        let engine = Arc::clone(engine);
        pause = match tokio::task::spawn_blocking(move || store::compact(&engine)).await {
            Ok(Ok(())) | Err(_) => COMPACTION,
            Ok(Err(error)) => {
                tracing::error!(%error, "the log of the streams could not be compacted");
                SWEEP
            }
        };
    }
}

async fn handle(
    engine: &Arc<Engine>,
    bodies: &Bodies,
    request: Request<Incoming>,
    shutdown: &CancellationToken,
) -> Result<Response<ResponseBody>, Dropped> {
    let codec = codec_of(&request);
    let answer = answer(engine, bodies, request, codec, shutdown).await?;
    Ok(match answer {
        Ok(Reply::Body(body)) => {
            response(StatusCode::OK, codec.unwrap_or(Codec::Json).content_type(), full(body))
        }
        Ok(Reply::Messages(subscription)) => {
            let frames = subscription.into_messages().map(|message| message.map(Frame::data));
            let body = StreamBody::new(frames).boxed_unsync();
            response(StatusCode::OK, "application/vnd.amazon.eventstream", body)
        }
        Err(error) => {
            tracing::debug!(exception = error.exception(), %error, "refused");
            let codec = codec.unwrap_or(Codec::Json);
            let payload = api::error_payload(codec, &error);
            response(error.status(), codec.content_type(), full(payload))
        }
    })
}

/// The encoding of the request. A body without a content type is taken as JSON.
fn codec_of(request: &Request<Incoming>) -> Option<Codec> {
    match request.headers().get(CONTENT_TYPE) {
        None => Some(Codec::Json),
        Some(value) => value.to_str().ok().and_then(Codec::of),
    }
}

async fn answer(
    engine: &Arc<Engine>,
    bodies: &Bodies,
    request: Request<Incoming>,
    codec: Option<Codec>,
    shutdown: &CancellationToken,
) -> Result<Result<Reply, Error>, Dropped> {
    let (operation, codec, body) = match read(bodies, request, codec).await {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    if engine.settings().call_rates
        && let Err(error) = engine.rates().admit(engine, &operation, codec, &body)
    {
        return Ok(Err(error));
    }
    let dispatch = || api::dispatch(engine, &operation, codec, &body, shutdown);
    if engine.faults().is_idle() {
        return Ok(dispatch());
    }
    let target = target::of(engine, &operation, codec, &body);
    let plan = engine.faults().plan(&target);
    pause(plan.delay).await;
    if plan.reset {
        return Err(Dropped);
    }
    if let Some(injected) = plan.refuse {
        return Ok(Err(target::call_error(injected, &target)));
    }
    let mut reply = dispatch();
    if plan.duplicate {
        reply = dispatch();
    }
    pause(plan.delay_after).await;
    if plan.lost {
        return Err(Dropped);
    }
    match plan.refuse_after {
        Some(injected) => Ok(Err(target::call_error(injected, &target))),
        None => Ok(reply),
    }
}

/// The operation, the encoding and the body of a request. Seen: kinesalite's tests of connections, without words.
/// Words: ours.
async fn read<'a>(
    bodies: &'a Bodies,
    request: Request<Incoming>,
    codec: Option<Codec>,
) -> Result<(String, Codec, Collected<'a>), Error> {
    if request.method() != Method::POST {
        return Err(Error::NotOfThisProtocol(format!(
            "{} is no call of the Kinesis API: send POST with the header X-Amz-Target.",
            request.method()
        )));
    }
    let codec = codec.ok_or_else(|| {
        Error::NotOfThisProtocol(
            "The content type must be application/x-amz-json-1.1 or application/x-amz-cbor-1.1.".to_owned(),
        )
    })?;
    let target =
        request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target
        .strip_prefix(TARGET)
        .ok_or_else(|| {
            Error::UnknownOperation(format!("X-Amz-Target is {target:?}: expected {TARGET}Operation."))
        })?
        .to_owned();
    let body = bodies.collect(request.into_body()).await?;
    Ok((operation, codec, body))
}

fn full(bytes: Bytes) -> ResponseBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn response(status: StatusCode, content_type: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::try_from(request_id()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// A request id in the form of the service's: a random UUID.
fn request_id() -> String {
    let id: u128 = rand::random();
    let hex = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
