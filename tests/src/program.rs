//! Running programs: ours from the build's folder, others from the path.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One of our programs, as this build made it.
///
/// # Panics
///
/// When it was not built; the panic says how to.
#[must_use]
pub fn ours(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program's own path");
    // A test is one folder deeper than the programs: target/<profile>/deps/<test>.
    let folder = own.parent().expect("its folder");
    let folder =
        if folder.ends_with("deps") { folder.parent().expect("the profile's folder") } else { folder };
    let program = folder.join(name);
    assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
    program
}

/// Runs a command that must succeed.
///
/// # Panics
///
/// When it is not installed or fails; the panic holds all that it said.
pub fn succeed(command: &mut Command) -> Output {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command to its end.
///
/// # Panics
///
/// When it is not installed.
pub fn run(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {command:?}: {error}; .ci/setup test installs what the tests need"),
    }
}

/// A Python tool of the checkout's own environment (`.tools/python`).
///
/// # Panics
///
/// When it is not installed.
#[must_use]
pub fn python_tool(name: &str) -> PathBuf {
    let tool = root().join(".tools/python/bin").join(name);
    assert!(tool.exists(), "{} is missing: .ci/setup test installs it", tool.display());
    tool
}

/// The checkout.
///
/// # Panics
///
/// Never: the crate lies in it.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the checkout")
}

/// A port of loopback that is free now.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("its address").port()
}
