//! The port to the broker, as data: what can be asked and what is answered. The Redis adapter executes
//! it and so does the in-memory broker of the tests; one conformance suite holds both to it. It must not
//! know how either does it. What a request's subject refuses is an answer, not a failure.

mod deploy;

use std::collections::BTreeMap;

pub use deploy::{
    Asks, BadVersion, Change, Deploy, DeployReply, FetchModule, FetchModuleReply, Happened, Heard,
    How, Pointer, Report, ReportReply, RollBack, RollBackReply, Settle, SettleReply, StoreModule,
    StoreModuleReply, Trying,
};

use crate::assignor::Candidate;
use crate::effects::Emit;
use crate::entry::{Fields, RawEntry};
use crate::lease::{Attempts, Epoch, Fence, LeaseView, Owner};
use crate::message::{Content, EntryId};
use crate::names::{
    GroupName, Incarnation, MemberId, Partition, Sender, Shape, StreamId, StreamName, Uid, Version,
};
use crate::partition_set::PartitionSet;
use crate::source::Source;
use crate::time::Duration;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The broker did nothing: never reached, or refused before the first write (out of memory,
    /// loading, read-only, TRYAGAIN, …). Asking again later is safe.
    #[error("{0}")]
    NotDone(String),
    /// The answer was lost: it may have happened or not. Only what is idempotent may be asked again.
    #[error("{0}")]
    Unknown(String),
    /// Waiting will not mend it: permission, a key of another type, a newer protocol.
    #[error("{0}")]
    Fatal(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Register(Register),
    EnsureGroup(EnsureGroup),
    Append(Append),
    Read(Read),
    Acquire(Acquire),
    Commit(Commit),
    Release(Release),
    Verify(Verify),
    Seek(Seek),
    Halt(Halt),
    Resume(Resume),
    DeleteGroup(DeleteGroup),
    LoadState(LoadState),
    AppendFrom(AppendFrom),
    LoadOutbox(LoadOutbox),
    Relayed(Relayed),
    Bury(Bury),
    Redrive(Redrive),
    Purge(Purge),
    Sync(Sync),
    Install(Install),
    StoreModule(StoreModule),
    FetchModule(FetchModule),
    Deploy(Deploy),
    Report(Report),
    Settle(Settle),
    RollBack(RollBack),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Register(RegisterReply),
    EnsureGroup(EnsureGroupReply),
    Append(AppendReply),
    Read(ReadReply),
    Acquire(AcquireReply),
    Commit(CommitReply),
    Release(ReleaseReply),
    Verify(VerifyReply),
    Seek(SeekReply),
    Halt(HaltReply),
    Resume(ResumeReply),
    DeleteGroup(DeleteGroupReply),
    LoadState(LoadStateReply),
    AppendFrom(AppendFromReply),
    LoadOutbox(LoadOutboxReply),
    Relayed(RelayedReply),
    Bury(BuryReply),
    Redrive(RedriveReply),
    Purge(PurgeReply),
    Sync(SyncReply),
    Install(InstallReply),
    StoreModule(StoreModuleReply),
    FetchModule(FetchModuleReply),
    Deploy(DeployReply),
    Report(ReportReply),
    Settle(SettleReply),
    RollBack(RollBackReply),
}

/// Creates a stream, or finds it with the same shape. Idempotent: asked again after a crash in the
/// middle, it completes the partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    pub stream: StreamId,
    pub shape: Shape,
    /// Acked entries kept per partition while there is room; `None` leaves what is set (0 at create).
    /// Not part of the shape: it may change.
    pub retain: Option<u64>,
    /// Others write it, under a key of theirs, which must exist; the shape is then [`Shape::SOURCE`], with
    /// whatever payload limit.
    pub source: Option<Source>,
    /// Used if the stream does not exist yet.
    pub uid: Uid,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterReply {
    Registered {
        uid: Uid,
        existed: bool,
    },
    ShapeDiffers {
        found: Shape,
    },
    /// It is bound to another one, or to none.
    SourceDiffers {
        found: Option<Source>,
    },
    /// A delete of it has begun and not ended.
    Deleting,
}

/// Where a group that does not exist yet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Beginning,
    End,
}

