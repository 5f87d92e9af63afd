//! The demo's input: every `.rs` file of every package in Cargo.lock, as messages; and the plain count
//! that the handlers' count is compared with. Knows files; must not know how messages are sent.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cargo::cargo;

/// Bytes of a message's payload.
pub(crate) const PAYLOAD_MAX: usize = 1_048_576;
const WORD: &[u8] = b"unsafe";

/// Lines, `unsafe`s, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    pub(crate) unsafes: u64,
    pub(crate) bytes: u64,
}

impl Counts {
    pub(crate) fn of(text: &[u8]) -> Counts {
        Counts {
            lines: text.iter().filter(|byte| **byte == b'\n').count() as u64,
            unsafes: text
                .windows(WORD.len())
                .filter(|window| *window == WORD)
                .count() as u64,
            bytes: text.len() as u64,
        }
    }

    pub(crate) fn add(&mut self, other: Counts) {
        self.lines += other.lines;
        self.unsafes += other.unsafes;
        self.bytes += other.bytes;
    }
}

#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// `NAME VERSION`.
    pub(crate) package: String,
    /// Relative to the package: what a message's attribute says.
    pub(crate) path: String,
    pub(crate) place: PathBuf,
    pub(crate) bytes: u64,
}

/// All files, packages and paths in order. Cargo fetches packages that are missing.
pub(crate) fn files() -> anyhow::Result<Vec<SourceFile>> {
    let output = cargo()
        .args(["metadata", "--locked", "--format-version", "1"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata --locked ended with {}", output.status);
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("what cargo metadata printed")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    let mut files = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for package in packages {
        let text = |name: &str| package[name].as_str().context("a package without a name");
        let manifest = Path::new(text("manifest_path")?);
        let folder = manifest.parent().context("a manifest without a folder")?;
        let name = format!("{} {}", text("name")?, text("version")?);
        let mut found = Vec::new();
        collect(folder, &mut found)?;
        found.sort();
        for place in found {
            // A workspace member's folder may lie inside another's: a file belongs to the first.
            if !seen.insert(place.clone()) {
                continue;
            }
            let path = place
                .strip_prefix(folder)
                .unwrap_or(&place)
                .to_string_lossy()
                .into_owned();
            let bytes = fs::metadata(&place)?.len();
            files.push(SourceFile {
                package: name.clone(),
                path,
                place,
                bytes,
            });
        }
    }
    Ok(files)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            // What cargo built is no source, and does not last. The name alone does not tell: packages
            // have folders of sources called `target`, too.
            let built = path.join("CACHEDIR.TAG").is_file();
            if !built && entry.file_name() != ".git" {
                collect(&path, found)?;
            }
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// What the files hold, counted plainly.
pub(crate) struct Plain {
    pub(crate) by_package: BTreeMap<String, Counts>,
    /// Of each message, in the order of sending.
    pub(crate) by_message: Vec<Counts>,
}

pub(crate) fn count(files: &[SourceFile]) -> anyhow::Result<Plain> {
    let mut by_package: BTreeMap<String, Counts> = BTreeMap::new();
    let mut by_message = Vec::new();
    for file in files {
        let text =
            fs::read(&file.place).with_context(|| format!("reading {}", file.place.display()))?;
        // Not the sum of its messages: what is cut apart must show.
        let counts = by_package.entry(file.package.clone()).or_default();
        counts.add(Counts::of(&text));
        by_message.extend(pieces(&text, PAYLOAD_MAX).into_iter().map(Counts::of));
    }
    Ok(Plain {
        by_package,
        by_message,
    })
}

/// Cuts behind the last line feed that fits, so that no line and no word is cut apart; a line that is
/// longer than a message is cut where it must be. An empty file is one empty piece.
pub(crate) fn pieces(text: &[u8], max: usize) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > max {
        let end = rest[..max]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(max, |at| at + 1);
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_end_behind_lines_and_lose_nothing() {
        for (text, max, expected) in [
            (&b""[..], 4, vec![&b""[..]]),
            (b"ab\n", 4, vec![b"ab\n"]),
            (b"ab\ncd\nef", 4, vec![b"ab\n", b"cd\n", b"ef"]),
            (b"ab\ncd\nef", 6, vec![b"ab\ncd\n", b"ef"]),
            (b"abcdefghij\nk", 4, vec![b"abcd", b"efgh", b"ij\nk"]),
        ] {
            let cut = pieces(text, max);
            assert_eq!(cut, expected);
            assert_eq!(cut.concat(), text);
        }
    }

    #[test]
    fn a_folder_named_target_is_source_unless_cargo_built_into_it() {
        let root = std::env::temp_dir().join(format!("segmenter-source-{}", std::process::id()));
        for (folder, file) in [
            ("src/target", "apple.rs"),
            ("target", "CACHEDIR.TAG"),
            ("target/debug/build", "generated.rs"),
            (".git", "branch.rs"),
            ("", "lib.rs"),
            ("", "notes.txt"),
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join(file), "").unwrap();
        }
        let mut found = Vec::new();
        let collected = collect(&root, &mut found);
        found.sort();
        fs::remove_dir_all(&root).unwrap();
        collected.unwrap();
        assert_eq!(
            found,
            ["lib.rs", "src/target/apple.rs"].map(|file| root.join(file))
        );
    }

    #[test]
    fn lines_and_words_are_counted() {
        let counts = Counts::of(b"unsafe {\n unsafeunsafe\n}// unsaf");
        assert_eq!(
            counts,
            Counts {
                lines: 2,
                unsafes: 3,
                bytes: 32
            }
        );
    }
}
