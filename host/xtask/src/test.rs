//! Everything that CI runs, the cheap parts first; each part's time at the end.

use std::process::Command;
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
            "unit",
            Box::new(|| unit(&["segmenter-core", "segmenter-redis", "segmenter", "xtask"])),
        ),
        ("wasm", Box::new(|| unit(&["segmenter-wasm"]))),
        ("redis", Box::new(|| on(&servers::redis()?))),
        ("valkey", Box::new(|| on(&servers::valkey()?))),
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
    println!("\n{:<8} {:>8}  {:<6}", "PART", "SECONDS", "RESULT");
    let total: f64 = rows.iter().map(|(_, seconds, ..)| seconds).sum();
    for (name, seconds, result, note) in rows {
        println!(
            "{}",
            format!("{name:<8} {seconds:>8.0}  {result:<6}  {note}").trim_end()
        );
    }
    println!("{:<8} {total:>8.0}", "total");
    failed.map_or(Ok(()), Err)
}

fn unit(packages: &[&str]) -> anyhow::Result<String> {
    let mut args = vec!["test", "--locked", "--quiet"];
    for package in packages {
        args.extend(["--package", package]);
    }
    cargo::run(&args)?;
    Ok(String::new())
}

/// Conformance and end to end, against one server.
fn on(server: &Binary) -> anyhow::Result<String> {
    say(&format!("tests on {}", server.version));
    let mut command: Command = cargo::cargo();
    command
        .args([
            "test",
            "--locked",
            "--quiet",
            "--package",
            "segmenter-tests",
        ])
        .env("SEGMENTER_TEST_SERVER", &server.path)
        .env("SEGMENTER_TEST_GUESTS", cargo::target().join("guests"));
    let mut note = server.version.clone();
    match servers::old() {
        Ok(old) => {
            command.env("SEGMENTER_TEST_OLD_SERVER", &old.path);
            note += &format!("; {} is refused", old.version);
        }
        Err(error) => {
            say(&format!(
                "without the test that refuses an old Redis: {error:#}"
            ));
            note += "; no old Redis at hand, its refusal was not tested";
        }
    }
    cargo::watched(&mut command, "cargo test --package segmenter-tests")?;
    Ok(note)
}