/// Creates the group in one partition: lease and mirror. Leaves one that exists as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnsureGroup {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub group: GroupName,
    pub start: Start,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnsureGroupReply {
    Ensured {
        existed: bool,
    },
    /// The stream is not there, or is another one by now (its uid differs).
    StreamGone,
    /// A Redis consumer group of this name is there without a lease: someone else's.
    ForeignGroup,
}

/// Appends a prefix of `messages`: as many as fit. What one producer sends to one partition after a
/// refusal must wait for the refused rest, else order is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub messages: Vec<Content>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendReply {
    /// One id per accepted message. Fewer than asked: the partition is full.
    Appended {
        ids: Vec<EntryId>,
    },
    StreamGone,
}

/// Reads entries above a position in each of some partitions. Changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub stream: StreamId,
    pub after: Vec<(Partition, EntryId)>,
    /// Entries per partition, at most.
    pub count: usize,
    /// Wait that long for the first entry; zero: do not wait.
    pub block: Duration,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReply {
    /// Partitions that have entries above their position, in no order.
    pub entries: Vec<(Partition, Vec<RawEntry>)>,
}

/// Takes the lease, whoever holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub group: GroupName,
    pub owner: Owner,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcquireReply {
    Acquired {
        epoch: Epoch,
        acked: EntryId,
        read: u64,
        /// The last owner did not release it: it crashed, or does not know yet. That counts as a failed
        /// attempt at the first message that is not acked.
        unreleased: bool,
        /// Failed attempts at some message.
        attempts: Option<Attempts>,
    },
    /// An operator, or a message that could not be handled, stopped the partition: nothing was taken.
    Halted {
        reason: String,
        epoch: Epoch,
        acked: EntryId,
    },
    StreamGone,
    GroupGone,
}

/// A message that will not be handled, kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The entry id in the log.
    pub id: EntryId,
    pub reason: String,
    pub attempts: u32,
    /// The handler version that gave up on it.
    pub version: String,
    pub fields: Fields,
}

/// Acks up to `to` and keeps dead letters, all or nothing, if the fence holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub stream: StreamId,
    pub partition: Partition,
    pub group: GroupName,
    pub fence: Fence,
    pub to: EntryId,
    /// Entries settled since the log's first, up to `to`.
    pub read: u64,
    /// The owner knows of no entry above `to`: the script may correct `read` if `to` is the last.
    pub caught_up: bool,
    /// Trim behind the slowest group in the same script.
    pub trim: bool,
    pub dead: Vec<DeadLetter>,
    /// New values of the handler's state; `None`: deleted.
    pub state: BTreeMap<String, Option<Vec<u8>>>,
    /// Messages for other streams, which wait in the partition's outbox.
    pub emits: Vec<Stamped>,
    /// Failed attempts at the message behind `to`.
    pub attempts: Option<Attempts>,
    /// Halts the partition and gives the lease back: why.
    pub halt: Option<String>,
    /// The version that handles by now, if the lease says another one.
    pub version: Option<Version>,
}

/// An emitted message and its place: the epoch in which it was committed, and its number in that. Stamps
/// rise within an outbox, whatever happens to owners or to Redis, because epochs do. So one stamp per
/// source, the last one seen, tells a target what it has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    pub stamp: EntryId,
    pub emit: Emit,
}

/// The whole state of a handler in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadState {
    pub stream: StreamId,
    pub partition: Partition,
    pub group: GroupName,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadStateReply {
    pub values: BTreeMap<String, Vec<u8>>,
}

