//! Random numbers that stay the same for ever: a record depends on the seed and its number alone.

/// A generator of random numbers (SplitMix64).
///
/// The generators of the `rand` crate may change with its version, and a seed is a promise: the same seed
/// gives the same records, on every machine and in every release.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// The dice of one record.
    pub(crate) fn of(seed: u64, record: u64) -> Self {
        // Mixed twice: neighbouring seeds and records must not give shifted copies of one sequence.
        Self { state: mix(mix(seed ^ 0x6865_6164).wrapping_add(record.wrapping_mul(Self::STEP))) }
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::STEP);
        mix(self.state)
    }

    /// From 0 to `bound` - 1; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: uneven by less than `bound` / 2^64, which no sample can show.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 up to, but not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_promise() {
        let mut dice = Dice::of(42, 7);
        let drawn = [dice.bits(), dice.bits(), dice.below(1000)];
        assert_eq!(drawn, PROMISED);
    }

    const PROMISED: [u64; 3] = [18_319_129_238_082_139_633, 2_313_360_667_977_278_215, 200];

    #[test]
    fn numbers_are_spread_evenly() {
        let mut counts = [0u32; 10];
        for record in 0..10_000 {
            counts[Dice::of(1, record).below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        let mut dice = Dice::of(1, 1);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&dice.unit())));
        assert_eq!(dice.below(0), 0);
    }
}
