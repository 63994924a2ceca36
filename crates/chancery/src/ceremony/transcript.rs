//! The ceremony's transcript: one JSON object a line, each flushed to disk before the next step begins. To-be-signed bytes
//! stand in it before a key touches them (for an offline root it is the journal), and a repeated ceremony reads from it
//! what is done already.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Entry {
    /// A run of the program began.
    Began {
        at: String,
        title: String,
        plan_sha256: String,
        program: String,
        /// Whether the certificates of CAs are marked as a test CA's; not there if they are not.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        test_ca: bool,
    },
    /// A key was generated in a token, or was there and is what the plan says.
    Key {
        at: String,
        token: String,
        id: String,
        label: String,
        algorithm: String,
        spki_sha256: String,
        spki: String,
        attributes: BTreeMap<String, String>,
    },
    /// These bytes are about to be signed.
    Intent { at: String, object: String, signer: String, tbs_sha256: String, tbs: String },
    /// They were; the object is complete.
    Signed { at: String, object: String, sha256: String, der: String },
    /// A run ended well.
    Ended { at: String, signed: usize, kept: usize },
}

/// The open transcript.
pub(crate) struct Transcript {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
}

impl Transcript {
    /// Opens or begins the transcript of an output folder. A last line that a crash cut off is dropped.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written, or a line in it is not understood.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        // Two ceremonies on one folder would each think that the other's objects are missing.
        file.try_lock().map_err(|error| {
            anyhow::anyhow!("{} is in use; another ceremony may be running: {error}", path.display())
        })?;
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut entries = Vec::new();
        for (number, line) in text.get(..whole).unwrap_or_default().lines().enumerate() {
            let entry = serde_json::from_str(line)
                .with_context(|| format!("{}:{} is no line of a transcript", path.display(), number + 1))?;
            entries.push(entry);
        }
        file.set_len(whole as u64).and_then(|()| file.sync_all())?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { path: path.to_path_buf(), file, entries })
    }

    /// Appends a line and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written: then nothing may be signed.
    pub(crate) fn append(&mut self, entry: Entry) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(&entry)?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .with_context(|| format!("cannot write {}: nothing is signed without it", self.path.display()))?;
        self.entries.push(entry);
        Ok(())
    }

    /// The to-be-signed bytes that stand in the transcript for an object: the last that were meant.
    pub(crate) fn intent(&self, wanted: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.entries.iter().rev().find_map(|entry| match entry {
            Entry::Intent { object, tbs, .. } if object == wanted => Some(tbs),
            _ => None,
        });
        found
            .map(|tbs| hex::decode(tbs).context("an intent in the transcript is not hexadecimal"))
            .transpose()
    }

    /// The complete object, when it was signed.
    pub(crate) fn signed(&self, wanted: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.entries.iter().rev().find_map(|entry| match entry {
            Entry::Signed { object, der, .. } if object == wanted => Some(der),
            _ => None,
        });
        found
            .map(|der| hex::decode(der).context("an object in the transcript is not hexadecimal"))
            .transpose()
    }

    /// The public key (SubjectPublicKeyInfo) that a key had when it was made.
    pub(crate) fn key(&self, wanted_token: &str, wanted_id: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self.entries.iter().rev().find_map(|entry| match entry {
            Entry::Key { token, id, spki, .. } if token == wanted_token && id == wanted_id => Some(spki),
            _ => None,
        });
        found.map(|spki| hex::decode(spki).context("a key in the transcript is not hexadecimal")).transpose()
    }

    /// Whether the last run that began also ended well.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.entries.last(), Some(Entry::Ended { .. }))
    }

    /// Refuses a plan that differs from the one that this folder was begun with.
    ///
    /// # Errors
    ///
    /// When the transcript was begun with another file.
    pub(crate) fn check_plan(&self, sha256: &str) -> anyhow::Result<bool> {
        let first = self.entries.iter().find_map(|entry| match entry {
            Entry::Began { plan_sha256, .. } => Some(plan_sha256),
            _ => None,
        });
        let Some(first) = first else { return Ok(false) };
        ensure!(
            first == sha256,
            "{} was begun with another ceremony file (SHA-256 {first}, this one is {sha256}). The file is the reviewed \
             record: give a changed one an output folder of its own",
            self.path.display()
        );
        Ok(true)
    }
}

/// A time as the transcript writes it.
pub(crate) fn stamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(object: &str, tbs: &str) -> Entry {
        Entry::Intent {
            at: String::new(),
            object: object.into(),
            signer: String::new(),
            tbs_sha256: String::new(),
            tbs: tbs.into(),
        }
    }

    #[test]
    fn a_line_cut_off_by_a_crash_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transcript.jsonl");
        let mut transcript = Transcript::open(&path).unwrap();
        transcript.append(intent("a", "01")).unwrap();
        drop(transcript);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":\"intent\",\"obj").unwrap();
        drop(file);

        let mut transcript = Transcript::open(&path).unwrap();
        assert_eq!(transcript.intent("a").unwrap(), Some(vec![1]));
        transcript.append(intent("b", "02")).unwrap();
        assert!(Transcript::open(&path).is_err(), "one ceremony at a time");
        drop(transcript);
        let again = Transcript::open(&path).unwrap();
        assert_eq!(again.intent("b").unwrap(), Some(vec![2]));
    }

    #[test]
    fn a_line_that_is_no_entry_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transcript.jsonl");
        std::fs::write(&path, "{\"step\":\"dance\"}\n").unwrap();
        let error = Transcript::open(&path).err().unwrap();
        assert!(format!("{error:#}").contains("transcript.jsonl:1"), "{error:#}");
    }
}
