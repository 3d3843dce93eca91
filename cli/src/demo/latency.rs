//! How long each hop took, for every record, from the times in its envelope and in Kinesis.

/// Times of one record, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The producer minted its creation context.
    pub(super) created: u64,
    /// It arrived on the inbound stream.
    pub(super) inbound: u64,
    /// It arrived on the outbound stream.
    pub(super) outbound: u64,
    /// The consumer's handler got it.
    pub(super) handled: u64,
}

/// The hops, in order, and the whole way.
pub(super) const HOPS: [&str; 4] = ["gateway", "router", "consumer", "end to end"];

/// Samples of every hop of one stream.
#[derive(Debug, Default, Clone)]
pub(super) struct Latency {
    samples: [Vec<u32>; 4],
}

/// The 50th and 99th percentile and the maximum, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) p50: u32,
    pub(super) p99: u32,
    pub(super) max: u32,
}

impl Latency {
    /// Adds a record. Clocks are one machine's here; a step backwards counts as zero.
    pub(super) fn add(&mut self, times: Times) {
        let Times { created, inbound, outbound, handled } = times;
        let hops = [(created, inbound), (inbound, outbound), (outbound, handled), (created, handled)];
        for (samples, (from, to)) in self.samples.iter_mut().zip(hops) {
            samples.push(u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX));
        }
    }

    /// One summary per hop; `None` where nothing was measured.
    pub(super) fn summaries(&mut self) -> [Option<Summary>; 4] {
        let mut summaries = [None; 4];
        for (summary, samples) in summaries.iter_mut().zip(&mut self.samples) {
            samples.sort_unstable();
            let at = |quantile: f64| {
                // The nearest rank: the smallest sample that at least this share does not exceed.
                let rank = (quantile * samples.len() as f64).ceil() as usize;
                samples.get(rank.max(1) - 1).copied()
            };
            *summary = at(0.5).zip(at(0.99)).zip(samples.last()).map(|((p50, p99), max)| Summary {
                p50,
                p99,
                max: *max,
            });
        }
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank_percentiles() {
        let mut latency = Latency::default();
        assert_eq!(latency.summaries(), [None; 4]);
        for ms in 1..=100 {
            latency.add(Times {
                created: 1000,
                inbound: 1000 + ms,
                outbound: 1000 + ms,
                handled: 1000 + 2 * ms,
            });
        }
        let [gateway, router, consumer, whole] = latency.summaries();
        assert_eq!(gateway, Some(Summary { p50: 50, p99: 99, max: 100 }));
        assert_eq!(router, Some(Summary { p50: 0, p99: 0, max: 0 }));
        assert_eq!(consumer, gateway);
        assert_eq!(whole, Some(Summary { p50: 100, p99: 198, max: 200 }));
    }
}
