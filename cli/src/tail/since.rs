//! Where a tail begins.

use std::str::FromStr;

use aws_sdk_kinesis::types::ShardIteratorType;
use jiff::{SignedDuration, Timestamp};

use crate::exit::Failure;

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// At the oldest record that the stream has.
    TrimHorizon,
    /// Behind the newest record.
    Latest,
    /// At the first record that arrived this long ago or later.
    Ago(SignedDuration),
    /// At the first record that arrived at this time or later.
    At(Timestamp),
}

impl FromStr for Since {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text.to_ascii_uppercase().replace('-', "_").as_str() {
            "TRIM_HORIZON" => return Ok(Self::TrimHorizon),
            "LATEST" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        let ago = text.parse::<SignedDuration>().ok().filter(|ago| ago.is_positive());
        ago.map(Self::Ago).ok_or_else(|| {
            Failure::usage(
                "since-invalid",
                format_args!(
                    "{text:?} is not a place to begin; write TRIM_HORIZON, LATEST, how long ago (10m, 1h30m) or a time (2026-01-31T12:00:00Z)"
                ),
            )
        })
    }
}

/// Where the reading of one shard begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    TrimHorizon,
    Latest,
    At(Timestamp),
    After(String),
}

impl Since {
    /// The same, as a place in shards; a duration counts back from now.
    pub(crate) fn start(self, now: Timestamp) -> Result<Start, Failure> {
        Ok(match self {
            Self::TrimHorizon => Start::TrimHorizon,
            Self::Latest => Start::Latest,
            Self::At(at) => Start::At(at),
            Self::Ago(ago) => Start::At(now.checked_sub(ago).map_err(|error| {
                Failure::usage(
                    "since-invalid",
                    format_args!("{ago} ago is not a time: {error}; use TRIM_HORIZON"),
                )
            })?),
        })
    }
}

impl Start {
    pub(crate) fn kind(&self) -> ShardIteratorType {
        match self {
            Self::TrimHorizon => ShardIteratorType::TrimHorizon,
            Self::Latest => ShardIteratorType::Latest,
            Self::At(_) => ShardIteratorType::AtTimestamp,
            Self::After(_) => ShardIteratorType::AfterSequenceNumber,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        assert_eq!("TRIM_HORIZON".parse(), Ok(Since::TrimHorizon));
        assert_eq!("trim-horizon".parse(), Ok(Since::TrimHorizon));
        assert_eq!("latest".parse(), Ok(Since::Latest));
        assert_eq!("10m".parse(), Ok(Since::Ago(SignedDuration::from_mins(10))));
        let at: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!("2026-01-31T13:00:00+01:00".parse(), Ok(Since::At(at)));
        for bad in ["", "yesterday", "-10m", "10", "0s", "2026-01-31"] {
            assert_eq!(bad.parse::<Since>().unwrap_err().code(), "since-invalid", "{bad}");
        }
    }

    #[test]
    fn a_duration_counts_back() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let start = "90m".parse::<Since>().unwrap().start(now).unwrap();
        assert_eq!(start, Start::At("2026-01-31T10:30:00Z".parse().unwrap()));
    }
}
