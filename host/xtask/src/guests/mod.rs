//! Builds every folder of guest-examples/, and the guests of tests/ but those that [`foreign`] does, into target/guests/NAME.wasm. Knows
//! kinds of folders by the files they have; must not know what a guest does.

mod plain;
mod project;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};

use crate::cargo::{root, target};
use crate::environment::Environment;
use crate::toolchain::Rust;
use crate::{foreign, say};
use project::Overlay;

/// One handler in each language, for tests and the benchmark: the example of that language with one source
/// instead.
const ECHO: &[(&str, &str, &[Overlay])] = &[
    (
        "echo-rust",
        "order-totals",
        &[("lib.rs", "src/lib.rs"), ("world.wit", "wit/world.wit")],
    ),
    ("echo-c", "c-lineproto", &[("handler.c", "src/handler.c")]),
    ("echo-zig", "zig-checksum", &[("main.zig", "src/main.zig")]),
    ("echo-js", "js-reshape", &[("handler.js", "src/handler.js")]),
    (
        "echo-python",
        "py-classify",
        &[
            ("handler.py", "src/handler.py"),
            ("world.wit", "wit/world.wit"),
        ],
    ),
];

/// Returns the folder with the components.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let examples = root().join("guest-examples");
    let out = out()?;
    let mut rust = None;
    for folder in folders(&examples)? {
        let name = name(&folder);
        if folder.join("segmenter.toml").is_file() {
            made(&out, &name, &[&folder], |component| {
                project::build(&mut rust, &folder, &name, None, component)
            })?;
        } else if folder.join("Cargo.toml").is_file() {
            made(&out, &name, &[&folder], |component| {
                plain::rust(Rust::once(&mut rust)?, &folder, &name, component)
            })?;
        } else if folder.join("handler.c").is_file() {
            made(&out, &name, &[&folder], |component| {
                plain::c(&folder, component)
            })?;
        } else if folder.join("README.md").is_file() {
            bail!("{} holds no language that is known here", folder.display());
        }
    }
    let echo = root().join("tests/guests/echo");
    for (name, example, overlays) in ECHO {
        let example = examples.join(example);
        made(&out, name, &[&example, &echo], |component| {
            project::build(
                &mut rust,
                &example,
                name,
                Some((&echo, overlays)),
                component,
            )
        })?;
    }
    foreign::build(&mut rust, &out)?;
    // Tests go through the same steps as people, with the same tools.
    Environment::of_toolchains()?
        .with_rust(Rust::once(&mut rust)?)
        .write(&target().join("toolchains.env"))?;
    Ok(out)
}

/// A guest that only one command wants: tests/python-guest, 18 MB.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    let example = root().join("guest-examples/py-classify");
    let source = root().join("tests/python-guest");
    let overlays: &[Overlay] = &[("app.py", "src/handler.py")];
    let out = out()?;
    made(&out, "python-number", &[&example, &source], |component| {
        project::build(
            &mut None,
            &example,
            "python-number",
            Some((&source, overlays)),
            component,
        )
    })?;
    Ok(out.join("python-number.wasm"))
}

fn out() -> anyhow::Result<PathBuf> {
    let out = target().join("guests");
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    Ok(out)
}

pub(crate) fn folders(parent: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = fs::read_dir(parent)
        .with_context(|| format!("reading {}", parent.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.is_dir()))
        .collect();
    folders.sort();
    Ok(folders)
}

pub(crate) fn name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Makes a component unless it is newer than what it is made of.
fn made(
    out: &Path,
    name: &str,
    sources: &[&Path],
    make: impl FnOnce(&Path) -> anyhow::Result<&'static str>,
) -> anyhow::Result<()> {
    let component = out.join(format!("{name}.wasm"));
    let mut changed = newest(&root().join("wit"))?;
    for source in sources {
        changed = changed.max(newest(source)?);
    }
    if is_newer(&component, changed) {
        say(&format!("guest {name}: up to date"));
        return Ok(());
    }
    let started = Instant::now();
    let how = make(&component).with_context(|| format!("building the guest {name}"))?;
    let size = fs::metadata(&component)?.len() / 1024;
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "guest {name}: {size} KiB with {how} in {seconds:.0} s"
    ));
    Ok(())
}

pub(crate) fn is_newer(component: &Path, than: SystemTime) -> bool {
    let made = fs::metadata(component).and_then(|meta| meta.modified());
    made.is_ok_and(|made| made > than)
}

/// When anything in a folder was changed last, but for what a build of it left there.
pub(crate) fn newest(folder: &Path) -> anyhow::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let changed = if project::is_built(&path) {
            continue;
        } else if path.is_dir() {
            self::newest(&path)?
        } else {
            fs::metadata(&path)?.modified()?
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}

/// Whole or not at all: a test may read it at this moment.
pub(crate) fn put(made: &Path, component: &Path) -> anyhow::Result<()> {
    let temporary = component.with_extension(format!("{}.part", std::process::id()));
    fs::copy(made, &temporary).with_context(|| format!("copying {}", made.display()))?;
    fs::rename(&temporary, component).with_context(|| format!("writing {}", component.display()))
}
