//! The simulator: `segmenter-tests`' `sim`, optimised. It needs no server and no guests.

use crate::{cargo, say};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    say("building the simulator (release); the first time takes some minutes");
    let mut command = cargo::cargo();
    command
        .args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "segmenter-tests",
            "--bin",
            "sim",
            "--",
        ])
        .args(args);
    cargo::watched(&mut command, "the simulator")
}
