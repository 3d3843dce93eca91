//! The two faces of a consumer: a handler that is called, and a stream of records to acknowledge.

pub(crate) mod attempts;
pub(crate) mod checkpoints;
pub(crate) mod handler;
pub(crate) mod keyed;
pub(crate) mod records;
mod tracker;

pub use checkpoints::{Checkpoints, Prepared};
pub use handler::{Closing, Handler, HandlerError, Opening};
pub use records::{Pending, Records};

use crate::delivered::Batch;
use crate::error::Error;
use crate::lease::checkpointer::Progress;
use crate::position::Position;
use crate::shard::Session;

/// Why a batch was not finished.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// The session is over: the shard is to be released, or was lost.
    Session,
    /// The consumer is to stop.
    Failed(Error),
}

/// What a shard's worker does with what it read.
pub(crate) trait Delivery: Send + 'static {
    /// Told once, before anything is delivered.
    fn open(&mut self, opening: Opening) {
        let _ = opening;
    }

    /// Delivers a batch that is not empty, and sees to it that its progress is told.
    fn deliver(
        &mut self,
        batch: Batch,
        session: &Session,
        progress: &Progress,
    ) -> impl Future<Output = Result<(), Interrupt>> + Send;

    /// Completes when something that was delivered before fails for good; may be dropped and asked again.
    fn failure(&mut self) -> impl Future<Output = Error> + Send {
        std::future::pending()
    }

    /// Nothing is delivered up to here.
    fn skip(&mut self, position: Position, progress: &Progress);

    /// Waits until everything delivered is done: before the shard's end is checkpointed.
    fn settle(&mut self, session: &Session) -> impl Future<Output = Result<(), Interrupt>> + Send;

    /// Waits for what is in hand when the shard is given up, as long as the caller lets it.
    fn drain(&mut self, session: &Session) -> impl Future<Output = ()> + Send;
}
