//! Compiling beside calls: threads that only run when nothing else wants to, and once on a machine, not
//! once per host. Knows priorities and lock files; must not know modules.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use segmenter_core::names::Version;

/// The lowest there is: calls get some sixty times as much of a busy core.
const NICE: i32 = 19;
/// How long another process is waited for that compiles the same. Then it hangs or was stopped, and
/// compiling twice is better than never.
pub const COMPILED_ELSEWHERE_WAIT: Duration = Duration::from_secs(60);
/// Between two looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Digits of a version that name its lock, so that there are at most 256 files and none is ever removed:
/// a lock that is removed while somebody waits for it is two locks.
const LOCK_DIGITS: usize = 2;

pub(crate) struct Aside {
    /// Made at the first use; none: threads cannot be made.
    pool: OnceLock<Option<ThreadPool>>,
    locks: Option<PathBuf>,
}

impl Aside {
    pub(crate) fn new(locks: Option<PathBuf>) -> Aside {
        Aside {
            pool: OnceLock::new(),
            locks,
        }
    }

    /// Does it, and whatever it does in parallel, in threads of low priority. Blocks meanwhile.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pool = self.pool.get_or_init(|| {
            ThreadPoolBuilder::new()
                .thread_name(|n| format!("aside-{n}"))
                // Of this thread alone, on Linux. Where that is refused, it goes on without.
                .start_handler(|_| {
                    let _ = rustix::process::setpriority_process(None, NICE);
                })
                .build()
                .ok()
        });
        match pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Waits until no other process compiles this version, and keeps others waiting as long as it is held.
    /// A crash gives it back. None: there is no folder for it, or it took too long. Blocks meanwhile.
    pub(crate) fn alone(&self, version: &Version) -> Option<File> {
        let file = open(self.locks.as_deref()?, version)?;
        let until = Instant::now() + COMPILED_ELSEWHERE_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Some(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    thread::sleep(LOOK_EVERY);
                }
                Err(_) => return None,
            }
        }
    }
}

fn open(folder: &Path, version: &Version) -> Option<File> {
    std::fs::create_dir_all(folder).ok()?;
    let name = version.as_str().get(..LOCK_DIGITS)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    options.open(folder.join(name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(start: &str) -> Version {
        Version::new(format!("{start:0<64}")).unwrap()
    }

    #[test]
    fn work_is_done_at_low_priority_and_the_caller_keeps_its_own() {
        let aside = Aside::new(None);
        let mine = || rustix::process::getpriority_process(None).unwrap();
        let before = mine();
        let (outer, inner) = aside.run(|| {
            let (a, b) = rayon::join(mine, mine);
            (mine(), a.min(b))
        });
        assert_eq!((outer, inner), (NICE, NICE));
        assert_eq!(mine(), before);
    }

    #[test]
    fn one_compiles_while_others_wait_for_the_same_version() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside::new(Some(dir.path().join("locks")));
        let held = aside.alone(&version("ab")).expect("nobody has it");
        assert!(aside.alone(&version("cd")).is_some(), "another version");
        let other = Aside::new(Some(dir.path().join("locks")));
        thread::scope(|scope| {
            let waits = scope.spawn(|| other.alone(&version("ab")).is_some());
            // A lock of this process excludes as one of another does.
            let probe = open(&dir.path().join("locks"), &version("ab")).unwrap();
            assert!(matches!(probe.try_lock(), Err(TryLockError::WouldBlock)));
            assert!(!waits.is_finished());
            drop(held);
            assert!(waits.join().unwrap());
        });
        let nowhere = Aside::new(Some(PathBuf::from("/proc/none")));
        assert!(nowhere.alone(&version("ab")).is_none());
    }
}
