//! A way to an endpoint that can be cut, for one client of several.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Passes connections on, until it is cut: then they stay open and nothing comes through, as in a network that
/// was partitioned. Healed, they are closed and new ones pass.
pub struct Proxy {
    pub url: String,
    cut: watch::Sender<bool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn to(endpoint: &str) -> Self {
        let target: SocketAddr =
            endpoint.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (cut, is_cut) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut is_cut = is_cut.clone();
                open.spawn(async move {
                    if !*is_cut.borrow() {
                        let Ok(mut far) = TcpStream::connect(target).await else { return };
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => return,
                            _ = is_cut.wait_for(|cut| *cut) => {}
                        }
                    }
                    // Held open, and silent.
                    let _ = is_cut.wait_for(|cut| !*cut).await;
                });
            }
        });
        Self { url, cut, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn heal(&self) {
        self.cut.send_replace(false);
    }
}
