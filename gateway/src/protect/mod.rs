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
//! Consumers turn encrypted values back with [`reveal`]; the formats are those of `seal`, below.
//!
//! A hash is the text `hwhash1:<key id>:<hash>`, the hash being HMAC-SHA-256 in base64url without padding of `string`,
//! a zero byte and the text of a string with its escapes resolved, or of `json`, a zero byte and any other
//! value as it stands.
//!
//! An encryption is `hwenc1:` and, in base64url without padding, an envelope: version (1), key id behind a
//! one-byte length, the rule's pointer and the wrapped data key each behind a two-byte length (big-endian), a nonce of
//! 12 bytes, and the value as it stood under AES-256-GCM with its tag of 16 bytes. What stands before the nonce is
//! authenticated along. Data keys change every five minutes; under a local key they are wrapped with AES-256-GCM (nonce, key,
//! tag), the key id authenticated along.

mod json;
#[cfg(test)]
mod json_tests;
mod keys;
mod part;
mod reveal;
mod rule;
mod seal;
#[cfg(test)]
mod tests;

pub use self::keys::{Keys, KeysError};
pub(crate) use self::part::{Fields, load};
pub use self::reveal::{DataKeys, RevealError, envelopes, reveal};
pub use self::rule::{Protection, Refused};
pub use self::seal::{Envelope, HASH_PREFIX, KEY_BYTES, SEAL_PREFIX};
