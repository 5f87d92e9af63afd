//! Redis as the simulation sees it: the broker in memory behind a clock of its own, blocking reads, and
//! ends and beginnings with all, some or none of its data. Must not know who asks.

use std::collections::BTreeSet;

use segmenter_core::names::Partition;
use segmenter_core::port::{Failure, Read, ReadReply, Reply, Request};

use super::check::{Sum, View};
use super::clock::Clock;
use super::net::{LinkId, Packet};
use super::plan::Kind;
use super::reader::BLOCK;
use super::world::{Event, World};
use crate::broker::{MemoryBroker, Mutations};

#[derive(Debug)]
pub(super) struct Redis {
    pub(super) broker: MemoryBroker,
    pub(super) clock: Clock,
    /// Counts its starts.
    life: u64,
    down: bool,
    blocked: Vec<Blocked>,
    /// Reads that were woken before they arrived.
    woken: BTreeSet<u64>,
    /// The data of some time ago, and how many effects there were.
    snapshot: Option<(MemoryBroker, u64)>,
    /// Effects so far.
    pub(super) effects: u64,
    mutations: Mutations,
}

/// A read that waits for an entry.
#[derive(Debug)]
struct Blocked {
    link: LinkId,
    token: u64,
    read: Read,
}

/// What is left of the data after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    All,
    Snapshot,
    Nothing,
}

