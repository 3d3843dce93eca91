//! The Headworks gRPC contract, `headworks.v1`, and its conversion to and from records.
//!
//! The types are generated from `proto/headworks/v1/gateway.proto`, whose comments are the reference.
//! [`convert`] checks what comes over the wire and turns it into a [`headworks_record::Record`];
//! [`compact`] writes and reads results that many records share, and [`wire`] reads requests in place.

pub mod compact;
pub mod convert;
pub mod wire;

/// The generated messages, client and server of `headworks.v1`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("headworks.v1");
}

/// The contract's file descriptors, encoded, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The most records of one batch.
pub const MAX_BATCH_RECORDS: usize = 10_000;
/// The most bytes of one request message.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// The longest `id` of a record, in bytes.
pub const MAX_ID_BYTES: usize = 256;
