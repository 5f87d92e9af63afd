//! One partition of one group, as its owner sees it: acquire → consume → drain → released, or broken
//! with a reason. `(now, event)` in, commands out; what is in the air is a flag or a value here. It must
//! not know how a command is carried out, nor which partitions a member should own (see `member`).
//!
//! ```text
//!            Assigned            Acquired
//!   Idle ───────────────▶ Acquiring ─────▶ Consuming ──Revoked──▶ Draining ──all acked──▶ Releasing
//!    ▲                        │ gone           │ fenced, outcome unknown,          │          │
//!    │                        ▼                │ lease differs                     │          │
//!    │                     Broken              ▼                                   ▼          │
//!    └──────────────────────────────────── Lost: sync first ◀──────────────────────┘◀─────────┘
//!
//!   Acquiring, Consuming ──the lease is halted──▶ Halted ──it is not any more, Assigned──▶ Acquiring
//! ```
//!
//! Invariants, each checked by the tests below:
//! - At most one call and at most one commit are in the air, also across tenures.
//! - Messages are called in log order; the next one only after the one before is settled, or in one call
//!   with it, if the version takes batches.
//! - A message is given up only for what a call with it alone came to, or for what the handler said of it: a
//!   batch that broke is nobody's attempt, and its messages are called one by one.
//! - A commit covers only what is settled, and builds on what the lease is known to hold.
//! - Nothing is sent twice unless the broker surely did nothing.
//! - No call starts at or after the end of the trust window.
//! - Another version handles only from one call to the next, and its failed attempts are its own.
//! - What a version on trial does not ack, the version before it is asked about, at once and in place.
//! - What was read under another epoch or from another position is discarded.

mod event;
mod failure;
mod sizing;
mod tenure;

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::entry::{Entry, RawEntry};
use crate::lease::{Epoch, Fence, LeaseView};
use crate::limits;
use crate::message::{EntryId, Message};
use crate::names::Version;
use crate::outcome::Outcome;
use crate::port::{AcquireReply, CommitReply, Failure, ReleaseReply};
use crate::relay::Room;
use crate::rollout::Runs;
use crate::time::Time;

pub use event::{BROKER_BACKOFF, By, Claim, Command, Config, Event, Exhausted, Phase, Settled};
use failure::{Failed, How};
use tenure::Tenure;

#[derive(Debug)]
enum State {
    Idle,
    /// `asked`: the request is in the air.
    Acquiring {
        asked: bool,
        not_before: Time,
    },
    Consuming(Box<Tenure>),
    /// Nothing is left to commit.
    Releasing {
        fence: Fence,
        asked: bool,
        not_before: Time,
        tries: u32,
    },
    /// Still assigned, holds nothing: a verify that finds no halt is as good as a new assignment,
    /// because who holds no lease can lose none.
    Halted(Claim),
    Broken,
}

#[derive(Debug)]
pub struct Consumer {
    config: Config,
    state: State,
    runs: Runs,
    /// From the end of the call in the air on.
    runs_next: Option<Runs>,
    /// What the last acquire said that it runs.
    acquired_for: Version,
    /// A call is in the air, of this tenure or of one that was lost.
    call: Call,
    /// To say before anything else.
    notices: VecDeque<Command>,
    /// Losses since the last commit that held: keeps a member that is fenced again and again from
    /// acquiring in a hot loop.
    losses: u32,
    lost_at: Time,
    /// Since when the broker has done nothing that was asked for this partition.
    refused_since: Option<Time>,
    /// The halt that people were told of, and not yet of its end.
    halt_told: Option<String>,
    /// Of the outbox. Without any the next message waits, which costs it no attempt.
    room: Room,
    /// With a little room, when the next call may begin.
    little_at: Time,
    noise: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    None,
    Running { epoch: Epoch, by: By },
    Cancelled { epoch: Epoch, by: By },
}

