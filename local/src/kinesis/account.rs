//! What belongs to the account and not to a stream: its commitment to a minimum throughput.

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::error::Error;
use super::sync::lock;

/// How long a commitment lasts at least (the guide's page on capacity modes, on-demand advantage).
const COMMITTED_MS: i64 = 24 * 3_600_000;

/// The account.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    pub(crate) commitment: Option<Commitment>,
}

/// A commitment to pay for a minimum throughput, which unlocks warm throughput.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Commitment {
    pub(crate) started_ms: i64,
    /// When it was asked to end.
    pub(crate) ended_ms: Option<i64>,
}

impl Commitment {
    pub(crate) fn earliest_end_ms(self) -> i64 {
        self.started_ms.saturating_add(COMMITTED_MS)
    }

    /// As on the wire.
    pub(crate) fn status(self, now_ms: i64) -> &'static str {
        match self.ended_ms {
            None => "ENABLED",
            Some(_) if now_ms < self.earliest_end_ms() => "ENABLED_UNTIL_EARLIEST_ALLOWED_END",
            Some(_) => "DISABLED",
        }
    }
}

impl Engine {
    /// The account's commitment.
    pub(crate) fn commitment(&self) -> Option<Commitment> {
        lock(self.account()).commitment
    }

    /// Begins or ends the commitment.
    pub(crate) fn commit(&self, enabled: bool) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mark = {
            let mut account = lock(self.account());
            let running = account.commitment.filter(|held| held.status(now_ms) != "DISABLED");
            account.commitment = match (enabled, running) {
                (true, Some(held)) => Some(Commitment { ended_ms: None, ..held }),
                (true, None) => Some(Commitment { started_ms: now_ms, ended_ms: None }),
                (false, Some(held)) => Some(Commitment { ended_ms: Some(now_ms), ..held }),
                (false, None) => account.commitment,
            };
            self.note_account(&account)
        };
        self.flush(mark)
    }

    /// Refuses without a commitment (API_UpdateStreamWarmThroughput; the words are not documented).
    pub(crate) fn require_commitment(&self) -> Result<(), Error> {
        let now_ms = self.now_ms();
        match self.commitment() {
            Some(held) if held.status(now_ms) != "DISABLED" => Ok(()),
            // API_UpdateStreamWarmThroughput: only with the commitment; InvalidArgumentException. Words: ours.
            _ => Err(Error::InvalidArgument(format!(
                "WarmThroughputMiBps is only supported for accounts that have MinimumThroughputBillingCommitment \
                 enabled: account {} has not; call UpdateAccountSettings first.",
                self.settings().account_id
            ))),
        }
    }
}
