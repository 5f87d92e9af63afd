//! A broker in memory: what the port means, without Redis. Pure: no clock (it is told the time), no
//! randomness, no tasks, so that a simulation can replay it. The conformance suite holds it and the
//! Redis adapter to the same cases. A clone is a snapshot: a Redis that lost its last writes.

mod deploys;
mod members;
mod partition;

use std::collections::BTreeMap;

use segmenter_core::entry::{Fields, RawEntry};
use segmenter_core::lease::{Fence, Lease};
use segmenter_core::member::News;
use segmenter_core::message::EntryId;
use segmenter_core::names::{
    GroupName, HandlerId, MemberId, Namespace, Partition, Shape, StreamId, Uid, Version,
};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::{
    Acquire, AcquireReply, Append, AppendFrom, AppendFromReply, AppendReply, BadVersion, BuryReply,
    Commit, CommitReply, DeadLetter, DeleteGroup, DeleteGroupReply, EnsureGroup, EnsureGroupReply,
    Failure, Halt, HaltReply, Happened, Install, InstallReply, LoadOutboxReply, LoadStateReply,
    PurgeReply, Read, ReadReply, Redrive, RedriveReply, Register, RegisterReply, RelayedReply,
    Release, ReleaseReply, Reply, Request, Resume, ResumeReply, Seek, SeekReply, Stamped, Sync,
    SyncKind, SyncReply, Verify, VerifyReply,
};
use segmenter_core::source::Source;

use deploys::Deploys;
use members::Members;
use partition::Log;

#[derive(Debug, Clone, Default)]
pub struct MemoryBroker {
    streams: BTreeMap<StreamId, Stream>,
    groups: BTreeMap<(StreamId, GroupName), Members>,
    news: Vec<(StreamId, GroupName, News)>,
    mutations: Mutations,
    /// Streams that others write, by their keys, while none of ours is bound to them.
    sources: BTreeMap<String, Log>,
    deploys: Deploys,
}

/// Protections that are taken out, to see whether a test notices. None, unless asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mutations {
    /// Whoever sends it, in whatever epoch.
    pub fence_without_owner: bool,
    /// Whatever it builds on.
    pub fence_without_from: bool,
    /// Behind the fastest group instead of the slowest.
    pub trim_behind_fastest: bool,
    /// A sync is obeyed although a later one was seen.
    pub overtaken_syncs: bool,
    /// A partition is granted although another live member has it.
    pub granted_unreleased: bool,
    /// What a source sends again is appended again.
    pub sources_forgotten: bool,
}

impl Mutations {
    /// The fence as the mutated broker compares it.
    fn bend(self, fence: &mut Fence, lease: &Lease) {
        if self.fence_without_owner
            && let Some(owner) = &lease.owner
        {
            fence.incarnation = owner.incarnation.clone();
            fence.epoch = lease.epoch;
        }
        if self.fence_without_from {
            fence.from = lease.acked;
        }
    }
}

#[derive(Debug, Clone)]
struct Stream {
    uid: Uid,
    shape: Shape,
    retain: u64,
    source: Option<Source>,
    deleting: bool,
    partitions: Vec<Log>,
}

impl Stream {
    fn reads(&self, redis_key: &str) -> bool {
        self.source
            .as_ref()
            .is_some_and(|source| source.redis_key() == redis_key)
    }
}

/// A member as the next assignment finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// By the last assignment.
    pub assigned: PartitionSet,
    /// As it reported, with what was granted since.
    pub owned: PartitionSet,
    pub refused: PartitionSet,
    pub draining: bool,
}

/// A dead letter as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDead {
    pub dead_id: EntryId,
    pub letter: DeadLetter,
    pub at_ms: u64,
}

impl MemoryBroker {
    /// Without some of its protections.
    pub fn mutated(mutations: Mutations) -> MemoryBroker {
        MemoryBroker {
            mutations,
            ..MemoryBroker::default()
        }
    }

