//! What was lost because the stream had dropped it before it was read.

use headworks_record::ShardId;

use crate::position::SequenceNumber;

/// Records that can no longer be read. Told in the log and counted, never passed over in silence.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataLoss {
    #[error(
        "the shard {shard} expired before it was read to its end; its checkpoint was {checkpoint}: let the application run more often than the stream's retention, or lengthen the retention"
    )]
    ShardExpired { shard: ShardId, checkpoint: String },
    #[error(
        "the trim horizon of {shard} has passed the checkpoint {checkpoint}: records between it and {} that were not read may have expired; let the application run more often than the stream's retention, or lengthen the retention",
        first.as_ref().map_or("the newest one", SequenceNumber::as_str)
    )]
    CheckpointTrimmed { shard: ShardId, checkpoint: SequenceNumber, first: Option<SequenceNumber> },
}

impl DataLoss {
    /// The stable code of this event, as in `docs/errors/`.
    fn code(&self) -> &'static str {
        match self {
            DataLoss::ShardExpired { .. } => "shard-expired",
            DataLoss::CheckpointTrimmed { .. } => "checkpoint-trimmed",
        }
    }

    pub(super) fn tell(&self) {
        tracing::error!(code = self.code(), "DATA LOSS: {self}");
    }
}
