//! The file of answers: an append-only log of what was kept, and of what stopped being true.
//!
//! A record is written whole or, when the process dies, torn at the end of the file; the torn end is cut off at the next start.
//! A record that was changed is found by its digest and left out, and so is everything that its signature does not hold for:
//! the digests protect from accidents, signatures from everybody else.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pki::Serial;

use super::answer::{Ground, Kept, ShardKey};
use crate::object::Sha256;

/// What is written.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// An answer, verified.
    Keep(Arc<Kept>),
    /// A certificate's answers from before a revision are no longer true.
    Drop { shard: ShardKey, serial: Serial, before: u64 },
    /// Everything up to a revision is in the log.
    Known { shard: ShardKey, revision: u64 },
    /// Nothing of a shard that stands before this is true.
    Reset { shard: ShardKey, revision: u64 },
}

/// What is read; nothing of it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Keep { ground: Ground, body: Bytes },
    Drop { shard: ShardKey, serial: Serial, before: u64 },
    Known { shard: ShardKey, revision: u64 },
    Reset { shard: ShardKey, revision: u64 },
}

/// What a log was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    /// Places where something else than a record was, or one that was changed.
    pub(crate) damaged: usize,
    /// Bytes of the last record, which was not finished.
    pub(crate) torn: u64,
}

/// Magic, kind, length of the content, digest of kind and content.
const HEADER: usize = 4 + 1 + 4 + DIGEST;
const MAGIC: [u8; 4] = *b"\x89OA1";
const DIGEST: usize = 16;
/// An answer is at most 64 KiB.
const MAX_CONTENT: usize = 66 * 1024;

const KEEP: u8 = 1;
const DROP: u8 = 2;
const KNOWN: u8 = 3;
const RESET: u8 = 4;

impl Entry {
    fn write(&self, out: &mut Vec<u8>) {
        let mut content = Vec::new();
        let (kind, shard, revision) = match self {
            Self::Keep(kept) => (KEEP, &kept.ground.shard, kept.ground.revision),
            Self::Drop { shard, before, .. } => (DROP, shard, *before),
            Self::Known { shard, revision } => (KNOWN, shard, *revision),
            Self::Reset { shard, revision } => (RESET, shard, *revision),
        };
        content.extend_from_slice(&revision.to_be_bytes());
        content.extend_from_slice(&shard.number.to_be_bytes());
        content.extend_from_slice(&u16::try_from(shard.issuer.len()).unwrap_or(u16::MAX).to_be_bytes());
        content.extend_from_slice(shard.issuer.as_bytes());
        match self {
            Self::Keep(kept) => content.extend_from_slice(&kept.body),
            Self::Drop { serial, .. } => content.extend_from_slice(serial.as_bytes()),
            Self::Known { .. } | Self::Reset { .. } => {}
        }
        out.extend_from_slice(&MAGIC);
        out.push(kind);
        out.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&digest(kind, &content));
        out.extend_from_slice(&content);
    }
}

fn digest(kind: u8, content: &[u8]) -> [u8; DIGEST] {
    let mut input = Vec::with_capacity(content.len() + 1);
    input.push(kind);
    input.extend_from_slice(content);
    let mut out = [0; DIGEST];
    out.iter_mut().zip(Sha256::of(&input).0).for_each(|(to, from)| *to = from);
    out
}

/// What is at the beginning of some bytes.
enum Head {
    Record(Record, usize),
    /// More bytes are needed to tell.
    Short,
    Garbage,
}

fn head(bytes: &[u8]) -> Head {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return if MAGIC.starts_with(bytes) { Head::Short } else { Head::Garbage };
    };
    if *magic != MAGIC {
        return Head::Garbage;
    }
    let fields = rest.split_first().and_then(|(kind, rest)| {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (digest, rest) = rest.split_first_chunk::<DIGEST>()?;
        Some((*kind, usize::try_from(u32::from_be_bytes(*length)).ok()?, digest, rest))
    });
    let Some((kind, length, expected, rest)) = fields else { return Head::Short };
    if length > MAX_CONTENT || !(KEEP..=RESET).contains(&kind) {
        return Head::Garbage;
    }
    let Some(content) = rest.get(..length) else { return Head::Short };
    if digest(kind, content) != *expected {
        return Head::Garbage;
    }
    record(kind, content).map_or(Head::Garbage, |record| Head::Record(record, HEADER + length))
}

