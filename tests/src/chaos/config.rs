use std::time::Duration;

use clap::Parser;

/// How much chaos.
#[derive(Debug, Clone, Parser)]
pub struct Config {
    /// How long records are sent, in seconds; 5 to 86,400.
    #[arg(long, env = "HEADWORKS_CHAOS_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    pub seconds: u64,
    /// Processes that are killed, spread over that time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub kills: u32,
    /// Splits and merges, spread over that time.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub reshards: u32,
    /// Records sent per second; 1 to 1,000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub rate: u64,
    /// The share of records that are sent again later, and of calls that are committed twice; 0 to 1.
    #[arg(long, default_value_t = 0.05)]
    pub repeats: f64,
    /// Workers; 1 to 20.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub workers: u32,
    /// Seeds what is killed and resharded, and when. Default: the time.
    #[arg(long, env = "HEADWORKS_CHAOS_SEED")]
    pub seed: Option<u64>,
    /// Workers apply effects without identities, at least once: shows that the check can fail.
    #[arg(long)]
    pub careless: bool,
    /// How long everything may take to have its effect once nothing is sent or killed any more, in seconds.
    #[arg(long, default_value_t = 180)]
    pub patience: u64,
}

impl Config {
    pub(super) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
