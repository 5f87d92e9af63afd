//! What goes into a consumer and what comes out: data only.

use std::collections::BTreeMap;

use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::entry::RawEntry;
use crate::lease::{Attempts, Epoch, Fence, LeaseView};
use crate::message::EntryId;
use crate::names::{GroupName, Incarnation, Partition, Version};
use crate::outcome::Outcome;
use crate::port::{AcquireReply, CommitReply, DeadLetter, Failure, ReleaseReply, Stamped};
use crate::relay::Room;
use crate::rollout::Runs;
use crate::source::Layout;
use crate::time::Duration;

/// What a consumer is told once.
#[derive(Debug, Clone)]
pub struct Config {
    pub partition: Partition,
    /// What names another one is acked unhandled.
    pub group: GroupName,
    pub incarnation: Incarnation,
    /// What it runs until [`Event::Runs`].
    pub runs: Runs,
    /// Between two attempts at one message.
    pub retry: Backoff,
    /// At one message, the first included; at least 1.
    pub attempts: u32,
    /// What follows the last one.
    pub exhausted: Exhausted,
    /// Between two attempts at a broker that did nothing, and after a lost lease.
    pub broker: Backoff,
    /// The session timeout: a partition that the broker refuses for so long, while others are served, is
    /// given back.
    pub give_up: Duration,
    /// Bytes, inclusive; an entry with a larger payload is not ours in shape.
    pub payload_max: usize,
    /// Bytes that it may hold of what it read and has not let go: its share of what the host may read
    /// ahead. It never waits for another partition, and one entry may be read into nothing held, however
    /// large: so no share is too small to go on.
    pub share_bytes: usize,
    /// How entries are understood.
    pub layout: Layout,
    /// Where jitter comes from.
    pub seed: u64,
}

/// What becomes of a message whose attempts are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exhausted {
    /// It is kept as a dead letter, and the next message is handled.
    #[default]
    DeadLetter,
    /// The partition stands still until an operator resumes it: order over progress.
    Halt,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A sync that began after the last loss says that the partition is this member's to take.
    Assigned,
    /// It is not any more, or the member leaves: finish the call, commit, release.
    Revoked,
    /// The time to drain is over: cancel the call, too.
    Cut,
    Acquired(Result<AcquireReply, Failure>),
    Entries {
        epoch: Epoch,
        after: EntryId,
        entries: Vec<RawEntry>,
    },
    Handled {
        messages: Batch,
        outcome: Outcome,
    },
    Committed {
        epoch: Epoch,
        result: Result<CommitReply, Failure>,
    },
    Released(Result<ReleaseReply, Failure>),
    /// The outbox is full by now, or not any more: whoever relays it says so.
    Outbox(Room),
    /// What handles from the next call on.
    Runs(Runs),
    /// What the lease says, and what this consumer claimed when that was asked.
    Verified {
        claim: Claim,
        found: Option<LeaseView>,
    },
}

/// What a consumer holds to be true of its lease, or last saw of one that is halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub epoch: Epoch,
    pub acked: EntryId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Acquire {
        version: Version,
    },
    /// One answer, [`Event::Entries`], when there is any entry; a later one replaces it.
    Read {
        epoch: Epoch,
        after: EntryId,
        /// Bytes that it may hold in addition, each entry with [`limits::ENTRY_OVERHEAD_BYTES`]; the first
        /// entry may be larger.
        ///
        /// [`limits::ENTRY_OVERHEAD_BYTES`]: crate::limits::ENTRY_OVERHEAD_BYTES
        room: usize,
    },
    StopReading,
    /// One message, or as many of those that are queued as the version takes.
    Call {
        epoch: Epoch,
        messages: Batch,
        by: By,
    },
    /// The call in the air ends now; it is answered with [`Outcome::Cancelled`], or as it ended.
    CancelCall,
    Commit(Settled),
    Release {
        fence: Fence,
    },
    /// The instance and all that it knows are gone with the lease.
    DropInstance,
    /// The lease is not ours any more, or may not be: sync; only a sync that begins after this may
    /// assign again.
    Lost {
        why: String,
        /// It was refused for too long: somebody else may have better luck.
        refuse: bool,
    },
    /// Only an operator can mend it.
    Broken {
        why: String,
    },
    /// Nothing is held and nothing is read until the lease says otherwise. For people.
    Halted {
        reason: String,
    },
    /// The halt is over, and the partition is held. For people.
    Resumed,
    /// Entries were trimmed or deleted by others before they were read.
    Vanished {
        entries: u64,
    },
}

/// Which of the versions that a partition [`Runs`] is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Running,
    /// The version before the one on trial, which did not ack this message.
    Instead,
}

/// What one commit carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub fence: Fence,
    pub to: EntryId,
    pub read: u64,
    pub caught_up: bool,
    pub trim: bool,
    pub dead: Vec<DeadLetter>,
    /// New values of the handler's state; `None`: deleted.
    pub state: BTreeMap<String, Option<Vec<u8>>>,
    /// Messages for other streams.
    pub emits: Vec<Stamped>,
    /// Failed attempts at the message behind `to`.
    pub attempts: Option<Attempts>,
    /// The partition halts with this commit: why.
    pub halt: Option<String>,
    /// The version that handles by now, if the lease says another one.
    pub version: Option<Version>,
}

/// For people and for the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Idle,
    Acquiring,
    Consuming,
    Draining,
    Releasing,
    Halted,
    Broken,
}

/// The longest wait for a broker that did nothing: short, because order waits with it.
pub const BROKER_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(50),
    max: Duration::from_secs(2),
};
