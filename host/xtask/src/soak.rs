//! The test of the host's memory in its long form. Knows its name; must not know what it does.

use std::ffi::OsString;

use crate::{cargo, say};

/// The selection of `cargo xtask test`, so that nothing is compiled again.
const TEST: &[&str] = &[
    "test",
    "--workspace",
    "--locked",
    "--quiet",
    "--test",
    "memory",
    "--",
    "--nocapture",
];

pub(crate) fn run(calls: u32) -> anyhow::Result<()> {
    say(&format!(
        "soak: {calls} failing calls of each kind, fewer of those that wait"
    ));
    let mut command = cargo::cargo();
    command.args(TEST);
    command.env("SEGMENTER_SOAK_CALLS", OsString::from(calls.to_string()));
    cargo::watched(&mut command, "the host's memory under failing guests")
}
