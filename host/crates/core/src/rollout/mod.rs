//! How a new version of a handler goes live: what is wanted, which partitions run it, and how it is
//! judged. Pure; it must not know where modules come from, how they are loaded, nor what runs them.
//!
//! ```text
//!   wanted ──Load──▶ loaded ──Publish──▶ on trial in its share of partitions ──judge──▶ promoted
//!                      │ refused                       │ worse than the current version
//!                      ▼                               ▼
//!                  the current version stays ◀── rolled back, marked bad with the reason
//! ```
//!
//! Invariants:
//! - A version is published only after this host loaded it; until then, and if it refuses it, what ran goes
//!   on running.
//! - While a version is on trial, nothing that it does not ack is settled on its word alone: the current
//!   version is asked about the same message. So a bad version costs no message an attempt, and a failure
//!   counts against it only if the current version does better.
//! - What is wanted is followed as answered, also with a lower revision: Redis may have gone back.

mod compare;
mod evidence;
mod follower;
mod judge;
mod share;

use crate::batch::Takes;
use crate::consumer::By;
use crate::names::Version;
use crate::time::Time;

pub use compare::{Difference, compare};
pub use evidence::{Candidacy, Differences, HostReport, differences, evidence, is_fresh};
pub use follower::{Command, Event, Follower, Loading, Progress, TRIAL_MIN};
pub use judge::{
    Evidence, OVERRULED_MIN, OVERRULED_PERCENT, SLOWER_BY, SLOWER_CALLS_MIN, SLOWER_TIMES, Tally,
    Verdict, judge,
};
pub use share::{Share, ShareError};

/// What a handler shall run, wherever that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Changes with every change of the rest.
    pub revision: u64,
    pub current: Version,
    pub candidate: Option<Candidate>,
}

/// A version that is not trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub version: Version,
    pub mode: Mode,
    /// When it is promoted, if nothing speaks against it; a shadow ends then.
    pub ends: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It handles the messages of its share of the partitions.
    Trial(Share),
    /// It sees the same messages as the current version; its effects are thrown away.
    Shadow,
}

/// A version under the settings (limits, grants) that it was loaded with: a change of either swaps
/// instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition {
    pub version: Version,
    /// Counts changes of the host's own configuration.
    pub settings: u32,
}

/// What the partitions of one host run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineup {
    pub current: Edition,
    pub candidate: Option<(Edition, Mode)>,
}

/// What one partition runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    pub version: Version,
    /// What one call of it carries. Who is asked instead gets the one message.
    pub takes: Takes,
    /// It is on trial: who is asked about what it does not ack.
    pub instead: Option<Version>,
}

impl Runs {
    /// A version that is trusted, one message a call.
    pub fn only(version: Version) -> Runs {
        Runs {
            version,
            takes: Takes::ONE,
            instead: None,
        }
    }

    pub fn called(&self, by: By) -> &Version {
        match (by, &self.instead) {
            (By::Instead, Some(instead)) => instead,
            _ => &self.version,
        }
    }

    pub(crate) fn takes(&self, by: By) -> Takes {
        match by {
            By::Running => self.takes,
            By::Instead => Takes::ONE,
        }
    }
}
