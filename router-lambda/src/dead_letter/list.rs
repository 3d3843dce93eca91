//! Finding dead letters in a bucket.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata};
use futures_util::StreamExt as _;

use super::{Bucket, Error, Letter, PREFIX};

/// How many objects are read side by side.
const READS_AT_ONCE: usize = 8;
/// The most keys of one answer (S3 API, ListObjectsV2).
const KEYS_AT_ONCE: i32 = 1000;

/// Which dead letters; everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The inbound stream on which they were found.
    pub stream: Option<String>,
    /// The inbound shard; without a stream it counts for nothing.
    pub shard: Option<String>,
    /// The code of one of their reasons.
    pub reason: Option<String>,
    /// A destination that did not get them.
    pub destination: Option<String>,
    /// Written at this time or later.
    pub since: Option<SystemTime>,
    /// Written before this time.
    pub until: Option<SystemTime>,
}

impl Filter {
    /// What all their keys begin with.
    fn prefix(&self) -> String {
        match (&self.stream, &self.shard) {
            (Some(stream), Some(shard)) => format!("{PREFIX}{stream}/{shard}/"),
            (Some(stream), None) => format!("{PREFIX}{stream}/"),
            (None, _) => PREFIX.to_owned(),
        }
    }

    fn written(&self, at: SystemTime) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    fn holds(&self, letter: &Letter) -> bool {
        let any = |wanted: &Option<String>, has: &dyn Fn(&super::Reason, &str) -> bool| {
            wanted.as_deref().is_none_or(|wanted| letter.reasons.iter().any(|reason| has(reason, wanted)))
        };
        any(&self.reason, &|reason, code| reason.code == code)
            && any(&self.destination, &|reason, name| reason.destination.as_deref() == Some(name))
    }
}

/// A dead letter in its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The object's key.
    pub key: String,
    /// When it was written.
    pub written: SystemTime,
    /// The object's size in bytes.
    pub bytes: u64,
    /// The letter; an error if the object is none. Such an object passes every filter, so that it is seen.
    pub letter: Result<Letter, String>,
}

/// Some of the dead letters, in the order of their keys: by stream, shard and sequence number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The letters.
    pub letters: Vec<Stored>,
    /// Where the next page begins; `None` after the last one. It stays valid whatever is written or redriven.
    pub next: Option<String>,
}

/// The next page of at most `limit` letters after this key.
///
/// Filters by reason and destination read each object, those by stream, shard and time do not.
pub async fn list(
    bucket: &Bucket,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, Error> {
    let mut page = Page::default();
    let mut after = after.map(str::to_owned);
    loop {
        let request = bucket
            .client
            .list_objects_v2()
            .bucket(&bucket.name)
            .prefix(filter.prefix())
            .set_start_after(after.clone())
            .max_keys(KEYS_AT_ONCE);
        let answer = request.send().await.map_err(|error| bucket.unreadable(filter.prefix(), &error))?;
        let objects: Vec<(String, SystemTime, u64)> = answer
            .contents()
            .iter()
            .filter_map(|object| {
                let key = object.key()?.to_owned();
                let written = object.last_modified().map_or(SystemTime::UNIX_EPOCH, system_time);
                Some((key, written, object.size().unwrap_or(0).max(0) as u64))
            })
            .collect();
        let last = objects.last().map(|(key, _, _)| key.clone());
        let chosen: Vec<_> = objects.into_iter().filter(|(_, written, _)| filter.written(*written)).collect();
        // In order, though read side by side.
        let reads = chosen.into_iter().map(|(key, written, bytes)| async move {
            let letter = match show(bucket, &key).await {
                Ok(letter) => Some(Ok(letter)),
                // Redriven meanwhile.
                Err(Error::Missing { .. }) => None,
                Err(Error::Unreadable { reason, .. }) => return Err((key, reason)),
                Err(error) => Some(Err(error.to_string())),
            };
            Ok(letter.map(|letter| Stored { key, written, bytes, letter }))
        });
        let mut reads = futures_util::stream::iter(reads).buffered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let stored = match read {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                Err((key, reason)) => {
                    return Err(Error::Unreadable { bucket: bucket.name.clone(), key, reason });
                }
            };
            if stored.letter.as_ref().is_ok_and(|letter| !filter.holds(letter)) {
                continue;
            }
            if page.letters.len() == limit {
                page.next = page.letters.last().map(|stored| stored.key.clone());
                return Ok(page);
            }
            page.letters.push(stored);
        }
        if !answer.is_truncated().unwrap_or(false) || last.is_none() {
            return Ok(page);
        }
        after = last;
    }
}

/// One dead letter.
pub async fn show(bucket: &Bucket, key: &str) -> Result<Letter, Error> {
    let missing = || Error::Missing { bucket: bucket.name.clone(), key: key.to_owned() };
    let object = match bucket.client.get_object().bucket(&bucket.name).key(key).send().await {
        Ok(object) => object,
        Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => return Err(missing()),
        Err(error) => return Err(bucket.unreadable(key, &error)),
    };
    let body = object.body.collect().await.map_err(|error| Error::Unreadable {
        bucket: bucket.name.clone(),
        key: key.to_owned(),
        reason: error.to_string(),
    })?;
    serde_json::from_slice(&body.into_bytes())
        .map_err(|error| Error::NotALetter { key: key.to_owned(), reason: error.to_string() })
}

impl Bucket {
    pub(super) fn unreadable<E>(&self, key: impl Into<String>, error: &E) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error,
    {
        let reason = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => DisplayErrorContext(error).to_string(),
        };
        Error::Unreadable { bucket: self.name.clone(), key: key.into(), reason }
    }
}

fn system_time(time: &aws_sdk_s3::primitives::DateTime) -> SystemTime {
    let ms = u64::try_from(time.to_millis().unwrap_or(0)).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}