/// Appends what one source has for a partition, in the order of its stamps: a prefix, as many as fit. What
/// is not above the last stamp of the source there is there already, and counts as accepted. So it may be
/// asked again, by anybody, at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendFrom {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub source: Sender,
    /// A stamp of the source that is there for sure, as far as whoever asks knows.
    pub after: Option<EntryId>,
    pub messages: Vec<Sourced>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced {
    pub stamp: EntryId,
    pub content: Content,
    /// The one group that is to handle it.
    pub only: Option<GroupName>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendFromReply {
    /// One per accepted message; `None`: it was there already. Fewer than asked: the partition is full.
    Accepted {
        ids: Vec<Option<EntryId>>,
    },
    /// It is not there any more: the broker lost its last writes. Nothing was appended, because what was
    /// lost may wait in its outbox again, and comes first.
    Behind,
    /// The partition remembers as many producers as it may, and this is another one. Nothing was appended.
    Crowded,
    StreamGone,
}

/// What waits in an outbox above a stamp, in order: entries, see [`crate::parcel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOutbox {
    pub stream: StreamId,
    pub partition: Partition,
    pub group: GroupName,
    /// The id of an entry.
    pub after: EntryId,
    /// Entries.
    pub count: usize,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOutboxReply {
    /// Fewer than asked: that is all.
    pub waiting: Vec<Waiting>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The stamp of its last message.
    pub id: EntryId,
    /// An error is why nobody can relay it: somebody else wrote it.
    pub messages: Result<Vec<Outgoing>, String>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub to: StreamName,
    pub content: Content,
    pub only: Option<GroupName>,
}

/// All messages of these entries of an outbox are at their targets: it needs them no more. Anybody who
/// knows may say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    pub stream: StreamId,
    pub partition: Partition,
    pub group: GroupName,
    pub entries: Vec<EntryId>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayedReply {
    pub removed: u64,
}

/// Messages of an outbox that can never be relayed become dead letters of the group; entries that are not
/// there any more stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bury {
    pub stream: StreamId,
    pub partition: Partition,
    pub group: GroupName,
    /// Of the lease, as whoever asks knows it.
    pub epoch: Epoch,
    pub entries: Vec<Buried>,
    pub reason: String,
}
/// An entry of an outbox that goes, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    pub id: EntryId,
    /// The messages that become dead letters, in order; the others are at their targets. None: whatever it
    /// is becomes one, whole.
    pub stamps: Vec<EntryId>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuryReply {
    Buried,
    /// Somebody else took the lease, and judges anew.
    Fenced,
}

/// An operator moves dead letters into the outbox of their group, in this order. The owner is fenced and
/// acquires again, because stamps begin with a new epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub group: GroupName,
    /// What others write and the stream reads. Its entries lie in dead letters under their own names, and go
    /// on under ours.
    pub source: Option<Source>,
    /// Each holds a message.
    pub letters: Vec<Redriven>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// Its own id among the dead letters.
    pub dead_id: EntryId,
    pub to: StreamName,
    /// Only its group shall handle it.
    pub only: bool,
    /// A handler emitted it: it lies there under our names, also if the stream reads a source.
    pub emitted: bool,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveReply {
    /// Those that were there.
    Moved {
        epoch: Epoch,
        letters: Vec<EntryId>,
    },
    StreamGone,
    GroupGone,
}

/// An operator removes dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    pub stream: StreamId,
    pub partition: Partition,
    pub group: GroupName,
    /// Their own ids among the dead letters.
    pub letters: Vec<EntryId>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeReply {
    pub removed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitReply {
    /// `read` as it stands now: corrected if `to` is the log's last entry.
    Committed { read: u64 },
    /// There is no room for the dead letters. Nothing changed.
    DeadFull { entries: u64, bytes: u64 },
    /// A normal event: someone else acquired, sought or deleted. Nothing changed.
    Fenced { found: Option<LeaseView> },
}

/// Gives the lease back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub stream: StreamId,
    pub partition: Partition,
    pub group: GroupName,
    pub fence: Fence,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseReply {
    Released,
    Fenced { found: Option<LeaseView> },
}

/// What the leases say, in the order asked; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    pub stream: StreamId,
    pub group: GroupName,
    pub partitions: Vec<Partition>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReply {
    pub leases: Vec<Option<LeaseView>>,
}

/// From where a group goes on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first entry that the log still holds.
    Start,
    /// Only what comes from now on.
    End,
    /// The first entry with this id or a higher one; above the last id it is the end.
    From(EntryId),
}

