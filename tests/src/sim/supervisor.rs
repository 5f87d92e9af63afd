//! One handler in its group, as `host/supervisor.rs`: carries out what the member asks for, in the same
//! order, and tells workers and member what came of it. Decides nothing.

use segmenter_core::consumer::{
    BROKER_BACKOFF, Config as ConsumerConfig, Consumer, Event as ConsumerEvent, Exhausted,
};
use segmenter_core::member::{Command, Config, Event as MemberEvent, Member, News, Standing};
use segmenter_core::names::{Incarnation, Partition, Uid};
use segmenter_core::port::{CommitReply, Failure, Reply, Request, SyncReply, Verify};
use segmenter_core::relay;
use segmenter_core::rollout::Runs;
use segmenter_core::time::Time;

use super::host::{Ending, Input, Purpose};
use super::mutation::Mutation;
use super::plan::Kind;
use super::reader::Reader;
use super::relay::Courier;
use super::worker::Worker;
use super::world::World;

#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) binding: usize,
    pub(super) uid: Uid,
    pub(super) incarnation: Incarnation,
    /// The start of Redis that last knew it as a member.
    pub(super) served_by: Option<u64>,
    pub(super) member: Member,
    pub(super) workers: Vec<Worker>,
    pub(super) couriers: Vec<Courier>,
    pub(super) reader: Reader,
    /// The end of the trust window, as the workers see it.
    pub(super) trust: Time,
    pub(super) exited: bool,
    /// What the world was told to wake it for.
    wake: u64,
    leaving: bool,
    cut_at: Option<Time>,
}

pub(super) const NEVER: u64 = u64::MAX;

impl World {
    pub(super) fn supervisor(&mut self, host: usize, handler: usize) -> Option<&mut Supervisor> {
        let process = self.hosts[host].process.as_mut()?;
        process.supervisors.get_mut(handler).filter(|s| !s.exited)
    }

    pub(super) fn run_supervisor(&mut self, host: usize, binding: usize, uid: Uid) {
        let now = self.local(host);
        let noise = self.rng.next();
        let seed = self.rng.next();
        let runs: Vec<Runs> = self
            .shape
            .all()
            .map(|partition| self.runs(host, binding, partition))
            .collect();
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else {
            return;
        };
        let handler = process.supervisors.len();
        let incarnation = format!("{}.{}.{handler}", h.name, h.life);
        let incarnation: Incarnation = incarnation.parse().expect("a name");
        let bound = &self.bindings[binding];
        let member = Member::new(
            Config {
                stream: self.streams[bound.stream].clone(),
                uid: uid.clone(),
                group: bound.group.clone(),
                member: process.member.clone(),
                incarnation: incarnation.clone(),
                partitions: self.shape.partitions(),
                session_timeout: self.plan.session_timeout,
                seed,
            },
            now,
        );
        let consumer = |partition: Partition| {
            let runs = runs[partition.0 as usize].clone();
            let consumer = Consumer::new(ConsumerConfig {
                attempts: self.plan.attempts,
                exhausted: Exhausted::DeadLetter,
                partition,
                group: bound.group.clone(),
                incarnation: incarnation.clone(),
                runs: runs.clone(),
                retry: self.retry,
                broker: BROKER_BACKOFF,
                give_up: self.plan.session_timeout,
                payload_max: 1_024,
                // Small enough that some partitions come up against it.
                share_bytes: 2_048,
                layout: segmenter_core::source::Layout::Ours,
                seed: noise.wrapping_add(u64::from(partition.0)),
            });
            Worker::new(consumer, runs)
        };
        let workers = self.shape.all().map(consumer).collect();
        let courier = |p: Partition| Courier::new(noise ^ u64::from(p.0));
        let couriers = self.shape.all().map(courier).collect();
        process.supervisors.push(Supervisor {
            binding,
            uid,
            incarnation,
            served_by: None,
            member,
            workers,
            couriers,
            reader: Reader::default(),
            trust: Time::ZERO,
            exited: false,
            wake: NEVER,
            leaving: false,
            cut_at: None,
        });
        if process.leave_by.is_some() {
            self.drain(host, handler);
        }
        self.pump_member(host, handler);
    }

    pub(super) fn member_event(&mut self, host: usize, handler: usize, event: MemberEvent) {
        let now = self.local(host);
        if let Some(supervisor) = self.supervisor(host, handler) {
            supervisor.member.handle(now, event);
            self.pump_member(host, handler);
        }
    }

