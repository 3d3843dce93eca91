//! Durations as tables write them: a whole number and `ms`, `s`, `m` or `h`.

use std::time::Duration;

/// Reads `"250ms"`, `"90s"`, `"5m"`, `"2h"`; `None` for anything else.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// The shortest way to write it that [`parse`] reads.
pub(super) fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms >= unit && ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms) in [("250ms", 250), ("90s", 90_000), ("5m", 300_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "m", "-5m", "5 m", "5d", "1.5s", "99999999999999999999s", "9999999999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for ms in [0, 1, 999, 1_000, 1_500, 90_000, 300_000, 3_600_000, 5_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse(&show(duration)), Some(duration));
        }
    }
}
