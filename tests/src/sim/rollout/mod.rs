//! How versions go live, simulated: the shipping `Follower` of several hosts and their reports against the
//! deployments of the broker in memory, while hosts die, requests are lost, late or done twice, Redis loses
//! its last writes, and deployers and operators interfere. No messages: calls are counted as the version's
//! behaviour says. One seed gives one run.

mod check;
mod host;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;

use segmenter_core::names::{HandlerId, Version};
use segmenter_core::port::{Deploy, Failure, How, Reply, Request, RollBack, StoreModule};
use segmenter_core::rollout::Share;
use segmenter_core::time::Duration;
use segmenter_redis::version_of;

use self::host::{Host, Purpose};
use super::rng::Rng;
use crate::broker::MemoryBroker;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const PARTITIONS: u32 = 8;
const LATENCY: u64 = 500;
/// A little of everything, until this moment...
const FAULTS_UNTIL: u64 = 90 * SECOND;
/// ...then a time in which all that was begun must come to its end: the longest trial, the longest wait
/// before a load is tried again, and the time after which a silent host is not waited for.
const SETTLED_AT: u64 = FAULTS_UNTIL + 60 * SECOND;
const RESPONSE_TIMEOUT: u64 = 5 * SECOND;
/// Between two calls of one partition.
const CALL_EVERY: u64 = 100 * MS;

/// A protection that is taken out, to see whether it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutMutation {
    /// A trial is settled whatever is wanted by now.
    SettledUnseen,
    /// A host that has not loaded the candidate is not waited for.
    NobodyWaits,
    /// Hosts follow only what is newer by its number, although Redis may have gone back.
    NeverBack,
    /// What was published is not published again when what is wanted comes back to it.
    LoadedOnce,
}

impl RolloutMutation {
    pub const ALL: [RolloutMutation; 4] = [
        RolloutMutation::SettledUnseen,
        RolloutMutation::NobodyWaits,
        RolloutMutation::NeverBack,
        RolloutMutation::LoadedOnce,
    ];
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutReport {
    pub violation: Option<String>,
    pub deploys: u64,
    pub promoted: u64,
    pub rolled_back: u64,
    pub faults: u64,
    pub trace: String,
}

/// How a version's calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Good,
    /// It acks nothing.
    Bad,
    /// Each call takes a hundred times as long.
    Slow,
    /// Some hosts cannot load it.
    Refused,
}

#[derive(Debug)]
enum Event {
    /// A host's process begins, if it has none.
    Start(usize),
    Kill(usize),
    Turn {
        host: usize,
        life: u64,
    },
    Arrive {
        asker: Option<(usize, u64, Purpose)>,
        request: Box<Request>,
        answered: bool,
    },
    Answer {
        host: usize,
        life: u64,
        purpose: Purpose,
        reply: Result<Box<Reply>, Failure>,
    },
    Calls,
    Operator,
    Snapshot,
    /// Redis is back as it was at the last snapshot.
    GoesBack,
}

struct World {
    now: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    rng: Rng,
    mutation: Option<RolloutMutation>,
    redis: MemoryBroker,
    snapshot: MemoryBroker,
    hosts: Vec<Host>,
    versions: BTreeMap<Version, Behaviour>,
    checks: check::Checks,
    report: RolloutReport,
}

fn handler() -> HandlerId {
    HandlerId {
        namespace: "shop".parse().expect("a name"),
        handler: "billing".parse().expect("a name"),
    }
}

/// One seed, from beginning to end.
pub fn run(seed: u64, mutation: Option<RolloutMutation>) -> RolloutReport {
    let mut rng = Rng::new(seed);
    let hosts = rng.between(1, 5) as usize;
    let mut world = World {
        now: SECOND,
        seq: 0,
        queue: BinaryHeap::new(),
        events: BTreeMap::new(),
        rng,
        mutation,
        redis: MemoryBroker::default(),
        snapshot: MemoryBroker::default(),
        hosts: (0..hosts).map(Host::new).collect(),
        versions: BTreeMap::new(),
        checks: check::Checks::default(),
        report: RolloutReport::default(),
    };
    world.run();
    if let Some(violation) = &mut world.report.violation {
        violation.insert_str(0, &format!("seed {seed}: "));
    }
    world.report
}

