//! Who of a group gets which partitions: a pure function of what members have. Sticky: sizes differ by at
//! most one, and no partition moves that need not. It must not know how members were found, nor when an
//! assignment takes effect. It trusts no report: whatever members claim, every partition is given once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use crate::names::{MemberId, Partition};
use crate::partition_set::PartitionSet;

/// A live member, as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub member: MemberId,
    /// It leaves: it gets nothing more.
    pub draining: bool,
    /// What the assignment before gave it.
    pub previous: PartitionSet,
    /// What it reports to have.
    pub owned: PartitionSet,
    /// What it asks not to get: it could not commit there.
    pub refused: PartitionSet,
}

/// An assignment with what it changes and why: the one line that a rebalance leaves in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub assignment: BTreeMap<MemberId, PartitionSet>,
    pub moves: Vec<Move>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    pub why: Why,
    pub from: Option<MemberId>,
    pub to: MemberId,
    pub partition: Partition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nobody who lives had it.
    Unowned,
    /// Its owner leaves.
    Leaving,
    /// Its owner cannot commit to it.
    Refused,
    /// Its owner had more than its share.
    Balance,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Why::Unowned => "had no live owner",
            Why::Leaving => "its owner leaves",
            Why::Refused => "its owner cannot commit to it",
            Why::Balance => "for balance",
        }
    }
}

/// Gives each of `partitions` to one candidate that does not drain. With none, nothing is given.
///
/// Who has a partition: whom the assignment before gave it, else who reports it (the first by name, if
/// several do). Whoever has most keeps one more than the others, if they do not divide evenly; each
/// keeps what it has up to its share, and the rest goes to those below theirs. That is minimal: a
/// partition moves only from somebody gone, or above its share.
pub fn assign(partitions: u32, candidates: &[Candidate]) -> Plan {
    let mut takers: Vec<&Candidate> = candidates.iter().filter(|c| !c.draining).collect();
    takers.sort_by(|a, b| a.member.cmp(&b.member));
    takers.dedup_by(|a, b| a.member == b.member);
    let mut plan = Plan {
        assignment: candidates
            .iter()
            .map(|c| (c.member.clone(), PartitionSet::new()))
            .collect(),
        moves: Vec::new(),
    };
    if takers.is_empty() {
        return plan;
    }
    let had_by = owners(partitions, candidates);
    let mut whys = vec![Why::Unowned; partitions as usize];
    let mut kept: Vec<Vec<Partition>> = vec![Vec::new(); takers.len()];
    let mut free: Vec<Partition> = Vec::new();
    for (partition, owner) in (0..partitions).map(Partition).zip(&had_by) {
        let Some(owner) = owner else {
            free.push(partition);
            continue;
        };
        match takers.binary_search_by(|taker| taker.member.cmp(&owner.member)) {
            Ok(place) if keeps(&takers, place, partition) => kept[place].push(partition),
            gone => {
                free.push(partition);
                whys[partition.0 as usize] = gone.map_or(Why::Leaving, |_| Why::Refused);
            }
        }
    }
    let shares = shares(partitions as usize, &kept);
    for (place, kept) in kept.iter_mut().enumerate() {
        // What it does not really have yet is given up first, then the highest numbers.
        kept.sort_by_key(|p| (Reverse(takers[place].owned.contains(*p)), *p));
        for partition in kept.drain(kept.len().min(shares[place])..) {
            whys[partition.0 as usize] = Why::Balance;
            free.push(partition);
        }
    }
    free.sort();
    fill(&takers, &shares, &mut kept, free);
    for (taker, kept) in takers.iter().zip(kept) {
        for partition in &kept {
            let from = had_by[partition.0 as usize].map(|c| &c.member);
            // What was given in exchange was not free before.
            let why = match (from, whys[partition.0 as usize]) {
                (Some(_), Why::Unowned) => Why::Balance,
                (_, why) => why,
            };
            if from != Some(&taker.member) {
                plan.moves.push(Move {
                    why,
                    from: from.cloned(),
                    to: taker.member.clone(),
                    partition: *partition,
                });
            }
        }
        let set = kept.into_iter().collect();
        plan.assignment.insert(taker.member.clone(), set);
    }
    plan.moves.sort();
    plan
}

