//! What `segmenter-tests` measures and drives by programs of its own: sets up server, guests and binary,
//! and hands over to one of them, optimised.

use crate::{cargo, guests, say, servers};

/// With a server, guests and the host's binary.
pub(crate) fn run(program: &str, args: &[String]) -> anyhow::Result<()> {
    let server = servers::any()?;
    let guests = guests::build()?;
    let segmenter = cargo::segmenter()?;
    let mut command = of_tests(program, args);
    command
        .env("SEGMENTER_TEST_SERVER", &server.path)
        .env("SEGMENTER_TEST_GUESTS", guests)
        .env("SEGMENTER_TEST_BIN", &segmenter)
        .env("SEGMENTER_BIN", &segmenter)
        .env("SEGMENTER_TARGET", cargo::target());
    cargo::watched(&mut command, program)
}

/// `python`: a guest that is not among the examples, because its toolchain is only wanted here.
pub(crate) fn swap(python: bool, mut args: Vec<String>) -> anyhow::Result<()> {
    if python {
        let guest = guests::python()?;
        args.push(format!("--big={}", guest.display()));
    }
    run("swap", &args)
}

/// With nothing: the simulator.
pub(crate) fn alone(program: &str, args: &[String]) -> anyhow::Result<()> {
    say(&format!(
        "building {program} (release); the first time takes some minutes"
    ));
    cargo::watched(&mut of_tests(program, args), program)
}

fn of_tests(program: &str, args: &[String]) -> std::process::Command {
    let mut command = cargo::cargo();
    command.args([
        "run",
        "--release",
        "--quiet",
        "--package",
        "segmenter-tests",
    ]);
    command.args(["--bin", program, "--"]).args(args);
    command
}
