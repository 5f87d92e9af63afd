//! What the partitions of a handler run, and how it is swapped: a lineup is published whole, and workers
//! look between two messages whether there is another one. Knows versions and counts; must not know where
//! versions come from, nor how they are judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use segmenter_core::names::Partition;
use segmenter_core::outcome::Outcome;
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::rollout::{Runs, Tally};
use segmenter_core::time::Duration;
use tokio::sync::watch;

use super::handler::Handler;
use super::shadow::Shadow;

/// A handler's code that is ready to be called, and what came of its calls on this host.
pub(super) struct Live<H> {
    pub(super) handler: H,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
    overruled: AtomicU64,
    micros: AtomicU64,
}

impl<H: Handler> Live<H> {
    pub(super) fn new(handler: H) -> Live<H> {
        Live {
            handler,
            counts: Counts::default(),
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            calls: read(&self.counts.calls),
            failed: read(&self.counts.failed),
            overruled: read(&self.counts.overruled),
            micros: read(&self.counts.micros),
        }
    }

    fn add(&self, tally: Tally) {
        let add = |count: &AtomicU64, more| count.fetch_add(more, Ordering::Relaxed);
        add(&self.counts.calls, tally.calls);
        add(&self.counts.failed, tally.failed);
        add(&self.counts.overruled, tally.overruled);
        add(&self.counts.micros, tally.micros);
    }
}

/// What all partitions of a handler run.
pub(super) struct Lineup<H> {
    pub(super) current: Arc<Live<H>>,
    /// Another version, in these partitions.
    pub(super) trial: Option<(Arc<Live<H>>, PartitionSet)>,
    /// Sees what the current version sees, without effects.
    pub(super) shadow: Option<Arc<Shadow<H>>>,
}

impl<H: Handler> Lineup<H> {
    pub(super) fn only(current: Arc<Live<H>>) -> Lineup<H> {
        Lineup {
            current,
            trial: None,
            shadow: None,
        }
    }

    fn of(&self, partition: Partition) -> Running<H> {
        match &self.trial {
            Some((trial, partitions)) if partitions.contains(partition) => Running {
                live: trial.clone(),
                instead: Some(self.current.clone()),
                shadow: None,
            },
            _ => Running {
                live: self.current.clone(),
                instead: None,
                shadow: self.shadow.clone(),
            },
        }
    }
}

/// What one partition runs.
pub(super) struct Running<H> {
    pub(super) live: Arc<Live<H>>,
    /// What is on trial does not decide alone.
    pub(super) instead: Option<Arc<Live<H>>>,
    pub(super) shadow: Option<Arc<Shadow<H>>>,
}

impl<H: Handler> Running<H> {
    pub(super) fn runs(&self) -> Runs {
        let takes = self.live.handler.takes();
        Runs {
            version: self.live.handler.version().clone(),
            // What both do is compared call by call.
            takes: match &self.shadow {
                Some(shadow) => takes.and(shadow.takes()),
                None => takes,
            },
            instead: self
                .instead
                .as_ref()
                .map(|live| live.handler.version().clone()),
        }
    }
}

/// Who may ask what a partition runs.
pub(super) type Published<H> = watch::Receiver<Arc<Lineup<H>>>;

/// What a partition runs now. `published` counts as seen.
pub(super) fn now<H: Handler>(published: &mut Published<H>, partition: Partition) -> Running<H> {
    published.borrow_and_update().of(partition)
}

/// Counts of one partition, added to those of the host once in a while: all partitions at each message would
/// be in each other's way.
#[derive(Default)]
pub(super) struct Counting(Tally);

impl Counting {
    /// A call with so many messages: each that it decided counts as one of them alone would.
    pub(super) fn ended(&mut self, messages: usize, outcome: &Outcome, took: Duration) {
        let Outcome::Cancelled = outcome else {
            self.0.calls += outcome.decided(messages) as u64;
            self.0.failed += u64::from(!matches!(outcome, Outcome::Ok(_)));
            self.0.micros += u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            return;
        };
    }

    pub(super) fn flush<H: Handler>(&mut self, live: &Live<H>) {
        if self.0 != Tally::default() {
            live.add(std::mem::take(&mut self.0));
        }
    }
}

/// `live` did not ack a message that the version before it then acked.
pub(super) fn overruled<H: Handler>(live: &Live<H>) {
    live.add(Tally {
        overruled: 1,
        ..Tally::default()
    });
}
