//! Whether a version on trial stays. Knows counts and thresholds; must not know who counted.
//!
//! A version fails a message when it does not ack it. Messages differ, and a partition may hold bad ones, so
//! that failures are compared where they can be: on the same message. What the candidate did not ack, the
//! current version was asked about; if that acked it, the candidate is *overruled*.

use std::fmt;
use std::time::Duration;

/// So many overruled messages roll back at once if they are more than [`OVERRULED_PERCENT`] of its calls:
/// two may be chance (a service that was away for a moment).
pub const OVERRULED_MIN: u64 = 3;
/// Of a candidate's calls; what is above is worse.
pub const OVERRULED_PERCENT: u64 = 1;
/// Calls of both versions before their times are compared.
pub const SLOWER_CALLS_MIN: u64 = 100;
/// So many times the mean time of a call of the current version...
pub const SLOWER_TIMES: u32 = 3;
/// ...and this on top is slower: what is less is the noise of a busy machine.
pub const SLOWER_BY: Duration = Duration::from_millis(5);

/// Calls of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub calls: u64,
    /// Those that were not acked.
    pub failed: u64,
    /// Those of `failed` whose message the current version then acked. Zero for the current version.
    pub overruled: u64,
    /// Of all calls together, in µs.
    pub micros: u64,
}

impl Tally {
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            calls: self.calls.saturating_add(other.calls),
            failed: self.failed.saturating_add(other.failed),
            overruled: self.overruled.saturating_add(other.overruled),
            micros: self.micros.saturating_add(other.micros),
        }
    }

    /// What was counted since `earlier`.
    pub fn since(self, earlier: Tally) -> Tally {
        Tally {
            calls: self.calls.saturating_sub(earlier.calls),
            failed: self.failed.saturating_sub(earlier.failed),
            overruled: self.overruled.saturating_sub(earlier.overruled),
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }

    fn mean(self) -> Duration {
        Duration::from_micros(self.micros.checked_div(self.calls).unwrap_or_default())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, failed, mean) = (self.calls, self.failed, self.mean());
        write!(f, "{calls} calls, {failed} failed, {mean:?} a call")
    }
}

/// What is known of a candidate, over all hosts that are heard of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    pub candidate: Tally,
    /// Of the current version, meanwhile; if the candidate runs everywhere, before.
    pub rest: Tally,
    /// A host that cannot load it, and why.
    pub refused: Option<String>,
    /// Hosts that have not loaded it yet.
    pub waiting: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Promote,
    RollBack { reason: String },
}

/// `over`: the time of the trial has passed.
pub fn judge(evidence: &Evidence, over: bool) -> Option<Verdict> {
    let Evidence {
        candidate, rest, ..
    } = evidence;
    let back = |reason: String| Some(Verdict::RollBack { reason });
    if let Some(why) = &evidence.refused {
        return back(format!("it cannot be loaded: {why}"));
    }
    let overruled = candidate.overruled;
    let share = u128::from(candidate.calls) * u128::from(OVERRULED_PERCENT);
    if overruled >= OVERRULED_MIN && u128::from(overruled) * 100 > share {
        return back(format!(
            "it failed {overruled} messages that the version before it acked ({candidate})"
        ));
    }
    let measured = candidate.calls >= SLOWER_CALLS_MIN && rest.calls >= SLOWER_CALLS_MIN;
    if measured && candidate.mean() > rest.mean() * SLOWER_TIMES + SLOWER_BY {
        return back(format!(
            "it is slower: {candidate}, against {rest} of the version before it"
        ));
    }
    (over && evidence.waiting == 0).then_some(Verdict::Promote)
}
