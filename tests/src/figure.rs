//! One line of `target/bench/results.json`.

use serde::Serialize;

/// A measured figure, beside what it is compared with in the same run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// `gateway`, `router`, `consumer`, `python` or `local`.
    pub part: &'static str,
    /// What was done.
    pub case: String,
    /// What was measured.
    pub metric: &'static str,
    /// The value.
    pub value: f64,
    /// The value's unit.
    pub unit: &'static str,
    /// `floor`, a peer's name, or nothing.
    pub against: Option<&'static str>,
    /// The same metric of that.
    pub against_value: Option<f64>,
    /// `value` by `against_value`.
    pub ratio: Option<f64>,
}

impl Figure {
    /// A figure that stands alone.
    pub fn new(part: &'static str, case: &str, metric: &'static str, value: f64, unit: &'static str) -> Self {
        Self {
            part,
            case: case.to_owned(),
            metric,
            value,
            unit,
            against: None,
            against_value: None,
            ratio: None,
        }
    }

    /// Compares it.
    pub fn against(mut self, what: &'static str, value: f64) -> Self {
        self.against = Some(what);
        self.against_value = Some(value);
        self.ratio = (value > 0.0).then_some(self.value / value);
        self
    }

    /// One line of JSON on stdout, and one for people on stderr.
    pub fn print(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            println!("{line}");
        }
        let ratio = match (self.against, self.ratio) {
            (Some(against), Some(ratio)) => format!("  ({ratio:.2} x {against})"),
            _ => String::new(),
        };
        eprintln!("  {:<34} {:<22} {:>12.3} {}{ratio}", self.case, self.metric, self.value, self.unit);
    }
}
