//! The requests as a gateway reads them: records borrow from the received message.
//!
//! What `prost` generates copies each text into memory of its own: for a record of three headers that is seven
//! allocations, which other threads free. Here a message is read into three allocations, however many records it has:
//! their texts in one string, where their parts lie, and the message itself, in which their data stays.
//!
//! The messages are those of [`v1`](crate::v1), as [`Codec`] reads them; the server is generated once more over them.

use bytes::Bytes;
use prost::DecodeError;
use prost::Message as _;
use prost::encoding::{WireType, check_wire_type};

use self::read::Reader;
use crate::v1::put_stream_request::Open;

mod codec;
mod read;
mod records;

pub use self::codec::{Codec, Read};
pub use self::generated::gateway_server;
pub use self::records::{Context, Record, Records};

#[allow(missing_debug_implementations, unreachable_pub, missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/wire/headworks.v1.rs"));
}

/// The message `headworks.v1.PutRequest`, whose fields the contract describes.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct PutRequest {
    pub stream: String,
    pub records: Records,
    pub timeout: Option<prost_types::Duration>,
}

/// The message `headworks.v1.PutStreamRequest`.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct PutStreamRequest {
    pub message: Option<Asked>,
}

/// What a message of a `PutStream` holds.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Asked {
    Open(Open),
    Batch(Batch),
}

/// The message `headworks.v1.PutStreamRequest.Batch`.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Batch {
    pub number: u64,
    pub records: Records,
}

impl Read for PutRequest {
    fn read(message: Bytes) -> Result<Self, DecodeError> {
        let (mut request, mut records) = (Self::default(), records::Builder::new(message.clone()));
        let mut reader = Reader::new(&message);
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                1 => {
                    let stream = str::from_utf8(reader.text(wire_type)?).map_err(|_| read::no_text())?;
                    stream.clone_into(&mut request.stream);
                }
                2 => records.push(reader.sized(wire_type)?)?,
                3 => {
                    let timeout = reader.sized(wire_type)?;
                    request.timeout.get_or_insert_default().merge(timeout.rest())?;
                }
                _ => reader.skip(field, wire_type)?,
            }
        }
        request.records = records.finish()?;
        Ok(request)
    }
}

impl Read for PutStreamRequest {
    fn read(message: Bytes) -> Result<Self, DecodeError> {
        let (mut open, mut batch) = (None, None);
        let mut reader = Reader::new(&message);
        while let Some((field, wire_type)) = reader.field()? {
            // As protobuf has it, the last of the alternatives counts, and what is there twice is merged.
            match field {
                1 => {
                    // What gives way is read all the same.
                    if let Some((_, records)) = batch.take() {
                        records::Builder::finish(records)?;
                    }
                    open.get_or_insert_with(Open::default).merge(reader.sized(wire_type)?.rest())?;
                }
                2 => {
                    open = None;
                    let new = || (0, records::Builder::new(message.clone()));
                    let (number, records) = batch.get_or_insert_with(new);
                    read_batch(reader.sized(wire_type)?, number, records)?;
                }
                _ => reader.skip(field, wire_type)?,
            }
        }
        let batch = batch.map(|(number, records)| records.finish().map(|records| Batch { number, records }));
        let message = open.map(Asked::Open).or(batch.transpose()?.map(Asked::Batch));
        Ok(Self { message })
    }
}

fn read_batch(
    mut reader: Reader<'_>,
    number: &mut u64,
    records: &mut records::Builder,
) -> Result<(), DecodeError> {
    while let Some((field, wire_type)) = reader.field()? {
        match field {
            1 => {
                check_wire_type(WireType::Varint, wire_type)?;
                *number = reader.varint()?;
            }
            2 => records.push(reader.sized(wire_type)?)?,
            _ => reader.skip(field, wire_type)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
