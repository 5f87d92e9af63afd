//! What a consumer knows between acquire and release or loss: what is acked, settled, queued and being
//! read. It keeps the order; when something may happen is decided by the consumer.

use std::collections::VecDeque;

use super::event::{Command, Config, Settled};
use super::sizing::Sizing;
use crate::batch::{Batch, Takes};
use crate::effects::Effects;
use crate::entry::Entry;
use crate::lease::{Attempts, Epoch, Fence};
use crate::limits;
use crate::message::{EntryId, Message};
use crate::names::{Incarnation, Version};
use crate::port::{DeadLetter, Stamped};
use crate::rollout::Runs;
use crate::time::Time;

/// From acquire to release or loss.
#[derive(Debug)]
pub(super) struct Tenure {
    pub(super) epoch: Epoch,
    pub(super) draining: bool,
    /// What the lease holds, as far as is known.
    pub(super) acked: EntryId,
    pub(super) acked_read: u64,
    /// What is settled here: the next commit's aim.
    pub(super) settled: EntryId,
    pub(super) settled_read: u64,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) dead_bytes: usize,
    /// What the settled messages changed, not committed yet.
    effects: Effects,
    effect_bytes: usize,
    /// Messages that this tenure has emitted.
    emitted: u64,
    pub(super) committing: Option<InFlight>,
    pub(super) commit_not_before: Time,
    pub(super) commit_failures: u32,
    pub(super) commits_since_trim: u32,
    pub(super) queue: VecDeque<Entry>,
    pub(super) queue_bytes: usize,
    /// Of the messages that were called and have not come back.
    pub(super) calling_bytes: usize,
    /// The last entry that was read.
    pub(super) position: EntryId,
    pub(super) reading: bool,
    /// Failed attempts at the head, as far as the lease knows or is about to.
    attempts: Option<Attempts>,
    /// They are not in the lease yet: no further attempt before that.
    unrecorded: bool,
    /// The entry that the version on trial did not ack: the one before it decides.
    doubted: Option<EntryId>,
    /// It was seen not to ack that entry: if the one before it acks that, it speaks against it.
    overrules: bool,
    /// The version that handles, while the lease says another one.
    unsaid: Option<Version>,
    /// Messages that commit alone: a message that ends hosts must not hide among others.
    careful: usize,
    pub(super) sizing: Sizing,
    /// To be halted, and whether what is settled is given up with it.
    halt: Option<(String, bool)>,
    pub(super) head_not_before: Time,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) to: EntryId,
    pub(super) read: u64,
    pub(super) caught_up: bool,
    dead: Vec<DeadLetter>,
    dead_bytes: usize,
    effects: Effects,
    /// Failed attempts were recorded with it.
    records: bool,
    /// It halts the partition: why.
    pub(super) halt: Option<String>,
    version: Option<Version>,
}

impl Tenure {
    pub(super) fn new(epoch: Epoch, acked: EntryId, read: u64) -> Tenure {
        Tenure {
            epoch,
            draining: false,
            acked,
            acked_read: read,
            settled: acked,
            settled_read: read,
            dead: Vec::new(),
            dead_bytes: 0,
            effects: Effects::default(),
            effect_bytes: 0,
            emitted: 0,
            committing: None,
            commit_not_before: Time::ZERO,
            commit_failures: 0,
            commits_since_trim: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            calling_bytes: 0,
            position: acked,
            reading: false,
            attempts: None,
            unrecorded: false,
            doubted: None,
            overrules: false,
            unsaid: None,
            careful: 0,
            sizing: Sizing::new(),
            halt: None,
            head_not_before: Time::ZERO,
        }
    }

    pub(super) fn fence(&self, incarnation: &Incarnation) -> Fence {
        Fence {
            incarnation: incarnation.clone(),
            epoch: self.epoch,
            from: self.acked,
        }
    }

    /// Whether the next message may be called at all: not while draining, and not before the next commit
    /// has room for what it may cause.
    pub(super) fn takes_calls(&self) -> bool {
        let alone = self.careful == 0 || (self.settled == self.acked && self.committing.is_none());
        let told = !self.unrecorded && self.halt.is_none();
        let sent = self.committing.as_ref();
        let in_the_air = sent.is_some_and(|sent| sent.records || sent.halt.is_some());
        !self.draining && self.has_room() && alone && told && !in_the_air
    }

