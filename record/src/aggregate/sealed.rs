//! The MD5 that ends an aggregate.

use bytes::Bytes;

use super::{DIGEST_LEN, MAGIC};
use crate::digest::{self, Chain};

/// An aggregate that lacks its MD5: what [`Builder::take_unsealed`](super::Builder::take_unsealed) gives.
#[derive(Debug)]
#[must_use = "without its MD5 it is no aggregate"]
pub struct Unsealed {
    bytes: Vec<u8>,
    /// Where the blob begins.
    start: usize,
}

impl Unsealed {
    /// From `start` on there is the magic and all that follows it, and room for the MD5.
    pub(super) fn new(bytes: Vec<u8>, start: usize) -> Self {
        Self { bytes, start }
    }

    /// The blob.
    pub fn seal(self) -> Bytes {
        let chain = Chain::of(self.text());
        self.end(chain)
    }

    /// The blobs, in order. Most of the work of sealing is a chain of steps that wait for each other; those of eight
    /// aggregates take little longer than those of one.
    pub fn seal_all(all: Vec<Unsealed>) -> Vec<Bytes> {
        let texts: Vec<&[u8]> = all.iter().map(Self::text).collect();
        let chains = digest::chains(&texts);
        all.into_iter().zip(chains).map(|(unsealed, chain)| unsealed.end(chain)).collect()
    }

    /// Bytes of the blob, the MD5 included.
    pub fn blob_len(&self) -> usize {
        self.bytes.len() - self.start + DIGEST_LEN
    }

    fn text(&self) -> &[u8] {
        &self.bytes[self.start + MAGIC.len()..]
    }

    fn end(mut self, chain: Chain) -> Bytes {
        let text = self.text();
        let digest = chain.finish(&text[digest::whole(text.len())..], text.len());
        self.bytes.extend_from_slice(&digest);
        Bytes::from(self.bytes).slice(self.start..)
    }
}
