//! From what was sent, held, handled and done to whom, to counts. Pure: it must not know processes.
//!
//! A message may be handled twice only if its first handling was not committed: that is, if whoever
//! handled it was killed, paused, cut off or without Redis right then. Everything else is a defect.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use segmenter_core::message::EntryId;

use super::effects::{self, Effects, Found};
use super::gaps::{self, Gaps};
use super::plan::Kind;
use super::producers::Sent;
use super::record::{Handled, What};
use super::stage::Incident;
use super::witness::Log;

/// A commit is under way no longer than this, with a margin for two busy cores.
const UNCOMMITTED_US: u64 = 500_000;

#[derive(Default)]
pub(super) struct Evidence {
    pub(super) log: Log<What>,
    /// What the handler's effects left behind.
    pub(super) found: Found,
    pub(super) sent: Sent,
    pub(super) handled: Vec<Handled>,
    pub(super) incidents: Vec<Incident>,
    /// When this machine stood still.
    pub(super) stalls: Vec<(u64, u64)>,
    pub(super) session_us: u64,
    /// Of an entry id's time, to get to the monotonic clock.
    pub(super) epoch_us: u64,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Verdict {
    /// Appends that were answered, and those whose answer was lost and that the stream held.
    pub sent: usize,
    /// Appends whose answer was lost, and of them those that the stream held.
    pub unknown: usize,
    pub unknown_held: usize,
    pub handled: usize,
    pub duplicates: usize,
    pub unexplained_duplicates: usize,
    pub out_of_order: usize,
    /// In the stream and never handled, or answered and not in the stream.
    pub lost: usize,
    /// Handled, but not what the stream held there; or appended twice; or out of its producer's order.
    pub forged: usize,
    /// A host went on in a partition that another had begun to handle.
    pub overlaps: usize,
    pub unexplained_overlaps: usize,
    pub effects: Effects,
    pub gaps: Gaps,
    /// The first few of what must not be, in words.
    pub notes: Vec<String>,
}

const NOTES_MAX: usize = 20;

impl Verdict {
    /// Nothing that must not be.
    pub fn is_clean(&self) -> bool {
        let Verdict {
            lost,
            out_of_order,
            unexplained_duplicates,
            unexplained_overlaps,
            forged,
            effects,
            ..
        } = self;
        [
            lost,
            out_of_order,
            unexplained_duplicates,
            unexplained_overlaps,
            forged,
        ]
        .into_iter()
        .all(|count| *count == 0)
            && effects.is_clean()
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(what());
        }
    }
}

/// A time in which what one host handled, or any host, may have stayed uncommitted.
struct Excuse {
    life: Option<u32>,
    from_us: u64,
    to_us: u64,
    /// The call that was running in each partition when it began: it may end late, behind a new owner.
    /// No further one may begin.
    late: HashMap<u32, EntryId>,
}

impl Excuse {
    /// The earlier handling was not committed; or the later one is that of a host that woke up too late.
    fn covers(&mut self, earlier: &Handled, later: &Handled) -> bool {
        let inside = |at: u64| (self.from_us..=self.to_us).contains(&at);
        match self.life {
            None => inside(earlier.at_us),
            Some(life) if life == earlier.life => inside(earlier.at_us),
            Some(life) => {
                life == later.life
                    && inside(earlier.at_us)
                    && inside(later.at_us)
                    && *self.late.entry(later.partition).or_insert(later.id) == later.id
            }
        }
    }
}

fn excuses(evidence: &Evidence) -> Vec<Excuse> {
    let session = evidence.session_us;
    let mut excuses: Vec<Excuse> = Vec::new();
    for incident in &evidence.incidents {
        let after = match incident.kind {
            Kind::Kill | Kind::Revive => 0,
            Kind::Pause | Kind::Cut | Kind::Blackhole | Kind::Late | Kind::Redis => session,
            // Being slow, joining and leaving repeat nothing.
            Kind::Delay | Kind::Join | Kind::Leave | Kind::Churn => continue,
        };
        excuses.push(Excuse {
            life: incident.life,
            from_us: incident.from_us.saturating_sub(UNCOMMITTED_US),
            to_us: incident.to_us + after,
            late: HashMap::new(),
        });
    }
    excuses.extend(evidence.stalls.iter().map(|(from, to)| Excuse {
        life: None,
        from_us: from.saturating_sub(UNCOMMITTED_US),
        to_us: to + session,
        late: HashMap::new(),
    }));
    excuses
}

pub(super) fn judge(mut evidence: Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    evidence.handled.sort_by_key(|line| line.at_us);
    let held = appends(&evidence, &mut verdict);
    calls(&evidence, &held, &mut verdict);
    effects::judge(&evidence, &mut verdict);
    verdict.gaps = gaps::measure(&evidence.handled, &evidence.incidents, &evidence);
    verdict
}