/// An operator moves a group's acked-through. The owner is fenced and acquires again. What lies behind
/// the position counts as acked, what lies before it is handled again, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seek {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub group: GroupName,
    pub to: Position,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeekReply {
    Sought {
        was: EntryId,
        acked: EntryId,
        /// Entries up to `acked` since the log's first.
        read: u64,
    },
    StreamGone,
    GroupGone,
}

/// An operator halts a partition for a group: its owner is fenced, and nobody acquires it until resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub group: GroupName,
    pub reason: String,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaltReply {
    Halted,
    /// It was, for this reason, which stays.
    Already {
        reason: String,
    },
    StreamGone,
    GroupGone,
}

/// Ends a halt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub group: GroupName,
    /// The first entry that is not acked becomes a dead letter with this reason, in the same step.
    pub skip: Option<String>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResumeReply {
    Resumed {
        /// `None`: not asked for, or nothing was left to skip.
        skipped: Option<EntryId>,
    },
    NotHalted,
    StreamGone,
    GroupGone,
}

/// Removes a group from one partition with all that is its own, and trims what it alone needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteGroup {
    pub stream: StreamId,
    pub uid: Uid,
    pub partition: Partition,
    pub group: GroupName,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteGroupReply {
    Deleted { existed: bool },
    StreamGone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    /// A live member of the same id is superseded.
    Join,
    Heartbeat,
    Leave,
}

/// A member tells that it lives and what it has, and learns what it should have. The reply is small
/// while nothing changes: what a member has travels as a digest, what it should have only if it differs
/// from what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    pub stream: StreamId,
    pub uid: Uid,
    pub group: GroupName,
    pub kind: SyncKind,
    pub member: MemberId,
    pub incarnation: Incarnation,
    /// Counts the syncs of this incarnation from 1; one that is overtaken by a later one is ignored.
    pub counter: u64,
    pub session_timeout: Duration,
    /// It leaves: it gets nothing more, and stays a member while it releases what it has.
    pub draining: bool,
    /// Digest of what it has: was told to take, and has neither released nor lost.
    pub owned_digest: u64,
    /// What it has, whole: whenever the coordinator may not know it. The truth about itself.
    pub owned: Option<PartitionSet>,
    /// What it asks not to get: it could not commit there.
    pub refused: PartitionSet,
    /// Digest of the assignment that it knows.
    pub known: u64,
    /// It has less than it should: asks which partitions it may take now.
    pub wants: bool,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncReply {
    Member(Membership),
    /// Not a member (expired, or the group is new): join.
    Unknown,
    /// A later incarnation of the same member id joined: exit.
    Superseded,
    /// A later sync of this incarnation was seen before.
    Overtaken,
    Left,
    /// It has as many members as a group may have.
    Full,
    StreamGone,
    /// The stream is there and has no such group: an operator deleted it.
    GroupGone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Grows with every change of members.
    pub generation: u64,
    pub members: u32,
    /// What the member should have, if that is not what it knows.
    pub assignment: Option<PartitionSet>,
    /// Of its assignment, what no live member has: to be taken now, and reported as owned from now on.
    pub granted: PartitionSet,
    /// The digest was not what the coordinator knows: tell the set whole, at once.
    pub tell_owned: bool,
    /// The generation has no assignment, and this member is to compute it.
    pub duty: Option<Duty>,
    /// When the next other member expires, unless it syncs before.
    pub next_expiry: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duty {
    /// What changed since the last assignment, for people.
    pub why: String,
    pub candidates: Vec<Candidate>,
}

/// Puts an assignment in force, if the generation is still the one that it was computed for and has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    pub stream: StreamId,
    pub uid: Uid,
    pub group: GroupName,
    pub generation: u64,
    pub assignment: BTreeMap<MemberId, PartitionSet>,
    /// Partitions that change their owner, for people.
    pub moves: u32,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallReply {
    Installed,
    /// There is a later generation, or an assignment by somebody else.
    Overtaken,
    StreamGone,
}
