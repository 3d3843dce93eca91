//! The MD5 that ends an aggregate.

use bytes::Bytes;

use super::{DIGEST_LEN, MAGIC};
use crate::digest::{self, Chain};

/// An aggregate that lacks its MD5: what [`Builder::take_unsealed`](super::Builder::take_unsealed) gives.
#[derive(Debug)]
#[must_use = "without its MD5 it is no aggregate"]
pub struct Unsealed(Vec<u8>);

impl Unsealed {
    /// Begins with the magic, and has room for the MD5.
    pub(super) fn new(blob: Vec<u8>) -> Self {
        Self(blob)
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
        self.0.len() + DIGEST_LEN
    }

    fn text(&self) -> &[u8] {
        &self.0[MAGIC.len()..]
    }

    fn end(mut self, chain: Chain) -> Bytes {
        let text = self.text();
        let digest = chain.finish(&text[digest::whole(text.len())..], text.len());
        self.0.extend_from_slice(&digest);
        self.0.into()
    }
}
