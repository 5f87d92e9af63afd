//! Swaps of a handler under load against the same load without; `cargo xtask swap` sets up what it needs.
//! One table, `swap.json`, PASS or FAIL per bound.

mod args;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use segmenter_tests::chaos::swaps::{self, Outcome, Settings};
use segmenter_tests::process;

use args::{Args, USAGE};
use table::Pair;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("error: {why:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let target = std::env::var_os("SEGMENTER_TARGET").unwrap_or_else(|| "target".into());
    let target = PathBuf::from(target);
    let (guest, name) = match &args.big {
        Some(big) => (big.clone(), "big"),
        None => (process::guest("number"), "number"),
    };
    let size = std::fs::metadata(&guest)
        .with_context(|| format!("reading {}", guest.display()))?
        .len();
    println!(
        "guest {name}, {} KiB, three hosts that follow one file, {} messages/s, {} swaps a run, {} pairs of runs",
        size / 1024,
        args.rate,
        args.swaps,
        args.rounds
    );
    let folder = target.join("swap");
    let mut rows = Vec::new();
    for partitions in &args.partitions {
        rows.push(pairs(args, &guest, *partitions, &folder)?);
    }
    println!("\n{}", table::table(&rows));
    let path = target.join("swap.json");
    let bounds = table::Bounds::of(args);
    let text = serde_json::to_string_pretty(&table::to_json(&rows, &bounds))? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    let verdicts = table::verdicts(&rows, &bounds);
    for (held, what) in &verdicts {
        println!("{}  {what}", if *held { "PASS" } else { "FAIL" });
    }
    let held = verdicts.iter().all(|(held, _)| *held);
    if !held {
        println!("logs:  {}", folder.display());
    }
    Ok(held)
}

/// The first run fills the compile cache and counts only for what must never happen.
fn pairs(args: &Args, guest: &Path, partitions: u32, folder: &Path) -> anyhow::Result<table::Row> {
    let one = |swapping: bool, name: String| -> anyhow::Result<Outcome> {
        eprintln!("▸ {partitions} partitions, {name}");
        let settings = Settings {
            guest: guest.to_owned(),
            partitions,
            rate: args.rate,
            swaps: args.swaps,
            swapping,
            folder: folder.join(format!("{partitions}-{}", name.replace(' ', "-"))),
        };
        swaps::run(&settings, &|what| eprintln!("▸   {what}"))
    };
    let cold = one(true, "cold cache".to_owned())?;
    let mut pairs = Vec::new();
    for round in 1..=args.rounds {
        // Which comes first changes, so that what drifts speaks for neither.
        let first = round.is_multiple_of(2);
        let name = |swapping: bool| {
            let how = if swapping { "with" } else { "without" };
            format!("round {round} {how}")
        };
        let one_of = one(first, name(first))?;
        let other = one(!first, name(!first))?;
        let (with, without) = match first {
            true => (one_of, other),
            false => (other, one_of),
        };
        pairs.push(Pair { with, without });
    }
    Ok(table::Row {
        partitions,
        cold,
        pairs,
    })
}
