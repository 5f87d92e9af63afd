//! The lease of a (partition, group): the one truth about who may commit, and what is acked.
//! A pure reference of what the scripts do; the in-memory broker runs on it and the conformance suite
//! holds the scripts against it. It must not know clocks: a lease never expires, it ends by release or
//! by the next acquire.

use std::fmt;

use crate::message::EntryId;
use crate::names::{Incarnation, MemberId, Version};

/// Grows with every acquire of a lease. Guests get it as a fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// `max(old + 1, TIME in µs)`: above every epoch that was ever given out, also if the lease itself
    /// was lost with its counter.
    pub fn after(self, time_us: u64) -> Epoch {
        Epoch(self.0.saturating_add(1).max(time_us))
    }
}

/// Who acquired a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub incarnation: Incarnation,
    /// For people: `group describe` shows it.
    pub member: MemberId,
    /// For people, too.
    pub version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// `None`: released, or never acquired.
    pub owner: Option<Owner>,
    pub epoch: Epoch,
    /// Every entry up to this one is settled.
    pub acked: EntryId,
    /// How many entries that is since the log's first: what `ENTRIESREAD` of the mirror says.
    pub read: u64,
    /// Why nobody may acquire it, until an operator says otherwise.
    pub halt: Option<String>,
    /// How often the message behind `acked` failed. Of another message: not at all yet.
    pub attempts: Option<Attempts>,
    /// Bytes of the dead letters that are kept.
    pub dead_bytes: u64,
}

/// Failed attempts at one message. They outlive crashes and changes of owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    pub id: EntryId,
    pub failed: u32,
    /// Under which the last one failed.
    pub version: Version,
}

/// What a write must match. All three, because: without the incarnation a restarted process passes for
/// its predecessor; without the epoch a zombie commits; without `from` a commit that is applied twice,
/// or on a lease that went back by one write, hides a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    pub from: EntryId,
}

/// What an owner compares with its own view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    pub incarnation: Option<Incarnation>,
    pub epoch: Epoch,
    pub acked: EntryId,
    pub halt: Option<String>,
}

impl fmt::Display for LeaseView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, acked) = (self.epoch.0, self.acked);
        match (&self.halt, &self.incarnation) {
            (Some(why), _) => write!(f, "halted in epoch {epoch}, acked through {acked}: {why}"),
            (None, Some(owner)) => {
                write!(f, "held by {owner} in epoch {epoch}, acked through {acked}")
            }
            (None, None) => write!(
                f,
                "held by nobody since epoch {epoch}, acked through {acked}"
            ),
        }
    }
}

impl Lease {
    pub fn new(acked: EntryId, read: u64) -> Lease {
        Lease {
            owner: None,
            epoch: Epoch::default(),
            acked,
            read,
            halt: None,
            attempts: None,
            dead_bytes: 0,
        }
    }

    pub fn view(&self) -> LeaseView {
        LeaseView {
            incarnation: self.owner.as_ref().map(|o| o.incarnation.clone()),
            epoch: self.epoch,
            acked: self.acked,
            halt: self.halt.clone(),
        }
    }

    /// Takes it, whoever holds it. Returns whether the last owner had not released it; an error is the
    /// reason of a halt, and nothing changed.
    pub fn acquire(&mut self, owner: Owner, time_us: u64) -> Result<bool, String> {
        if let Some(reason) = &self.halt {
            return Err(reason.clone());
        }
        let unreleased = self.owner.is_some();
        self.epoch = self.epoch.after(time_us);
        self.owner = Some(owner);
        Ok(unreleased)
    }

    /// Who took it over from an owner that had not released it counts one more failed attempt at the first
    /// message that is not acked: it may be the one that ends hosts.
    pub fn count_crash(&mut self, head: EntryId, version: Version) {
        match &mut self.attempts {
            Some(attempts) if attempts.id == head => {
                attempts.failed = attempts.failed.saturating_add(1);
            }
            attempts => {
                *attempts = Some(Attempts {
                    id: head,
                    failed: 1,
                    version,
                });
            }
        }
    }

    /// An operator steps in: whoever holds it is fenced from here on, and has not crashed.
    fn take_from_owner(&mut self, time_us: u64) {
        self.owner = None;
        self.epoch = self.epoch.after(time_us);
    }

    pub fn seek(&mut self, acked: EntryId, read: u64, time_us: u64) {
        self.take_from_owner(time_us);
        self.acked = acked;
        self.read = read;
        self.attempts = None;
    }

    /// Dead letters are moved into the outbox, under an epoch of their own.
    pub fn redrive(&mut self, time_us: u64) {
        self.take_from_owner(time_us);
    }

    /// False: halted already. The first reason stays, because a pause must not hide a failure.
    pub fn halt(&mut self, reason: String, time_us: u64) -> bool {
        let runs = self.halt.is_none();
        if runs {
            self.take_from_owner(time_us);
            self.halt = Some(reason);
        }
        runs
    }

    /// False: not halted, and nothing changed.
    pub fn resume(&mut self, time_us: u64) -> bool {
        let halted = self.halt.take().is_some();
        if halted {
            self.take_from_owner(time_us);
            // Tried anew, as if it had never failed.
            self.attempts = None;
        }
        halted
    }

    pub fn admits(&self, fence: &Fence) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|o| o.incarnation == fence.incarnation)
            && self.epoch == fence.epoch
            && self.acked == fence.from
    }

    /// Absolute values, never deltas. False: fenced, and nothing changed.
    #[must_use]
    pub fn commit(&mut self, fence: &Fence, to: EntryId, read: u64) -> bool {
        let admitted = self.admits(fence);
        if admitted {
            self.acked = to;
            self.read = read;
        }
        admitted
    }

    #[must_use]
    pub fn release(&mut self, fence: &Fence) -> bool {
        let admitted = self.admits(fence);
        if admitted {
            self.owner = None;
        }
        admitted
    }
}