    /// What the lease knew when it was taken.
    pub(super) fn taken_over(&mut self, attempts: Option<Attempts>, unreleased: bool, runs: &Runs) {
        self.attempts = attempts;
        if unreleased {
            // As many as the last owner can have had in its hands.
            self.careful = limits::QUEUE_ENTRIES_MAX;
        }
        let Some(attempts) = &self.attempts else {
            return;
        };
        match &runs.instead {
            // The last owner asked it, or was about to; or the trial began with the takeover, and whoever
            // is on trial has nothing to do with it.
            Some(instead) if attempts.version == *instead => {
                (self.doubted, self.overrules) = (Some(attempts.id), false);
            }
            // The last owner ended with it, or lost Redis: whoever saw what the version made of it is gone.
            Some(_) if attempts.version == runs.version => {
                self.doubt(attempts.id, runs);
                self.overrules = false;
            }
            _ => self.count_anew(runs),
        }
    }

    /// Other versions handle from now on; `differs`: from what the lease says, or is about to.
    pub(super) fn runs(&mut self, runs: &Runs, differs: bool) {
        if differs {
            self.say(&runs.version);
            // How its calls go, nobody knows.
            self.sizing = Sizing::new();
        }
        self.doubted = None;
        self.count_anew(runs);
    }

    /// The lease says another version than the one that handles.
    pub(super) fn say(&mut self, version: &Version) {
        self.unsaid = Some(version.clone());
    }

    /// What the lease knows of failed attempts under another version becomes none under this one.
    fn count_anew(&mut self, runs: &Runs) {
        let Some(attempts) = &mut self.attempts else {
            return;
        };
        if attempts.id <= self.settled || attempts.version == runs.version {
            return;
        }
        attempts.failed = 0;
        attempts.version = runs.version.clone();
        self.unrecorded = true;
        self.head_not_before = Time::ZERO;
    }

    /// The version on trial did not ack it: the one before it is asked, once the lease knows that.
    fn doubt(&mut self, id: EntryId, runs: &Runs) {
        let Some(instead) = &runs.instead else {
            return;
        };
        self.attempts = Some(Attempts {
            id,
            failed: 0,
            version: instead.clone(),
        });
        self.unrecorded = true;
        (self.doubted, self.overrules) = (Some(id), true);
    }

    pub(super) fn overrule(&mut self, message: Message, runs: &Runs) {
        self.doubt(message.id, runs);
        self.again(message, Time::ZERO);
    }

    pub(super) fn overrules(&self, id: EntryId) -> bool {
        self.overrules && self.is_doubted(id)
    }

    pub(super) fn is_doubted(&self, id: EntryId) -> bool {
        self.doubted == Some(id)
    }

    /// 1 for the first attempt.
    pub(super) fn attempt_at(&self, id: EntryId) -> u32 {
        match &self.attempts {
            Some(attempts) if attempts.id == id => attempts.failed.saturating_add(1),
            _ => 1,
        }
    }

    /// It failed, and is tried again at `not_before`, once the lease knows that.
    pub(super) fn failed(&mut self, message: Message, not_before: Time, version: &Version) {
        self.attempts = Some(Attempts {
            id: message.id,
            failed: message.attempt,
            version: version.clone(),
        });
        self.unrecorded = true;
        self.again(message, not_before);
    }

    /// The partition is to halt with the next commit; `alone`: without what is settled.
    pub(super) fn halt(&mut self, reason: String, alone: bool) {
        self.halt = Some((reason, alone));
    }

    pub(super) fn settle(&mut self, id: EntryId) {
        self.settled = id;
        self.settled_read = self.settled_read.saturating_add(1);
        self.careful = self.careful.saturating_sub(1);
        self.head_not_before = Time::ZERO;
    }

    pub(super) fn settle_with(&mut self, messages: Batch, effects: Effects) {
        self.effect_bytes += effects.bytes();
        self.effects.then(effects);
        messages.iter().for_each(|message| self.settle(message.id));
    }

