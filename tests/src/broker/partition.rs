//! One partition in memory: entries, leases, dead letters, and what may be trimmed.

use std::collections::{BTreeMap, VecDeque};

use segmenter_core::effects::Emit;
use segmenter_core::entry::{self, Fields, RawEntry, decode_letter, encode, encode_for};
use segmenter_core::lease::{Epoch, Lease};
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{GroupName, Sender};
use segmenter_core::parcel;
use segmenter_core::port::{
    Buried, Bury, BuryReply, Commit, CommitReply, DeadLetter, EnsureGroupReply, Failure, Outgoing,
    Position, Redriven, Sourced, Stamped, Start, Waiting,
};

use segmenter_core::source::{Layout, Source};

use super::{KeptDead, Mutations};

const LAST_ID: EntryId = EntryId {
    ms: u64::MAX,
    seq: u64::MAX,
};

#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    entries: VecDeque<RawEntry>,
    last_id: EntryId,
    /// Entries ever added.
    added: u64,
    leases: BTreeMap<GroupName, Lease>,
    foreign: BTreeMap<GroupName, Foreign>,
    dead: BTreeMap<GroupName, Vec<KeptDead>>,
    mutations: Mutations,
    /// Others write it: nothing is trimmed.
    theirs: bool,
    state: BTreeMap<GroupName, BTreeMap<String, Vec<u8>>>,
    outbox: BTreeMap<GroupName, Outbox>,
    /// The last stamp of each source that appended here.
    from: BTreeMap<Sender, EntryId>,
    /// The last id that was given to a dead letter.
    dead_last: EntryId,
}

/// Emitted messages by their stamps, and the last stamp that was given out.
#[derive(Debug, Clone, Default)]
struct Outbox {
    last: EntryId,
    /// Entries by the stamp of their last message.
    waiting: VecDeque<(EntryId, Vec<Outgoing>)>,
}

/// A Redis group without a lease.
#[derive(Debug, Clone)]
struct Foreign {
    delivered: EntryId,
    oldest_pending: Option<EntryId>,
}

impl Log {
    pub(super) fn of_others() -> Log {
        Log {
            theirs: true,
            ..Log::default()
        }
    }

    pub(super) fn new(mutations: Mutations) -> Log {
        Log {
            mutations,
            ..Log::default()
        }
    }

    /// Without anything of ours.
    pub(super) fn left_to_others(self) -> Log {
        Log {
            leases: BTreeMap::new(),
            dead: BTreeMap::new(),
            state: BTreeMap::new(),
            outbox: BTreeMap::new(),
            ..self
        }
    }

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &RawEntry> {
        self.entries.iter()
    }

    pub(super) fn lease(&self, group: &GroupName) -> Option<&Lease> {
        self.leases.get(group)
    }

    pub(super) fn lease_mut(&mut self, group: &GroupName) -> Option<&mut Lease> {
        self.leases.get_mut(group)
    }

    pub(super) fn dead(&self, group: &GroupName) -> &[KeptDead] {
        self.dead.get(group).map_or(&[], Vec::as_slice)
    }

    pub(super) fn state(&self, group: &GroupName) -> BTreeMap<String, Vec<u8>> {
        self.state.get(group).cloned().unwrap_or_default()
    }

    /// Emitted messages that are not at their target yet.
    pub(super) fn outbox(&self, group: &GroupName) -> Vec<Stamped> {
        let outbox = self.outbox.get(group);
        let waiting = outbox.into_iter().flat_map(|o| &o.waiting);
        let stamped = waiting.flat_map(|(id, messages)| {
            let stamps = parcel::stamps(*id, messages.len());
            let stamps = stamps.expect("they were counted").zip(messages);
            stamps.map(|(stamp, message)| Stamped {
                stamp,
                emit: Emit {
                    to: message.to.clone(),
                    content: message.content.clone(),
                },
            })
        });
        stamped.collect()
    }

