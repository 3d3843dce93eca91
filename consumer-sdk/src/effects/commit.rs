//! One transaction: checkpoint, identities, effects.

use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{CancellationReason, TransactWriteItem};
use tokio::time::{sleep, timeout};

use super::identity::Identities;
use super::part::Effect;
use crate::backoff::Backoff;
use crate::lease::{self, Holding, LeaseStore as _, Table};
use crate::position::{Checkpoint, Position};

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All of it is written.
    Committed,
    /// These records, by their place in the part, had their effects before.
    Repeats(Vec<usize>),
    /// DynamoDB refuses what this record does.
    Refused { record: usize, reason: String },
    /// DynamoDB refuses the whole, without saying for which record.
    RefusedWhole { reason: String },
    /// The lease is another worker's, or the table cannot be written for good.
    Lost(lease::Error),
}

/// Where transactions go.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    pub(crate) client: aws_sdk_dynamodb::Client,
    pub(crate) leases: Table,
    pub(crate) identities: Identities,
    pub(crate) call_timeout: Duration,
}

/// What an action of the transaction is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Checkpoint,
    Identity(usize),
    Effect(usize),
}

impl Committer {
    /// Commits a part; tries again until it is known what became of it. Returns the holding for the next
    /// write if something was written.
    pub(super) async fn commit(
        &self,
        holding: Holding,
        part: &[Effect],
        position: &Position,
    ) -> (Outcome, Option<Holding>) {
        let checkpoint = Checkpoint::At(position.clone());
        let (actions, roles) = match self.actions(&holding, part, &checkpoint) {
            Ok(actions) => actions,
            Err(error) => return (Outcome::Lost(error), None),
        };
        // The same token: what was committed without an answer is not committed again.
        let token = crate::random::name();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            let request = self.client.transact_write_items().client_request_token(&token);
            let sent = request.set_transact_items(Some(actions.clone())).send();
            let outcome = match timeout(self.call_timeout, sent).await {
                Ok(Ok(_)) => Some(Outcome::Committed),
                Ok(Err(error)) => {
                    tracing::debug!(shard = %holding.shard, error = crate::streams::describe(&error), "a transaction failed");
                    read(&error, &roles)
                }
                Err(_) => None,
            };
            match outcome {
                Some(Outcome::Committed) => {
                    let next = Holding { counter: holding.counter + 1, ..holding };
                    return (Outcome::Committed, Some(next));
                }
                Some(Outcome::Lost(error)) => match self.is_ours(&holding, &checkpoint).await {
                    Some(true) => {
                        let next = Holding { counter: holding.counter + 1, ..holding };
                        return (Outcome::Committed, Some(next));
                    }
                    Some(false) => return (Outcome::Lost(error), None),
                    None => {}
                },
                Some(outcome) => return (outcome, None),
                None => tracing::warn!(shard = %holding.shard, "a transaction will be tried again"),
            }
            sleep(backoff.next_delay()).await;
        }
    }

    fn actions(
        &self,
        holding: &Holding,
        part: &[Effect],
        checkpoint: &Checkpoint,
    ) -> Result<(Vec<TransactWriteItem>, Vec<Role>), lease::Error> {
        let update = self.leases.checkpoint_action(holding, checkpoint)?;
        let mut actions = vec![TransactWriteItem::builder().update(update).build()];
        let mut roles = vec![Role::Checkpoint];
        for (place, effect) in part.iter().enumerate() {
            let identity = self.identities.action(&effect.delivered);
            let identity = identity.map_err(|error| lease::Error::Refused {
                operation: "TransactWriteItems",
                table: self.identities.table.clone(),
                reason: error.to_string(),
            })?;
            actions.push(TransactWriteItem::builder().put(identity).build());
            roles.push(Role::Identity(place));
            actions.extend(effect.actions.iter().cloned());
            roles.extend(effect.actions.iter().map(|_| Role::Effect(place)));
        }
        Ok((actions, roles))
    }

    /// Whether the lease bears what this transaction writes: only this worker could have written that.
    async fn is_ours(&self, holding: &Holding, checkpoint: &Checkpoint) -> Option<bool> {
        let lease = timeout(self.call_timeout, self.leases.lease(&holding.shard)).await.ok()?.ok()?;
        Some(lease.is_some_and(|lease| {
            lease.owner.as_deref() == Some(&holding.owner)
                && lease.counter == holding.counter + 1
                && lease.checkpoint == *checkpoint
        }))
    }
}