impl World {
    fn run(&mut self) {
        let first = self.version(Behaviour::Good);
        self.redis_does(Deploy {
            handler: handler(),
            version: first,
            how: How::Now,
            by: "first".to_owned(),
            again: false,
        });
        self.snapshot = self.redis.clone();
        for host in 0..self.hosts.len() {
            self.schedule(self.now, Event::Start(host));
        }
        self.schedule(self.now + CALL_EVERY, Event::Calls);
        self.schedule(self.now + SECOND, Event::Operator);
        self.schedule(self.now + SECOND, Event::Snapshot);
        while self.report.violation.is_none() {
            let Some(Reverse((at, seq))) = self.queue.pop() else {
                break;
            };
            if at > SETTLED_AT {
                self.settled();
                break;
            }
            self.now = at;
            let event = self.events.remove(&seq).expect("it was queued");
            self.happens(event);
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse((at, self.seq)));
        self.events.insert(self.seq, event);
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let seconds = self.now as f64 / SECOND as f64;
        let _ = writeln!(self.report.trace, "{seconds:>9.3} {text}");
    }

    fn faulty(&self) -> bool {
        self.now < FAULTS_UNTIL
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Start(host) => self.start(host),
            Event::Kill(host) => self.kill(host),
            Event::Turn { host, life } => {
                if self.is_alive(host, life) {
                    self.turn(host);
                }
            }
            Event::Arrive {
                asker,
                request,
                answered,
            } => self.arrive(asker, *request, answered),
            Event::Answer {
                host,
                life,
                purpose,
                reply,
            } => {
                if self.is_alive(host, life) {
                    self.answered(host, purpose, reply.map(|reply| *reply));
                }
            }
            Event::Calls => {
                self.calls();
                self.schedule(self.now + CALL_EVERY, Event::Calls);
            }
            Event::Operator => self.operator(),
            Event::Snapshot => {
                self.snapshot = self.redis.clone();
                let next = self.now + self.rng.between(SECOND, 3 * SECOND);
                self.schedule(next, Event::Snapshot);
            }
            Event::GoesBack => {
                self.report.faults += 1;
                self.redis = self.snapshot.clone();
                self.checks.went_back();
                self.line(format_args!("redis goes back"));
            }
        }
    }

    /// A new version, its bytes stored.
    fn version(&mut self, behaviour: Behaviour) -> Version {
        let bytes = format!("{behaviour:?} {}", self.versions.len()).into_bytes();
        let version = version_of(&bytes);
        self.versions.insert(version.clone(), behaviour);
        self.store(bytes);
        version
    }

    fn store(&mut self, bytes: Vec<u8>) {
        let store = Request::StoreModule(StoreModule {
            namespace: handler().namespace,
            version: version_of(&bytes),
            bytes,
        });
        let stored = self.redis.execute(self.now, store);
        stored.expect("the broker in memory stores");
    }

    fn redis_does(&mut self, deploy: Deploy) {
        let _ = self.redis.execute(self.now, Request::Deploy(deploy));
    }

    /// Someone does something, at times two at once, until faults end.
    fn operator(&mut self) {
        if !self.faulty() {
            return;
        }
        for _ in 0..self.rng.between(1, 2) {
            self.interferes();
        }
        let next = self.now + self.rng.skewed(SECOND, 15 * SECOND);
        self.schedule(next, Event::Operator);
    }

    fn interferes(&mut self) {
        match self.rng.below(10) {
            0..=4 => {
                let behaviours = [
                    Behaviour::Good,
                    Behaviour::Good,
                    Behaviour::Bad,
                    Behaviour::Slow,
                    Behaviour::Refused,
                ];
                let behaviour = behaviours[self.rng.index(behaviours.len())];
                let lasts = Duration::from_micros(self.rng.skewed(SECOND, 20 * SECOND));
                let percent = [1, 25, 50, 100][self.rng.index(4)];
                let share = Share::percent(percent).expect("1 to 100");
                let how = match self.rng.below(10) {
                    0..=7 => How::Trial { share, lasts },
                    8 => How::Shadow { lasts },
                    // At once is for what one knows to be good.
                    _ => How::Now,
                };
                let trusted = how == How::Now;
                let version = match self.rng.below(4) {
                    // One that was there before.
                    0 => self.known(trusted),
                    _ if trusted => self.version(Behaviour::Good),
                    _ => self.version(behaviour),
                };
                self.report.deploys += 1;
                let again = self.rng.per_mille(300);
                let deploy = Request::Deploy(Deploy {
                    handler: handler(),
                    version,
                    how,
                    by: "deployer".to_owned(),
                    again,
                });
                self.send(None, deploy);
            }
            5 => {
                let roll_back = RollBack {
                    handler: handler(),
                    to: None,
                    reason: self.rng.per_mille(500).then(|| "an operator".to_owned()),
                    by: "operator".to_owned(),
                };
                self.send(None, Request::RollBack(roll_back));
            }
            6 | 7 => {
                let host = self.rng.index(self.hosts.len());
                self.schedule(self.now, Event::Kill(host));
            }
            8 => {
                let host = self.rng.index(self.hosts.len());
                self.configure(host);
            }
            _ => {
                let at = self.now + self.rng.below(SECOND);
                self.schedule(at, Event::GoesBack);
            }
        }
    }

    fn known(&mut self, trusted: bool) -> Version {
        let known = self.versions.iter();
        let known = known.filter(|(_, behaviour)| !trusted || **behaviour == Behaviour::Good);
        let known: Vec<Version> = known.map(|(version, _)| version.clone()).collect();
        let version = known[self.rng.index(known.len())].clone();
        let behaviour = self.versions[&version];
        // A deployer stores the bytes each time.
        let n = self.versions.len();
        let names = (0..n).map(|n| format!("{behaviour:?} {n}").into_bytes());
        let bytes = names.into_iter().find(|b| version_of(b) == version);
        self.store(bytes.expect("it was made so"));
        version
    }

    /// To Redis, with what may befall it on the way. `None`: nobody waits for the answer.
    fn send(&mut self, asker: Option<(usize, u64, Purpose)>, request: Request) {
        let arrives = self.now + self.rng.between(LATENCY / 2, 2 * LATENCY);
        let arrive = |request: &Request, answered| Event::Arrive {
            asker,
            request: Box::new(request.clone()),
            answered,
        };
        let gave_up = |world: &mut World| {
            if let Some((host, life, purpose)) = asker {
                let unknown = Failure::Unknown("no answer".to_owned());
                let at = world.now + world.rng.skewed(MS, RESPONSE_TIMEOUT);
                let reply = Err(unknown);
                let answer = Event::Answer {
                    host,
                    life,
                    purpose,
                    reply,
                };
                world.schedule(at, answer);
            }
        };
        let fate = match self.faulty() {
            true => self.rng.below(100),
            false => 99,
        };
        self.report.faults += u64::from(fate < 12);
        match fate {
            0..=2 => gave_up(self),
            3..=5 => {
                self.schedule(arrives, arrive(&request, false));
                gave_up(self);
            }
            6..=8 => {
                let late = self.now + self.rng.skewed(SECOND, 8 * SECOND);
                self.schedule(late, arrive(&request, false));
                gave_up(self);
            }
            9..=11 => {
                let again = arrives + self.rng.skewed(MS, 5 * SECOND);
                self.schedule(again, arrive(&request, false));
                self.schedule(arrives, arrive(&request, true));
            }
            _ => self.schedule(arrives, arrive(&request, true)),
        }
    }

    fn arrive(
        &mut self,
        asker: Option<(usize, u64, Purpose)>,
        mut request: Request,
        answered: bool,
    ) {
        if let (Some(RolloutMutation::SettledUnseen), Request::Settle(settle)) =
            (self.mutation, &mut request)
            && let Some(pointer) = self.pointer()
        {
            settle.revision = pointer.revision;
            if let Some(candidate) = pointer.candidate {
                settle.version = candidate.version;
            }
        }
        let asked = match &request {
            Request::Report(_) | Request::FetchModule(_) => None,
            other => Some(format!("{other:?}")),
        };
        let before = self.pointer();
        let reply = self.redis.execute(self.now, request.clone());
        if let Some(asked) = asked {
            self.line(format_args!("redis: {asked} -> {reply:?}"));
        }
        self.check_change(&request, before.as_ref(), reply.as_ref().ok());
        if let (Some((host, life, purpose)), true) = (asker, answered) {
            let at = self.now + self.rng.between(LATENCY / 2, 2 * LATENCY);
            let reply = reply.map(Box::new);
            self.schedule(
                at,
                Event::Answer {
                    host,
                    life,
                    purpose,
                    reply,
                },
            );
        }
    }
}