    pub(super) fn waiting(&self, group: &GroupName, after: EntryId, count: usize) -> Vec<Waiting> {
        let outbox = self.outbox.get(group);
        let waiting = outbox.into_iter().flat_map(|o| &o.waiting);
        waiting
            .filter(|(id, _)| *id > after)
            .take(count)
            .map(|(id, messages)| Waiting {
                id: *id,
                messages: Ok(messages.clone()),
            })
            .collect()
    }

    pub(super) fn relayed(&mut self, group: &GroupName, entries: &[EntryId]) -> u64 {
        let Some(outbox) = self.outbox.get_mut(group) else {
            return 0;
        };
        let before = outbox.waiting.len();
        outbox.waiting.retain(|(id, _)| !entries.contains(id));
        count(before - outbox.waiting.len())
    }

    pub(super) fn purge(&mut self, group: &GroupName, letters: &[EntryId]) -> u64 {
        let Some(dead) = self.dead.get_mut(group) else {
            return 0;
        };
        let before = dead.len();
        dead.retain(|kept| !letters.contains(&kept.dead_id));
        count(before - dead.len())
    }

    pub(super) fn bury(&mut self, now_ms: u64, r: Bury) -> BuryReply {
        if self
            .lease(&r.group)
            .is_none_or(|lease| lease.epoch != r.epoch)
        {
            return BuryReply::Fenced;
        }
        let waiting = self.waiting(&r.group, EntryId::ZERO, usize::MAX);
        let gone: Vec<EntryId> = r.entries.iter().map(|entry| entry.id).collect();
        self.relayed(&r.group, &gone);
        let there = waiting.into_iter().flat_map(|Waiting { id, messages }| {
            let messages = messages.expect("nobody else writes here");
            let stamps = parcel::stamps(id, messages.len()).expect("they were counted");
            stamps.zip(messages).map(move |message| (id, message))
        });
        for (id, (stamp, message)) in there.collect::<Vec<_>>() {
            let buries = |entry: &Buried| {
                let whole = entry.stamps.is_empty();
                entry.id == id && (whole || entry.stamps.contains(&stamp))
            };
            if !r.entries.iter().any(buries) {
                continue;
            }
            let to = message.to.as_str().as_bytes().to_vec();
            let mut fields = vec![(entry::TARGET_FIELD.to_vec(), to)];
            fields.extend(encode_for(&message.content, message.only.as_ref()));
            let letter = DeadLetter {
                id: stamp,
                reason: r.reason.clone(),
                attempts: 0,
                version: String::new(),
                fields,
            };
            self.keep(now_ms, &r.group, letter);
        }
        BuryReply::Buried
    }

    /// `None`: no such group.
    pub(super) fn redrive(
        &mut self,
        group: &GroupName,
        source: Option<Source>,
        letters: &[Redriven],
        now_us: u64,
    ) -> Option<(Epoch, Vec<EntryId>)> {
        let layout = Layout::of(source);
        let lease = self.leases.get_mut(group)?;
        let dead = self.dead.entry(group.clone()).or_default();
        let mut moved = Vec::new();
        for letter in letters {
            let Some(at) = dead.iter().position(|kept| kept.dead_id == letter.dead_id) else {
                continue;
            };
            let kept = dead.remove(at);
            let (_, content) = match letter.emitted {
                true => decode_letter(&kept.letter.fields),
                false => layout.decode_letter(&kept.letter.fields),
            }
            .expect("asked for a message");
            let message = Outgoing {
                to: letter.to.clone(),
                content,
                only: letter.only.then(|| group.clone()),
            };
            moved.push((letter.dead_id, message));
        }
        if moved.is_empty() {
            return Some((lease.epoch, Vec::new()));
        }
        lease.redrive(now_us);
        let ms = lease.epoch.0;
        let outbox = self.outbox.entry(group.clone()).or_default();
        let (ids, messages): (Vec<_>, Vec<_>) = moved.into_iter().unzip();
        for (seq, message) in (1..).zip(messages) {
            outbox.last = EntryId { ms, seq };
            outbox.waiting.push_back((outbox.last, vec![message]));
        }
        Some((Epoch(ms), ids))
    }

