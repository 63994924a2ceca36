//! What a block device was asked to do, by the kernel's own counters. They count for the whole machine: a quiet one is wanted.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The counters of the device that a folder is on.
#[derive(Debug, Clone)]
pub struct Disk {
    stat: PathBuf,
}

/// How much so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Bytes.
    pub bytes: f64,
    /// Flushes: what `fsync` and `fdatasync` come to.
    pub flushes: f64,
}

impl Disk {
    /// The device of this folder; none if it is on no block device.
    #[must_use]
    pub fn of(folder: &Path) -> Option<Self> {
        let device = std::fs::metadata(folder).ok()?.dev();
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff_ff00));
        let base = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        // Flushes are counted for the whole device, not for a partition.
        let whole = if base.join("partition").exists() { base.parent()?.to_owned() } else { base };
        let disk = Self { stat: whole.join("stat") };
        disk.written().map(|_| disk.clone())
    }

    /// What was written so far (Documentation/block/stat: fields 7 and 16).
    #[must_use]
    pub fn written(&self) -> Option<Written> {
        let text = std::fs::read_to_string(&self.stat).ok()?;
        let fields: Vec<f64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        Some(Written { bytes: fields.get(6)? * 512.0, flushes: *fields.get(15)? })
    }
}
