//! How long to wait before the next try: exponential with jitter. Knows no clock and no randomness:
//! the caller brings a number that is random enough.

use crate::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The wait after failed try `attempt` (1 for the first): `initial × 2^(attempt − 1)`, at most
    /// `max`, of which the upper half is spread by `noise` so that many waiters do not come back at once.
    pub fn wait(&self, attempt: u32, noise: u64) -> Duration {
        let full = self
            .initial
            .saturating_mul(1u32 << attempt.saturating_sub(1).min(20))
            .min(self.max);
        let half = full / 2;
        let spread = u64::try_from(half.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        half + Duration::from_micros(noise % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_wait_is_between_half_and_whole_of_the_step(attempt in 0u32..100, noise: u64) {
            let backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) };
            let step = Duration::from_millis(100).saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(backoff.max);
            let wait = backoff.wait(attempt, noise);
            proptest::prop_assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
        }
    }
}
