//! Carrying an aggregate on, whole or member by member, without decoding payloads.

use bytes::Bytes;

use super::decode::Aggregate;
use super::encode::{creation_len, origin_len, put_creation};
use super::envelope::Origin;
use super::member::Member;
use super::wire::{self, Value};
use super::{DIGEST_LEN, MAGIC, field};
use crate::creation::Creation;
use crate::digest;

/// Everything in an encoded member but its indices: its payload and its tags.
pub(super) enum Rest<'a> {
    /// Copied in one piece.
    Whole(&'a [u8]),
    /// Copied field by field; the creation context is written anew if its time is relative to another base.
    Parts { member: Member<'a>, creation: Option<&'a Creation> },
    /// The creation context is written between the payload and the tags.
    Around { data: &'a [u8], creation: &'a Creation, tags: &'a [u8] },
}

impl<'a> Rest<'a> {
    /// How a member goes into an aggregate with this base time, and that aggregate's base time then.
    pub(super) fn of(member: &Member<'a>, base_ms: u64) -> (u64, Rest<'a>) {
        let source_base = member.aggregate.base_ms();
        let creation = member.parts.creation.as_ref();
        let relative = member.parts.time_is_relative;
        let base_ms = match (base_ms, creation) {
            (0, Some(creation)) if relative => {
                if source_base == 0 {
                    creation.created_ms
                } else {
                    source_base
                }
            }
            _ => base_ms,
        };
        let rewritten = relative && base_ms != source_base;
        let rest = match member.parts.tail {
            Some(tail) if !rewritten => Rest::Whole(tail.of(&member.aggregate.blob)),
            _ => Rest::Parts { member: *member, creation: creation.filter(|_| rewritten) },
        };
        (base_ms, rest)
    }

    pub(super) fn len(&self, base_ms: u64) -> usize {
        match self {
            Rest::Whole(bytes) => bytes.len(),
            Rest::Parts { member, creation } => {
                let kept: usize = kept(member, creation.is_some()).map(<[u8]>::len).sum();
                kept + creation.map_or(0, |creation| creation_len(creation, base_ms))
            }
            Rest::Around { data, creation, tags } => {
                data.len() + creation_len(creation, base_ms) + tags.len()
            }
        }
    }

    pub(super) fn write(&self, base_ms: u64, out: &mut Vec<u8>) {
        match self {
            Rest::Whole(bytes) => out.extend_from_slice(bytes),
            Rest::Parts { member, creation } => {
                kept(member, creation.is_some()).for_each(|bytes| out.extend_from_slice(bytes));
                if let Some(creation) = creation {
                    put_creation(out, creation, base_ms);
                }
            }
            Rest::Around { data, creation, tags } => {
                out.extend_from_slice(data);
                put_creation(out, creation, base_ms);
                out.extend_from_slice(tags);
            }
        }
    }
}

/// The encoded fields of a member but its indices and, if `skip_creation`, its first creation context.
fn kept<'a>(member: &Member<'a>, skip_creation: bool) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let member = *member;
    let blob: &'a [u8] = &member.aggregate.blob;
    let (mut at, end) = (member.parts.body.start(), member.parts.body.end());
    let mut skip = skip_creation;
    std::iter::from_fn(move || {
        // Everything was checked when the member was parsed: a malformed field cannot come here.
        while at < end {
            let start = at;
            let (number, value) = wire::read_field(blob, &mut at, end)?;
            match (number, value) {
                (field::record::KEY_INDEX | field::record::HASH_KEY_INDEX, _) => {}
                (field::record::TAG, Value::Bytes(span)) if skip && Member::is_creation_tag(blob, span) => {
                    skip = false;
                }
                _ => return Some(&blob[start..at]),
            }
        }
        None
    })
}

impl Aggregate {
    /// The blob as it was read; of a compressed aggregate, the inner one.
    pub fn blob(&self) -> &Bytes {
        &self.blob
    }

    /// The length of [`Aggregate::carried_on`], `None` where that is `None`.
    pub fn carried_on_len(&self, origin: Option<&Origin>) -> Option<usize> {
        self.may_be_carried_on(origin)
            .then(|| self.blob.len() + origin.map_or(0, |origin| origin_len(origin, self.len() as u64)))
    }

    /// The blob with one origin for all of its members, or as it is without one.
    ///
    /// No member is looked at, and the MD5 goes on from where verifying it ended: the payloads are hashed
    /// once, for both. `None` if the aggregate is not ours, or if it has origins already: its members can be
    /// put into another with [`Builder::push_member`](super::Builder::push_member).
    pub fn carried_on(&self, origin: Option<&Origin>) -> Option<Bytes> {
        if !self.may_be_carried_on(origin) {
            return None;
        }
        let Some(origin) = origin else { return Some(self.blob.clone()) };
        let members = self.len() as u64;
        let end = self.blob.len() - DIGEST_LEN;
        let mut out = Vec::with_capacity(self.blob.len() + origin_len(origin, members));
        out.extend_from_slice(&self.blob[..end]);
        wire::put_bytes_key(&mut out, field::ORIGIN, origin.body_len(members));
        origin.write_body(members, &mut out);
        let text = &out[MAGIC.len()..];
        let digest = self.chain.finish(&text[digest::whole(end - MAGIC.len())..], text.len());
        out.extend_from_slice(&digest);
        Some(out.into())
    }

    fn may_be_carried_on(&self, origin: Option<&Origin>) -> bool {
        self.envelope().is_some() && (origin.is_none() || self.origins().next().is_none())
    }
}
