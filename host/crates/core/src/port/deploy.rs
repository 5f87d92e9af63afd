//! The port, as far as it is about versions of a handler: their bytes, which one is wanted, what hosts
//! report, how a trial ends. It must not know how a version is judged.

use crate::names::{HandlerId, MemberId, Namespace, Version};
use crate::rollout::{Candidate, HostReport, Mode, Share, Verdict, Wanted};
use crate::time::{Duration, Time};

/// Keeps the bytes of a version, which are what its sha256 says they are. Idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreModule {
    pub namespace: Namespace,
    pub version: Version,
    pub bytes: Vec<u8>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreModuleReply {
    Stored {
        existed: bool,
    },
    /// Their sha256 is not this version.
    OtherBytes,
    /// More than [`crate::limits::DEPLOYED_MODULE_BYTES_MAX`].
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchModule {
    pub namespace: Namespace,
    pub version: Version,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchModuleReply {
    /// Their sha256 was compared.
    Module {
        bytes: Vec<u8>,
    },
    Missing,
    /// What lies there has another sha256: this one.
    Damaged {
        found: Version,
    },
}

/// How a deployed version begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Current at once.
    Now,
    /// Current once it stood its trial in these partitions.
    Trial { share: Share, lasts: Duration },
    /// Beside the current version, without effects, and never current by that.
    Shadow { lasts: Duration },
}

/// A version, whose bytes are stored, shall run. The first one of a handler is current at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    pub handler: HandlerId,
    pub version: Version,
    pub how: How,
    /// Who asks, for people.
    pub by: String,
    /// Although it is marked bad; the mark goes.
    pub again: bool,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeployReply {
    Deployed {
        revision: u64,
        /// It is the current version already.
        current: bool,
    },
    /// Another deploy, or an earlier one of the same version, is under way.
    Busy {
        version: Version,
        by: String,
        left: Duration,
    },
    /// It was rolled back before.
    Bad { at_ms: u64, reason: String },
    /// Its bytes are not there.
    NoModule,
    /// It is the current version, and no other is under way: nothing was changed.
    Current { revision: u64 },
    /// There is no current version that a shadow could be compared with.
    NothingToShadow,
}

/// What a handler shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// Another one after every change.
    pub revision: u64,
    pub current: Version,
    pub candidate: Option<Trying>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trying {
    pub version: Version,
    pub mode: Mode,
    /// By the broker's clock; zero: its time has passed, and nobody has settled it yet.
    pub left: Duration,
    /// Who deployed it.
    pub by: String,
}

impl Pointer {
    /// The same for whoever has a clock of its own.
    pub fn wanted(&self, now: Time) -> Wanted {
        Wanted {
            revision: self.revision,
            current: self.current.clone(),
            candidate: self.candidate.as_ref().map(|trying| Candidate {
                version: trying.version.clone(),
                mode: trying.mode,
                ends: now + trying.left,
            }),
        }
    }
}

/// A host tells how far it is with a handler, and learns what that shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub handler: HandlerId,
    pub asks: Asks,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// Only asks; and for all reports, whether or not a version is on trial.
    Only,
    /// Tells, too. All reports are answered while there is a candidate; nobody needs them else.
    Told { host: MemberId, report: HostReport },
    /// It ends: nobody shall wait for it.
    Left { host: MemberId, report: HostReport },
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportReply {
    /// `None`: nothing was ever deployed.
    pub wanted: Option<Pointer>,
    /// Of all that were heard of within [`crate::limits::REPORT_KEPT`], by host.
    pub hosts: Vec<Heard>,
}

/// A report as it is kept: one for each host and (stream, group).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub host: MemberId,
    /// By the broker's clock.
    pub age: Duration,
    pub report: HostReport,
}

/// Ends a trial or a shadow, if that is still what is wanted. A shadow that ends well leaves the current
/// version; whatever ends badly is marked bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    pub handler: HandlerId,
    pub revision: u64,
    pub version: Version,
    pub verdict: Verdict,
    /// What was counted, for people.
    pub evidence: String,
    pub by: String,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettleReply {
    Settled {
        revision: u64,
    },
    /// Something else is wanted by now (0: nothing is). Nothing was changed.
    Changed {
        revision: u64,
    },
}

/// An operator goes back, at once: from a candidate to the current version, else from the current version
/// to the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollBack {
    pub handler: HandlerId,
    /// To this one instead, whose bytes must be there.
    pub to: Option<Version>,
    /// Marks what is left as bad; without it, it may be deployed again.
    pub reason: Option<String>,
    pub by: String,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollBackReply {
    RolledBack {
        revision: u64,
        from: Version,
        to: Version,
    },
    /// No version was current before this one.
    NothingBefore {
        current: Version,
    },
    /// It is current already, and no candidate is under way.
    Current,
    /// The bytes of this version are not there.
    NoModule {
        version: Version,
    },
    NotDeployed,
}

/// What was done to a handler's versions, in words that JSON and people get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Current at once.
    Deployed,
    /// On trial.
    Trial,
    Shadow,
    /// It stood its trial.
    Promoted,
    /// It did not, or an operator went back.
    RolledBack,
    /// The shadow's time is over.
    ShadowEnded,
}

impl Change {
    pub const ALL: [Change; 6] = [
        Change::Deployed,
        Change::Trial,
        Change::Shadow,
        Change::Promoted,
        Change::RolledBack,
        Change::ShadowEnded,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Change::Deployed => "deployed",
            Change::Trial => "trial",
            Change::Shadow => "shadow",
            Change::Promoted => "promoted",
            Change::RolledBack => "rolled_back",
            Change::ShadowEnded => "shadow_ended",
        }
    }
}

/// An entry of a handler's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub at_ms: u64,
    pub change: Change,
    /// What it was done to.
    pub version: Version,
    /// Which version was current before.
    pub from: Option<Version>,
    /// Which is current since.
    pub current: Version,
    pub revision: u64,
    pub by: String,
    /// Of a rollback why, of a trial its share and time, of its end what was counted.
    pub reason: String,
}

/// A version that was rolled back, and is not deployed again by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVersion {
    pub version: Version,
    pub at_ms: u64,
    pub reason: String,
}
