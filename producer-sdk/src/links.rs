//! Several gateways: which one has which key, and what happens when one comes or goes.
//!
//! A key belongs to the gateway that rendezvous hashing gives it among those that are up, so all producers
//! send one key's records to one gateway, whose aggregates fill. When a gateway is lost, its records
//! go, in their order, to the next one in each key's ranking; those that were sent keep their
//! identity. When a gateway comes back, it gets its keys back, and waits until the others have
//! settled what they had of them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tracing::{debug, info, warn};

use crate::builder::Config;
use crate::connect::ConnectError;
use crate::link::{Event, Link};
use crate::outbox::{Entry, Settled};
use crate::session::{Failure, Session};

/// The gateways of a producer; at least one.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    /// The place of the next record among all of the producer's.
    next_place: u64,
}

impl Links {
    pub(crate) fn new(config: &Arc<Config>) -> Result<Self, ConnectError> {
        let links = config.endpoints.iter().map(|address| Link::new(Arc::clone(config), address));
        let mut links: Vec<Link> = links.collect::<Result<_, _>>()?;
        links.iter_mut().for_each(|link| link.connect(true));
        Ok(Self { links, next_place: 0 })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut()
    }

    pub(crate) fn get_mut(&mut self, link: usize) -> &mut Link {
        &mut self.links[link]
    }

    /// The gateways' addresses, and what went wrong last at each.
    pub(crate) fn complaints(&self) -> (String, String) {
        if let [link] = self.links.as_slice() {
            return (link.address.to_string(), link.last.reason.clone());
        }
        let addresses: Vec<&str> = self.links.iter().map(|link| &*link.address).collect();
        let told: Vec<String> =
            self.links.iter().map(|link| format!("{}: {}", link.address, link.last.reason)).collect();
        (addresses.join(", "), told.join("; "))
    }

    /// Whether some gateway is connected.
    pub(crate) fn any_connected(&self) -> bool {
        self.links.iter().any(Link::is_connected)
    }

    /// Takes a new record.
    pub(crate) fn push(&mut self, mut entry: Entry) {
        entry.place = self.next_place;
        self.next_place += 1;
        let link = self.owner(&entry);
        self.links[link].outbox.push(entry);
    }

    /// The place that the next record will have.
    pub(crate) fn end(&self) -> u64 {
        self.next_place
    }

    /// Whether every record before this place is answered.
    pub(crate) fn is_settled(&self, end: u64) -> bool {
        self.links.iter().all(|link| link.outbox.is_settled(end))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.links.iter().all(|link| link.outbox.is_empty())
    }

    /// Waits until something happens on some link; meanwhile sends what can be sent.
    pub(crate) async fn next(&mut self, settled: &mut Vec<Settled>) -> (usize, Event) {
        poll_fn(|cx| {
            for (number, link) in self.links.iter_mut().enumerate() {
                if let Poll::Ready(event) = link.poll(cx, settled) {
                    return Poll::Ready((number, event));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Lets links go on that waited for the others.
    pub(crate) fn release(&mut self) {
        for link in 0..self.links.len() {
            let Some(end) = self.links[link].held_until else { continue };
            let mut others = self.links.iter().enumerate().filter(|(other, _)| *other != link);
            if others.all(|(_, other)| other.outbox.is_settled(end)) {
                self.links[link].held_until = None;
            }
        }
    }

    /// A gateway takes records, for the first time or again.
    pub(crate) fn opened(&mut self, link: usize, session: Session) {
        let was_up = self.links[link].is_up;
        self.links[link].opened(session);
        if was_up {
            debug!(endpoint = &*self.links[link].address, "connected again");
            return;
        }
        info!(endpoint = &*self.links[link].address, "connected to the gateway");
        self.links[link].held_until = Some(self.next_place);
        self.relocate();
        self.release();
    }

    /// An attempt to connect failed: others take over what the gateway had.
    pub(crate) fn failed(&mut self, link: usize, failure: Failure) {
        let address = &*self.links[link].address;
        warn!(endpoint = address, "no connection to the gateway: {}", failure.reason);
        self.links[link].last = failure;
        self.links[link].is_up = false;
        self.links[link].held_until = None;
        self.links[link].connect(false);
        self.relocate();
    }

    /// The connection is gone. One attempt to come back is made before others take over.
    pub(crate) fn disconnected(&mut self, link: usize, failure: Failure) {
        let address = &*self.links[link].address;
        warn!(endpoint = address, "the connection to the gateway is lost: {}", failure.reason);
        self.links[link].disconnected(failure);
        self.links[link].connect(false);
    }

    /// Everything that is left, in order.
    pub(crate) fn take_all(&mut self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.links.iter_mut().flat_map(|link| link.outbox.take_all()).collect();
        entries.sort_by_key(|entry| entry.place);
        entries
    }

    /// Moves what gateways that are not up have to those that are.
    fn relocate(&mut self) {
        if !self.links.iter().any(|link| link.is_up) {
            return;
        }
        let mut moved: Vec<Vec<Entry>> = self.links.iter().map(|_| Vec::new()).collect();
        for link in 0..self.links.len() {
            if !self.links[link].is_up {
                for entry in self.links[link].outbox.take_all() {
                    moved[self.owner(&entry)].push(entry);
                }
            }
        }
        for (link, entries) in self.links.iter_mut().zip(moved) {
            link.outbox.absorb(entries);
        }
    }

    /// The link whose hash with the key is highest, of those that are up; of all, if none is.
    fn owner(&self, entry: &Entry) -> usize {
        if self.links.len() == 1 {
            return 0;
        }
        let any_up = self.links.iter().any(|link| link.is_up);
        let candidates = self.links.iter().enumerate().filter(|(_, link)| link.is_up || !any_up);
        let key = entry.record.key.as_str();
        candidates.max_by_key(|(_, link)| rank(&link.address, key)).map_or(0, |(link, _)| link)
    }
}

/// The rank of a gateway for a key: the same in every producer, of every version.
///
/// FNV-1a over address and key; the multiplications at the end (those of SplitMix64) spread what differs
/// only in the last bytes over all bits, by which ranks are compared.
fn rank(address: &str, key: &str) -> u64 {
    let bytes = address.bytes().chain([0]).chain(key.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_evenly_and_only_the_lost_gateways_move() {
        let gateways = ["http://a:4400", "http://b:4400", "http://c:4400"];
        let owner = |among: &[&'static str], key: &str| {
            among.iter().copied().max_by_key(|address| rank(address, key)).unwrap()
        };
        let keys: Vec<String> = (0..9_000).map(|i| format!("session-{i}")).collect();
        for gateway in gateways {
            let owned = keys.iter().filter(|key| owner(&gateways, key) == gateway).count();
            assert!((2_700..3_300).contains(&owned), "{gateway} has {owned} of 9,000 keys");
        }
        for key in &keys {
            let before = owner(&gateways, key);
            let after = owner(&gateways[..2], key);
            assert!(before == gateways[2] || before == after, "{key} moved although its gateway is there");
        }
    }
}
