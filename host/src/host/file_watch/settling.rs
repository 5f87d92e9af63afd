//! When a file that somebody writes may be read. Pure: signs and what the file looks like go in, what to do
//! comes out. It must not know files, nor how signs come about.
//!
//! ```text
//!            looks different, or a sign            nothing new for as long as the sign asks
//!   resting ─────────────────────────▶ settling ───────────────────────────────▶ reading
//!      ▲                                  ▲ looks different after it was read         │
//!      │                                  └───────────────────────────────────────────┤
//!      └──────────────────────────────── looks the same ──────────────────────────────┘
//! ```
//!
//! Invariant: what is taken looked the same from before it was read until after, and nobody was known to be
//! in the middle of writing it, unless that one did nothing for [`WRITING_QUIET`].

use segmenter_core::time::{Duration, Time};

/// After a change that may be the first of several: a new file, a link that points elsewhere.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// After a write by somebody who still has it open. They may pause, but not for ever.
pub(super) const WRITING_QUIET: Duration = Duration::from_secs(10);
/// Between two looks that no sign asked for, and how long a change must rest that came without a sign.
pub(super) const POLL: Duration = Duration::from_secs(2);
/// A file may be away for so long before it counts as gone: some editors write that way.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(1);

/// What changes whenever a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) len: u64,
    /// Seconds and nanoseconds. Of the contents...
    pub(super) modified: (i64, i64),
    /// ...and of anything: it cannot be set back.
    pub(super) changed: (i64, i64),
}

/// What was heard about the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Whoever wrote it is done, or it was renamed to its name.
    Done,
    /// It was written; it is still open.
    Writing,
    /// Something else, or nobody knows what.
    Changed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Until a sign or the next poll.
    Rest,
    Wait(Time),
    /// Answered by [`Settling::taken`], [`Settling::moved`] or [`Settling::failed`].
    Read,
    /// It is not there any more.
    Gone,
}

#[derive(Debug)]
pub(super) struct Settling {
    /// What was read last, whole.
    taken: Option<Stamp>,
    /// What it looks like, and since when, or since the last sign.
    seen: Option<(Option<Stamp>, Time)>,
    quiet: Duration,
    /// A sign came that nothing was read for yet: what it looks like does not count.
    told: bool,
}

impl Settling {
    pub(super) fn new() -> Settling {
        Settling {
            taken: None,
            seen: None,
            quiet: SETTLE,
            // It is read once in any case.
            told: true,
        }
    }

    pub(super) fn sign(&mut self, now: Time, sign: Sign) {
        self.told = true;
        self.quiet = match sign {
            Sign::Done => Duration::ZERO,
            Sign::Writing => WRITING_QUIET,
            Sign::Changed => SETTLE,
        };
        if let Some((_, since)) = &mut self.seen {
            *since = now;
        }
    }

    /// What it looks like now; none: it is not there, or is no file.
    pub(super) fn look(&mut self, now: Time, found: Option<Stamp>) -> Next {
        let since = match self.seen {
            Some((seen, since)) if seen == found => since,
            _ => {
                if !self.told {
                    self.quiet = POLL;
                }
                self.seen = Some((found, now));
                now
            }
        };
        let Some(stamp) = found else {
            // What comes after it is another file, and nothing was heard of that one.
            self.told = false;
            self.taken = None;
            let gone = since + GONE_AFTER;
            return if now >= gone {
                Next::Gone
            } else {
                Next::Wait(gone)
            };
        };
        if self.taken == found && !self.told {
            return Next::Rest;
        }
        // Nothing is what a writer leaves that just began.
        let quiet = match stamp.len {
            0 => self.quiet.max(WRITING_QUIET),
            _ => self.quiet,
        };
        let due = since + quiet;
        if now >= due {
            Next::Read
        } else {
            Next::Wait(due)
        }
    }

    /// It was read, and looked like this before and after.
    pub(super) fn taken(&mut self, stamp: Stamp) {
        self.taken = Some(stamp);
        self.told = false;
    }

    /// It looked different after it was read.
    pub(super) fn moved(&mut self, now: Time, found: Option<Stamp>) {
        self.seen = Some((found, now));
        self.quiet = POLL;
    }

    /// It could not be read: again, later.
    pub(super) fn failed(&mut self, now: Time) {
        self.told = true;
        self.quiet = POLL;
        if let Some((_, since)) = &mut self.seen {
            *since = now;
        }
    }
}
