//! Which fields of a stream's payloads are protected, and how.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;

/// The most rules of one stream.
const MAX_RULES: usize = 256;
/// The longest pointer.
const MAX_POINTER: usize = 1024;

/// The protection of a stream's payloads. They are protected before they leave the gateway or reach its
/// spool; they are never logged or traced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectConfig {
    /// The file with the keys (TOML), read at the start and at a reload. Needed if a rule names a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<PathBuf>,
    /// What becomes of a record whose payload is no JSON, while a rule concerns it. Default `refuse`; `pass` lets it
    /// through as it is.
    #[serde(default)]
    pub not_json: Otherwise,
    /// The rules, 1 to 256. Where one value lies in another, the rule of the outer one decides; where two
    /// rules name the same value, the first does.
    pub rules: Vec<RuleConfig>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// A JSON pointer (RFC 6901) of up to 1,024 bytes, such as `/customer/email`. A `*` between slashes stands for
    /// every element of an array. Empty: the whole payload, which cannot be dropped.
    pub pointer: String,
    /// What is done with the value.
    pub action: Action,
    /// The id of the key, for `hash` and `encrypt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The records that the rule concerns. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// What becomes of a record that lacks the value. Default `refuse`; `pass` lets it through.
    #[serde(default)]
    pub missing: Otherwise,
}

/// What is done with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The member is removed. An element of an array becomes `null`, so that the others keep their places.
    Drop,
    /// It is replaced by a keyed hash: equal values under one key have equal hashes.
    Hash,
    /// It is replaced by its encryption, which [`reveal`](crate::protect::reveal) undoes.
    Encrypt,
}

/// What becomes of a record to which a rule cannot be applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// It is refused.
    #[default]
    Refuse,
    /// It is taken as it is.
    Pass,
}

/// Records that have a header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The header's name.
    pub header: String,
    /// Its values. Empty: any.
    #[serde(default)]
    pub one_of: Vec<String>,
}

impl ProtectConfig {
    pub(super) fn validate(&self, stream: &str) -> Result<(), Error> {
        let bad = |rule: &str, reason: &str| {
            Err(Error::Protect {
                stream: stream.to_owned(),
                rule: rule.to_owned(),
                reason: reason.to_owned(),
            })
        };
        if !(1..=MAX_RULES).contains(&self.rules.len()) {
            return bad("", "there must be 1 to 256 rules");
        }
        for RuleConfig { pointer, action, key, when, .. } in &self.rules {
            let escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
            if pointer.len() > MAX_POINTER || !(pointer.is_empty() || pointer.starts_with('/')) || !escapes {
                return bad(
                    pointer,
                    "its pointer must be empty, or begin with '/', with '~' only in ~0 and ~1, and have at most 1,024 bytes",
                );
            }
            match (action, key, &self.keys) {
                (Action::Drop, Some(_), _) => {
                    return bad(pointer, "nothing is needed to drop a value; remove key");
                }
                (Action::Drop, None, _) if pointer.is_empty() => {
                    return bad(pointer, "a whole payload cannot be dropped; name a part of it");
                }
                (Action::Hash | Action::Encrypt, None, _) => {
                    return bad(pointer, "to hash and to encrypt take a key; add key = \"<id>\"");
                }
                (Action::Hash | Action::Encrypt, Some(_), None) => {
                    return bad(pointer, "it names a key, and there is no file of keys; add protect.keys");
                }
                _ => {}
            }
            if when.as_ref().is_some_and(|when| when.header.is_empty()) {
                return bad(pointer, "its `when` names no header");
            }
        }
        Ok(())
    }
}
