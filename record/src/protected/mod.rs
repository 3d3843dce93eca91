//! Protected values in JSON payloads: how they are hashed and encrypted, and turned back with [`reveal`].
//!
//! Gateways put them in place of what their rules name; consumers that have the keys turn encrypted ones back. The
//! rest of a payload stays byte for byte. Behind the feature `protected`, which brings what the rest of this crate
//! does without: cryptography with its randomness, a clock for data keys, and [`Keys::load`], which reads a file.
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
//!
//! Under a key of AWS KMS, the wrapped data key is the ciphertext blob of `GenerateDataKey`, and the encryption context
//! is [`KMS_CONTEXT`] with the key's id. Whoever reveals asks KMS to decrypt each distinct one first:
//!
//! ```
//! use std::collections::HashMap;
//!
//! use headworks_record::protected::{self, KEY_BYTES};
//!
//! # fn decrypt(context: (&str, &str), blob: &[u8]) -> [u8; KEY_BYTES] { [0; KEY_BYTES] }
//! # let payload = br#"{"total": 12.50}"#;
//! let mut keys: HashMap<(String, Vec<u8>), [u8; KEY_BYTES]> = HashMap::new();
//! for envelope in protected::envelopes(payload)? {
//!     let (id, blob) = (envelope.key_id(), envelope.wrapped_key());
//!     keys.entry((id.to_owned(), blob.to_vec()))
//!         .or_insert_with(|| decrypt((protected::KMS_CONTEXT, id), blob));
//! }
//! let revealed = protected::reveal(payload, &keys)?;
//! # assert_eq!(revealed, payload);
//! # Ok::<(), protected::RevealError>(())
//! ```

pub mod json;
#[cfg(test)]
mod json_tests;
mod keys;
#[cfg(test)]
mod keys_tests;
mod reveal;
mod seal;

pub use self::keys::{Key, Keys, KeysError, SealError, ServiceKey, Use};
pub use self::reveal::{DataKeys, RevealError, envelopes, reveal};
pub use self::seal::{Envelope, HASH_PREFIX, KEY_BYTES, SEAL_PREFIX};

/// The name of the encryption context under which KMS wraps data keys; its value is the key's id.
pub const KMS_CONTEXT: &str = "headworks:key";
