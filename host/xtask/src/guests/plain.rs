//! Examples that are a source and nothing else: no project of their own, so that what builds them is here.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::put;
use crate::cargo::{target, watched};
use crate::toolchain::{self, RUST_TARGET, Rust};

/// A crate. All share one target folder: what they have in common is built once.
pub(super) fn rust(
    rust: &Rust,
    folder: &Path,
    name: &str,
    component: &Path,
) -> anyhow::Result<&'static str> {
    let scratch = target().join("guest-build");
    rust.build(folder, &scratch)?;
    let made = scratch
        .join(RUST_TARGET)
        .join("release")
        .join(format!("{}.wasm", name.replace('-', "_")));
    put(&made, component)?;
    Ok(rust.name())
}

/// handler.c with its bindings → a core module → a component. The bindings carry the world.
pub(super) fn c(folder: &Path, component: &Path) -> anyhow::Result<&'static str> {
    let scratch = target().join("guest-build").join("c");
    fs::create_dir_all(&scratch)?;
    let core = scratch.join("core.wasm");
    let made = scratch.join("component.wasm");
    let mut compile = Command::new(toolchain::zig()?);
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
        .env("ZIG_GLOBAL_CACHE_DIR", toolchain::zig_cache()?)
        .env("ZIG_LOCAL_CACHE_DIR", scratch.join("zig-cache"));
    watched(&mut compile, "zig cc")?;
    let mut make = Command::new(toolchain::wasm_tools()?);
    make.args(["component", "new"])
        .arg(&core)
        .arg("-o")
        .arg(&made);
    watched(&mut make, "wasm-tools component new")?;
    put(&made, component)?;
    Ok("zig cc")
}
