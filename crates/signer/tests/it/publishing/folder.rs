//! Folders: several processes, processes that are killed, and what a web server sees meanwhile.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pki::crl::{Crl, CrlScope};
use serde::{Deserialize, Serialize};
use signer::publication::Objects;

use super::{Lists, Publisher, number_of, wait};

/// As many CRLs as are made beforehand.
const LAST: u64 = 30;
/// How often a writer is killed.
const KILLS: u64 = 25;

/// A folder to publish to, and the configuration for it.
struct Target {
    folder: tempfile::TempDir,
}

impl Target {
    fn make() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("web")
    }

    fn made() -> Self {
        let target = Self::make();
        std::fs::create_dir(target.root()).unwrap();
        target
    }

    fn section(&self, more: &str) -> String {
        let root = self.root();
        format!("[[publish]]\nname = \"web\"\nfolder = {root:?}\nretry_max_seconds = 1\n{more}\n")
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.root().join(path)).ok()
    }

    /// Every file, hidden ones too, and its permissions.
    fn files(&self) -> Vec<(String, u32)> {
        let mut files = Vec::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let metadata = entry.metadata().unwrap();
                let name = entry.path().strip_prefix(self.root()).unwrap().display().to_string();
                files.push((name, metadata.permissions().mode() & 0o777));
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        files.sort();
        files
    }

    fn unfinished(&self) -> usize {
        self.files().iter().filter(|(name, _)| name.ends_with(".chancery-new")).count()
    }
}

/// What a writer process is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    /// A folder of its own with policy, certificates and CRLs.
    lists: PathBuf,
    section: String,
    /// The CRLs that it has at hand, one after another.
    numbers: Vec<u64>,
}

impl Lists {
    /// Starts a process that publishes these CRLs in turn and says each when it is done; `umask`: that of the process.
    fn writer(&self, target: &Target, numbers: Vec<u64>, umask: &str) -> (Child, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let _ = self.registry(1);
        for name in ["policy.toml", "root.pem", "issuer.pem"] {
            std::fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        for number in 1..=LAST {
            std::fs::write(folder.path().join(format!("root-{number}.crl")), self.crl(number)).unwrap();
        }
        let lists = folder.path().to_owned();
        let orders = Orders { lists, section: target.section(""), numbers };
        let mut child = Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "publishing::folder::a_writer", "--ignored", "--nocapture", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&serde_json::to_vec(&orders).unwrap()).unwrap();
        (child, folder)
    }
}

/// Not a test: the process that the tests below start.
#[tokio::test]
#[ignore = "no test: the process that the tests below start and kill"]
async fn a_writer() {
    let orders: Orders = serde_json::from_reader(std::io::stdin()).unwrap();
    for number in orders.numbers {
        let crl = orders.lists.join(format!("root-{number}.crl"));
        std::fs::copy(crl, orders.lists.join("root.crl")).unwrap();
        let registry = crate::support::registry(&orders.lists);
        let publisher = Publisher::of(&Objects::of(&registry), &registry, &orders.lists, &orders.section);
        publisher.is_up("web").await;
        println!("published {number}");
        publisher.stop().await;
    }
}

/// Looks at a CRL as a web server's clients do, all the time, until it is told to end: it is whole, and never goes back.
fn watch(file: PathBuf, end: &AtomicBool) -> u64 {
    let mut last = 0;
    let mut looks = 0_u64;
    while !end.load(Ordering::SeqCst) {
        let Ok(content) = std::fs::read(&file) else { continue };
        let number = Crl::from_der(&content).unwrap().number();
        assert!(number >= last, "from {last} back to {number}");
        last = number;
        looks += 1;
    }
    assert!(looks > 0);
    last
}

#[tokio::test]
async fn processes_that_race_never_go_back() {
    let (lists, target) = (Lists::make().await, Target::made());
    let file = target.root().join(lists.path());
    let end = AtomicBool::new(false);
    // One at its pace, and two that have something older in between.
    let straight = (1..=LAST).collect();
    let behind = (1..=LAST).flat_map(|number| [number, number.saturating_sub(5).max(1)]).collect();
    let far_behind = (1..=LAST).flat_map(|number| [number, 1]).collect();
    let last = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(file.clone(), &end));
        let writers = [straight, behind, far_behind].map(|numbers| lists.writer(&target, numbers, "022"));
        for (mut writer, _folder) in writers {
            assert!(writer.wait().unwrap().success());
        }
        end.store(true, Ordering::SeqCst);
        watcher.join().unwrap()
    });
    assert_eq!(last, LAST);
    assert_eq!(target.read(&lists.path()).unwrap(), lists.crl(LAST));
    assert_eq!(target.unfinished(), 0);
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_half_done() {
    let (lists, target) = (Lists::make().await, Target::made());
    let file = target.root().join(lists.path());
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(file.clone(), &end));
        for kill in 1..=KILLS {
            // Each goes on where the one before it may have come to, and falls back now and then.
            let numbers = (kill..=LAST).flat_map(|number| [number, 1]).collect();
            let (mut writer, _folder) = lists.writer(&target, numbers, "022");
            let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
            said.find(|line| line.as_ref().is_ok_and(|line| line.contains("published"))).unwrap().unwrap();
            // Somewhere in what comes next.
            std::thread::sleep(Duration::from_micros(kill * 977 % 9000));
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        end.store(true, Ordering::SeqCst);
        watcher.join().unwrap()
    });
    // The lock went with the dead, and what they left goes with the next.
    let publisher = Publisher::at(LAST, &lists, &target.section(""));
    publisher.is_up("web").await;
    assert_eq!(target.read(&lists.path()).unwrap(), lists.crl(LAST));
    assert_eq!(target.unfinished(), 0);
    publisher.stop().await;
}

