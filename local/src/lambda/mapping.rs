//! [`Mapping`]: an event source mapping, from a stream of the engine to a function.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Config, StartingPosition};
use super::error::ConfigError;
use super::function::Function;
use super::poller::{End, Poller, Shared};
use super::progress::{Counters, Shard, ShardProgress};
use crate::kinesis::{Engine, Error, Position, StartPosition};

/// Why a mapping did not start, or reads no more.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The stream cannot be read: it does not exist, or was deleted.
    #[error("the event source mapping cannot read stream {stream:?}: {source}")]
    Stream {
        /// The stream.
        stream: String,
        /// The engine's answer.
        source: Error,
    },
    /// The mapping was shut down.
    #[error("the event source mapping has been shut down")]
    Stopped,
    /// A task of the mapping panicked.
    #[error("the event source mapping of stream {stream:?} failed: {reason}")]
    Failed {
        /// The stream.
        stream: String,
        /// What happened.
        reason: String,
    },
}

impl MappingError {
    /// Whether starting it again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Config(_) | Self::Stopped => false,
            Self::Stream { source, .. } => source.is_retryable(),
            Self::Failed { .. } => true,
        }
    }

    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Stream { .. } => "mapping-stream-unreadable",
            Self::Stopped => "mapping-stopped",
            Self::Failed { .. } => "mapping-failed",
        }
    }
}

/// Reads a stream and hands its records to a function, as Lambda's event source mapping for Kinesis does.
#[derive(Debug)]
pub struct Mapping {
    shared: Arc<Shared>,
    stop: CancellationToken,
    shards: HashMap<String, State>,
    pollers: JoinSet<(String, Result<End, Error>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for its parents, then starts here.
    Waiting(Position),
    Running,
    Finished,
}

impl Mapping {
    /// Fixes the starting position in every shard and starts reading. Records put after this returned are seen
    /// also with [`StartingPosition::Latest`].
    ///
    /// The function stays the caller's: it is not shut down with the mapping.
    ///
    /// # Errors
    /// [`MappingError`] when the configuration is not valid or there is no such stream.
    pub fn start(engine: Arc<Engine>, function: Function, config: Config) -> Result<Handle, MappingError> {
        config.validate()?;
        let stream = config.stream.clone();
        let unreadable = |source| MappingError::Stream { stream: stream.clone(), source };
        let summary = engine.describe_stream(&stream).map_err(unreadable)?;
        let shared = Arc::new(Shared {
            mapping_id: uuid::Uuid::new_v4().to_string(),
            rules: config.rules(),
            engine,
            stream_arn: summary.arn,
            function,
            progress: Arc::default(),
            config,
        });
        let mut mapping = Self {
            shared: Arc::clone(&shared),
            stop: CancellationToken::new(),
            shards: HashMap::new(),
            pollers: JoinSet::new(),
        };
        mapping.fix_positions().map_err(unreadable)?;
        let stop = mapping.stop.clone();
        let tasks = TaskTracker::new();
        tasks.spawn(mapping.run());
        tasks.close();
        Ok(Handle { shared, running: Arc::new(Running { stop, tasks }) })
    }

    fn fix_positions(&mut self) -> Result<(), Error> {
        let Shared { engine, config, .. } = &*self.shared;
        for shard in engine.shards(&config.stream)? {
            let start = match config.starting_position {
                StartingPosition::TrimHorizon => StartPosition::TrimHorizon,
                StartingPosition::AtTimestamp(ms) => StartPosition::AtTimestamp(ms),
                StartingPosition::Latest => StartPosition::Latest,
            };
            let position = engine.reader(&config.stream, &shard.shard_id)?.position(start)?;
            let state = if config.starting_position == StartingPosition::Latest && shard.closed_ms.is_some() {
                self.shared.progress.publish(&shard.shard_id, finished(position));
                State::Finished
            } else {
                State::Waiting(position)
            };
            self.shards.insert(shard.shard_id, state);
        }
        Ok(())
    }

