//! Protections that can be taken out, one at a time, to see whether a checker notices. None of them is a
//! hook in the core: they bend the broker in memory, what the simulated host tells the core, or the
//! simulated producer.

use crate::broker::Mutations;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A commit is admitted whoever sends it, in whatever epoch.
    FenceWithoutOwner,
    /// A commit is admitted whatever it builds on.
    FenceWithoutFrom,
    /// Trim looks at the fastest group instead of the slowest.
    TrimBehindFastest,
    /// A member that was not answered goes on for ever.
    NoTrustWindow,
    /// Leases are never compared: each verify is answered as if nothing differed.
    NoVerify,
    /// What was read for an earlier tenure passes for what is expected now.
    StaleReadsTaken,
    /// What a full partition refused is sent after what came later.
    RefusedRestLater,
    /// A sync that a later one has overtaken is obeyed.
    OvertakenSyncs,
    /// A partition is granted although another live member has not released it.
    GrantedUnreleased,
    /// A target takes what a source sends again.
    SourcesForgotten,
    /// A version on trial is told to be one that is trusted.
    TrialDecidesAlone,
    /// A handler's state in memory is dropped at a swap, and read again while a commit is in the air.
    StateDroppedAtSwap,
    /// Whoever takes a partition counts on from what failed under another version.
    AttemptsInherited,
    /// Of a batch, the message behind the one that failed is said to have failed.
    BatchFailureBehind,
    /// A batch that broke counts against its first message.
    BrokenBatchBlamed,
}

impl Mutation {
    pub const ALL: [Mutation; 15] = [
        Mutation::FenceWithoutOwner,
        Mutation::FenceWithoutFrom,
        Mutation::TrimBehindFastest,
        Mutation::NoTrustWindow,
        Mutation::NoVerify,
        Mutation::StaleReadsTaken,
        Mutation::RefusedRestLater,
        Mutation::OvertakenSyncs,
        Mutation::GrantedUnreleased,
        Mutation::SourcesForgotten,
        Mutation::TrialDecidesAlone,
        Mutation::StateDroppedAtSwap,
        Mutation::AttemptsInherited,
        Mutation::BatchFailureBehind,
        Mutation::BrokenBatchBlamed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Mutation::FenceWithoutOwner => "fence-without-owner",
            Mutation::FenceWithoutFrom => "fence-without-from",
            Mutation::TrimBehindFastest => "trim-behind-fastest",
            Mutation::NoTrustWindow => "no-trust-window",
            Mutation::NoVerify => "no-verify",
            Mutation::StaleReadsTaken => "stale-reads-taken",
            Mutation::RefusedRestLater => "refused-rest-later",
            Mutation::OvertakenSyncs => "overtaken-syncs",
            Mutation::GrantedUnreleased => "granted-unreleased",
            Mutation::SourcesForgotten => "sources-forgotten",
            Mutation::TrialDecidesAlone => "trial-decides-alone",
            Mutation::StateDroppedAtSwap => "state-dropped-at-swap",
            Mutation::AttemptsInherited => "attempts-inherited",
            Mutation::BatchFailureBehind => "batch-failure-behind",
            Mutation::BrokenBatchBlamed => "broken-batch-blamed",
        }
    }

    /// What of it bends the broker.
    pub(super) fn of_broker(self) -> Mutations {
        Mutations {
            fence_without_owner: self == Mutation::FenceWithoutOwner,
            fence_without_from: self == Mutation::FenceWithoutFrom,
            trim_behind_fastest: self == Mutation::TrimBehindFastest,
            overtaken_syncs: self == Mutation::OvertakenSyncs,
            granted_unreleased: self == Mutation::GrantedUnreleased,
            sources_forgotten: self == Mutation::SourcesForgotten,
        }
    }
}
