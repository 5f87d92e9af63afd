//! A host process: starts, registers streams and groups, runs a supervisor per handler, stands still, ends,
//! and is started again. Mirrors `segmenter`'s `host/mod.rs` and `prepare.rs`. Must not know what a
//! supervisor or a worker does.

use std::collections::{BTreeMap, VecDeque};

use segmenter_core::consumer::{Claim, Event as ConsumerEvent};
use segmenter_core::lease::Epoch;
use segmenter_core::member::{Event as MemberEvent, Exit, News};
use segmenter_core::names::{MemberId, Partition, Uid};
use segmenter_core::port::{Failure, Reply, Request, Stamped};
use segmenter_core::time::Time;

use super::clock::Clock;
use super::net::{Asker, LinkId};
use super::prepare::Step;
use super::relay::Asked;
use super::supervisor::Supervisor;
use super::swap::Lineup;
use super::world::{Event, World};

#[derive(Debug)]
pub(super) struct Host {
    /// Stable over restarts if it is configured.
    pub(super) name: String,
    /// Counts its starts; what was meant for an earlier one reaches nobody.
    pub(super) life: u64,
    pub(super) clock: Clock,
    pub(super) process: Option<Process>,
    /// Stands still until then.
    pub(super) paused_until: u64,
    backlog: VecDeque<Input>,
    pub(super) links: Links,
}

/// What one start of it is.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) member: MemberId,
    pub(super) preparing: VecDeque<Step>,
    pub(super) uids: BTreeMap<usize, Uid>,
    /// Those that ended stay in their place: what was meant for them reaches nobody.
    pub(super) supervisors: Vec<Supervisor>,
    /// Of each binding: what its partitions run.
    pub(super) published: Vec<Lineup>,
    pub(super) leave_by: Option<Time>,
}

/// One for everything but reads; one for the reads of each handler.
#[derive(Debug, Clone)]
pub(super) struct Links {
    pub(super) shared: LinkId,
    pub(super) readers: Vec<LinkId>,
}

/// Why a handler is served no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Exit(Exit),
    DrainTimeout,
    /// A partition is broken, and an operator starts the host again.
    Mended,
}

/// What an answer is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Prepare,
    Sync {
        handler: usize,
    },
    Install {
        handler: usize,
    },
    Verify {
        handler: usize,
        claims: Vec<(Partition, Claim)>,
    },
    Acquire {
        handler: usize,
        partition: Partition,
    },
    Commit {
        handler: usize,
        partition: Partition,
        epoch: Epoch,
        emits: Vec<Stamped>,
    },
    Relay {
        handler: usize,
        partition: Partition,
        asked: Asked,
    },
    Release {
        handler: usize,
        partition: Partition,
    },
    Read {
        handler: usize,
    },
}

/// What reaches a process, or wakes it.
#[derive(Debug)]
pub(super) enum Input {
    Answer {
        purpose: Purpose,
        result: Result<Reply, Failure>,
    },
    Told {
        handler: usize,
        partition: Partition,
        event: ConsumerEvent,
    },
    Dropped {
        handler: usize,
        partition: Partition,
        refuse: bool,
    },
    News {
        handler: usize,
        news: News,
    },
    Resubscribe {
        handler: usize,
    },
    Reconnect {
        handler: usize,
    },
    WakeMember {
        handler: usize,
    },
    WakeConsumer {
        handler: usize,
        partition: Partition,
    },
    WakeRelay {
        handler: usize,
        partition: Partition,
    },
    CallEnds {
        handler: usize,
        partition: Partition,
        call: u64,
    },
    DrainEnds {
        handler: usize,
    },
    /// An operator sees that a partition is broken.
    Mend {
        handler: usize,
        partition: Partition,
    },
    Prepare,
    /// Another lineup of a binding's handler is loaded.
    Published {
        binding: usize,
        lineup: Lineup,
    },
}

impl Input {
    /// What travels one way keeps its order, also when much has piled up.
    fn channel(&self) -> (u8, usize, u32) {
        match self {
            Input::Answer { purpose, .. } => match purpose {
                Purpose::Prepare => (0, 0, 0),
                Purpose::Sync { handler }
                | Purpose::Install { handler }
                | Purpose::Verify { handler, .. } => (1, *handler, 0),
                Purpose::Read { handler } => (2, *handler, 0),
                Purpose::Acquire { handler, partition }
                | Purpose::Commit {
                    handler, partition, ..
                }
                | Purpose::Relay {
                    handler, partition, ..
                }
                | Purpose::Release { handler, partition } => (3, *handler, partition.0),
            },
            Input::Told {
                handler, partition, ..
            } => (3, *handler, partition.0),
            Input::Dropped { handler, .. } => (4, *handler, 0),
            Input::News { handler, .. } | Input::Resubscribe { handler } => (5, *handler, 0),
            Input::Reconnect { handler } => (2, *handler, 0),
            Input::WakeMember { handler } => (6, *handler, 0),
            Input::WakeConsumer { handler, partition }
            | Input::WakeRelay { handler, partition } => (7, *handler, partition.0),
            Input::CallEnds {
                handler, partition, ..
            } => (8, *handler, partition.0),
            Input::DrainEnds { handler } | Input::Mend { handler, .. } => (9, *handler, 0),
            Input::Prepare => (0, 0, 0),
            Input::Published { binding, .. } => (10, *binding, 0),
        }
    }
}

