//! Moves are minimal: an assignment that takes effect leaves sizes within one, and takes from live members
//! no more than that needs. Reckoned from what the members had, without the assignor.

use std::collections::BTreeMap;

use segmenter_core::names::{MemberId, Partition, Shape};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::Install;

use super::{Verdict, violated};
use crate::broker::Share;

const RULE: &str = "moves are minimal";

pub(super) type Shares = BTreeMap<MemberId, Share>;

pub(super) fn installed(shape: Shape, before: &Shares, r: &Install) -> Verdict {
    let staying: BTreeMap<&MemberId, PartitionSet> = before
        .iter()
        .filter(|(_, share)| !share.draining)
        .map(|(member, share)| (member, had(before, member, share)))
        .collect();
    let refused = before.values().any(|share| !share.refused.is_empty());
    let nothing = PartitionSet::new();
    let given = |member: &MemberId| r.assignment.get(member).unwrap_or(&nothing);
    let partitions = shape.partitions() as usize;
    let mut all: Vec<_> = r.assignment.values().flat_map(PartitionSet::iter).collect();
    all.sort();
    let whole: Vec<_> = shape.all().collect();
    if !staying.is_empty() && all != whole {
        return violated(
            RULE,
            format!(
                "generation {} of {} does not give each partition once: {:?}",
                r.generation, r.group, r.assignment
            ),
        );
    }
    let Some(base) = partitions.checked_div(staying.len()) else {
        return Ok(());
    };
    let sizes = || staying.keys().map(|member| given(member).len());
    if sizes().any(|size| size < base || size > base + 1) || sizes().sum::<usize>() != partitions {
        return violated(
            RULE,
            format!(
                "generation {} of {} is uneven: {:?}",
                r.generation, r.group, r.assignment
            ),
        );
    }
    // Each keeps what it had up to the share, and as many as do not divide evenly keep one more.
    let above = staying.values().filter(|share| share.len() > base).count();
    let could: usize = staying
        .values()
        .map(|share| share.len().min(base))
        .sum::<usize>()
        + above.min(partitions % staying.len());
    let kept: usize = staying
        .iter()
        .map(|(member, share)| share.len() - share.minus(given(member)).len())
        .sum();
    // Who cannot commit to a partition must lose it.
    if kept == could || refused {
        return Ok(());
    }
    violated(
        RULE,
        format!(
            "generation {} of {} leaves {kept} partitions where they were; {could} could stay: {staying:?} becomes {:?}",
            r.generation, r.group, r.assignment
        ),
    )
}

/// What a member had: what it was assigned, and what it has that nobody was assigned, if it is the first
/// to say so.
fn had(all: &Shares, member: &MemberId, share: &Share) -> PartitionSet {
    let alone = |partition: &Partition| {
        let assigned = all
            .values()
            .any(|other| other.assigned.contains(*partition));
        let first = all
            .iter()
            .find(|(_, other)| other.owned.contains(*partition));
        !assigned && first.is_some_and(|(first, _)| first == member)
    };
    let reported = share.owned.iter().filter(alone);
    share.assigned.iter().chain(reported).collect()
}
