//! Reading with enhanced fan-out: the registration of the consumer, and one subscription after another
//! for each shard, bridged with plain reads while one is refused.

pub(crate) mod fetcher;
pub(crate) mod registration;

pub(crate) use fetcher::{Fetched, Fetcher, GET_RECORDS_LIMIT, Ownership, READ_EVERY};
