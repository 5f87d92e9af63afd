//! An operator: deletes streams and groups, moves a group's position, halts partitions and resumes them,
//! writes what is not ours. Acts on Redis directly; whoever runs learns of it from log and lease.

use segmenter_core::entry::Fields;
use segmenter_core::message::EntryId;
use segmenter_core::names::{Partition, Uid};
use segmenter_core::port::{Halt, Position, Register, RegisterReply, Reply, Request, Resume, Seek};

use super::plan::Kind;
use super::world::World;

impl World {
    /// Someone else's entry: written by hand, by one who knows nothing of keys and payloads.
    pub(super) fn foreign(&mut self, stream: usize, partition: Partition) {
        if self.redis.is_down() {
            return;
        }
        let ms = self.redis.clock.at(self.now).0 / 1_000;
        let stream = self.streams[stream].clone();
        let last = self.redis.broker.entries(&stream, partition).next_back();
        let last = last.map(|entry| entry.id);
        let now = EntryId { ms, seq: 0 };
        let id = last
            .filter(|last| *last >= now)
            .and_then(EntryId::next)
            .unwrap_or(now);
        let fields: Fields = vec![(b"x".to_vec(), b"y".to_vec())];
        let added = self.redis.broker.add(&stream, partition, id, fields);
        if added.is_some() {
            self.count(Kind::Foreign);
            self.trace.line(
                self.now,
                format_args!("someone adds {id} to {stream}/{partition}"),
            );
            self.redis.effects += 1;
            self.wake_blocked(&stream);
        }
    }

    pub(super) fn delete_stream(&mut self, stream: usize) {
        if self.redis.is_down() {
            return;
        }
        self.count(Kind::Delete);
        let id = self.streams[stream].clone();
        self.trace
            .line(self.now, format_args!("an operator deletes {id}"));
        self.redis.broker.delete_stream(&id);
        self.ledger.forget_stream(stream);
        self.look_again();
        self.announce();
    }

    pub(super) fn delete_group(&mut self, binding: usize) {
        if self.redis.is_down() {
            return;
        }
        self.count(Kind::DeleteGroup);
        let bound = self.bindings[binding].clone();
        let stream = self.streams[bound.stream].clone();
        self.trace.line(
            self.now,
            format_args!("an operator deletes {} of {stream}", bound.group),
        );
        self.redis.broker.delete_group(&stream, &bound.group);
        self.look_again();
        self.announce();
    }

    pub(super) fn seek(&mut self, binding: usize, partition: Partition) {
        let Some(uid) = self.uid_of(binding) else {
            return;
        };
        self.count(Kind::Seek);
        let bound = self.bindings[binding].clone();
        let stream = self.streams[bound.stream].clone();
        let ids: Vec<EntryId> = self
            .redis
            .broker
            .entries(&stream, partition)
            .map(|entry| entry.id)
            .collect();
        let to = match self.rng.below(4) {
            0 => Position::Start,
            1 => Position::End,
            _ if ids.is_empty() => Position::Start,
            _ => Position::From(ids[self.rng.index(ids.len())]),
        };
        let group = bound.group;
        self.operate(Request::Seek(Seek {
            stream,
            uid,
            partition,
            group,
            to,
        }));
    }

    pub(super) fn halt(&mut self, binding: usize, partition: Partition) {
        let Some(uid) = self.uid_of(binding) else {
            return;
        };
        self.count(Kind::Halt);
        let bound = self.bindings[binding].clone();
        self.operate(Request::Halt(Halt {
            stream: self.streams[bound.stream].clone(),
            uid,
            partition,
            group: bound.group,
            reason: "an operator wants a look".to_owned(),
        }));
    }

    pub(super) fn resume_halted(&mut self, binding: usize, partition: Partition, skip: bool) {
        let Some(uid) = self.uid_of(binding) else {
            return;
        };
        let bound = self.bindings[binding].clone();
        self.operate(Request::Resume(Resume {
            stream: self.streams[bound.stream].clone(),
            uid,
            partition,
            group: bound.group,
            skip: skip.then(|| "an operator skips it".to_owned()),
        }));
    }

    /// Nothing stays halted for good.
    pub(super) fn resume_all(&mut self) {
        for binding in 0..self.bindings.len() {
            for partition in self.shape.all() {
                let bound = &self.bindings[binding];
                let stream = &self.streams[bound.stream];
                let lease = self.redis.broker.lease(stream, partition, &bound.group);
                if lease.is_some_and(|lease| lease.halt.is_some()) {
                    self.resume_halted(binding, partition, false);
                }
            }
        }
    }

    /// Of the stream, if Redis can be reached and there is a group to act on.
    fn uid_of(&mut self, binding: usize) -> Option<Uid> {
        let bound = &self.bindings[binding];
        let stream = self.streams[bound.stream].clone();
        let group = &bound.group;
        let there = self.redis.broker.lease(&stream, Partition(0), group);
        if self.redis.is_down() || there.is_none() {
            return None;
        }
        let register = Request::Register(Register {
            stream,
            shape: self.shape,
            retain: None,
            source: None,
            uid: "operator".parse().expect("a name"),
        });
        match self.execute(register) {
            Ok(Reply::Register(RegisterReply::Registered { uid, .. })) => Some(uid),
            _ => None,
        }
    }

    fn operate(&mut self, request: Request) {
        // What it answers is in the trace.
        let _ = self.execute(request);
        self.announce();
    }
}
