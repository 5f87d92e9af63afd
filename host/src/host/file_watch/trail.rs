//! Which entries of which folders decide what a path leads to: the file itself, and every symlink on the
//! way. It must not know what happens when one of them changes.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Symlinks that are followed; more are a circle.
const LINKS_MAX: usize = 40;

/// Paths here have no symlink in their folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trail {
    /// Symlinks, and the first entry that is missing.
    pub(super) links: BTreeSet<PathBuf>,
    /// Where it ends.
    pub(super) file: PathBuf,
}

impl Trail {
    /// Of an absolute path, as it leads now.
    pub(super) fn of(path: &Path) -> Trail {
        let mut links = BTreeSet::new();
        let mut at = PathBuf::new();
        let mut followed = 0;
        let mut missing = false;
        let mut rest = parts(path);
        while let Some(part) = rest.pop_front() {
            match part {
                Part::Up => {
                    at.pop();
                }
                Part::Root(root) => at = root,
                Part::Name(name) => {
                    at.push(name);
                    let link = std::fs::read_link(&at);
                    match link {
                        Ok(to) if followed < LINKS_MAX => {
                            followed += 1;
                            links.insert(at.clone());
                            at.pop();
                            for part in parts(&to).into_iter().rev() {
                                rest.push_front(part);
                            }
                        }
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !missing => {
                            missing = true;
                            links.insert(at.clone());
                        }
                        _ => {}
                    }
                }
            }
        }
        Trail { links, file: at }
    }

    /// Where its entries lie.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        let entries = self.links.iter().chain([&self.file]);
        let folders = entries.filter_map(|entry| entry.parent());
        folders.map(Path::to_path_buf).collect()
    }
}

enum Part {
    Root(PathBuf),
    Up,
    Name(OsString),
}

fn parts(path: &Path) -> VecDeque<Part> {
    let parts = path.components().filter_map(|part| match part {
        Component::Prefix(prefix) => Some(Part::Root(prefix.as_os_str().into())),
        Component::RootDir => Some(Part::Root(PathBuf::from("/"))),
        Component::CurDir => None,
        Component::ParentDir => Some(Part::Up),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_symlink_on_the_way_is_an_entry_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let path = |name: &str| dir.join(name);
        fs::create_dir_all(path("v1/deep")).unwrap();
        fs::write(path("v1/deep/h.wasm"), "1").unwrap();
        // As Kubernetes lays out a mounted ConfigMap.
        symlink("v1", path("..data")).unwrap();
        symlink("..data/deep/h.wasm", path("h.wasm")).unwrap();
        let trail = Trail::of(&path("h.wasm"));
        assert_eq!(trail.file, path("v1/deep/h.wasm"));
        assert_eq!(trail.links, [path("..data"), path("h.wasm")].into());
        assert_eq!(trail.folders(), [dir.clone(), path("v1/deep")].into());
        // Up is up from where a link led.
        let up = Trail::of(&path("..data/deep/../deep/./h.wasm"));
        assert_eq!(up.file, path("v1/deep/h.wasm"));
        // An absolute link; and what is missing counts where it would be.
        symlink(path("gone/x.wasm"), path("abs")).unwrap();
        let missing = Trail::of(&path("abs"));
        assert_eq!(missing.file, path("gone/x.wasm"));
        assert_eq!(missing.links, [path("abs"), path("gone")].into());
        // A circle ends.
        symlink("b", path("a")).unwrap();
        symlink("a", path("b")).unwrap();
        assert!(Trail::of(&path("a")).links.contains(&path("b")));
    }
}