impl Host {
    pub(super) fn new(name: String, clock: Clock, links: Links) -> Host {
        Host {
            name,
            life: 0,
            clock,
            process: None,
            paused_until: 0,
            backlog: VecDeque::new(),
            links,
        }
    }
}

impl World {
    pub(super) fn local(&self, host: usize) -> Time {
        self.hosts[host].clock.at(self.now)
    }

    /// Starts the process unless one runs. `member`: the id to use instead of its own.
    pub(super) fn start(&mut self, host: usize, member: Option<MemberId>) {
        if self.hosts[host].process.is_some() {
            return;
        }
        let h = &mut self.hosts[host];
        h.life += 1;
        h.paused_until = 0;
        h.backlog.clear();
        let start = format!("{}.{}", h.name, h.life);
        let configured = self.plan.configured;
        let own = if configured { h.name.clone() } else { start };
        let member = member.unwrap_or_else(|| own.parse().expect("a name"));
        let mut preparing: VecDeque<Step> = (0..self.plan.streams)
            .map(|stream| Step::Register { stream })
            .collect();
        preparing.push_back(Step::RegisterTarget);
        for (binding, _) in self.bindings.iter().enumerate() {
            for partition in self.shape.all() {
                preparing.push_back(Step::Ensure { binding, partition });
            }
            preparing.push_back(Step::Run { binding });
        }
        self.trace.line(
            self.now,
            format_args!("host {} starts as {member}", self.hosts[host].name),
        );
        let published = self.first_lineups(host);
        self.hosts[host].process = Some(Process {
            member,
            preparing,
            uids: BTreeMap::new(),
            supervisors: Vec::new(),
            published,
            leave_by: None,
        });
        self.prepare(host);
    }

    /// Whoever looks after it starts it again, once its last process is gone.
    pub(super) fn start_again(&mut self, host: usize) {
        let leaving = self.hosts[host]
            .process
            .as_ref()
            .is_some_and(|p| p.leave_by.is_some());
        if leaving {
            self.schedule(self.now + 200_000, Event::Start { host });
        } else {
            self.start(host, None);
        }
    }

    /// The process is gone, and with it everything that it knew.
    pub(super) fn end_process(&mut self, host: usize, why: &str) {
        if self.hosts[host].process.take().is_none() {
            return;
        }
        self.trace.line(
            self.now,
            format_args!("host {} ends: {why}", self.hosts[host].name),
        );
        self.hosts[host].backlog.clear();
        let Links { shared, readers } = self.hosts[host].links.clone();
        for link in readers.into_iter().chain([shared]) {
            self.links[link.0].outstanding.clear();
        }
    }

    pub(super) fn leave(&mut self, host: usize) {
        let drain = self.plan.drain_timeout;
        let by = self.local(host) + drain;
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else {
            return;
        };
        if process.leave_by.replace(by).is_some() {
            return;
        }
        self.trace
            .line(self.now, format_args!("host {} leaves", h.name));
        process.preparing.clear();
        let handlers = process.supervisors.len();
        if process.supervisors.iter().all(|s| s.exited) {
            self.end_process(host, "asked to, and nothing runs");
        }
        for handler in 0..handlers {
            self.input(host, Input::DrainEnds { handler });
        }
    }

    fn supervisors(&self, host: usize) -> usize {
        let process = self.hosts[host].process.as_ref();
        process.map_or(0, |process| process.supervisors.len())
    }

    pub(super) fn pause(&mut self, host: usize, us: u64) {
        if self.hosts[host].process.is_none() {
            return;
        }
        self.trace.line(
            self.now,
            format_args!("host {} stands still for {us} µs", self.hosts[host].name),
        );
        let (until, life) = (self.now + us, self.hosts[host].life);
        let h = &mut self.hosts[host];
        h.paused_until = h.paused_until.max(until);
        self.schedule(until, Event::Resume { host, life });
    }

    /// Its clock is another: whoever waits for a moment looks again.
    pub(super) fn wake_all(&mut self, host: usize) {
        for handler in 0..self.supervisors(host) {
            self.post(host, self.now, Input::WakeMember { handler });
            for partition in self.shape.all() {
                self.post(host, self.now, Input::WakeConsumer { handler, partition });
                self.post(host, self.now, Input::WakeRelay { handler, partition });
            }
        }
    }

