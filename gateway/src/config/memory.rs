//! What the configured budgets add up to.
//!
//! Everything that a client can make the gateway hold has a budget in bytes; this is what each byte of it stands for
//! in memory at most, so that a ceiling can be kept under any load.

use super::{Config, Error};

const MIB: u64 = 1 << 20;

/// Calls of one connection at a time.
pub(crate) const CALLS_PER_CONNECTION: u32 = 100;

/// The largest HTTP/2 frame. The transport makes room for a frame and reads that much at once: HTTP/2's own 16 KiB mean
/// more reads.
pub(crate) const FRAME: u32 = 32 * 1024;

/// The program itself, its threads, and what the allocator keeps.
const BASE: u64 = 64 * MIB;
/// What the transport holds of a connection's requests: over gRPC its window (1 MiB), a frame for each of its calls, and
/// its buffers; over HTTP its buffers.
const CONNECTION: u64 = 5 * MIB;
const _: () = assert!((FRAME * CALLS_PER_CONNECTION) as u64 + MIB < CONNECTION);
const HTTP_CONNECTION: u64 = MIB / 2;
/// A message as it came and the records in it.
const RECEIVED: u64 = 3;
/// A record, the aggregate that it is in, and the body of the call that carries that: 1 + 1 + 4/3, in base64, for an
/// endpoint that takes JSON only.
const WRITTEN: (u64, u64) = (10, 3);
/// A record, and what goes to the disk.
const SPOOLED: u64 = 2;
/// A body, and the records in it.
const BODY: u64 = 2;

impl Config {
    /// The most memory that the process takes with these settings, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory_parts().iter().map(|(_, bytes)| bytes).sum()
    }

    fn memory_parts(&self) -> [(&'static str, u64); 6] {
        let streams = |bytes: fn(&super::StreamConfig) -> u64| self.streams.iter().map(bytes).sum::<u64>();
        let written = streams(|stream| stream.writer.max_buffered_bytes as u64);
        let spooled = streams(|stream| stream.spool.as_ref().map_or(0, |spool| spool.pending_bytes as u64));
        let over_http = |bytes: u64| self.http_listen.map_or(0, |_| bytes);
        let connection = CONNECTION + over_http(HTTP_CONNECTION);
        [
            ("the program", BASE),
            ("max_connections", connection * self.max_connections as u64),
            ("receive_bytes", RECEIVED * self.receive_bytes as u64),
            ("the streams' writer.max_buffered_bytes", written * WRITTEN.0 / WRITTEN.1),
            ("the streams' spool.pending_bytes", SPOOLED * spooled),
            ("http_buffer_bytes", over_http(BODY * self.http_buffer_bytes as u64)),
        ]
    }

    /// Whether the budgets fit below the ceiling, if there is one.
    pub(super) fn check_memory(&self) -> Result<(), Error> {
        let needed = self.memory();
        match self.memory_limit_bytes {
            Some(limit) if needed > limit => {
                let parts = self.memory_parts();
                let parts = parts.iter().filter(|(_, bytes)| *bytes > 0);
                let parts = parts.map(|(name, bytes)| format!("{} MiB for {name}", bytes.div_ceil(MIB)));
                Err(Error::Memory { needed, limit, parts: parts.collect::<Vec<_>>().join(", ") })
            }
            _ => Ok(()),
        }
    }
}
