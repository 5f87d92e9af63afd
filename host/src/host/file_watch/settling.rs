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
    /// A sign came since the last look.
    heard: bool,
    /// It is to be read, whatever it looks like.
    told: bool,
}

impl Settling {
    pub(super) fn new() -> Settling {
        Settling {
            taken: None,
            seen: None,
            // Who knows what was there to hear before.
            quiet: POLL,
            heard: false,
            told: true,
        }
    }

    pub(super) fn sign(&mut self, now: Time, sign: Sign) {
        self.heard = true;
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
        let heard = std::mem::take(&mut self.heard);
        let since = match self.seen {
            Some((seen, since)) if seen == found => since,
            _ => {
                if !self.told {
                    self.quiet = POLL;
                } else if !heard {
                    self.quiet = self.quiet.max(POLL);
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

    /// It was read, and looked like this before and after. What was heard meanwhile is to follow as a sign.
    pub(super) fn taken(&mut self, stamp: Stamp) {
        self.taken = Some(stamp);
        self.told = false;
    }

    /// It looked different after it was read.
    pub(super) fn moved(&mut self, now: Time, found: Option<Stamp>) {
        self.seen = Some((found, now));
        self.quiet = self.quiet.max(POLL);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Time {
        Time(ms * 1_000)
    }

    fn stamp(version: i64, len: u64) -> Option<Stamp> {
        Some(Stamp {
            device: 1,
            inode: 1,
            len,
            modified: (version, 0),
            changed: (version, 0),
        })
    }

    #[test]
    fn what_is_done_is_read_at_once_and_what_is_being_written_is_not() {
        let mut settling = Settling::new();
        // At the start it may be anything.
        assert_eq!(settling.look(ms(0), stamp(1, 9)), Next::Wait(ms(2_000)));
        assert_eq!(settling.look(ms(2_000), stamp(1, 9)), Next::Read);
        settling.taken(stamp(1, 9).unwrap());
        assert_eq!(settling.look(ms(2_500), stamp(1, 9)), Next::Rest);
        settling.sign(ms(3_000), Sign::Writing);
        assert_eq!(
            settling.look(ms(3_000), stamp(2, 5)),
            Next::Wait(ms(13_000))
        );
        settling.sign(ms(9_000), Sign::Writing);
        assert_eq!(
            settling.look(ms(9_000), stamp(3, 9)),
            Next::Wait(ms(19_000))
        );
        settling.sign(ms(9_500), Sign::Done);
        assert_eq!(settling.look(ms(9_500), stamp(3, 9)), Next::Read);
        // It was written again while it was read, and nobody said so.
        settling.moved(ms(9_600), stamp(4, 9));
        assert_eq!(
            settling.look(ms(9_600), stamp(4, 9)),
            Next::Wait(ms(11_600))
        );
        assert_eq!(settling.look(ms(11_600), stamp(4, 9)), Next::Read);
        settling.taken(stamp(4, 9).unwrap());
        // A clock too coarse to tell two writes apart: the sign counts.
        settling.sign(ms(12_000), Sign::Done);
        assert_eq!(settling.look(ms(12_000), stamp(4, 9)), Next::Read);
        settling.failed(ms(12_000));
        assert_eq!(
            settling.look(ms(12_000), stamp(4, 9)),
            Next::Wait(ms(14_000))
        );
        assert_eq!(settling.look(ms(14_000), stamp(4, 9)), Next::Read);
    }

    #[test]
    fn what_is_away_for_a_moment_is_not_gone_and_what_is_empty_is_not_whole() {
        let mut settling = Settling::new();
        assert_eq!(settling.look(ms(0), None), Next::Wait(ms(1_000)));
        // Done is said of what was there before.
        settling.sign(ms(10), Sign::Done);
        assert_eq!(settling.look(ms(10), None), Next::Wait(ms(1_010)));
        assert_eq!(settling.look(ms(500), stamp(1, 9)), Next::Wait(ms(2_500)));
        assert_eq!(settling.look(ms(600), None), Next::Wait(ms(1_600)));
        assert_eq!(settling.look(ms(1_600), None), Next::Gone);
        settling.sign(ms(2_000), Sign::Changed);
        assert_eq!(
            settling.look(ms(2_000), stamp(1, 0)),
            Next::Wait(ms(12_000))
        );
        // Somebody goes on, unheard.
        assert_eq!(settling.look(ms(2_010), stamp(1, 4)), Next::Wait(ms(4_010)));
    }

    /// What somebody does to the file; how long after the step before, in ms.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Write,
        Truncate,
        Close,
        Rename,
        Remove,
        /// A sign without a change.
        Noise,
    }

    fn step() -> impl Strategy<Value = (u64, Step, bool)> {
        let step = prop_oneof![
            4 => Just(Step::Write),
            1 => Just(Step::Truncate),
            4 => Just(Step::Close),
            2 => Just(Step::Rename),
            1 => Just(Step::Remove),
            1 => Just(Step::Noise),
        ];
        let pause = prop_oneof![4 => 0..150_u64, 2 => 150..2_500_u64, 1 => 2_500..20_000_u64];
        (pause, step, any::<bool>())
    }

    /// A file, its writer, and what was read of it.
    struct World {
        settling: Settling,
        now: u64,
        /// Changes with each step.
        version: i64,
        file: Option<Stamp>,
        open: bool,
        written: u64,
        due: u64,
        /// With a change of it in the middle of reading.
        reading_ms: u64,
        reading: Option<Option<Stamp>>,
        /// Heard while it reads.
        heard: Vec<Sign>,
        taken: Option<Stamp>,
        /// Longest pause of a writer whose half was taken.
        half: Option<u64>,
    }

    impl World {
        fn look(&mut self) {
            let poll = POLL.as_millis() as u64;
            self.due = self.now + poll;
            match self.settling.look(ms(self.now), self.file) {
                Next::Wait(until) => self.due = self.due.min(until.0 / 1_000),
                Next::Read => {
                    self.reading = Some(self.file);
                    self.due = self.now + self.reading_ms;
                }
                Next::Rest | Next::Gone => {}
            }
        }

        /// As the thread does: looks when something is due, and is busy while it reads.
        fn run(&mut self, until: u64) {
            while self.due <= until {
                self.now = self.now.max(self.due);
                if let Some(before) = self.reading.take() {
                    if before == self.file {
                        self.taken = before;
                        self.settling.taken(before.expect("a file was read"));
                        if self.open {
                            let pause = self.now - self.reading_ms - self.written;
                            self.half = self.half.max(Some(pause));
                        }
                    } else {
                        self.settling.moved(ms(self.now), self.file);
                    }
                    for sign in std::mem::take(&mut self.heard) {
                        self.settling.sign(ms(self.now), sign);
                    }
                }
                self.look();
            }
            self.now = until;
        }

        fn step(&mut self, step: Step, heard: bool) {
            self.version += 1;
            let sign = match step {
                Step::Write | Step::Truncate => {
                    let len = u64::from(matches!(step, Step::Write));
                    self.file = stamp(self.version, len);
                    self.open = true;
                    self.written = self.now;
                    Sign::Writing
                }
                Step::Close if self.open => {
                    self.open = false;
                    Sign::Done
                }
                Step::Close | Step::Noise => Sign::Changed,
                Step::Rename => {
                    self.file = stamp(self.version, 1);
                    self.open = false;
                    Sign::Done
                }
                Step::Remove => {
                    self.file = None;
                    self.open = false;
                    Sign::Changed
                }
            };
            // Noise about one that is being written would end the wait for its writer: there is none.
            let noise = matches!(step, Step::Close | Step::Noise) && sign == Sign::Changed;
            if heard && !(noise && self.open) {
                if self.reading.is_some() {
                    self.heard.push(sign);
                } else {
                    self.settling.sign(ms(self.now), sign);
                    self.look();
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// However it is written, and whatever is heard of it: the last is taken in the end, and halves only
        /// of writers that pause for long.
        #[test]
        fn the_last_is_taken_and_no_half(
            steps in proptest::collection::vec(step(), 1..30),
            hears in prop_oneof![Just(Some(true)), Just(Some(false)), Just(None)],
            reading_ms in 0..300_u64,
        ) {
            let mut world = World {
                settling: Settling::new(),
                now: 0,
                version: 0,
                file: stamp(0, 1),
                open: false,
                written: 0,
                due: 0,
                reading_ms,
                reading: None,
                heard: Vec::new(),
                taken: None,
                half: None,
            };
            for (pause, step, heard) in steps {
                let until = world.now + pause;
                world.run(until);
                world.step(step, hears.unwrap_or(heard));
            }
            let quiet = match hears {
                Some(true) => WRITING_QUIET,
                Some(false) => POLL,
                // Some was heard and some not: what was heard may be over.
                None => Duration::ZERO,
            };
            if let Some(pause) = world.half {
                prop_assert!(pause >= quiet.as_millis() as u64, "a half after {pause} ms");
            }
            let end = world.now + (WRITING_QUIET + POLL * 4).as_millis() as u64;
            world.run(end);
            if world.file.is_some() {
                prop_assert_eq!(world.taken, world.file);
            }
        }
    }
}
