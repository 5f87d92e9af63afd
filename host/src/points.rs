//! Points of a deploy at which a test may end the process, or hold it up. Without the feature `failpoints`,
//! which only tests have, none of them does anything. It must not know what comes after a point.

/// Between two steps of a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Of `handler deploy`: it knows the version, and Redis nothing of it.
    Storing,
    /// The bytes are in Redis, and nobody wants them yet.
    Stored,
    /// They are wanted; whoever deployed was not told.
    Pointed,
    /// Of a host: it has heard that something else is wanted.
    Wanted,
    /// It has the bytes.
    Fetched,
    /// It has compiled them; the cache may not be written yet.
    Compiled,
    /// It could run them.
    Loaded,
    /// Its partitions are told to run them, and Redis does not know yet.
    Published,
    /// It has found a verdict.
    Settling,
    /// Redis knows the verdict; this host has not followed it yet.
    Settled,
}

impl Point {
    pub const OF_DEPLOYERS: [Point; 3] = [Point::Storing, Point::Stored, Point::Pointed];
    pub const OF_HOSTS: [Point; 7] = [
        Point::Wanted,
        Point::Fetched,
        Point::Compiled,
        Point::Loaded,
        Point::Published,
        Point::Settling,
        Point::Settled,
    ];
}

#[cfg(not(feature = "failpoints"))]
pub(crate) fn at(_: Point) {}

#[cfg(feature = "failpoints")]
pub(crate) use armed::at;
#[cfg(feature = "failpoints")]
pub use armed::{Act, VARIABLE, arm, release, taken};

#[cfg(feature = "failpoints")]
mod armed {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::Point;

    /// Names a file, which need not be there. A test may write it at any time; of all processes that look at
    /// it, the first one that comes to the point takes it away, and acts.
    pub const VARIABLE: &str = "SEGMENTER_FAILPOINT";
    /// Between two looks whether a process is held any longer.
    const LOOK_EVERY: Duration = Duration::from_millis(5);

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Act {
        /// As `kill -9` does.
        Die,
        /// Nothing that comes after the point happens before [`release`].
        Hold,
    }

    fn text(point: Point, act: Act) -> String {
        format!("{point:?} {act:?}")
    }

    /// Whoever took it says by the name who it is.
    fn of(file: &Path, pid: u32) -> PathBuf {
        file.with_extension(pid.to_string())
    }

    pub fn arm(file: &Path, point: Point, act: Act) -> std::io::Result<()> {
        let next = file.with_extension("next");
        std::fs::write(&next, text(point, act))?;
        std::fs::rename(next, file)
    }

    /// The process that came to the point that was armed; `None`: none has, or it was released.
    pub fn taken(file: &Path) -> Option<u32> {
        let folder = std::fs::read_dir(file.parent()?).ok()?;
        let pid = |path: PathBuf| {
            let same = path.file_stem() == file.file_stem();
            path.extension().filter(|_| same)?.to_str()?.parse().ok()
        };
        folder.flatten().find_map(|entry| pid(entry.path()))
    }

    /// A process that was held goes on; what one that died took is forgotten.
    pub fn release(file: &Path, pid: u32) -> std::io::Result<()> {
        std::fs::remove_file(of(file, pid))
    }

    pub(crate) fn at(point: Point) {
        let Some(file) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
            return;
        };
        let armed = std::fs::read_to_string(&file).unwrap_or_default();
        let act = [Act::Die, Act::Hold]
            .into_iter()
            .find(|act| armed == text(point, *act));
        let taken = of(&file, std::process::id());
        let Some(act) = act.filter(|_| std::fs::rename(&file, &taken).is_ok()) else {
            return;
        };
        match act {
            Act::Die => loop {
                let me = rustix::process::getpid();
                let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            },
            // Other tasks of this thread go on in another one.
            Act::Hold => tokio::task::block_in_place(|| {
                while taken.exists() {
                    std::thread::sleep(LOOK_EVERY);
                }
            }),
        }
    }
}
