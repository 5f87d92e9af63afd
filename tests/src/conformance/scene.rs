//! A stream on a subject, with the requests that cases make all the time in short words.

use std::collections::BTreeMap;
use std::time::Duration;

use segmenter_core::entry::RawEntry;
use segmenter_core::lease::LeaseView;
use segmenter_core::lease::{Attempts, Epoch, Fence, Owner};
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{
    GroupName, Incarnation, MemberId, Namespace, Partition, Shape, StreamId, StreamName, Uid,
    Version,
};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::{
    Acquire, AcquireReply, Append, AppendReply, Commit, CommitReply, DeleteGroup, DeleteGroupReply,
    EnsureGroup, EnsureGroupReply, Failure, Halt, HaltReply, Install, InstallReply, LoadState,
    Position, Read, Register, RegisterReply, Release, ReleaseReply, Reply, Request, Resume,
    ResumeReply, Seek, SeekReply, Stamped, Start, Sync, SyncReply, Verify,
};
use segmenter_core::source::Source;

use super::Subject;

pub const P0: Partition = Partition(0);

/// The stream `orders` on a subject.
pub struct Scene<'a> {
    pub subject: &'a mut dyn Subject,
    pub stream: StreamId,
    pub uid: Uid,
    pub group: GroupName,
}

/// A lease that someone took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    pub acked: EntryId,
    pub read: u64,
    pub unreleased: bool,
    pub attempts: Option<Attempts>,
}

impl Held {
    pub fn fence(&self) -> Fence {
        Fence {
            incarnation: self.incarnation.clone(),
            epoch: self.epoch,
            from: self.acked,
        }
    }
}

macro_rules! answer {
    ($subject:expr, $kind:ident, $request:expr) => {
        match $subject.execute(Request::$kind($request)) {
            Ok(Reply::$kind(reply)) => Ok(reply),
            Ok(other) => panic!("asked {}, answered {other:?}", stringify!($kind)),
            Err(failure) => Err(failure),
        }
    };
}

pub fn group(name: &str) -> GroupName {
    GroupName::new(name).expect("a name")
}
pub fn incarnation(name: &str) -> Incarnation {
    Incarnation::new(name).expect("a name")
}
pub fn stream_id(name: &str) -> StreamId {
    StreamId {
        namespace: Namespace::new("shop").expect("a name"),
        stream: StreamName::new(name).expect("a name"),
    }
}
pub fn shape(partitions: u32, capacity: u64) -> Shape {
    Shape::new(partitions, capacity).expect("a shape")
}
/// A message whose payload is its number.
pub fn message(n: usize) -> Content {
    let payload = n.to_string().into_bytes();
    Content::new(format!("key-{n}"), payload, Vec::new(), 100).expect("a message")
}

impl<'a> Scene<'a> {
    /// A stream without entries and without groups.
    pub fn new(subject: &'a mut dyn Subject, partitions: u32, capacity: u64) -> Scene<'a> {
        Scene::retaining(subject, partitions, capacity, 0)
    }

    pub fn retaining(
        subject: &'a mut dyn Subject,
        partitions: u32,
        capacity: u64,
        retain: u64,
    ) -> Scene<'a> {
        let mut scene = Scene::bare(subject);
        let reply = scene.register("uid-1", shape(partitions, capacity), Some(retain));
        assert!(
            matches!(reply, RegisterReply::Registered { existed: false, .. }),
            "{reply:?}"
        );
        scene
    }

