//! Collecting the bodies of requests into buffers that are used again.

use std::ops::Deref;
use std::sync::Mutex;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::error::Error;
use super::settings::RequestLimits;
use super::sync::lock;

/// The largest body where the service's limits hold: 10 MiB of data in base64, with keys and punctuation.
const MAX_BODY: usize = 20 << 20;
/// The largest body where no limits hold.
const MAX_BODY_WITHOUT_LIMITS: usize = 64 << 20;
/// Buffers that are kept, and the largest one: a call of 500 records of 1 KB fits into it.
const KEPT: usize = 8;
const KEPT_BYTES: usize = 1 << 20;

/// Buffers for bodies. Each is as large as what it has held: a fresh one for every call would cost its page faults
/// every time, and holding on to the frames would keep the connection from reading into the same buffer again.
#[derive(Debug)]
pub(crate) struct Bodies {
    kept: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

/// A body, whose buffer goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Collected<'a> {
    bytes: Vec<u8>,
    from: &'a Bodies,
}

impl Bodies {
    pub(crate) fn new(limits: Option<RequestLimits>) -> Self {
        let most = match limits {
            Some(limits) => MAX_BODY.max(2 * limits.put_bytes),
            None => MAX_BODY_WITHOUT_LIMITS,
        };
        Self { kept: Mutex::default(), most }
    }

    /// Reads a body to its end.
    pub(crate) async fn collect(&self, body: Incoming) -> Result<Collected<'_>, Error> {
        let mut collected = Collected { bytes: lock(&self.kept).pop().unwrap_or_default(), from: self };
        let mut body = std::pin::pin!(Limited::new(body, self.most));
        while let Some(frame) = body.frame().await {
            // Words: ours.
            let frame = frame.map_err(|error| {
                Error::Serialization(format!(
                    "The body could not be read (at most {} bytes): {error}",
                    self.most
                ))
            })?;
            if let Ok(data) = frame.into_data() {
                collected.bytes.extend_from_slice(&data);
            }
        }
        Ok(collected)
    }
}

impl Deref for Collected<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Collected<'_> {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() > KEPT_BYTES {
            return;
        }
        bytes.clear();
        let mut kept = lock(&self.from.kept);
        if kept.len() < KEPT {
            kept.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_up_to_a_bound() {
        let bodies = Bodies::new(Some(RequestLimits::AWS));
        drop(Collected { bytes: Vec::with_capacity(KEPT_BYTES + 1), from: &bodies });
        assert_eq!(lock(&bodies.kept).len(), 0, "a large one is given back");
        let many: Vec<_> = (0..KEPT + 3).map(|_| Collected { bytes: vec![7; 10], from: &bodies }).collect();
        drop(many);
        let kept = lock(&bodies.kept);
        assert_eq!(kept.len(), KEPT);
        assert!(kept.iter().all(|buffer| buffer.is_empty() && buffer.capacity() >= 10));
    }
}
