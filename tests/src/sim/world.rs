//! The world: virtual time, what happens next, and who is in it. One thread, one seed, one order. It hands
//! each event to whom it concerns and must not know what they do with it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use segmenter_core::backoff::Backoff;
use segmenter_core::lease::Owner;
use segmenter_core::names::{Partition, Shape, StreamId};
use segmenter_core::port::{Failure, Reply};
use segmenter_core::time::Duration;

use super::check::{self, Binding, Checks, Verdict, View, Violation};
use super::clock::Clock;
use super::host::{Host, Input, Links};
use super::ledger::Ledger;
use super::mutation::Mutation;
use super::net::{Asker, Link, LinkId, Packet};
use super::plan::{Fault, Kind, Plan};
use super::producer::{Producer, Wake};
use super::redis::Redis;
use super::rng::Rng;
use super::supervisor::Supervisor;
use super::swap::{Behaviour, Lineup};
use super::trace::Trace;

pub(super) struct World {
    pub(super) seed: u64,
    /// Microseconds since the world began, true for everyone; no actor sees it.
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    pub(super) mutation: Option<Mutation>,
    pub(super) shape: Shape,
    pub(super) streams: Vec<StreamId>,
    /// What handlers emit to.
    pub(super) target: StreamId,
    pub(super) bindings: Vec<Binding>,
    /// Of each binding.
    pub(super) wanted: Vec<Lineup>,
    pub(super) deploys: u64,
    pub(super) retry: Backoff,
    pub(super) links: Vec<Link>,
    pub(super) tokens: u64,
    pub(super) redis: Redis,
    pub(super) hosts: Vec<Host>,
    pub(super) producers: Vec<Producer>,
    pub(super) ledger: Ledger,
    pub(super) checks: Checks,
    pub(super) trace: Trace,
    pub(super) counts: Counts,
    /// The first one ends the world.
    pub(super) violation: Option<Violation>,
    settled: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Requests.
    pub(super) messages: u64,
    pub(super) faults: BTreeMap<Kind, u64>,
}

#[derive(Debug)]
pub(super) enum Event {
    Fault(Fault),
    FaultsEnd,
    Arrive(Box<Packet>),
    Reply {
        link: LinkId,
        token: u64,
        result: Result<Reply, Failure>,
    },
    Unblock {
        link: LinkId,
        token: u64,
    },
    RedisBack,
    Reach {
        host: usize,
        life: u64,
        input: Input,
    },
    Resume {
        host: usize,
        life: u64,
    },
    Start {
        host: usize,
    },
    Producer {
        producer: usize,
        wake: Wake,
    },
    Look,
}

struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Between two looks at whether everything has settled.
const LOOK_EVERY: u64 = 100_000;
/// More events than any seed needs: whoever is in a loop ends here.
const EVENTS_MAX: u64 = 2_000_000;

