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

use std::collections::{BTreeMap, VecDeque};

use crate::backoff::Backoff;
use crate::lease::Epoch;
use crate::limits;
use crate::message::EntryId;
use crate::names::{Partition, Shape, StreamName, Uid};
use crate::parcel;
use crate::partitioner;
use crate::port::{
    AppendFromReply, Buried, BuryReply, Failure, Outgoing, Sourced, Stamped, Waiting,
};
use crate::time::{Duration, Time};

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
    /// The last message that is known.
    last: EntryId,
    lines: BTreeMap<StreamName, Line>,
    /// In the outbox, as far as is known, by their ids.
    entries: BTreeMap<EntryId, Entry>,
    messages: usize,
    bytes: usize,
    /// All of them is at its target; not removed yet.
    done: VecDeque<EntryId>,
    removing: Option<Vec<EntryId>>,
    /// To become dead letters.
    lost: VecDeque<Lost>,
    burying: usize,
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

/// An entry of the outbox.
#[derive(Debug)]
struct Entry {
    messages: usize,
    bytes: usize,
    /// Messages that are neither at their target nor lost.
    on_their_way: usize,
}

/// A message that becomes a dead letter.
#[derive(Debug)]
struct Lost {
    /// Of its entry.
    id: EntryId,
    /// None: the entry is none of ours.
    stamp: Option<EntryId>,
    reason: String,
    /// Nothing that comes later is sent there before: somebody else may judge anew, and then what is
    /// earlier must not be behind the target's last stamp.
    to: Option<StreamName>,
}

/// A wait after a failure.
#[derive(Debug, Default, Clone, Copy)]
struct Pause {
    until: Time,
    tries: u32,
}

/// All that goes to one target.
#[derive(Debug, Default)]
struct Line {
    target: Option<Target>,
    finding: bool,
    find_pause: Pause,
    /// It was told that the target is gone: nothing more is sent until all answers are in.
    gone: bool,
    /// What was for it becomes dead letters first.
    burying: bool,
    /// In order, not placed yet.
    unplaced: VecDeque<Sourced>,
    lanes: BTreeMap<Partition, Lane>,
    /// The last that each partition accepted.
    accepted: BTreeMap<Partition, EntryId>,
}