    fn keep(&mut self, now_ms: u64, group: &GroupName, letter: DeadLetter) {
        let now = EntryId { ms: now_ms, seq: 0 };
        self.dead_last = match now > self.dead_last {
            true => now,
            false => self.dead_last.next().expect("far from the end"),
        };
        self.dead.entry(group.clone()).or_default().push(KeptDead {
            dead_id: self.dead_last,
            letter,
            at_ms: now_ms,
        });
    }

    /// The last stamp that came from there.
    pub(super) fn last_of(&self, source: &Sender) -> Option<EntryId> {
        self.from.get(source).copied()
    }

    /// One more producer cannot be remembered.
    pub(super) fn is_crowded(&self, source: &Sender) -> bool {
        let producers = self.from.keys().filter(|from| from.is_producer());
        source.is_producer()
            && !self.from.contains_key(source)
            && count(producers.count()) >= limits::PRODUCERS_MAX
    }

    pub(super) fn append_from(
        &mut self,
        now_ms: u64,
        source: Sender,
        messages: &[Sourced],
        capacity: u64,
        retain: u64,
    ) -> Vec<Option<EntryId>> {
        let known = self.from.get(&source).copied();
        let mut last = known.filter(|_| !self.mutations.sources_forgotten);
        let mut ids = Vec::new();
        let mut seen = last;
        let mut new = 0;
        for message in messages {
            if seen.is_none_or(|seen| seen < message.stamp) {
                seen = Some(message.stamp);
                new += 1;
            }
        }
        let mut room = self.room(new, capacity, retain);
        for message in messages {
            if last.is_some_and(|last| message.stamp <= last) {
                ids.push(None);
                continue;
            }
            let Some(id) = self.next_id(now_ms).filter(|_| room > 0) else {
                break;
            };
            self.add(id, encode_for(&message.content, message.only.as_ref()));
            ids.push(Some(id));
            last = Some(message.stamp);
            room -= 1;
        }
        if let Some(last) = last {
            self.from.insert(source, last);
        }
        ids
    }

    pub(super) fn lag(&self, group: &GroupName) -> Option<u64> {
        Some(self.added.saturating_sub(self.lease(group)?.read))
    }

    pub(super) fn add(&mut self, id: EntryId, fields: Fields) -> Option<EntryId> {
        if id <= self.last_id {
            return None;
        }
        self.entries.push_back(RawEntry { id, fields });
        self.last_id = id;
        self.added += 1;
        Some(id)
    }

    pub(super) fn remove(&mut self, id: EntryId) -> bool {
        let before = self.entries.len();
        self.entries.retain(|e| e.id != id);
        self.entries.len() < before
    }

    pub(super) fn add_foreign_group(&mut self, group: GroupName, after: EntryId, pending: usize) {
        let delivered: Vec<EntryId> = self
            .entries
            .iter()
            .map(|e| e.id)
            .filter(|id| *id > after)
            .take(pending)
            .collect();
        let foreign = Foreign {
            delivered: delivered.last().copied().unwrap_or(after),
            oldest_pending: delivered.first().copied(),
        };
        self.foreign.insert(group, foreign);
    }

    pub(super) fn ensure_group(&mut self, group: GroupName, start: Start) -> EnsureGroupReply {
        if self.leases.contains_key(&group) {
            return EnsureGroupReply::Ensured { existed: true };
        }
        if self.foreign.contains_key(&group) {
            return EnsureGroupReply::ForeignGroup;
        }
        let lease = match start {
            Start::Beginning => Lease::new(EntryId::ZERO, self.added - self.len()),
            Start::End => Lease::new(self.last_id, self.added),
        };
        self.leases.insert(group, lease);
        EnsureGroupReply::Ensured { existed: false }
    }

    pub(super) fn append(
        &mut self,
        now_ms: u64,
        messages: &[Content],
        capacity: u64,
        retain: u64,
    ) -> Vec<EntryId> {
        let wanted = count(messages.len());
        let room = self.room(wanted, capacity, retain);
        let accepted = usize::try_from(room.min(wanted)).expect("not above a length");
        messages[..accepted]
            .iter()
            .map_while(|content| {
                let id = self.next_id(now_ms)?;
                self.add(id, encode(content))
            })
            .collect()
    }