    /// Settles what is before the message at this index, which is answered, and queues again what is behind.
    /// If there are not as many, the last one is answered.
    pub(super) fn settle_before(&mut self, at: usize, messages: Batch) -> Message {
        let mut messages = messages.into_messages();
        let mut message = messages.next().expect("a batch has one");
        for next in messages.by_ref().take(at) {
            self.settle(message.id);
            message = next;
        }
        self.queue_again(messages);
        message
    }

    /// Whether another message may be handled before the next commit: what that carries is bounded.
    pub(super) fn has_room(&self) -> bool {
        self.dead.len() < limits::COMMIT_DEAD_MAX
            && self.dead_bytes < limits::COMMIT_DEAD_BYTES
            && self.effects.emits.len() < limits::COMMIT_EMITS_MAX
            && self.effects.state.len() < limits::COMMIT_STATE_MAX
            && self.effect_bytes < limits::COMMIT_EFFECT_BYTES
    }

    /// Something is to be committed.
    pub(super) fn is_dirty(&self) -> bool {
        self.settled != self.acked
            || self.unrecorded
            || self.unsaid.is_some()
            || self.halt.is_some()
    }

    /// What is settled and not committed is forgotten: the next owner handles it again.
    fn give_up_settled(&mut self) {
        self.settled = self.acked;
        self.settled_read = self.acked_read;
        self.dead.clear();
        self.dead_bytes = 0;
        self.effects = Effects::default();
        self.unrecorded = false;
    }

    /// What a commit carried that was surely not done, in front of what was settled since.
    pub(super) fn put_back(&mut self, sent: InFlight) {
        self.unrecorded |= sent.records;
        self.unsaid = self.unsaid.take().or(sent.version);
        self.halt = self.halt.take().or(sent.halt.map(|reason| (reason, false)));
        let later = std::mem::replace(&mut self.dead, sent.dead);
        self.dead.extend(later);
        self.dead_bytes += sent.dead_bytes;
        self.emitted -= u64::try_from(sent.effects.emits.len()).unwrap_or(0);
        let later = std::mem::replace(&mut self.effects, sent.effects);
        self.effects.then(later);
        self.effect_bytes = self.effects.bytes();
    }

    pub(super) fn bury(&mut self, letter: DeadLetter, bytes: usize) {
        let id = letter.id;
        self.dead.push(letter);
        self.dead_bytes += bytes;
        self.settle(id);
    }

    pub(super) fn again(&mut self, message: Message, not_before: Time) {
        self.head_not_before = not_before;
        self.queue_again(std::iter::once(message));
    }

    pub(super) fn all_again(&mut self, messages: Batch, not_before: Time) {
        self.head_not_before = not_before;
        self.queue_again(messages.into_messages());
    }

    fn queue_again(&mut self, messages: impl DoubleEndedIterator<Item = Message>) {
        for message in messages.rev() {
            self.queue_bytes += message.content.bytes();
            self.queue.push_front(Entry::Ours {
                id: message.id,
                content: message.content,
                only: None,
            });
        }
    }

    /// Adds to the head, which is to be called, what one call takes with it: never what needs no call, nor
    /// what has a story of its own.
    pub(super) fn fill(&mut self, config: &Config, takes: Takes, messages: &mut Batch) {
        let most = match self.careful {
            0 => self.sizing.most(messages.first().id),
            _ => 1,
        };
        let most = most.min(takes.messages.get());
        let mut bytes = messages.first().content.bytes();
        while messages.count() < most {
            let Some(Entry::Ours { id, content, only }) = self.queue.front() else {
                return;
            };
            let another = only.as_ref().is_some_and(|only| *only != config.group);
            bytes += content.bytes();
            if another || bytes > takes.bytes || self.attempt_at(*id) > 1 || self.is_doubted(*id) {
                return;
            }
            let Some(Entry::Ours { id, content, .. }) = self.queue.pop_front() else {
                return;
            };
            self.queue_bytes = self.queue_bytes.saturating_sub(content.bytes());
            self.calling_bytes += content.bytes() + limits::ENTRY_OVERHEAD_BYTES;
            messages.push(Message {
                id,
                partition: config.partition,
                attempt: 1,
                content,
            });
        }
    }

