//! A worker and nothing else: what this crate's tests, and others', start. In production the signer's own program does.

use std::process::ExitCode;

fn main() -> ExitCode {
    hsm::worker::main(std::env::args_os().skip(1))
}