/// Whether it may keep a partition: it does not refuse it, or everybody does.
fn keeps(takers: &[&Candidate], place: usize, partition: Partition) -> bool {
    !takers[place].refused.contains(partition)
        || takers.iter().all(|taker| taker.refused.contains(partition))
}

/// Who has each partition.
fn owners(partitions: u32, candidates: &[Candidate]) -> Vec<Option<&Candidate>> {
    let mut had_by = vec![None; partitions as usize];
    let mut by_name: Vec<&Candidate> = candidates.iter().collect();
    by_name.sort_by(|a, b| a.member.cmp(&b.member));
    let previous = by_name.iter().map(|c| (*c, &c.previous));
    let reported = by_name.iter().map(|c| (*c, &c.owned));
    for (candidate, set) in previous.chain(reported) {
        for partition in set.iter() {
            if let Some(place) = had_by.get_mut(partition.0 as usize) {
                place.get_or_insert(candidate);
            }
        }
    }
    had_by
}

/// How many each gets: those who have most get what does not divide evenly.
fn shares(partitions: usize, kept: &[Vec<Partition>]) -> Vec<usize> {
    let (share, more) = (partitions / kept.len(), partitions % kept.len());
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by_key(|place| (Reverse(kept[*place].len()), *place));
    let mut shares = vec![share; kept.len()];
    for place in order.into_iter().take(more) {
        shares[place] += 1;
    }
    shares
}

/// Gives what is free to those below their share: first to one that has it already, then to one that
/// does not refuse it, then, if nobody else is left, by exchange with one that does not refuse it.
fn fill(
    takers: &[&Candidate],
    shares: &[usize],
    kept: &mut [Vec<Partition>],
    free: Vec<Partition>,
) {
    let takes = |place: usize, partition| !takers[place].refused.contains(partition);
    let mut rest = Vec::new();
    for partition in free {
        let has_it = |place: &usize| {
            kept[*place].len() < shares[*place]
                && takers[*place].owned.contains(partition)
                && takes(*place, partition)
        };
        match (0..takers.len()).find(has_it) {
            Some(place) => kept[place].push(partition),
            None => rest.push(partition),
        }
    }
    let mut next = 0;
    for partition in rest {
        // The shares add up to all partitions: somebody is below theirs.
        while kept[next].len() >= shares[next] {
            next += 1;
        }
        let place = (next..takers.len())
            .find(|place| kept[*place].len() < shares[*place] && takes(*place, partition));
        if let Some(place) = place {
            kept[place].push(partition);
            continue;
        }
        // All with room refuse it. Whoever takes it gives something back that one of them takes.
        let exchange = (0..takers.len())
            .filter(|place| takes(*place, partition))
            .find_map(|place| {
                let back = kept[place].iter().position(|p| takes(next, *p))?;
                Some((place, back))
            });
        match exchange {
            Some((place, back)) => {
                let given = std::mem::replace(&mut kept[place][back], partition);
                kept[next].push(given);
            }
            None => kept[next].push(partition),
        }
    }
}

impl fmt::Display for Plan {
    /// `3 members, 16 partitions; a 0-5, b 6-10, c 11-15; moves 5: 11-15 from a to c (for balance)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.assignment.values().map(PartitionSet::len).sum();
        write!(f, "{} members, {all} partitions", self.assignment.len())?;
        let mut mark = ';';
        for (member, set) in &self.assignment {
            match set.is_empty() {
                true => write!(f, "{mark} {member} none")?,
                false => write!(f, "{mark} {member} {set}")?,
            }
            mark = ',';
        }
        write!(f, "; moves {}", self.moves.len())?;
        let mut groups: BTreeMap<_, PartitionSet> = BTreeMap::new();
        for m in &self.moves {
            groups
                .entry((&m.from, &m.to, m.why))
                .or_default()
                .insert(m.partition);
        }
        mark = ':';
        for ((from, to, why), set) in groups {
            write!(f, "{mark} {set}")?;
            if let Some(from) = from {
                write!(f, " from {from}")?;
            }
            write!(f, " to {to} ({})", why.as_str())?;
            mark = ',';
        }
        Ok(())
    }
}
