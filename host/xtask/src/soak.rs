//! The tests of the host's memory in their long form. Knows their names; must not know what they do.

use crate::{cargo, guests, say, servers};

/// The selection of `cargo xtask test`, so that nothing is compiled again.
const TEST: &[&str] = &["test", "--workspace", "--locked", "--quiet", "--test"];
/// Of the engine alone, in the test's process; then of a real host.
const TESTS: [&[&str]; 2] = [
    &["memory", "--", "--nocapture"],
    &["end_to_end", "--", "--nocapture", "does_not_grow"],
];

pub(crate) fn run(calls: u32) -> anyhow::Result<()> {
    say(&format!(
        "soak: {calls} failures of each kind in a real host; of calls of the engine alone that wait, fewer"
    ));
    let server = servers::valkey()?;
    guests::build()?;
    let segmenter = cargo::segmenter()?;
    for test in TESTS {
        let mut command = cargo::cargo();
        command.args(TEST).args(test);
        command
            .env("SEGMENTER_SOAK_CALLS", calls.to_string())
            .env("SEGMENTER_TEST_SERVER", &server.path)
            .env("SEGMENTER_TEST_BIN", &segmenter);
        cargo::watched(&mut command, "the host's memory under failing guests")?;
    }
    Ok(())
}
