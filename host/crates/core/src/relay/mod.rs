//! One outbox on its way: what a handler emitted waits in the outbox of its partition, and is appended to
//! its target from there. `(now, event)` in, commands out. It must not know how a command is carried out,
//! nor what a message means.
//!
//! ```text
//!   Held ─▶ Loading ──the end is reached──▶ Following ◀── Committed: what a commit put in
//!              ▲                                │
//!              └── the outcome is unknown, Redis was away ──┘      all that is known is loaded again
//! ```
//!
//! Invariants, each checked by the tests:
//! - What one source has for one partition of a target is sent in the order of its stamps; at most one
//!   append per such partition is in the air, and the next one begins with what was not accepted.
//! - Whoever relays begins at the outbox's first message and leaves none out, because a target takes what
//!   is not above the last stamp of its source for done.
//! - An entry leaves the outbox only after a target accepted all its messages, or with those that became
//!   dead letters.
//!
//! Who relays need not hold the lease: the same messages sent twice, by two, in any order are accepted
//! once. So nothing here is fenced but dead letters.

mod line;
mod outbox;

use std::collections::{BTreeMap, VecDeque};

use crate::backoff::Backoff;
use crate::lease::Epoch;
use crate::limits;
use crate::message::EntryId;
use crate::names::{Partition, Shape, StreamName, Uid};
use crate::parcel;
use crate::port::{
    AppendFromReply, Buried, BuryReply, Failure, Outgoing, Sourced, Stamped, Waiting,
};
use crate::time::{Duration, Time};
use line::{Line, Pause};
use outbox::Outbox;

/// Between two tries at a full target, or at a broker that did nothing.
pub const RELAY_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(5),
    max: Duration::from_millis(500),
};

/// A target as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub uid: Uid,
    pub shape: Shape,
}

/// Answers name the round that they were asked in: after a new beginning they mean nothing.
pub type Round = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The lease was acquired: what others left in the outbox is to be relayed here.
    Held { epoch: Epoch },
    /// It is not held any more. What is known goes on, as it does no harm; nothing more is loaded.
    Dropped,
    /// A commit of this epoch put these into the outbox.
    Committed { epoch: Epoch, emits: Vec<Stamped> },
    /// Redis was away: it may have gone back.
    Reconnected,
    Loaded {
        round: Round,
        result: Result<Vec<Waiting>, Failure>,
    },
    /// `None`: there is no such stream.
    Found {
        round: Round,
        to: StreamName,
        result: Result<Option<Target>, Failure>,
    },
    Appended {
        round: Round,
        to: StreamName,
        partition: Partition,
        result: Result<AppendFromReply, Failure>,
    },
    Removed {
        round: Round,
        result: Result<(), Failure>,
    },
    Buried {
        round: Round,
        result: Result<BuryReply, Failure>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Entries above one; fewer than `count` means that this is all.
    Load {
        round: Round,
        after: EntryId,
        count: usize,
    },
    Find {
        round: Round,
        to: StreamName,
    },
    Append {
        round: Round,
        to: StreamName,
        target: Target,
        partition: Partition,
        /// The last that the target accepted in this round.
        after: Option<EntryId>,
        messages: Vec<Sourced>,
    },
    Remove {
        round: Round,
        entries: Vec<EntryId>,
    },
    Bury {
        round: Round,
        epoch: Epoch,
        entries: Vec<Buried>,
        reason: String,
    },
    /// The outbox is full by now, or not any more.
    Room(Room),
    /// Only an operator can mend it; it is tried again. For people, once.
    Trouble {
        why: String,
    },
}

/// Whether more may be put into the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    Free,
    /// A message now and then: else a handler that emits into its own full partition, or two that emit
    /// to each other, would wait for themselves for ever.
    Little {
        waits_for: Option<String>,
    },
    None {
        waits_for: Option<String>,
    },
}

#[derive(Debug)]
pub struct Relay {
    held: Option<Epoch>,
    round: Round,
    tail: Tail,
    outbox: Outbox,
    lines: BTreeMap<StreamName, Line>,
    bury_pause: Pause,
    /// New beginnings since the last message that was accepted.
    begins: Pause,
    room: Level,
    notices: VecDeque<Command>,
    trouble: Option<String>,
    noise: u64,
}

