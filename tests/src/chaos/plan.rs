//! From a seed to a list of faults with their times: pure, the same seed gives the same plan. It must not
//! know how a fault is carried out; whom it hits is drawn when its time comes, among those who live.

use std::time::Duration;

use super::chance::Chance;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// kill -9; another host joins some time after.
    Kill,
    /// kill -9, and at once a new start with the same member id.
    Revive,
    /// SIGSTOP for three session timeouts, then SIGCONT.
    Pause,
    /// SIGTERM.
    Leave,
    /// One more host.
    Join,
    /// Joins and leaves before the group has settled.
    Churn,
    /// The server is killed with -9, stays away, and comes back with its append-only file.
    Redis,
    /// A host's bytes arrive late, both ways.
    Delay,
    /// A host's connections break in mid-frame, several times.
    Cut,
    /// A host's bytes arrive nowhere, connections stay open.
    Blackhole,
    /// A host's commit is held back, with what it says behind it, until another has taken over, and that one
    /// is slow: it arrives before the new owner has committed anything.
    Late,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Kill,
        Kind::Revive,
        Kind::Pause,
        Kind::Leave,
        Kind::Join,
        Kind::Churn,
        Kind::Redis,
        Kind::Delay,
        Kind::Cut,
        Kind::Blackhole,
        Kind::Late,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Revive => "kill and restart",
            Kind::Pause => "pause",
            Kind::Leave => "leave",
            Kind::Join => "join",
            Kind::Churn => "churn",
            Kind::Redis => "redis restart",
            Kind::Delay => "delay",
            Kind::Cut => "cut",
            Kind::Blackhole => "blackhole",
            Kind::Late => "late commit",
        }
    }

    /// What the group does then is measured, so nothing else may happen at the same time.
    fn is_measured(self) -> bool {
        matches!(self, Kind::Kill | Kind::Leave | Kind::Join)
    }

    fn lasts(self, session: Duration, chance: &mut Chance) -> Duration {
        let tenths = |chance: &mut Chance, low, high| {
            session * u32::try_from(chance.between(low, high)).expect("small") / 10
        };
        match self {
            Kind::Kill => session + Duration::from_millis(1_500),
            Kind::Revive | Kind::Leave | Kind::Join => Duration::from_millis(1_500),
            Kind::Pause => session * 3,
            Kind::Churn => Duration::from_millis(3_000),
            Kind::Redis => tenths(chance, 1, 25),
            Kind::Delay => Duration::from_millis(2_000),
            Kind::Cut => Duration::from_millis(900),
            Kind::Blackhole => tenths(chance, 15, 30),
            // Until another takes over, and some round trips.
            Kind::Late => session * 2,
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// From the start of the faults.
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    /// For what is drawn when its time comes.
    pub(super) pick: u64,
}

/// Before the first fault, and so long is nothing but load.
const WARM_UP: Duration = Duration::from_millis(2_000);
/// After a session timeout, until the group has settled, and for the time that a measured fault is
/// compared with.
const SETTLE: Duration = Duration::from_millis(2_000);

/// All `kinds` in an order of their own, again and again while there is time. About a third of those
/// that are not measured begin before the one in front has ended.
pub(super) fn plan(seed: u64, seconds: u64, session: Duration, kinds: &[Kind]) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let end = Duration::from_secs(seconds);
    let mut steps: Vec<Step> = Vec::new();
    let (mut quiet_at, mut at) = (WARM_UP, WARM_UP);
    loop {
        let mut round = kinds.to_vec();
        chance.shuffle(&mut round);
        for kind in round {
            let lasts = kind.lasts(session, &mut chance);
            let before = steps.last();
            let piles_up = !kind.is_measured()
                && before.is_some_and(|before| !before.kind.is_measured())
                && chance.between(1, 3) == 1;
            at = match before {
                Some(before) if piles_up => {
                    let inside = u64::try_from(before.lasts.as_millis()).expect("short");
                    at.max(before.at + Duration::from_millis(chance.between(0, inside)))
                }
                _ => at.max(quiet_at),
            };
            if at + lasts > end {
                return steps;
            }
            quiet_at = quiet_at.max(at + lasts + session + SETTLE);
            let pick = chance.draw();
            steps.push(Step {
                kind,
                at,
                lasts,
                pick,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(1);

    #[test]
    fn the_same_seed_plans_the_same_and_another_another() {
        let of = |seed| plan(seed, 60, SESSION, &Kind::ALL);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_minute_has_every_kind_in_the_order_of_time_and_measured_ones_are_alone() {
        for seed in 0..200 {
            let steps = plan(seed, 60, SESSION, &Kind::ALL);
            for kind in Kind::ALL {
                let found = steps.iter().any(|step| step.kind == kind);
                assert!(found, "seed {seed} has no {}", kind.name());
            }
            assert!(steps.is_sorted_by_key(|step| step.at), "seed {seed}");
            for (n, step) in steps.iter().enumerate() {
                assert!(step.at + step.lasts <= Duration::from_secs(60));
                let others = steps.iter().enumerate().filter(|(other, _)| *other != n);
                let alone = others.into_iter().all(|(_, other)| {
                    other.at + other.lasts < step.at || other.at > step.at + step.lasts
                });
                assert!(alone || !step.kind.is_measured(), "seed {seed}: {step:?}");
            }
        }
    }

    #[test]
    fn some_faults_meet() {
        let steps = plan(1, 300, SESSION, &Kind::ALL);
        let meet = |pair: &[Step]| pair[1].at < pair[0].at + pair[0].lasts;
        assert!(steps.windows(2).any(meet));
    }
}