impl World {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>, keep_trace: bool) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let shape = Shape::new(plan.partitions, plan.capacity).expect("valid numbers");
        let streams: Vec<StreamId> = (0..plan.streams)
            .map(|stream| StreamId {
                namespace: "sim".parse().expect("a name"),
                stream: format!("s{stream}").parse().expect("a name"),
            })
            .collect();
        let target = StreamId {
            namespace: "sim".parse().expect("a name"),
            stream: check::TARGET.parse().expect("a name"),
        };
        let bindings: Vec<Binding> = (0..plan.streams)
            .flat_map(|stream| (0..plan.groups).map(move |group| (stream, group)))
            .map(|(stream, group)| Binding {
                stream,
                group: format!("g{group}").parse().expect("a name"),
            })
            .collect();
        let mut links = Vec::new();
        let mut link = || {
            links.push(Link::default());
            LinkId(links.len() - 1)
        };
        // One more than planned: the second host of a member id that lives.
        let hosts = (0..=plan.hosts).map(|host| {
            let clock = Clock::new(
                rng.below(1_000_000_000_000),
                rng.between(0, 20_000) as i64 - 10_000,
            );
            let readers = bindings.iter().map(|_| link()).collect();
            Host::new(
                format!("h{host}"),
                clock,
                Links {
                    shared: link(),
                    readers,
                },
            )
        });
        let hosts = hosts.collect();
        let producers = (0..plan.producers).map(|producer| {
            let messages = plan.messages / plan.producers;
            Producer::new(producer % plan.streams, link(), messages, plan.partitions)
        });
        let producers = producers.collect();
        let mutations = mutation.map(Mutation::of_broker).unwrap_or_default();
        let redis = Redis::new(Clock::new(1_700_000_000_000_000, 0), mutations);
        World {
            seed,
            now: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            mutation,
            shape,
            streams,
            target: target.clone(),
            wanted: Vec::new(),
            deploys: 0,
            retry: Backoff {
                initial: Duration::from_millis(20),
                max: Duration::from_millis(300),
            },
            links,
            tokens: 0,
            redis,
            hosts,
            producers,
            ledger: Ledger::new(bindings.len()),
            checks: Checks::new(&plan, target),
            trace: Trace::new(keep_trace),
            counts: Counts::default(),
            violation: None,
            settled: false,
            bindings,
            plan,
            rng,
        }
    }

    pub(super) fn run(&mut self) {
        self.trace.line(0, format_args!("{:?}", self.plan));
        let first = Lineup::first(self.version(Behaviour::Good, 0));
        self.wanted = vec![first; self.bindings.len()];
        for (binding, wanted) in self.wanted.iter().enumerate() {
            self.checks.trusted(binding, wanted.current());
        }
        for (at, fault) in self.plan.schedule.clone() {
            self.schedule(at, Event::Fault(fault));
        }
        self.schedule(self.plan.faults_until, Event::FaultsEnd);
        for producer in 0..self.producers.len() {
            self.find_stream(producer);
            let at = self.rng.below(500_000);
            self.schedule(
                at,
                Event::Producer {
                    producer,
                    wake: Wake::Make,
                },
            );
        }
        let mut events = 0;
        while self.violation.is_none() && !self.settled {
            let Some(Reverse(next)) = self.queue.pop() else {
                return self.defect("nothing is left to happen".to_owned());
            };
            events += 1;
            if events > EVENTS_MAX {
                return self.defect(format!("{EVENTS_MAX} events and no end"));
            }
            self.now = next.at;
            self.happen(next.event);
        }
    }

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        let number = self.scheduled;
        let at = at.max(self.now);
        self.queue.push(Reverse(Scheduled { at, number, event }));
    }

    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.violation.is_none()
        {
            self.trace.line(
                self.now,
                format_args!("VIOLATED {}: {}", violation.rule, violation.what),
            );
            self.violation = Some(violation);
        }
    }

    /// Something happened that must not, whatever the faults.
    pub(super) fn defect(&mut self, what: String) {
        self.judge(Err(Violation {
            rule: "no defect",
            what,
        }));
    }

    pub(super) fn count(&mut self, kind: Kind) {
        *self.counts.faults.entry(kind).or_default() += 1;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.befall(fault),
            Event::FaultsEnd => self.faults_end(),
            Event::Arrive(packet) => self.arrive(*packet),
            Event::Reply {
                link,
                token,
                result,
            } => self.reply(link, token, result),
            Event::Unblock { link, token } => self.unblock(link, token),
            Event::RedisBack => self.redis_back(),
            Event::Reach { host, life, input } => self.reach(host, life, input),
            Event::Resume { host, life } => self.resume(host, life),
            Event::Start { host } => self.start_again(host),
            Event::Producer { producer, wake } => self.wake_producer(producer, wake),
            Event::Look => self.look(),
        }
    }

    fn reply(&mut self, link: LinkId, token: u64, result: Result<Reply, Failure>) {
        match self.links[link.0].outstanding.remove(&token) {
            // Given up, or answered before.
            None => {}
            Some(Asker::Producer { producer, purpose }) => {
                self.producer_answered(producer, purpose, result)
            }
            Some(Asker::Host {
                host,
                life,
                purpose,
            }) => {
                self.reach(host, life, Input::Answer { purpose, result });
            }
        }
    }

    fn look(&mut self) {
        let Some(why) = self.unsettled() else {
            self.settled = true;
            return self
                .trace
                .line(self.now, format_args!("everything has settled"));
        };
        if self.now < self.plan.settled_by {
            return self.schedule(self.now + LOOK_EVERY, Event::Look);
        }
        let after = (self.now - self.plan.faults_until) / 1_000_000;
        self.judge(Err(Violation {
            rule: "settles after the faults",
            what: format!("{after} s after the last fault: {why}"),
        }));
    }

    /// Why this is not the end yet.
    fn unsettled(&self) -> Option<String> {
        if self.redis.is_down() {
            return Some("redis is down".to_owned());
        }
        if let Some(at) = self.producers.iter().position(|p| !p.is_done()) {
            return Some(format!("producer {at} is not done"));
        }
        let view = View {
            broker: &self.redis.broker,
            bindings: &self.bindings,
            streams: &self.streams,
            shape: self.shape,
            effects: self.redis.effects,
            time_us: self.redis.clock.at(self.now).0,
        };
        for (binding, bound) in self.bindings.iter().enumerate() {
            let stream = &self.streams[bound.stream];
            let serving = self.serving(binding);
            let mut sizes = vec![0_u32; serving.len()];
            for partition in self.shape.all() {
                let Some(lease) = self.redis.broker.lease(stream, partition, &bound.group) else {
                    return Some(format!("{}/{partition} has no lease", bound.group));
                };
                let owner = lease.owner.as_ref().map(|owner| &owner.incarnation);
                let place = serving
                    .iter()
                    .position(|one| Some(&one.incarnation) == owner);
                let Some(place) = place else {
                    return Some(format!(
                        "{}/{partition} of {stream} has no owner that lives: {:?}",
                        bound.group,
                        lease.view()
                    ));
                };
                sizes[place] += 1;
                // A commit that acks nothing, and only says what handles: no owner notices if it takes
                // effect once more later, or is lost.
                let exact = !self.plan.has(Kind::Twice) && !self.plan.has(Kind::Rollback);
                let another = says_another(lease.owner.as_ref(), serving[place], partition);
                if let Some(why) = another.filter(|_| exact) {
                    return Some(format!("{}/{partition}: {why}", bound.group));
                }
                let last = self.redis.broker.entries(stream, partition).next_back();
                if last.is_some_and(|last| last.id > lease.acked) {
                    return Some(format!(
                        "{}/{partition} is acked through {} only",
                        bound.group, lease.acked
                    ));
                }
            }
            let (least, most) = (sizes.iter().min(), sizes.iter().max());
            if most > least.map(|least| least + 1).as_ref() {
                return Some(format!("{} is not spread evenly: {sizes:?}", bound.group));
            }
        }
        self.checks.unsettled(&view, &self.ledger)
    }

    /// The supervisors that serve a group and stay.
    fn serving(&self, binding: usize) -> Vec<&Supervisor> {
        let staying = self.hosts.iter().filter_map(|host| host.process.as_ref());
        staying
            .filter(|process| process.leave_by.is_none())
            .flat_map(|process| &process.supervisors)
            .filter(|supervisor| supervisor.binding == binding && !supervisor.exited)
            .collect()
    }

    pub(super) fn start_looking(&mut self) {
        self.schedule(self.now + LOOK_EVERY, Event::Look);
    }
}

/// What handles a partition is what its lease says.
fn says_another(owner: Option<&Owner>, by: &Supervisor, partition: Partition) -> Option<String> {
    let (says, runs) = (
        &owner?.version,
        &by.workers[partition.0 as usize].runs.version,
    );
    (says != runs).then(|| format!("{runs} handles, and the lease says {says}"))
}