/// What a failure means; `None` if the same transaction may succeed later.
fn read(error: &SdkError<TransactWriteItemsError>, roles: &[Role]) -> Option<Outcome> {
    let reason = crate::streams::describe(error);
    let refused = |reason: String| {
        let table = "of a transaction".to_owned();
        Some(Outcome::Lost(lease::Error::Refused { operation: "TransactWriteItems", table, reason }))
    };
    let service = match error {
        SdkError::ServiceError(service) => service.err(),
        SdkError::ConstructionFailure(_) => return Some(Outcome::RefusedWhole { reason }),
        _ => return None,
    };
    if let TransactWriteItemsError::TransactionCanceledException(canceled) = service {
        return read_reasons(canceled.cancellation_reasons(), roles);
    }
    match service.code() {
        Some("ValidationException" | "ItemCollectionSizeLimitExceededException") => {
            Some(Outcome::RefusedWhole { reason })
        }
        Some(
            "AccessDeniedException"
            | "ResourceNotFoundException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException",
        ) => refused(reason),
        _ => None,
    }
}

fn read_reasons(reasons: &[CancellationReason], roles: &[Role]) -> Option<Outcome> {
    let failed = || {
        roles.iter().zip(reasons).filter_map(|(role, reason)| {
            let code = reason.code().filter(|code| *code != "None")?;
            Some((*role, code, reason.message().unwrap_or_default()))
        })
    };
    let condition = |code: &str| code == "ConditionalCheckFailed";
    // First whether the lease is still this worker's: identities may be its own, of an answer that was lost.
    if failed().any(|(role, code, _)| role == Role::Checkpoint && condition(code)) {
        return Some(Outcome::Lost(lease::Error::Conflict { shard: "of a transaction".into() }));
    }
    let repeats: Vec<usize> = failed()
        .filter_map(|(role, code, _)| match role {
            Role::Identity(place) if condition(code) => Some(place),
            _ => None,
        })
        .collect();
    if !repeats.is_empty() {
        return Some(Outcome::Repeats(repeats));
    }
    failed().find_map(|(role, code, message)| match (role, code) {
        (_, "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded") => None,
        (Role::Effect(record), _) => Some(Outcome::Refused { record, reason: format!("{code}: {message}") }),
        (_, _) => Some(Outcome::RefusedWhole { reason: format!("{code}: {message}") }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(codes: &[&str]) -> Vec<CancellationReason> {
        codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect()
    }

    const ROLES: [Role; 5] =
        [Role::Checkpoint, Role::Identity(0), Role::Effect(0), Role::Identity(1), Role::Effect(1)];
    const FAILED: &str = "ConditionalCheckFailed";

    #[test]
    fn the_lease_comes_first_then_repeats_then_effects() {
        let read = |codes: &[&str]| read_reasons(&reasons(codes), &ROLES);
        let lost = read(&[FAILED, FAILED, "None", "None", FAILED]);
        assert!(matches!(lost, Some(Outcome::Lost(_))), "{lost:?}");
        let repeats = read(&["None", "None", FAILED, FAILED, "None"]);
        assert!(matches!(&repeats, Some(Outcome::Repeats(places)) if places == &[1]), "{repeats:?}");
        let refused = read(&["None", "None", "None", "None", FAILED]);
        assert!(matches!(refused, Some(Outcome::Refused { record: 1, .. })), "{refused:?}");
        assert!(read(&["None", "TransactionConflict", "None", "None", "None"]).is_none());
    }
}
