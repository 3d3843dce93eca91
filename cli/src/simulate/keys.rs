//! Which of the keys a record has.

use super::dice::Dice;

/// The most keys: their shares are kept in a table of 8 bytes each.
pub const MAX_KEYS: u64 = 1_000_000;
/// The steepest skew: beyond it the first key has all records anyway.
pub const MAX_SKEW: f64 = 10.0;

/// Keys by their number, from 1; key `k` is drawn in proportion to `1 / k^skew` (Zipf's law).
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    many: u64,
    /// Shares of all keys up to and including each; empty where all are alike.
    sums: Vec<f64>,
}

impl Keys {
    pub(crate) fn new(many: u64, skew: f64) -> Self {
        let mut sum = 0.0;
        let share = |key: u64| {
            sum += (key as f64).powf(-skew);
            sum
        };
        let sums = if skew == 0.0 { Vec::new() } else { (1..=many).map(share).collect() };
        Self { many, sums }
    }

    /// The number of a record's key.
    pub(crate) fn draw(&self, dice: &mut Dice) -> u64 {
        match self.sums.last() {
            None => 1 + dice.below(self.many),
            Some(total) => {
                let drawn = dice.unit() * total;
                1 + (self.sums.partition_point(|sum| *sum <= drawn) as u64).min(self.many - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(many: u64, skew: f64) -> Vec<u32> {
        let keys = Keys::new(many, skew);
        let mut counts = vec![0; many as usize];
        for record in 0..10_000 {
            counts[keys.draw(&mut Dice::of(5, record)) as usize - 1] += 1;
        }
        counts
    }

    #[test]
    fn without_skew_all_keys_are_alike() {
        assert!(counts(10, 0.0).iter().all(|count| (850..1150).contains(count)));
        assert_eq!(counts(1, 0.0), [10_000]);
    }

    #[test]
    fn skew_follows_zipf() {
        // With exponent 1 the first of 10 keys has 1 / (1 + 1/2 + ... + 1/10) = 34 % of all.
        let counts = counts(10, 1.0);
        assert!((3200..3650).contains(&counts[0]), "{counts:?}");
        assert!((counts[0] as f64 / counts[1] as f64 - 2.0).abs() < 0.3, "{counts:?}");
    }
}
