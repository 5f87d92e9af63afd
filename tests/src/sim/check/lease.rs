//! One owner whose effects count: what takes effect on a lease is of its last acquirer, in the epoch that
//! it was given, and goes on from where the last commit ended.

use std::collections::BTreeMap;

use segmenter_core::lease::{Epoch, Fence};
use segmenter_core::message::EntryId;
use segmenter_core::names::{Incarnation, Partition};
use segmenter_core::port::{
    Acquire, AcquireReply, Commit, CommitReply, EnsureGroup, Release, ReleaseReply,
};

use super::{Verdict, View, violated};

const RULE: &str = "one owner's effects count";

#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<(usize, Partition), Known>);

#[derive(Debug)]
struct Known {
    owner: Option<Incarnation>,
    epoch: Epoch,
    acked: EntryId,
}

impl Leases {
    /// Takes up what Redis holds, after it lost something.
    pub(super) fn look_again(&mut self, view: &View<'_>) {
        self.0.clear();
        for binding in 0..view.bindings.len() {
            for partition in view.shape.all() {
                self.operated(view, binding, partition);
            }
        }
    }

    /// Takes up what the lease holds after an operator changed it.
    pub(super) fn operated(&mut self, view: &View<'_>, binding: usize, partition: Partition) {
        let bound = &view.bindings[binding];
        let stream = &view.streams[bound.stream];
        if let Some(lease) = view.broker.lease(stream, partition, &bound.group) {
            let owner = lease.owner.as_ref();
            let known = Known {
                owner: owner.map(|owner| owner.incarnation.clone()),
                epoch: lease.epoch,
                acked: lease.acked,
            };
            self.0.insert((binding, partition), known);
        }
    }

    pub(super) fn ensured(&mut self, view: &View<'_>, r: &EnsureGroup) {
        let Some(binding) = view.binding(&r.stream, &r.group) else {
            return;
        };
        if let Some(lease) = view.broker.lease(&r.stream, r.partition, &r.group) {
            self.0
                .entry((binding, r.partition))
                .or_insert_with(|| Known {
                    owner: None,
                    epoch: lease.epoch,
                    acked: lease.acked,
                });
        }
    }

    /// Whether it was taken from another that had not released it.
    pub(super) fn acquired(
        &mut self,
        view: &View<'_>,
        r: &Acquire,
        reply: &AcquireReply,
    ) -> Result<bool, super::Violation> {
        let AcquireReply::Acquired { epoch, acked, .. } = *reply else {
            return Ok(false);
        };
        let Some(known) = self.known(view, &r.stream, r.partition, &r.group) else {
            return Ok(false);
        };
        if epoch <= known.epoch || acked != known.acked {
            violated(
                RULE,
                format!(
                    "{} acquired {}/{} in epoch {} from {acked}, after epoch {} that acked through {}",
                    r.owner.incarnation, r.group, r.partition, epoch.0, known.epoch.0, known.acked
                ),
            )?;
        }
        known.epoch = epoch;
        let before = known.owner.replace(r.owner.incarnation.clone());
        Ok(before.is_some_and(|before| before != r.owner.incarnation))
    }

    pub(super) fn committed(
        &mut self,
        view: &View<'_>,
        r: &Commit,
        reply: &CommitReply,
    ) -> Verdict {
        let CommitReply::Committed { .. } = reply else {
            return Ok(());
        };
        let Some(known) = self.known(view, &r.stream, r.partition, &r.group) else {
            return violated(
                RULE,
                format!(
                    "a commit to {}/{} held without a lease",
                    r.group, r.partition
                ),
            );
        };
        known.admits(&r.fence, "commit", r.partition)?;
        // A failed attempt, a halt, or what handles by now may be recorded without an ack.
        let records = r.attempts.is_some() || r.halt.is_some() || r.version.is_some();
        let forward = match records {
            true => r.to >= known.acked,
            false => r.to > known.acked,
        };
        if !forward {
            return violated(
                RULE,
                format!(
                    "{} committed {}/{} to {}, which was acked through {} before",
                    r.fence.incarnation, r.group, r.partition, r.to, known.acked
                ),
            );
        }
        known.acked = r.to;
        Ok(())
    }

    pub(super) fn released(
        &mut self,
        view: &View<'_>,
        r: &Release,
        reply: &ReleaseReply,
    ) -> Verdict {
        let ReleaseReply::Released = reply else {
            return Ok(());
        };
        let Some(known) = self.known(view, &r.stream, r.partition, &r.group) else {
            return violated(
                RULE,
                format!("{}/{} was released without a lease", r.group, r.partition),
            );
        };
        known.admits(&r.fence, "release", r.partition)?;
        known.owner = None;
        Ok(())
    }

    fn known(
        &mut self,
        view: &View<'_>,
        stream: &segmenter_core::names::StreamId,
        partition: Partition,
        group: &segmenter_core::names::GroupName,
    ) -> Option<&mut Known> {
        let binding = view.binding(stream, group)?;
        self.0.get_mut(&(binding, partition))
    }
}

impl Known {
    fn admits(&self, fence: &Fence, what: &str, partition: Partition) -> Verdict {
        let same = self.owner.as_ref() == Some(&fence.incarnation)
            && self.epoch == fence.epoch
            && self.acked == fence.from;
        if same {
            return Ok(());
        }
        let owner = self.owner.as_ref().map_or("nobody", Incarnation::as_str);
        violated(
            RULE,
            format!(
                "a {what} of partition {partition} by {} in epoch {} from {} held, but its owner is {owner} in epoch {}, acked through {}",
                fence.incarnation, fence.epoch.0, fence.from, self.epoch.0, self.acked
            ),
        )
    }
}
