//! What must hold, a rule a file. Judged by what handlers did and by what log and lease hold, never by what
//! members and consumers believe. This module hands each event to the rules that it concerns.

mod append;
mod effects;
mod lease;
mod moves;
mod order;
mod relayed;
mod settled;
mod trust;
mod twice;
mod versions;

use segmenter_core::entry::RawEntry;
use segmenter_core::lease::Epoch;
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, Incarnation, Partition, Shape, StreamId, Version};
use segmenter_core::outcome::Outcome;
use segmenter_core::port::{
    AppendReply, EnsureGroupReply, Failure, HaltReply, InstallReply, Reply, Request, ResumeReply,
    SeekReply, Sync,
};

use super::ledger::Ledger;
use super::plan::{Kind, Plan};
use crate::broker::MemoryBroker;

pub(super) use effects::Sum;
pub(super) use relayed::{TARGET, emitted};

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

pub(super) type Verdict = Result<(), Violation>;

fn violated(rule: &'static str, what: String) -> Verdict {
    Err(Violation { rule, what })
}

/// A group that handlers are bound to.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) stream: usize,
    pub(super) group: GroupName,
}

/// What Redis holds, and what numbers stand for.
pub(super) struct View<'a> {
    pub(super) broker: &'a MemoryBroker,
    pub(super) bindings: &'a [Binding],
    pub(super) streams: &'a [StreamId],
    pub(super) shape: Shape,
    /// So far.
    pub(super) effects: u64,
    /// Of Redis' clock: epochs given out later are above it.
    pub(super) time_us: u64,
}

impl View<'_> {
    fn binding(&self, stream: &StreamId, group: &GroupName) -> Option<usize> {
        find(self.bindings, self.streams, stream, group)
    }
}

fn find(
    bindings: &[Binding],
    streams: &[StreamId],
    stream: &StreamId,
    group: &GroupName,
) -> Option<usize> {
    bindings
        .iter()
        .position(|b| streams[b.stream] == *stream && b.group == *group)
}

/// One call of a handler.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) binding: usize,
    pub(super) partition: Partition,
    pub(super) incarnation: Incarnation,
    pub(super) epoch: Epoch,
    pub(super) id: EntryId,
    pub(super) message: usize,
    /// Which is called.
    pub(super) version: Version,
    /// It takes batches, and so its calls change nothing.
    pub(super) silent: bool,
    /// What it does not ack, another one is asked about.
    pub(super) on_trial: bool,
    /// It has no further attempt.
    pub(super) last: bool,
}

impl Call {
    /// Whether its outcome means that the message is never called again, unless that is lost.
    pub(super) fn decides(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Ok(_) => true,
            Outcome::Cancelled => false,
            Outcome::Reject { .. } => !self.on_trial,
            Outcome::Retry { .. } | Outcome::Broken { .. } => !self.on_trial && self.last,
        }
    }
}

/// What the handlers of the simulation count in, in their state.
pub(super) const COUNTER: &str = "handled";

/// What is looked up before a request takes effect.
pub(super) enum Before {
    Nothing,
    /// What a commit would settle (it may trim), and what the handler's effects were.
    Covers(Vec<EntryId>, effects::Sum),
    Shares(moves::Shares),
}

/// The message that an entry carries, if it is ours.
pub(super) fn message_of(payload: &[u8]) -> Option<usize> {
    std::str::from_utf8(payload).ok()?.parse().ok()
}

#[derive(Debug)]
pub(super) struct Checks {
    lease: lease::Leases,
    settled: settled::Settled,
    order: order::Order,
    trust: trust::Trust,
    append: append::Appends,
    versions: versions::Versions,
    /// Nothing in this run excuses a duplicate.
    gentle: bool,
    takeovers: u64,
    target: StreamId,
    emits: Emits,
}

/// How what was emitted is judged.
#[derive(Debug, Clone, Copy)]
enum Emits {
    Exact,
    /// Redis may lose what it acknowledged.
    MayBeLost,
    /// Counters or targets go.
    NotJudged,
}

impl Checks {
    pub(super) fn new(plan: &Plan, target: StreamId) -> Checks {
        let goes = [Kind::Emptied, Kind::Delete, Kind::DeleteGroup];
        let emits = match () {
            _ if goes.iter().any(|kind| plan.has(*kind)) => Emits::NotJudged,
            _ if plan.has(Kind::Rollback) => Emits::MayBeLost,
            _ => Emits::Exact,
        };
        Checks {
            target,
            emits,
            lease: lease::Leases::default(),
            settled: settled::Settled::default(),
            order: order::Order::default(),
            trust: trust::Trust::new(plan.session_timeout),
            append: append::Appends::default(),
            versions: versions::Versions::default(),
            gentle: plan.is_gentle(),
            takeovers: 0,
        }
    }

    /// Leases taken from an owner that had not released them.
    pub(super) fn takeovers(&self) -> u64 {
        self.takeovers
    }

    pub(super) fn before(&self, broker: &MemoryBroker, request: &Request) -> Before {
        match request {
            Request::Install(r) => Before::Shares(broker.shares(&r.stream, &r.group)),
            Request::Commit(r) => {
                let lease = broker.lease(&r.stream, r.partition, &r.group);
                let Some(acked) = lease.map(|lease| lease.acked) else {
                    return Before::Nothing;
                };
                let entries = broker.entries(&r.stream, r.partition);
                let settles = |id: &EntryId| *id > acked && *id <= r.to;
                let ids = entries.map(|entry: &RawEntry| entry.id);
                let sum = effects::Sum::of(broker, &r.stream, r.partition, &r.group);
                Before::Covers(ids.filter(settles).collect(), sum)
            }
            _ => Before::Nothing,
        }
    }

