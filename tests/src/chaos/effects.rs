//! What came of the handler's effects: each message has counted once in the state of its key and was emitted
//! once, in the order of its key, with the number that it has there. Pure: it must not know who handled
//! what, nor what befell them; there is no excuse.

use std::collections::{BTreeMap, HashMap};

use super::judge::{Evidence, Verdict};
use super::record::{Numbered, What};
use super::witness::Log;

/// As it lay in Redis after all.
#[derive(Default)]
pub(super) struct Found {
    /// What the target stream held.
    pub(super) emitted: Log<Numbered>,
    /// What state holds per key.
    pub(super) counts: BTreeMap<u32, u64>,
    /// In state, and not explained by any key.
    pub(super) strange: Vec<String>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Effects {
    /// Distinct messages in the target stream.
    pub emitted: usize,
    /// By how much counters are above their keys' messages.
    pub counted_twice: u64,
    /// Further times that the target stream holds a message.
    pub emitted_twice: u64,
    /// By how much counters are below their keys' messages.
    pub uncounted: u64,
    /// Not in the target stream.
    pub unemitted: u64,
    pub emitted_out_of_order: u64,
    /// A handler, or an emitted message, gave a message another number than it has among those of its key.
    pub misnumbered: u64,
    /// In the target stream or in state, and nothing that was sent explains it.
    pub forged: u64,
}

impl Effects {
    pub fn applied_twice(&self) -> u64 {
        self.counted_twice + self.emitted_twice
    }

    pub fn lost(&self) -> u64 {
        self.uncounted + self.unemitted
    }

