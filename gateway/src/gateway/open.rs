//! What a gateway takes before it serves: ports and spools.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::BindError;
use crate::config::StreamConfig;
use crate::spool::{self, Spool};

/// Listens on the address that a setting names.
pub(super) async fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { setting, address },
        _ => BindError::Listen { setting, address, source },
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Opens the spool of a stream that has one.
pub(super) async fn open_spool(stream: &StreamConfig) -> Result<Option<(Spool, spool::Handle)>, BindError> {
    let Some(config) = stream.spool.clone() else { return Ok(None) };
    let name = stream.name.clone();
    // It may have to read a lot.
    let opened = tokio::task::spawn_blocking(move || Spool::open(&config, &name)).await;
    let lost = |error: tokio::task::JoinError| spool::OpenError::Unusable {
        path: stream.name.clone().into(),
        source: io::Error::other(error),
    };
    opened
        .map_err(lost)
        .and_then(|opened| opened)
        .map(Some)
        .map_err(|source| BindError::Spool { stream: stream.name.clone(), source })
}
