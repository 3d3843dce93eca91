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

    // What a gateway reads, over a record whose texts are slices too: see src/wire.rs.
    let again = out.join("wire");
    std::fs::create_dir_all(&again)?;
    let mut server = tonic_prost_build::configure()
        .build_client(false)
        .out_dir(again)
        .extern_path(".headworks.v1.Record", "crate::wire::Record")
        .extern_path(".headworks.v1.PutStreamRequest.Batch", "crate::wire::Batch");
    for same in SAME {
        server = server.extern_path(format!(".headworks.v1.{same}"), format!("crate::v1::{same}"));
    }
    server.compile_fds(descriptors)?;
    Ok(())
}

/// Messages that hold no records of a request.
const SAME: [&str; 10] = [
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
