//! Effects happen exactly once: a commit that holds adds one to the counter in the handler's state, and one
//! message to its outbox, for each message that it settles and does not bury, unless a version that takes
//! batches, which has no effects, handled it; any other changes neither.
//! (A message that Redis lost after it was read may be settled, too: it is no entry any more.)

use segmenter_core::names::{GroupName, Partition, StreamId};
use segmenter_core::port::{Commit, CommitReply};

use super::{COUNTER, Verdict, View, violated};
use crate::broker::MemoryBroker;

const RULE: &str = "effects happen exactly once";

/// What a group's handler has done in a partition, as Redis has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) struct Sum {
    pub(in crate::sim) counter: i64,
    emitted: usize,
}

impl Sum {
    pub(in crate::sim) fn of(
        broker: &MemoryBroker,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Sum {
        let state = broker.state(stream, partition, group);
        let text = state
            .get(COUNTER)
            .map(|value| String::from_utf8_lossy(value));
        Sum {
            counter: text.map_or(0, |text| text.parse().unwrap_or(i64::MIN)),
            emitted: broker.outbox(stream, partition, group).len(),
        }
    }
}

pub(super) fn committed(
    view: &View<'_>,
    r: &Commit,
    reply: &CommitReply,
    owed: usize,
    before: Sum,
) -> Verdict {
    let done = match reply {
        CommitReply::Committed { .. } => r.emits.len(),
        CommitReply::Fenced { .. } | CommitReply::DeadFull { .. } => 0,
    };
    if matches!(reply, CommitReply::Committed { .. }) && done < owed {
        return violated(
            RULE,
            format!(
                "a commit of {}/{} by {} in epoch {} settled {owed} messages with the effects of {done}",
                r.group, r.partition, r.fence.incarnation, r.fence.epoch.0
            ),
        );
    }
    let after = Sum::of(view.broker, &r.stream, r.partition, &r.group);
    let expected = Sum {
        counter: before.counter + i64::try_from(done).unwrap_or(i64::MAX),
        emitted: before.emitted + done,
    };
    if after == expected {
        return Ok(());
    }
    violated(
        RULE,
        format!(
            "a commit of {}/{} by {} in epoch {} settled {done} messages: {before:?} became {after:?}",
            r.group, r.partition, r.fence.incarnation, r.fence.epoch.0
        ),
    )
}
