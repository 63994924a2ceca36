//! The configuration of one token, and of the program that is its worker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::process::THIS_PROGRAM;

/// One token and how its worker is run.
///
/// Whoever may write here chooses the code that the worker loads (`module`) and the file that holds the PIN: treat it
/// like a file of root's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Path of the PKCS#11 module (`.so`). It is loaded in the worker process alone.
    pub module: PathBuf,
    /// The token's label. Slot numbers change; labels and serials do not.
    pub label: String,
    /// The token's serial number, where several tokens have one label.
    #[serde(default)]
    pub serial: Option<String>,
    /// File with the user PIN, one line. Others must not be able to read it. Only the worker opens it.
    pub pin_file: PathBuf,
    /// File in which a refused PIN is remembered (by a salted digest), so that no restart tries it again. A new PIN
    /// clears it. The worker creates it; its folder must be writable for the worker's user.
    pub latch_file: PathBuf,
    /// The worker's whole environment, for instance `SOFTHSM2_CONF`. It inherits none.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Numeric user id of the worker, where it shall not be the signer's own (the signer must be root to change it).
    #[serde(default)]
    pub user: Option<u32>,
    /// Numeric group id of the worker.
    #[serde(default)]
    pub group: Option<u32>,
    /// Sessions, and so threads, of the worker. Default: the machine's cores, which suits software tokens.
    #[serde(default)]
    pub sessions: Option<u16>,
    /// Jobs that may wait for this token, over all keys and lanes. Default 4096.
    #[serde(default = "default_queue_capacity")]
    pub queue_capacity: usize,
    /// Jobs that may wait in one lane of one key, so that one busy key leaves room for the others. Default 2048.
    #[serde(default = "default_lane_capacity")]
    pub lane_capacity: usize,
    /// A job that the worker had for so long means that the module hangs: the worker is killed and the job repeated.
    /// Milliseconds, default 10 000. Some network HSMs need 20 s to report a lost appliance by themselves.
    #[serde(default = "default_hang_timeout", rename = "hang_timeout_ms", deserialize_with = "milliseconds")]
    pub hang_timeout: Duration,
    /// How long a worker may take to load the module, log in and say that it is ready. Milliseconds, default 30 000.
    #[serde(
        default = "default_start_timeout",
        rename = "start_timeout_ms",
        deserialize_with = "milliseconds"
    )]
    pub start_timeout: Duration,
    /// Longest wait between two attempts to start the worker while the token is away. Milliseconds, default 30 000.
    #[serde(default = "default_respawn_max", rename = "respawn_max_ms", deserialize_with = "milliseconds")]
    pub respawn_max: Duration,
}

impl TokenConfig {
    /// The configuration of the token `label` of `module`, with defaults for the rest.
    pub fn new(
        module: impl Into<PathBuf>,
        label: impl Into<String>,
        pin_file: impl Into<PathBuf>,
        latch_file: impl Into<PathBuf>,
    ) -> TokenConfig {
        TokenConfig {
            module: module.into(),
            label: label.into(),
            serial: None,
            pin_file: pin_file.into(),
            latch_file: latch_file.into(),
            environment: BTreeMap::new(),
            user: None,
            group: None,
            sessions: None,
            queue_capacity: default_queue_capacity(),
            lane_capacity: default_lane_capacity(),
            hang_timeout: default_hang_timeout(),
            start_timeout: default_start_timeout(),
            respawn_max: default_respawn_max(),
        }
    }

    /// Adds a variable to the worker's environment.
    #[must_use]
    pub fn with_environment(mut self, name: impl Into<String>, value: impl Into<String>) -> TokenConfig {
        self.environment.insert(name.into(), value.into());
        self
    }
}

fn default_queue_capacity() -> usize {
    4096
}

fn default_lane_capacity() -> usize {
    2048
}

fn default_hang_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_start_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_respawn_max() -> Duration {
    Duration::from_secs(30)
}

fn milliseconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

/// The program that is executed as the worker. It must call [`crate::worker::main`] with the arguments that follow `args`.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program; in production the signer's own executable.
    pub program: PathBuf,
    /// Arguments that lead to [`crate::worker::main`]; in production the hidden subcommand `hsm-worker`.
    pub args: Vec<OsString>,
}

impl WorkerCommand {
    /// A program that is a worker by itself, such as this crate's `hsm-worker`.
    pub fn new(program: impl AsRef<Path>) -> WorkerCommand {
        WorkerCommand { program: program.as_ref().to_path_buf(), args: Vec::new() }
    }

    /// The program that runs now, with the arguments that lead to the worker's entry.
    pub fn this_program<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> WorkerCommand {
        WorkerCommand::with_args(THIS_PROGRAM, args)
    }

    /// A program with a subcommand for the worker.
    pub fn with_args<A: Into<OsString>>(
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = A>,
    ) -> WorkerCommand {
        WorkerCommand {
            program: program.as_ref().to_path_buf(),
            args: args.into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{ "module": "/m.so", "label": "ca", "pin_file": "/p", "latch_file": "/l" }"#;

    #[test]
    fn the_minimal_configuration_has_the_defaults_of_new() {
        let parsed: TokenConfig = serde_json::from_str(MINIMAL).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", TokenConfig::new("/m.so", "ca", "/p", "/l")));
    }

    #[test]
    fn times_are_milliseconds_and_unknown_keys_are_refused() {
        let with_time = MINIMAL.replace('}', r#", "hang_timeout_ms": 1500 }"#);
        let parsed: TokenConfig = serde_json::from_str(&with_time).unwrap();
        assert_eq!(parsed.hang_timeout, Duration::from_millis(1500));
        let with_pin = MINIMAL.replace('}', r#", "pin": "1234" }"#);
        assert!(serde_json::from_str::<TokenConfig>(&with_pin).unwrap_err().to_string().contains("pin"));
    }
}
