//! The record itself.

use bytes::Bytes;
use bytestring::ByteString;

use crate::creation::Creation;
use crate::headers::{self, Headers};
use crate::key::{self, HashKey, PartitionKey};

/// One record: the one type for it everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Records of one key keep their order.
    pub key: PartitionKey,
    /// Places the record on a shard regardless of its key's hash.
    pub explicit_hash_key: Option<HashKey>,
    /// Name-value pairs and the creation context.
    pub headers: Headers,
    /// The payload, opaque to Headworks.
    pub data: Bytes,
}

impl Record {
    /// Starts a record with this partition key.
    pub fn builder(key: impl Into<ByteString>) -> Result<Builder, key::Error> {
        Ok(Builder {
            record: Record {
                key: PartitionKey::new(key)?,
                explicit_hash_key: None,
                headers: Headers::new(),
                data: Bytes::new(),
            },
        })
    }

    /// Where the record lies in the hash space: its explicit hash key, else the MD5 of its key.
    pub fn hash_key(&self) -> HashKey {
        self.explicit_hash_key.unwrap_or_else(|| self.key.hash_key())
    }

    /// The record's creation context as a W3C `traceparent`, if it has one yet.
    pub fn traceparent(&self) -> Option<String> {
        self.headers.creation().map(Creation::traceparent)
    }

    /// Key, headers and data, once each: what the user asked to be carried.
    pub fn user_bytes(&self) -> usize {
        self.key.as_str().len() + self.headers.bytes() + self.data.len()
    }
}

/// A record whose parts lie elsewhere, say in the message that brought it. They keep the rules of [`Record`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'r> {
    /// As [`Record::key`], checked with [`PartitionKey::check`].
    pub key: &'r str,
    /// As [`Record::explicit_hash_key`].
    pub explicit_hash_key: Option<HashKey>,
    /// The creation context.
    pub creation: Option<Creation>,
    /// Name-value pairs, checked with [`headers::check_next`].
    pub headers: &'r [(&'r str, &'r str)],
    /// As [`Record::data`].
    pub data: &'r [u8],
}

impl<'r> RecordRef<'r> {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&'r str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }

    /// Key, headers and data, once each: what the user asked to be carried.
    pub fn user_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + headers + self.data.len()
    }

    /// The same with parts of its own.
    pub fn to_record(&self) -> Result<Record, key::Error> {
        let mut headers = Headers::from_wire(self.headers.iter().copied());
        if let Some(creation) = self.creation {
            headers.set_creation(creation);
        }
        Ok(Record {
            key: PartitionKey::new(self.key)?,
            explicit_hash_key: self.explicit_hash_key,
            headers,
            data: Bytes::copy_from_slice(self.data),
        })
    }
}

/// Builds a [`Record`], checking each part as it is added.
#[derive(Debug, Clone)]
pub struct Builder {
    record: Record,
}

impl Builder {
    /// Sets a header; see [`Headers::set`] for the limits.
    pub fn header(
        mut self,
        name: impl Into<ByteString>,
        value: impl Into<ByteString>,
    ) -> Result<Self, headers::Error> {
        self.record.headers.set(name, value)?;
        Ok(self)
    }

    /// Places the record on a shard regardless of its key's hash.
    pub fn explicit_hash_key(mut self, hash_key: HashKey) -> Self {
        self.record.explicit_hash_key = Some(hash_key);
        self
    }

    /// Sets the creation context; see [`Headers::set_creation`].
    pub fn creation(mut self, creation: Creation) -> Self {
        self.record.headers.set_creation(creation);
        self
    }

    /// Sets the payload.
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.record.data = data.into();
        self
    }

    /// The record.
    pub fn build(self) -> Record {
        self.record
    }
}