/// Where the known part of the outbox ends.
#[derive(Debug)]
enum Tail {
    /// What follows is not looked at.
    Closed,
    Loading {
        asked: bool,
        /// Something was committed meanwhile, which an answer on its way may not hold.
        more: bool,
        pause: Pause,
    },
    /// All is known; commits tell what follows.
    Following,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Free,
    Little,
    None,
}

impl Relay {
    /// `seed`: where jitter comes from.
    pub fn new(seed: u64) -> Relay {
        Relay {
            held: None,
            round: 0,
            tail: Tail::Closed,
            outbox: Outbox::default(),
            lines: BTreeMap::new(),
            bury_pause: Pause::default(),
            begins: Pause::default(),
            room: Level::Free,
            notices: VecDeque::new(),
            trouble: None,
            noise: seed | 1,
        }
    }

    /// Nothing that is known waits, and nothing more is to be looked for.
    pub fn is_empty(&self) -> bool {
        self.outbox.is_empty() && !matches!(self.tail, Tail::Loading { .. })
    }

    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Held { epoch } => {
                self.held = Some(epoch);
                self.begin(Pause::default());
            }
            Event::Dropped => {
                self.held = None;
                self.tail = Tail::Closed;
            }
            Event::Reconnected => self.begin(Pause::default()),
            Event::Committed { epoch, emits } => self.committed(epoch, emits),
            Event::Loaded { round, result } if round == self.round => self.loaded(now, result),
            Event::Found { round, to, result } if round == self.round => {
                self.found(now, to, result);
            }
            Event::Appended {
                round,
                to,
                partition,
                result,
            } if round == self.round => self.appended(now, &to, partition, result),
            Event::Removed { round, result } if round == self.round => self.removed(now, result),
            Event::Buried { round, result } if round == self.round => self.buried(now, result),
            Event::Loaded { .. }
            | Event::Found { .. }
            | Event::Appended { .. }
            | Event::Removed { .. }
            | Event::Buried { .. } => {}
        }
        self.measure();
    }

    /// The next thing to do, until there is none.
    pub fn poll(&mut self, now: Time) -> Option<Command> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        let round = self.round;
        let window = self.has_window();
        if let Tail::Loading { asked, more, pause } = &mut self.tail
            && !*asked
            && pause.over(now)
            && window
        {
            *asked = true;
            *more = false;
            return Some(Command::Load {
                round,
                after: self.outbox.last,
                count: limits::OUTBOX_PAGE_ENTRIES,
            });
        }
        for (to, line) in &mut self.lines {
            if line.wants_finding() && line.find_pause.over(now) {
                line.finding = true;
                let to = to.clone();
                return Some(Command::Find { round, to });
            }
            if let Some((target, partition, messages)) = line.next_append(now) {
                return Some(Command::Append {
                    round,
                    to: to.clone(),
                    target,
                    partition,
                    after: line.accepted.get(&partition).copied(),
                    messages,
                });
            }
        }
        self.poll_outbox(now)
    }

    /// What changes the outbox itself: one removal in the air, what is relayed meanwhile rides in the next.
    fn poll_outbox(&mut self, now: Time) -> Option<Command> {
        let round = self.round;
        if let Some(entries) = self.outbox.next_removal() {
            return Some(Command::Remove { round, entries });
        }
        if let Some(epoch) = self.held
            && self.bury_pause.over(now)
            && let Some((entries, reason)) = self.outbox.next_burial()
        {
            return Some(Command::Bury {
                round,
                epoch,
                entries,
                reason,
            });
        }
        None
    }

    /// When to poll again if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let mut next: Option<Time> = None;
        let mut at = |time: Time| next = Some(next.map_or(time, |n| n.min(time)));
        if let Tail::Loading {
            asked: false,
            pause,
            ..
        } = &self.tail
            && self.has_window()
        {
            at(pause.until);
        }
        for line in self.lines.values() {
            if line.wants_finding() {
                at(line.find_pause.until);
            }
            for lane in line.lanes.values() {
                if lane.in_air == 0 && !lane.queue.is_empty() && !line.gone {
                    at(lane.pause.until);
                }
            }
        }
        if self.outbox.has_lost() && self.held.is_some() {
            at(self.bury_pause.until);
        }
        next
    }

    /// Memory for one more page.
    fn has_window(&self) -> bool {
        self.outbox.messages < 2 * limits::OUTBOX_ENTRIES
            && self.outbox.bytes < 2 * limits::OUTBOX_BYTES
    }

    /// All that is known is forgotten, and loaded again if the lease is held.
    fn begin(&mut self, pause: Pause) {
        self.round += 1;
        self.outbox = Outbox::default();
        self.lines.clear();
        self.tail = match self.held {
            None => Tail::Closed,
            Some(_) => Tail::Loading {
                asked: false,
                more: false,
                pause,
            },
        };
    }

    fn begin_after(&mut self, now: Time) {
        let noise = self.noise();
        self.begins.again(now, noise);
        self.begin(self.begins);
    }

    fn committed(&mut self, epoch: Epoch, emits: Vec<Stamped>) {
        if self.held != Some(epoch) {
            return;
        }
        match &mut self.tail {
            Tail::Closed => {}
            Tail::Loading { more, .. } => *more = true,
            Tail::Following => {
                let sizes: Vec<usize> = parcel::parcels(&emits).map(<[_]>::len).collect();
                let mut emits = emits.into_iter();
                for size in sizes {
                    let mut id = EntryId::ZERO;
                    let messages = emits.by_ref().take(size).map(|Stamped { stamp, emit }| {
                        id = stamp;
                        Outgoing {
                            to: emit.to,
                            content: emit.content,
                            only: None,
                        }
                    });
                    let messages = messages.collect();
                    self.push(id, messages);
                }
            }
        }
    }

    fn loaded(&mut self, now: Time, result: Result<Vec<Waiting>, Failure>) {
        let noise = self.noise();
        let Tail::Loading { asked, more, pause } = &mut self.tail else {
            return;
        };
        *asked = false;
        match result {
            Ok(waiting) => {
                *pause = Pause::default();
                if waiting.len() < limits::OUTBOX_PAGE_ENTRIES && !*more {
                    self.tail = Tail::Following;
                }
                for Waiting { id, messages } in waiting {
                    match messages {
                        Ok(messages) => self.push(id, messages),
                        Err(why) if id > self.outbox.last => self.outbox.add_odd(id, why),
                        Err(_) => {}
                    }
                }
            }
            Err(failure) => {
                pause.again(now, noise);
                self.trouble(failure);
            }
        }
    }

    /// All messages of an entry.
    fn push(&mut self, id: EntryId, messages: Vec<Outgoing>) {
        if id <= self.outbox.last {
            return;
        }
        let Some(stamps) = parcel::stamps(id, messages.len()) else {
            let why = format!("it cannot hold {} messages", messages.len());
            return self.outbox.add_odd(id, why);
        };
        let bytes = messages.iter().map(|message| message.content.bytes()).sum();
        self.outbox.add(id, messages.len(), bytes);
        for (stamp, message) in stamps.zip(messages) {
            let Outgoing { to, content, only } = message;
            self.lines.entry(to).or_default().push(Sourced {
                stamp,
                content,
                only,
            });
        }
    }

    fn found(&mut self, now: Time, to: StreamName, result: Result<Option<Target>, Failure>) {
        let noise = self.noise();
        let Some(line) = self.lines.get_mut(&to) else {
            return;
        };
        line.finding = false;
        let why = match result {
            // Other programs write it, and nothing of ours is written there.
            Ok(Some(target)) if target.shape.capacity().is_none() => {
                "which other programs write; XADD it there, then purge"
            }
            Ok(Some(target)) => return line.place(target),
            Ok(None) => "which does not exist; create it, then redrive",
            Err(failure) => {
                line.find_pause.again(now, noise);
                return self.trouble(failure);
            }
        };
        let reason = format!("it was emitted to stream {to}, {why}");
        line.burying = true;
        for message in std::mem::take(&mut line.unplaced) {
            self.outbox.lose(message.stamp, &reason, &to);
        }
    }

    fn appended(
        &mut self,
        now: Time,
        to: &StreamName,
        partition: Partition,
        result: Result<AppendFromReply, Failure>,
    ) {
        let noise = self.noise();
        let Some(line) = self.lines.get_mut(to) else {
            return;
        };
        let Some(lane) = line.lanes.get_mut(&partition) else {
            return;
        };
        let sent = std::mem::take(&mut lane.in_air);
        match result {
            Ok(AppendFromReply::Accepted { ids }) => {
                let accepted = ids.len().min(sent);
                if let Some(at) = accepted.checked_sub(1) {
                    line.accepted.insert(partition, lane.queue[at].stamp);
                }
                let arrived = lane.queue.drain(..accepted);
                let arrived: Vec<EntryId> = arrived.map(|message| message.stamp).collect();
                if accepted > 0 {
                    lane.pause = Pause::default();
                    line.find_pause = Pause::default();
                    self.trouble = None;
                    self.begins = Pause::default();
                }
                if accepted < sent {
                    lane.pause.again(now, noise);
                }
                if lane.queue.is_empty() {
                    line.lanes.remove(&partition);
                }
                for stamp in arrived {
                    self.outbox.arrived(stamp);
                }
            }
            Ok(AppendFromReply::StreamGone) => line.gone = true,
            // An outbox is no producer, and not counted among them.
            Ok(AppendFromReply::Crowded) => {
                lane.pause.again(now, noise);
                self.trouble(Failure::Fatal("it takes no more producers".to_owned()));
            }
            // What else happened to Redis is not known, either.
            Ok(AppendFromReply::Behind) | Err(Failure::Unknown(_)) => return self.begin_after(now),
            Err(failure) => {
                lane.pause.again(now, noise);
                self.trouble(failure);
            }
        }
        if let Some(line) = self.lines.get_mut(to)
            && line.gather()
        {
            // A stream that is being made, or unmade, is looked up again and again.
            line.find_pause.again(now, noise);
        }
    }

    fn removed(&mut self, now: Time, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.outbox.removed(),
            // If Redis went back meanwhile, they may not be at their targets any more: not said again
            // before the targets were asked.
            Err(failure) => {
                self.trouble(failure);
                self.begin_after(now);
            }
        }
    }

    fn buried(&mut self, now: Time, result: Result<BuryReply, Failure>) {
        let noise = self.noise();
        match result {
            Ok(BuryReply::Buried) => {
                self.bury_pause = Pause::default();
                for to in self.outbox.buried() {
                    if let Some(line) = self.lines.get_mut(&to) {
                        line.burying = false;
                    }
                }
            }
            // Whoever has the lease buries them.
            Ok(BuryReply::Fenced) => self.begin_after(now),
            Err(failure) => {
                self.outbox.not_buried();
                self.bury_pause.again(now, noise);
                self.trouble(failure);
            }
        }
    }

    fn trouble(&mut self, failure: Failure) {
        if let Failure::Fatal(why) = failure
            && self.trouble.as_ref() != Some(&why)
        {
            self.trouble = Some(why.clone());
            self.notices.push_back(Command::Trouble { why });
        }
    }

    /// Says when the outbox becomes full, and when it is half empty again: not at each message between.
    fn measure(&mut self) {
        let above = |times: usize| {
            self.outbox.messages >= times * limits::OUTBOX_ENTRIES / 2
                || self.outbox.bytes >= times * limits::OUTBOX_BYTES / 2
        };
        let level = match () {
            _ if above(4) => Level::None,
            _ if above(2) => Level::Little,
            _ if above(1) && self.room != Level::Free => Level::Little,
            _ => Level::Free,
        };
        if level == self.room {
            return;
        }
        self.room = level;
        let waits_for = self.waits_for();
        self.notices.push_back(Command::Room(match level {
            Level::Free => Room::Free,
            Level::Little => Room::Little { waits_for },
            Level::None => Room::None { waits_for },
        }));
    }

    /// Where most of it shall go.
    fn waits_for(&self) -> Option<String> {
        let lanes = self.lines.iter().flat_map(|(to, line)| {
            let unplaced = (line.unplaced.len(), to.to_string());
            let lanes = line.lanes.iter();
            lanes
                .map(move |(partition, lane)| (lane.queue.len(), format!("{to}/{partition}")))
                .chain([unplaced])
        });
        lanes.max().map(|(_, name)| name)
    }

    /// xorshift64, as everywhere here.
    fn noise(&mut self) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        self.noise
    }
}
