//! What one producer sends to one partition lies there in the order in which it was sent.

use std::collections::BTreeMap;

use segmenter_core::message::EntryId;
use segmenter_core::names::Partition;

use super::{Verdict, violated};
use crate::sim::ledger::Ledger;

#[derive(Debug, Default)]
pub(super) struct Appends(BTreeMap<(usize, Partition), (usize, EntryId)>);

impl Appends {
    /// A producer numbers its messages as it makes them.
    pub(super) fn acknowledged(&mut self, message: usize, id: EntryId, ledger: &Ledger) -> Verdict {
        let made = &ledger.messages[message];
        if made.gone {
            return Ok(());
        }
        let before = self
            .0
            .insert((made.producer, made.partition), (message, id));
        match before {
            Some((number, lies)) if (message > number) != (id > lies) => violated(
                "appended in order",
                format!(
                    "producer {} sent message {message} {} message {number}, but it lies at {id} and the other at {lies}",
                    made.producer,
                    if message > number { "after" } else { "before" }
                ),
            ),
            _ => Ok(()),
        }
    }
}