    /// Executes a request at `now_us` of the broker's clock.
    pub fn execute(&mut self, now_us: u64, request: Request) -> Result<Reply, Failure> {
        Ok(match request {
            Request::Register(r) => Reply::Register(self.register(r)?),
            Request::EnsureGroup(r) => Reply::EnsureGroup(self.ensure_group(r)),
            Request::Append(r) => Reply::Append(self.append(now_us, r)?),
            Request::Read(r) => Reply::Read(self.read(&r)),
            Request::Acquire(r) => Reply::Acquire(self.acquire(now_us, r)),
            Request::Commit(r) => Reply::Commit(self.commit(now_us, r)?),
            Request::Release(r) => Reply::Release(self.release(&r)),
            Request::Verify(r) => Reply::Verify(self.verify(&r)),
            Request::Seek(r) => Reply::Seek(self.seek(now_us, r)),
            Request::Halt(r) => Reply::Halt(self.halt(now_us, r)),
            Request::Resume(r) => Reply::Resume(self.resume(now_us, r)),
            Request::DeleteGroup(r) => Reply::DeleteGroup(self.delete_group_in(&r)),
            Request::LoadState(r) => Reply::LoadState(LoadStateReply {
                values: self.state(&r.stream, r.partition, &r.group),
            }),
            Request::AppendFrom(r) => Reply::AppendFrom(self.append_from(now_us, r)?),
            Request::LoadOutbox(r) => Reply::LoadOutbox(LoadOutboxReply {
                waiting: self
                    .partition(&r.stream, r.partition)
                    .map(|log| log.waiting(&r.group, r.after, r.count))
                    .unwrap_or_default(),
            }),
            Request::Relayed(r) => Reply::Relayed(RelayedReply {
                removed: self
                    .partition_mut(&r.stream, r.partition)
                    .map_or(0, |log| log.relayed(&r.group, &r.entries)),
            }),
            Request::Bury(r) => Reply::Bury(match self.partition_mut(&r.stream, r.partition) {
                Some(log) => log.bury(now_us / 1_000, r),
                None => BuryReply::Fenced,
            }),
            Request::Redrive(r) => Reply::Redrive(self.redrive(now_us, r)?),
            Request::Purge(r) => Reply::Purge(PurgeReply {
                removed: self
                    .partition_mut(&r.stream, r.partition)
                    .map_or(0, |log| log.purge(&r.group, &r.letters)),
            }),
            Request::Sync(r) => Reply::Sync(self.sync(now_us, &r)),
            Request::Install(r) => Reply::Install(self.install(&r)),
            Request::StoreModule(r) => Reply::StoreModule(self.deploys.store(r)),
            Request::FetchModule(r) => Reply::FetchModule(self.deploys.fetch(r)),
            Request::Deploy(r) => Reply::Deploy(self.deploys.deploy(now_us, r)),
            Request::Report(r) => Reply::Report(self.deploys.report(now_us, r)),
            Request::Settle(r) => Reply::Settle(self.deploys.settle(now_us, r)),
            Request::RollBack(r) => Reply::RollBack(self.deploys.roll_back(now_us, r)),
        })
    }

    /// What Redis would have published since the last call.
    pub fn take_news(&mut self) -> Vec<(StreamId, GroupName, News)> {
        std::mem::take(&mut self.news)
    }

    /// Handlers of which something else is wanted since the last call, as Redis would have published.
    pub fn take_handler_news(&mut self) -> Vec<HandlerId> {
        self.deploys.take_news()
    }

    /// What was done to a handler's versions, oldest first.
    pub fn history(&self, handler: &HandlerId) -> Vec<Happened> {
        self.deploys.history(handler)
    }

    /// Marked versions of a handler, latest first.
    pub fn bad_versions(&self, handler: &HandlerId) -> Vec<BadVersion> {
        self.deploys.bad(handler)
    }

    /// Someone else writes where a module's bytes lie.
    pub fn damage_module(&mut self, namespace: &Namespace, version: &Version, bytes: Vec<u8>) {
        self.deploys.damage(namespace, version, bytes);
    }

    /// The entries of a partition.
    pub fn log(&self, stream: &StreamId, partition: Partition) -> Vec<RawEntry> {
        self.partition(stream, partition)
            .map(|log| log.entries().cloned().collect())
            .unwrap_or_default()
    }