    /// Entries at the head that need no call: what is for another group is acked, what is not ours in
    /// shape becomes a dead letter.
    pub(super) fn settle_foreign(&mut self, config: &Config, version: &Version) {
        while !self.draining && self.has_room() {
            if let Some(Entry::Ours {
                id,
                content,
                only: Some(only),
            }) = self.queue.front()
                && *only != config.group
            {
                let (id, bytes) = (*id, content.bytes());
                self.queue.pop_front();
                self.queue_bytes = self.queue_bytes.saturating_sub(bytes);
                self.settle(id);
                continue;
            }
            let Some(Entry::Foreign { .. }) = self.queue.front() else {
                return;
            };
            let Some(Entry::Foreign { id, fields, why }) = self.queue.pop_front() else {
                return;
            };
            let bytes = fields.iter().map(|(n, v)| n.len() + v.len()).sum();
            self.queue_bytes = self.queue_bytes.saturating_sub(bytes);
            let letter = DeadLetter {
                id,
                reason: why.to_string(),
                attempts: 0,
                version: version.to_string(),
                fields,
            };
            self.bury(letter, bytes);
        }
    }

    pub(super) fn commit(&mut self, now: Time, incarnation: &Incarnation) -> Option<Settled> {
        if self.committing.is_some() || !self.is_dirty() || now < self.commit_not_before {
            return None;
        }
        let (halt, alone) = self.halt.take().unzip();
        if alone == Some(true) {
            self.give_up_settled();
        }
        self.commits_since_trim += 1;
        let trim = self.commits_since_trim >= limits::COMMITS_PER_TRIM;
        if trim {
            self.commits_since_trim = 0;
        }
        let mut sent = InFlight {
            to: self.settled,
            read: self.settled_read,
            caught_up: self.settled == self.position,
            dead: std::mem::take(&mut self.dead),
            dead_bytes: std::mem::take(&mut self.dead_bytes),
            effects: std::mem::take(&mut self.effects),
            records: std::mem::take(&mut self.unrecorded),
            halt: halt.clone(),
            version: self.unsaid.take(),
        };
        self.effect_bytes = 0;
        // Only those for one target have an order, and together they are fewer entries of the outbox.
        sent.effects.emits.sort_by(|a, b| a.to.cmp(&b.to));
        let emits = sent.effects.emits.iter();
        let emits = emits
            .map(|emit| {
                self.emitted += 1;
                Stamped {
                    stamp: EntryId {
                        ms: self.epoch.0,
                        seq: self.emitted,
                    },
                    emit: emit.clone(),
                }
            })
            .collect();
        let settled = Settled {
            fence: self.fence(incarnation),
            to: sent.to,
            read: sent.read,
            caught_up: sent.caught_up,
            trim,
            dead: sent.dead.clone(),
            state: sent.effects.state.clone(),
            emits,
            attempts: self.attempts.clone().filter(|_| sent.records),
            halt,
            version: sent.version.clone(),
        };
        self.committing = Some(sent);
        Some(settled)
    }

    /// Bytes of what was read and is not let go: it waits, is being handled, or is a dead letter that is
    /// not committed.
    fn held_bytes(&self) -> usize {
        let sent = self.committing.as_ref().map_or(0, |sent| sent.dead_bytes);
        let shells = limits::ENTRY_OVERHEAD_BYTES * self.queue.len();
        self.queue_bytes + shells + self.calling_bytes + self.dead_bytes + sent
    }

    /// The next entries, before those that are there are used up.
    pub(super) fn read_more(&mut self, share_bytes: usize) -> Option<Command> {
        if self.reading || self.queue.len() >= limits::QUEUE_ENTRIES_MAX / 2 {
            return None;
        }
        let held = self.held_bytes();
        // What is held falls by what this partition does alone, down to nothing: no share stops it for good.
        if held > 0 && held >= limits::QUEUE_BYTES_MAX.min(share_bytes) / 2 {
            return None;
        }
        self.reading = true;
        Some(Command::Read {
            epoch: self.epoch,
            after: self.position,
            room: share_bytes.saturating_sub(held),
        })
    }
}
