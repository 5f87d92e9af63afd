//! The assignor by properties: for every number of members and partitions, and against hostile reports.

use std::collections::BTreeMap;

use proptest::prelude::*;
use segmenter_core::assignor::{Candidate, Plan, Why, assign};
use segmenter_core::names::{MemberId, Partition};
use segmenter_core::partition_set::PartitionSet;

fn name(n: usize) -> MemberId {
    MemberId::new(format!("m{n:03}")).unwrap()
}

fn candidate(n: usize) -> Candidate {
    Candidate {
        member: name(n),
        draining: false,
        previous: PartitionSet::new(),
        owned: PartitionSet::new(),
        refused: PartitionSet::new(),
    }
}

/// The same members, with what the plan gave them.
fn after(plan: &Plan, members: impl IntoIterator<Item = usize>) -> Vec<Candidate> {
    let of = |n| plan.assignment.get(&name(n)).cloned().unwrap_or_default();
    members
        .into_iter()
        .map(|n| Candidate {
            previous: of(n),
            owned: of(n),
            ..candidate(n)
        })
        .collect()
}

fn sizes(plan: &Plan) -> Vec<usize> {
    plan.assignment.values().map(PartitionSet::len).collect()
}

/// Every partition once, sizes within one, and a move for each change of owner.
fn check(plan: &Plan, partitions: u32, takers: usize) {
    let mut all: Vec<Partition> = plan
        .assignment
        .values()
        .flat_map(PartitionSet::iter)
        .collect();
    all.sort();
    let expected: Vec<_> = (0..partitions).map(Partition).collect();
    assert_eq!(all, expected, "each partition once");
    let mut sizes = sizes(plan);
    sizes.sort();
    let sizes = &sizes[sizes.len() - takers..];
    assert!(sizes[takers - 1] - sizes[0] <= 1, "{sizes:?}");
}

#[test]
fn every_number_of_members_and_partitions_stays_even_through_joins_and_leaves_with_minimal_moves() {
    for members in 1..=64usize {
        for partitions in 1..=256u32 {
            let first = assign(partitions, &(0..members).map(candidate).collect::<Vec<_>>());
            check(&first, partitions, members);
            assert_eq!(first.moves.len(), partitions as usize);

            let again = assign(partitions, &after(&first, 0..members));
            assert_eq!(again.moves, [], "nothing changed, nothing moves");
            assert_eq!(again.assignment, first.assignment);

            let joined = assign(partitions, &after(&first, 0..=members));
            check(&joined, partitions, members + 1);
            let share = partitions as usize / (members + 1);
            assert_eq!(
                joined.moves.len(),
                share,
                "{members} x {partitions}: a join takes its share"
            );
            assert!(
                joined
                    .moves
                    .iter()
                    .all(|m| m.to == name(members) && m.why == Why::Balance)
            );

            if members > 1 {
                let gone = members / 2;
                let left = assign(
                    partitions,
                    &after(&first, (0..members).filter(|n| *n != gone)),
                );
                check(&left, partitions, members - 1);
                let had = first.assignment[&name(gone)].len();
                assert_eq!(
                    left.moves.len(),
                    had,
                    "{members} x {partitions}: only what it had moves"
                );
                assert!(
                    left.moves
                        .iter()
                        .all(|m| m.from.is_none() && m.why == Why::Unowned)
                );
            }
        }
    }
}

#[test]
fn who_drains_gets_nothing_and_gives_all() {
    let first = assign(7, &(0..3).map(candidate).collect::<Vec<_>>());
    let mut members = after(&first, 0..3);
    members[1].draining = true;
    let plan = assign(7, &members);
    check(&plan, 7, 2);
    assert!(plan.assignment[&name(1)].is_empty());
    assert!(
        plan.moves
            .iter()
            .all(|m| m.from == Some(name(1)) && m.why == Why::Leaving)
    );
    for member in &mut members {
        member.draining = true;
    }
    let plan = assign(7, &members);
    assert!(sizes(&plan).iter().all(|n| *n == 0) && plan.moves.is_empty());
}

