//! The simulator's command line: one seed, looked at closely, or many at once. `cargo xtask sim` starts it.
//! Knows arguments and progress; what a seed means is the simulation's.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use segmenter_tests::sim::{self, Mutation, Report, Total};

const USAGE: &str = "usage: sim --seed N [--trace] [--without PROTECTION]
       sim --seeds A..B [--without PROTECTION]
--seed: one seed, twice, which must give the same bytes; --trace: prints all that happened
--seeds: those from A up to B (B excluded), on all cores
--without: a protection is taken out, and some seed must fail:";

enum What {
    One { seed: u64, trace: bool },
    Many(Range<u64>),
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match parse(&args) {
        Some((What::One { seed, trace }, without)) => one(seed, without, trace),
        Some((What::Many(seeds), without)) => many(seeds, without),
        None => {
            eprintln!("{USAGE}");
            for mutation in Mutation::ALL {
                eprintln!("  {}", mutation.as_str());
            }
            ExitCode::from(2)
        }
    }
}

fn parse(args: &[String]) -> Option<(What, Option<Mutation>)> {
    let (mut what, mut trace, mut without) = (None, false, None);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--seed" => {
                let seed = args.next()?.parse().ok()?;
                what = Some(What::One { seed, trace: false });
            }
            "--seeds" => {
                let (from, to) = args.next()?.split_once("..")?;
                what = Some(What::Many(from.parse().ok()?..to.parse().ok()?));
            }
            "--trace" => trace = true,
            "--without" => {
                let name = args.next()?;
                without = Some(Mutation::ALL.into_iter().find(|m| m.as_str() == name)?);
            }
            _ => return None,
        }
    }
    match what? {
        What::One { seed, .. } => Some((What::One { seed, trace }, without)),
        What::Many(seeds) => (!trace && !seeds.is_empty()).then_some((What::Many(seeds), without)),
    }
}

fn one(seed: u64, without: Option<Mutation>, trace: bool) -> ExitCode {
    let report = sim::run(seed, without, true);
    let again = sim::run(seed, without, true);
    if trace {
        let mut out = std::io::stdout().lock();
        for line in &report.trace {
            // Whoever reads may have seen enough.
            if writeln!(out, "{line}").is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
    if report.trace != again.trace {
        let at = std::iter::zip(&report.trace, &again.trace).position(|(a, b)| a != b);
        eprintln!("seed {seed} does not give the same run twice: they differ at line {at:?}");
        return ExitCode::FAILURE;
    }
    if let Some(failure) = report.failure() {
        eprintln!("{failure}");
        return ExitCode::FAILURE;
    }
    let mut total = Total::default();
    total.add(&report);
    println!("{total}");
    println!(
        "seed {seed} holds; twice the same {} lines, hash {:016x}",
        report.lines, report.hash
    );
    ExitCode::SUCCESS
}

fn many(seeds: Range<u64>, without: Option<Mutation>) -> ExitCode {
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Total::default());
    let progress = Progress::new(seeds.end - seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = sim::run(seed, without, false);
                    let mut total = total.lock().expect("no thread panics while it holds it");
                    total.add(&report);
                    progress.show(&total);
                    if report.violation.is_some() {
                        progress.clear();
                        tell(&total, &report, without);
                    }
                }
            });
        }
    });
    progress.clear();
    let total = total.into_inner().expect("no thread panicked");
    println!("{total}");
    println!(
        "{:<28} {:>12.1}",
        format!("seconds on {threads} cores"),
        started.elapsed().as_secs_f64()
    );
    if total.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Failures that are shown whole; what they have in common is seen from a few.
const SHOWN: usize = 3;

fn tell(total: &Total, report: &Report, without: Option<Mutation>) {
    if total.failed.len() <= SHOWN {
        // Again, with its trace: a run that holds must not pay for one.
        let again = sim::run(report.seed, without, true);
        eprintln!("{}\n", again.failure().unwrap_or_default());
    } else if let Some(violation) = &report.violation {
        eprintln!("seed {}: violated: {}", report.seed, violation.rule);
    }
}

/// A bar on a terminal, nothing elsewhere.
struct Progress {
    seeds: u64,
    shown: Option<Mutex<Instant>>,
}

const SHOW_EVERY: Duration = Duration::from_millis(100);
const BAR: u64 = 40;

impl Progress {
    fn new(seeds: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            seeds,
            shown: terminal.then(|| Mutex::new(Instant::now())),
        }
    }

    fn show(&self, total: &Total) {
        let Some(shown) = &self.shown else {
            return;
        };
        let mut shown = shown.lock().expect("no thread panics while it holds it");
        if shown.elapsed() < SHOW_EVERY {
            return;
        }
        *shown = Instant::now();
        let filled = usize::try_from(total.seeds * BAR / self.seeds.max(1)).unwrap_or(0);
        let width = usize::try_from(BAR).unwrap_or(0);
        eprint!(
            "\r{:<width$} {}/{} seeds, {} failed ",
            "█".repeat(filled),
            total.seeds,
            self.seeds,
            total.failed.len()
        );
    }

    fn clear(&self) {
        if self.shown.is_some() {
            eprint!("\r{:<80}\r", "");
        }
    }
}
