//! The audit log's settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where authentication failures and changes of the configuration are written, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// The file. It is opened to append, and opened again on a reload, so that it can be moved away before.
    pub file: PathBuf,
    /// One line per source of failures, and kind of failure, in this time; the next one tells how many there were.
    /// Default 10 s; 1 to 3,600.
    #[serde(default = "interval_s")]
    pub interval_s: u64,
}

fn interval_s() -> u64 {
    10
}