#[test]
fn after_a_loss_of_the_coordinator_the_reports_decide() {
    let mut members: Vec<_> = (0..2).map(candidate).collect();
    members[0].owned = "4-7".parse().unwrap();
    members[1].owned = "0-3".parse().unwrap();
    let plan = assign(8, &members);
    assert_eq!(plan.assignment[&name(0)].to_string(), "4-7");
    assert_eq!(plan.assignment[&name(1)].to_string(), "0-3");
    assert_eq!(plan.moves, []);
}

#[test]
fn a_refused_partition_goes_to_one_that_takes_it_even_by_exchange() {
    let first = assign(4, &(0..2).map(candidate).collect::<Vec<_>>());
    let mut members = after(&first, 0..2);
    assert!(members[0].previous.contains(Partition(0)));
    members[0].refused.insert(Partition(0));
    let plan = assign(4, &members);
    check(&plan, 4, 2);
    assert!(plan.assignment[&name(1)].contains(Partition(0)));
    // Everybody refuses it: somebody must.
    members[1].refused.insert(Partition(0));
    check(&assign(4, &members), 4, 2);
}

#[test]
fn a_plan_reads_as_one_line() {
    let first = assign(6, &(0..2).map(candidate).collect::<Vec<_>>());
    let text = assign(6, &after(&first, 0..3)).to_string();
    assert_eq!(
        text,
        "3 members, 6 partitions; m000 0-1, m001 3-4, m002 2,5; moves 2: 2 from m000 to m002 (for balance), 5 from m001 to m002 (for balance)"
    );
}

fn hostile(partitions: u32) -> impl Strategy<Value = Vec<Candidate>> {
    let set = || {
        prop::collection::btree_set(0..partitions * 2, 0..(partitions as usize * 2))
            .prop_map(|s| s.into_iter().map(Partition).collect::<PartitionSet>())
    };
    let one = (0usize..24, prop::bool::weighted(0.2), set(), set(), set()).prop_map(
        |(n, draining, previous, owned, refused)| Candidate {
            member: name(n),
            draining,
            previous,
            owned,
            refused,
        },
    );
    prop::collection::vec(one, 1..24)
}

proptest! {
    /// Members that claim what others have, what does not exist, and everything; the same name twice.
    #[test]
    fn no_report_can_break_it(
        (partitions, candidates) in (1u32..48).prop_flat_map(|p| (Just(p), hostile(p)))
    ) {
        let plan = assign(partitions, &candidates);
        let takers: std::collections::BTreeSet<_> =
            candidates.iter().filter(|c| !c.draining).map(|c| &c.member).collect();
        if takers.is_empty() {
            prop_assert!(sizes(&plan).iter().all(|n| *n == 0));
        } else {
            check(&plan, partitions, takers.len());
        }
        prop_assert_eq!(&assign(partitions, &candidates), &plan, "the same again");
        let mut turned = candidates.clone();
        turned.reverse();
        if takers.len() == candidates.len() {
            prop_assert_eq!(assign(partitions, &turned).assignment, plan.assignment, "in any order");
        }
    }

    /// Without refusals, what moves is exactly what is above a share or without an owner.
    #[test]
    fn moves_are_minimal(
        partitions in 1u32..128,
        members in 1usize..24,
        owners in prop::collection::vec(0usize..32, 128),
    ) {
        let mut candidates: Vec<_> = (0..members).map(candidate).collect();
        let mut counts: BTreeMap<usize, usize> = (0..members).map(|n| (n, 0)).collect();
        let mut unowned = 0;
        for (p, owner) in (0..partitions).zip(&owners) {
            match candidates.get_mut(*owner) {
                Some(candidate) => {
                    candidate.previous.insert(Partition(p));
                    *counts.get_mut(owner).unwrap() += 1;
                }
                None => unowned += 1,
            }
        }
        let plan = assign(partitions, &candidates);
        check(&plan, partitions, members);
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_by(|a, b| b.cmp(a));
        let (share, more) = (partitions as usize / members, partitions as usize % members);
        let above: usize = counts
            .iter()
            .enumerate()
            .map(|(place, n)| n.saturating_sub(share + usize::from(place < more)))
            .sum();
        prop_assert_eq!(plan.moves.len(), above + unowned);
    }
}
