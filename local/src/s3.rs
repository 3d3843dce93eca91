//! S3: s3s over a directory, on a port of its own.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
pub(crate) async fn run(service: S3Service, listener: TcpListener, shutdown: CancellationToken) {
    crate::http::serve(listener, service, shutdown).await;
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
