//! Deterministic simulation: the shipping core (`Member`, `Consumer`) against the broker in memory, in
//! virtual time, with every fault that the plan of a seed names. Judged by what handlers did and by what
//! log and lease hold. One seed gives one run, byte for byte.
//!
//! ```text
//!   plan ──▶ world ──▶ host ──▶ supervisor ──▶ worker ──▶ user        check/*
//!  (seed)      │        (mirrors of the shells, which decide nothing)    ▲
//!              └──▶ producer ──▶ net ──▶ redis ── effects, calls ───▶ ledger
//! ```

mod check;
mod clock;
mod faults;
mod host;
mod ledger;
mod mutation;
mod net;
mod operator;
mod plan;
mod prepare;
mod producer;
mod reader;
mod redis;
mod relay;
mod report;
mod rng;
mod rollout;
mod supervisor;
mod swap;
mod trace;
mod user;
mod worker;
mod world;

pub use check::Violation;
pub use mutation::Mutation;
pub use plan::Kind;
pub use report::{Report, Total};
pub use rollout::{RolloutMutation, RolloutReport, run as run_rollout};

use world::World;

/// One seed, from beginning to end. `mutation`: a protection that is taken out.
pub fn run(seed: u64, mutation: Option<Mutation>, keep_trace: bool) -> Report {
    let mut world = World::new(seed, mutation, keep_trace);
    world.run();
    world.report()
}

impl World {
    fn report(self) -> Report {
        let (hash, lines, trace) = self.trace.into_parts();
        Report {
            seed: self.seed,
            without: self.mutation,
            violation: self.violation,
            simulated_us: self.now,
            settling_us: self.now.saturating_sub(self.plan.faults_until),
            requests: self.counts.messages,
            handled: self.ledger.handled_at_all(),
            takeovers: self.checks.takeovers(),
            faults: self.counts.faults,
            hash,
            lines,
            trace,
        }
    }
}
