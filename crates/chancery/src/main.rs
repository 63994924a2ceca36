//! `chancery`: the whole CA in one program. Every role, the ceremony, the operators' commands, and the demo.

mod ceremony;
mod cli;
mod database;
mod demo;
mod node;
mod operator;
mod roles;

use std::process::ExitCode;

use clap::Parser as _;

/// The subcommand of the worker process that loads a PKCS#11 module; it takes its socket from its parent.
const WORKER: &str = "hsm-worker";

fn main() -> ExitCode {
    runtime::arm_failpoints();
    // The worker comes before everything else: it must be alone in its process when it loads the module.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == WORKER) {
        return hsm::worker::main(arguments);
    }
    cli::Cli::parse().run()
}
