//! What is on its way to one target: messages that wait until it is found, then a lane for each of its
//! partitions. Knows order and pauses; must not know the outbox, nor how anything is sent.

use std::collections::{BTreeMap, VecDeque};

use super::{RELAY_BACKOFF, Target};
use crate::limits;
use crate::message::EntryId;
use crate::names::Partition;
use crate::partitioner;
use crate::port::Sourced;
use crate::time::Time;

/// A wait after a failure.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Pause {
    pub(super) until: Time,
    pub(super) tries: u32,
}

/// All that goes to one target.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) target: Option<Target>,
    pub(super) finding: bool,
    pub(super) find_pause: Pause,
    /// It was told that the target is gone: nothing more is sent until all answers are in.
    pub(super) gone: bool,
    /// What was for it becomes dead letters first.
    pub(super) burying: bool,
    /// In order, not placed yet.
    pub(super) unplaced: VecDeque<Sourced>,
    pub(super) lanes: BTreeMap<Partition, Lane>,
    /// The last that each partition accepted.
    pub(super) accepted: BTreeMap<Partition, EntryId>,
}

/// All that goes to one partition of a target, in order.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) queue: VecDeque<Sourced>,
    /// How many of them.
    pub(super) in_air: usize,
    pub(super) pause: Pause,
}

impl Line {
    pub(super) fn wants_finding(&self) -> bool {
        self.target.is_none() && !self.finding && !self.burying && !self.unplaced.is_empty()
    }

    pub(super) fn push(&mut self, message: Sourced) {
        match &self.target {
            Some(target) if !self.gone => {
                let partition = partitioner::partition(message.content.key(), target.shape);
                let lane = self.lanes.entry(partition).or_default();
                lane.queue.push_back(message);
            }
            _ => self.unplaced.push_back(message),
        }
    }

    pub(super) fn place(&mut self, target: Target) {
        self.target = Some(target);
        for message in std::mem::take(&mut self.unplaced) {
            self.push(message);
        }
    }

    /// After the target was found to be gone and all answers are in: everything waits for the next one of
    /// that name, in order.
    pub(super) fn gather(&mut self) -> bool {
        if !self.gone || self.lanes.values().any(|lane| lane.in_air > 0) {
            return false;
        }
        self.gone = false;
        self.target = None;
        self.accepted.clear();
        let lanes = std::mem::take(&mut self.lanes).into_values();
        let mut all: Vec<_> = lanes.flat_map(|lane| lane.queue).collect();
        all.extend(std::mem::take(&mut self.unplaced));
        all.sort_by_key(|message| message.stamp);
        self.unplaced = all.into();
        true
    }

    pub(super) fn next_append(&mut self, now: Time) -> Option<(Target, Partition, Vec<Sourced>)> {
        let target = self.target.as_ref().filter(|_| !self.gone)?;
        let mut lanes = self.lanes.iter_mut();
        let (partition, lane) = lanes
            .find(|(_, lane)| lane.in_air == 0 && !lane.queue.is_empty() && lane.pause.over(now))?;
        let mut bytes = 0;
        let fits = lane
            .queue
            .iter()
            .take(limits::APPEND_BATCH_MESSAGES_MAX)
            .take_while(|message| {
                bytes += message.content.bytes();
                bytes <= limits::APPEND_BATCH_BYTES_MAX
            });
        lane.in_air = fits.count().max(1);
        let messages = lane.queue.iter().take(lane.in_air).cloned().collect();
        Some((target.clone(), *partition, messages))
    }
}

impl Pause {
    pub(super) fn over(&self, now: Time) -> bool {
        now >= self.until
    }
    pub(super) fn again(&mut self, now: Time, noise: u64) {
        self.tries = self.tries.saturating_add(1);
        self.until = now + RELAY_BACKOFF.wait(self.tries, noise);
    }
}
