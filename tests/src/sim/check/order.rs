//! Order per key: a message is handled for the first time before every later one of its key that Redis
//! still holds.

use std::collections::BTreeMap;

use segmenter_core::message::EntryId;
use segmenter_core::names::Partition;

use super::{Call, Verdict, violated};
use crate::sim::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct Order {
    /// By group, partition and key: the last message that was handled for the first time.
    last: BTreeMap<(usize, Partition, u64), (EntryId, usize)>,
}

impl Order {
    /// A group that begins, or begins anew because Redis lost it: what it may see now was perhaps trimmed
    /// when it was there before.
    pub(super) fn created(&mut self, binding: usize, partition: Partition) {
        self.last
            .retain(|(b, p, _), _| (*b, *p) != (binding, partition));
    }

    /// A call ended with what settles its message.
    pub(super) fn handled(&mut self, call: &Call, ledger: &Ledger) -> Verdict {
        let handled = ledger.handled(call.binding, call.message);
        if handled.oks + handled.rejects > 1 || ledger.messages[call.message].gone {
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
