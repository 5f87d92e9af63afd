//! What the system says about entries of folders, as signs. Hints only: whoever relies on them looks for
//! itself now and then. It must not know which entries matter.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::SystemTime;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::Wake;
use super::settling::Sign;

/// A folder that was removed and made again is another one, although it may get the same inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    created: Option<SystemTime>,
}

pub(super) struct Folders {
    /// None: the system has no more of them, or has none at all.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Identity>,
}

impl Folders {
    /// Signs go to `wakes`, as long as there is room: who finds it full looks for itself.
    /// The error is for people; without events it goes on.
    pub(super) fn new(wakes: SyncSender<Wake>) -> (Folders, Option<String>) {
        let mut writing = None;
        let handle = move |event: notify::Result<notify::Event>| {
            for wake in translated(event) {
                // A large file is thousands of writes: once is enough until something else happens.
                let path = match &wake {
                    Wake::Entry { path, sign, .. } if *sign == Sign::Writing => Some(path.clone()),
                    _ => None,
                };
                if path.is_some() && path == writing {
                    continue;
                }
                if wakes.try_send(wake).is_ok() {
                    writing = path;
                }
            }
        };
        let (watcher, error) = match notify::recommended_watcher(handle) {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let folders = Folders {
            watcher,
            watched: BTreeMap::new(),
        };
        (folders, error)
    }

    /// For systems, and tests, without events.
    #[cfg(test)]
    pub(super) fn silent() -> Folders {
        Folders {
            watcher: None,
            watched: BTreeMap::new(),
        }
    }

    /// Hears of these from now on, of no others. The error is for people: which folder is not heard of, and
    /// why. One that is not there is no error.
    pub(super) fn set(&mut self, wanted: &BTreeSet<PathBuf>) -> Result<(), String> {
        let Some(watcher) = &mut self.watcher else {
            return Ok(());
        };
        self.watched.retain(|folder, _| {
            let stays = wanted.contains(folder);
            if !stays {
                // It may be gone.
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        let mut result = Ok(());
        for folder in wanted {
            let Some(identity) = identity(folder) else {
                self.watched.remove(folder);
                continue;
            };
            if self.watched.get(folder) == Some(&identity) {
                continue;
            }
            let _ = watcher.unwatch(folder);
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.clone(), identity);
                }
                Err(error) => {
                    self.watched.remove(folder);
                    if !is_missing(&error) {
                        result = Err(format!("{}: {error}", folder.display()));
                    }
                }
            }
        }
        result
    }

    /// What was watched there is not there any more.
    pub(super) fn forget(&mut self, folder: &Path) {
        self.watched.remove(folder);
    }
}

fn identity(folder: &Path) -> Option<Identity> {
    let meta = std::fs::metadata(folder)
        .ok()
        .filter(|meta| meta.is_dir())?;
    Some(Identity {
        device: meta.dev(),
        inode: meta.ino(),
        created: meta.created().ok(),
    })
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == ErrorKind::NotFound,
        _ => false,
    }
}

fn translated(event: notify::Result<notify::Event>) -> Vec<Wake> {
    let Ok(event) = event else {
        return vec![Wake::Lost];
    };
    if event.need_rescan() {
        return vec![Wake::Lost];
    }
    let sign = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Sign::Done,
        // Our own reading is among these.
        EventKind::Access(_) => return Vec::new(),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Sign::Done,
        // Said before as From and To.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return Vec::new(),
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => Sign::Writing,
        // Of who may read it.
        EventKind::Modify(ModifyKind::Metadata(_)) => return Vec::new(),
        _ => Sign::Changed,
    };
    let removed = matches!(
        event.kind,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From))
    );
    let paths = event.paths.into_iter();
    paths
        .map(|path| Wake::Entry {
            path,
            sign,
            removed,
        })
        .collect()
}
