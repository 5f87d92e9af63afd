//! How many messages a call may carry, by what calls came to before: a batch that broke (trap, deadline,
//! memory) says nothing of which of its messages it was, so each of them is called alone, once. Knows ids and
//! counts; must not know what is queued, nor what follows from a failure.

use crate::batch::Batch;
use crate::limits;
use crate::message::EntryId;

#[derive(Debug)]
pub(super) struct Sizing {
    /// Lower than any handler takes, after batches that broke although none of their messages does alone.
    most: usize,
    /// Calls that carried `most`, since it last changed.
    full: u32,
    alone: Option<Alone>,
}

/// Messages of a batch that broke.
#[derive(Debug)]
struct Alone {
    through: EntryId,
    messages: usize,
    /// One of them failed alone: it was not their number.
    found: bool,
}

impl Sizing {
    pub(super) fn new() -> Sizing {
        Sizing {
            most: usize::MAX,
            full: 0,
            alone: None,
        }
    }

    /// Messages that a call may carry whose first is `head`.
    pub(super) fn most(&mut self, head: EntryId) -> usize {
        match &self.alone {
            None => self.most,
            Some(alone) if head <= alone.through => 1,
            Some(alone) => {
                if !alone.found {
                    self.most = (alone.messages / 2).max(1);
                    self.full = 0;
                }
                self.alone = None;
                self.most
            }
        }
    }

    /// Nothing came of the call of several messages.
    pub(super) fn broke(&mut self, batch: &Batch) {
        self.alone = Some(Alone {
            through: batch.last().id,
            messages: batch.count(),
            found: false,
        });
    }

    /// A call ended otherwise.
    pub(super) fn ended(&mut self, messages: usize, acked: bool) {
        if let Some(alone) = &mut self.alone {
            alone.found |= !acked;
            return;
        }
        if messages < self.most {
            return;
        }
        self.full += 1;
        if self.full >= limits::BATCH_GROWS_AFTER {
            self.full = 0;
            self.most = self.most.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Content, Message};
    use crate::names::Partition;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    fn batch(from: u64, through: u64) -> Batch {
        let message = |n| Message {
            id: id(n),
            partition: Partition(0),
            attempt: 1,
            content: Content::new("k", Vec::new(), Vec::new(), 0).expect("a message"),
        };
        let mut batch = Batch::one(message(from));
        (from + 1..=through).for_each(|n| batch.push(message(n)));
        batch
    }

    #[test]
    fn after_a_batch_that_broke_each_of_its_messages_is_called_alone() {
        let mut sizing = Sizing::new();
        assert_eq!(sizing.most(id(1)), usize::MAX);
        sizing.broke(&batch(1, 8));
        for n in 1..=8 {
            assert_eq!(sizing.most(id(n)), 1);
            sizing.ended(1, n != 5);
        }
        assert_eq!(sizing.most(id(9)), usize::MAX, "the message was found");
    }

    #[test]
    fn if_none_of_them_fails_alone_it_was_their_number_and_that_is_forgotten_after_a_while() {
        let mut sizing = Sizing::new();
        for (broken, most) in [(batch(1, 9), 4), (batch(10, 13), 2), (batch(14, 15), 1)] {
            let through = broken.last().id;
            sizing.broke(&broken);
            assert_eq!(sizing.most(through), 1);
            sizing.ended(1, true);
            assert_eq!(sizing.most(id(through.ms + 1)), most);
        }
        let head = id(100);
        for most in [1, 2, 4, 8] {
            for _ in 0..limits::BATCH_GROWS_AFTER {
                assert_eq!(sizing.most(head), most);
                // One that carried less says nothing.
                sizing.ended(most - 1, true);
                sizing.ended(most, true);
            }
        }
    }
}
