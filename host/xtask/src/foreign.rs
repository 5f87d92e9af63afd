//! Builds every folder of tests/foreign/ into target/guests/foreign-NAME.wasm: components as another host's
//! toolchain makes them. Knows where a package keeps its example; must not know what a component does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cargo::{cargo, root, target};
use crate::guests::{self, newest, put};
use crate::say;
use crate::toolchain::{RUST_TARGET, Rust};

/// Whose source is the first example in the documentation of a package that it depends on: the folder, the
/// package.
const EXAMPLES: [(&str, &str); 1] = [("spin-redis", "spin-macro")];

pub(crate) fn build(rust: &mut Option<Rust>, out: &Path) -> anyhow::Result<()> {
    for folder in guests::folders(&root().join("tests/foreign"))? {
        let name = guests::name(&folder);
        let component = out.join(format!("foreign-{name}.wasm"));
        let newest = newest(&folder)?.max(newest(&root().join("wit/foreign"))?);
        if guests::is_newer(&component, newest) {
            say(&format!("guest foreign-{name}: up to date"));
            continue;
        }
        let scratch = target().join("guest-build");
        let example = EXAMPLES.iter().find(|(of, _)| *of == name);
        let source = match example {
            Some((_, package)) => with_example(&folder, &scratch.join("foreign"), &name, package)?,
            None => folder,
        };
        let rust = guests::rust(rust)?;
        rust.build(&source, &scratch)?;
        let file = format!("{}.wasm", name.replace('-', "_"));
        put(
            &scratch.join(RUST_TARGET).join("release").join(file),
            &component,
        )?;
        let size = fs::metadata(&component)?.len() / 1024;
        say(&format!(
            "guest foreign-{name}: {size} KiB with {}",
            rust.name()
        ));
    }
    Ok(())
}

/// A copy of the crate with the package's example as its source, as it stands there.
fn with_example(
    folder: &Path,
    scratch: &Path,
    name: &str,
    package: &str,
) -> anyhow::Result<PathBuf> {
    let copy = scratch.join(name);
    let source = copy.join("src/lib.rs");
    fs::create_dir_all(copy.join("src")).with_context(|| format!("creating {}", copy.display()))?;
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(folder.join(file), copy.join(file)).with_context(|| format!("copying {file}"))?;
    }
    // Cargo wants one before it tells where packages lie.
    fs::write(&source, "").with_context(|| format!("writing {}", source.display()))?;
    let manifest = manifest(&copy, package)?;
    let documented = manifest.with_file_name("src").join("lib.rs");
    let text = fs::read_to_string(&documented)
        .with_context(|| format!("reading {}", documented.display()))?;
    let example = example(&text)
        .with_context(|| format!("{} has no example any more", documented.display()))?;
    fs::write(&source, example).with_context(|| format!("writing {}", source.display()))?;
    Ok(copy)
}

/// Where cargo has put a package that the crate in `folder` depends on.
fn manifest(folder: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command
        .current_dir(folder)
        .args(["metadata", "--format-version", "1", "--locked"]);
    let said = command.output().context("starting cargo metadata")?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr);
        bail!("`cargo metadata` in {} says: {why}", folder.display());
    }
    let known: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    let packages = known["packages"].as_array().into_iter().flatten();
    let path = packages
        .filter(|known| known["name"] == package)
        .find_map(|known| known["manifest_path"].as_str());
    Ok(path
        .with_context(|| format!("{} does not depend on {package}", folder.display()))?
        .into())
}

/// The first example in documentation, with the lines that are not shown there.
fn example(text: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("///"));
    lines.find(|line| line.trim_start().starts_with("```"))?;
    let mut example = String::new();
    for line in lines {
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line.starts_with("```") {
            return Some(example);
        }
        let line = if line == "#" { "" } else { line };
        example.push_str(line.strip_prefix("# ").unwrap_or(line));
        example.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_example_is_found_with_its_hidden_lines() {
        let text = "//! ```\n//! no\n//! ```\nuse x;\n/// What it is.\n///\n/// ```ignore\n/// # use a;\n/// #\n\
            /// #[handler]\n/// fn f() {\n///     b()\n/// }\n/// ```\n///\n/// ```\n/// other\n/// ```\nfn f() {}\n";
        let expected = "use a;\n\n#[handler]\nfn f() {\n    b()\n}\n";
        assert_eq!(example(text).as_deref(), Some(expected));
        assert_eq!(example("/// ```\n/// no end\n"), None);
        assert_eq!(example("fn f() {}"), None);
    }
}
