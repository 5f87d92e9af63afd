//! One suite for every broker: the same cases against the broker in memory and the Redis adapter on a
//! real server. A case knows requests and answers, and what others may do to a log; not who answers.

pub mod cases;
mod memory;
mod puppet;
mod real;
pub mod scene;

use segmenter_core::entry::{Fields, RawEntry};
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, HandlerId, Namespace, Partition, StreamId, Version};
use segmenter_core::port::{BadVersion, DeadLetter, Failure, Happened, Reply, Request, Stamped};
use std::time::Duration;

pub use memory::MemorySubject;
pub use puppet::Puppet;
pub use real::{Kept, RealSubject};
pub use scene::{Held, Scene};

/// A broker under test, with the hands of those who do not use the port.
pub trait Subject {
    fn execute(&mut self, request: Request) -> Result<Reply, Failure>;
    /// The broker's own clock.
    fn now_us(&mut self) -> u64;
    /// Returns when the broker's clock has moved by `span`.
    fn let_time_pass(&mut self, span: Duration);
    /// All entries of a partition.
    fn log(&mut self, stream: &StreamId, partition: Partition) -> Vec<RawEntry>;
    /// The dead letters of a group in a partition, with their times in ms.
    fn dead(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<(DeadLetter, u64)>;
    /// Their own ids among the dead letters.
    fn dead_ids(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<EntryId>;
    /// Emitted messages of a group that are not at their target yet.
    fn outbox(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<Stamped>;
    /// Entries that the group's mirror says are before it.
    fn lag(&mut self, stream: &StreamId, partition: Partition, group: &GroupName) -> Option<u64>;
    /// Someone else writes an entry with this id.
    fn add(&mut self, stream: &StreamId, partition: Partition, id: EntryId, fields: Fields);
    /// Someone else writes an entry with this id to a stream of theirs, which comes to be by that.
    fn add_to_source(&mut self, redis_key: &str, id: EntryId, fields: Fields);
    /// What lies there.
    fn source_log(&mut self, redis_key: &str) -> Vec<RawEntry>;
    /// Someone else deletes an entry in the middle.
    fn remove(&mut self, stream: &StreamId, partition: Partition, id: EntryId);
    /// Someone else makes a Redis group that begins after `after`, and has `pending` entries delivered.
    fn add_foreign_group(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
        after: EntryId,
        pending: usize,
    );
    /// A delete of the stream that has only begun.
    fn mark_deleting(&mut self, stream: &StreamId);
    fn delete_stream(&mut self, stream: &StreamId);
    /// What was done to a handler's versions, oldest first.
    fn history(&mut self, handler: &HandlerId) -> Vec<Happened>;
    /// Versions that were rolled back, latest first.
    fn bad_versions(&mut self, handler: &HandlerId) -> Vec<BadVersion>;
    /// Someone else writes where a module's bytes lie.
    fn damage_module(&mut self, namespace: &Namespace, version: &Version, bytes: Vec<u8>);
}
