//! `new`: a project in an empty folder, which builds, is tested and runs as it is. Writes files and nothing
//! else: it runs no tool and talks to no server.

mod project_name;
mod templates;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;

use super::Usage;
use super::args::{Global, NewArgs};
use crate::output::Format;
pub(super) use project_name::ProjectName;
use templates::CONTRACT;
pub(super) use templates::Lang;

pub(super) fn run(global: &Global, args: NewArgs) -> anyhow::Result<ExitCode> {
    let NewArgs { dir, lang, name } = args;
    let name = match name {
        Some(name) => name,
        None => of_folder(&dir)?,
    };
    must_be_free(&dir)?;
    let template = lang.template();
    let mut written = Vec::new();
    for file in template.files.iter().chain(CONTRACT) {
        write(
            &dir.join(file.path),
            &name.put_into(file.bytes, template.name),
        )
        .with_context(|| format!("the project in {} is not whole", dir.display()))?;
        written.push(file.path);
    }

    let mut out = global.out();
    match out.format {
        Format::Json => out.object(&json!({
            "dir": dir.display().to_string(),
            "name": name.as_str(),
            "files": written,
            "next": template.next,
        }))?,
        Format::Human => {
            out.line(&format!(
                "{} in {}: {} files, README.md first",
                name.as_str(),
                dir.display(),
                written.len()
            ))?;
            out.line(
                "\nNext (a Redis is needed for the last two; `segmenter.toml` says where):\n",
            )?;
            out.line(&format!("  cd {}", quoted(&dir.display().to_string())))?;
            for command in template.next {
                out.line(&format!("  {command}"))?;
            }
            out.line("\nREADME.md tells how to test it without a Redis, and what to change.")?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A project is called like its folder.
fn of_folder(dir: &Path) -> anyhow::Result<ProjectName> {
    // `.` and `..` have no name of their own.
    let whole = std::path::absolute(dir).with_context(|| format!("finding {}", dir.display()))?;
    let whole = fs::canonicalize(&whole).unwrap_or(whole);
    let last = whole.file_name().unwrap_or_default().to_string_lossy();
    let name =
        ProjectName::new(&last).map_err(|why| Usage(format!("{why}; give one with --name")))?;
    Ok(name)
}

/// Nothing there, or an empty folder.
fn must_be_free(dir: &Path) -> anyhow::Result<()> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            bail!(
                "{} is a file; name a folder that is empty or not there",
                dir.display()
            )
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", dir.display())),
    };
    match entries.next() {
        None => Ok(()),
        Some(entry) => {
            let inside = entry.map(|entry| entry.file_name()).unwrap_or_default();
            bail!(
                "{} is not empty: {:?} is in it. Nothing was written; name a folder that is empty or not there",
                dir.display(),
                inside
            )
        }
    }
}

/// A new file: one that somebody else made meanwhile stays as it is.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let file = fs::File::create_new(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
        .with_context(|| format!("writing {}", path.display()))
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
