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
        .compile_fds(descriptors)?;
    Ok(())
}