fn record(kind: u8, content: &[u8]) -> Option<Record> {
    let (revision, rest) = content.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (issuer, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let shard = ShardKey::new(std::str::from_utf8(issuer).ok()?, u32::from_be_bytes(*number));
    let revision = u64::from_be_bytes(*revision);
    Some(match kind {
        KEEP => Record::Keep { ground: Ground { shard, revision }, body: Bytes::copy_from_slice(rest) },
        DROP => Record::Drop { shard, serial: Serial::from_bytes(rest).ok()?, before: revision },
        KNOWN => Record::Known { shard, revision },
        RESET => Record::Reset { shard, revision },
        _ => return None,
    })
}

/// The open file.
#[derive(Debug)]
pub(crate) struct AnswerLog {
    path: PathBuf,
    /// `None` after a write that failed: what was written of it is not known, and nothing may follow it.
    file: Option<File>,
    length: u64,
    is_dirty: bool,
}

impl AnswerLog {
    /// Reads the log, or begins one. Calls `each` for every record, in order, and cuts off what follows the last.
    ///
    /// # Errors
    /// As the operating system says.
    pub(crate) fn open(folder: &Path, mut each: impl FnMut(Record)) -> io::Result<(Self, Condition)> {
        let path = folder.join(FILE);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut condition = Condition::default();
        let mut window = Vec::new();
        // Of the file: where the window begins. Of the window: what was read of it.
        let (mut offset, mut at) = (0_u64, 0_usize);
        let (mut good_end, mut is_damaged, mut is_end) = (0, false, false);
        loop {
            match head(window.get(at..).unwrap_or_default()) {
                Head::Record(found, length) => {
                    at += length;
                    good_end = offset + at as u64;
                    is_damaged = false;
                    each(found);
                }
                Head::Short if !is_end => {
                    window.drain(..at);
                    offset += at as u64;
                    at = 0;
                    is_end = read_more(&mut file, &mut window)?;
                }
                Head::Short if at >= window.len() => break,
                Head::Garbage | Head::Short => {
                    // A record that was begun: torn, if nothing that is one follows.
                    if !is_damaged {
                        condition.damaged += 1;
                    }
                    is_damaged = true;
                    at += 1;
                }
            }
        }
        let length = file.metadata()?.len();
        if length > good_end {
            // What is damaged up to the end is the torn end.
            condition.damaged -= usize::from(is_damaged);
            condition.torn = length - good_end;
            file.set_len(good_end)?;
            file.sync_data()?;
        }
        Ok((Self { path, file: Some(file), length: good_end, is_dirty: false }, condition))
    }

    /// Appends. Not durable before [`sync`](Self::sync).
    ///
    /// # Errors
    /// As the operating system says; then nothing is appended until [`rewrite`](Self::rewrite) has succeeded.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| entry.write(&mut bytes));
        match file.write_all(&bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                self.is_dirty = true;
                Ok(())
            }
            Err(error) => {
                self.file = None;
                Err(error)
            }
        }
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// As the operating system says; as [`append`](Self::append).
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let outcome = file.sync_data();
        self.is_dirty = false;
        if outcome.is_err() {
            // The kernel may have thrown away what it could not write.
            self.file = None;
        }
        outcome
    }

    /// Replaces the log by these entries, durably.
    ///
    /// # Errors
    /// As the operating system says; the old file is then in force.
    pub(crate) fn rewrite(&mut self, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&fresh)?);
        let (mut length, mut bytes) = (0, Vec::new());
        for entry in entries {
            bytes.clear();
            entry.write(&mut bytes);
            length += bytes.len() as u64;
            out.write_all(&bytes)?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        (self.length, self.is_dirty) = (length, false);
        Ok(())
    }

    /// Bytes in the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether a write failed, so that the file has to be made anew.
    pub(crate) fn is_broken(&self) -> bool {
        self.file.is_none()
    }
}

/// In the spool's folder.
const FILE: &str = "answers.log";