    /// The entries of a partition, where they lie.
    pub fn entries(
        &self,
        stream: &StreamId,
        partition: Partition,
    ) -> impl DoubleEndedIterator<Item = &RawEntry> {
        let log = self.partition(stream, partition);
        log.into_iter().flat_map(Log::entries)
    }

    pub fn lease(
        &self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Option<&Lease> {
        self.partition(stream, partition)?.lease(group)
    }

    /// The dead letters of a group in one partition.
    pub fn dead(
        &self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<KeptDead> {
        self.partition(stream, partition)
            .map(|log| log.dead(group).to_vec())
            .unwrap_or_default()
    }

    /// What a group's handler remembers in one partition.
    pub fn state(
        &self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> BTreeMap<String, Vec<u8>> {
        self.partition(stream, partition)
            .map(|log| log.state(group))
            .unwrap_or_default()
    }

    /// What a group emitted in one partition and is not at its target yet.
    pub fn outbox(
        &self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<Stamped> {
        self.partition(stream, partition)
            .map(|log| log.outbox(group))
            .unwrap_or_default()
    }

    /// A stream as it can be looked up, unless it is being deleted.
    pub fn find(&self, stream: &StreamId) -> Option<(Uid, Shape)> {
        let found = self.streams.get(stream).filter(|s| !s.deleting)?;
        Some((found.uid.clone(), found.shape))
    }

    /// Entries that the group has before it.
    pub fn lag(&self, stream: &StreamId, partition: Partition, group: &GroupName) -> Option<u64> {
        self.partition(stream, partition)?.lag(group)
    }

    /// Someone else writes an entry, as XADD with an id. `None`: the id is not above the last.
    pub fn add(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        id: EntryId,
        fields: Fields,
    ) -> Option<EntryId> {
        self.partition_mut(stream, partition)?.add(id, fields)
    }

    /// The same in a stream of their own, which comes to be by that.
    pub fn add_to_source(
        &mut self,
        redis_key: &str,
        id: EntryId,
        fields: Fields,
    ) -> Option<EntryId> {
        let bound = self.streams.values_mut().find(|s| s.reads(redis_key));
        let log = match bound {
            Some(stream) => stream.partitions.first_mut()?,
            None => {
                let key = redis_key.to_owned();
                self.sources.entry(key).or_insert_with(Log::of_others)
            }
        };
        log.add(id, fields)
    }

    pub fn source_log(&self, redis_key: &str) -> Vec<RawEntry> {
        let bound = self.streams.values().find(|s| s.reads(redis_key));
        let log = match bound {
            Some(stream) => stream.partitions.first(),
            None => self.sources.get(redis_key),
        };
        log.map(|log| log.entries().cloned().collect())
            .unwrap_or_default()
    }

    /// Someone else deletes an entry, as XDEL.
    pub fn remove(&mut self, stream: &StreamId, partition: Partition, id: EntryId) -> bool {
        self.partition_mut(stream, partition)
            .is_some_and(|log| log.remove(id))
    }

    /// Someone else makes a Redis group that has no lease, with `pending` of the oldest entries after
    /// `after` delivered and not acked.
    pub fn add_foreign_group(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: GroupName,
        after: EntryId,
        pending: usize,
    ) {
        if let Some(log) = self.partition_mut(stream, partition) {
            log.add_foreign_group(group, after, pending);
        }
    }

    /// Marks a stream as half deleted, as a delete does first.
    pub fn mark_deleting(&mut self, stream: &StreamId) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.deleting = true;
        }
    }

    pub fn delete_stream(&mut self, stream: &StreamId) -> bool {
        self.groups.retain(|(of, _), _| of != stream);
        let Some(deleted) = self.streams.remove(stream) else {
            return false;
        };
        if let Some(source) = deleted.source {
            let logs = deleted.partitions.into_iter();
            let left = logs.map(|log| (source.redis_key().to_owned(), log.left_to_others()));
            self.sources.extend(left);
        }
        true
    }

    /// An operator deletes a group: from all partitions, then its membership, then its members are told.
    pub fn delete_group(&mut self, stream: &StreamId, group: &GroupName) -> bool {
        let retain = self.streams.get(stream).map_or(0, |s| s.retain);
        let mut existed = false;
        for log in self
            .streams
            .get_mut(stream)
            .iter_mut()
            .flat_map(|s| &mut s.partitions)
        {
            existed |= log.delete_group(group, retain);
        }
        let key = (stream.clone(), group.clone());
        existed |= self.groups.remove(&key).is_some();
        self.news.push((key.0, key.1, News::Changed));
        existed
    }

    /// Members of a group that nobody has removed.
    pub fn members(&self, stream: &StreamId, group: &GroupName) -> Vec<MemberId> {
        self.groups
            .get(&(stream.clone(), group.clone()))
            .map(Members::names)
            .unwrap_or_default()
    }

    /// What each member of a group should have; `None` while the newest generation has no assignment.
    pub fn assignment(
        &self,
        stream: &StreamId,
        group: &GroupName,
    ) -> Option<BTreeMap<MemberId, PartitionSet>> {
        let members = self.groups.get(&(stream.clone(), group.clone()))?;
        members.assignment()
    }

    /// Each live member of a group, as the next assignment finds it.
    pub fn shares(&self, stream: &StreamId, group: &GroupName) -> BTreeMap<MemberId, Share> {
        let members = self.groups.get(&(stream.clone(), group.clone()));
        members.map(Members::shares).unwrap_or_default()
    }

    fn partition(&self, stream: &StreamId, partition: Partition) -> Option<&Log> {
        self.streams.get(stream)?.partitions.get(index(partition))
    }

    fn partition_mut(&mut self, stream: &StreamId, partition: Partition) -> Option<&mut Log> {
        self.streams
            .get_mut(stream)?
            .partitions
            .get_mut(index(partition))
    }

    /// The partition, if the stream is still the one that the caller means.
    fn same(&mut self, stream: &StreamId, uid: &Uid, partition: Partition) -> Option<&mut Log> {
        let stream = self.streams.get_mut(stream).filter(|s| s.uid == *uid)?;
        stream.partitions.get_mut(index(partition))
    }

    fn register(&mut self, r: Register) -> Result<RegisterReply, Failure> {
        let existed = self.streams.contains_key(&r.stream);
        let mutations = self.mutations;
        let mut partitions: Vec<_> = r.shape.all().map(|_| Log::new(mutations)).collect();
        if let (Some(source), false) = (&r.source, existed) {
            let log = self.sources.remove(source.redis_key());
            let none = || Failure::NotDone(format!("no stream {:?} yet", source.redis_key()));
            partitions = vec![log.ok_or_else(none)?];
        }
        let stream = self.streams.entry(r.stream).or_insert_with(|| Stream {
            uid: r.uid,
            shape: r.shape,
            retain: r.retain.unwrap_or(0),
            source: r.source.clone(),
            deleting: false,
            partitions,
        });
        if stream.deleting {
            return Ok(RegisterReply::Deleting);
        }
        if stream.source != r.source {
            let found = stream.source.clone();
            return Ok(RegisterReply::SourceDiffers { found });
        }
        if stream.shape != r.shape {
            return Ok(RegisterReply::ShapeDiffers {
                found: stream.shape,
            });
        }
        if let Some(retain) = r.retain {
            stream.retain = retain;
        }
        Ok(RegisterReply::Registered {
            uid: stream.uid.clone(),
            existed,
        })
    }

    fn ensure_group(&mut self, r: EnsureGroup) -> EnsureGroupReply {
        match self.same(&r.stream, &r.uid, r.partition) {
            Some(log) => log.ensure_group(r.group, r.start),
            None => EnsureGroupReply::StreamGone,
        }
    }

    fn append(&mut self, now_us: u64, r: Append) -> Result<AppendReply, Failure> {
        let Some(stream) = self.streams.get_mut(&r.stream).filter(|s| s.uid == r.uid) else {
            return Ok(AppendReply::StreamGone);
        };
        let Some(capacity) = stream.shape.capacity() else {
            return Err(Failure::Fatal("other programs write it".to_owned()));
        };
        let retain = stream.retain;
        Ok(match stream.partitions.get_mut(index(r.partition)) {
            Some(log) => AppendReply::Appended {
                ids: log.append(now_us / 1_000, &r.messages, capacity, retain),
            },
            None => AppendReply::StreamGone,
        })
    }

    fn append_from(&mut self, now_us: u64, r: AppendFrom) -> Result<AppendFromReply, Failure> {
        let Some(stream) = self.streams.get_mut(&r.stream).filter(|s| s.uid == r.uid) else {
            return Ok(AppendFromReply::StreamGone);
        };
        let Some(capacity) = stream.shape.capacity() else {
            return Err(Failure::Fatal("other programs write it".to_owned()));
        };
        let retain = stream.retain;
        Ok(match stream.partitions.get_mut(index(r.partition)) {
            Some(log) if r.after.is_some() && log.last_of(&r.source) < r.after => {
                AppendFromReply::Behind
            }
            Some(log) if log.is_crowded(&r.source) => AppendFromReply::Crowded,
            Some(log) => AppendFromReply::Accepted {
                ids: log.append_from(now_us / 1_000, r.source, &r.messages, capacity, retain),
            },
            None => AppendFromReply::StreamGone,
        })
    }

    fn redrive(&mut self, now_us: u64, r: Redrive) -> Result<RedriveReply, Failure> {
        let back = r.letters.iter().any(|letter| letter.to == r.stream.stream);
        if back
            && self
                .streams
                .get(&r.stream)
                .is_some_and(|s| s.source.is_some())
        {
            return Err(Failure::Fatal("other programs write it".to_owned()));
        }
        let Some(log) = self.same(&r.stream, &r.uid, r.partition) else {
            return Ok(RedriveReply::StreamGone);
        };
        let Some((epoch, letters)) = log.redrive(&r.group, r.source, &r.letters, now_us) else {
            return Ok(RedriveReply::GroupGone);
        };
        self.news.push((r.stream, r.group, News::Changed));
        Ok(RedriveReply::Moved { epoch, letters })
    }

    fn read(&self, r: &Read) -> ReadReply {
        let entries = r.after.iter().filter_map(|(partition, after)| {
            let log = self.partition(&r.stream, *partition)?;
            let entries: Vec<RawEntry> = log
                .entries()
                .filter(|e| e.id > *after)
                .take(r.count)
                .cloned()
                .collect();
            (!entries.is_empty()).then_some((*partition, entries))
        });
        ReadReply {
            entries: entries.collect(),
        }
    }

    fn acquire(&mut self, now_us: u64, r: Acquire) -> AcquireReply {
        let Some(log) = self.same(&r.stream, &r.uid, r.partition) else {
            return AcquireReply::StreamGone;
        };
        let Some(lease) = log.lease(&r.group) else {
            return AcquireReply::GroupGone;
        };
        let before = lease.owner.clone();
        let head = log.entries().map(|e| e.id).find(|id| *id > lease.acked);
        let lease = log.lease_mut(&r.group).expect("it was there");
        match lease.acquire(r.owner, now_us) {
            Ok(unreleased) => {
                if let (Some(owner), Some(head)) = (before, head) {
                    lease.count_crash(head, owner.version);
                }
                AcquireReply::Acquired {
                    epoch: lease.epoch,
                    acked: lease.acked,
                    read: lease.read,
                    unreleased,
                    attempts: lease.attempts.clone(),
                }
            }
            Err(reason) => AcquireReply::Halted {
                reason,
                epoch: lease.epoch,
                acked: lease.acked,
            },
        }
    }

    fn seek(&mut self, now_us: u64, r: Seek) -> SeekReply {
        let Some(log) = self.same(&r.stream, &r.uid, r.partition) else {
            return SeekReply::StreamGone;
        };
        let Some((was, acked, read)) = log.seek(&r.group, r.to, now_us) else {
            return SeekReply::GroupGone;
        };
        self.news.push((r.stream, r.group, News::Changed));
        SeekReply::Sought { was, acked, read }
    }

    fn halt(&mut self, now_us: u64, r: Halt) -> HaltReply {
        let Some(log) = self.same(&r.stream, &r.uid, r.partition) else {
            return HaltReply::StreamGone;
        };
        let Some(lease) = log.lease_mut(&r.group) else {
            return HaltReply::GroupGone;
        };
        if !lease.halt(r.reason, now_us) {
            let reason = lease.halt.clone().unwrap_or_default();
            return HaltReply::Already { reason };
        }
        self.news.push((r.stream, r.group, News::Changed));
        HaltReply::Halted
    }

    fn resume(&mut self, now_us: u64, r: Resume) -> ResumeReply {
        let Some(log) = self.same(&r.stream, &r.uid, r.partition) else {
            return ResumeReply::StreamGone;
        };
        let Some(lease) = log.lease_mut(&r.group) else {
            return ResumeReply::GroupGone;
        };
        if !lease.resume(now_us) {
            return ResumeReply::NotHalted;
        }
        let skipped = r
            .skip
            .and_then(|reason| log.skip(&r.group, reason, now_us / 1_000));
        self.news.push((r.stream, r.group, News::Changed));
        ResumeReply::Resumed { skipped }
    }

    fn delete_group_in(&mut self, r: &DeleteGroup) -> DeleteGroupReply {
        let retain = self.streams.get(&r.stream).map_or(0, |s| s.retain);
        match self.same(&r.stream, &r.uid, r.partition) {
            Some(log) => DeleteGroupReply::Deleted {
                existed: log.delete_group(&r.group, retain),
            },
            None => DeleteGroupReply::StreamGone,
        }
    }

    fn commit(&mut self, now_us: u64, r: Commit) -> Result<CommitReply, Failure> {
        let retain = self.streams.get(&r.stream).map_or(0, |s| s.retain);
        match self.partition_mut(&r.stream, r.partition) {
            Some(log) => log.commit(now_us / 1_000, r, retain),
            None => Ok(CommitReply::Fenced { found: None }),
        }
    }

    fn release(&mut self, r: &Release) -> ReleaseReply {
        let mutations = self.mutations;
        let mut fence = r.fence.clone();
        let lease = self
            .partition_mut(&r.stream, r.partition)
            .and_then(|log| log.lease_mut(&r.group));
        match lease {
            None => ReleaseReply::Fenced { found: None },
            Some(lease) => {
                mutations.bend(&mut fence, lease);
                match lease.release(&fence) {
                    true => ReleaseReply::Released,
                    false => ReleaseReply::Fenced {
                        found: Some(lease.view()),
                    },
                }
            }
        }
    }

    fn verify(&self, r: &Verify) -> VerifyReply {
        let leases = r.partitions.iter();
        VerifyReply {
            leases: leases
                .map(|p| Some(self.lease(&r.stream, *p, &r.group)?.view()))
                .collect(),
        }
    }

    fn sync(&mut self, now_us: u64, r: &Sync) -> SyncReply {
        let there = self
            .streams
            .get(&r.stream)
            .is_some_and(|s| s.uid == r.uid && !s.deleting);
        if r.kind == SyncKind::Join && !there {
            return SyncReply::StreamGone;
        }
        let grouped = self.lease(&r.stream, Partition(0), &r.group).is_some();
        if r.kind == SyncKind::Join && !grouped {
            return SyncReply::GroupGone;
        }
        let key = (r.stream.clone(), r.group.clone());
        let reply = self
            .groups
            .entry(key.clone())
            .or_insert_with(|| Members::new(self.mutations))
            .sync(now_us / 1_000, r);
        self.publish(key);
        reply
    }

    fn install(&mut self, r: &Install) -> InstallReply {
        let key = (r.stream.clone(), r.group.clone());
        let reply = match self.groups.get_mut(&key) {
            Some(members) => members.install(r),
            None => InstallReply::StreamGone,
        };
        self.publish(key);
        reply
    }

    fn publish(&mut self, key: (StreamId, GroupName)) {
        if let Some(members) = self.groups.get_mut(&key) {
            let news = members.take_news().into_iter();
            self.news
                .extend(news.map(|news| (key.0.clone(), key.1.clone(), news)));
        }
    }
}

fn index(partition: Partition) -> usize {
    usize::try_from(partition.0).expect("a u32 fits")
}
