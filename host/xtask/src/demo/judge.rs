//! What was sent against what the handlers logged: counts, order, and whether the kill explains what was
//! handled twice. Each call is compared with a plain count of its message, by what its version counts. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::hosts::Killed;
use super::record::{Handled, Id, Logged};
use super::send::Sent;
use crate::source::Counts;

#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) handled: u64,
    pub(super) duplicates: u64,
    /// Messages that the killed host had handled and not acked: they may be handled again, once.
    pub(super) uncommitted: u64,
    /// Duplicates of anything else.
    pub(super) unexplained: u64,
    pub(super) out_of_order: u64,
    pub(super) lost: u64,
    /// Messages by the version that handled them first: v1, v2.
    pub(super) by_version: [u64; 2],
    pub(super) by_package: BTreeMap<String, Counted>,
    /// Calls that counted something else than a plain count of the same message.
    pub(super) wrong: Vec<String>,
}

/// What handlers counted in a package; `unsafe`s in the messages that v2 handled, and how many a plain count
/// finds in just these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) unsafes: u64,
    pub(super) unsafes_owed: u64,
    /// Messages that v1 handled, and that v2 did.
    pub(super) by_first: u64,
    pub(super) by_second: u64,
}

impl Counted {
    fn add(&mut self, logged: Logged, plain: Counts) {
        self.lines += logged.lines;
        self.bytes += logged.bytes;
        match logged.unsafes {
            Some(unsafes) => {
                self.unsafes += unsafes;
                self.unsafes_owed += plain.unsafes;
                self.by_second += 1;
            }
            None => self.by_first += 1,
        }
    }

    fn is(&self, plain: Counts) -> bool {
        // Where v2 handled all, what is owed is what the files hold.
        let unsafes = self.by_first > 0 || self.unsafes == plain.unsafes;
        let owed = self.unsafes == self.unsafes_owed;
        self.lines == plain.lines && self.bytes == plain.bytes && unsafes && owed
    }
}

fn is(logged: Logged, plain: Counts) -> bool {
    logged.lines == plain.lines
        && logged.bytes == plain.bytes
        && logged
            .unsafes
            .is_none_or(|unsafes| unsafes == plain.unsafes)
}

/// `record` in the order of time; `plain` per message, as sent.
pub(super) fn judge(
    sent: &[Sent],
    record: &[Handled],
    killed: &Killed,
    plain: &[Counts],
) -> anyhow::Result<Verdict> {
    if sent.len() != plain.len() {
        anyhow::bail!("{} were sent, but {} were counted", sent.len(), plain.len());
    }
    let mut verdict = Verdict::default();
    let known: HashMap<(u64, Id), usize> = sent
        .iter()
        .enumerate()
        .map(|(i, s)| ((s.partition, s.id), i))
        .collect();
    let mut seen = vec![false; sent.len()];
    let mut uncommitted: BTreeSet<(u64, Id)> = BTreeSet::new();
    let mut last_of_key: HashMap<&str, usize> = HashMap::new();
    for line in record {
        let message = (line.partition, line.id);
        let Some(&at) = known.get(&message) else {
            anyhow::bail!("{line:?} was handled, but never sent");
        };
        if !is(line.logged, plain[at]) {
            verdict.wrong.push(format!(
                "{line:?}: a plain count finds {:?} in it",
                plain[at]
            ));
        }
        if std::mem::replace(&mut seen[at], true) {
            verdict.duplicates += 1;
            if !uncommitted.remove(&message) {
                verdict.unexplained += 1;
            }
            continue;
        }
        if line.host == killed.host
            && killed
                .acked
                .get(&line.partition)
                .is_none_or(|acked| line.id > *acked)
        {
            uncommitted.insert(message);
            verdict.uncommitted += 1;
        }
        verdict.handled += 1;
        verdict.by_version[usize::from(line.logged.unsafes.is_some())] += 1;
        let package = sent[at].package.as_str();
        let last = last_of_key.entry(package).or_insert(at);
        if at < *last {
            verdict.out_of_order += 1;
        }
        *last = at.max(*last);
        verdict
            .by_package
            .entry(package.to_owned())
            .or_default()
            .add(line.logged, plain[at]);
    }
    verdict.lost = sent.len() as u64 - verdict.handled;
    Ok(verdict)
}

