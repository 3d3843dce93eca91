//! The KPL's aggregated record, with headers in its tags.
//!
//! A blob is `F3 89 9A C2`, a protobuf `AggregatedRecord`, and the MD5 of that protobuf:
//!
//! | field | type | content |
//! |---|---|---|
//! | 1 | repeated string | partition keys of the members |
//! | 2 | repeated string | their explicit hash keys, in decimal |
//! | 3 | repeated message | the members: key index (1), explicit hash key index (2), data (3), tags (4) |
//! | 15 | message | ours: [`Envelope`] (version, base time) |
//! | 16 | repeated message | ours: [`Origin`] (where the members came from) |
//!
//! A stream that only Headworks reads may carry [compressed](zstd) aggregates.
//!
//! Stock readers know fields 1 to 3 and skip the others, as protobuf demands.
//! Writers put together blobs with [`Builder`], of records or of what was [`Prepared`] of them, readers take them apart with [`decode`] or [`decode_all`].

mod decode;
mod encode;
mod envelope;
mod keys;
mod member;
mod members;
mod prepared;
mod sealed;
mod splice;
pub(crate) mod wire;
pub mod zstd;

pub use decode::{Aggregate, Damage, Decoded, Error, decode, decode_all};
pub use encode::Builder;
pub use envelope::{Envelope, Origin};
pub use member::Member;
pub use prepared::{Prepared, Ready};
pub use sealed::Unsealed;

/// The four bytes that begin an aggregated record.
pub const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// The length of the MD5 that ends it.
pub const DIGEST_LEN: usize = 16;
/// The envelope version of aggregates.
pub const VERSION: u64 = 1;
/// The envelope version of compressed aggregates, which is the highest that this crate reads. A reader from
/// before there were any refuses them, and does not take the frame for a payload.
pub const COMPRESSED_VERSION: u64 = 2;

/// Whether a bare record's data would be taken for an aggregate, so that it must be wrapped in one.
pub fn looks_aggregated(data: &[u8]) -> bool {
    data.starts_with(&MAGIC)
}

pub(crate) mod field {
    pub(crate) const PARTITION_KEY: u32 = 1;
    pub(crate) const HASH_KEY: u32 = 2;
    pub(crate) const RECORD: u32 = 3;
    pub(crate) const ENVELOPE: u32 = 15;
    pub(crate) const ORIGIN: u32 = 16;

    pub(crate) mod record {
        pub(crate) const KEY_INDEX: u32 = 1;
        pub(crate) const HASH_KEY_INDEX: u32 = 2;
        pub(crate) const DATA: u32 = 3;
        pub(crate) const TAG: u32 = 4;
    }

    pub(crate) mod tag {
        pub(crate) const NAME: u32 = 1;
        pub(crate) const VALUE: u32 = 2;
    }
}
