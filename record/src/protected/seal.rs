//! What stands in place of a protected value.
//!
//! A hash is the text `hwhash1:<key id>:<hash>`; the hash is HMAC-SHA-256 in base64url without padding. What is
//! hashed is `string`, a zero byte and the text of a string, escapes resolved; or `json`, a zero byte and
//! the value as it stands. So a text has one hash however it is escaped, while `1` and `1.0` have two.
//!
//! An encryption is the text `hwenc1:<envelope>`, the envelope in base64url without padding:
//!
//! ```text
//! version u8 (1) | length u8, key id | length u16, pointer | length u16, wrapped data key | nonce 12 | ciphertext, tag 16
//! ```
//!
//! Numbers are big-endian. The value as it stands in the payload is encrypted with AES-256-GCM under the data
//! key; everything before the nonce is authenticated along with it. A data key under a local key is wrapped as
//! nonce 12, ciphertext 32, tag 16, AES-256-GCM again, with the key id authenticated.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a hash begins with.
pub const HASH_PREFIX: &str = "hwhash1:";
/// What an encryption begins with.
pub const SEAL_PREFIX: &str = "hwenc1:";
/// The length of a data key, and of the keys that wrap them.
pub const KEY_BYTES: usize = 32;

const VERSION: u8 = 1;

/// The cryptography itself failed: a defect, or no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

fn key_of(bytes: &[u8]) -> Result<LessSafeKey, Failed> {
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map_err(|_| Failed)
}

/// Nonce, ciphertext and tag.
fn encrypt(key: &LessSafeKey, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| Failed)?;
    let mut text = plain.to_vec();
    let unique = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(unique, Aad::from(aad), &mut text).map_err(|_| Failed)?;
    Ok([&nonce[..], &text].concat())
}

fn decrypt(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = text.to_vec();
    let len = key.open_in_place(nonce, Aad::from(aad), &mut text).ok()?.len();
    text.truncate(len);
    Some(text)
}

/// Wraps data keys under a key of ours.
#[derive(Debug)]
pub(super) struct Wrapping(LessSafeKey);

impl Wrapping {
    pub(super) fn new(secret: &[u8; KEY_BYTES]) -> Result<Self, Failed> {
        key_of(secret).map(Self)
    }

    /// A new data key.
    pub(super) fn generate(&self, key_id: &str) -> Result<DataKey, Failed> {
        let mut secret = [0; KEY_BYTES];
        rand::fill(&mut secret).map_err(|_| Failed)?;
        let wrapped = encrypt(&self.0, key_id.as_bytes(), &secret)?;
        DataKey::new(&secret, wrapped)
    }

    pub(super) fn unwrap(&self, key_id: &str, wrapped: &[u8]) -> Option<[u8; KEY_BYTES]> {
        decrypt(&self.0, key_id.as_bytes(), wrapped)?.try_into().ok()
    }
}

/// A data key with its wrapping.
#[derive(Debug)]
pub(super) struct DataKey {
    key: LessSafeKey,
    wrapped: Vec<u8>,
}

impl DataKey {
    pub(super) fn new(secret: &[u8; KEY_BYTES], wrapped: Vec<u8>) -> Result<Self, Failed> {
        Ok(Self { key: key_of(secret)?, wrapped })
    }

    /// The text in place of a value.
    pub(super) fn seal(&self, key_id: &str, pointer: &str, value: &[u8]) -> Result<String, Failed> {
        let mut head = vec![VERSION];
        head.push(u8::try_from(key_id.len()).map_err(|_| Failed)?);
        head.extend_from_slice(key_id.as_bytes());
        for part in [pointer.as_bytes(), &self.wrapped] {
            head.extend_from_slice(&u16::try_from(part.len()).map_err(|_| Failed)?.to_be_bytes());
            head.extend_from_slice(part);
        }
        let sealed = encrypt(&self.key, &head, value)?;
        head.extend_from_slice(&sealed);
        Ok(format!("{SEAL_PREFIX}{}", URL_SAFE_NO_PAD.encode(head)))
    }
}

/// The text in place of a value.
pub(super) fn hash(key: &hmac::Key, key_id: &str, value: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    match super::json::unquote(value) {
        Some(text) => {
            context.update(b"string\0");
            context.update(text.as_bytes());
        }
        None => {
            context.update(b"json\0");
            context.update(value);
        }
    }
    format!("{HASH_PREFIX}{key_id}:{}", URL_SAFE_NO_PAD.encode(context.sign()))
}

/// An encryption, taken apart. Nothing of it is authenticated until it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    key_id: String,
    pointer: String,
    wrapped: Vec<u8>,
    head: Vec<u8>,
    sealed: Vec<u8>,
}

impl Envelope {
    /// Reads the text that stands in place of a value; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
            let (taken, left) = rest.split_at_checked(len)?;
            *rest = left;
            Some(taken)
        }
        fn long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
            let len = take(rest, 2)?;
            take(rest, usize::from(u16::from_be_bytes([len[0], len[1]])))
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(SEAL_PREFIX)?).ok()?;
        let mut rest = &bytes[..];
        if take(&mut rest, 1)? != [VERSION] {
            return None;
        }
        let len = take(&mut rest, 1)?[0];
        let key_id = String::from_utf8(take(&mut rest, len.into())?.to_vec()).ok()?;
        let pointer = String::from_utf8(long(&mut rest)?.to_vec()).ok()?;
        let wrapped = long(&mut rest)?.to_vec();
        let sealed = rest.to_vec();
        let head = bytes[..bytes.len() - sealed.len()].to_vec();
        Some(Self { key_id, pointer, wrapped, head, sealed })
    }

    /// The id of the key that its data key is wrapped under.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The pointer of the rule that encrypted it.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The wrapped data key: for KMS, the ciphertext blob.
    pub fn wrapped_key(&self) -> &[u8] {
        &self.wrapped
    }

    /// The value as it stood in the payload; `None` if the key is another, or something was changed.
    pub fn open(&self, data_key: &[u8; KEY_BYTES]) -> Option<Vec<u8>> {
        decrypt(&key_of(data_key).ok()?, &self.head, &self.sealed)
    }
}
