//! Compiles the contract without protoc, and keeps its descriptors for gRPC reflection.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=headworks");
    let descriptors = protox::compile(["headworks/v1/gateway.proto"], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Payloads are slices of the received message, not copies of it.
        .bytes(".headworks.v1")
        .compile_fds(descriptors.clone())?;

    // The server of a gateway, over requests that borrow from the received message: see src/wire.rs.
    let again = out.join("wire");
    std::fs::create_dir_all(&again)?;
    let mut server =
        tonic_prost_build::configure().build_client(false).out_dir(again).codec_path("crate::wire::Codec");
    for message in OTHERS {
        server = server.extern_path(format!(".headworks.v1.{message}"), format!("crate::v1::{message}"));
    }
    for request in READ {
        server = server.extern_path(format!(".headworks.v1.{request}"), format!("crate::wire::{request}"));
    }
    server.compile_fds(descriptors)?;
    Ok(())
}

/// Requests that are read in place.
const READ: [&str; 2] = ["PutRequest", "PutStreamRequest"];

/// Every other message.
const OTHERS: [&str; 11] = [
    "Record",
    "Header",
    "CreationContext",
    "PutResponse",
    "PutStreamResponse",
    "RecordResult",
    "Stored",
    "Spooled",
    "Error",
    "CompactResults",
    "Place",
];
