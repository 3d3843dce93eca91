//! The events of a website: sessions that browse, fill carts, order and pay.

use std::collections::VecDeque;

use headworks_record::Record;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const PAGES: [&str; 6] = ["/", "/search", "/shoes", "/shoes/trail-3", "/jackets/rain-1", "/help"];
const PRODUCTS: [(&str, u32); 4] =
    [("trail-3", 11_990), ("rain-1", 8_900), ("socks-2", 990), ("bottle-1", 1_490)];

/// An event and the outbound stream that the demo's route table sends it to.
#[derive(Debug)]
pub(super) struct Event {
    /// What goes to the gateway.
    pub(super) record: Record,
    /// Where it must be consumed.
    pub(super) stream: &'static str,
}

/// An endless, reproducible stream of events; many sessions are under way at a time.
#[derive(Debug)]
pub(super) struct Traffic {
    rng: SmallRng,
    sessions: VecDeque<Session>,
    started: u64,
}

#[derive(Debug)]
struct Session {
    id: String,
    tenant: &'static str,
    number: u32,
    cart: Vec<(&'static str, u32)>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Start,
    Browse,
    Order,
    Pay,
    End,
}

impl Traffic {
    /// Traffic of this many concurrent sessions; the same seed gives the same events.
    pub(super) fn new(seed: u64, concurrent: usize) -> Self {
        let mut traffic = Self { rng: SmallRng::seed_from_u64(seed), sessions: VecDeque::new(), started: 0 };
        for _ in 0..concurrent.max(1) {
            traffic.start_session();
        }
        traffic
    }

    fn start_session(&mut self) {
        self.started += 1;
        let session = Session {
            id: format!("session-{:08x}-{}", self.rng.random::<u32>(), self.started),
            tenant: TENANTS[self.rng.random_range(0..TENANTS.len())],
            number: 0,
            cart: Vec::new(),
            phase: Phase::Start,
        };
        self.sessions.push_back(session);
    }

    /// The next event, of a random session.
    pub(super) fn next_event(&mut self) -> anyhow::Result<Event> {
        let place = self.rng.random_range(0..self.sessions.len());
        let (kind, stream, detail) = self.sessions[place].step(&mut self.rng);
        let session = &mut self.sessions[place];
        let body = json!({ "type": kind, "session": session.id, "n": session.number, "detail": detail });
        session.number += 1;
        let record = Record::builder(session.id.clone())?
            .header("type", kind)?
            .header("tenant", session.tenant)?
            .header("content-type", "application/json")?
            .data(serde_json::to_vec(&body)?)
            .build();
        if matches!(session.phase, Phase::End) {
            self.sessions.swap_remove_back(place);
            self.start_session();
        }
        Ok(Event { record, stream })
    }
}

impl Session {
    fn step(&mut self, rng: &mut SmallRng) -> (&'static str, &'static str, serde_json::Value) {
        match self.phase {
            Phase::Start => {
                self.phase = Phase::Browse;
                ("session.started", "default", json!({ "agent": "Mozilla/5.0", "language": "en" }))
            }
            Phase::Browse => self.browse(rng),
            Phase::Order => {
                self.phase = Phase::Pay;
                let items: Vec<_> =
                    self.cart.iter().map(|(sku, cents)| json!({ "sku": sku, "cents": cents })).collect();
                ("order.placed", "orders", json!({ "items": items, "total_cents": self.total() }))
            }
            Phase::Pay | Phase::End => {
                self.phase = Phase::End;
                let kind = if rng.random_bool(0.97) { "payment.captured" } else { "payment.declined" };
                (kind, "payments", json!({ "method": "card", "cents": self.total() }))
            }
        }
    }

    fn browse(&mut self, rng: &mut SmallRng) -> (&'static str, &'static str, serde_json::Value) {
        match rng.random_range(0..20) {
            0..12 => {
                let page = PAGES[rng.random_range(0..PAGES.len())];
                ("page.viewed", "clicks", json!({ "page": page, "ms": rng.random_range(20..900) }))
            }
            12..15 => (
                "click.tracked",
                "clicks",
                json!({ "x": rng.random_range(0..1920), "y": rng.random_range(0..1080) }),
            ),
            15..18 => {
                let (sku, cents) = PRODUCTS[rng.random_range(0..PRODUCTS.len())];
                self.cart.push((sku, cents));
                if self.cart.len() >= 2 {
                    self.phase = Phase::Order;
                }
                ("cart.item_added", "clicks", json!({ "sku": sku, "cents": cents }))
            }
            _ => (
                "search.performed",
                "default",
                json!({ "query": "trail running shoes", "hits": rng.random_range(0..99) }),
            ),
        }
    }

    fn total(&self) -> u32 {
        self.cart.iter().map(|(_, cents)| cents).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_events_for_every_stream() {
        let (mut one, mut two) = (Traffic::new(7, 50), Traffic::new(7, 50));
        let mut streams = BTreeMap::new();
        for _ in 0..5_000 {
            let (a, b) = (one.next_event().unwrap(), two.next_event().unwrap());
            assert_eq!(a.record, b.record);
            *streams.entry(a.stream).or_insert(0u32) += 1;
        }
        assert_eq!(streams.keys().copied().collect::<Vec<_>>(), ["clicks", "default", "orders", "payments"]);
        assert!(streams.values().all(|count| *count > 50), "{streams:?}");
    }
}
