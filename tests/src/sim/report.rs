//! What came of one seed, or of many. Knows numbers; must not know how they came about.

use std::collections::BTreeMap;
use std::fmt;

use super::check::Violation;
use super::mutation::Mutation;
use super::plan::Kind;

/// What one seed gave.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    /// The protection that was taken out.
    pub without: Option<Mutation>,
    pub violation: Option<Violation>,
    /// Virtual.
    pub simulated_us: u64,
    /// From the last fault until everything had settled.
    pub settling_us: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Calls that ended well.
    pub handled: u64,
    /// Leases taken from an owner that had not released them.
    pub takeovers: u64,
    pub faults: BTreeMap<Kind, u64>,
    /// Of the whole trace: the same seed gives the same.
    pub hash: u64,
    pub lines: u64,
    /// Empty unless it was asked for.
    pub trace: Vec<String>,
}

/// Lines of trace that a failure shows.
const LAST_LINES: usize = 60;

impl Report {
    /// What a failure says: the rule, the last lines, and how to see it again.
    pub fn failure(&self) -> Option<String> {
        let Violation { rule, what } = self.violation.as_ref()?;
        let from = self.trace.len().saturating_sub(LAST_LINES);
        let lines = self.trace[from..].join("\n");
        let without = self.without.map_or(String::new(), |mutation| {
            format!(" --without {}", mutation.as_str())
        });
        Some(format!(
            "seed {}: violated: {rule}\n  {what}\nthe last lines of its trace:\n{lines}\nreplay it: cargo xtask sim --seed {} --trace{without}",
            self.seed, self.seed
        ))
    }
}

/// Of many seeds.
#[derive(Debug, Default)]
pub struct Total {
    pub seeds: u64,
    pub simulated_us: u64,
    /// The longest.
    pub settling_us: u64,
    pub requests: u64,
    pub handled: u64,
    pub takeovers: u64,
    pub faults: BTreeMap<Kind, u64>,
    /// Seeds that failed, with the rule.
    pub failed: BTreeMap<u64, &'static str>,
}

impl Total {
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated_us += report.simulated_us;
        self.settling_us = self.settling_us.max(report.settling_us);
        self.requests += report.requests;
        self.handled += report.handled;
        self.takeovers += report.takeovers;
        for (kind, times) in &report.faults {
            *self.faults.entry(*kind).or_default() += times;
        }
        if let Some(violation) = &report.violation {
            self.failed.insert(report.seed, violation.rule);
        }
    }

    pub fn merge(&mut self, other: Total) {
        self.seeds += other.seeds;
        self.simulated_us += other.simulated_us;
        self.settling_us = self.settling_us.max(other.settling_us);
        self.requests += other.requests;
        self.handled += other.handled;
        self.takeovers += other.takeovers;
        for (kind, times) in other.faults {
            *self.faults.entry(kind).or_default() += times;
        }
        self.failed.extend(other.failed);
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3_600_000_000.0;
        writeln!(f, "{:<28} {:>12}", "seeds", self.seeds)?;
        writeln!(f, "{:<28} {hours:>12.1}", "simulated hours")?;
        let settling = self.settling_us as f64 / 1_000_000.0;
        writeln!(f, "{:<28} {settling:>12.1}", "longest settling, seconds")?;
        writeln!(f, "{:<28} {:>12}", "requests to Redis", self.requests)?;
        writeln!(f, "{:<28} {:>12}", "messages handled", self.handled)?;
        writeln!(f, "{:<28} {:>12}", "takeovers", self.takeovers)?;
        for (kind, times) in &self.faults {
            writeln!(f, "{:<28} {times:>12}", format!("fault: {}", kind.as_str()))?;
        }
        write!(f, "{:<28} {:>12}", "seeds that failed", self.failed.len())
    }
}