    pub(super) fn after(
        &mut self,
        view: &View<'_>,
        request: &Request,
        result: &Result<Reply, Failure>,
        before: &Before,
        ledger: &mut Ledger,
    ) -> Verdict {
        match (request, result) {
            (Request::Append(r), Ok(Reply::Append(AppendReply::Appended { ids }))) => {
                for content in r.messages.iter().take(ids.len()) {
                    if let Some(message) = message_of(content.payload()) {
                        ledger.messages[message].appended = Some(view.effects);
                    }
                }
                Ok(())
            }
            (Request::EnsureGroup(r), Ok(Reply::EnsureGroup(reply))) => {
                self.lease.ensured(view, r);
                if let EnsureGroupReply::Ensured { existed: false } = reply
                    && let Some(binding) = view.binding(&r.stream, &r.group)
                {
                    self.settled.created(binding, r.partition, view.effects);
                    self.order.begins(binding, r.partition, view.time_us);
                }
                Ok(())
            }
            (Request::Acquire(r), Ok(Reply::Acquire(reply))) => {
                let taken = self.lease.acquired(view, r, reply)?;
                self.versions.acquired(view, r, reply);
                self.takeovers += u64::from(taken);
                if self.gentle && taken {
                    return twice::taken(r);
                }
                Ok(())
            }
            (Request::Commit(r), Ok(Reply::Commit(reply))) => {
                if let Before::Covers(covers, sum) = before {
                    let owed = self.settled.with_effects(view, r, covers);
                    self.settled.committed(view, r, reply, covers)?;
                    effects::committed(view, r, reply, owed, *sum)?;
                }
                self.versions.committed(view, r, reply)?;
                self.lease.committed(view, r, reply)
            }
            (Request::Install(r), Ok(Reply::Install(InstallReply::Installed))) => match before {
                Before::Shares(shares) => moves::installed(view.shape, shares, r),
                _ => Ok(()),
            },
            (Request::Seek(r), Ok(Reply::Seek(SeekReply::Sought { was, acked, .. }))) => {
                if let Some(binding) = view.binding(&r.stream, &r.group) {
                    self.settled.passed(binding, r.partition, *was, *acked);
                    self.order.begins(binding, r.partition, view.time_us);
                    self.lease.operated(view, binding, r.partition);
                }
                Ok(())
            }
            (Request::Halt(r), Ok(Reply::Halt(HaltReply::Halted))) => {
                if let Some(binding) = view.binding(&r.stream, &r.group) {
                    self.lease.operated(view, binding, r.partition);
                }
                Ok(())
            }
            (Request::Resume(r), Ok(Reply::Resume(ResumeReply::Resumed { skipped }))) => {
                if let Some(binding) = view.binding(&r.stream, &r.group) {
                    if let Some(id) = skipped {
                        self.settled
                            .passed(binding, r.partition, EntryId::ZERO, *id);
                    }
                    self.lease.operated(view, binding, r.partition);
                }
                Ok(())
            }
            (Request::Release(r), Ok(Reply::Release(reply))) => self.lease.released(view, r, reply),
            _ => Ok(()),
        }
    }

    /// Redis holds something else now.
    pub(super) fn look_again(&mut self, view: &View<'_>) {
        self.lease.look_again(view);
    }

    pub(super) fn sync_sent(&mut self, now: u64, binding: usize, sync: &Sync) {
        self.trust.sent(now, binding, &sync.incarnation);
    }

    pub(super) fn sync_answered(
        &mut self,
        binding: usize,
        incarnation: &Incarnation,
        member: bool,
    ) {
        self.trust.answered(binding, incarnation, member);
    }

    /// A version is what handles a binding's messages, not only on trial.
    pub(super) fn trusted(&mut self, binding: usize, version: &Version) {
        self.versions.trusted(binding, version);
    }

    pub(super) fn call_started(&mut self, now: u64, call: &Call) -> Verdict {
        self.trust.call_started(now, call)
    }

    pub(super) fn call_ended(
        &mut self,
        call: &Call,
        outcome: &Outcome,
        ledger: &Ledger,
    ) -> Verdict {
        let failed = !matches!(outcome, Outcome::Ok(_) | Outcome::Cancelled);
        if failed && !call.on_trial {
            self.versions.failed(call);
        }
        if !call.decides(outcome) {
            return Ok(());
        }
        if matches!(outcome, Outcome::Ok(_) | Outcome::Reject { .. }) {
            self.settled.handled(call);
        }
        self.order.handled(call, ledger)?;
        if self.gentle {
            return twice::handled(call, ledger);
        }
        Ok(())
    }

    pub(super) fn acknowledged(&mut self, message: usize, id: EntryId, ledger: &Ledger) -> Verdict {
        self.append.acknowledged(message, id, ledger)
    }

    /// Why not everything that was acknowledged is settled and handled.
    pub(super) fn unsettled(&self, view: &View<'_>, ledger: &Ledger) -> Option<String> {
        let relayed = || match self.emits {
            Emits::NotJudged => None,
            Emits::MayBeLost => relayed::missing(view, &self.target, true),
            Emits::Exact => relayed::missing(view, &self.target, false),
        };
        self.settled.missing(view, ledger).or_else(relayed)
    }
}
