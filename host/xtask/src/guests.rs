//! Builds every folder of guest-examples/ into target/guests/NAME.wasm. Knows languages by the files
//! they have; must not know what a guest does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};

use crate::cargo::{root, target, watched};
use crate::toolchain::{self, RUST_TARGET, Rust};
use crate::{cache, foreign, say};

/// Returns the folder with the components.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let out = target().join("guests");
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let mut rust = None;
    for folder in folders(&root().join("guest-examples"))? {
        let name = name(&folder);
        let component = out.join(format!("{name}.wasm"));
        let newest = newest(&folder)?.max(newest(&root().join("wit"))?);
        if is_newer(&component, newest) {
            say(&format!("guest {name}: up to date"));
            continue;
        }
        let started = Instant::now();
        let how = if folder.join("Cargo.toml").is_file() {
            let rust = self::rust(&mut rust)?;
            build_rust(rust, &folder, &name, &component)?;
            rust.name()
        } else if folder.join("handler.c").is_file() {
            build_c(&folder, &component)?;
            "zig cc"
        } else if folder.join("README.md").is_file() {
            bail!("{} holds no language that is known here", folder.display());
        } else {
            continue;
        };
        let size = fs::metadata(&component)?.len() / 1024;
        let seconds = started.elapsed().as_secs_f64();
        say(&format!(
            "guest {name}: {size} KiB with {how} in {seconds:.0} s"
        ));
    }
    foreign::build(&mut rust, &out)?;
    Ok(out)
}

pub(crate) fn folders(of: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = fs::read_dir(of)
        .with_context(|| format!("reading {}", of.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.is_dir()))
        .collect();
    folders.sort();
    Ok(folders)
}

pub(crate) fn name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

pub(crate) fn is_newer(component: &Path, than: SystemTime) -> bool {
    let made = fs::metadata(component).and_then(|meta| meta.modified());
    made.is_ok_and(|made| made > than)
}

/// Looks for the toolchain once.
pub(crate) fn rust(found: &mut Option<Rust>) -> anyhow::Result<&Rust> {
    match found {
        Some(rust) => Ok(rust),
        None => Ok(found.insert(Rust::find()?)),
    }
}

/// When anything in a folder was changed last.
pub(crate) fn newest(folder: &Path) -> anyhow::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let changed = if path.is_dir() {
            if path.file_name().is_some_and(|name| name == "target") {
                continue;
            }
            self::newest(&path)?
        } else {
            fs::metadata(&path)?.modified()?
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}

fn build_rust(rust: &Rust, folder: &Path, name: &str, component: &Path) -> anyhow::Result<()> {
    let scratch = target().join("guest-build");
    rust.build(folder, &scratch)?;
    let made = scratch
        .join(RUST_TARGET)
        .join("release")
        .join(format!("{}.wasm", name.replace('-', "_")));
    put(&made, component)
}

/// handler.c with its bindings → a core module → a component. The bindings carry the world.
fn build_c(folder: &Path, component: &Path) -> anyhow::Result<()> {
    let (zig, wasm_tools) = (toolchain::zig()?, toolchain::wasm_tools()?);
    let scratch = target().join("guest-build").join("c");
    fs::create_dir_all(&scratch)?;
    let core = scratch.join("core.wasm");
    let made = scratch.join("component.wasm");
    let mut compile = Command::new(zig);
    compile
        .args([
            "cc",
            "-target",
            "wasm32-wasi",
            "-mexec-model=reactor",
            "-Os",
            "-Wall",
            "-Werror",
            "-s",
        ])
        .args([
            "handler.c",
            "bindings/message_handler.c",
            "bindings/message_handler_component_type.o",
            "-o",
        ])
        .arg(&core)
        .current_dir(folder)
        .env("ZIG_GLOBAL_CACHE_DIR", cache::root()?.join("zig-cache"))
        .env("ZIG_LOCAL_CACHE_DIR", scratch.join("zig-cache"));
    watched(&mut compile, "zig cc")?;
    let mut make = Command::new(wasm_tools);
    make.args(["component", "new"])
        .arg(&core)
        .arg("-o")
        .arg(&made);
    watched(&mut make, "wasm-tools component new")?;
    put(&made, component)
}

/// Whole or not at all: a test may read it at this moment.
pub(crate) fn put(made: &Path, component: &Path) -> anyhow::Result<()> {
    let temporary = component.with_extension(format!("{}.part", std::process::id()));
    fs::copy(made, &temporary).with_context(|| format!("copying {}", made.display()))?;
    fs::rename(&temporary, component).with_context(|| format!("writing {}", component.display()))
}
