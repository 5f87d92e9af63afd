//! The broker in memory as a subject. Its clock moves only when it is told to.

use std::time::Duration;

use segmenter_core::entry::{Fields, RawEntry};
use segmenter_core::message::EntryId;
use segmenter_core::names::{GroupName, HandlerId, Namespace, Partition, StreamId, Version};
use segmenter_core::port::{BadVersion, DeadLetter, Failure, Happened, Reply, Request, Stamped};

use super::Subject;
use crate::broker::MemoryBroker;

pub struct MemorySubject {
    broker: MemoryBroker,
    now_us: u64,
}

impl Default for MemorySubject {
    fn default() -> MemorySubject {
        MemorySubject {
            broker: MemoryBroker::default(),
            // Some day, in the order of a real clock: ids and epochs begin with it.
            now_us: 1_700_000_000_000_000,
        }
    }
}

impl Subject for MemorySubject {
    fn execute(&mut self, request: Request) -> Result<Reply, Failure> {
        // Every command takes a moment, as on a real broker.
        self.now_us += 10;
        self.broker.execute(self.now_us, request)
    }
    fn now_us(&mut self) -> u64 {
        self.now_us
    }
    fn let_time_pass(&mut self, span: Duration) {
        self.now_us += u64::try_from(span.as_micros()).expect("a short span");
    }
    fn log(&mut self, stream: &StreamId, partition: Partition) -> Vec<RawEntry> {
        self.broker.log(stream, partition)
    }
    fn dead(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<(DeadLetter, u64)> {
        let kept = self.broker.dead(stream, partition, group);
        kept.into_iter().map(|k| (k.letter, k.at_ms)).collect()
    }
    fn dead_ids(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<EntryId> {
        let kept = self.broker.dead(stream, partition, group);
        kept.into_iter().map(|k| k.dead_id).collect()
    }
    fn outbox(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
    ) -> Vec<Stamped> {
        self.broker.outbox(stream, partition, group)
    }
    fn lag(&mut self, stream: &StreamId, partition: Partition, group: &GroupName) -> Option<u64> {
        self.broker.lag(stream, partition, group)
    }
    fn add(&mut self, stream: &StreamId, partition: Partition, id: EntryId, fields: Fields) {
        let added = self.broker.add(stream, partition, id, fields);
        assert!(added.is_some(), "{id} is not above the last");
    }
    fn add_to_source(&mut self, redis_key: &str, id: EntryId, fields: Fields) {
        let added = self.broker.add_to_source(redis_key, id, fields);
        assert!(added.is_some(), "{id} is not above the last");
    }
    fn source_log(&mut self, redis_key: &str) -> Vec<RawEntry> {
        self.broker.source_log(redis_key)
    }
    fn remove(&mut self, stream: &StreamId, partition: Partition, id: EntryId) {
        assert!(self.broker.remove(stream, partition, id), "no entry {id}");
    }
    fn add_foreign_group(
        &mut self,
        stream: &StreamId,
        partition: Partition,
        group: &GroupName,
        after: EntryId,
        pending: usize,
    ) {
        self.broker
            .add_foreign_group(stream, partition, group.clone(), after, pending);
    }
    fn mark_deleting(&mut self, stream: &StreamId) {
        self.broker.mark_deleting(stream);
    }
    fn delete_stream(&mut self, stream: &StreamId) {
        assert!(self.broker.delete_stream(stream), "no stream {stream}");
    }
    fn history(&mut self, handler: &HandlerId) -> Vec<Happened> {
        self.broker.history(handler)
    }
    fn bad_versions(&mut self, handler: &HandlerId) -> Vec<BadVersion> {
        self.broker.bad_versions(handler)
    }
    fn damage_module(&mut self, namespace: &Namespace, version: &Version, bytes: Vec<u8>) {
        self.broker.damage_module(namespace, version, bytes);
    }
}
