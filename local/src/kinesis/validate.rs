//! Constraints of request shapes, all of a request reported together as the service does.

use super::error::Error;

/// The most digits of a hash key. Some such numbers are beyond 2^128-1, which operations refuse themselves.
pub(crate) const HASH_DIGITS: usize = 39;
/// The most digits of a sequence number.
pub(crate) const SEQUENCE_DIGITS: usize = 129;

/// Whether `text` is a decimal number without sign or leading zeros, of at most `digits` digits.
pub(crate) fn is_number(text: &str, digits: usize) -> bool {
    let canonical = text == "0" || !text.starts_with('0');
    canonical && (1..=digits).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Collects violations.
#[derive(Debug, Default)]
pub(crate) struct Check(Vec<String>);

impl Check {
    /// Notes that `value` at `field` breaks `constraint`.
    pub(crate) fn violate(&mut self, value: &dyn std::fmt::Display, field: &str, constraint: &str) {
        self.0.push(format!("Value '{value}' at '{field}' failed to satisfy constraint: {constraint}"));
    }

    /// Requires a value that the model marks as required.
    pub(crate) fn required<T>(&mut self, value: Option<&T>, field: &str) {
        if value.is_none() {
            self.0.push(format!(
                "Value null at '{field}' failed to satisfy constraint: Member must not be null"
            ));
        }
    }

    /// Requires a length in characters.
    pub(crate) fn length(&mut self, value: &str, field: &str, min: usize, max: usize) {
        let length = value.chars().count();
        if length < min {
            self.violate(&value, field, &format!("Member must have length greater than or equal to {min}"));
        } else if length > max {
            self.violate(&value, field, &format!("Member must have length less than or equal to {max}"));
        }
    }

    /// Requires a number in a range.
    pub(crate) fn range(&mut self, value: i64, field: &str, min: i64, max: i64) {
        if value < min {
            self.violate(&value, field, &format!("Member must have value greater than or equal to {min}"));
        } else if value > max {
            self.violate(&value, field, &format!("Member must have value less than or equal to {max}"));
        }
    }

    /// Requires a decimal number without sign or leading zeros, of at most `digits` digits.
    pub(crate) fn number(&mut self, value: &str, field: &str, digits: usize) {
        if !is_number(value, digits) {
            let more = digits.saturating_sub(1);
            let pattern = format!("Member must satisfy regular expression pattern: 0|([1-9]\\d{{0,{more}}})");
            self.violate(&value, field, &pattern);
        }
    }

    /// Requires the name of a stream or a consumer.
    pub(crate) fn name(&mut self, value: &str, field: &str) {
        self.length(value, field, 1, 128);
        if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
            let pattern = "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+";
            self.violate(&value, field, pattern);
        }
    }

    /// Requires one of an enumeration.
    pub(crate) fn one_of(&mut self, value: &str, field: &str, values: &[&str]) {
        if !values.contains(&value) {
            let constraint = format!("Member must satisfy enum value set: [{}]", values.join(", "));
            self.violate(&value, field, &constraint);
        }
    }

    /// Reports what was collected. Seen: kinesalite's tests of every operation.
    pub(crate) fn done(self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(Error::Validation(format!("1 validation error detected: {}", self.0[0]))),
            count => {
                Err(Error::Validation(format!("{count} validation errors detected: {}", self.0.join("; "))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let longest = "9".repeat(HASH_DIGITS);
        for good in ["0", "1", "10", longest.as_str()] {
            assert!(is_number(good, HASH_DIGITS), "{good}");
        }
        let too_long = "1".repeat(HASH_DIGITS + 1);
        for bad in ["", "00", "01", "-1", "+1", "x", "1x", "1 ", "\u{0661}", too_long.as_str()] {
            assert!(!is_number(bad, HASH_DIGITS), "{bad}");
        }
    }

    #[test]
    fn reports_every_violation_at_once() {
        let mut check = Check::default();
        check.length("", "partitionKey", 1, 256);
        check.range(0, "limit", 1, 10_000);
        let message = check.done().unwrap_err().to_string();
        assert!(
            message.starts_with("2 validation errors detected: Value '' at 'partitionKey' failed"),
            "{message}"
        );
        assert!(
            message.contains(
                "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater"
            )
        );
        assert_eq!(Check::default().done(), Ok(()));
    }
}
