//! Two consumers of one partition against a model of the log and of the lease, with lost answers, wrong
//! turns of the coordinator, handlers that fail, versions that are swapped and tried, and some that take batches. What must hold is
//! judged by what the handlers and the lease did, not by what the consumers believe. (The simulator of the
//! whole protocol comes on top.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::support::*;
use proptest::prelude::*;
use segmenter_core::batch::{Batch, Takes};
use segmenter_core::consumer::{By, Claim, Command, Config, Consumer, Event, Settled};
use segmenter_core::effects::Effects;
use segmenter_core::entry::RawEntry;
use segmenter_core::lease::{Epoch, Lease, Owner};
use segmenter_core::message::{EntryId, Message};
use segmenter_core::names::Version;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_core::port::{AcquireReply, CommitReply, Failure, ReleaseReply};
use segmenter_core::rollout::Runs;
use segmenter_core::time::{Duration, Time};

/// At one message, under one version.
const ATTEMPTS: u32 = 3;
/// Only ever on trial, and acks nothing.
const BAD: &str = "bad";
/// What a partition may run: a version, how many messages it takes a call, and who is asked instead while it
/// is on trial.
const LINEUPS: [(&str, usize, Option<&str>); 10] = [
    ("v1", 1, None),
    ("v2", 1, None),
    ("v2", 1, Some("v1")),
    ("v1", 1, Some("v2")),
    (BAD, 1, Some("v1")),
    (BAD, 1, Some("v2")),
    ("b3", 3, None),
    ("b3", 3, Some("v1")),
    ("v1", 1, Some("b3")),
    (BAD, 3, Some("b3")),
];

/// One step of the world. Numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone)]
enum Step {
    Append {
        foreign: bool,
    },
    /// The coordinator is not trusted: it may assign to both.
    Assign(bool),
    Revoke(bool),
    /// Carries out the oldest request of a consumer; `fate` decides about effect and answer.
    Execute {
        who: bool,
        fate: u8,
    },
    Call {
        who: bool,
        outcome: u8,
    },
    Verify(bool),
    /// An operator's.
    Halt,
    Resume,
    Seek(u8),
    Wait(u16),
    Kill(bool),
    Runs {
        who: bool,
        lineup: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::bool::weighted(0.1).prop_map(|foreign| Step::Append { foreign }),
        2 => any::<bool>().prop_map(Step::Assign),
        1 => any::<bool>().prop_map(Step::Revoke),
        8 => (any::<bool>(), any::<u8>()).prop_map(|(who, fate)| Step::Execute { who, fate }),
        6 => (any::<bool>(), any::<u8>()).prop_map(|(who, outcome)| Step::Call { who, outcome }),
        1 => any::<bool>().prop_map(Step::Verify),
        1 => Just(Step::Halt),
        2 => Just(Step::Resume),
        1 => any::<u8>().prop_map(Step::Seek),
        2 => (0u16..500).prop_map(Step::Wait),
        1 => prop::bool::weighted(0.5).prop_map(Step::Kill),
        2 => (any::<bool>(), any::<u8>()).prop_map(|(who, lineup)| Step::Runs { who, lineup }),
    ]
}

struct Node {
    consumer: Consumer,
    incarnation: String,
    requests: VecDeque<Command>,
    calling: Option<(Batch, By)>,
    cancelled: bool,
    claimed: Option<Claim>,
    /// Must be synced before it may be assigned again.
    lost: bool,
    /// Ids settled in this tenure, in order.
    settled: Vec<EntryId>,
    runs: Runs,
    /// From the end of the call in the air on.
    runs_next: Option<Runs>,
    /// What the version on trial did not ack in this tenure, or what a takeover said of that.
    doubted: BTreeSet<EntryId>,
    /// Of the batch that broke last in this tenure, under the version that runs.
    alone_through: EntryId,
}

impl Node {
    fn run(&mut self, runs: Runs) {
        if runs.version != self.runs.version {
            self.alone_through = EntryId::ZERO;
        }
        if runs != self.runs {
            self.runs = runs;
            self.doubted.clear();
        }
    }
}

