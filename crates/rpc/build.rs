//! Compiles `/proto` with protox: no protoc on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use tonic_prost_build::Config;

const PROTOS: &[&str] = &[
    "chancery/admin/v1/admin.proto",
    "chancery/front/v1/nonces.proto",
    "chancery/signer/v1/authority.proto",
    "chancery/signer/v1/node.proto",
    "chancery/status/v1/publication.proto",
    "chancery/status/v1/responder.proto",
    "chancery/validator/v1/validator.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // The tests compare the access tables with this list of every RPC there is.
    let mut config = Config::new();
    config.bytes(["."]);
    fs::write(out.join("descriptors.bin"), prost_bytes(&descriptors))?;
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}

fn prost_bytes(descriptors: &prost_types::FileDescriptorSet) -> Vec<u8> {
    prost::Message::encode_to_vec(descriptors)
}
