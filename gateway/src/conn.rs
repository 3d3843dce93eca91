//! Connections: accepted, encrypted where that is configured, and known by who is at the other end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::auth::Names;
use crate::shared::Shared;
use crate::tls::{Port, Tls};

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes at a time; others wait in the system's queue.
const HANDSHAKES: usize = 256;
/// Connections that wait for the server to take them.
const WAITING: usize = 64;
/// How long nothing is accepted after the system refused, which it does when it has no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// What its certificate says, if it showed one; checked.
    pub(crate) names: Option<Names>,
    /// When that certificate expires.
    pub(crate) expires: Option<SystemTime>,
}

impl Peer {
    fn plain(address: SocketAddr) -> Self {
        Self { address, names: None, expires: None }
    }

    fn with(address: SocketAddr, certificate: &CertificateDer<'_>) -> Self {
        let expires = X509Certificate::from_der(certificate).ok().and_then(|(_, certificate)| {
            let since = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))
        });
        Self { address, names: Some(Names::of(certificate)), expires }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// A connection, encrypted or not.
#[derive(Debug)]
pub(crate) struct Conn {
    io: Io,
    /// Room for another connection, given back when this one is closed.
    _place: OwnedSemaphorePermit,
    pub(crate) peer: Arc<Peer>,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Conn {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

macro_rules! forward {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Plain(socket) => {
                let $io = Pin::new(socket);
                $call
            }
            Io::Tls(socket) => {
                let $io = Pin::new(&mut **socket);
                $call
            }
        }
    };
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(socket) => socket.is_write_vectored(),
            Io::Tls(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, io => io.poll_shutdown(cx))
    }
}

/// Accepts connections until `stop` is cancelled, and hands them on. Handshakes run beside each other: one that
/// stalls holds nobody up.
pub(crate) fn accept(
    listener: TcpListener,
    port: Port,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> mpsc::Receiver<Conn> {
    let (ready, conns) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let turns = Arc::new(Semaphore::new(HANDSHAKES));
        let places = Arc::new(Semaphore::new(shared.config.max_connections));
        loop {
            // Closed never: it lives as long as this.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            let accepting = async {
                // Without one, connections wait in the system's queue.
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let accepted = tokio::select! {
                accepted = accepting => accepted,
                () = stop.cancelled() => return,
                () = ready.closed() => return,
            };
            let (Ok(place), accepted) = accepted else { return };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_the_client(&error) => continue,
                Err(error) => {
                    warn!("no connection can be accepted: {error}; trying again");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = socket.set_nodelay(true) {
                debug!("a connection answers with delay: {error}");
            }
            let Some(tls) = &tls else {
                let peer = Arc::new(Peer::plain(address));
                if ready.send(Conn { io: Io::Plain(socket), _place: place, peer }).await.is_err() {
                    return;
                }
                continue;
            };
            let acceptor = tls.acceptor(port);
            let (ready, shared) = (ready.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                let _turn = turn;
                let shaken = match timeout(PATIENCE, acceptor.accept(socket)).await {
                    Ok(shaken) => shaken.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("no handshake within {PATIENCE:?}")),
                };
                match shaken {
                    Ok(socket) => {
                        let shown = socket.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                        let peer = shown.map_or_else(
                            || Peer::plain(address),
                            |certificate| Peer::with(address, certificate),
                        );
                        let conn =
                            Conn { io: Io::Tls(Box::new(socket)), _place: place, peer: Arc::new(peer) };
                        // The server may have stopped meanwhile.
                        let _ = ready.send(conn).await;
                    }
                    Err(reason) => {
                        debug!(%address, "a handshake fails: {reason}");
                        shared.audit.handshake_failed(address.ip().to_canonical(), port, &reason);
                    }
                }
            });
        }
    });
    conns
}

/// Whether the connection was lost before it was accepted, which says nothing of the next one.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
