//! How a group grows: what a heartbeat costs Redis, and how long a join takes to settle, by members and
//! partitions. The members are the core's own, many in one process; simulated against the broker in
//! memory, and for real against a server. `cargo xtask scale` sets up what it needs.

mod real;
mod simulated;

use std::process::ExitCode;

/// Members × partitions.
const SIZES: [(usize, u32); 4] = [(10, 64), (100, 64), (10, 4_096), (100, 4_096)];

pub(crate) fn progress(what: &str) {
    eprintln!("▸ {what}");
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (members, partitions) in SIZES {
        progress(&format!(
            "simulated: {members} members x {partitions} partitions"
        ));
        let simulated = simulated::join(members, partitions)?;
        progress(&format!(
            "real: {members} members x {partitions} partitions"
        ));
        rows.push((
            members,
            partitions,
            simulated,
            real::join(members, partitions)?,
        ));
    }
    println!(
        "\n{:>7} {:>10} | {:>9} {:>9} {:>9} | {:>12} {:>9} {:>9} {:>9}",
        "", "", "simulated", "one joins", "", "real", "one joins", "", ""
    );
    println!(
        "{:>7} {:>10} | {:>9} {:>9} {:>9} | {:>12} {:>9} {:>9} {:>9}",
        "MEMBERS",
        "PARTITIONS",
        "MOVES",
        "SYNCS",
        "SETTLE ms",
        "HEARTBEAT µs",
        "MOVES",
        "SYNCS",
        "SETTLE ms"
    );
    for (members, partitions, simulated, real) in &rows {
        println!(
            "{members:>7} {partitions:>10} | {:>9} {:>9} {:>9.0} | {:>12.0} {:>9} {:>9} {:>9.0}",
            simulated.moves,
            simulated.syncs,
            simulated.settle_ms,
            real.heartbeat_us,
            real.join.moves,
            real.join.syncs,
            real.join.settle_ms,
        );
    }
    println!(
        "\nHEARTBEAT: Redis' own time for one heartbeat of a member with nothing new. SETTLE: from the join\nuntil every partition has its owner; simulated with 1 ms per answer."
    );
    let cost = |members, partitions| {
        let row = rows
            .iter()
            .find(|row| (row.0, row.1) == (members, partitions));
        row.map_or(f64::NAN, |row| row.3.heartbeat_us)
    };
    let ratio = cost(100, 4_096) / cost(100, 64);
    println!(
        "64 times the partitions: a heartbeat costs {ratio:.2} times as much; 10 times the members: {:.1} times",
        cost(100, 4_096) / cost(10, 4_096)
    );
    anyhow::ensure!(
        ratio < 2.0,
        "a heartbeat's cost must not grow with the partitions"
    );
    Ok(())
}

/// What one join took.
pub(crate) struct Join {
    /// Partitions that changed their owner.
    pub(crate) moves: usize,
    /// Syncs of all members until it was settled.
    pub(crate) syncs: usize,
    pub(crate) settle_ms: f64,
}