    /// Everything that piled up, one after the other; each way of travel in its order.
    pub(super) fn resume(&mut self, host: usize, life: u64) {
        if self.hosts[host].life != life || self.now < self.hosts[host].paused_until {
            return;
        }
        self.trace.line(
            self.now,
            format_args!("host {} goes on", self.hosts[host].name),
        );
        while !self.hosts[host].backlog.is_empty() {
            let near = self.hosts[host].backlog.len().min(8);
            let pick = self.rng.index(near);
            let backlog = &mut self.hosts[host].backlog;
            let channel = backlog[pick].channel();
            let first = backlog.iter().position(|input| input.channel() == channel);
            let Some(input) = first.and_then(|first| backlog.remove(first)) else {
                return;
            };
            self.input(host, input);
        }
    }

    pub(super) fn reach(&mut self, host: usize, life: u64, input: Input) {
        if self.hosts[host].life != life || self.hosts[host].process.is_none() {
            return;
        }
        if self.now < self.hosts[host].paused_until {
            self.hosts[host].backlog.push_back(input);
            return;
        }
        self.input(host, input);
    }

    fn input(&mut self, host: usize, input: Input) {
        if self.hosts[host].process.is_none() {
            return;
        }
        match input {
            Input::Answer {
                purpose: Purpose::Prepare,
                result,
            } => self.prepared(host, result),
            Input::Prepare => self.prepare(host),
            Input::Answer { purpose, result } => self.answered(host, purpose, result),
            Input::Told {
                handler,
                partition,
                event,
            } => {
                self.worker_event(host, handler, partition, event);
            }
            Input::Dropped {
                handler,
                partition,
                refuse,
            } => {
                let event = MemberEvent::Dropped { partition, refuse };
                self.member_event(host, handler, event);
            }
            Input::News { handler, news } => {
                self.member_event(host, handler, MemberEvent::News(news));
            }
            Input::Resubscribe { handler } => self.resubscribe(host, handler),
            Input::Reconnect { handler } => self.reconnect(host, handler),
            Input::WakeMember { handler } => self.pump_member(host, handler),
            Input::WakeConsumer { handler, partition } => {
                self.pump_consumer(host, handler, partition);
            }
            Input::WakeRelay { handler, partition } => self.pump_relay(host, handler, partition),
            Input::CallEnds {
                handler,
                partition,
                call,
            } => {
                self.call_ends(host, handler, partition, call);
            }
            Input::DrainEnds { handler } => self.drain(host, handler),
            Input::Mend { handler, partition } => self.mend(host, handler, partition),
            Input::Published { binding, lineup } => self.published(host, binding, lineup),
        }
    }

    /// Reaches the process after a moment that no network takes.
    pub(super) fn post(&mut self, host: usize, at: u64, input: Input) {
        let life = self.hosts[host].life;
        self.schedule(at, Event::Reach { host, life, input });
    }

    pub(super) fn ask(
        &mut self,
        host: usize,
        link: LinkId,
        purpose: Purpose,
        request: Request,
    ) -> u64 {
        let life = self.hosts[host].life;
        self.send(
            link,
            Asker::Host {
                host,
                life,
                purpose,
            },
            request,
        )
    }

    /// One of its handlers ended, or it could not begin. Unless it was asked to leave, the host ends, too,
    /// and is started again by whoever started it; but not when another took its place.
    pub(super) fn exited(&mut self, host: usize, handler: Option<usize>, ending: &Ending) {
        if let Ending::Exit(Exit::Fatal(why)) = ending {
            return self.defect(format!("a member ended: {why}"));
        }
        let name = self.hosts[host].name.clone();
        self.trace.line(
            self.now,
            format_args!("host {name}: handler {handler:?} ends: {ending:?}"),
        );
        let gone = matches!(ending, Ending::Exit(Exit::StreamGone | Exit::GroupGone));
        if gone
            && let Some(handler) = handler
            && self.was_lost(host, handler)
        {
            return self.revive(host, handler);
        }
        let asked = self.hosts[host]
            .process
            .as_ref()
            .is_some_and(|p| p.leave_by.is_some());
        if !asked && *ending != Ending::Exit(Exit::Superseded) {
            let back = self.now + self.rng.between(200_000, 1_500_000);
            self.schedule(back, Event::Start { host });
        }
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        if let Some(supervisor) = handler.and_then(|handler| process.supervisors.get_mut(handler)) {
            supervisor.exited = true;
        }
        process.preparing.clear();
        if process
            .supervisors
            .iter()
            .all(|supervisor| supervisor.exited)
        {
            self.end_process(host, "all its handlers ended");
        } else {
            self.leave(host);
        }
    }
}
