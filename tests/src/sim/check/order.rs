//! Order per key: a message is handled for the first time before every later one of its key that Redis
//! still holds.

use std::collections::BTreeMap;

use segmenter_core::lease::Epoch;
use segmenter_core::message::EntryId;
use segmenter_core::names::Partition;

use super::{Call, Verdict, violated};
use crate::sim::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct Order {
    /// By group, partition and key: the last message that was handled for the first time.
    last: BTreeMap<(usize, Partition, u64), (EntryId, usize)>,
    since: BTreeMap<(usize, Partition), Epoch>,
}

impl Order {
    /// A group begins, or begins anew: because Redis lost it, or at another position. What it sees now
    /// need not be what it saw before, and calls of earlier tenures count no more.
    pub(super) fn begins(&mut self, binding: usize, partition: Partition, time_us: u64) {
        self.last
            .retain(|(b, p, _), _| (*b, *p) != (binding, partition));
        self.since.insert((binding, partition), Epoch(time_us));
    }

    /// A call ended with what settles its message.
    pub(super) fn handled(&mut self, call: &Call, ledger: &Ledger) -> Verdict {
        let handled = ledger.handled(call.binding, call.message);
        let since = self.since.get(&(call.binding, call.partition));
        let old = since.is_some_and(|since| call.epoch < *since);
        let again = handled.oks + handled.rejects > 1;
        if again || old || ledger.messages[call.message].gone {
            return Ok(());
        }
        let key = ledger.messages[call.message].key;
        let stream = ledger.messages[call.message].stream;
        let before = self
            .last
            .insert((call.binding, call.partition, key), (call.id, call.message));
        if let Some((last, message)) = before
            && last > call.id
            && !ledger.messages[message].gone
        {
            return violated(
                "order per key",
                format!(
                    "{} of key k{key} (stream {stream}, partition {}, group {}) was handled first after {last}",
                    call.id, call.partition, call.binding
                ),
            );
        }
        Ok(())
    }
}
