//! What happened in a run, line by line, and its hash: the same seed gives the same hash.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Trace {
    lines: Vec<String>,
    hasher: DefaultHasher,
}

impl Trace {
    pub fn add(&mut self, at: Duration, line: std::fmt::Arguments<'_>) {
        let line = format!("{:>9.3} {line}", at.as_secs_f64());
        line.hash(&mut self.hasher);
        self.lines.push(line);
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
