//! What was sent against what the handlers logged: counts, order, and whether the kill explains what was
//! handled twice. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::hosts::Killed;
use super::record::{Handled, Id};
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
    pub(super) by_package: BTreeMap<String, Counts>,
}

/// `record` in the order of time.
pub(super) fn judge(sent: &[Sent], record: &[Handled], killed: &Killed) -> anyhow::Result<Verdict> {
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
            .add(line.counts);
    }
    verdict.lost = sent.len() as u64 - verdict.handled;
    Ok(verdict)
}

/// What differs, one line a crate.
pub(super) fn compare(
    found: &BTreeMap<String, Counts>,
    plain: &BTreeMap<String, Counts>,
) -> Vec<String> {
    let nothing = Counts::default();
    let names: BTreeSet<_> = found.keys().chain(plain.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (found, plain) = (
                found.get(name).unwrap_or(&nothing),
                plain.get(name).unwrap_or(&nothing),
            );
            (found != plain).then(|| format!("{name}: handlers {found:?}, files {plain:?}"))
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
            counts: ONE,
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
        let verdict = judge(&all, &record, &killed(1, 0)).unwrap();
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
        assert!(judge(&all, &strange, &killed(1, 0)).is_err(), "never sent");
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
            let verdict = judge(&all, &record, &killed).unwrap();
            (verdict.duplicates, verdict.uncommitted, verdict.unexplained)
        };
        assert_eq!(of(killed(1, 0)), (3, 2, 1));
        assert_eq!(of(killed(1, 1)), (3, 1, 2));
        assert_eq!(of(killed(2, 0)), (3, 0, 3));
    }
}