/// What the stream held, by partition and id; and how it compares with what producers know.
fn appends(evidence: &Evidence, verdict: &mut Verdict) -> HashMap<(u32, EntryId), (usize, What)> {
    let mut held = HashMap::new();
    let mut seen = BTreeSet::new();
    for (partition, log) in (0..).zip(&evidence.log) {
        for (position, (id, what)) in log.iter().enumerate() {
            held.insert((partition, *id), (position, *what));
            if !seen.insert(*what) {
                verdict.forged += 1;
                verdict.note(|| {
                    format!("{what} was appended twice, again as partition {partition} {id}")
                });
            }
        }
    }
    verdict.sent = held.len();
    let mut last: BTreeMap<u32, (EntryId, u32)> = BTreeMap::new();
    for (partition, id, what) in &evidence.sent.accepted {
        match held.get(&(*partition, *id)) {
            None => {
                verdict.sent += 1;
                verdict.lost += 1;
                verdict.note(|| format!("partition {partition} {id} ({what}): answered, not held"));
            }
            Some((_, found)) if found != what => {
                verdict.forged += 1;
                verdict.note(|| format!("partition {partition} {id} holds {found}, not {what}"));
            }
            Some(_) => {}
        }
        // One producer waits for each answer: its later message has the larger id.
        let before = last.insert(what.key, (*id, what.number));
        if before.is_some_and(|(before, number)| *id <= before || what.number <= number) {
            verdict.forged += 1;
            verdict.note(|| format!("partition {partition} {id} ({what}): appended out of order"));
        }
    }
    verdict.unknown = evidence.sent.unknown.len();
    let unknown = evidence.sent.unknown.iter();
    verdict.unknown_held = unknown.filter(|what| seen.contains(what)).count();
    held
}

