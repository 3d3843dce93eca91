//! A request's body in parts, so that aggregates are sent from where they are.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_kinesis::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};

/// Never empty.
#[derive(Debug)]
pub(crate) struct Parts(Vec<Bytes>);

impl From<Vec<Bytes>> for Parts {
    fn from(parts: Vec<Bytes>) -> Self {
        Self(parts)
    }
}

impl From<Bytes> for Parts {
    fn from(whole: Bytes) -> Self {
        Self(vec![whole])
    }
}

impl Parts {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// The digest that the signature needs of a body which the signer does not see as a whole.
    pub(crate) fn digest(&self) -> Option<String> {
        if self.0.len() == 1 {
            return None;
        }
        let mut digest = Sha256::new();
        for part in &self.0 {
            digest.update(part);
        }
        Some(format!("{:x}", Bytes::copy_from_slice(&digest.finalize())))
    }

    pub(crate) fn into_body(mut self) -> SdkBody {
        if self.0.len() == 1 {
            return self.0.pop().unwrap_or_default().into();
        }
        SdkBody::from_body_1_x(Sending { left: self.len() as u64, parts: self.0.into_iter() })
    }
}

struct Sending {
    parts: vec::IntoIter<Bytes>,
    left: u64,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.next();
        self.left -= part.as_ref().map_or(0, |part| part.len() as u64);
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// In which the digest comes to the signer.
pub(crate) const DIGEST: &str = "x-amz-content-sha256";

/// Signs what has a digest by that. Of a body in parts the signer knows nothing else, and would sign that it is not signed,
/// which Kinesis does not take.
#[derive(Debug)]
pub(crate) struct SignedByDigest;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for SignedByDigest {
    fn name(&self) -> &'static str {
        "SignedByDigest"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(digest) = context.request_mut().headers_mut().remove(DIGEST) {
            config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(digest));
        }
        Ok(())
    }
}