    async fn run(mut self) {
        let stop = self.stop.clone();
        let reason = loop {
            if let Err(source) = self.start_ready() {
                break self.unreadable(source);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break MappingError::Stopped,
                Some(ended) = self.pollers.join_next() => {
                    if let Err(reason) = self.ended(ended) {
                        break reason;
                    }
                }
            }
        };
        match &reason {
            MappingError::Stopped => {}
            error => tracing::error!(%error, "an event source mapping ends"),
        }
        // The other shards finish what is in flight; nothing new is started.
        stop.cancel();
        while let Some(ended) = self.pollers.join_next().await {
            if let Err(error) = self.ended(ended) {
                tracing::error!(%error, "a shard of an event source mapping ended badly");
            }
        }
        self.shared.progress.end(reason);
    }

    fn ended(
        &mut self,
        ended: Result<(String, Result<End, Error>), tokio::task::JoinError>,
    ) -> Result<(), MappingError> {
        match ended {
            Ok((shard_id, Ok(End::ShardEnd))) => {
                tracing::debug!(shard = shard_id, "a closed shard has been read to its end");
                self.shards.insert(shard_id, State::Finished);
                Ok(())
            }
            Ok((_, Ok(End::Stopped))) => Ok(()),
            Ok((_, Err(source))) => Err(self.unreadable(source)),
            Err(error) => Err(MappingError::Failed {
                stream: self.shared.config.stream.clone(),
                reason: error.to_string(),
            }),
        }
    }

    fn unreadable(&self, source: Error) -> MappingError {
        MappingError::Stream { stream: self.shared.config.stream.clone(), source }
    }

    /// Starts every shard whose parents are finished. Children exist before their parents' end can be read, so
    /// looking at the start and after each end finds all of them.
    fn start_ready(&mut self) -> Result<(), Error> {
        let Shared { engine, config, .. } = &*self.shared;
        let listed = engine.shards(&config.stream)?;
        for shard in &listed {
            self.shards.entry(shard.shard_id.clone()).or_insert(State::Waiting(Position::TRIM_HORIZON));
        }
        // What retention has taken is neither waited for nor remembered.
        self.shards.retain(|shard_id, state| {
            *state == State::Running || listed.iter().any(|shard| shard.shard_id == *shard_id)
        });
        for shard in &listed {
            let Some(State::Waiting(position)) = self.shards.get(&shard.shard_id).copied() else { continue };
            let parents = [&shard.parent, &shard.adjacent_parent];
            let ready = parents
                .into_iter()
                .flatten()
                .all(|parent| self.shards.get(parent).is_none_or(|state| *state == State::Finished));
            if !ready {
                continue;
            }
            let reader = engine.reader(&config.stream, &shard.shard_id)?;
            let poller = Poller::new(Arc::clone(&self.shared), reader, position, self.stop.clone());
            let shard_id = shard.shard_id.clone();
            self.shards.insert(shard_id.clone(), State::Running);
            self.pollers.spawn(async move { (shard_id, poller.run().await) });
        }
        Ok(())
    }
}

fn finished(reached: Position) -> Shard {
    Shard { reached, unfinished: None, oldest_arrival_ms: None, finished: true }
}

/// A running mapping. Clones share it; the last one dropped stops it.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Handle {
    /// The mapping's UUID, as in the keys of its on-failure objects.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.mapping_id
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.progress.counters(self.shared.engine.now_ms())
    }

    /// How far it got in every shard that it has read.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardProgress> {
        self.shared.progress.shards()
    }

    /// Waits until every record that is in the stream now is finished: processed, or given up as the configuration
    /// says. Records that are put meanwhile are not waited for.
    ///
    /// # Errors
    /// [`MappingError`] when the mapping ends before that.
    pub async fn wait_idle(&self) -> Result<(), MappingError> {
        let tips = self
            .tips()
            .map_err(|source| MappingError::Stream { stream: self.shared.config.stream.clone(), source })?;
        self.shared.progress.wait_for(tips).await
    }

    /// The end of every shard that has or had records.
    fn tips(&self) -> Result<Vec<(String, Position)>, Error> {
        let Shared { engine, config, .. } = &*self.shared;
        let mut tips = Vec::new();
        for shard in engine.shards(&config.stream)? {
            let tip = engine.reader(&config.stream, &shard.shard_id)?.position(StartPosition::Latest)?;
            if tip > Position::TRIM_HORIZON {
                tips.push((shard.shard_id, tip));
            }
        }
        Ok(tips)
    }

    /// Reads no more, lets invocations in flight finish (up to the configured grace) and returns when all is over.
    pub async fn shutdown(&self) {
        self.running.stop.cancel();
        self.running.tasks.wait().await;
    }
}
