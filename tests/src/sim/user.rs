//! What a user's handler does with a message, or with several: how long it takes, what comes out, and whether
//! it hears a cancel. The same message fares the same wherever and whenever it is handled, until it succeeds.

use segmenter_core::effects::Effects;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_core::time::Duration;

use super::check::Call;
use super::rng::mixed;
use super::swap::Behaviour;
use super::world::World;

/// A call of a version that is slow, on top.
const SLOWER_US: u64 = 10_000;

pub(super) struct UserCode {
    pub(super) takes: u64,
    pub(super) outcome: Outcome,
    pub(super) lingers: Option<u64>,
}

impl World {
    /// Messages of one call. One that breaks it ends it there; else all are looked at, and the first one that
    /// fails counts.
    pub(super) fn user_code(&mut self, calls: &[Call]) -> UserCode {
        let mut outcome = Outcome::Ok(Effects::default());
        for (at, call) in calls.iter().enumerate() {
            let of_this = self.outcome(call, at);
            let first = matches!(outcome, Outcome::Ok(_));
            if first || matches!(of_this, Outcome::Broken { .. }) {
                outcome = of_this;
            }
            if matches!(outcome, Outcome::Broken { .. }) {
                break;
            }
        }
        let behaviour = Behaviour::of(&calls[0].version);
        self.timed(behaviour, outcome)
    }

    fn outcome(&mut self, call: &Call, at: usize) -> Outcome {
        let behaviour = Behaviour::of(&call.version);
        let fate = mixed(&[self.seed, call.binding as u64, call.id.ms, call.id.seq]);
        let fails = match behaviour {
            Behaviour::Bad => true,
            Behaviour::Good | Behaviour::Slow => {
                let tries = self.ledger.tried(call);
                fate % 1_000 < self.plan.failing_calls && tries <= (fate >> 10) % 3 + 1
            }
        };
        let poison = mixed(&[self.seed, call.message as u64]) % 1_000 < self.plan.poison;
        match (fails, fate >> 20 & 7) {
            _ if poison => Outcome::Broken {
                fault: Fault::Deadline,
                reason: "whoever calls it".to_owned(),
            },
            (false, _) => Outcome::Ok(Effects::default()),
            (true, 0) => Outcome::Reject {
                at,
                reason: "rejected".to_owned(),
            },
            (true, 1 | 2) => Outcome::Broken {
                fault: Fault::Trap,
                reason: "trapped".to_owned(),
            },
            (true, 3) => Outcome::Retry {
                at,
                reason: "in a while".to_owned(),
                after: Some(Duration::from_millis(50)),
            },
            (true, _) => Outcome::Retry {
                at,
                reason: "again".to_owned(),
                after: None,
            },
        }
    }

    fn timed(&mut self, behaviour: Behaviour, outcome: Outcome) -> UserCode {
        let usual = self.plan.call;
        let slow = self.rng.per_mille(self.plan.slow_calls);
        let takes = if slow {
            self.rng.skewed(usual, 400_000)
        } else {
            self.rng.between(usual / 2, usual)
        };
        let takes = match behaviour {
            Behaviour::Slow => takes + self.rng.below(SLOWER_US),
            Behaviour::Good | Behaviour::Bad => takes,
        };
        let stubborn = self.rng.per_mille(self.plan.stubborn_calls);
        let lingers = stubborn.then(|| self.rng.skewed(100, 300_000));
        UserCode {
            takes,
            outcome,
            lingers,
        }
    }
}