/// All that goes to one partition of a target, in order.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Sourced>,
    /// How many of them.
    in_air: usize,
    pause: Pause,
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
            last: EntryId::ZERO,
            lines: BTreeMap::new(),
            entries: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            done: VecDeque::new(),
            removing: None,
            lost: VecDeque::new(),
            burying: 0,
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
        self.entries.is_empty() && !matches!(self.tail, Tail::Loading { .. })
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
                after: self.last,
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
        if self.removing.is_none() && !self.done.is_empty() {
            let count = self.done.len().min(limits::OUTBOX_REMOVE_MAX);
            let entries: Vec<_> = self.done.drain(..count).collect();
            self.removing = Some(entries.clone());
            return Some(Command::Remove { round, entries });
        }
        if let (Some(epoch), Some(first), 0) = (self.held, self.lost.front(), self.burying)
            && self.bury_pause.over(now)
        {
            let reason = first.reason.clone();
            let (entries, count) = self.to_bury(&reason);
            self.burying = count;
            return Some(Command::Bury {
                round,
                epoch,
                entries,
                reason,
            });
        }
        None
    }

    /// Whole entries, for one reason, and how many messages of theirs are lost. What is lost of an entry was
    /// lost at once, because all of it is for one target; the rest of it was accepted before.
    fn to_bury(&self, reason: &str) -> (Vec<Buried>, usize) {
        let (mut entries, mut count) = (Vec::<Buried>::new(), 0);
        let lost: Vec<&Lost> = self.lost.iter().take(2 * limits::COMMIT_DEAD_MAX).collect();
        for of_one in lost.chunk_by(|a, b| a.id == b.id) {
            let more = count + of_one.len();
            if of_one[0].reason != reason || (count > 0 && more > limits::COMMIT_DEAD_MAX) {
                break;
            }
            entries.push(Buried {
                id: of_one[0].id,
                stamps: of_one.iter().filter_map(|lost| lost.stamp).collect(),
            });
            count = more;
        }
        (entries, count)
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
        if self.burying == 0 && !self.lost.is_empty() && self.held.is_some() {
            at(self.bury_pause.until);
        }
        next
    }

    /// Memory for one more page.
    fn has_window(&self) -> bool {
        self.messages < 2 * limits::OUTBOX_ENTRIES && self.bytes < 2 * limits::OUTBOX_BYTES
    }

    /// All that is known is forgotten, and loaded again if the lease is held.
    fn begin(&mut self, pause: Pause) {
        self.round += 1;
        self.last = EntryId::ZERO;
        self.lines.clear();
        self.entries.clear();
        self.messages = 0;
        self.bytes = 0;
        self.done.clear();
        self.removing = None;
        self.lost.clear();
        self.burying = 0;
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
                for parcel in parcel::parcels(&emits) {
                    let id = parcel[parcel.len() - 1].stamp;
                    let messages = parcel.iter().map(|one| Outgoing {
                        to: one.emit.to.clone(),
                        content: one.emit.content.clone(),
                        only: None,
                    });
                    self.push(id, messages.collect());
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
                        Err(why) => self.push_odd(id, why),
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
        if id <= self.last {
            return;
        }
        let Some(stamps) = parcel::stamps(id, messages.len()) else {
            let why = format!("it cannot hold {} messages", messages.len());
            return self.push_odd(id, why);
        };
        let bytes = messages.iter().map(|message| message.content.bytes()).sum();
        self.known(id, messages.len(), bytes);
        for (stamp, message) in stamps.zip(messages) {
            let Outgoing { to, content, only } = message;
            self.lines.entry(to).or_default().push(Sourced {
                stamp,
                content,
                only,
            });
        }
    }

    /// An entry that nobody can relay.
    fn push_odd(&mut self, id: EntryId, reason: String) {
        if id <= self.last {
            return;
        }
        self.known(id, 1, 0);
        self.lost.push_back(Lost {
            id,
            stamp: None,
            reason,
            to: None,
        });
    }

    fn known(&mut self, id: EntryId, messages: usize, bytes: usize) {
        self.last = id;
        self.messages += messages;
        self.bytes += bytes;
        let entry = Entry {
            messages,
            bytes,
            on_their_way: messages,
        };
        self.entries.insert(id, entry);
    }

    /// The entry that holds the message with this stamp: the first whose last one is not before it.
    fn entry_of(&mut self, stamp: EntryId) -> Option<(EntryId, &mut Entry)> {
        let mut from = self.entries.range_mut(stamp..);
        from.next().map(|(id, entry)| (*id, entry))
    }

    /// A target has it.
    fn arrived(&mut self, stamp: EntryId) {
        let Some((id, entry)) = self.entry_of(stamp) else {
            return;
        };
        entry.on_their_way -= 1;
        if entry.on_their_way == 0 {
            self.done.push_back(id);
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
            let Some((id, _)) = self.entry_of(message.stamp) else {
                continue;
            };
            self.lost.push_back(Lost {
                id,
                stamp: Some(message.stamp),
                reason: reason.clone(),
                to: Some(to.clone()),
            });
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
                    self.arrived(stamp);
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
        let Some(removed) = self.removing.take() else {
            return;
        };
        match result {
            Ok(()) => removed.into_iter().for_each(|id| self.leaves(id)),
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
        let count = std::mem::take(&mut self.burying);
        match result {
            Ok(BuryReply::Buried) => {
                self.bury_pause = Pause::default();
                for lost in self.lost.drain(..count).collect::<Vec<_>>() {
                    self.leaves(lost.id);
                    if let Some(to) = &lost.to
                        && self.lost.iter().all(|other| other.to.as_ref() != Some(to))
                        && let Some(line) = self.lines.get_mut(to)
                    {
                        line.burying = false;
                    }
                }
            }
            // Whoever has the lease buries them.
            Ok(BuryReply::Fenced) => self.begin_after(now),
            Err(failure) => {
                self.bury_pause.again(now, noise);
                self.trouble(failure);
            }
        }
    }

    /// The first message of an entry that goes takes it along.
    fn leaves(&mut self, id: EntryId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.messages -= entry.messages;
            self.bytes -= entry.bytes;
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
            self.messages >= times * limits::OUTBOX_ENTRIES / 2
                || self.bytes >= times * limits::OUTBOX_BYTES / 2
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

impl Line {
    fn wants_finding(&self) -> bool {
        self.target.is_none() && !self.finding && !self.burying && !self.unplaced.is_empty()
    }

    fn push(&mut self, message: Sourced) {
        match &self.target {
            Some(target) if !self.gone => {
                let partition = partitioner::partition(message.content.key(), target.shape);
                let lane = self.lanes.entry(partition).or_default();
                lane.queue.push_back(message);
            }
            _ => self.unplaced.push_back(message),
        }
    }

    fn place(&mut self, target: Target) {
        self.target = Some(target);
        for message in std::mem::take(&mut self.unplaced) {
            self.push(message);
        }
    }

    /// After the target was found to be gone and all answers are in: everything waits for the next one of
    /// that name, in order.
    fn gather(&mut self) -> bool {
        if !self.gone || self.lanes.values().any(|lane| lane.in_air > 0) {
            return false;
        }
        self.gone = false;
        self.target = None;
        self.accepted.clear();
        let lanes = std::mem::take(&mut self.lanes).into_values();
        let mut all: Vec<_> = lanes.flat_map(|lane| lane.queue).collect();
        all.extend(std::mem::take(&mut self.unplaced));
        all.sort_by_key(|message| message.stamp);
        self.unplaced = all.into();
        true
    }

    fn next_append(&mut self, now: Time) -> Option<(Target, Partition, Vec<Sourced>)> {
        let target = self.target.as_ref().filter(|_| !self.gone)?;
        let mut lanes = self.lanes.iter_mut();
        let (partition, lane) = lanes
            .find(|(_, lane)| lane.in_air == 0 && !lane.queue.is_empty() && lane.pause.over(now))?;
        let mut bytes = 0;
        let fits = lane
            .queue
            .iter()
            .take(limits::APPEND_BATCH_MESSAGES_MAX)
            .take_while(|message| {
                bytes += message.content.bytes();
                bytes <= limits::APPEND_BATCH_BYTES_MAX
            });
        lane.in_air = fits.count().max(1);
        let messages = lane.queue.iter().take(lane.in_air).cloned().collect();
        Some((target.clone(), *partition, messages))
    }
}

impl Pause {
    fn over(&self, now: Time) -> bool {
        now >= self.until
    }
    fn again(&mut self, now: Time, noise: u64) {
        self.tries = self.tries.saturating_add(1);
        self.until = now + RELAY_BACKOFF.wait(self.tries, noise);
    }
}
