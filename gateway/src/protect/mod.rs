//! Field protection: values of JSON payloads that are dropped, hashed or encrypted on their way in.
//!
//! A stream's rules name values by JSON pointers. They are applied when a record is taken: what goes to the stream
//! or the spool is protected already, and nothing else is kept, logged or traced. Everything that no
//! rule names stays byte for byte: the texts of numbers, the order of names, white space.
//!
//! ```toml
//! [streams.protect]
//! keys = "/etc/headworks/field-keys.toml"
//!
//! [[streams.protect.rules]]
//! pointer = "/customer/email"
//! action = "hash"
//! key = "email-2026"
//!
//! [[streams.protect.rules]]
//! pointer = "/items/*/note"
//! action = "encrypt"
//! key = "pii-2026"
//! when = { header = "type", one_of = ["order.placed"] }
//! missing = "pass"
//! ```
//!
//! A payload that is no JSON, or lacks a value that a rule names, is refused unless the rules say otherwise. A name
//! that stands twice in an object is protected twice, and escapes hide nothing (`"e\u006dail"` is `email`),
//! because parsers differ in which they believe. Rules and keys are read again at a reload. Keys and headers of records are not protected: they are for
//! routing, and belong to the sender.
//!
//! Consumers turn encrypted values back with [`reveal`], which needs no gateway: the formats, the keys and `reveal`
//! itself are those of [`headworks_record::protected`].
//!
//! With the feature `kms`, keys may be AWS KMS's: the gateway asks it for a data key at the start, and for another
//! every five minutes. While KMS cannot be reached, the last one is used for up to an hour; after that, records with such
//! values are refused until KMS is back.

#[cfg(feature = "kms")]
pub mod kms;
mod part;
mod rule;
#[cfg(feature = "kms")]
mod service;
#[cfg(test)]
mod tests;

pub use headworks_record::protected::{
    DataKeys, Envelope, HASH_PREFIX, KEY_BYTES, Keys, KeysError, RevealError, SEAL_PREFIX, SealError,
    envelopes, reveal,
};

pub(crate) use self::part::{Fields, load, reload};
pub use self::rule::{Protection, Refused};
#[cfg(feature = "kms")]
pub(crate) use self::service::KeyService;