    /// For how many of `wanted` there is room, after a trim if there is too little.
    fn room(&mut self, wanted: u64, capacity: u64, retain: u64) -> u64 {
        let room = capacity.saturating_sub(self.len());
        if room >= wanted {
            return room;
        }
        // More than the capacity may lie there, from others: then dropping makes no room yet.
        let over = self.len().saturating_sub(capacity);
        let dropped = self.trim(Some(wanted - room + over), retain);
        room + dropped.saturating_sub(over)
    }

    /// As `XADD *`: the time, or one above the last id if the clock went back.
    fn next_id(&self, now_ms: u64) -> Option<EntryId> {
        if now_ms > self.last_id.ms {
            return Some(EntryId { ms: now_ms, seq: 0 });
        }
        self.last_id.next()
    }

    pub(super) fn commit(
        &mut self,
        now_ms: u64,
        mut r: Commit,
        retain: u64,
    ) -> Result<CommitReply, Failure> {
        let (last_id, added, mutations) = (self.last_id, self.added, self.mutations);
        let Some(lease) = self.leases.get_mut(&r.group) else {
            return Ok(CommitReply::Fenced { found: None });
        };
        mutations.bend(&mut r.fence, lease);
        if lease.admits(&r.fence) && r.to < r.fence.from {
            return Err(Failure::Fatal(format!(
                "commit to {} goes behind {}",
                r.to, r.fence.from
            )));
        }
        let outbox_last = self.outbox.get(&r.group).map_or(EntryId::ZERO, |o| o.last);
        if lease.admits(&r.fence)
            && r.emits
                .first()
                .is_some_and(|first| first.stamp <= outbox_last)
        {
            return Err(Failure::Fatal(format!(
                "the outbox has messages up to {outbox_last}"
            )));
        }
        let bytes_of = |letter: &DeadLetter| -> usize {
            letter.fields.iter().map(|(n, v)| n.len() + v.len()).sum()
        };
        let dead_bytes = lease.dead_bytes + count(r.dead.iter().map(bytes_of).sum());
        let kept = self.dead.get(&r.group).map_or(0, Vec::len);
        let full = count(kept + r.dead.len()) > limits::DEAD_ENTRIES_MAX
            || dead_bytes > limits::DEAD_BYTES_MAX;
        if lease.admits(&r.fence) && !r.dead.is_empty() && full {
            return Ok(CommitReply::DeadFull {
                entries: count(kept),
                bytes: dead_bytes,
            });
        }
        let read = match r.caught_up && r.to == last_id {
            true => added,
            false => r.read,
        };
        if !lease.commit(&r.fence, r.to, read) {
            return Ok(CommitReply::Fenced {
                found: Some(lease.view()),
            });
        }
        lease.dead_bytes = dead_bytes;
        if r.attempts.is_some() {
            lease.attempts = r.attempts;
        }
        if let (Some(version), Some(owner)) = (r.version, &mut lease.owner) {
            owner.version = version;
        }
        if r.halt.is_some() {
            lease.halt = r.halt;
            lease.owner = None;
        }
        for letter in r.dead {
            self.keep(now_ms, &r.group, letter);
        }
        let state = self.state.entry(r.group.clone()).or_default();
        for (name, value) in r.state {
            match value {
                Some(value) => state.insert(name, value),
                None => state.remove(&name),
            };
        }
        if let Some(last) = r.emits.last() {
            let outbox = self.outbox.entry(r.group).or_default();
            outbox.last = last.stamp;
            let entries = parcel::parcels(&r.emits).map(|parcel| {
                let messages = parcel.iter().map(|one| Outgoing {
                    to: one.emit.to.clone(),
                    content: one.emit.content.clone(),
                    only: None,
                });
                (parcel[parcel.len() - 1].stamp, messages.collect())
            });
            outbox.waiting.extend(entries);
        }
        if r.trim {
            self.trim(None, retain);
        }
        Ok(CommitReply::Committed { read })
    }

