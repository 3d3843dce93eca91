//! Head sampling by trace id.

use headworks_record::TraceId;

/// Why a sampler was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ratio is not a share.
    #[error(
        "the sampling ratio {ratio} is not between 0 and 1; 0 samples nothing, 0.01 one record in a hundred, 1 everything"
    )]
    RatioOutOfRange {
        /// The ratio that was given.
        ratio: f64,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "sampling-ratio-invalid"
    }

    /// Whether the same input may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Decides by the low eight bytes of the trace id alone, so that everyone who looks at the same trace
/// with the same ratio decides alike. The rule is that of OpenTelemetry's `TraceIdRatioBased`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// A trace is sampled when the upper 63 of its low 64 bits are below this.
    below: u64,
    follows_parent: bool,
}

/// One more than the greatest value of 63 bits.
const EVERYTHING: u64 = 1 << 63;

impl Sampler {
    /// Samples this share of all traces, from 0 to 1.
    pub fn ratio(ratio: f64) -> Result<Self, Error> {
        // The negated form refuses NaN, too.
        if !(0.0..=1.0).contains(&ratio) {
            return Err(Error::RatioOutOfRange { ratio });
        }
        Ok(Self { below: (ratio * EVERYTHING as f64) as u64, follows_parent: true })
    }

    /// Samples every trace.
    pub fn always() -> Self {
        Self { below: EVERYTHING, follows_parent: true }
    }

    /// Samples no trace.
    pub fn never() -> Self {
        Self { below: 0, follows_parent: true }
    }

    /// Decides by the trace id even where a parent has decided already. By default the parent's
    /// decision stands, so that traces are whole.
    pub fn ignoring_parent(mut self) -> Self {
        self.follows_parent = false;
        self
    }

    /// Whether a parent's decision stands.
    pub fn follows_parent(&self) -> bool {
        self.follows_parent
    }

    /// Whether this trace is sampled.
    pub fn samples(&self, trace_id: TraceId) -> bool {
        let mut low = [0; 8];
        low.copy_from_slice(&trace_id.0[8..]);
        u64::from_be_bytes(low) >> 1 < self.below
    }

    /// A ratio that [`Sampler::ratio`] turns into exactly this threshold: it has at most 53
    /// significant bits, because it came from such a number.
    pub(crate) fn as_ratio(&self) -> f64 {
        self.below as f64 / EVERYTHING as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::SpanKind;
    use opentelemetry_sdk::trace::{Sampler as SdkSampler, SamplingDecision, ShouldSample};

    #[test]
    fn ratios_outside_zero_to_one_are_refused() {
        for ratio in [-0.001, 1.001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = Sampler::ratio(ratio).unwrap_err();
            assert_eq!(error.code(), "sampling-ratio-invalid");
            assert!(error.to_string().contains("between 0 and 1"), "{error}");
        }
    }

    #[test]
    fn agrees_with_the_sdk_on_every_id() {
        let edges = [[0u8; 16], [255; 16], {
            let mut id = [0; 16];
            id[8] = 0x80;
            id
        }];
        for ratio in [0.0, 1e-9, 0.01, 0.1, 0.5, 0.999, 1.0] {
            let ours = Sampler::ratio(ratio).unwrap();
            assert_eq!(Sampler::ratio(ours.as_ratio()), Ok(ours), "no threshold is lost on the way");
            let sdk = SdkSampler::TraceIdRatioBased(ratio);
            let random = (0..2_000).map(|_| rand::random::<[u8; 16]>());
            for id in edges.into_iter().chain(random) {
                let decision = sdk
                    .should_sample(
                        None,
                        opentelemetry::TraceId::from_bytes(id),
                        "",
                        &SpanKind::Internal,
                        &[],
                        &[],
                    )
                    .decision;
                assert_eq!(
                    ours.samples(TraceId(id)),
                    decision == SamplingDecision::RecordAndSample,
                    "{ratio} {id:02x?}"
                );
            }
        }
    }

    #[test]
    fn samples_the_share_it_promises() {
        let sampler = Sampler::ratio(0.25).unwrap();
        let total = 40_000;
        let sampled = (0..total).filter(|_| sampler.samples(TraceId(rand::random()))).count();
        // Five standard deviations: sqrt(40,000 * 0.25 * 0.75) = 86.6.
        assert!(sampled.abs_diff(total / 4) < 433, "{sampled} of {total}");
        assert!((0..1_000).all(|_| Sampler::always().samples(TraceId(rand::random()))));
        assert!(!(0..1_000).any(|_| Sampler::never().samples(TraceId(rand::random()))));
    }
}