/// Reads some more; answers whether that was all.
fn read_more(file: &mut File, window: &mut Vec<u8>) -> io::Result<bool> {
    let read = file.take(4 << 20).read_to_end(window)?;
    Ok(read == 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shard() -> ShardKey {
        ShardKey::new("an issuer", 7)
    }

    fn entries(count: u8) -> Vec<Entry> {
        let entry = |number: u8| Entry::Drop {
            shard: shard(),
            serial: Serial::from_bytes(&[1, number]).unwrap(),
            before: number.into(),
        };
        (0..count).map(entry).collect()
    }

    fn records(folder: &Path) -> (Vec<u64>, Condition, AnswerLog) {
        let mut seen = Vec::new();
        let (log, condition) = AnswerLog::open(folder, |record| match record {
            Record::Drop { before, .. } => seen.push(before),
            other => panic!("{other:?}"),
        })
        .unwrap();
        (seen, condition, log)
    }

    fn written(count: u8) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let (_, _, mut log) = records(folder.path());
        log.append(&entries(count)).unwrap();
        log.sync().unwrap();
        let bytes = fs::read(folder.path().join(FILE)).unwrap();
        assert_eq!(log.length(), bytes.len() as u64);
        (folder, bytes)
    }

    #[test]
    fn what_was_appended_is_read_in_order() {
        let (folder, _) = written(5);
        let (seen, condition, mut log) = records(folder.path());
        assert_eq!((seen, condition), (vec![0, 1, 2, 3, 4], Condition::default()));
        log.append(&entries(1)).unwrap();
        assert_eq!(records(folder.path()).0, [0, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = AnswerLog::open(folder.path(), |_| panic!("a new log is empty")).unwrap();
        log.append(&[
            Entry::Known { shard: shard(), revision: u64::MAX },
            Entry::Reset { shard: shard(), revision: 4 },
        ])
        .unwrap();
        let mut seen = Vec::new();
        AnswerLog::open(folder.path(), |record| seen.push(record)).unwrap();
        let expected = [
            Record::Known { shard: shard(), revision: u64::MAX },
            Record::Reset { shard: shard(), revision: 4 },
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_log_that_ends_anywhere_is_cut_after_its_last_record() {
        let (folder, bytes) = written(4);
        let each = bytes.len() / 4;
        for end in 0..bytes.len() {
            fs::write(folder.path().join(FILE), &bytes[..end]).unwrap();
            let (seen, condition, mut log) = records(folder.path());
            assert_eq!(seen.len(), end / each, "{end}");
            assert_eq!(condition, Condition { damaged: 0, torn: (end % each) as u64 }, "{end}");
            log.append(&entries(1)).unwrap();
            assert_eq!(records(folder.path()).0.len(), end / each + 1, "{end}");
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_record() {
        let (folder, bytes) = written(4);
        let each = bytes.len() / 4;
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            fs::write(folder.path().join(FILE), &bent).unwrap();
            let (seen, condition, _) = records(folder.path());
            let left: Vec<_> = (0..4).filter(|number| *number != (at / each) as u64).collect();
            assert_eq!(seen, left, "{at}");
            // In the last record it cannot be told from a torn end.
            let is_last = at / each == 3;
            assert_eq!((condition.damaged, condition.torn > 0), (usize::from(!is_last), is_last), "{at}");
        }
    }

    #[test]
    fn what_is_larger_than_a_window_is_read_as_well() {
        let (folder, bytes) = written(200);
        let many: Vec<u8> = bytes.repeat(800);
        assert!(many.len() > 6 << 20);
        fs::write(folder.path().join(FILE), &many).unwrap();
        let (seen, condition, _) = records(folder.path());
        assert_eq!((seen.len(), condition), (160_000, Condition::default()));
    }

    #[test]
    fn a_rewritten_log_has_what_it_was_given_and_is_appended_to() {
        let (folder, _) = written(9);
        let (_, _, mut log) = records(folder.path());
        log.rewrite(entries(2).into_iter()).unwrap();
        log.append(&entries(1)).unwrap();
        let (seen, condition, _) = records(folder.path());
        assert_eq!((seen, condition), (vec![0, 1, 0], Condition::default()));
        // A crash in the middle of it leaves the old one.
        fs::write(folder.path().join("answers.new"), b"half").unwrap();
        assert_eq!(records(folder.path()).0.len(), 3);
    }

    #[test]
    fn after_a_failed_write_nothing_is_appended_before_the_log_is_made_anew() {
        let (folder, _) = written(2);
        let (_, _, mut log) = records(folder.path());
        // A file that cannot be written to.
        log.file = Some(File::open(folder.path().join(FILE)).unwrap());
        assert!(log.append(&entries(1)).is_err());
        assert!(log.is_broken() && log.append(&entries(1)).is_err());
        log.rewrite(entries(3).into_iter()).unwrap();
        log.append(&entries(1)).unwrap();
        assert!(!log.is_broken());
        assert_eq!(records(folder.path()).0.len(), 4);
    }
}
