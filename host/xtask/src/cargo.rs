//! Cargo: the workspace's folders, and builds that are watched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The workspace's target folder.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo told this program about its own package would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let of_package = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
        ];
        if of_package
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs cargo in front of whoever watches.
pub(crate) fn run(args: &[&str]) -> anyhow::Result<()> {
    watched(cargo().args(args), &format!("cargo {}", args.join(" ")))
}

pub(crate) fn watched(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {what}"))?;
    if !status.success() {
        bail!("`{what}` ended with {status}");
    }
    Ok(())
}

/// The host's binary, optimised.
pub(crate) fn segmenter() -> anyhow::Result<PathBuf> {
    crate::say("building segmenter (release); the first time takes some minutes");
    run(&["build", "--release", "--package", "segmenter"])?;
    Ok(target().join("release").join("segmenter"))
}
