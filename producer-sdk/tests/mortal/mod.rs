//! A gateway that can be killed.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part of it.

use std::collections::HashSet;
use std::net::SocketAddr;

use headworks_gateway::{Config, Gateway};
use headworks_telemetry::{Minter, RecordTracer, Sampler};
use tokio_util::sync::CancellationToken;

use crate::support::{FakeStream, config, factory, soon};

/// A gateway on a runtime of its own, which can be killed: its tasks are dropped where they stand,
/// and its sockets closed.
pub struct Mortal {
    /// Always there, until the drop.
    runtime: Option<tokio::runtime::Runtime>,
    pub address: SocketAddr,
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // Waiting for it, as a runtime's own drop does, is not allowed on a runtime.
        self.runtime.take().into_iter().for_each(|runtime| runtime.shutdown_background());
    }
}

impl Mortal {
    pub async fn start(settings: Config, stream: &FakeStream) -> Self {
        let streams = factory(&[stream]);
        let started = tokio::task::spawn_blocking(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let bound = runtime.block_on(async {
                loop {
                    let minter = Minter::new(Sampler::never());
                    let bound = Gateway::bind(settings.clone(), &streams, minter, RecordTracer::disabled());
                    match bound.await {
                        // The one that was killed may not have let go of its port yet.
                        Err(error) if error.code() == "address-in-use" => tokio::task::yield_now().await,
                        bound => return bound.unwrap(),
                    }
                }
            });
            let address = bound.1.local_addr();
            runtime.spawn(bound.0.run(CancellationToken::new()));
            Self { runtime: Some(runtime), address }
        });
        soon("a gateway", started).await.unwrap()
    }

    /// Starts one where this one was.
    pub async fn again(self, stream: &FakeStream) -> Self {
        let mut settings = config(&[stream]);
        settings.listen = self.address;
        drop(self);
        Self::start(settings, stream).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The payloads of a key without repeats, each at its first place.
pub fn first_occurrences(stream: &FakeStream, key: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    stream.of_key(key).into_iter().filter(|data| seen.insert(data.clone())).collect()
}