/// What differs, one line a crate.
pub(super) fn compare(
    found: &BTreeMap<String, Counted>,
    plain: &BTreeMap<String, Counts>,
) -> Vec<String> {
    let names: BTreeSet<_> = found.keys().chain(plain.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let found = found.get(name).copied().unwrap_or_default();
            let plain = plain.get(name).copied().unwrap_or_default();
            (!found.is(plain)).then(|| format!("{name}: handlers {found:?}, files {plain:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Counts = Counts {
        lines: 1,
        unsafes: 0,
        bytes: 2,
    };

    fn sent(package: &str, partition: u64, ms: u64) -> Sent {
        Sent {
            package: package.to_owned(),
            partition,
            id: Id(ms, 0),
        }
    }

    fn line(host: usize, partition: u64, ms: u64) -> Handled {
        Handled {
            at_us: 0,
            host,
            partition,
            id: Id(ms, 0),
            logged: Logged {
                lines: ONE.lines,
                unsafes: Some(ONE.unsafes),
                bytes: ONE.bytes,
            },
        }
    }

    fn killed(host: usize, acked: u64) -> Killed {
        Killed {
            host,
            acked: BTreeMap::from([(0, Id(acked, 0))]),
        }
    }

    #[test]
    fn duplicates_order_and_losses_are_found() {
        let all = [
            sent("a", 0, 1),
            sent("b", 1, 1),
            sent("a", 0, 2),
            sent("a", 0, 3),
        ];
        let record = [line(0, 0, 2), line(0, 0, 1), line(0, 1, 1), line(0, 0, 2)];
        let verdict = judge(&all, &record, &killed(1, 0), &[ONE; 4]).unwrap();
        assert_eq!(
            (
                verdict.handled,
                verdict.duplicates,
                verdict.unexplained,
                verdict.out_of_order,
                verdict.lost
            ),
            (3, 1, 1, 1, 1)
        );
        assert_eq!(verdict.by_package["a"].lines, 2);
        let strange = [line(0, 7, 1)];
        assert!(
            judge(&all, &strange, &killed(1, 0), &[ONE; 4]).is_err(),
            "never sent"
        );
        let plain = BTreeMap::from([("a".to_owned(), ONE)]);
        assert_eq!(compare(&verdict.by_package, &plain).len(), 2);
    }

    #[test]
    fn the_kill_explains_only_what_was_not_acked_and_only_once() {
        let all = [sent("a", 0, 1), sent("a", 0, 2)];
        let record = [
            line(1, 0, 1),
            line(1, 0, 2),
            line(0, 0, 1),
            line(0, 0, 2),
            line(2, 0, 2),
        ];
        let of = |killed| {
            let verdict = judge(&all, &record, &killed, &[ONE; 2]).unwrap();
            (verdict.duplicates, verdict.uncommitted, verdict.unexplained)
        };
        assert_eq!(of(killed(1, 0)), (3, 2, 1));
        assert_eq!(of(killed(1, 1)), (3, 1, 2));
        assert_eq!(of(killed(2, 0)), (3, 0, 3));
    }

    #[test]
    fn each_version_is_held_against_what_it_counts() {
        let plain = Counts {
            lines: 1,
            unsafes: 5,
            bytes: 2,
        };
        let all = [sent("a", 0, 1), sent("a", 0, 2)];
        let with = |unsafes: [Option<u64>; 2]| {
            let mut record = [line(0, 0, 1), line(0, 0, 2)];
            for (line, unsafes) in record.iter_mut().zip(unsafes) {
                line.logged.unsafes = unsafes;
            }
            let verdict = judge(&all, &record, &killed(1, 0), &[plain; 2]).unwrap();
            let both = Counts {
                lines: 2,
                unsafes: 10,
                bytes: 4,
            };
            let plain = BTreeMap::from([("a".to_owned(), both)]);
            let differing = compare(&verdict.by_package, &plain).len();
            (verdict.by_version, verdict.wrong.len(), differing)
        };
        assert_eq!(with([None, Some(5)]), ([1, 1], 0, 0));
        assert_eq!(with([Some(5), Some(5)]), ([0, 2], 0, 0));
        assert_eq!(with([None, Some(4)]), ([1, 1], 1, 1));
        assert_eq!(
            with([Some(6), Some(4)]),
            ([0, 2], 2, 0),
            "the sum alone does not tell"
        );
    }
}
