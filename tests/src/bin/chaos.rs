//! Chaos from the command line; `cargo xtask chaos` sets up what it needs. One run, one table,
//! `chaos.json`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use segmenter_tests::chaos::{self, Kind, Settings};

const USAGE: &str = "usage: chaos [--seed N] [--seconds S] [--partitions P] [--rate MESSAGES_PER_SECOND] [--session-timeout-ms MS] [--without-fence]";

struct Args {
    seed: u64,
    seconds: u64,
    partitions: u32,
    rate: u32,
    session_ms: u64,
    without_fence: bool,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
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

fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Args> {
    let mut args = Args {
        seed: 1,
        seconds: 60,
        partitions: 8,
        rate: 2_000,
        session_ms: 1_000,
        without_fence: false,
    };
    while let Some(word) = words.next() {
        if word == "--without-fence" {
            args.without_fence = true;
            continue;
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word, words.next()),
        };
        let value = value.with_context(|| format!("{flag} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .with_context(|| format!("{flag} {value:?}"))
        };
        match flag.as_str() {
            "--seed" => args.seed = number()?,
            "--seconds" => args.seconds = number()?,
            "--partitions" => args.partitions = u32::try_from(number()?)?,
            "--rate" => args.rate = u32::try_from(number()?)?,
            "--session-timeout-ms" => args.session_ms = number()?,
            _ => anyhow::bail!("{flag} is not known"),
        }
    }
    Ok(args)
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let target = std::env::var_os("SEGMENTER_TARGET").unwrap_or_else(|| "target".into());
    let target = PathBuf::from(target);
    let settings = Settings {
        seed: args.seed,
        seconds: args.seconds,
        partitions: args.partitions,
        rate: args.rate,
        session: Duration::from_millis(args.session_ms),
        kinds: match args.without_fence {
            false => Kind::ALL.to_vec(),
            // Where the fence is all that helps.
            true => vec![Kind::Late],
        },
        without_fence: args.without_fence,
        folder: target.join("chaos"),
    };
    let report = chaos::run(&settings, &|what| eprintln!("▸ {what}"))?;
    println!("\n{}", report.table());
    let path = target.join(match args.without_fence {
        false => "chaos.json",
        true => "chaos-without-fence.json",
    });
    let text = serde_json::to_string_pretty(&report.to_json())? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    if args.without_fence {
        let noticed = report.noticed();
        println!(
            "{}",
            match noticed {
                true => "PASS  without the fence it failed, as it must",
                false =>
                    "FAIL  without the fence nothing was applied twice: the run proves nothing",
            }
        );
        return Ok(noticed);
    }
    if report.held() {
        println!("PASS  seed {}", args.seed);
    } else {
        println!("FAIL  seed {}", args.seed);
        println!(
            "again: cargo xtask chaos --seed {} --seconds {} --partitions {} --rate {} --session-timeout-ms {}",
            args.seed, args.seconds, args.partitions, args.rate, args.session_ms
        );
        println!("logs:  {}", settings.folder.display());
    }
    Ok(report.held())
}
