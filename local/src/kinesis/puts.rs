//! Putting records: limits, the shard of each, faults, the log, and who is woken.

use std::sync::Arc;

use super::engine::Engine;
use super::error::Error;
use super::record::{Put, PutEntry};
use super::shard::{RECORD_COST, Refusal};
use super::store::PutLog;
use super::stream::{Stream, StreamMode};
use super::target;

impl Engine {
    /// Puts one record.
    ///
    /// # Errors
    /// `ResourceNotFound`, `Validation` for a record too large, `ThroughputExceeded` when the shard throttles.
    pub fn put(&self, stream: &str, entry: PutEntry) -> Result<Put, Error> {
        let mut answers = self.put_all("PutRecord", stream, vec![entry])?;
        answers.pop().unwrap_or_else(|| Err(Error::Internal("a put was not answered".to_owned())))
    }

    /// Puts records in order; each is answered for itself. Readers of a shard are woken once.
    ///
    /// # Errors
    /// `ResourceNotFound` or `Validation` for the call; `ThroughputExceeded` for single records.
    pub fn put_batch(&self, stream: &str, entries: Vec<PutEntry>) -> Result<Vec<Result<Put, Error>>, Error> {
        self.put_all("PutRecords", stream, entries)
    }

    /// The stream to put to, if the call as a whole is to be taken.
    pub(crate) fn admit(&self, stream: &str, entries: &[PutEntry]) -> Result<Arc<Stream>, Error> {
        let stream = self.usable(stream)?;
        let max = stream.control().max_record_kib as usize * 1_024;
        // API_PutRecord: a record over the stream's maximum; the kind as for every size. Words: ours.
        if self.settings().request_limits.is_some()
            && let Some((at, entry)) = entries.iter().enumerate().find(|(_, entry)| entry.size() > max)
        {
            return Err(Error::Validation(format!(
                "Record {} of the request is {} bytes with its partition key: the maximum of stream {} is {max} \
                 bytes; send less, or create the stream with a larger MaxRecordSizeInKiB.",
                at + 1,
                entry.size(),
                stream.name()
            )));
        }
        Ok(stream)
    }

    fn put_all(
        &self,
        operation: &str,
        stream: &str,
        entries: Vec<PutEntry>,
    ) -> Result<Vec<Result<Put, Error>>, Error> {
        let stream = self.admit(stream, &entries)?;
        let mode = stream.control().mode;
        let faults = self.faults().of_entries(operation, stream.name());
        let now_ms = self.now_ms();
        let horizon_ms = stream.horizon(now_ms);
        let cost = |entry: &PutEntry| entry.size() as u64 + RECORD_COST;
        let bound = self.settings().max_held_bytes.map(|max| (max, entries.iter().map(cost).sum()));
        let log = self.store().map(|store| PutLog::begin(store, &stream)).transpose()?;
        // Held until what was stored is kept and shown, so that no shard closes under a put.
        let map = stream.map();
        // By place, the index behind the last record that was stored; 0 where there is none.
        let mut touched = vec![0; map.open().len()];
        let answers = entries
            .into_iter()
            .map(|entry| {
                let at = map.place_of(entry.hash());
                let shard = map
                    .open()
                    .get(at)
                    .ok_or_else(|| Error::Internal("a stream without shards".to_owned()))?;
                if !faults.is_empty() {
                    let id = shard.id();
                    let refused = faults.iter().find_map(|rule| rule.entry(&id, &entry.partition_key));
                    if let Some(injected) = refused {
                        return Err(target::entry_error(injected, &id, &stream));
                    }
                }
                match shard.put(entry, now_ms, horizon_ms, log.as_ref()) {
                    Ok(sequence) => {
                        touched[at] = sequence.index() + 1;
                        Ok(Put { shard_index: shard.identity().index, sequence })
                    }
                    Err(Refusal::Throttled) => Err(rate_exceeded(&shard.id(), &stream)),
                    Err(Refusal::Closed) => {
                        Err(Error::Internal(format!("{} is closed but mapped", shard.id())))
                    }
                }
            })
            .collect();
        if let Some(log) = &log {
            log.flush()?;
        }
        for (shard, end) in map.open().iter().zip(touched).filter(|(_, end)| *end > 0) {
            if log.is_some() {
                shard.show(end);
            }
            shard.wake();
        }
        drop(map);
        if let Some((max, put)) = bound {
            self.memory().put(self, put, max);
        }
        if mode == StreamMode::OnDemand {
            self.scale(&stream, now_ms)?;
        }
        Ok(answers)
    }
}

/// A shard takes or gives no more for now. API_PutRecords: ProvisionedThroughputExceededException. Seen: the example
/// answer on the same page, and reports of users.
pub(crate) fn rate_exceeded(shard_id: &str, stream: &Stream) -> Error {
    Error::ThroughputExceeded(format!(
        "Rate exceeded for shard {shard_id} in stream {} under account {}.",
        stream.name(),
        stream.account_id()
    ))
}
