//! How a stream's records are acknowledged, and the spool's settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Error, check};

/// When a record is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// When the stream has it.
    #[default]
    Stream,
    /// When it is in the spool, synced to the disk.
    Spool,
}

/// The spool of one stream. It survives a crash of the process and of the system, not the loss of its disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// The directory; each stream has one of its own in it, `<stream>.spool`. No default: it belongs on a
    /// disk that outlives the process, and no other gateway may use it.
    pub directory: PathBuf,
    /// The most bytes on disk. When they are used, new records are refused until the stream has taken
    /// older ones. Default 1,073,741,824; four times `segment_bytes` to 1,099,511,627,776.
    pub max_bytes: u64,
    /// A file that is at least this long is followed by a new one; it is removed when the stream has
    /// all of its records. Default 67,108,864; 1,048,576 to 1,073,741,824.
    pub segment_bytes: u64,
    /// The most bytes that share one fsync; a batch that is larger goes alone. Default 4,194,304; 65,536
    /// to 33,554,432.
    pub commit_bytes: usize,
    /// How long an fsync waits for more records to share it. Default 0 ms: what comes while one is
    /// running shares the next; 0 to 1,000.
    pub commit_linger_ms: u64,
    /// The most bytes of records that wait for their fsync; more are not read, or refused.
    /// Default 33,554,432; 20,971,520 (the largest batch) to 1,073,741,824. A record counts 256 bytes beside
    /// its key, headers and data.
    pub pending_bytes: usize,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            max_bytes: 1 << 30,
            segment_bytes: 64 << 20,
            commit_bytes: 4 << 20,
            commit_linger_ms: 0,
            pending_bytes: 32 << 20,
        }
    }
}

impl SpoolConfig {
    pub(super) fn validate(&self, stream: &str) -> Result<(), Error> {
        if self.directory.as_os_str().is_empty() {
            return Err(Error::SpoolDirectory { stream: stream.to_owned() });
        }
        check("spool.segment_bytes", self.segment_bytes, 1 << 20, 1 << 30)?;
        check("spool.max_bytes", self.max_bytes, 4 * self.segment_bytes, 1 << 40)?;
        check("spool.commit_bytes", self.commit_bytes as u64, 64 << 10, 32 << 20)?;
        check("spool.commit_linger_ms", self.commit_linger_ms, 0, 1_000)?;
        check("spool.pending_bytes", self.pending_bytes as u64, 20 << 20, 1 << 30)
    }

    /// Where a stream's files are.
    pub(crate) fn directory_of(&self, stream: &str) -> PathBuf {
        // The ending keeps names such as `..` from meaning another directory.
        self.directory.join(format!("{stream}.spool"))
    }
}