fn calls(
    evidence: &Evidence,
    held: &HashMap<(u32, EntryId), (usize, What)>,
    verdict: &mut Verdict,
) {
    let mut excuses = excuses(evidence);
    let mut excused = |earlier: &Handled, later: &Handled| {
        let mut excuses = excuses.iter_mut();
        excuses.any(|excuse| excuse.covers(earlier, later))
    };
    let mut handlings: HashMap<(u32, EntryId), Handled> = HashMap::new();
    let mut last_of_key: HashMap<u32, usize> = HashMap::new();
    // Per partition: the furthest handling, and who has been there.
    let mut furthest: HashMap<u32, Handled> = HashMap::new();
    let mut before: HashMap<u32, BTreeSet<u32>> = HashMap::new();
    let mut running: HashMap<u32, u32> = HashMap::new();
    for line in &evidence.handled {
        let message = (line.partition, line.id);
        let position = match held.get(&message) {
            Some((position, what)) if *what == line.what => *position,
            _ => {
                verdict.forged += 1;
                verdict.note(|| format!("{line} is not what the stream held"));
                continue;
            }
        };
        let was_here = !before.entry(line.partition).or_default().insert(line.life);
        let other_ran = running.insert(line.partition, line.life) != Some(line.life);
        if let Some(furthest) = furthest.get(&line.partition)
            && was_here
            && other_ran
            && line.id <= furthest.id
        {
            verdict.overlaps += 1;
            if !excused(furthest, line) {
                verdict.unexplained_overlaps += 1;
                verdict.note(|| format!("{line} came back behind {furthest}"));
            }
        }
        if furthest
            .get(&line.partition)
            .is_none_or(|furthest| line.id >= furthest.id)
        {
            furthest.insert(line.partition, *line);
        }
        // A third handling is excused by what came over the second.
        if let Some(earlier) = handlings.insert(message, *line) {
            verdict.duplicates += 1;
            if !excused(&earlier, line) {
                verdict.unexplained_duplicates += 1;
                verdict.note(|| format!("{line} was handled before: {earlier}"));
            }
            continue;
        }
        let last = last_of_key.entry(line.what.key).or_insert(position);
        if position < *last {
            verdict.out_of_order += 1;
            verdict.note(|| format!("{line} came after a later one of its key"));
        }
        *last = position.max(*last);
    }
    verdict.handled = handlings.len();
    for (message, (_, what)) in held {
        if !handlings.contains_key(message) {
            verdict.lost += 1;
            let (partition, id) = message;
            verdict.note(|| format!("partition {partition} {id} ({what}) was never handled"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::record::Numbered;

    const SECOND: u64 = 1_000_000;

    fn id(n: u64) -> EntryId {
        EntryId { ms: n, seq: 0 }
    }

    fn what(n: u64) -> What {
        What {
            key: 0,
            number: u32::try_from(n).unwrap(),
        }
    }

    fn line(life: u32, n: u64, at_us: u64) -> Handled {
        Handled {
            at_us,
            life,
            partition: 0,
            id: id(n),
            what: what(n),
            number: n,
        }
    }

    /// Three messages, answered and held.
    fn evidence(handled: Vec<Handled>, incidents: Vec<Incident>) -> Evidence {
        Evidence {
            log: vec![(1..=3).map(|n| (id(n), what(n))).collect()],
            sent: Sent {
                accepted: (1..=3).map(|n| (0, id(n), what(n))).collect(),
                ..Sent::default()
            },
            found: Found {
                emitted: vec![(1..=3).map(|n| (id(n), numbered(n))).collect()],
                counts: [(0, 3)].into(),
                strange: Vec::new(),
            },
            handled,
            incidents,
            session_us: SECOND,
            ..Evidence::default()
        }
    }

    fn numbered(n: u64) -> Numbered {
        Numbered {
            what: what(n),
            number: n,
        }
    }

    fn incident(kind: Kind, life: u32, from_us: u64, to_us: u64) -> Incident {
        Incident {
            kind,
            life: Some(life),
            from_us,
            to_us,
            took_hold: true,
        }
    }

    fn all(life: u32, at: u64) -> Vec<Handled> {
        (1..=3).map(|n| line(life, n, at + n)).collect()
    }

    #[test]
    fn a_clean_record_is_clean() {
        let verdict = judge(evidence(all(0, 10 * SECOND), Vec::new()));
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.handled), (3, 3));
    }

    #[test]
    fn losses_and_order_are_found() {
        let mut lines = all(0, 10 * SECOND);
        lines.swap(0, 1);
        lines[0].at_us = 1;
        lines.pop();
        let verdict = judge(evidence(lines, Vec::new()));
        assert_eq!((verdict.lost, verdict.out_of_order), (1, 1));
        let mut missing = evidence(all(0, 10 * SECOND), Vec::new());
        missing.sent.accepted.push((0, id(4), what(4)));
        assert_eq!(judge(missing).lost, 1, "answered and not held");
    }

    #[test]
    fn what_nobody_knows_is_neither_sent_nor_lost() {
        let mut unknown = evidence(all(0, 10 * SECOND), Vec::new());
        unknown.sent.accepted.pop();
        unknown.sent.unknown = vec![what(3), what(4)];
        let verdict = judge(unknown);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(
            (verdict.sent, verdict.unknown, verdict.unknown_held),
            (3, 2, 1)
        );
    }

    #[test]
    fn a_duplicate_needs_a_fault_of_the_one_who_handled_it_before() {
        let at = 10 * SECOND;
        let with = |incidents| {
            let mut lines = all(0, at);
            lines.extend([line(1, 2, at + SECOND), line(1, 3, at + SECOND + 1)]);
            let verdict = judge(evidence(lines, incidents));
            assert_eq!(verdict.duplicates, 2);
            verdict.unexplained_duplicates
        };
        assert_eq!(with(vec![]), 2);
        assert_eq!(with(vec![incident(Kind::Kill, 0, at + 10, at + 10)]), 0);
        assert_eq!(with(vec![incident(Kind::Kill, 1, at + 10, at + 10)]), 2);
        let late = at + 2 * UNCOMMITTED_US;
        assert_eq!(with(vec![incident(Kind::Kill, 0, late, late)]), 2);
        assert_eq!(with(vec![incident(Kind::Leave, 0, at + 10, at + 10)]), 2);
        assert_eq!(with(vec![incident(Kind::Delay, 0, at, at + SECOND)]), 2);
        let mut redis = incident(Kind::Redis, 0, at + 10, at + 20);
        redis.life = None;
        assert_eq!(with(vec![redis]), 0);
    }

    #[test]
    fn who_wakes_up_behind_another_overlaps_and_only_a_pause_excuses_it() {
        let at = 10 * SECOND;
        let lines = vec![
            line(0, 1, at),
            line(1, 2, at + 2 * SECOND),
            line(0, 2, at + 3 * SECOND),
            line(1, 3, at + 3 * SECOND + 1),
        ];
        let verdict = judge(evidence(lines.clone(), Vec::new()));
        assert_eq!((verdict.overlaps, verdict.unexplained_overlaps), (1, 1));
        let pause = incident(Kind::Pause, 0, at + 1, at + 3 * SECOND - 1);
        let verdict = judge(evidence(lines.clone(), vec![pause.clone()]));
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.overlaps, verdict.duplicates), (1, 1));
        // The call that was running may end; another must not begin.
        let mut more = lines;
        more[2].at_us += 10;
        more.push(line(0, 3, at + 3 * SECOND + 11));
        let verdict = judge(evidence(more, vec![pause]));
        assert_eq!(verdict.unexplained_duplicates, 1, "{verdict:?}");
    }

    #[test]
    fn what_was_not_held_was_not_handled() {
        let mut lines = all(0, 10 * SECOND);
        lines.push(line(0, 9, 11 * SECOND));
        assert_eq!(judge(evidence(lines, Vec::new())).forged, 1);
    }
}
