//! `make fuzz`: builds the targets with coverage for libFuzzer, and runs each for some minutes.

use std::process::ExitCode;

use clap::Parser;
use fuzz::campaign::{self, Arguments};

fn main() -> ExitCode {
    match campaign::run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(findings) => {
            eprintln!("fuzz: {findings} of the targets found something");
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}
