//! How long partitions stood still with work at hand, around joins, leaves and deaths. Pure.
//!
//! A gap ends when a message is handled, and begins when the one before it was, or when it arrived,
//! whichever is later: a partition without messages does not stand still. A stall is the longest gap
//! around an event above the longest in the same time before it.

use super::judge::Evidence;
use super::plan::Kind;
use super::record::Handled;
use super::stage::Incident;

/// After a join is ready or a leaver is gone, what still counts as its doing.
const AFTER_US: u64 = 1_000_000;

/// After a session timeout, what a takeover may take. Longer ones are found all the same.
const TAKEOVER_US: u64 = 500_000;

/// In ms.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Gaps {
    /// From each kill to the first message that another host handled, per partition of the dead one.
    pub takeover: Vec<f64>,
    /// Of partitions that were never the dead one's.
    pub survivors_stall: Vec<f64>,
    /// At graceful joins and leaves, of partitions that kept their owner.
    pub kept_stall: Vec<f64>,
    /// The same of those that did not.
    pub moved_stall: Vec<f64>,
}

/// The value that `hundredths` of all are not above; `None` if there are none.
pub(super) fn percentile(values: &[f64], hundredths: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(at.max(1) - 1).copied()
}

/// `lines` in the order of time.
pub(super) fn measure(lines: &[Handled], incidents: &[Incident], evidence: &Evidence) -> Gaps {
    let mut partitions: Vec<Vec<Handled>> = vec![Vec::new(); evidence.log.len()];
    for line in lines {
        if let Some(of) = partitions.get_mut(line.partition as usize) {
            of.push(*line);
        }
    }
    let mut gaps = Gaps::default();
    for (n, incident) in incidents.iter().enumerate() {
        let end = match incident.kind {
            Kind::Kill | Kind::Revive => incident.to_us + evidence.session_us + TAKEOVER_US,
            Kind::Join | Kind::Leave => incident.to_us + AFTER_US,
            _ => continue,
        };
        let span = Span {
            from: incident.from_us,
            to: end,
        };
        // The time before is what it is compared with, so nothing may happen there either.
        let clear = Span {
            from: span.from.saturating_sub(span.to - span.from),
            to: span.to,
        };
        let alone = incidents.iter().enumerate().all(|(other, incident)| {
            let session = evidence.session_us;
            other == n || incident.to_us + session < clear.from || incident.from_us > clear.to
        });
        let stood = evidence.stalls.iter();
        let stood = stood.clone().any(|(a, b)| *b > clear.from && *a < clear.to);
        if !alone || stood {
            continue;
        }
        for partition in &partitions {
            let partition = Partition {
                lines: partition,
                epoch_us: evidence.epoch_us,
            };
            let Some((before, after)) = partition.owners(span) else {
                continue;
            };
            let stall = partition.stall(span);
            match (incident.kind, incident.life) {
                (Kind::Kill | Kind::Revive, Some(dead)) if before == dead => {
                    gaps.takeover.extend(partition.takeover(dead, span.from));
                }
                (Kind::Kill | Kind::Revive, _) if before == after => {
                    gaps.survivors_stall.push(stall);
                }
                (Kind::Join | Kind::Leave, _) if before == after => gaps.kept_stall.push(stall),
                (Kind::Join | Kind::Leave, _) => gaps.moved_stall.push(stall),
                _ => {}
            }
        }
    }
    gaps
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// `lines` are its own, in the order of time.
pub(super) struct Partition<'a> {
    pub(super) lines: &'a [Handled],
    pub(super) epoch_us: u64,
}

