//! Fuzzing led by coverage: cargo-fuzz over `tests/fuzz`. What the tests run bounded runs here for as
//! long as one likes. New inputs go to target/fuzz; only what found something belongs in the corpus.

use std::fs;

use anyhow::{Context, bail};

use crate::cargo::{cargo, root, target, watched};
use crate::{cache, say};

const CARGO_FUZZ: &str = "cargo-fuzz@0.13.2";
/// Bytes of the longest input.
const INPUT_BYTES_MAX: u32 = 65_536;
/// One input that takes longer is a finding.
const INPUT_SECONDS_MAX: u32 = 20;

pub(crate) fn run(name: &str, seconds: u64) -> anyhow::Result<()> {
    let here = root().join("tests/fuzz");
    let mut targets: Vec<String> = fs::read_dir(here.join("fuzz_targets"))?
        .filter_map(|file| {
            Some(
                file.ok()?
                    .path()
                    .file_stem()?
                    .to_string_lossy()
                    .into_owned(),
            )
        })
        .collect();
    targets.sort();
    if !targets.iter().any(|target| target == name) {
        bail!(
            "there is no target {name:?}; there are {}",
            targets.join(", ")
        );
    }
    let program = cache::folder("cargo-fuzz", CARGO_FUZZ, |into| {
        let mut install = cargo();
        install.args(["install", "--locked", "--root"]);
        cache::quiet(install.arg(into).arg(CARGO_FUZZ)).map(drop)
    })?
    .join("bin/cargo-fuzz");
    let work = target().join("fuzz");
    let (found, failed) = (
        work.join("corpus").join(name),
        work.join("failed").join(name),
    );
    for folder in [&found, &failed] {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    say(&format!(
        "fuzzing {name} for {seconds} s; the first build takes some minutes"
    ));
    let mut command = std::process::Command::new(program);
    command
        .current_dir(root())
        // Coverage needs flags that rustc calls unstable; any toolchain has them.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", "run", "--fuzz-dir"])
        .arg(&here)
        .arg("--target-dir")
        .arg(work.join("build"))
        // Our code has no unsafe: panics, hangs and memory are what there is to find.
        .args(["--sanitizer", "none", "--debug-assertions", name])
        .args([&found, &here.join("corpus").join(name)])
        .arg("--")
        .arg(format!("-artifact_prefix={}/", failed.display()))
        .args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={INPUT_BYTES_MAX}"),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            "-print_final_stats=1".to_owned(),
        ]);
    watched(&mut command, &format!("cargo fuzz run {name}")).with_context(|| {
        format!(
            "if an input failed, it lies in {}; put it into {}, where the tests try it",
            failed.display(),
            here.join("corpus").join(name).display()
        )
    })
}
