//! A file that is replaced while the host runs: its bytes, each time they are others, once they are whole.
//! A thread of its own looks after it, because a look may wait for a disk or a network. It must not know
//! what is in the file.
//!
//! What holds, however it is written:
//! - Renamed to its name, or a link on its way switched: at once, whole.
//! - Written in place: when its writer closes it. One who has it open and pauses for longer than
//!   [`settling::WRITING_QUIET`], or whom no event tells of (network file systems) and who pauses for longer
//!   than [`settling::POLL`], may be read halfway: those bytes are another version, which has to get through
//!   compiling, linking, its first instance, the list of what is allowed, and its trial.

mod folders;
mod settling;
mod trail;

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use segmenter_core::names::Version;
use segmenter_core::time::Time;
use segmenter_wasm::version_of;
use tokio::sync::mpsc;

use super::clock;
use super::module_file;
use folders::Folders;
use settling::{Next, POLL, Settling, Sign, Stamp};
use trail::Trail;

/// Signs that wait for the thread. When there are so many, some may have been lost.
const WAKES_MAX: usize = 256;

/// What became of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Other ones than the last time.
    Bytes {
        bytes: Arc<Vec<u8>>,
        version: Version,
    },
    /// For people: said once per cause. What was there before is as good as ever.
    Trouble(String),
}

pub(super) struct Watch {
    seen: mpsc::Receiver<Seen>,
    wakes: SyncSender<Wake>,
}

enum Wake {
    Entry {
        path: PathBuf,
        sign: Sign,
        /// It is not there any more, as far as this sign goes.
        removed: bool,
    },
    /// Signs were lost.
    Lost,
    Stop,
}

impl Watch {
    /// `known`: what was read of it already. Larger files are a trouble.
    pub(super) fn start(
        path: &Path,
        bytes_max: usize,
        known: Option<Version>,
    ) -> std::io::Result<Watch> {
        let (wakes, woken) = sync_channel(WAKES_MAX);
        let (folders, error) = Folders::new(wakes.clone());
        Watch::with(path, bytes_max, known, (folders, error), (wakes, woken))
    }

    fn with(
        path: &Path,
        bytes_max: usize,
        known: Option<Version>,
        (folders, error): (Folders, Option<String>),
        (wakes, woken): (SyncSender<Wake>, Receiver<Wake>),
    ) -> std::io::Result<Watch> {
        // One in the channel, one in the thread: what is replaced meanwhile is never read.
        let (out, seen) = mpsc::channel(1);
        let path = std::path::absolute(path)?;
        let looker = Looker {
            trail: Trail::of(&path),
            path,
            bytes_max,
            known,
            folders,
            settling: Settling::new(),
            said: None,
            unheard: None,
            out,
        };
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                // An error: nobody listens any more.
                let _ = looker.run(&woken, error);
            })?;
        Ok(Watch { seen, wakes })
    }

    /// Safe to drop before it is done.
    pub(super) async fn next(&mut self) -> Seen {
        match self.seen.recv().await {
            Some(seen) => seen,
            // Its thread ended, which only a panic does, and that has been told.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // If it is full the thread looks anyway, and finds that nobody listens.
        let _ = self.wakes.try_send(Wake::Stop);
    }
}

struct Looker {
    path: PathBuf,
    bytes_max: usize,
    known: Option<Version>,
    trail: Trail,
    folders: Folders,
    settling: Settling,
    /// The trouble that was told last, until it is over.
    said: Option<String>,
    unheard: Option<String>,
    out: mpsc::Sender<Seen>,
}

/// Nobody listens any more.
struct Unheard;

type Result<T> = std::result::Result<T, Unheard>;

impl Looker {
    fn run(mut self, woken: &Receiver<Wake>, error: Option<String>) -> Result<()> {
        if let Some(why) = error {
            self.no_events(why)?;
        }
        loop {
            let next = self.look()?;
            let mut poll = clock::now() + POLL;
            if let Some(next) = next {
                poll = poll.min(next);
            }
            self.wait(woken, poll)?;
        }
    }

    /// Until there is a reason to look.
    fn wait(&mut self, woken: &Receiver<Wake>, until: Time) -> Result<()> {
        let mut heard = false;
        while !heard {
            match woken.recv_timeout(until.since(clock::now())) {
                Ok(wake) => heard |= self.wake(wake)?,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(Unheard),
            }
        }
        let mut more = 0;
        while let Ok(wake) = woken.try_recv() {
            self.wake(wake)?;
            more += 1;
        }
        if more >= WAKES_MAX - 1 {
            self.wake(Wake::Lost)?;
        }
        match self.out.is_closed() {
            true => Err(Unheard),
            false => Ok(()),
        }
    }

