//! Chaos: sets up server, guests and binary, and hands over to `segmenter-tests`' `chaos`.

use crate::{cargo, guests, servers};

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let server = servers::any()?;
    let guests = guests::build()?;
    let segmenter = cargo::segmenter()?;
    let mut command = cargo::cargo();
    command
        .args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "segmenter-tests",
            "--bin",
            "chaos",
            "--",
        ])
        .args(args)
        .env("SEGMENTER_TEST_SERVER", &server.path)
        .env("SEGMENTER_TEST_GUESTS", guests)
        .env("SEGMENTER_TEST_BIN", segmenter)
        .env("SEGMENTER_TARGET", cargo::target());
    cargo::watched(&mut command, "chaos")
}
