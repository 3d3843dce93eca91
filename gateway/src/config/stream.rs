//! One inbound stream.

use serde::{Deserialize, Serialize};

use super::{Ack, Error, ProtectConfig, SpoolConfig};

/// One inbound stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// The stream's name: 1 to 128 of a-z, A-Z, 0-9, `_`, `.` and `-`.
    pub name: String,
    /// When a record is acknowledged: `stream`, which is the default, or `spool`.
    #[serde(default)]
    pub ack: Ack,
    /// How records are grouped, sent and retried.
    #[serde(default)]
    pub writer: headworks_writer::Config,
    /// The spool; needed with `ack = "spool"`, and refused without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolConfig>,
    /// Which fields of payloads are dropped, hashed or encrypted. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<ProtectConfig>,
}

impl StreamConfig {
    /// The defaults, for the stream of this name.
    pub fn named(name: impl Into<String>) -> Self {
        let writer = headworks_writer::Config::default();
        Self { name: name.into(), ack: Ack::Stream, writer, spool: None, protect: None }
    }

    /// Whether the streams differ in nothing but what a reload can change.
    pub(crate) fn differ_in_parts(before: &[Self], after: &[Self]) -> bool {
        let fixed = |streams: &[Self]| streams.iter().map(Self::without_parts).collect::<Vec<_>>();
        fixed(before) == fixed(after)
    }

    /// Itself, without what a reload can change.
    fn without_parts(&self) -> Self {
        Self { protect: None, ..self.clone() }
    }

    /// Checks the name and the writer's settings.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let Self { name, ack, writer, spool, protect } = self;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) {
            return Err(Error::StreamName { name: name.clone() });
        }
        writer.validate().map_err(|source| Error::Writer { stream: name.clone(), source })?;
        if writer.drain_ms != headworks_writer::Config::default().drain_ms {
            return Err(Error::WriterDrain { stream: name.clone() });
        }
        if let Some(protect) = protect {
            protect.validate(name)?;
        }
        match (ack, spool) {
            (Ack::Spool, Some(spool)) => spool.validate(name)?,
            (Ack::Spool, None) => return Err(Error::SpoolDirectory { stream: name.clone() }),
            (Ack::Stream, Some(_)) => return Err(Error::SpoolUnused { stream: name.clone() }),
            (Ack::Stream, None) => {}
        }
        Ok(())
    }
}