    pub(super) fn pump_member(&mut self, host: usize, handler: usize) {
        loop {
            let now = self.local(host);
            let Some(supervisor) = self.supervisor(host, handler) else {
                return;
            };
            let binding = supervisor.binding;
            let Some(command) = supervisor.member.poll(now) else {
                break;
            };
            let shared = self.hosts[host].links.shared;
            match command {
                Command::Sync(sync) => {
                    let name = &self.hosts[host].name;
                    self.trace.line(
                        self.now,
                        format_args!("{name}: {:?} {} of {}", sync.kind, sync.counter, sync.group),
                    );
                    self.checks.sync_sent(self.now, binding, &sync);
                    self.ask(host, shared, Purpose::Sync { handler }, Request::Sync(sync));
                }
                Command::Install(install) => {
                    let name = &self.hosts[host].name;
                    self.trace.line(
                        self.now,
                        format_args!(
                            "{name}: installs generation {} of {}: {:?}",
                            install.generation, install.group, install.assignment
                        ),
                    );
                    self.ask(
                        host,
                        shared,
                        Purpose::Install { handler },
                        Request::Install(install),
                    );
                }
                Command::Assign(p) => self.tell(host, handler, p, ConsumerEvent::Assigned),
                Command::Revoke(p) => self.tell(host, handler, p, ConsumerEvent::Revoked),
                Command::Verify => self.verify(host, handler),
                Command::Now(standing) => self.stands(host, handler, &standing),
                // For people.
                Command::Rebalanced { .. } => {}
                Command::Exit(exit) => {
                    return self.exited(host, Some(handler), &Ending::Exit(exit));
                }
            }
        }
        self.publish_trust(host, handler);
        self.set_wake(host, handler);
    }

    fn publish_trust(&mut self, host: usize, handler: usize) {
        let endless = self.mutation == Some(Mutation::NoTrustWindow);
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        let mut trust = supervisor.member.trust_until();
        if endless && trust > Time::ZERO {
            trust = Time(NEVER);
        }
        if std::mem::replace(&mut supervisor.trust, trust) != trust {
            for partition in self.shape.all() {
                self.pump_consumer(host, handler, partition);
            }
        }
    }

    fn set_wake(&mut self, host: usize, handler: usize) {
        let now = self.now;
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        if supervisor.wake <= now {
            supervisor.wake = NEVER;
        }
        let (set, next) = (supervisor.wake, supervisor.member.poll_timeout());
        let Some(next) = next.filter(|next| next.0 < NEVER) else {
            return;
        };
        if next <= self.local(host) {
            return self.defect(
                "a member has nothing to do, and yet asks to be polled at once".to_owned(),
            );
        }
        let at = self.hosts[host].clock.when(next).max(now + 1);
        if at < set {
            if let Some(supervisor) = self.supervisor(host, handler) {
                supervisor.wake = at;
            }
            self.post(host, at, Input::WakeMember { handler });
        }
    }

    pub(super) fn tell(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        event: ConsumerEvent,
    ) {
        self.post(
            host,
            self.now,
            Input::Told {
                handler,
                partition,
                event,
            },
        );
    }

    fn verify(&mut self, host: usize, handler: usize) {
        let shared = self.hosts[host].links.shared;
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        let numbered = supervisor.workers.iter().zip(0..);
        let claims: Vec<_> = numbered
            .filter_map(|(worker, p)| worker.claim.map(|claim| (Partition(p), claim)))
            .collect();
        let bound = &self.bindings[self.hosts[host]
            .process
            .as_ref()
            .map_or(0, |p| p.supervisors[handler].binding)];
        let request = Request::Verify(Verify {
            stream: self.streams[bound.stream].clone(),
            group: bound.group.clone(),
            partitions: claims.iter().map(|(partition, _)| *partition).collect(),
        });
        self.ask(host, shared, Purpose::Verify { handler, claims }, request);
    }

