//! S3: s3s over a directory, on a port of its own.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::faults::{Faults, Injected, MESSAGE, Service, Target, pause};
use crate::http::{Dropped, Failure};
use crate::stack::{ACCESS_KEY, SECRET_KEY};

/// Opens the buckets below `root`, a directory that exists.
pub(crate) fn open(root: &Path) -> Result<S3Service, String> {
    let files = FileSystem::new(root).map_err(|error| format!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    // Signatures are verified, so there must be a secret to verify them with.
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    builder.set_access(ExistingBuckets { root: root.to_owned() });
    Ok(builder.build())
}

/// Serves `service` until `shutdown`.
pub(crate) async fn run(
    service: S3Service,
    listener: TcpListener,
    faults: Faults,
    shutdown: CancellationToken,
) {
    let faulty = service_fn(move |request| {
        let (service, faults) = (service.clone(), faults.clone());
        async move { handle(&service, &faults, request).await }
    });
    crate::http::serve(listener, faulty, shutdown).await;
}

type ResponseBody = UnsyncBoxBody<Bytes, Failure>;

async fn handle(
    service: &S3Service,
    faults: &Faults,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Failure> {
    let serve = async |request: Request<Incoming>| -> Result<_, Failure> {
        let called = hyper::service::Service::call(service, request);
        let response = called.await.map_err(|error| format!("{error:?}"))?;
        Ok(response.map(BodyExt::boxed_unsync))
    };
    if faults.is_idle() {
        return serve(request).await;
    }
    let plan = faults.plan(&target(&request));
    pause(plan.delay).await;
    if plan.reset {
        return Err(Dropped.into());
    }
    if let Some(injected) = plan.refuse {
        return Ok(refusal(injected));
    }
    let response = serve(request).await?;
    pause(plan.delay_after).await;
    if plan.lost {
        return Err(Dropped.into());
    }
    Ok(plan.refuse_after.map_or(response, refusal))
}

/// What a path-style request is about.
fn target(request: &Request<Incoming>) -> Target {
    let path = request.uri().path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let place = (bucket.is_empty(), key.is_empty());
    let operation = match (request.method(), place) {
        (&Method::GET, (true, _)) => "ListBuckets",
        (&Method::GET, (_, true)) => "ListObjects",
        (&Method::GET, _) => "GetObject",
        (&Method::HEAD, (false, true)) => "HeadBucket",
        (&Method::HEAD, (false, false)) => "HeadObject",
        (&Method::PUT, (false, true)) => "CreateBucket",
        (&Method::PUT, (false, false)) if has("uploadId") => "UploadPart",
        (&Method::PUT, (false, false)) => "PutObject",
        (&Method::DELETE, (false, true)) => "DeleteBucket",
        (&Method::DELETE, (false, false)) if has("uploadId") => "AbortMultipartUpload",
        (&Method::DELETE, (false, false)) => "DeleteObject",
        (&Method::POST, (false, true)) if has("delete") => "DeleteObjects",
        (&Method::POST, (false, false)) if has("uploads") => "CreateMultipartUpload",
        (&Method::POST, (false, false)) if has("uploadId") => "CompleteMultipartUpload",
        _ => "Other",
    };
    Target {
        service: Service::S3,
        operation: operation.to_owned(),
        resource: (!bucket.is_empty()).then(|| bucket.to_owned()),
        shards: Vec::new(),
        keys: vec![key.to_owned()],
    }
}

fn refusal(injected: Injected) -> Response<ResponseBody> {
    let (code, status) = injected.name("SlowDown");
    // Codes are letters and digits: nothing to escape.
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{MESSAGE}</Message></Error>"
    );
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// Refuses calls on a bucket that is not there, as S3 does: the file system below would create one on a put, and
/// who writes dead letters must learn that their bucket is missing.
struct ExistingBuckets {
    root: PathBuf,
}

#[async_trait]
impl S3Access for ExistingBuckets {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Sign the request with access key {ACCESS_KEY}."));
        }
        let bucket = match context.s3_path() {
            S3Path::Root => return Ok(()),
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => bucket,
        };
        if context.s3_op().name() == "CreateBucket" {
            return Ok(());
        }
        match tokio::fs::metadata(self.root.join(&**bucket)).await {
            Ok(found) if found.is_dir() => Ok(()),
            _ => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist: {bucket}")),
        }
    }
}