    /// Whether it is about this file.
    fn wake(&mut self, wake: Wake) -> Result<bool> {
        let sign = match wake {
            Wake::Stop => return Err(Unheard),
            // In doubt somebody is in the middle of it.
            Wake::Lost => Sign::Writing,
            Wake::Entry { path, sign, .. } if path == self.trail.file => sign,
            Wake::Entry { path, .. } if self.trail.links.contains(&path) => Sign::Changed,
            Wake::Entry { path, removed, .. } => {
                if removed && self.trail.folders().contains(&path) {
                    self.folders.forget(&path);
                    Sign::Changed
                } else {
                    return Ok(false);
                }
            }
        };
        self.settling.sign(clock::now(), sign);
        Ok(true)
    }

    /// When to look again, at the latest.
    fn look(&mut self) -> Result<Option<Time>> {
        // In this order: what changes after the look is heard of.
        self.trail = Trail::of(&self.path);
        match self.folders.set(&self.trail.folders()) {
            Ok(()) => self.unheard = None,
            Err(why) => self.no_events(why)?,
        }
        let found = stamp(&self.path);
        let now = clock::now();
        match self.settling.look(now, found.as_ref().ok().copied()) {
            Next::Rest => Ok(None),
            Next::Wait(until) => Ok(Some(until)),
            Next::Gone => {
                if let Err(why) = found {
                    self.trouble(why)?;
                }
                Ok(None)
            }
            Next::Read => {
                self.read()?;
                Ok(None)
            }
        }
    }

    fn read(&mut self) -> Result<()> {
        match read(&self.path, self.bytes_max) {
            Err(why) => {
                self.settling.failed(clock::now());
                self.trouble(why)
            }
            Ok(Read::Moved) => {
                let found = stamp(&self.path).ok();
                self.settling.moved(clock::now(), found);
                Ok(())
            }
            Ok(Read::Whole(bytes, stamp)) => {
                self.settling.taken(stamp);
                self.said = None;
                let version = version_of(&bytes);
                if self.known.as_ref() == Some(&version) {
                    return Ok(());
                }
                self.known = Some(version.clone());
                let bytes = Arc::new(bytes);
                self.tell(Seen::Bytes { bytes, version })
            }
        }
    }

    fn no_events(&mut self, why: String) -> Result<()> {
        if self.unheard.as_ref() == Some(&why) {
            return Ok(());
        }
        self.unheard = Some(why.clone());
        self.tell(Seen::Trouble(format!(
            "changes of {} are noticed only every {} s, because the system does not report them ({why}); on Linux, raise fs.inotify.max_user_watches and max_user_instances",
            self.path.display(),
            POLL.as_secs()
        )))
    }

    fn trouble(&mut self, why: String) -> Result<()> {
        if self.said.as_ref() == Some(&why) {
            return Ok(());
        }
        self.said = Some(why.clone());
        let path = self.path.display();
        self.tell(Seen::Trouble(format!(
            "{path}: {why}; what was read of it before stays"
        )))
    }

    fn tell(&self, seen: Seen) -> Result<()> {
        self.out.blocking_send(seen).map_err(|_| Unheard)
    }
}

enum Read {
    Whole(Vec<u8>, Stamp),
    /// It was written or replaced meanwhile.
    Moved,
}

fn read(path: &Path, bytes_max: usize) -> std::result::Result<Read, String> {
    let as_text = |e: std::io::Error| e.to_string();
    let before = stamp(path)?;
    let file = File::open(path).map_err(as_text)?;
    let bytes = module_file::read_open(&file, bytes_max).map_err(|e| e.to_string())?;
    let after = stamp_of(&file.metadata().map_err(as_text)?);
    // The same file from the first look to the last, whatever the path led to in between.
    let whole = before == after && stamp(path).as_ref() == Ok(&before);
    Ok(match whole && bytes.len() as u64 == before.len {
        true => Read::Whole(bytes, before),
        false => Read::Moved,
    })
}

/// The error is for people.
fn stamp(path: &Path) -> std::result::Result<Stamp, String> {
    let meta = std::fs::metadata(path).map_err(|e| e.to_string())?;
    // Opening a pipe would wait for its writer.
    match meta.is_file() {
        true => Ok(stamp_of(&meta)),
        false => Err("it is no regular file".to_owned()),
    }
}

fn stamp_of(meta: &Metadata) -> Stamp {
    Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        len: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    }
}

#[cfg(test)]
mod tests;
