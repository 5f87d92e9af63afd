//! Everything that CI runs, the cheap parts first; each part's time at the end.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;

use crate::servers::{self, Binary};
use crate::{cargo, guests, say};

type Part = (&'static str, Box<dyn Fn() -> anyhow::Result<String>>);

pub(crate) fn run(only: Option<&str>) -> anyhow::Result<()> {
    let parts: Vec<Part> = vec![
        (
            "fmt",
            Box::new(|| cargo::run(&["fmt", "--all", "--check"]).map(|()| String::new())),
        ),
        (
            "clippy",
            Box::new(|| {
                cargo::run(&[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ])
                .map(|()| String::new())
            }),
        ),
        (
            "guests",
            Box::new(|| guests::build().map(|_| String::new())),
        ),
        (
            "build",
            Box::new(|| tests(&["--no-run"], &[]).map(|()| String::new())),
        ),
        (
            "unit",
            Box::new(|| tests(UNIT, &[]).map(|()| String::new())),
        ),
        ("redis", Box::new(|| on(&servers::redis()?))),
        ("valkey", Box::new(|| on(&servers::valkey()?))),
        ("languages", Box::new(|| languages(&servers::any()?))),
    ];
    if let Some(only) = only
        && !parts.iter().any(|(name, _)| *name == only)
    {
        let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
        bail!("there is no part {only:?}; there are {}", names.join(", "));
    }
    let mut rows = Vec::new();
    let mut failed = None;
    for (name, part) in parts {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        say(&format!("test: {name}"));
        let started = Instant::now();
        let result = part();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(note) => rows.push((name, seconds, "ok", note)),
            Err(error) => {
                rows.push((name, seconds, "FAILED", String::new()));
                failed = Some(error.context(format!("the part {name:?} failed")));
                break;
            }
        }
    }
    println!("\n{:<9} {:>8}  {:<6}", "PART", "SECONDS", "RESULT");
    let total: f64 = rows.iter().map(|(_, seconds, ..)| seconds).sum();
    for (name, seconds, result, note) in rows {
        println!(
            "{}",
            format!("{name:<9} {seconds:>8.0}  {result:<6}  {note}").trim_end()
        );
    }
    println!("{:<9} {total:>8.0}", "total");
    failed.map_or(Ok(()), Err)
}

/// Logic alone, and components that need no server.
const UNIT: &[&str] = &[
    "--lib",
    "--bins",
    "--test",
    "consumer",
    "--test",
    "member",
    "--test",
    "assignor",
    "--test",
    "relay",
    "--test",
    "rollout",
    "--test",
    "components",
    "--test",
    "memory",
    "--test",
    "binary",
    "--test",
    "vectors",
    "--test",
    "simulation",
    "--test",
    "fuzz",
];
/// What is held against a server.
const SERVER: &[&str] = &[
    "--test",
    "conformance",
    "--test",
    "redis_only",
    "--test",
    "end_to_end",
];

/// Always the whole workspace, whatever is run of it: cargo unites the features of what is selected, and
/// another selection would compile wasmtime again.
fn tests(selected: &[&str], env: &[(&str, &OsStr)]) -> anyhow::Result<()> {
    let mut command = cargo::cargo();
    command
        .args(["test", "--workspace", "--locked", "--quiet"])
        .args(selected);
    command.envs(env.iter().copied());
    cargo::watched(
        &mut command,
        &format!("cargo test --workspace {}", selected.join(" ")),
    )
}

/// What toolchains and languages are about, whatever the server is.
fn languages(server: &Binary) -> anyhow::Result<String> {
    let (guests, binary) = places();
    let env = [
        ("SEGMENTER_TEST_SERVER", server.path.as_os_str()),
        ("SEGMENTER_TEST_GUESTS", guests.as_os_str()),
        ("SEGMENTER_TEST_BIN", binary.as_os_str()),
    ];
    tests(&["--test", "languages"], &env)?;
    // The tests wrote it: from an empty folder to a handled message.
    if let Ok(table) = std::fs::read_to_string(cargo::target().join("from-empty.md")) {
        println!("{table}");
    }
    Ok(server.version.clone())
}

/// Guests, and the binary under test.
fn places() -> (PathBuf, PathBuf) {
    let target = cargo::target();
    (target.join("guests"), target.join("debug/segmenter"))
}

/// Conformance and end to end, against one server.
fn on(server: &Binary) -> anyhow::Result<String> {
    say(&format!("tests on {}", server.version));
    let (guests, binary) = places();
    let mut env = vec![
        ("SEGMENTER_TEST_SERVER", server.path.as_os_str()),
        ("SEGMENTER_TEST_GUESTS", guests.as_os_str()),
        ("SEGMENTER_TEST_BIN", binary.as_os_str()),
    ];
    let old = servers::old();
    let note = match &old {
        Ok(old) => {
            env.push(("SEGMENTER_TEST_OLD_SERVER", old.path.as_os_str()));
            format!("{}; {} is refused", server.version, old.version)
        }
        Err(error) => {
            say(&format!(
                "without the test that refuses an old Redis: {error:#}"
            ));
            format!(
                "{}; no old Redis at hand, its refusal was not tested",
                server.version
            )
        }
    };
    tests(SERVER, &env)?;
    // The tests wrote it: what guests did wrong, and what came of it.
    if let Ok(table) = std::fs::read_to_string(cargo::target().join("failures.md")) {
        println!("{table}");
    }
    Ok(note)
}
