//! Files that are read again when they change, and everything on SIGHUP.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;

use crate::exit::Failure;

type Callback = Arc<dyn Fn() -> Result<(), Failure> + Send + Sync>;

/// What is to be done on a reload, and which files call for it.
#[derive(Default)]
pub(crate) struct Watches {
    list: Mutex<Vec<Watch>>,
}

struct Watch {
    name: String,
    files: Vec<(PathBuf, Option<Seen>)>,
    callback: Callback,
}

impl Watches {
    pub(crate) fn add(&self, name: String, files: Vec<PathBuf>, callback: Callback) {
        let files = files.into_iter().map(|path| (path.clone(), seen(&path))).collect();
        self.list.lock().push(Watch { name, files, callback });
    }

    /// Calls back for everything whose files changed since the last look.
    pub(crate) fn poll(&self) {
        self.run(|watch| {
            let mut changed = false;
            for (path, last) in &mut watch.files {
                let now = seen(path);
                changed |= *last != now;
                *last = now;
            }
            changed
        });
    }

    /// Calls back for everything.
    pub(crate) fn all(&self) {
        self.run(|watch| {
            for (path, last) in &mut watch.files {
                *last = seen(path);
            }
            true
        });
    }

    fn run(&self, mut due: impl FnMut(&mut Watch) -> bool) {
        // Outside of the lock: a callback may add watches.
        let due: Vec<(String, Callback)> = self
            .list
            .lock()
            .iter_mut()
            .filter_map(|watch| due(watch).then(|| (watch.name.clone(), Arc::clone(&watch.callback))))
            .collect();
        for (name, callback) in due {
            let outcome = match callback() {
                Ok(()) => {
                    tracing::info!(what = name, "reload.done");
                    "done"
                }
                Err(error) => {
                    tracing::error!(what = name, %error, "reload.refused: the old state stays in force");
                    "refused"
                }
            };
            metrics::counter!("chancery_reloads_total", "what" => name, "outcome" => outcome).increment(1);
        }
    }
}

/// What tells two contents of a path apart without reading them. The inode, because files are replaced by rename.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

fn seen(path: &Path) -> Option<Seen> {
    let metadata = fs::metadata(path).ok()?;
    Some(Seen { modified: metadata.modified().ok(), size: metadata.len(), inode: metadata.ino() })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_replaced_file_calls_back_once_and_a_hangup_always() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificate");
        fs::write(&path, "one").unwrap();
        let (watches, calls) = (Watches::default(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&calls);
        let callback = move || {
            count.fetch_add(1, Ordering::SeqCst);
            Err(Failure::usage("a refusal does not stop the watch"))
        };
        watches.add("x".to_owned(), vec![path.clone()], Arc::new(callback));
        watches.poll();
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        // Same size, and the same second on many file systems: the inode tells.
        crate::files::write_atomically(&path, b"two", 0o600).unwrap();
        watches.poll();
        watches.poll();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        fs::remove_file(&path).unwrap();
        watches.poll();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        watches.all();
        watches.poll();
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }
}