impl Partition<'_> {
    fn first_after(&self, at: u64) -> usize {
        self.lines.partition_point(|line| line.at_us < at)
    }

    /// Who handled the last message before, and the last one in it.
    fn owners(&self, span: Span) -> Option<(u32, u32)> {
        let before = self.first_after(span.from).checked_sub(1)?;
        let after = self.first_after(span.to).checked_sub(1)?;
        Some((self.lines[before].life, self.lines[after].life))
    }

    fn arrived(&self, line: &Handled) -> u64 {
        (line.id.ms * 1_000).saturating_sub(self.epoch_us)
    }

    fn longest_gap(&self, span: Span) -> u64 {
        let (first, last) = (self.first_after(span.from), self.first_after(span.to));
        let gap = |n: usize| {
            let before = n
                .checked_sub(1)
                .map_or(0, |before| self.lines[before].at_us);
            let line = &self.lines[n];
            line.at_us.saturating_sub(before.max(self.arrived(line)))
        };
        (first..last).map(gap).max().unwrap_or(0)
    }

    /// Something was handled in it.
    pub(super) fn has_any(&self, span: Span) -> bool {
        self.first_after(span.from) < self.first_after(span.to)
    }

    pub(super) fn stall(&self, span: Span) -> f64 {
        let before = Span {
            from: span.from.saturating_sub(span.to - span.from),
            to: span.from,
        };
        let above = self
            .longest_gap(span)
            .saturating_sub(self.longest_gap(before));
        above as f64 / 1_000.0
    }

    fn takeover(&self, dead: u32, at: u64) -> Option<f64> {
        let line = self.lines[self.first_after(at)..]
            .iter()
            .find(|line| line.life != dead)?;
        let waited = line.at_us.saturating_sub(at.max(self.arrived(line)));
        Some(waited as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::record::What;
    use segmenter_core::message::EntryId;

    const SECOND: u64 = 1_000_000;

    /// A message every 10 ms for 10 s, handled at once by `owner(at)`, except that nothing happens from
    /// `still.0` to `still.1`: what arrives then is handled at its end.
    fn lines(owner: impl Fn(u64) -> u32, still: (u64, u64)) -> Vec<Handled> {
        let line = |n: u64| {
            let arrived = n * 10_000;
            let stands = (still.0..still.1).contains(&arrived);
            let at_us = if stands { still.1 + n } else { arrived };
            Handled {
                at_us,
                life: owner(at_us),
                partition: 0,
                id: EntryId { ms: n * 10, seq: 0 },
                what: What {
                    key: 0,
                    number: u32::try_from(n).unwrap(),
                },
                number: n + 1,
            }
        };
        (0..1_000).map(line).collect()
    }

    fn measured(lines: &[Handled], kinds: &[(Kind, u32, u64)]) -> Gaps {
        let incident = |(kind, life, at): &(Kind, u32, u64)| Incident {
            kind: *kind,
            life: Some(*life),
            from_us: *at,
            to_us: *at,
            took_hold: true,
        };
        let evidence = Evidence {
            log: vec![Vec::new()],
            incidents: kinds.iter().map(incident).collect(),
            session_us: SECOND,
            ..Evidence::default()
        };
        measure(lines, &evidence.incidents, &evidence)
    }

    #[test]
    fn a_takeover_counts_from_the_kill_to_the_first_of_another() {
        let kill = 5 * SECOND;
        let back = kill + 700_000;
        let lines = lines(|at| u32::from(at >= kill), (kill, back));
        let gaps = measured(&lines, &[(Kind::Kill, 0, kill)]);
        assert_eq!(gaps.takeover.len(), 1);
        assert!((699.0..702.0).contains(&gaps.takeover[0]), "{gaps:?}");
        assert!(gaps.survivors_stall.is_empty());
    }

    #[test]
    fn a_stall_is_above_what_is_normal_and_belongs_to_who_kept_or_moved() {
        let leave = 5 * SECOND;
        let still = (leave, leave + 80_000);
        let moved = lines(|at| u32::from(at >= leave), still);
        let gaps = measured(&moved, &[(Kind::Leave, 0, leave)]);
        assert!((70.0..90.0).contains(&gaps.moved_stall[0]), "{gaps:?}");
        let kept = lines(|_| 1, still);
        let gaps = measured(&kept, &[(Kind::Leave, 0, leave)]);
        assert!((70.0..90.0).contains(&gaps.kept_stall[0]), "{gaps:?}");
        let gaps = measured(&kept, &[(Kind::Leave, 0, 7 * SECOND)]);
        assert_eq!(gaps.kept_stall, [0.0]);
    }

    #[test]
    fn what_another_fault_touches_is_not_measured() {
        let leave = 5 * SECOND;
        let lines = lines(|_| 1, (leave, leave + 80_000));
        let pause = (Kind::Pause, 1, leave + 500_000);
        let gaps = measured(&lines, &[(Kind::Leave, 0, leave), pause]);
        assert_eq!(gaps, Gaps::default());
    }

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 99), Some(198.0));
        assert_eq!(percentile(&values, 100), Some(200.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 99), None);
    }
}