impl Consumer {
    pub fn new(config: Config) -> Consumer {
        let noise = config.seed | 1;
        let runs = config.runs.clone();
        Consumer {
            config,
            acquired_for: runs.version.clone(),
            runs,
            runs_next: None,
            state: State::Idle,
            call: Call::None,
            notices: VecDeque::new(),
            losses: 0,
            lost_at: Time::ZERO,
            refused_since: None,
            halt_told: None,
            room: Room::Free,
            little_at: Time::ZERO,
            noise,
        }
    }

    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Idle => Phase::Idle,
            State::Acquiring { .. } => Phase::Acquiring,
            State::Consuming(tenure) if tenure.draining => Phase::Draining,
            State::Consuming(_) => Phase::Consuming,
            State::Releasing { .. } => Phase::Releasing,
            State::Halted(_) => Phase::Halted,
            State::Broken => Phase::Broken,
        }
    }

    /// Nothing is held and nothing is in the air that could have an effect.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle | State::Broken) && self.call == Call::None
    }

    /// Whether the version on trial was seen not to ack this entry, so that it is worse than the one before
    /// it, should that ack it. A takeover has seen nothing: hosts and Redis end for other reasons, too.
    pub fn overrules(&self, id: EntryId) -> bool {
        matches!(&self.state, State::Consuming(tenure) if tenure.overrules(id))
    }

    pub fn claim(&self) -> Option<Claim> {
        match &self.state {
            State::Consuming(tenure) => Some(Claim {
                epoch: tenure.epoch,
                acked: tenure.acked,
            }),
            State::Halted(claim) => Some(*claim),
            _ => None,
        }
    }

    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Assigned => self.assigned(),
            Event::Revoked => self.revoked(),
            Event::Cut => {
                self.revoked();
                self.cancel_call();
            }
            Event::Acquired(result) => self.acquired(now, result),
            Event::Entries {
                epoch,
                after,
                entries,
            } => self.read(epoch, after, entries),
            Event::Handled { messages, outcome } => self.handled(now, messages, outcome),
            Event::Committed { epoch, result } => self.committed(now, epoch, result),
            Event::Released(result) => self.released(now, result),
            Event::Outbox(room) => {
                if self.room == Room::Free {
                    self.little_at = now + limits::OUTBOX_FULL_EVERY;
                }
                self.room = room;
            }
            Event::Runs(runs) if self.call != Call::None => self.runs_next = Some(runs),
            Event::Runs(runs) => self.run(runs),
            Event::Verified { claim, found } => self.verified(now, claim, found),
        }
    }

    fn run(&mut self, runs: Runs) {
        if runs == self.runs {
            return;
        }
        if let State::Consuming(tenure) = &mut self.state {
            tenure.runs(&runs, runs.version != self.runs.version);
        }
        self.runs = runs;
    }

    /// The next thing to do, until there is none. `trust_until`: the end of the member's trust window.
    pub fn poll(&mut self, now: Time, trust_until: Time) -> Option<Command> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        if now >= trust_until && matches!(self.call, Call::Running { .. }) {
            self.cancel_call();
            return self.notices.pop_front();
        }
        match &mut self.state {
            State::Acquiring { asked, not_before } => {
                // The old call may still run: its instance must be gone before a new one starts.
                if *asked || now < *not_before || self.call != Call::None {
                    return None;
                }
                *asked = true;
                self.acquired_for = self.runs.version.clone();
                Some(Command::Acquire {
                    version: self.acquired_for.clone(),
                })
            }
            State::Consuming(_) => self.poll_tenure(now, trust_until),
            State::Releasing {
                fence,
                asked,
                not_before,
                ..
            } if !*asked && now >= *not_before => {
                *asked = true;
                Some(Command::Release {
                    fence: fence.clone(),
                })
            }
            _ => None,
        }
    }

    /// When to poll again if nothing happens before.
    pub fn poll_timeout(&self, now: Time, trust_until: Time) -> Option<Time> {
        let mut next: Option<Time> = None;
        let mut at = |time: Time| next = Some(next.map_or(time, |n| n.min(time)));
        if matches!(self.call, Call::Running { .. }) {
            at(trust_until);
        }
        match &self.state {
            // Until the old call has ended, its end wakes us.
            State::Acquiring {
                asked: false,
                not_before,
            } if self.call == Call::None => at(*not_before),
            State::Releasing {
                asked: false,
                not_before,
                ..
            } => at(*not_before),
            State::Consuming(tenure) => {
                if tenure.committing.is_none() && tenure.is_dirty() {
                    at(tenure.commit_not_before);
                }
                // With the window over, the next sync wakes us; while draining, the commit's answer does.
                let may_call = tenure.takes_calls() && self.call == Call::None;
                if may_call && !tenure.queue.is_empty() && now < trust_until {
                    match self.room {
                        Room::Free => at(tenure.head_not_before),
                        Room::Little { .. } => at(tenure.head_not_before.max(self.little_at)),
                        Room::None { .. } => {}
                    }
                }
            }
            _ => {}
        }
        next
    }

    fn poll_tenure(&mut self, now: Time, trust_until: Time) -> Option<Command> {
        let State::Consuming(tenure) = &mut self.state else {
            return None;
        };
        // Settled must stay a prefix of the log: what is behind a running call waits for it.
        if self.call == Call::None {
            tenure.settle_foreign(&self.config, &self.runs.version);
        }
        if let Some(settled) = tenure.commit(now, &self.config.incarnation) {
            return Some(Command::Commit(settled));
        }
        if tenure.draining {
            let done = tenure.committing.is_none() && !tenure.is_dirty() && self.call == Call::None;
            if done {
                let fence = tenure.fence(&self.config.incarnation);
                self.state = State::Releasing {
                    fence,
                    asked: false,
                    not_before: now,
                    tries: 0,
                };
                self.notices.push_back(Command::StopReading);
                self.notices.push_back(Command::DropInstance);
                return self.notices.pop_front();
            }
            return None;
        }
        if let Some(read) = tenure.read_more(self.config.share_bytes) {
            return Some(read);
        }
        let outbox_has_room = match self.room {
            Room::Free => true,
            Room::Little { .. } => now >= self.little_at,
            Room::None { .. } => false,
        };
        let may_call = outbox_has_room
            && tenure.takes_calls()
            && self.call == Call::None
            && now < trust_until
            && now >= tenure.head_not_before;
        if !may_call {
            return None;
        }
        match tenure.queue.pop_front() {
            Some(Entry::Ours { id, content, .. }) => {
                let bytes = content.bytes();
                tenure.queue_bytes = tenure.queue_bytes.saturating_sub(bytes);
                let attempt = tenure.attempt_at(id);
                let by = match tenure.is_doubted(id) {
                    true => By::Instead,
                    false => By::Running,
                };
                if attempt > self.config.attempts {
                    // Not handled here: those who did never came back to say how it went.
                    let message = Message {
                        id,
                        partition: self.config.partition,
                        attempt: attempt - 1,
                        content,
                    };
                    let why =
                        "each attempt ended with the host that made it: it crashed, or was lost";
                    let version = self.runs.called(by);
                    tenure.exhaust(&self.config, version, message, why.to_owned());
                    return self.poll_tenure(now, trust_until);
                }
                let mut messages = Batch::one(Message {
                    id,
                    partition: self.config.partition,
                    attempt,
                    content,
                });
                tenure.calling_bytes = bytes;
                tenure.fill(&self.config, self.runs.takes(by), &mut messages);
                let epoch = tenure.epoch;
                self.call = Call::Running { epoch, by };
                self.little_at = now + limits::OUTBOX_FULL_EVERY;
                Some(Command::Call {
                    epoch,
                    messages,
                    by,
                })
            }
            Some(foreign) => {
                // Left by settle_foreign because the dead letters were full; they are not any more.
                tenure.queue.push_front(foreign);
                None
            }
            None => None,
        }
    }

    fn assigned(&mut self) {
        if let State::Idle | State::Halted(_) = self.state {
            let not_before = if self.losses == 0 {
                Time::ZERO
            } else {
                let noise = self.noise();
                self.lost_at + self.config.broker.wait(self.losses, noise)
            };
            self.state = State::Acquiring {
                asked: false,
                not_before,
            };
        }
    }

    fn revoked(&mut self) {
        match &mut self.state {
            State::Acquiring { asked: false, .. } => self.state = State::Idle,
            // The answer decides: a lease that was taken is given back.
            State::Acquiring {
                asked: true,
                not_before,
            } => *not_before = Time(u64::MAX),
            State::Consuming(tenure) => tenure.draining = true,
            State::Halted(_) => {
                self.state = State::Idle;
                self.halt_told = None;
            }
            State::Idle | State::Releasing { .. } | State::Broken => {}
        }
    }

    fn cancel_call(&mut self) {
        if let Call::Running { epoch, by } = self.call {
            self.call = Call::Cancelled { epoch, by };
            self.notices.push_back(Command::CancelCall);
        }
    }

    fn acquired(&mut self, now: Time, result: Result<AcquireReply, Failure>) {
        let State::Acquiring {
            asked: true,
            not_before,
        } = self.state
        else {
            return;
        };
        let revoked = not_before == Time(u64::MAX);
        match result {
            Ok(AcquireReply::Acquired {
                epoch,
                acked,
                read,
                unreleased,
                attempts,
            }) => {
                self.refused_since = None;
                let mut tenure = Tenure::new(epoch, acked, read);
                tenure.draining = revoked;
                tenure.taken_over(attempts, unreleased, &self.runs);
                if self.acquired_for != self.runs.version {
                    tenure.say(&self.runs.version);
                }
                self.state = State::Consuming(Box::new(tenure));
                if self.halt_told.take().is_some() {
                    self.notices.push_back(Command::Resumed);
                }
            }
            Ok(AcquireReply::Halted { .. }) if revoked => self.state = State::Idle,
            Ok(AcquireReply::Halted {
                reason,
                epoch,
                acked,
            }) => self.halt(Claim { epoch, acked }, reason),
            Ok(AcquireReply::StreamGone) => self.break_with("the stream is gone, or is another one now under the same name; register it, then start again"),
            Ok(AcquireReply::GroupGone) => self.break_with("the group is gone from this partition: someone deleted it; start again to create it anew"),
            Err(Failure::Fatal(why)) => self.break_with(&why),
            Err(_) if revoked => self.state = State::Idle,
            Err(Failure::NotDone(why)) if self.gives_up(now) => {
                self.lose(now, format!("it could not be acquired: {why}"));
            }
            Err(Failure::NotDone(_)) => {
                self.losses = self.losses.saturating_add(1);
                let noise = self.noise();
                let not_before = now + self.config.broker.wait(self.losses, noise);
                self.state = State::Acquiring {
                    asked: false,
                    not_before,
                };
            }
            Err(Failure::Unknown(why)) => self.lose(now, format!("acquire: the outcome is unknown: {why}")),
        }
    }

    fn read(&mut self, epoch: Epoch, after: EntryId, entries: Vec<RawEntry>) {
        let State::Consuming(tenure) = &mut self.state else {
            return;
        };
        if tenure.epoch != epoch || tenure.position != after || !tenure.reading {
            return;
        }
        tenure.reading = false;
        for raw in entries {
            if raw.id <= tenure.position {
                continue;
            }
            tenure.position = raw.id;
            let entry = self.config.layout.decode(raw, self.config.payload_max);
            tenure.queue_bytes += entry.bytes();
            tenure.queue.push_back(entry);
        }
    }

    fn handled(&mut self, now: Time, messages: Batch, outcome: Outcome) {
        let call = std::mem::replace(&mut self.call, Call::None);
        let (Call::Running { epoch, by } | Call::Cancelled { epoch, by }) = call else {
            return;
        };
        let noise = self.noise();
        if let State::Consuming(tenure) = &mut self.state
            && tenure.epoch == epoch
        {
            let (config, runs) = (&self.config, &self.runs);
            let version = runs.called(by);
            let on_trial = by == By::Running && runs.instead.is_some();
            tenure.calling_bytes = 0;
            match tenure.ended(now, messages, outcome) {
                None => {}
                Some(Failed { message, .. }) if on_trial => tenure.overrule(message, runs),
                Some(Failed { message, how }) => match how {
                    How::Reject { reason } => {
                        tenure.bury_message(config, version, message, reason);
                    }
                    How::Retry { reason, after } => {
                        let wait = after
                            .map(|after| after.min(limits::RETRY_AFTER_MAX))
                            .unwrap_or_else(|| config.retry.wait(message.attempt, noise));
                        tenure.fail(config, version, message, now + wait, reason);
                    }
                },
            }
        }
        if let Some(runs) = self.runs_next.take() {
            self.run(runs);
        }
    }

    fn committed(&mut self, now: Time, epoch: Epoch, result: Result<CommitReply, Failure>) {
        let noise = self.noise();
        let gives_up = matches!(result, Err(Failure::NotDone(_))) && self.gives_up(now);
        let State::Consuming(tenure) = &mut self.state else {
            return;
        };
        if tenure.epoch != epoch {
            return;
        }
        let Some(sent) = tenure.committing.take() else {
            return;
        };
        match result {
            Ok(CommitReply::Committed { read }) => {
                self.refused_since = None;
                tenure.acked = sent.to;
                tenure.acked_read = read;
                tenure.commit_failures = 0;
                if let Some(reason) = sent.halt {
                    let claim = Claim {
                        epoch,
                        acked: sent.to,
                    };
                    self.drop_tenure();
                    self.halt(claim, reason);
                    return;
                }
                // What was settled meanwhile counts on from the corrected number.
                let correction = read.wrapping_sub(sent.read);
                tenure.settled_read = tenure.settled_read.wrapping_add(correction);
                self.losses = 0;
                if sent.caught_up && read > sent.read {
                    let entries = read - sent.read;
                    self.notices.push_back(Command::Vanished { entries });
                }
            }
            Ok(CommitReply::DeadFull { entries, bytes }) => {
                let why = format!(
                    "the dead letters are full ({entries} letters, {bytes} bytes): redrive or purge some, then resume"
                );
                tenure.put_back(sent);
                tenure.halt(why, true);
            }
            Ok(CommitReply::Fenced { found: Some(view) }) => {
                let why = format!("fenced: {view}");
                self.lose_to(now, view, why);
            }
            Ok(CommitReply::Fenced { found: None }) => {
                self.lose(now, "fenced: the lease is gone".to_owned());
            }
            Err(Failure::NotDone(why)) if gives_up => {
                self.lose(now, format!("it could not be committed to: {why}"));
            }
            Err(Failure::NotDone(_)) => {
                tenure.commit_failures = tenure.commit_failures.saturating_add(1);
                tenure.commit_not_before =
                    now + self.config.broker.wait(tenure.commit_failures, noise);
                tenure.put_back(sent);
            }
            Err(Failure::Unknown(why)) => {
                self.lose(now, format!("commit: the outcome is unknown: {why}"));
            }
            Err(Failure::Fatal(why)) => self.break_with(&why),
        }
    }

    fn released(&mut self, now: Time, result: Result<ReleaseReply, Failure>) {
        let noise = self.noise();
        let State::Releasing {
            asked: asked @ true,
            not_before,
            tries,
            ..
        } = &mut self.state
        else {
            return;
        };
        match result {
            Err(Failure::NotDone(_)) => {
                *asked = false;
                *tries = tries.saturating_add(1);
                *not_before = now + self.config.broker.wait(*tries, noise);
            }
            // Released, or someone else's by now, or it will be taken without: an unreleased lease
            // stops nobody.
            _ => self.state = State::Idle,
        }
    }

    fn verified(&mut self, now: Time, claim: Claim, found: Option<LeaseView>) {
        if let State::Halted(_) = &self.state {
            if found.is_none_or(|view| view.halt.is_none()) {
                self.assigned();
            }
            return;
        }
        let State::Consuming(tenure) = &self.state else {
            return;
        };
        if tenure.epoch != claim.epoch {
            return;
        }
        let newest = tenure
            .committing
            .as_ref()
            .map_or(tenure.acked, |sent| sent.to.max(tenure.acked));
        match found {
            None => self.lose(now, "the lease is gone".to_owned()),
            Some(view) => {
                let same = view.incarnation.as_ref() == Some(&self.config.incarnation)
                    && view.epoch == claim.epoch
                    && view.acked >= claim.acked
                    && view.acked <= newest;
                if same {
                    return;
                }
                let why = format!(
                    "the lease differs: {view}; expected epoch {}, acked through {} to {newest}",
                    claim.epoch.0, claim.acked
                );
                self.lose_to(now, view, why);
            }
        }
    }

    /// The lease was found to be another's, or halted. Who drains has no use for it either way.
    fn lose_to(&mut self, now: Time, found: LeaseView, why: String) {
        let draining = matches!(&self.state, State::Consuming(tenure) if tenure.draining);
        match found.halt {
            Some(reason) if !draining => {
                self.drop_tenure();
                let (epoch, acked) = (found.epoch, found.acked);
                self.halt(Claim { epoch, acked }, reason);
            }
            _ => self.lose(now, why),
        }
    }

    fn halt(&mut self, claim: Claim, reason: String) {
        self.state = State::Halted(claim);
        if self.halt_told.as_ref() != Some(&reason) {
            self.halt_told = Some(reason.clone());
            self.notices.push_back(Command::Halted { reason });
        }
    }

    /// Whether the broker has refused this partition for too long.
    fn gives_up(&mut self, now: Time) -> bool {
        let since = *self.refused_since.get_or_insert(now);
        now.since(since) >= self.config.give_up
    }

    fn lose(&mut self, now: Time, why: String) {
        let refuse = self
            .refused_since
            .take()
            .is_some_and(|since| now.since(since) >= self.config.give_up);
        self.drop_tenure();
        self.state = State::Idle;
        self.losses = self.losses.saturating_add(1);
        self.lost_at = now;
        self.notices.push_back(Command::Lost { why, refuse });
    }

    fn break_with(&mut self, why: &str) {
        self.drop_tenure();
        self.state = State::Broken;
        self.notices.push_back(Command::Broken {
            why: why.to_owned(),
        });
    }

    fn drop_tenure(&mut self) {
        if matches!(self.state, State::Consuming(_)) {
            self.cancel_call();
            self.notices.push_back(Command::StopReading);
            self.notices.push_back(Command::DropInstance);
        }
    }

    /// xorshift64: jitter needs no better, and the same seed gives the same run.
    fn noise(&mut self) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        self.noise
    }
}
