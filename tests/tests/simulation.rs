//! The simulation: seeds that must hold, the same bytes for the same seed, and the checkers themselves:
//! with a protection taken out, some seed must fail.

use std::sync::atomic::{AtomicU64, Ordering};

use segmenter_tests::sim::{self, Mutation};

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
