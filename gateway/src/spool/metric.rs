//! Names of the spool's metrics, by stream.

/// Counter, `{record}`: records acknowledged.
pub(crate) const APPENDED: &str = "headworks.spool.appended";
/// Counter, `{record}`: records that could not be written.
pub(crate) const FAILED: &str = "headworks.spool.failed";
/// Counter, `{sync}`: writes made durable.
pub(crate) const SYNCS: &str = "headworks.spool.syncs";
/// Counter, `us`: how long those took.
pub(crate) const SYNC_TIME: &str = "headworks.spool.sync.time";
/// Gauge, `us`: the slowest of them.
pub(crate) const SLOWEST_SYNC: &str = "headworks.spool.sync.slowest";
/// Counter, `{file}`: files given up.
pub(crate) const POISONED: &str = "headworks.spool.poisoned";
/// Counter, `{put}`: refusals that only an operator can mend.
pub(crate) const REFUSED: &str = "headworks.spool.refused";
/// Counter, `{read}`: failed attempts to read back.
pub(crate) const UNREADABLE: &str = "headworks.spool.unreadable";
/// Gauge, `{record}`: records that wait.
pub(crate) const RECORDS: &str = "headworks.spool.records";
/// Gauge, `By`: size of the files.
pub(crate) const BYTES: &str = "headworks.spool.bytes";
/// Gauge, `By`: size that they may have.
pub(crate) const LIMIT: &str = "headworks.spool.limit.bytes";
/// Gauge, `ms`: age of the oldest record that waits.
pub(crate) const OLDEST: &str = "headworks.spool.oldest";
/// Gauge: 1 while somebody has to look.
pub(crate) const ALARM: &str = "headworks.spool.alarm";
