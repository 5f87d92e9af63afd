//! Where chance comes from: one number decides a whole run. Knows nothing of the simulation.

/// splitmix64: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Another one, that takes nothing from this.
    pub(super) fn aside(&self) -> Rng {
        Rng(mix(self.0))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 for an empty range.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// Both ends included.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    pub(super) fn per_mille(&mut self, chance: u64) -> bool {
        chance > 0 && self.below(1_000) < chance
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }

    /// Mostly near `from`, seldom near `to`.
    pub(super) fn skewed(&mut self, from: u64, to: u64) -> u64 {
        let high = self.between(from, to);
        let middle = self.between(from, high);
        self.between(from, middle)
    }
}

/// A number that depends on each of `parts` alone: what a handler does with a message must not depend on
/// when it is asked.
pub(super) fn mixed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x2545_f491_4f6c_dd1d, |so_far, part| {
        mix(so_far.rotate_left(17) ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    })
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
