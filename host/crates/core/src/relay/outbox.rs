//! What is known of the outbox: its entries, how many messages of each are still on their way, and which
//! may be removed or become dead letters. Must not know targets beyond their names, nor when anything is
//! asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits;
use crate::message::EntryId;
use crate::names::StreamName;
use crate::port::Buried;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The last message that is known.
    pub(super) last: EntryId,
    /// By their ids.
    entries: BTreeMap<EntryId, Entry>,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// All of them is at its target; not removed yet.
    done: VecDeque<EntryId>,
    removing: Vec<EntryId>,
    /// To become dead letters.
    lost: VecDeque<Lost>,
    /// How many of them are about to.
    burying: usize,
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

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All messages of an entry set out.
    pub(super) fn add(&mut self, id: EntryId, messages: usize, bytes: usize) {
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

    /// An entry that nobody can relay.
    pub(super) fn add_odd(&mut self, id: EntryId, reason: String) {
        self.add(id, 1, 0);
        self.lost.push_back(Lost {
            id,
            stamp: None,
            reason,
            to: None,
        });
    }

    /// The entry that holds the message with this stamp: the first whose last one is not before it.
    fn entry_of(&mut self, stamp: EntryId) -> Option<(EntryId, &mut Entry)> {
        let mut from = self.entries.range_mut(stamp..);
        from.next().map(|(id, entry)| (*id, entry))
    }

    /// A target has the message.
    pub(super) fn arrived(&mut self, stamp: EntryId) {
        let Some((id, entry)) = self.entry_of(stamp) else {
            return;
        };
        entry.on_their_way -= 1;
        if entry.on_their_way == 0 {
            self.done.push_back(id);
        }
    }

    /// No target will have the message.
    pub(super) fn lose(&mut self, stamp: EntryId, reason: &str, to: &StreamName) {
        let Some((id, _)) = self.entry_of(stamp) else {
            return;
        };
        self.lost.push_back(Lost {
            id,
            stamp: Some(stamp),
            reason: reason.to_owned(),
            to: Some(to.clone()),
        });
    }

    /// Entries to remove, if no removal is in the air: what arrives meanwhile rides in the next.
    pub(super) fn next_removal(&mut self) -> Option<Vec<EntryId>> {
        if !self.removing.is_empty() || self.done.is_empty() {
            return None;
        }
        let count = self.done.len().min(limits::OUTBOX_REMOVE_MAX);
        self.removing = self.done.drain(..count).collect();
        Some(self.removing.clone())
    }

    /// The removal in the air was done.
    pub(super) fn removed(&mut self) {
        for id in std::mem::take(&mut self.removing) {
            self.leaves(id);
        }
    }

    /// Whether something is to become a dead letter, and nothing is about to.
    pub(super) fn has_lost(&self) -> bool {
        self.burying == 0 && !self.lost.is_empty()
    }

    /// Whole entries that go for one reason. What is lost of an entry was lost at once, because all of it
    /// is for one target; the rest of it was accepted before.
    pub(super) fn next_burial(&mut self) -> Option<(Vec<Buried>, String)> {
        if !self.has_lost() {
            return None;
        }
        let reason = self.lost.front()?.reason.clone();
        let mut entries = Vec::<Buried>::new();
        // An entry holds no more than that.
        let lost: Vec<&Lost> = self.lost.iter().take(2 * limits::COMMIT_DEAD_MAX).collect();
        for of_one in lost.chunk_by(|a, b| a.id == b.id) {
            let more = self.burying + of_one.len();
            if of_one[0].reason != reason || (self.burying > 0 && more > limits::COMMIT_DEAD_MAX) {
                break;
            }
            entries.push(Buried {
                id: of_one[0].id,
                stamps: of_one.iter().filter_map(|lost| lost.stamp).collect(),
            });
            self.burying = more;
        }
        Some((entries, reason))
    }

    /// Those that were about to are dead letters. Answers for which targets none is left to become one.
    pub(super) fn buried(&mut self) -> BTreeSet<StreamName> {
        let gone: Vec<Lost> = self.lost.drain(..self.burying).collect();
        self.burying = 0;
        let mut targets = BTreeSet::new();
        for Lost { id, to, .. } in gone {
            self.leaves(id);
            targets.extend(to);
        }
        for left in &self.lost {
            if let Some(to) = &left.to {
                targets.remove(to);
            }
        }
        targets
    }

    /// It was not done, and is tried again.
    pub(super) fn not_buried(&mut self) {
        self.burying = 0;
    }

    /// The first message of an entry that goes takes it along.
    fn leaves(&mut self, id: EntryId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.messages -= entry.messages;
            self.bytes -= entry.bytes;
        }
    }
}