    pub(super) fn answered(
        &mut self,
        host: usize,
        purpose: Purpose,
        result: Result<Reply, Failure>,
    ) {
        match purpose {
            Purpose::Prepare => {}
            Purpose::Sync { handler } => {
                let result = result.map(|reply| match reply {
                    Reply::Sync(reply) => reply,
                    other => unreachable!("{other:?} to a sync"),
                });
                let life = self.redis.life();
                if let Ok(reply) = &result
                    && let Some(process) = &mut self.hosts[host].process
                    && let Some(supervisor) = process.supervisors.get_mut(handler)
                {
                    let member = matches!(reply, SyncReply::Member(_));
                    if member {
                        supervisor.served_by = Some(life);
                    }
                    let incarnation = &supervisor.incarnation;
                    self.checks
                        .sync_answered(supervisor.binding, incarnation, member);
                }
                self.member_event(host, handler, MemberEvent::Synced(result));
            }
            Purpose::Install { handler } => {
                let result = result.map(|reply| match reply {
                    Reply::Install(reply) => reply,
                    other => unreachable!("{other:?} to an install"),
                });
                self.member_event(host, handler, MemberEvent::Installed(result));
            }
            Purpose::Verify { handler, claims } => {
                let blind = self.mutation == Some(Mutation::NoVerify);
                if let Ok(Reply::Verify(reply)) = result
                    && !blind
                {
                    for ((partition, claim), found) in claims.into_iter().zip(reply.leases) {
                        let event = ConsumerEvent::Verified { claim, found };
                        self.tell(host, handler, partition, event);
                    }
                }
                self.member_event(host, handler, MemberEvent::Verified);
            }
            Purpose::Acquire { handler, partition } => {
                let result = result.map(|reply| match reply {
                    Reply::Acquire(reply) => reply,
                    other => unreachable!("{other:?} to an acquire"),
                });
                self.worker_event(host, handler, partition, ConsumerEvent::Acquired(result));
            }
            Purpose::Commit {
                handler,
                partition,
                epoch,
                emits,
            } => {
                let result = result.map(|reply| match reply {
                    Reply::Commit(reply) => reply,
                    other => unreachable!("{other:?} to a commit"),
                });
                if let Ok(CommitReply::Committed { .. }) = &result {
                    let event = relay::Event::Committed { epoch, emits };
                    self.relay_event(host, handler, partition, event);
                }
                let event = ConsumerEvent::Committed { epoch, result };
                self.worker_event(host, handler, partition, event);
            }
            Purpose::Relay {
                handler,
                partition,
                asked,
            } => self.relay_answered(host, (handler, partition), asked, result),
            Purpose::Release { handler, partition } => {
                let result = result.map(|reply| match reply {
                    Reply::Release(reply) => reply,
                    other => unreachable!("{other:?} to a release"),
                });
                self.worker_event(host, handler, partition, ConsumerEvent::Released(result));
            }
            Purpose::Read { handler } => self.read_answered(host, handler, result),
        }
    }

    fn stands(&mut self, host: usize, handler: usize, standing: &Standing) {
        let name = &self.hosts[host].name;
        self.trace.line(
            self.now,
            format_args!("{name}: handler {handler} is {standing:?}"),
        );
    }

    /// The subscription is there again: news may have been missed.
    pub(super) fn resubscribe(&mut self, host: usize, handler: usize) {
        let shared = self.hosts[host].links.shared;
        if self.redis.is_down() || self.now < self.links[shared.0].blocked_until {
            self.post(host, self.now + 150_000, Input::Resubscribe { handler });
            return;
        }
        if let Some(supervisor) = self.supervisor(host, handler) {
            supervisor.reader.subscribed = true;
            self.member_event(host, handler, MemberEvent::News(News::Changed));
        }
    }

    /// Told to all who listen, as a publish does.
    pub(super) fn publish(&mut self, binding: usize, news: &News) {
        for host in 0..self.hosts.len() {
            let shared = self.hosts[host].links.shared;
            let Some(process) = &self.hosts[host].process else {
                continue;
            };
            let Some(handler) = process
                .supervisors
                .iter()
                .position(|s| s.binding == binding && s.reader.subscribed && !s.exited)
            else {
                continue;
            };
            let lossy = self.plan.has(Kind::NewsLost) && self.now < self.plan.faults_until;
            if lossy && self.rng.per_mille(400) {
                self.count(Kind::NewsLost);
                continue;
            }
            let at = (self.now + self.latency(shared)).max(self.links[shared.0].blocked_until);
            let news = news.clone();
            self.post(host, at, Input::News { handler, news });
        }
    }

    /// Called when it is asked to leave, when calls are to be cut, and at the very end of the time to
    /// drain.
    pub(super) fn drain(&mut self, host: usize, handler: usize) {
        let now = self.local(host);
        let Some(by) = self.hosts[host].process.as_ref().and_then(|p| p.leave_by) else {
            return;
        };
        let grace = (self.plan.drain_timeout / 5).min(std::time::Duration::from_secs(1));
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        if !std::mem::replace(&mut supervisor.leaving, true) {
            let cut_at = Time(by.0 - u64::try_from(grace.as_micros()).unwrap_or(0));
            supervisor.cut_at = Some(cut_at);
            for at in [cut_at, by] {
                let at = self.hosts[host].clock.when(at);
                self.post(host, at.max(self.now + 1), Input::DrainEnds { handler });
            }
            self.member_event(host, handler, MemberEvent::Leave);
            return;
        }
        if supervisor.cut_at.is_some_and(|at| now >= at) {
            supervisor.cut_at = None;
            for partition in self.shape.all() {
                self.tell(host, handler, partition, ConsumerEvent::Cut);
            }
        } else if now >= by {
            self.exited(host, Some(handler), &Ending::DrainTimeout);
        }
    }
}