    /// Acked-through before and now, and entries up to it. `None`: no such group.
    pub(super) fn seek(
        &mut self,
        group: &GroupName,
        to: Position,
        now_us: u64,
    ) -> Option<(EntryId, EntryId, u64)> {
        let first = match to {
            Position::Start => EntryId::ZERO,
            Position::From(id) if id <= self.last_id => id,
            Position::From(_) | Position::End => LAST_ID,
        };
        let mut before = self.entries.iter().filter(|e| e.id < first);
        let follow = self.len() - count(before.clone().count());
        let acked = match first {
            LAST_ID => self.last_id,
            _ => before.next_back().map_or(EntryId::ZERO, |e| e.id),
        };
        let read = self.added - follow;
        let lease = self.leases.get_mut(group)?;
        let was = lease.acked;
        lease.seek(acked, read, now_us);
        Some((was, acked, read))
    }

    /// The first entry that is not acked becomes a dead letter.
    pub(super) fn skip(
        &mut self,
        group: &GroupName,
        reason: String,
        now_ms: u64,
    ) -> Option<EntryId> {
        let lease = self.leases.get_mut(group)?;
        let head = self.entries.iter().find(|e| e.id > lease.acked)?;
        let letter = DeadLetter {
            id: head.id,
            reason,
            attempts: 0,
            // No handler gave up on it.
            version: String::new(),
            fields: head.fields.clone(),
        };
        lease.acked = head.id;
        lease.read = match head.id == self.last_id {
            true => self.added,
            false => lease.read + 1,
        };
        let id = letter.id;
        self.keep(now_ms, group, letter);
        Some(id)
    }

    /// With all that is its own; what it alone needed goes. False: there was none.
    pub(super) fn delete_group(&mut self, group: &GroupName, retain: u64) -> bool {
        self.dead.remove(group);
        self.state.remove(group);
        self.outbox.remove(group);
        let existed = self.leases.remove(group).is_some();
        if existed {
            self.trim(None, retain);
        }
        existed
    }

    /// Drops entries that no group needs; how many. `need` `None`: a routine trim, which keeps `retain`
    /// of them; else a full partition, which drops as many as it needs if some are retained.
    fn trim(&mut self, need: Option<u64>, retain: u64) -> u64 {
        if self.theirs {
            return 0;
        }
        let Some((mut keep_from, behind)) = self.needed() else {
            return 0;
        };
        if retain > 0 {
            let drop = match need {
                Some(need) => need,
                None => self.len().saturating_sub(behind.saturating_add(retain)),
            };
            let first_kept = usize::try_from(drop)
                .ok()
                .and_then(|at| self.entries.get(at));
            if let Some(entry) = first_kept {
                keep_from = keep_from.min(entry.id);
            }
        }
        let before = self.len();
        while self.entries.front().is_some_and(|e| e.id < keep_from) {
            self.entries.pop_front();
        }
        before - self.len()
    }

    /// The first id that some group still needs, and how many entries the slowest has before it. `None`:
    /// there is no group, so everything waits.
    fn needed(&self) -> Option<(EntryId, u64)> {
        let ours = self.leases.values().map(|lease| {
            let from = lease.acked.next().unwrap_or(LAST_ID);
            (from, self.added.saturating_sub(lease.read))
        });
        let foreign = self.foreign.values().map(|group| {
            let from = group.delivered.next().unwrap_or(LAST_ID);
            let from = group.oldest_pending.map_or(from, |p| p.min(from));
            (
                from,
                count(self.entries.iter().filter(|e| e.id >= from).count()),
            )
        });
        ours.chain(foreign).reduce(|(a, b), (c, d)| {
            if self.mutations.trim_behind_fastest {
                return (a.max(c), b.min(d));
            }
            (a.min(c), b.max(d))
        })
    }

    fn len(&self) -> u64 {
        count(self.entries.len())
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits")
}
