//! `cargo xtask …`: everything that a person or CI runs. Sets up what it needs, says what it does, and
//! speaks to binaries only: it must not link the host, so that it builds in seconds.

mod bench;
mod cache;
mod cargo;
mod demo;
mod guests;
mod server;
mod servers;
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
        Command::Bench { args } => bench::run(&args),
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