    /// Nothing that must not be.
    pub fn is_clean(&self) -> bool {
        let Effects {
            emitted: _,
            counted_twice,
            emitted_twice,
            uncounted,
            unemitted,
            emitted_out_of_order,
            misnumbered,
            forged,
        } = self;
        [
            counted_twice,
            emitted_twice,
            uncounted,
            unemitted,
            emitted_out_of_order,
            misnumbered,
            forged,
        ]
        .into_iter()
        .all(|count| *count == 0)
    }
}

/// What the stream held, counted per key from 1.
struct Expected {
    numbers: HashMap<What, u64>,
    of_key: BTreeMap<u32, u64>,
}

impl Expected {
    fn of(log: &Log<What>) -> Expected {
        let (mut numbers, mut of_key) = (HashMap::new(), BTreeMap::new());
        for (_, what) in log.iter().flatten() {
            // A key has one partition, so this is its order.
            let count = of_key.entry(what.key).or_insert(0);
            *count += 1;
            numbers.insert(*what, *count);
        }
        Expected { numbers, of_key }
    }
}

pub(super) fn judge(evidence: &Evidence, verdict: &mut Verdict) {
    let expected = Expected::of(&evidence.log);
    let mut effects = Effects::default();
    calls(evidence, &expected, &mut effects, verdict);
    state(&evidence.found, &expected, &mut effects, verdict);
    target(&evidence.found.emitted, &expected, &mut effects, verdict);
    verdict.effects = effects;
}

/// Also what was handled again must have seen the state that was there before.
fn calls(evidence: &Evidence, expected: &Expected, effects: &mut Effects, verdict: &mut Verdict) {
    for line in &evidence.handled {
        let number = expected.numbers.get(&line.what);
        if number.is_some_and(|number| *number != line.number) {
            effects.misnumbered += 1;
            verdict.note(|| format!("{line} is number {} of its key", number.unwrap_or(&0)));
        }
    }
}

fn state(found: &Found, expected: &Expected, effects: &mut Effects, verdict: &mut Verdict) {
    for (key, sent) in &expected.of_key {
        let counted = found.counts.get(key).copied().unwrap_or(0);
        effects.counted_twice += counted.saturating_sub(*sent);
        effects.uncounted += sent.saturating_sub(counted);
        if counted != *sent {
            verdict.note(|| format!("state counts {counted} messages of k{key}, {sent} were sent"));
        }
    }
    let keys = found.counts.keys();
    let unsent = keys.filter(|key| !expected.of_key.contains_key(key));
    let strange = unsent.map(|key| format!("a count for k{key}"));
    for what in strange.chain(found.strange.iter().cloned()) {
        effects.forged += 1;
        verdict.note(|| format!("state holds what nobody sent: {what}"));
    }
}

fn target(
    emitted: &Log<Numbered>,
    expected: &Expected,
    effects: &mut Effects,
    verdict: &mut Verdict,
) {
    let mut last_of_key: HashMap<u32, (usize, u64)> = HashMap::new();
    let mut seen: HashMap<What, u64> = HashMap::new();
    for (partition, log) in emitted.iter().enumerate() {
        for (id, Numbered { what, number }) in log {
            let place = || format!("target's partition {partition} {id} ({what})");
            let Some(expected) = expected.numbers.get(what) else {
                effects.forged += 1;
                verdict.note(|| format!("{} was never sent", place()));
                continue;
            };
            if number != expected {
                effects.misnumbered += 1;
                verdict.note(|| format!("{} says {number}, it is number {expected}", place()));
            }
            let times = seen.entry(*what).or_insert(0);
            *times += 1;
            if *times > 1 {
                effects.emitted_twice += 1;
                verdict.note(|| format!("{} was there before", place()));
                continue;
            }
            let (home, last) = last_of_key.entry(what.key).or_insert((partition, 0));
            if *home != partition {
                effects.forged += 1;
                verdict.note(|| format!("{}: its key is at home in {home}", place()));
            }
            if expected < last {
                effects.emitted_out_of_order += 1;
                verdict.note(|| format!("{} came after number {last} of its key", place()));
            }
            *last = (*last).max(*expected);
        }
    }
    effects.emitted = seen.len();
    let mut missing: Vec<&What> = expected
        .numbers
        .keys()
        .filter(|what| !seen.contains_key(what))
        .collect();
    missing.sort();
    for what in missing {
        effects.unemitted += 1;
        verdict.note(|| format!("{what} was never emitted"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use segmenter_core::message::EntryId;

    fn what(key: u32, number: u32) -> What {
        What { key, number }
    }

    fn log<T>(entries: Vec<T>) -> Vec<(EntryId, T)> {
        let id = |n| EntryId { ms: n, seq: 0 };
        (1..).map(id).zip(entries).collect()
    }

    /// Keys 0 and 1 with two messages each; of key 1, the number 1 was not appended.
    fn judged(emitted: Vec<Vec<(u32, u32, u64)>>, counts: &[(u32, u64)]) -> Effects {
        let sent = vec![what(0, 0), what(1, 0), what(0, 1), what(1, 2)];
        let numbered = |(key, of, number): (u32, u32, u64)| Numbered {
            what: what(key, of),
            number,
        };
        let emitted = emitted.into_iter();
        let evidence = Evidence {
            log: vec![log(sent)],
            found: Found {
                emitted: emitted
                    .map(|of| log(of.into_iter().map(numbered).collect()))
                    .collect(),
                counts: counts.iter().copied().collect(),
                strange: Vec::new(),
            },
            ..Evidence::default()
        };
        let mut verdict = Verdict::default();
        judge(&evidence, &mut verdict);
        assert_eq!(verdict.effects.is_clean(), verdict.notes.is_empty());
        verdict.effects
    }

    const COUNTS: [(u32, u64); 2] = [(0, 2), (1, 2)];

    fn whole() -> Vec<Vec<(u32, u32, u64)>> {
        vec![vec![(0, 0, 1), (0, 1, 2)], vec![(1, 0, 1), (1, 2, 2)]]
    }

    #[test]
    fn once_each_in_order_is_clean() {
        let effects = judged(whole(), &COUNTS);
        assert!(effects.is_clean(), "{effects:?}");
        assert_eq!(effects.emitted, 4);
    }

    #[test]
    fn state_above_and_below_is_twice_and_lost() {
        let effects = judged(whole(), &[(0, 3), (1, 1)]);
        assert_eq!((effects.applied_twice(), effects.lost()), (1, 1));
        let effects = judged(whole(), &[(0, 2)]);
        assert_eq!((effects.applied_twice(), effects.lost()), (0, 2));
        let effects = judged(whole(), &[(0, 2), (1, 2), (7, 1)]);
        assert_eq!(effects.forged, 1);
    }

    #[test]
    fn what_is_emitted_twice_never_or_late_is_found() {
        let mut twice = whole();
        twice[1].push((1, 0, 1));
        let effects = judged(twice, &COUNTS);
        assert_eq!(
            (effects.applied_twice(), effects.emitted_out_of_order),
            (1, 0)
        );
        let mut never = whole();
        never[0].pop();
        assert_eq!(judged(never, &COUNTS).lost(), 1);
        let mut late = whole();
        late[0].swap(0, 1);
        let effects = judged(late, &COUNTS);
        assert_eq!(
            (effects.emitted_out_of_order, effects.applied_twice()),
            (1, 0)
        );
    }

    #[test]
    fn what_is_wrong_in_itself_is_found() {
        let mut number = whole();
        number[0][1].2 = 3;
        assert_eq!(judged(number, &COUNTS).misnumbered, 1);
        let mut unsent = whole();
        unsent[1].push((1, 1, 3));
        assert_eq!(judged(unsent, &COUNTS).forged, 1);
        let mut elsewhere = whole();
        let moved = elsewhere[0].pop().unwrap();
        elsewhere[1].push(moved);
        assert_eq!(judged(elsewhere, &COUNTS).forged, 1);
    }
}