    /// Names, and nothing behind them yet.
    pub fn bare(subject: &'a mut dyn Subject) -> Scene<'a> {
        Scene {
            subject,
            stream: stream_id("orders"),
            uid: Uid::new("uid-1").expect("a name"),
            group: group("billing"),
        }
    }

    /// The same with the group `billing` from the beginning in partition 0.
    pub fn with_group(subject: &'a mut dyn Subject, capacity: u64) -> Scene<'a> {
        let mut scene = Scene::new(subject, 1, capacity);
        scene.ensure("billing");
        scene
    }

    pub fn register(&mut self, uid: &str, shape: Shape, retain: Option<u64>) -> RegisterReply {
        let request = Register {
            stream: self.stream.clone(),
            shape,
            retain,
            source: None,
            uid: Uid::new(uid).expect("a name"),
        };
        answer!(self.subject, Register, request).expect("an answer")
    }

    /// Binds the stream to one that others write.
    pub fn bind(&mut self, uid: &str, source: Source) -> Result<RegisterReply, Failure> {
        let request = Register {
            stream: self.stream.clone(),
            shape: Shape::SOURCE,
            retain: None,
            source: Some(source),
            uid: Uid::new(uid).expect("a name"),
        };
        answer!(self.subject, Register, request)
    }

    /// Deletes the stream and creates it anew with another uid; the scene keeps the old uid.
    pub fn recreate(&mut self, uid: &str, shape: Shape) -> Uid {
        self.subject.delete_stream(&self.stream);
        match self.register(uid, shape, None) {
            RegisterReply::Registered { uid, .. } => uid,
            other => panic!("{other:?}"),
        }
    }

    pub fn ensure_from(&mut self, name: &str, start: Start) -> EnsureGroupReply {
        let request = EnsureGroup {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            partition: P0,
            group: group(name),
            start,
        };
        answer!(self.subject, EnsureGroup, request).expect("an answer")
    }

    pub fn ensure(&mut self, name: &str) {
        let reply = self.ensure_from(name, Start::Beginning);
        assert_eq!(reply, EnsureGroupReply::Ensured { existed: false });
    }

    pub fn append_all(&mut self, messages: Vec<Content>) -> Result<AppendReply, Failure> {
        let request = Append {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            partition: P0,
            messages,
        };
        answer!(self.subject, Append, request)
    }

    /// Appends `count` messages to partition 0; the ids of those that were accepted.
    pub fn append(&mut self, count: usize) -> Vec<EntryId> {
        match self.append_all((0..count).map(message).collect()) {
            Ok(AppendReply::Appended { ids }) => ids,
            other => panic!("{other:?}"),
        }
    }

    pub fn read(&mut self, after: EntryId, count: usize) -> Vec<RawEntry> {
        let request = Read {
            stream: self.stream.clone(),
            after: vec![(P0, after)],
            count,
            block: Duration::ZERO,
        };
        let reply = answer!(self.subject, Read, request).expect("an answer");
        let mut entries = reply.entries;
        assert!(entries.len() <= 1, "one partition was asked for");
        entries
            .pop()
            .map(|(_, entries)| entries)
            .unwrap_or_default()
    }

    pub fn log_ids(&mut self) -> Vec<EntryId> {
        self.subject
            .log(&self.stream, P0)
            .iter()
            .map(|e| e.id)
            .collect()
    }

    pub fn try_acquire(&mut self, who: &str, of: &str) -> AcquireReply {
        let request = Acquire {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            partition: P0,
            group: group(of),
            owner: Owner {
                incarnation: incarnation(who),
                member: MemberId::new("host-1").expect("a name"),
                version: Version::new("v1").expect("a name"),
            },
        };
        answer!(self.subject, Acquire, request).expect("an answer")
    }

    pub fn acquire_for(&mut self, who: &str, of: &str) -> Held {
        match self.try_acquire(who, of) {
            AcquireReply::Acquired {
                epoch,
                acked,
                read,
                unreleased,
                attempts,
            } => Held {
                incarnation: incarnation(who),
                epoch,
                acked,
                read,
                unreleased,
                attempts,
            },
            other => panic!("{other:?}"),
        }
    }

    pub fn acquire(&mut self, who: &str) -> Held {
        let of = self.group.to_string();
        self.acquire_for(who, &of)
    }

    /// A commit of `to`, with `read` counted on; the caller may change it before it is sent.
    pub fn commit_of(&self, held: &Held, to: EntryId, settled: u64) -> Commit {
        Commit {
            stream: self.stream.clone(),
            partition: P0,
            group: self.group.clone(),
            fence: held.fence(),
            to,
            read: held.read + settled,
            caught_up: false,
            trim: false,
            dead: Vec::new(),
            state: BTreeMap::new(),
            emits: Vec::new(),
            attempts: None,
            halt: None,
            version: None,
        }
    }

    pub fn send(&mut self, commit: Commit) -> Result<CommitReply, Failure> {
        answer!(self.subject, Commit, commit)
    }

    /// Commits and follows the lease.
    pub fn commit(&mut self, held: &mut Held, to: EntryId, settled: u64, trim: bool) {
        let commit = Commit {
            trim,
            ..self.commit_of(held, to, settled)
        };
        match self.send(commit) {
            Ok(CommitReply::Committed { read }) => {
                held.acked = to;
                held.read = read;
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn release(&mut self, fence: Fence) -> ReleaseReply {
        let request = Release {
            stream: self.stream.clone(),
            partition: P0,
            group: self.group.clone(),
            fence,
        };
        answer!(self.subject, Release, request).expect("an answer")
    }

    /// What the group's handler remembers in partition 0.
    pub fn state(&mut self) -> BTreeMap<String, Vec<u8>> {
        let request = LoadState {
            stream: self.stream.clone(),
            partition: P0,
            group: self.group.clone(),
        };
        answer!(self.subject, LoadState, request)
            .expect("an answer")
            .values
    }

    pub fn outbox(&mut self) -> Vec<Stamped> {
        self.subject.outbox(&self.stream, P0, &self.group)
    }

    pub fn lease(&mut self) -> Option<LeaseView> {
        let request = Verify {
            stream: self.stream.clone(),
            group: self.group.clone(),
            partitions: vec![P0],
        };
        let reply = answer!(self.subject, Verify, request).expect("an answer");
        let [lease] = <[_; 1]>::try_from(reply.leases).expect("one was asked for");
        lease
    }

    pub fn verify(&mut self, partitions: Vec<Partition>) -> Vec<Option<LeaseView>> {
        let request = Verify {
            stream: self.stream.clone(),
            group: self.group.clone(),
            partitions,
        };
        answer!(self.subject, Verify, request)
            .expect("an answer")
            .leases
    }

    pub fn try_seek(&mut self, to: Position) -> SeekReply {
        let request = Seek {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            partition: P0,
            group: self.group.clone(),
            to,
        };
        answer!(self.subject, Seek, request).expect("an answer")
    }

    /// Acked-through and the count that goes with it, as they stand now.
    pub fn seek(&mut self, to: Position) -> (EntryId, u64) {
        match self.try_seek(to) {
            SeekReply::Sought { acked, read, .. } => (acked, read),
            other => panic!("{other:?}"),
        }
    }

    pub fn halt(&mut self, reason: &str) -> HaltReply {
        let request = Halt {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            partition: P0,
            group: self.group.clone(),
            reason: reason.to_owned(),
        };
        answer!(self.subject, Halt, request).expect("an answer")
    }

    pub fn resume(&mut self, skip: Option<&str>) -> ResumeReply {
        let request = Resume {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            partition: P0,
            group: self.group.clone(),
            skip: skip.map(str::to_owned),
        };
        answer!(self.subject, Resume, request).expect("an answer")
    }

    pub fn delete_group(&mut self) -> DeleteGroupReply {
        let request = DeleteGroup {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            partition: P0,
            group: self.group.clone(),
        };
        answer!(self.subject, DeleteGroup, request).expect("an answer")
    }

    pub fn lag(&mut self) -> Option<u64> {
        let (stream, group) = (self.stream.clone(), self.group.clone());
        self.subject.lag(&stream, P0, &group)
    }

    /// A sync as it is given, but for stream, uid and group.
    pub fn sync(&mut self, sync: Sync) -> SyncReply {
        let request = Sync {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            group: self.group.clone(),
            ..sync
        };
        answer!(self.subject, Sync, request).expect("an answer")
    }

    pub fn install(
        &mut self,
        generation: u64,
        assignment: BTreeMap<MemberId, PartitionSet>,
    ) -> InstallReply {
        let request = Install {
            stream: self.stream.clone(),
            uid: self.uid.clone(),
            group: self.group.clone(),
            generation,
            assignment,
            moves: 0,
        };
        answer!(self.subject, Install, request).expect("an answer")
    }
}
