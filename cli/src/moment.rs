//! Times on the command line.

use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use crate::exit::Failure;

/// A time, or how long ago it was when the command began.
pub(crate) fn moment(text: &str) -> Result<Timestamp, Failure> {
    if text.eq_ignore_ascii_case("now") {
        return Ok(Timestamp::now());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago = text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive);
    ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok()).ok_or_else(|| {
        Failure::usage(
            "time-invalid",
            format_args!(
                "{text:?} is not a time; write how long ago (10m, 1h30m), a time (2026-01-31T12:00:00Z) or now"
            ),
        )
    })
}

/// How a time is shown: to the millisecond, in UTC.
pub(crate) fn shown(at: impl Into<SystemTime>) -> String {
    Timestamp::try_from(at.into()).map_or_else(|_| "?".to_owned(), |at| format!("{at:.3}"))
}

/// The same of milliseconds since the Unix epoch.
pub(crate) fn shown_ms(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "?".to_owned(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        let at = moment("2026-01-31T13:00:00+01:00").unwrap();
        assert_eq!(shown(at), "2026-01-31T12:00:00.000Z");
        assert_eq!(shown_ms(at.as_millisecond() as u64), "2026-01-31T12:00:00.000Z");
        let (ago, now) = (moment("1h").unwrap(), moment("now").unwrap());
        assert!((3_599..=3_660).contains(&(now.as_second() - ago.as_second())));
        for bad in ["", "10", "-1h", "yesterday", "2026-01-31", "999999999h"] {
            assert_eq!(moment(bad).unwrap_err().code(), "time-invalid", "{bad}");
        }
    }
}
