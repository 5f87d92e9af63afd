//! From times of swaps and of calls to latency and stops. Pure.
//!
//! A *stop* of a partition at a swap: the longest time in which it had a message and handled none, above the
//! longest such time in as much time right before, when nothing was swapped. The time of a swap is from the
//! rename of the file until a moment after the last host said that its partitions run the new version.

use std::collections::HashMap;

use segmenter_core::message::EntryId;

use super::super::gaps::{Partition, Span};
use super::super::producers::Sent;
use super::super::record::Handled;

/// After the last host published the version: partitions look at it between two messages.
pub(super) const AFTER_US: u64 = 20_000;

/// When a version was put there, and when the last host ran it; without swaps, a time in which nothing
/// happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) from_us: u64,
    pub(super) live_us: u64,
}

impl Swap {
    fn span(self) -> Span {
        Span {
            from: self.from_us,
            to: self.live_us + AFTER_US,
        }
    }

    /// Until then nothing else may be swapped: it is what the next one is compared with.
    pub(super) fn next_us(self) -> u64 {
        let Span { from, to } = self.span();
        to + (to - from) * 5 / 4
    }
}

/// In ms, of each partition at each swap. What falls together with a stop of this machine is left out, and
/// so is a partition that had no message to handle meanwhile.
pub(super) fn stops(
    lines: &[Handled],
    partitions: u32,
    swaps: &[Swap],
    stalls: &[(u64, u64)],
    epoch_us: u64,
) -> Vec<f64> {
    let mut of: Vec<Vec<Handled>> = vec![Vec::new(); partitions as usize];
    for line in lines {
        if let Some(of) = of.get_mut(line.partition as usize) {
            of.push(*line);
        }
    }
    let mut stops = Vec::new();
    for swap in swaps {
        let span = swap.span();
        let before = span.from.saturating_sub(span.to - span.from);
        if stalls.iter().any(|(a, b)| *b > before && *a < span.to) {
            continue;
        }
        for lines in &of {
            let partition = Partition { lines, epoch_us };
            if partition.has_any(span) {
                stops.push(partition.stall(span));
            }
        }
    }
    stops
}

/// From just before a message was appended until its handler had done its work, in ms, of those that were
/// appended between the two times.
pub(super) fn latencies(lines: &[Handled], sent: &Sent, from_us: u64, to_us: u64) -> Vec<f64> {
    let mut done: HashMap<(u32, EntryId), u64> = HashMap::new();
    for line in lines {
        done.entry((line.partition, line.id)).or_insert(line.at_us);
    }
    let accepted = sent.accepted.iter().zip(&sent.sent_us);
    accepted
        .filter(|(_, sent_us)| (from_us..to_us).contains(*sent_us))
        .filter_map(|((partition, id, _), sent_us)| {
            let at_us = done.get(&(*partition, *id))?;
            Some(at_us.saturating_sub(*sent_us) as f64 / 1_000.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::record::What;
    use super::*;

    /// One partition with a message every 5 ms for 2 s; what arrives while it stands still is handled at the
    /// end of that.
    fn lines(still: (u64, u64)) -> Vec<Handled> {
        let line = |n: u64| {
            let arrived = n * 5_000;
            let stands = (still.0..still.1).contains(&arrived);
            Handled {
                at_us: if stands { still.1 + n } else { arrived + 500 },
                life: 0,
                partition: 0,
                id: EntryId { ms: n * 5, seq: 0 },
                what: What {
                    key: 0,
                    number: u32::try_from(n).unwrap(),
                },
                number: n,
            }
        };
        (0..400).map(line).collect()
    }

    const SWAP: Swap = Swap {
        from_us: 1_000_000,
        live_us: 1_060_000,
    };

    #[test]
    fn a_stop_in_a_swap_is_found_and_one_of_the_machine_is_not() {
        let of = |still, stalls: &[(u64, u64)]| stops(&lines(still), 2, &[SWAP], stalls, 0);
        let found = of((1_050_000, 1_080_000), &[]);
        assert_eq!(found.len(), 1, "the other partition had no message");
        assert!((25.0..31.0).contains(&found[0]), "{found:?}");
        let elsewhere = of((1_300_000, 1_400_000), &[]);
        assert!(elsewhere[0] < 1.0, "{elsewhere:?}");
        assert!(of((1_050_000, 1_080_000), &[(1_050_000, 1_080_000)]).is_empty());
    }

    #[test]
    fn latency_counts_from_before_the_append_for_what_was_sent_meanwhile() {
        let lines = lines((0, 0));
        let accepted = lines.iter().map(|l| (0, l.id, l.what)).collect();
        let sent = Sent {
            accepted,
            unknown: Vec::new(),
            sent_us: lines.iter().map(|l| l.at_us - 500).collect(),
        };
        let found = latencies(&lines, &sent, 500_000, 1_000_000);
        assert_eq!(found.len(), 100);
        assert!(found.iter().all(|ms| (ms - 0.5).abs() < 1e-9));
    }
}