impl Redis {
    pub(super) fn new(clock: Clock, mutations: Mutations) -> Redis {
        Redis {
            broker: MemoryBroker::mutated(mutations),
            clock,
            life: 0,
            down: false,
            blocked: Vec::new(),
            woken: BTreeSet::new(),
            snapshot: None,
            effects: 0,
            mutations,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    pub(super) fn life(&self) -> u64 {
        self.life
    }
}

fn nothing() -> ReadReply {
    ReadReply {
        entries: Vec::new(),
    }
}

impl World {
    pub(super) fn arrive(&mut self, packet: Packet) {
        let Packet {
            link,
            token,
            redis_life,
            request,
            again_after,
        } = packet;
        if self.redis.down || self.redis.life != redis_life {
            return;
        }
        if let Some(after) = again_after {
            let again = Packet {
                link,
                token,
                redis_life,
                request: request.clone(),
                again_after: None,
            };
            self.schedule(self.now + after, Event::Arrive(Box::new(again)));
        }
        if let Request::Read(read) = request {
            return self.arrive_read(link, token, read);
        }
        let result = self.execute(request);
        self.answer(link, token, result);
        self.announce();
    }

    /// In order of effect: everything that is judged by the log and the lease sees it here.
    pub(super) fn execute(&mut self, request: Request) -> Result<Reply, Failure> {
        let at = self.redis.clock.at(self.now).0;
        self.redis.effects += 1;
        let before = self.checks.before(&self.redis.broker, &request);
        let result = self.redis.broker.execute(at, request.clone());
        self.say_effect(&request, &result);
        let view = View {
            broker: &self.redis.broker,
            bindings: &self.bindings,
            streams: &self.streams,
            shape: self.shape,
            effects: self.redis.effects,
            time_us: self.redis.clock.at(self.now).0,
        };
        let judged = self
            .checks
            .after(&view, &request, &result, &before, &mut self.ledger);
        self.judge(judged);
        if let (Request::Append(r), Ok(Reply::Append(_))) = (&request, &result) {
            let stream = r.stream.clone();
            self.wake_blocked(&stream);
        }
        result
    }

    /// What a handler would read of its state now.
    pub(super) fn counter_of(&self, binding: usize, partition: Partition) -> i64 {
        let bound = &self.bindings[binding];
        let stream = &self.streams[bound.stream];
        Sum::of(&self.redis.broker, stream, partition, &bound.group).counter
    }

    fn say_effect(&mut self, request: &Request, result: &Result<Reply, Failure>) {
        let now = self.now;
        let trace = &mut self.trace;
        match request {
            Request::Append(r) => trace.line(
                now,
                format_args!(
                    "redis: append {} to {}/{}: {result:?}",
                    r.messages.len(),
                    r.stream.stream,
                    r.partition
                ),
            ),
            Request::Acquire(r) => trace.line(
                now,
                format_args!(
                    "redis: acquire {}/{} by {}: {result:?}",
                    r.group, r.partition, r.owner.incarnation
                ),
            ),
            Request::Commit(r) => trace.line(
                now,
                format_args!(
                    "redis: commit {}/{} by {} epoch {} {}..{}: {result:?}",
                    r.group, r.partition, r.fence.incarnation, r.fence.epoch.0, r.fence.from, r.to
                ),
            ),
            Request::Release(r) => trace.line(
                now,
                format_args!(
                    "redis: release {}/{} by {}: {result:?}",
                    r.group, r.partition, r.fence.incarnation
                ),
            ),
            Request::Sync(r) => trace.line(
                now,
                format_args!(
                    "redis: {:?} {} of {} in {}: {result:?}",
                    r.kind, r.counter, r.incarnation, r.group
                ),
            ),
            Request::Seek(r) => trace.line(
                now,
                format_args!(
                    "redis: seek {}/{} to {:?}: {result:?}",
                    r.group, r.partition, r.to
                ),
            ),
            Request::Halt(r) => trace.line(
                now,
                format_args!("redis: halt {}/{}: {result:?}", r.group, r.partition),
            ),
            Request::Resume(r) => trace.line(
                now,
                format_args!("redis: resume {}/{}: {result:?}", r.group, r.partition),
            ),
            Request::DeleteGroup(r) => trace.line(
                now,
                format_args!("redis: delete {}/{}: {result:?}", r.group, r.partition),
            ),
            Request::Install(r) => trace.line(
                now,
                format_args!("redis: install {} of {}: {result:?}", r.generation, r.group),
            ),
            Request::Verify(r) => {
                trace.line(now, format_args!("redis: verify {}: {result:?}", r.group))
            }
            Request::Register(r) => trace.line(
                now,
                format_args!("redis: register {}: {result:?}", r.stream.stream),
            ),
            Request::EnsureGroup(r) => trace.line(
                now,
                format_args!("redis: ensure {}/{}: {result:?}", r.group, r.partition),
            ),
            Request::AppendFrom(r) => trace.line(
                now,
                format_args!(
                    "redis: append {} from {} after {:?} to {}/{}: {result:?}",
                    r.messages.len(),
                    r.source,
                    r.after,
                    r.stream.stream,
                    r.partition
                ),
            ),
            Request::Relayed(r) => trace.line(
                now,
                format_args!(
                    "redis: relayed {} of {}/{}: {result:?}",
                    r.entries.len(),
                    r.group,
                    r.partition
                ),
            ),
            Request::Bury(r) => trace.line(
                now,
                format_args!("redis: bury {}/{}: {result:?}", r.group, r.partition),
            ),
            Request::Redrive(r) => trace.line(
                now,
                format_args!("redis: redrive {}/{}: {result:?}", r.group, r.partition),
            ),
            Request::Purge(r) => trace.line(
                now,
                format_args!("redis: purge {}/{}: {result:?}", r.group, r.partition),
            ),
            Request::Deploy(r) => trace.line(
                now,
                format_args!("redis: deploy {} of {}: {result:?}", r.version, r.handler),
            ),
            Request::Settle(r) => trace.line(
                now,
                format_args!(
                    "redis: settle {} of {} as {:?}: {result:?}",
                    r.version, r.handler, r.verdict
                ),
            ),
            Request::RollBack(r) => trace.line(
                now,
                format_args!("redis: roll back {} to {:?}: {result:?}", r.handler, r.to),
            ),
            Request::Read(_)
            | Request::LoadState(_)
            | Request::LoadOutbox(_)
            | Request::StoreModule(_)
            | Request::FetchModule(_)
            | Request::Report(_) => {}
        }
    }

    fn arrive_read(&mut self, link: LinkId, token: u64, read: Read) {
        let woken = self.redis.woken.remove(&token);
        match self.entries(&read) {
            Some(reply) => self.answer(link, token, Ok(Reply::Read(reply))),
            None if woken => self.answer(link, token, Ok(Reply::Read(nothing()))),
            None => {
                let until = self.now + u64::try_from(BLOCK.as_micros()).unwrap_or(0);
                self.redis.blocked.push(Blocked { link, token, read });
                self.schedule(until, Event::Unblock { link, token });
            }
        }
    }

    fn entries(&mut self, read: &Read) -> Option<ReadReply> {
        let at = self.redis.clock.at(self.now).0;
        match self.redis.broker.execute(at, Request::Read(read.clone())) {
            Ok(Reply::Read(reply)) if !reply.entries.is_empty() => Some(reply),
            _ => None,
        }
    }

    pub(super) fn wake_blocked(&mut self, stream: &segmenter_core::names::StreamId) {
        let mut at = 0;
        while at < self.redis.blocked.len() {
            if self.redis.blocked[at].read.stream == *stream {
                let read = self.redis.blocked[at].read.clone();
                if let Some(reply) = self.entries(&read) {
                    let Blocked { link, token, .. } = self.redis.blocked.swap_remove(at);
                    self.answer(link, token, Ok(Reply::Read(reply)));
                    continue;
                }
            }
            at += 1;
        }
    }

    /// The block is over, or another partition asks: the read returns with nothing.
    pub(super) fn unblock(&mut self, link: LinkId, token: u64) {
        let found = self
            .redis
            .blocked
            .iter()
            .position(|blocked| blocked.token == token);
        if let Some(at) = found {
            self.redis.blocked.swap_remove(at);
            self.answer(link, token, Ok(Reply::Read(nothing())));
        } else if self.links[link.0].outstanding.contains_key(&token) {
            self.redis.woken.insert(token);
        }
    }

    pub(super) fn announce(&mut self) {
        for (stream, group, news) in self.redis.broker.take_news() {
            let found = self
                .bindings
                .iter()
                .position(|b| self.streams[b.stream] == stream && b.group == group);
            if let Some(binding) = found {
                self.publish(binding, &news);
            }
        }
    }

    pub(super) fn snapshot(&mut self) {
        self.redis.snapshot = Some((self.redis.broker.clone(), self.redis.effects));
    }

    /// Redis ends and comes back after a while.
    pub(super) fn restart(&mut self, us: u64, keeps: Keeps) {
        if self.redis.down {
            return;
        }
        self.trace.line(
            self.now,
            format_args!("redis ends, for {us} µs; keeps {keeps:?}"),
        );
        self.redis.down = true;
        self.redis.life += 1;
        self.redis.blocked.clear();
        for link in 0..self.links.len() {
            self.cut(LinkId(link), "the server ended");
        }
        self.unsubscribe_all();
        match keeps {
            Keeps::All => {}
            Keeps::Snapshot => {
                if let Some((broker, effects)) = self.redis.snapshot.take() {
                    self.count(Kind::Rollback);
                    self.redis.broker = broker;
                    self.ledger.forget_since(effects);
                }
            }
            Keeps::Nothing => {
                self.redis.broker = MemoryBroker::mutated(self.redis.mutations);
                self.redis.snapshot = None;
                self.ledger.forget_since(0);
            }
        }
        self.look_again();
        self.schedule(self.now + us, Event::RedisBack);
    }

    /// The checkers take up what Redis holds now.
    pub(super) fn look_again(&mut self) {
        let view = View {
            broker: &self.redis.broker,
            bindings: &self.bindings,
            streams: &self.streams,
            shape: self.shape,
            effects: self.redis.effects,
            time_us: self.redis.clock.at(self.now).0,
        };
        self.checks.look_again(&view);
    }

    pub(super) fn redis_back(&mut self) {
        self.trace.line(self.now, format_args!("redis is back"));
        self.redis.down = false;
        if self.now >= self.plan.faults_until {
            self.resume_all();
        }
    }

    /// Whoever listened on connections that broke hears nothing until it has subscribed again.
    fn unsubscribe_all(&mut self) {
        for host in 0..self.hosts.len() {
            self.unsubscribe(host);
        }
    }

    pub(super) fn unsubscribe(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        let handlers = process.supervisors.len();
        for supervisor in &mut process.supervisors {
            supervisor.reader.subscribed = false;
        }
        for handler in 0..handlers {
            let at = self.now + self.rng.between(50_000, 200_000);
            self.post(host, at, super::host::Input::Resubscribe { handler });
        }
    }
}
