//! DynamoDB: dynoxide on a port of its own, in memory or in one SQLite file, behind a port that faults reach.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dynoxide::Database;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::faults::{Faults, Injected, MESSAGE, Service, Target, pause};
use crate::http::{Dropped, Failure};
use crate::kinesis::sync::lock;

/// The service's own limit on a request, and room for what exceeds it to be refused by the service.
const MAX_BODY: usize = 17 << 20;
/// Idle connections kept to the tables.
const MAX_IDLE: usize = 64;

/// Opens the tables in `file`, or none in memory.
pub(crate) fn open(file: Option<&Path>) -> Result<Database, String> {
    let opened = match file {
        None => Database::memory(),
        Some(file) => match file.to_str() {
            Some(path) => Database::new(path),
            None => return Err(format!("{} is not UTF-8", file.display())),
        },
    };
    opened.map_err(|error| error.to_string())
}

/// Serves `database` on `listener` until `shutdown`; requests under way may finish within the grace. `inner` is a
/// listener of any loopback port, behind which the tables themselves live.
pub(crate) async fn run(
    database: Database,
    listener: TcpListener,
    inner: TcpListener,
    faults: Faults,
    shutdown: CancellationToken,
) {
    let address = match inner.local_addr() {
        Ok(address) => address,
        Err(error) => return tracing::error!(%error, "the local DynamoDB has no address"),
    };
    let front = Arc::new(Front { address, idle: Mutex::default(), faults });
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { front.handle(request).await }
    });
    let stop = CancellationToken::new();
    let front = async {
        crate::http::serve(listener, service, shutdown).await;
        stop.cancel();
    };
    tokio::join!(front, tables(database, inner, stop.clone()));
}

async fn tables(database: Database, listener: TcpListener, shutdown: CancellationToken) {
    let served =
        dynoxide::server::serve_with_shutdown(listener, database, shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        // Half a request would hold the end for ever.
        tokio::time::sleep(crate::http::GRACE).await;
    };
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::error!(%error, "the local DynamoDB has failed");
            }
        }
        () = overdue => {}
    }
}

/// Hands requests on to the tables, and does what faults ask for on the way.
#[derive(Debug)]
struct Front {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    faults: Faults,
}

impl Front {
    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        if self.faults.is_idle() {
            return self.forward(&parts, body).await;
        }
        let plan = self.faults.plan(&target(&parts, &body));
        pause(plan.delay).await;
        if plan.reset {
            return Err(Dropped.into());
        }
        if let Some(injected) = plan.refuse {
            return Ok(refusal(injected));
        }
        let mut response = self.forward(&parts, body.clone()).await?;
        if plan.duplicate {
            response = self.forward(&parts, body).await?;
        }
        pause(plan.delay_after).await;
        if plan.lost {
            return Err(Dropped.into());
        }
        Ok(plan.refuse_after.map_or(response, refusal))
    }

    async fn forward(&self, parts: &Parts, body: Bytes) -> Result<Response<Full<Bytes>>, Failure> {
        let request = || self.request(parts, body.clone());
        // An idle connection may have ended; a new one has not.
        let kept = lock(&self.idle).pop();
        let answered = match kept {
            Some(mut kept) => match kept.send_request(request()?).await {
                Ok(response) => Some((kept, response)),
                Err(error) if error.is_canceled() => None,
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let (sender, response) = match answered {
            Some(answered) => answered,
            None => {
                let mut sender = self.connect().await?;
                let response = sender.send_request(request()?).await?;
                (sender, response)
            }
        };
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
            parts.headers.remove(name);
        }
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(sender);
        }
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with its sender.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the tables ended early");
            }
        });
        Ok(sender)
    }

    fn request(&self, parts: &Parts, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = Uri::try_from(path)?;
        *request.headers_mut() = parts.headers.clone();
        let headers = request.headers_mut();
        for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
            headers.remove(name);
        }
        if !headers.contains_key(HOST) {
            headers.insert(HOST, HeaderValue::try_from(self.address.to_string())?);
        }
        Ok(request)
    }
}

fn target(parts: &Parts, body: &Bytes) -> Target {
    #[derive(Default, Deserialize)]
    struct Names {
        #[serde(rename = "TableName")]
        table_name: Option<String>,
    }
    let header = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = header.rsplit('.').next().unwrap_or_default().to_owned();
    // A body that cannot be read names nothing: the service refuses it.
    let names: Names = serde_json::from_slice(body).unwrap_or_default();
    let keys = vec![String::from_utf8_lossy(body).into_owned()];
    Target { service: Service::DynamoDb, operation, resource: names.table_name, shards: Vec::new(), keys }
}

fn refusal(injected: Injected) -> Response<Full<Bytes>> {
    let (code, status) = injected.name("ProvisionedThroughputExceededException");
    let body = serde_json::json!({
        "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
        "message": MESSAGE,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    response
}
