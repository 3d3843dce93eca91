//! When each record is due.

use std::str::FromStr;
use std::time::Duration;

use crate::exit::Failure;

/// The highest rate, in records per second.
pub const MAX_RATE: f64 = 10_000_000.0;
/// The longest schedule.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// Rates over time: steps and ramps one after the other.
///
/// The number of records up to a time is the area below the curve, and record `i` is due when `i` records
/// are through: the first one at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    phases: Vec<Phase>,
}

/// A stretch of time with a rate that is constant or changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Phase {
    seconds: f64,
    from: f64,
    to: f64,
}

impl Phase {
    fn records(&self) -> f64 {
        self.seconds * (self.from + self.to) / 2.0
    }

    /// After how many seconds this many records are through.
    fn time_of(&self, records: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        // records = from * t + slope * t^2 / 2, solved without cancellation for small slopes.
        let root = (self.from * self.from + 2.0 * slope * records).max(0.0).sqrt();
        if self.from + root == 0.0 { 0.0 } else { (2.0 * records / (self.from + root)).min(self.seconds) }
    }
}

impl Schedule {
    /// One rate for ever.
    pub fn steady(rate: Rate) -> Self {
        Self { phases: vec![Phase { seconds: f64::INFINITY, from: rate.0, to: rate.0 }] }
    }

    /// The same schedule, ended after this time.
    pub fn cut(mut self, end: Duration) -> Self {
        let mut left = end.as_secs_f64();
        for phase in &mut self.phases {
            if phase.seconds > left {
                if phase.seconds.is_finite() {
                    phase.to = phase.from + (phase.to - phase.from) * left / phase.seconds;
                }
                phase.seconds = left;
            }
            left -= phase.seconds;
        }
        self.phases.retain(|phase| phase.seconds > 0.0);
        self
    }

    /// When it is over; `None` for never.
    pub fn end(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.phases.iter().map(|phase| phase.seconds).sum()).ok()
    }

    /// When record `number` (from 0) is due, counted from the start; `None` when the schedule ends before.
    pub fn due(&self, number: u64) -> Option<Duration> {
        let (mut left, mut seconds) = (number as f64, 0.0);
        for phase in &self.phases {
            if phase.seconds.is_infinite() {
                return Duration::try_from_secs_f64(seconds + left / phase.from).ok();
            }
            // A record at the very end of a phase belongs to the next; half a thousandth of a record is the
            // rounding of long sums.
            if left < phase.records() - 0.000_5 {
                return Duration::try_from_secs_f64(seconds + phase.time_of(left)).ok();
            }
            left -= phase.records();
            left = left.max(0.0);
            seconds += phase.seconds;
        }
        None
    }
}

impl FromStr for Schedule {
    type Err = Failure;

    /// `10s:100,30s:100-1000,1m:1000`: duration and rate, or two rates for a ramp.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let phases = text.split(',').map(|part| {
            let (duration, rates) = part.split_once(':').ok_or_else(|| {
                Failure::usage(
                    "schedule-invalid",
                    format_args!(
                        "the phase {part:?} of the schedule is not duration:rate or duration:rate-rate; write for example 10s:100,30s:100-1000"
                    ),
                )
            })?;
            let seconds = duration_of(duration.trim())?.as_secs_f64();
            let (from, to) = match rates.split_once('-') {
                Some((from, to)) => (rate_of(from, 0.0)?, rate_of(to, 0.0)?),
                None => (rate_of(rates, 0.0)?, rate_of(rates, 0.0)?),
            };
            Ok(Phase { seconds, from, to })
        });
        let phases = phases.collect::<Result<Vec<_>, Failure>>()?;
        if phases.iter().map(|phase| phase.seconds).sum::<f64>() > MAX_DURATION.as_secs_f64() {
            return Err(Failure::usage(
                "schedule-invalid",
                "the schedule is longer than 366 days; shorten it",
            ));
        }
        Ok(Self { phases })
    }
}

/// Records per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

