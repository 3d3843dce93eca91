//! Chaos: a whole pipeline whose parts are killed and whose streams are resharded while records flow.
//!
//! The gateway and the workers are processes of their own, the router's are the event source mapping's; all
//! are ended with SIGKILL at random moments. Some records are sent again late, with the identity they had,
//! and some calls are committed twice. In the end each record must have had its effect exactly once.

mod config;
mod crew;
mod effects;
mod load;
mod reshard;
mod run;
pub mod worker;

pub use config::Config;
pub use run::{Verdict, run};

/// The stream that the workers consume.
const STREAM: &str = "orders";
/// The consumers' application.
const APPLICATION: &str = "chaos";
/// The table of effects: one item per record, whose `n` counts how often it had its effect.
const EFFECTS: &str = "chaos-effects";
/// The table of identities.
const IDENTITIES: &str = "chaos-identities";
