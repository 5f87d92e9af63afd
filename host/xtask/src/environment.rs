//! What makes fetched toolchains found by whoever types the commands of a README: programs for the PATH, and
//! variables. For builds of guests here, and in a file for the tests that go through those READMEs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cargo::target;
use crate::toolchain::{self, Rust};
use crate::{cache, say};

pub(crate) struct Environment {
    /// At the front of the PATH.
    paths: Vec<PathBuf>,
    variables: Vec<(&'static str, OsString)>,
}

impl Environment {
    /// Of all languages but Rust. Fetches what is missing.
    pub(crate) fn of_toolchains() -> anyhow::Result<Environment> {
        let bin = target().join("toolchains");
        fs::create_dir_all(&bin).with_context(|| format!("creating {}", bin.display()))?;
        let (zig, wasm_tools) = (toolchain::zig()?, toolchain::wasm_tools()?);
        link(&zig, &bin.join("zig"))?;
        link(&wasm_tools, &bin.join("wasm-tools"))?;
        // Where pip looks what there is, too: it installs nothing that lies here.
        let packages = [
            toolchain::componentize_py()?,
            cache::folder_of(&zig, "zig")?,
            cache::folder_of(&wasm_tools, "wasm-tools")?,
        ];
        let npm = cache::root()?.join("npm");
        Ok(Environment {
            paths: vec![bin],
            variables: vec![
                ("ZIG_GLOBAL_CACHE_DIR", toolchain::zig_cache()?.into()),
                ("PYTHONPATH", std::env::join_paths(packages)?),
                ("PYTHONDONTWRITEBYTECODE", "1".into()),
                ("PIP_DISABLE_PIP_VERSION_CHECK", "1".into()),
                ("npm_config_cache", npm.into()),
                ("npm_config_prefer_offline", "true".into()),
                ("npm_config_audit", "false".into()),
                ("npm_config_fund", "false".into()),
                ("npm_config_update_notifier", "false".into()),
            ],
        })
    }

    pub(crate) fn with_rust(mut self, rust: &Rust) -> Environment {
        let (paths, variables) = rust.environment();
        self.paths.extend(paths);
        self.variables.extend(variables);
        self
    }

    fn path(&self) -> anyhow::Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = self.paths.iter().cloned();
        Ok(std::env::join_paths(
            paths.chain(std::env::split_paths(&path)),
        )?)
    }

    /// Whether there is such a program.
    pub(crate) fn has(&self, program: &str) -> bool {
        self.path().is_ok_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        })
    }

    pub(crate) fn apply(&self, command: &mut Command) -> anyhow::Result<()> {
        command.env("PATH", self.path()?);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(())
    }

    /// A line `NAME=VALUE` each. `PATH` has only what comes in front of the reader's own.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let path = std::env::join_paths(&self.paths)?;
        let path: (&str, &OsStr) = ("PATH", &path);
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()));
        let lines: String = std::iter::once(path)
            .chain(variables)
            .map(|(name, value)| format!("{name}={}\n", value.to_string_lossy()))
            .collect();
        fs::write(file, lines).with_context(|| format!("writing {}", file.display()))
    }
}

/// Zig finds its library beside what the link leads to.
fn link(to: &Path, from: &Path) -> anyhow::Result<()> {
    if fs::read_link(from).is_ok_and(|there| there == to) {
        return Ok(());
    }
    let _ = fs::remove_file(from);
    match std::os::unix::fs::symlink(to, from) {
        // Another process was first.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            say(&format!("{} was made meanwhile", from.display()));
            Ok(())
        }
        other => other.with_context(|| format!("linking {}", from.display())),
    }
}
