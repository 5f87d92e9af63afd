//! Examples that are projects, as `segmenter new` makes them: copied, perhaps with another source, and built
//! by the command that their own segmenter.toml names, so that what people type is what is tried here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{plain, put};
use crate::cache;
use crate::cargo::target;
use crate::environment::Environment;
use crate::toolchain::Rust;

/// A file, and where in the project it takes a place.
pub(super) type Overlay = (&'static str, &'static str);

pub(super) fn build(
    rust: &mut Option<Rust>,
    example: &Path,
    name: &str,
    overlays: Option<(&Path, &[Overlay])>,
    component: &Path,
) -> anyhow::Result<&'static str> {
    let stage = target().join("guest-build").join("projects").join(name);
    clear(&stage)?;
    copy(example, &stage)?;
    for (file, place) in overlays.map(|(_, overlays)| overlays).into_iter().flatten() {
        let (folder, _) = overlays.context("overlays come from a folder")?;
        fs::copy(folder.join(file), stage.join(place))
            .with_context(|| format!("copying {}", folder.join(file).display()))?;
    }
    if stage.join("Cargo.toml").is_file() {
        // Its own command would build what all have in common again. In the folder that they share, cargo
        // takes two crates of one name for one.
        for file in ["Cargo.toml", "Cargo.lock"] {
            rename(&stage.join(file), &super::name(example), name)?;
        }
        return plain::rust(Rust::once(rust)?, &stage, name, component);
    }
    let project = Project::read(&stage.join("segmenter.toml"))?;
    let environment = Environment::of_toolchains()?;
    let run = |words: &[String]| -> anyhow::Result<()> {
        let (program, args) = words.split_first().context("dev.build names no command")?;
        if !environment.has(program) {
            bail!("{program} is not installed; {}", how_to_get(program));
        }
        let mut command = Command::new(program);
        command.args(args).current_dir(&stage);
        environment.apply(&mut command)?;
        // Of what they tell while all goes well, nothing is of interest.
        cache::quiet(&mut command).map(drop)
    };
    if stage.join("package.json").is_file() {
        run(&["npm", "install", "--silent"].map(str::to_owned))?;
    }
    run(&project.build)?;
    put(&stage.join(&project.module), component)?;
    Ok(match project.build[0].as_str() {
        "make" => "make and zig cc",
        "zig" => "zig build",
        "npm" => "npm and componentize-qjs",
        "python3" => "componentize-py",
        _ => "its own command",
    })
}

fn rename(file: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    fs::write(file, text.replace(from, to)).with_context(|| format!("writing {}", file.display()))
}

fn how_to_get(program: &str) -> &'static str {
    match program {
        "npm" | "node" => {
            "guests in JavaScript need node 18 or later with npm: `apt-get install nodejs npm`, `brew install node`, or https://nodejs.org"
        }
        "make" => "guests in C need make: `apt-get install make`, or `xcode-select --install`",
        "python3" => {
            "guests in Python need Python 3.9 or later with pip: `apt-get install python3-pip`, or https://python.org"
        }
        _ => "put it on the PATH",
    }
}

/// What is asked of a project's segmenter.toml here.
struct Project {
    build: Vec<String>,
    module: PathBuf,
}

impl Project {
    fn read(path: &Path) -> anyhow::Result<Project> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let table: toml::Table =
            toml::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
        let found = || {
            let build = table.get("dev")?.get("build")?.as_array()?;
            let build = build
                .iter()
                .map(|word| Some(word.as_str()?.to_owned()))
                .collect::<Option<Vec<_>>>()?;
            let module = table.get("handler")?.get(0)?.get("module")?.as_str()?;
            Some(Project {
                build,
                module: module.into(),
            })
        };
        found().with_context(|| format!("{}: no dev.build or no module", path.display()))
    }
}

/// What a build leaves in a project's folder, and no source of it.
pub(super) fn is_built(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let built = [
        "target",
        "build",
        "zig-out",
        ".zig-cache",
        "node_modules",
        "package-lock.json",
        "__pycache__",
        ".venv",
    ];
    built.contains(&&*name) || name.ends_with(".wasm")
}

/// Sources that are gone must not linger; what a build keeps to be faster may.
fn clear(stage: &Path) -> anyhow::Result<()> {
    if !stage.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(stage)? {
        let path = entry?.path();
        if is_built(&path) {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Through links: an example's wit/deps are links to the contract.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        if is_built(&path) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &place)?;
        } else {
            fs::copy(&path, &place).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}
