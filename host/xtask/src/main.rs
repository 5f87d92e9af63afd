//! `cargo xtask …`: everything that a person or CI runs. Sets up what it needs, says what it does, and
//! speaks to binaries only: it must not link the host, so that it builds in seconds.

mod cache;
mod cargo;
mod demo;
mod foreign;
mod fuzz;
mod guests;
mod measure;
mod python;
mod server;
mod servers;
mod soak;
mod source;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Segmenter's project commands. What is missing is fetched into $XDG_CACHE_HOME/segmenter.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The main job on real input: the source of every dependency through a handler, compared file by file
    Demo,
    /// Everything that CI runs: fmt, clippy, guests, and the tests on two servers
    Test {
        /// One part alone: fmt, clippy, guests, build, unit, redis, valkey
        #[arg(long, value_name = "PART")]
        only: Option<String>,
    },
    /// Builds guest-examples/ into target/guests/NAME.wasm
    Guests,
    /// Measures against a raw client in the same run, into one table and target/bench.json
    Bench {
        /// Passed on to the benchmark; see `-- --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Real hosts and a real server under faults from a seed, into one table and target/chaos.json
    Chaos {
        /// The same seed plans the same faults
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// How long faults go on
        #[arg(long, default_value_t = 60, value_name = "S")]
        seconds: u64,
        #[arg(long, default_value_t = 8, value_name = "P")]
        partitions: u32,
        /// Messages a second, over all producers
        #[arg(long, default_value_t = 2_000, value_name = "N")]
        rate: u32,
        #[arg(long, default_value_t = 1_000, value_name = "MS")]
        session_timeout_ms: u64,
        /// Proves that a run notices: the commit script loses its fence on the way, and the run must fail by that
        #[arg(long)]
        without_fence: bool,
    },
    /// Swaps a handler under load again and again, against the same load without: latency, stops, counts
    Swap {
        /// An 18 MB Python guest instead (componentize-py from PyPI), whose stops alone are bounded
        #[arg(long)]
        python: bool,
        /// Passed on to the benchmark: --swaps N, --rounds N, --rate N, --partitions P,P
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Simulates groups in virtual time with faults: `--seed N`, or `--seeds A..B` (B excluded)
    Sim {
        /// Passed on to the simulator; without any it says what it takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// What a heartbeat costs and how long a join takes, for up to 100 members and 4,096 partitions
    Scale,
    /// Eight hosts in four groups with nothing to do: nobody is expelled, Redis hardly notices
    Idle {
        #[arg(long, default_value_t = 30.0, value_name = "M")]
        minutes: f64,
    },
    /// Guests that fail 100,000 times in each way, and what the host's memory does meanwhile: minutes
    Soak {
        #[arg(long, default_value_t = 100_000, value_name = "N")]
        calls: u32,
    },
    /// Looks for inputs that break a parser, led by coverage: jsonl, config, entry, replies, component
    Fuzz {
        target: String,
        #[arg(long, default_value_t = 120, value_name = "S")]
        seconds: u64,
    },
    /// A throw-away server on 127.0.0.1:6379 for trying things, until Ctrl-C
    Server {
        #[arg(long, default_value_t = 6379)]
        port: u16,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo => demo::run(),
        Command::Test { only } => test::run(only.as_deref()),
        Command::Guests => guests::build().map(drop),
        Command::Bench { args } => measure::run("bench", &args),
        Command::Chaos {
            seed,
            seconds,
            partitions,
            rate,
            session_timeout_ms,
            without_fence,
        } => {
            let mut args = vec![
                format!("--seed={seed}"),
                format!("--seconds={seconds}"),
                format!("--partitions={partitions}"),
                format!("--rate={rate}"),
                format!("--session-timeout-ms={session_timeout_ms}"),
            ];
            if without_fence {
                args.push("--without-fence".to_owned());
            }
            measure::run("chaos", &args)
        }
        Command::Swap { python, args } => measure::swap(python, args),
        Command::Scale => measure::run("scale", &[]),
        Command::Idle { minutes } => {
            measure::run("idle", &["--minutes".to_owned(), minutes.to_string()])
        }
        Command::Sim { args } => measure::alone("sim", &args),
        Command::Soak { calls } => soak::run(calls),
        Command::Fuzz { target, seconds } => fuzz::run(&target, seconds),
        Command::Server { port } => server::run(port),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What is being done, for whoever watches.
fn say(what: &str) {
    eprintln!("▸ {what}");
}
