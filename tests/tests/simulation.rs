//! The simulation: seeds that must hold, the same bytes for the same seed, and the checkers themselves:
//! with a protection taken out, some seed must fail.

use std::sync::atomic::{AtomicU64, Ordering};

use segmenter_tests::sim::{self, Mutation, RolloutMutation};

const SEEDS: u64 = 500;
/// A mutation that no seed below this shows is one that no checker sees.
const MUTANT_SEEDS: u64 = 2_000;

/// The first seed below `end` for which `bad` gives something, searched on all cores.
fn first<T: Send>(end: u64, bad: impl Fn(u64) -> Option<T> + Sync) -> Option<(u64, T)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let found = AtomicU64::new(u64::MAX);
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end || seed > found.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(what) = bad(seed) {
                found.fetch_min(seed, Ordering::Relaxed);
                return Some((seed, what));
            }
        }
    };
    std::thread::scope(|scope| {
        let searching: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let found = searching
            .into_iter()
            .filter_map(|thread| thread.join().expect("the simulation panicked"));
        found.min_by_key(|(seed, _)| *seed)
    })
}

#[test]
fn every_seed_holds() {
    let failed = first(SEEDS, |seed| {
        sim::run(seed, None, false).violation?;
        sim::run(seed, None, true).failure()
    });
    if let Some((_, failure)) = failed {
        panic!("{failure}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [0, 1, 2, 3, 17, 42] {
        let (one, two) = (sim::run(seed, None, true), sim::run(seed, None, true));
        assert!(one.lines > 0, "seed {seed} left no trace");
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.hash, two.hash, "seed {seed}");
        let untraced = sim::run(seed, None, false);
        assert_eq!(
            one.hash, untraced.hash,
            "seed {seed}: looking changes nothing"
        );
    }
}

fn is_noticed(mutation: Mutation) {
    let failed = first(MUTANT_SEEDS, |seed| {
        sim::run(seed, Some(mutation), false).violation
    });
    let Some((seed, violation)) = failed else {
        panic!("{mutation:?}: none of {MUTANT_SEEDS} seeds fails");
    };
    // It is the mutation that fails, not the seed.
    assert_eq!(sim::run(seed, None, false).violation, None, "seed {seed}");
    println!(
        "{}: seed {seed}: {}: {}",
        mutation.as_str(),
        violation.rule,
        violation.what
    );
}

macro_rules! mutations {
    ($($name:ident: $mutation:ident,)+) => {
        $(#[test]
        fn $name() {
            is_noticed(Mutation::$mutation);
        })+
        /// A mutation that nobody tries proves nothing.
        #[test]
        fn every_mutation_is_tried() {
            assert_eq!([$(Mutation::$mutation),+], Mutation::ALL);
        }
    };
}

mutations! {
    a_fence_without_owner_and_epoch_is_noticed: FenceWithoutOwner,
    a_fence_without_from_is_noticed: FenceWithoutFrom,
    a_trim_behind_the_fastest_group_is_noticed: TrimBehindFastest,
    a_member_without_a_trust_window_is_noticed: NoTrustWindow,
    leases_that_are_never_verified_are_noticed: NoVerify,
    stale_reads_that_are_taken_are_noticed: StaleReadsTaken,
    a_refused_rest_that_is_sent_later_is_noticed: RefusedRestLater,
    overtaken_syncs_that_are_obeyed_are_noticed: OvertakenSyncs,
    partitions_that_are_granted_unreleased_are_noticed: GrantedUnreleased,
    targets_that_forget_their_sources_are_noticed: SourcesForgotten,
    versions_on_trial_that_decide_alone_are_noticed: TrialDecidesAlone,
    state_that_is_dropped_at_a_swap_is_noticed: StateDroppedAtSwap,
    attempts_that_another_version_inherits_are_noticed: AttemptsInherited,
    a_failure_that_is_told_of_the_next_message_of_a_batch_is_noticed: BatchFailureBehind,
    a_broken_batch_that_counts_against_its_first_message_is_noticed: BrokenBatchBlamed,
}

/// Of how versions go live: such a seed takes milliseconds.
const ROLLOUT_SEEDS: u64 = 300;

#[test]
fn every_rollout_ends_with_one_version_everywhere() {
    let failed = first(ROLLOUT_SEEDS, |seed| sim::run_rollout(seed, None).violation);
    if let Some((seed, violation)) = failed {
        let report = sim::run_rollout(seed, None);
        panic!("{violation}\n{}", report.trace);
    }
    let all: Vec<_> = (0..ROLLOUT_SEEDS)
        .map(|seed| sim::run_rollout(seed, None))
        .collect();
    let sum = |of: fn(&sim::RolloutReport) -> u64| all.iter().map(of).sum::<u64>();
    let (promoted, rolled_back) = (sum(|r| r.promoted), sum(|r| r.rolled_back));
    println!(
        "{ROLLOUT_SEEDS} seeds: {} deploys, {promoted} promoted, {rolled_back} rolled back, {} faults",
        sum(|r| r.deploys),
        sum(|r| r.faults)
    );
    assert!(
        promoted > ROLLOUT_SEEDS && rolled_back > ROLLOUT_SEEDS,
        "too little happened"
    );
}

#[test]
fn the_same_seed_gives_the_same_rollout() {
    for seed in [0, 1, 42] {
        assert_eq!(sim::run_rollout(seed, None), sim::run_rollout(seed, None));
    }
}

#[test]
fn rollouts_without_a_protection_are_noticed() {
    for mutation in RolloutMutation::ALL {
        let found = first(MUTANT_SEEDS, |seed| {
            sim::run_rollout(seed, Some(mutation)).violation
        });
        let Some((seed, violation)) = found else {
            panic!("{mutation:?}: none of {MUTANT_SEEDS} seeds fails");
        };
        assert_eq!(sim::run_rollout(seed, None).violation, None, "seed {seed}");
        println!("{mutation:?}: {violation}");
    }
}