struct World {
    now: Time,
    log: Vec<RawEntry>,
    lease: Lease,
    dead: Vec<EntryId>,
    /// (id, ok) as handlers saw them, of all nodes.
    handled: Vec<(EntryId, bool)>,
    nodes: [Node; 2],
    born: u32,
    /// Failed calls of versions that decide (one that runs and is not on trial, or one that is asked
    /// instead), and crashes that were counted.
    failed: BTreeMap<(EntryId, Version), u32>,
}

impl World {
    fn new() -> World {
        World {
            now: Time(1_000),
            log: Vec::new(),
            lease: Lease::new(EntryId::ZERO, 0),
            dead: Vec::new(),
            handled: Vec::new(),
            nodes: [node(1, lineup(0)), node(2, lineup(0))],
            born: 2,
            failed: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step, faults: bool) {
        match *step {
            Step::Append { foreign: other } => {
                let n = self.log.len() as u64 + 1;
                self.log.push(if other { foreign(n) } else { ours(n) });
            }
            Step::Assign(who) => {
                let node = &mut self.nodes[usize::from(who)];
                node.lost = false;
                node.consumer.handle(self.now, Event::Assigned);
            }
            Step::Revoke(who) => {
                self.nodes[usize::from(who)]
                    .consumer
                    .handle(self.now, Event::Revoked);
            }
            Step::Execute { who, fate } => {
                self.execute(usize::from(who), if faults { fate } else { 0 })
            }
            Step::Call { who, outcome } => {
                self.call(usize::from(who), if faults { outcome } else { 0 })
            }
            Step::Verify(who) => {
                let found = Some(self.lease.view());
                let node = &mut self.nodes[usize::from(who)];
                // The claim of an earlier moment is as good: it only asks for less.
                if let Some(claim) = node.claimed.take() {
                    node.consumer
                        .handle(self.now, Event::Verified { claim, found });
                }
                node.claimed = node.consumer.claim();
            }
            Step::Halt => {
                self.lease.halt("an operator".to_owned(), self.now.0);
            }
            Step::Resume => {
                self.lease.resume(self.now.0);
            }
            // To an entry that is settled: what follows it is handled again.
            Step::Seek(to) => {
                let acked = self.lease.acked.ms;
                let to = u64::from(to).min(acked);
                self.lease.seek(id(to), to, self.now.0);
                self.dead.retain(|dead| dead.ms <= to);
            }
            Step::Wait(ms) => self.now = self.now + Duration::from_millis(u64::from(ms)),
            Step::Kill(who) => {
                if faults {
                    self.born += 1;
                    let runs = self.nodes[usize::from(who)].runs.clone();
                    self.nodes[usize::from(who)] = node(self.born, runs);
                }
            }
            Step::Runs { who, lineup: n } => {
                let node = &mut self.nodes[usize::from(who)];
                let runs = lineup(n);
                node.consumer.handle(self.now, Event::Runs(runs.clone()));
                match node.calling {
                    Some(_) => node.runs_next = Some(runs),
                    None => node.run(runs),
                }
            }
        }
        for who in 0..2 {
            self.poll(who);
        }
    }

    fn poll(&mut self, who: usize) {
        let node = &mut self.nodes[who];
        let mut commands = 0;
        while let Some(command) = node.consumer.poll(self.now, FAR) {
            commands += 1;
            assert!(commands < 1_000, "endless");
            match command {
                Command::Call {
                    epoch,
                    messages,
                    by,
                } => {
                    assert!(node.calling.is_none(), "two calls in the air");
                    let head = messages.first();
                    may_be_called(node, &self.lease, epoch, head, by);
                    may_be_called_together(node, &self.log, &messages, by);
                    let called = (head.id, node.runs.called(by).clone());
                    let failed = self.failed.get(&called).copied().unwrap_or(0);
                    assert!(head.attempt <= failed + 1, "attempts of another version");
                    node.calling = Some((messages, by));
                    node.cancelled = false;
                }
                Command::CancelCall => node.cancelled = true,
                // An answer that was on its way arrives nevertheless.
                Command::StopReading => {}
                Command::DropInstance => {
                    node.settled.clear();
                    node.doubted.clear();
                    node.alone_through = EntryId::ZERO;
                }
                Command::Lost { .. } => node.lost = true,
                Command::Broken { why } => panic!("broken: {why}"),
                Command::Vanished { .. } => panic!("nothing vanished here"),
                Command::Halted { .. } | Command::Resumed => {}
                Command::Commit(_) => {
                    let in_air = node
                        .requests
                        .iter()
                        .any(|r| matches!(r, Command::Commit(_)));
                    assert!(!in_air, "two commits in the air");
                    node.requests.push_back(command);
                }
                other => {
                    assert!(!node.lost, "{other:?} before a sync");
                    node.requests.push_back(other);
                }
            }
        }
    }

    fn call(&mut self, who: usize, outcome: u8) {
        let node = &mut self.nodes[who];
        let Some((messages, by)) = node.calling.take() else {
            return;
        };
        let called = node.runs.called(by).clone();
        let on_trial = by == By::Running && node.runs.instead.is_some();
        let count = messages.count();
        let at = usize::from(outcome / 8) % count;
        let outcome = match outcome % 8 {
            _ if node.cancelled => Outcome::Cancelled,
            0..=4 if called.as_str() != BAD => Outcome::Ok(Effects::default()),
            0 | 1 | 5 => Outcome::Retry {
                at,
                reason: String::new(),
                after: None,
            },
            2 | 6 => Outcome::Broken {
                fault: Fault::Trap,
                reason: String::new(),
            },
            _ => Outcome::Reject {
                at,
                reason: String::new(),
            },
        };
        let rejects = !on_trial && matches!(outcome, Outcome::Reject { .. });
        let (acked, failed) = match &outcome {
            Outcome::Ok(_) => (count, None),
            Outcome::Retry { at, .. } | Outcome::Reject { at, .. } => (*at, Some(*at)),
            Outcome::Broken { .. } if count == 1 => (0, Some(0)),
            Outcome::Broken { .. } => {
                node.alone_through = messages.last().id;
                (0, None)
            }
            Outcome::Cancelled => (0, None),
        };
        for (at, message) in messages.iter().enumerate() {
            let ok = at < acked;
            self.handled.push((message.id, ok));
            if ok || rejects && failed == Some(at) {
                if let Some(last) = node.settled.last() {
                    assert!(*last < message.id, "out of order within a tenure");
                }
                node.settled.push(message.id);
            }
        }
        if let Some(message) = failed.and_then(|at| messages.get(at)) {
            if on_trial {
                node.doubted.insert(message.id);
            } else {
                *self.failed.entry((message.id, called)).or_default() += 1;
            }
        }
        if let Some(runs) = node.runs_next.take() {
            node.run(runs);
        }
        node.consumer
            .handle(self.now, Event::Handled { messages, outcome });
    }

    /// fate: mostly done and answered; else refused, lost before the effect, or lost after it.
    fn execute(&mut self, who: usize, fate: u8) {
        let Some(request) = self.nodes[who].requests.pop_front() else {
            return;
        };
        let (happens, failure) = match fate % 10 {
            0..=6 => (true, None),
            7 => (false, Some(Failure::NotDone("not done".to_owned()))),
            8 => (false, Some(Failure::Unknown("cut before".to_owned()))),
            _ => (true, Some(Failure::Unknown("cut after".to_owned()))),
        };
        let event = match request {
            Command::Read { epoch, after, .. } => {
                let entries: Vec<_> = self
                    .log
                    .iter()
                    .filter(|e| e.id > after)
                    .take(3)
                    .cloned()
                    .collect();
                if entries.is_empty() || failure.is_some() {
                    self.nodes[who].requests.push_back(request);
                    return;
                }
                Event::Entries {
                    epoch,
                    after,
                    entries,
                }
            }
            Command::Acquire { version } => {
                let owner = Owner {
                    incarnation: self.nodes[who].incarnation.parse().unwrap(),
                    member: "m".parse().unwrap(),
                    version,
                };
                let (epoch, acked) = (self.lease.epoch, self.lease.acked);
                let halted = self.lease.halt.clone();
                let mut unreleased = false;
                if happens {
                    let before = self.lease.owner.clone();
                    unreleased = self.lease.acquire(owner, self.now.0).unwrap_or(false);
                    let head = self.log.iter().map(|e| e.id).find(|id| *id > acked);
                    if let (true, Some(before), Some(head)) = (unreleased, before, head) {
                        self.lease.count_crash(head, before.version);
                        if let Some(attempts) = &self.lease.attempts {
                            let crashed = (head, attempts.version.clone());
                            *self.failed.entry(crashed).or_default() += 1;
                        }
                    }
                }
                let attempts = self.lease.attempts.clone();
                if let (None, None, Some(attempts)) = (&failure, &halted, &attempts) {
                    let node = &mut self.nodes[who];
                    let known = [Some(&node.runs.version), node.runs.instead.as_ref()];
                    if known.contains(&Some(&attempts.version)) {
                        node.doubted.insert(attempts.id);
                    }
                }
                let reply = match halted {
                    Some(reason) => AcquireReply::Halted {
                        reason,
                        epoch,
                        acked,
                    },
                    None => AcquireReply::Acquired {
                        epoch: self.lease.epoch,
                        acked,
                        read: self.lease.read,
                        unreleased,
                        attempts,
                    },
                };
                Event::Acquired(failure.map_or(Ok(reply), Err))
            }
            Command::Commit(settled) => {
                let before = self.lease.acked;
                let epoch = settled.fence.epoch;
                let held = happens && self.lease.commit(&settled.fence, settled.to, settled.read);
                if held {
                    self.judge(before, &settled);
                    if settled.attempts.is_some() {
                        self.lease.attempts = settled.attempts;
                    }
                    if let (Some(version), Some(owner)) = (settled.version, &mut self.lease.owner) {
                        owner.version = version;
                    }
                    self.dead
                        .extend(settled.dead.iter().map(|letter| letter.id));
                    for entry in self
                        .log
                        .iter()
                        .filter(|e| e.id > before && e.id <= settled.to)
                    {
                        let ok = self.handled.iter().any(|(id, ok)| *ok && *id == entry.id);
                        let buried = self.dead.contains(&entry.id);
                        assert!(ok || buried, "{} was settled without a reason", entry.id);
                    }
                    assert_eq!(
                        settled.read, settled.to.ms,
                        "the count of settled entries is exact"
                    );
                }
                let reply = if held {
                    CommitReply::Committed { read: settled.read }
                } else {
                    CommitReply::Fenced {
                        found: Some(self.lease.view()),
                    }
                };
                Event::Committed {
                    epoch,
                    result: failure.map_or(Ok(reply), Err),
                }
            }
            Command::Release { fence } => {
                let released = happens && self.lease.release(&fence);
                let reply = if released {
                    ReleaseReply::Released
                } else {
                    ReleaseReply::Fenced {
                        found: Some(self.lease.view()),
                    }
                };
                Event::Released(failure.map_or(Ok(reply), Err))
            }
            other => panic!("{other:?} is no request"),
        };
        self.nodes[who].consumer.handle(self.now, event);
    }
}

/// A commit that held.
impl World {
    fn judge(&self, before: EntryId, settled: &Settled) {
        let says = settled.attempts.is_some() || settled.version.is_some();
        assert!(
            before < settled.to || says && before == settled.to,
            "a commit goes forward, records a failed attempt or says what handles"
        );
        for letter in settled.dead.iter().filter(|letter| letter.attempts > 0) {
            assert_ne!(letter.version, BAD, "buried on the word of one on trial");
            let version = letter.version.parse().unwrap();
            let gave_up = self.failed.contains_key(&(letter.id, version));
            assert!(
                gave_up || letter.reason.contains("crashed"),
                "{letter:?} names a version that does not decide, or did not fail it"
            );
        }
    }
}

/// What the lease must say before such a call, and who may be called.
fn may_be_called(node: &Node, lease: &Lease, epoch: Epoch, message: &Message, by: By) {
    assert!(message.attempt <= ATTEMPTS);
    let on_trial = node.runs.instead.is_some();
    let doubted = node.doubted.contains(&message.id);
    match by {
        By::Instead => assert!(on_trial && doubted, "nobody doubts {}", message.id),
        By::Running => assert!(!(on_trial && doubted), "{} is asked again", message.id),
    }
    let owner = lease.owner.as_ref().map(|owner| owner.incarnation.as_str());
    if owner != Some(&*node.incarnation) || lease.epoch != epoch {
        return;
    }
    match &lease.attempts {
        Some(attempts) if attempts.id == message.id => assert_eq!(
            (attempts.failed + 1, &attempts.version),
            (message.attempt, node.runs.called(by)),
            "the lease knows of each attempt at {}, and under which version",
            message.id
        ),
        _ => assert_eq!((message.attempt, by), (1, By::Running)),
    }
}

/// What one call may carry: what lies one behind the other in the log, and fails for the first time.
fn may_be_called_together(node: &Node, log: &[RawEntry], messages: &Batch, by: By) {
    let takes = match by {
        By::Running => node.runs.takes.messages.get(),
        By::Instead => 1,
    };
    let head = messages.first().id;
    let alone = head <= node.alone_through;
    assert!(messages.count() <= if alone { 1 } else { takes });
    for (message, n) in messages.iter().zip(head.ms..) {
        assert_eq!(message.id, id(n), "an entry was left out, or came twice");
        let entry = log.iter().find(|entry| entry.id == message.id);
        assert_eq!(entry, Some(&ours(n)));
        if n > head.ms {
            assert_eq!(message.attempt, 1, "only the head has failed before");
            assert!(!node.doubted.contains(&message.id));
        }
    }
}

fn lineup(n: u8) -> Runs {
    let (version, messages, instead) = LINEUPS[usize::from(n) % LINEUPS.len()];
    Runs {
        version: version.parse().unwrap(),
        takes: Takes {
            messages: messages.try_into().unwrap(),
            bytes: 1024,
        },
        instead: instead.map(|version| version.parse().unwrap()),
    }
}

fn node(n: u32, runs: Runs) -> Node {
    let incarnation = format!("i{n}");
    let config = Config {
        runs: runs.clone(),
        attempts: ATTEMPTS,
        ..config(&incarnation)
    };
    Node {
        consumer: Consumer::new(config),
        incarnation,
        requests: VecDeque::new(),
        calling: None,
        cancelled: false,
        claimed: None,
        lost: false,
        settled: Vec::new(),
        runs,
        runs_next: None,
        doubted: BTreeSet::new(),
        alone_through: EntryId::ZERO,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_happens_every_entry_is_settled_once_and_in_order(steps in prop::collection::vec(step(), 0..300)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step, true);
        }
        // The faults stop, the operator lets go, and one node is told to take the partition.
        world.step(&Step::Resume, false);
        world.step(&Step::Revoke(true), false);
        let last = world.log.len() as u64;
        for round in 0.. {
            prop_assert!(round < 10_000, "stuck: {:?}", world.nodes.map(|n| n.consumer));
            for step in [
                Step::Execute { who: false, fate: 0 },
                Step::Execute { who: true, fate: 0 },
                Step::Call { who: false, outcome: 0 },
                Step::Call { who: true, outcome: 0 },
                Step::Assign(false),
                Step::Verify(false),
                Step::Wait(499),
            ] {
                world.step(&step, false);
            }
            let owner = world.lease.owner.as_ref().map(|o| o.incarnation.to_string());
            let owned = owner.as_deref() == Some(&world.nodes[0].incarnation);
            let runs = world.lease.owner.as_ref().map(|o| &o.version);
            let said = runs == Some(&world.nodes[0].runs.version);
            if owned && said && world.lease.acked.ms == last && world.nodes[1].consumer.is_idle() {
                break;
            }
        }
        let mut dead = world.dead.clone();
        dead.dedup();
        prop_assert_eq!(&dead, &world.dead, "a dead letter is kept once");
        prop_assert!(dead.is_sorted(), "dead letters are kept in log order");
    }
}
