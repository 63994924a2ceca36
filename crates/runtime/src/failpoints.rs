//! Where a process kills itself, for the crash tests. Builds without the feature `failpoints` hold nothing of it.

/// Whether this build has failpoints.
pub const FAILPOINTS: bool = cfg!(feature = "failpoints");

/// Arms the failpoints that `CHANCERY_FAILPOINTS` names: `signer.sign.after=3;store.ca.before-commit=1` has the process
/// kill itself at the third pass of the one or the first pass of the other, whichever comes first. `@FILE` stands for the
/// content of a file, which is removed, so that who is started again by others is armed once.
///
/// To be called first in `main`. In a build without failpoints it does nothing, and reads no environment.
pub fn arm_failpoints() {
    #[cfg(feature = "failpoints")]
    armed::arm();
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::io::Write as _;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    const VARIABLE: &str = "CHANCERY_FAILPOINTS";

    pub(super) fn arm() {
        let Some(value) = std::env::var_os(VARIABLE) else { return };
        let value = value.to_string_lossy();
        match value.strip_prefix('@') {
            Some(path) => {
                // Taken by renaming: of several processes one has it.
                let taken = Path::new(path).with_extension(format!("taken-{}", std::process::id()));
                if std::fs::rename(path, &taken).is_ok() {
                    plan(&std::fs::read_to_string(&taken).unwrap_or_default());
                    drop(std::fs::remove_file(&taken));
                }
            }
            None => plan(&value),
        }
    }

    fn plan(text: &str) {
        for one in text.split(';').map(str::trim).filter(|one| !one.is_empty()) {
            let parsed = one.split_once('=').and_then(|(name, pass)| Some((name, pass.parse().ok()?)));
            let Some((name, pass)) = parsed else {
                say(&format!("failpoint {one}: not understood"));
                continue;
            };
            kill_at(name, pass);
        }
    }

    fn kill_at(name: &str, pass: u64) {
        let passes = AtomicU64::new(0);
        let shown = name.to_owned();
        let armed = fail::cfg_callback(name, move || {
            if passes.fetch_add(1, Ordering::Relaxed) + 1 == pass {
                say(&format!("failpoint {shown}: killed"));
                // No destructor, no flush, no reply: as a power cut or the kernel would.
                let _ = kill_process(getpid(), Signal::KILL);
            }
        });
        if let Err(error) = armed {
            say(&format!("failpoint {name}: {error}"));
        }
    }

    /// One write, so that lines of several processes stay whole.
    fn say(line: &str) {
        drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
    }
}