/// A web server of another user reads everything, whatever the signer's umask.
#[tokio::test]
async fn a_web_server_can_read_what_is_there() {
    let (lists, target) = (Lists::make().await, Target::made());
    let (mut writer, _folder) = lists.writer(&target, vec![1], "077");
    assert!(writer.wait().unwrap().success());
    let modes: Vec<_> = target.files().into_iter().filter(|(name, _)| name != ".chancery.lock").collect();
    let (crl, folder) = (lists.path(), Path::new(&lists.path()).parent().unwrap().display().to_string());
    let expected = [
        ("crl", 0o755),
        (folder.as_str(), 0o755),
        (crl.as_str(), 0o644),
        ("issuer", 0o755),
        ("issuer/root.cer", 0o644),
        ("issuer/tls-1.cer", 0o644),
    ];
    assert_eq!(modes, expected.map(|(name, mode)| (name.to_owned(), mode)));
}

#[tokio::test]
async fn what_dead_writers_left_is_swept_and_nothing_else() {
    let (lists, target) = (Lists::make().await, Target::made());
    let path = target.root().join(lists.path());
    let (folder, own) = (path.parent().unwrap(), target.root().join("index.html"));
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(".0.crl.chancery-new"), &lists.crl(9)[..50]).unwrap();
    std::fs::write(folder.join(".7.crl.chancery-new"), b"of an earlier life").unwrap();
    std::fs::write(&own, b"hello").unwrap();
    std::fs::write(folder.join("9.crl"), b"of another CA").unwrap();
    let publisher = Publisher::at(1, &lists, &target.section(""));
    publisher.is_up("web").await;
    assert_eq!(target.unfinished(), 0);
    assert_eq!(std::fs::read(&own).unwrap(), b"hello");
    assert_eq!(std::fs::read(folder.join("9.crl")).unwrap(), b"of another CA");
    publisher.stop().await;
}

#[tokio::test]
async fn what_others_did_to_a_file_is_mended() {
    let (lists, target) = (Lists::make().await, Target::made());
    let publisher = Publisher::at(5, &lists, &target.section("compare_seconds = 1"));
    publisher.is_up("web").await;
    let file = target.root().join(lists.path());
    let mended = || target.read(&lists.path()).is_some_and(|there| there == lists.crl(5));
    for impostor in [lists.crl(4), lists.authorities.root_crl(9, 9, CrlScope::Shard(1)), b"half".to_vec()] {
        std::fs::write(&file, impostor).unwrap();
        wait(mended, String::new).await;
    }
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    wait(mended, String::new).await;
    // Another signer's.
    std::fs::write(&file, lists.crl(6)).unwrap();
    publisher.stop().await;
    let publisher = Publisher::at(5, &lists, &target.section(""));
    publisher.is_up("web").await;
    assert_eq!(number_of(&target.read(&lists.path()).unwrap()), 6);
    publisher.stop().await;
}

#[tokio::test]
async fn a_file_that_is_too_long_to_be_read_is_left_alone() {
    let (lists, target) = (Lists::make().await, Target::made());
    let section = |limit: usize| target.section(&format!("objects = [\"crl\"]\nread_limit_octets = {limit}"));
    let limit = lists.crl(5).len();
    let publisher = Publisher::at(5, &lists, &section(limit - 1));
    publisher.says("web", &format!("{limit} octets, more than read_limit_octets ({})", limit - 1)).await;
    publisher.stop().await;
    assert_eq!(target.read(&lists.path()), None);
    let (file, newer) = (target.root().join(lists.path()), lists.longer());
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, &newer).unwrap();
    let publisher = Publisher::at(5, &lists, &section(limit));
    publisher.says("web", &format!("{} octets, more than read_limit_octets ({limit})", newer.len())).await;
    publisher.stop().await;
    let publisher = Publisher::at(5, &lists, &section(newer.len()));
    publisher.is_up("web").await;
    publisher.stop().await;
    assert_eq!(target.read(&lists.path()).unwrap(), newer);
}

/// A mount that is yet to come is waited for: nothing is written where it will be.
#[tokio::test]
async fn a_folder_that_is_not_there_is_not_made() {
    let (lists, target) = (Lists::make().await, Target::make());
    let publisher = Publisher::at(1, &lists, &target.section(""));
    publisher.says("web", "No such file").await;
    assert!(!target.root().exists());
    std::fs::create_dir(target.root()).unwrap();
    publisher.is_up("web").await;
    assert_eq!(target.read(&lists.path()).unwrap(), lists.crl(1));
    // It goes away again: a file where the folder was.
    std::fs::remove_dir_all(target.root()).unwrap();
    std::fs::write(target.root(), b"").unwrap();
    publisher.stop().await;
    let publisher = Publisher::at(1, &lists, &target.section(""));
    publisher.says("web", "not a directory").await;
    publisher.stop().await;
}

#[tokio::test]
async fn a_lock_that_is_held_for_ever_holds_up_nothing_else() {
    let (lists, target, other) = (Lists::make().await, Target::made(), Target::made());
    let lock = std::fs::File::create(target.root().join(".chancery.lock")).unwrap();
    lock.lock().unwrap();
    let sections = target.section("timeout_seconds = 1") + &other.section("").replace("\"web\"", "\"other\"");
    let publisher = Publisher::at(1, &lists, &sections);
    publisher.is_up("other").await;
    publisher.says("web", "1 s").await;
    assert_eq!(target.read(&lists.path()), None);
    drop(lock);
    publisher.is_up("web").await;
    publisher.stop().await;
}
