//! In a run without kill, pause, cut or timeout no message is handled twice, and no lease is taken from an
//! owner that has not released it.

use segmenter_core::port::Acquire;

use super::{Call, Verdict, violated};
use crate::sim::ledger::Ledger;

pub(super) fn handled(call: &Call, ledger: &Ledger) -> Verdict {
    let handled = ledger.handled(call.binding, call.message);
    if handled.oks + handled.rejects <= 1 {
        return Ok(());
    }
    violated(
        "handled once without faults",
        format!(
            "{} of partition {} was handled again, by {}",
            call.id, call.partition, call.incarnation
        ),
    )
}

pub(super) fn taken(r: &Acquire) -> Verdict {
    violated(
        "released before it is taken",
        format!(
            "{} took {}/{} from an owner that lives",
            r.owner.incarnation, r.group, r.partition
        ),
    )
}
