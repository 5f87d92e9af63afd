//! The big guest of `cargo xtask swap --python`: tests/python-guest as a component, made by componentize-py.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cargo::{root, target, watched};
use crate::{cache, say};

/// The component.
pub(crate) fn guest() -> anyhow::Result<PathBuf> {
    let tool = cache::folder("componentize-py", "componentize-py (PyPI, 17 MB)", |into| {
        cache::pip("componentize-py", into)
    })?;
    let source = root().join("tests/python-guest");
    let made = target().join("python-guest");
    let wit = made.join("wit");
    let _ = fs::remove_dir_all(&wit);
    copy(&source.join("number.wit"), &wit.join("number.wit"))?;
    // Its dependencies lie flat in one folder.
    for package in fs::read_dir(root().join("wit/deps"))? {
        let package = package?;
        copy_all(&package.path(), &wit.join("deps").join(package.file_name()))?;
    }
    let handler = root().join("wit/handler.wit");
    copy(&handler, &wit.join("deps/handler/handler.wit"))?;
    let component = made.join("number.wasm");
    say("componentize-py: 10 s or so");
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", &tool)
        .args(["-c", "from componentize_py import script; script()"])
        .arg("-d")
        .arg(&wit)
        .args(["-w", "number", "componentize", "app", "-p"])
        .arg(&source)
        .arg("-o")
        .arg(&component);
    watched(&mut command, "componentize-py")?;
    Ok(component)
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_file() {
        return copy(from, to);
    }
    for file in fs::read_dir(from)? {
        let file = file?;
        copy_all(&file.path(), &to.join(file.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}
