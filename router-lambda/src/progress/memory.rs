//! Progress in memory, for a process that outlives its batches: what is lost with it costs repeats and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytestring::ByteString;

use super::{Entry, Error, Progress};

/// [`Progress`] in memory. It holds what failed batches in hand have left, and forgets it when they are done.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<(String, ByteString), Entry>>);

#[async_trait]
impl Progress for Memory {
    async fn read(&self, shard: &str, lanes: &[ByteString]) -> Result<Vec<Entry>, Error> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(lanes.iter().filter_map(|lane| entries.get(&(shard.to_owned(), lane.clone())).cloned()).collect())
    }

    async fn write(&self, shard: &str, new: Vec<Entry>) -> Result<(), Error> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.extend(new.into_iter().map(|entry| ((shard.to_owned(), entry.lane.clone()), entry)));
        Ok(())
    }

    async fn forget(&self, shard: &str, lanes: Vec<ByteString>) -> Result<(), Error> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in lanes {
            entries.remove(&(shard.to_owned(), lane));
        }
        Ok(())
    }
}
