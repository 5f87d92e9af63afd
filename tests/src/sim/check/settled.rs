//! Nothing is settled unhandled: a commit that holds covers only entries that its own tenure handled or
//! buries. And in the end everything that was acknowledged is settled, and was handled or is a dead letter.

use std::collections::BTreeMap;

use segmenter_core::lease::Epoch;
use segmenter_core::message::EntryId;
use segmenter_core::names::Partition;
use segmenter_core::port::{Commit, CommitReply};

use super::{Call, Verdict, View, violated};
use crate::sim::ledger::{Fate, Ledger};

const RULE: &str = "what is settled was handled";

#[derive(Debug, Default)]
pub(super) struct Settled {
    /// With effects, or without.
    handled: BTreeMap<(usize, Partition, Epoch, EntryId), bool>,
    /// The effect that created a group in a partition: what was appended before may be trimmed before it
    /// is seen.
    created: BTreeMap<(usize, Partition), u64>,
    /// What an operator passed over: above the first id, through the second.
    passed: Vec<(usize, Partition, EntryId, EntryId)>,
}

impl Settled {
    pub(super) fn created(&mut self, binding: usize, partition: Partition, effects: u64) {
        self.created.insert((binding, partition), effects);
    }

    pub(super) fn passed(
        &mut self,
        binding: usize,
        partition: Partition,
        above: EntryId,
        through: EntryId,
    ) {
        if above < through {
            self.passed.push((binding, partition, above, through));
        }
    }

    /// A call ended with what settles a message.
    pub(super) fn handled(&mut self, call: &Call) {
        let of = (call.binding, call.partition, call.epoch, call.id);
        self.handled.insert(of, !call.silent);
    }

    /// How many of what a commit would settle it must have effects of.
    pub(super) fn with_effects(&self, view: &View<'_>, r: &Commit, covers: &[EntryId]) -> usize {
        let Some(binding) = view.binding(&r.stream, &r.group) else {
            return covers.len();
        };
        let silent = |id: EntryId| {
            let of = (binding, r.partition, r.fence.epoch, id);
            self.handled.get(&of) == Some(&false)
        };
        let buried = |id: EntryId| r.dead.iter().any(|letter| letter.id == id);
        let owed = covers.iter().filter(|id| !silent(**id) && !buried(**id));
        owed.count()
    }

    pub(super) fn committed(
        &mut self,
        view: &View<'_>,
        r: &Commit,
        reply: &CommitReply,
        covers: &[EntryId],
    ) -> Verdict {
        let CommitReply::Committed { .. } = reply else {
            return Ok(());
        };
        let Some(binding) = view.binding(&r.stream, &r.group) else {
            return Ok(());
        };
        let epoch = r.fence.epoch;
        for id in covers {
            let of = (binding, r.partition, epoch, *id);
            let handled = self.handled.remove(&of).is_some();
            let buried = r.dead.iter().any(|letter| letter.id == *id);
            if !handled && !buried {
                return violated(
                    RULE,
                    format!(
                        "{} settled {id} of {}/{} in epoch {}, in which nobody handled it",
                        r.fence.incarnation, r.group, r.partition, epoch.0
                    ),
                );
            }
        }
        match r
            .dead
            .iter()
            .find(|letter| letter.id > r.to || letter.id <= r.fence.from)
        {
            None => Ok(()),
            Some(letter) => violated(
                RULE,
                format!(
                    "a commit of {}/{} from {} to {} buries {}",
                    r.group, r.partition, r.fence.from, r.to, letter.id
                ),
            ),
        }
    }

    /// What lies in the log and is not acked is looked for by the world; here, what nobody handled.
    pub(super) fn missing(&self, view: &View<'_>, ledger: &Ledger) -> Option<String> {
        for (binding, bound) in view.bindings.iter().enumerate() {
            for (number, message) in ledger.messages.iter().enumerate() {
                let Fate::Acknowledged(id) = message.fate else {
                    continue;
                };
                if message.gone || message.stream != bound.stream {
                    continue;
                }
                let partition = message.partition;
                let created = self.created.get(&(binding, partition)).copied();
                if message.appended < created {
                    continue;
                }
                let handled = ledger.handled(binding, number);
                let passed = self.passed.iter().any(|(b, p, above, through)| {
                    (*b, *p) == (binding, partition) && *above < id && id <= *through
                });
                let buried = || {
                    let stream = &view.streams[bound.stream];
                    let letters = view.broker.dead(stream, partition, &bound.group);
                    letters.iter().any(|kept| kept.letter.id == id)
                };
                if handled.oks + handled.rejects == 0 && !passed && !buried() {
                    return Some(format!(
                        "message {number} ({id}) of {}/{partition} was never handled",
                        bound.group
                    ));
                }
            }
        }
        None
    }
}
