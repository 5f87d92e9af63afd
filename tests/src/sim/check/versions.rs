//! Which version may give up on a message: one on trial never, whatever it does; and attempts belong to a
//! version: a dead letter says no more of them than its version failed, and hosts ended with.

use std::collections::{BTreeMap, BTreeSet};

use segmenter_core::message::EntryId;
use segmenter_core::names::{Partition, Version};
use segmenter_core::port::{Acquire, AcquireReply, Commit, CommitReply};

use super::{Call, Verdict, View, violated};

#[derive(Debug, Default)]
pub(super) struct Versions {
    /// Were wanted as a current version, not only on trial.
    trusted: BTreeSet<(usize, String)>,
    /// Calls that failed, and hosts that ended.
    failed: BTreeMap<(usize, Partition, EntryId, String), u32>,
}

impl Versions {
    pub(super) fn trusted(&mut self, binding: usize, version: &Version) {
        self.trusted.insert((binding, version.to_string()));
    }

    /// It did not ack the message, and is not on trial.
    pub(super) fn failed(&mut self, call: &Call) {
        self.one_more(call.binding, call.partition, call.id, &call.version);
    }

    pub(super) fn acquired(&mut self, view: &View<'_>, r: &Acquire, reply: &AcquireReply) {
        if let AcquireReply::Acquired {
            unreleased: true,
            attempts: Some(attempts),
            ..
        } = reply
            && let Some(binding) = view.binding(&r.stream, &r.group)
        {
            self.one_more(binding, r.partition, attempts.id, &attempts.version);
        }
    }

    fn one_more(&mut self, binding: usize, partition: Partition, id: EntryId, version: &Version) {
        let of = (binding, partition, id, version.to_string());
        *self.failed.entry(of).or_default() += 1;
    }

    pub(super) fn committed(&self, view: &View<'_>, r: &Commit, reply: &CommitReply) -> Verdict {
        let CommitReply::Committed { .. } = reply else {
            return Ok(());
        };
        let Some(binding) = view.binding(&r.stream, &r.group) else {
            return Ok(());
        };
        // Without an attempt nobody gave up on it: it is not ours in shape.
        for letter in r.dead.iter().filter(|letter| letter.attempts > 0) {
            let version = &letter.version;
            if !self.trusted.contains(&(binding, version.clone())) {
                return violated(
                    "one on trial decides nothing alone",
                    format!(
                        "{} of {}/{} was buried by {version}, which was only ever on trial",
                        letter.id, r.group, r.partition
                    ),
                );
            }
            let of = (binding, r.partition, letter.id, version.clone());
            let failed = self.failed.get(&of).copied().unwrap_or(0);
            if letter.attempts > failed {
                return violated(
                    "attempts belong to a version",
                    format!(
                        "{} of {}/{} was buried after {} attempts of {version}, which failed {failed}",
                        letter.id, r.group, r.partition, letter.attempts
                    ),
                );
            }
        }
        Ok(())
    }
}
