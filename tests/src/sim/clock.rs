//! A clock that is not the world's: it began somewhere else, runs a little faster or slower, and may jump
//! forward. Knows how to translate; must not know whose clock it is.

use segmenter_core::time::Time;

const PPM: i128 = 1_000_000;

#[derive(Debug, Clone)]
pub(super) struct Clock {
    offset_us: u64,
    /// Microseconds that it gains in each second of the world.
    drift_ppm: i64,
}

impl Clock {
    pub(super) fn new(offset_us: u64, drift_ppm: i64) -> Clock {
        Clock {
            offset_us,
            drift_ppm,
        }
    }

    /// What it shows at `now` of the world.
    pub(super) fn at(&self, now: u64) -> Time {
        let gained = i128::from(now) * i128::from(self.drift_ppm) / PPM;
        let shown = i128::from(now) + i128::from(self.offset_us) + gained;
        Time(u64::try_from(shown).unwrap_or(0))
    }

    /// When of the world it will show `time`, not earlier.
    pub(super) fn when(&self, time: Time) -> u64 {
        let wanted = i128::from(time.0) - i128::from(self.offset_us);
        let at = wanted * PPM / (PPM + i128::from(self.drift_ppm)) + 1;
        u64::try_from(at.max(0)).unwrap_or(u64::MAX)
    }

    pub(super) fn jump(&mut self, us: u64) {
        self.offset_us += us;
    }
}