impl FromStr for Rate {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        rate_of(text, f64::MIN_POSITIVE).map(Self)
    }
}

fn rate_of(text: &str, least: f64) -> Result<f64, Failure> {
    let text = text.trim();
    let (number, per) = match text.split_once('/') {
        Some((number, "s")) => (number, 1.0),
        Some((number, "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        Some(_) => ("", 1.0),
        None => (text, 1.0),
    };
    let rate = number.trim().parse::<f64>().ok().map(|number| number / per);
    rate.filter(|rate| (least..=MAX_RATE).contains(rate)).ok_or_else(|| {
        Failure::usage(
            "rate-invalid",
            format_args!(
                "the rate {text:?} is not a number of records per second up to {MAX_RATE}{}; write for example 100, 100/s or 30/m",
                if least > 0.0 { " and above 0" } else { "" }
            ),
        )
    })
}

/// A duration such as `10s`, `1m30s` or `500ms`: above 0, at most 366 days.
pub(crate) fn duration_of(text: &str) -> Result<Duration, Failure> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.filter(|duration| !duration.is_zero() && *duration <= MAX_DURATION).ok_or_else(|| {
        Failure::usage(
            "duration-invalid",
            format_args!(
                "the duration {text:?} is not a time above 0 and up to 366 days with its unit; write for example 30s, 1m30s or 500ms"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(schedule: &str, numbers: &[u64]) -> Vec<Option<u128>> {
        let schedule: Schedule = schedule.parse().unwrap();
        numbers.iter().map(|n| schedule.due(*n).map(|due| due.as_millis())).collect()
    }

    #[test]
    fn steps_follow_each_other() {
        assert_eq!(
            due("10s:100,30s:1000", &[0, 1, 999, 1000, 1001, 30_999, 31_000]),
            [Some(0), Some(10), Some(9990), Some(10_000), Some(10_001), Some(39_999), None]
        );
        assert_eq!(due("1s:0,1s:2", &[0, 1, 2]), [Some(1000), Some(1500), None]);
    }

    #[test]
    fn a_ramp_changes_evenly() {
        // 0 to 100 per second in 10 s: 500 records, a quarter of them in the first half.
        let times = due("10s:0-100", &[0, 125, 499, 500]);
        assert_eq!((times[0], times[1], times[3]), (Some(0), Some(5000), None));
        assert!(times[2].unwrap() < 10_000);
        assert_eq!(due("10s:100-0", &[0, 375, 500]), [Some(0), Some(5000), None]);
    }

    #[test]
    fn a_steady_rate_ends_where_it_is_cut() {
        let steady = Schedule::steady("10/s".parse().unwrap());
        assert_eq!(steady.due(1_000_000).unwrap().as_secs(), 100_000);
        let cut = steady.cut(Duration::from_secs(2));
        assert_eq!((cut.due(19).unwrap().as_millis(), cut.due(20)), (1900, None));
        let cut = "10s:0-100,10s:5".parse::<Schedule>().unwrap().cut(Duration::from_secs(5));
        assert!(cut.due(124).is_some() && cut.due(125).is_none());
    }

    #[test]
    fn rates_and_durations_are_checked() {
        assert_eq!("30/m".parse::<Rate>().unwrap(), Rate(0.5));
        for bad in ["", "0", "-1", "x", "1/d", "1e9", "NaN"] {
            assert_eq!(bad.parse::<Rate>().unwrap_err().code(), "rate-invalid", "{bad}");
        }
        for (bad, code) in [
            ("", "schedule-invalid"),
            ("10s", "schedule-invalid"),
            ("10:100", "duration-invalid"),
            ("-1s:100", "duration-invalid"),
            ("0s:100", "duration-invalid"),
            ("1s:fast", "rate-invalid"),
            ("8760h:1,8760h:1", "schedule-invalid"),
        ] {
            assert_eq!(bad.parse::<Schedule>().unwrap_err().code(), code, "{bad}");
        }
    }
}
