//! How the generated server reads requests of this module.

use std::marker::PhantomData;

use bytes::{Buf as _, Bytes};
use prost::DecodeError;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// A request that is read from a message in one piece.
pub trait Read: Sized {
    /// Reads it.
    fn read(message: Bytes) -> Result<Self, DecodeError>;
}

/// Writes what `prost` writes, and [reads](Read) what borrows from the message.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: prost::Message + Send + 'static, U: Read + Send + 'static> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reading<U>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic::codec::Codec::encoder(&mut ProstCodec::<T, ()>::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reading(PhantomData)
    }
}

/// The decoder of [`Codec`].
#[derive(Debug)]
pub struct Reading<U>(PhantomData<U>);

impl<U: Read> Decoder for Reading<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = message.copy_to_bytes(message.remaining());
        U::read(message).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
