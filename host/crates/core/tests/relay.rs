//! Relays of one outbox against a model of it and of two targets: lost answers, full targets, an owner and
//! one that is none any more, targets that go, a Redis that goes back. What must hold is judged by what the targets hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use segmenter_core::effects::Emit;
use segmenter_core::lease::Epoch;
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Partition, Shape, StreamName, Uid};
use segmenter_core::parcel;
use segmenter_core::port::{
    AppendFromReply, Buried, BuryReply, Failure, Outgoing, Stamped, Waiting,
};
use segmenter_core::relay::{Command, Event, Relay, Room, Target};
use segmenter_core::time::{Duration, Time};

const TARGETS: [&str; 2] = ["invoices", "payments"];
const PARTITIONS: u32 = 3;

fn content(n: u64) -> Content {
    Content::new(
        format!("key-{}", n % 7),
        n.to_string().into(),
        Vec::new(),
        100,
    )
    .unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    /// The owner's commit emits so many.
    Commit(u8),
    /// The other one acquires the lease; the first may not know.
    Acquire,
    /// The one that is not the owner learns of it.
    Dropped,
    Execute {
        who: bool,
        which: u8,
        fate: u8,
    },
    Consume {
        target: bool,
        count: u8,
    },
    Delete(bool),
    Create(bool),
    Reconnect(bool),
    /// Redis has written everything to disk.
    Save,
    /// It was started again from there: what came later is lost, and so are requests on their way.
    GoBack,
    Wait(u16),
}

fn step(deletes: bool) -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop_oneof![0u8..12, 30u8..80].prop_map(Step::Commit),
        1 => Just(Step::Acquire),
        1 => Just(Step::Dropped),
        20 => (any::<bool>(), any::<u8>(), any::<u8>())
            .prop_map(|(who, which, fate)| Step::Execute { who, which, fate }),
        4 => (any::<bool>(), 0u8..9).prop_map(|(target, count)| Step::Consume { target, count }),
        1 => any::<bool>().prop_map(move |target| match deletes {
            true => Step::Delete(target),
            false => Step::Wait(1),
        }),
        1 => any::<bool>().prop_map(Step::Create),
        1 => any::<bool>().prop_map(Step::Reconnect),
        1 => Just(Step::Save),
        1 => Just(Step::GoBack),
        3 => (0u16..600).prop_map(Step::Wait),
    ]
}

/// What Redis holds.
#[derive(Default, Clone)]
struct Redis {
    /// Entries by the stamp of their last message.
    outbox: BTreeMap<EntryId, Vec<Outgoing>>,
    dead: Vec<EntryId>,
    /// The last creation is there now, unless it is `None`.
    targets: BTreeMap<StreamName, Vec<Option<Creation>>>,
}

/// One creation of a target.
#[derive(Default, Clone)]
struct Creation {
    /// Per partition, everything that ever came.
    logs: BTreeMap<u32, Vec<EntryId>>,
    consumed: BTreeMap<u32, usize>,
    last: BTreeMap<u32, EntryId>,
}

struct World {
    now: Time,
    epoch: u64,
    committed: u64,
    next: u64,
    owner: usize,
    relays: [Relay; 2],
    requests: [VecDeque<Command>; 2],
    redis: Redis,
    /// Of no earlier moment than the last commit or acquire: what those wrote is not lost here, because
    /// an owner notices that by itself.
    saved: Option<Redis>,
    emitted: BTreeSet<EntryId>,
    capacity: usize,
}

impl World {
    fn new(capacity: usize) -> World {
        let mut world = World {
            now: Time(1_000),
            epoch: 1,
            committed: 0,
            next: 0,
            owner: 0,
            relays: [Relay::new(1), Relay::new(2)],
            requests: [VecDeque::new(), VecDeque::new()],
            redis: Redis {
                targets: TARGETS
                    .map(|t| (t.parse().unwrap(), vec![Some(Creation::default())]))
                    .into(),
                ..Redis::default()
            },
            saved: None,
            emitted: BTreeSet::new(),
            capacity,
        };
        world.event(0, Event::Held { epoch: Epoch(1) });
        world
    }

    fn event(&mut self, who: usize, event: Event) {
        self.relays[who].handle(self.now, event);
        self.poll(who);
    }

    fn poll(&mut self, who: usize) {
        let mut lanes = BTreeSet::new();
        let mut commands = 0;
        while let Some(command) = self.relays[who].poll(self.now) {
            commands += 1;
            assert!(commands < 1_000, "endless");
            if let Command::Append { to, partition, .. } = &command {
                assert!(lanes.insert((to.clone(), *partition)), "two in the air");
            }
            if let Command::Remove { entries, .. } = &command {
                for stamp in entries.iter().flat_map(|id| self.stamps_of(*id)) {
                    assert!(self.is_somewhere(stamp), "{stamp} is removed and nowhere");
                }
            }
            self.requests[who].push_back(command);
        }
        let next = self.relays[who].poll_timeout();
        assert!(
            next.is_none_or(|next| next > self.now),
            "nothing to do, and yet it asks to be polled at once: a hot loop"
        );
    }

    /// Of the messages of an entry, if it is there.
    fn stamps_of(&self, id: EntryId) -> Vec<EntryId> {
        let entry = self.redis.outbox.get(&id);
        let stamps = entry.and_then(|messages| parcel::stamps(id, messages.len()));
        stamps.into_iter().flatten().collect()
    }

    fn is_somewhere(&self, stamp: EntryId) -> bool {
        let all = self.redis.targets.values().flatten().flatten();
        self.redis.dead.contains(&stamp)
            || all
                .flat_map(|c| c.logs.values())
                .flatten()
                .any(|s| *s == stamp)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Commit(count) => {
                self.saved = None;
                let emits: Vec<_> = (0..u64::from(count))
                    .map(|_| {
                        self.committed += 1;
                        self.next += 1;
                        let stamp = EntryId {
                            ms: self.epoch,
                            seq: self.committed,
                        };
                        let n = self.next;
                        let to: StreamName = TARGETS[usize::from(n % 8 > 4)].parse().unwrap();
                        let emit = Emit {
                            to,
                            content: content(n),
                        };
                        self.emitted.insert(stamp);
                        Stamped { stamp, emit }
                    })
                    .collect();
                for parcel in parcel::parcels(&emits) {
                    let messages = parcel.iter().map(|one| Outgoing {
                        to: one.emit.to.clone(),
                        content: one.emit.content.clone(),
                        only: None,
                    });
                    let id = parcel[parcel.len() - 1].stamp;
                    self.redis.outbox.insert(id, messages.collect());
                }
                let epoch = Epoch(self.epoch);
                self.event(self.owner, Event::Committed { epoch, emits });
            }
            Step::Acquire => {
                self.saved = None;
                self.owner = 1 - self.owner;
                self.epoch += 1;
                self.committed = 0;
                let epoch = Epoch(self.epoch);
                self.event(self.owner, Event::Held { epoch });
            }
            Step::Dropped => self.event(1 - self.owner, Event::Dropped),
            Step::Execute { who, which, fate } => self.execute(usize::from(who), which, fate),
            Step::Consume { target, count } => {
                let target: StreamName = TARGETS[usize::from(target)].parse().unwrap();
                if let Some(Some(creation)) =
                    self.redis.targets.get_mut(&target).unwrap().last_mut()
                {
                    for (partition, log) in &creation.logs {
                        let consumed = creation.consumed.entry(*partition).or_default();
                        *consumed = (*consumed + usize::from(count)).min(log.len());
                    }
                }
            }
            Step::Delete(target) => {
                let target: StreamName = TARGETS[usize::from(target)].parse().unwrap();
                self.redis.targets.get_mut(&target).unwrap().push(None);
            }
            Step::Create(target) => {
                let target: StreamName = TARGETS[usize::from(target)].parse().unwrap();
                let creations = self.redis.targets.get_mut(&target).unwrap();
                if creations.last().unwrap().is_none() {
                    creations.push(Some(Creation::default()));
                }
            }
            Step::Reconnect(who) => self.event(usize::from(who), Event::Reconnected),
            Step::Save => self.saved = Some(self.redis.clone()),
            Step::GoBack => {
                let Some(saved) = self.saved.clone() else {
                    return;
                };
                self.redis = saved;
                for who in [0, 1] {
                    for command in std::mem::take(&mut self.requests[who]) {
                        self.answer(who, command, 14);
                    }
                    self.event(who, Event::Reconnected);
                }
            }
            Step::Wait(ms) => self.now = self.now + Duration::from_millis(u64::from(ms)),
        }
        self.poll(0);
        self.poll(1);
    }

    fn execute(&mut self, who: usize, which: u8, fate: u8) {
        let requests = &mut self.requests[who];
        if requests.is_empty() {
            return;
        }
        // Answers come in any order.
        let which = usize::from(which) % requests.len();
        let command = requests.remove(which).unwrap();
        self.answer(who, command, fate % 16);
    }

    fn answer(&mut self, who: usize, command: Command, fate: u8) {
        // Below 12 it is carried out and answered.
        let refused = match fate {
            12 | 13 => Some(Failure::NotDone("away".to_owned())),
            14 => Some(Failure::Unknown("lost before".to_owned())),
            _ => None,
        };
        let lost = (fate == 15).then(|| Failure::Unknown("lost after".to_owned()));
        let event = match command {
            Command::Load {
                round,
                after,
                count,
            } => {
                let above = self.redis.outbox.iter().filter(|(id, _)| **id > after);
                let waiting = above.take(count).map(|(id, messages)| Waiting {
                    id: *id,
                    messages: Ok(messages.clone()),
                });
                let result = refused.or(lost).map_or(Ok(waiting.collect()), Err);
                Event::Loaded { round, result }
            }
            Command::Find { round, to } => {
                let creations = &self.redis.targets[&to];
                let there = creations.last().unwrap().is_some();
                let found = there.then(|| Target {
                    uid: Uid::new(format!("uid-{}", creations.len())).unwrap(),
                    shape: Shape::new(PARTITIONS, 1_000).unwrap(),
                });
                let result = refused.or(lost).map_or(Ok(found), Err);
                Event::Found { round, to, result }
            }
            Command::Append {
                round,
                to,
                target,
                partition,
                after,
                messages,
            } => {
                let result = match refused {
                    Some(failure) => Err(failure),
                    None => {
                        let stamps = messages.iter().map(|m| m.stamp).collect();
                        let reply = self.append(&to, &target.uid, partition, after, stamps);
                        lost.map_or(Ok(reply), Err)
                    }
                };
                Event::Appended {
                    round,
                    to,
                    partition,
                    result,
                }
            }
            Command::Remove { round, entries } => {
                let result = refused.map_or(Ok(()), Err);
                if result.is_ok() {
                    for id in entries {
                        self.redis.outbox.remove(&id);
                    }
                }
                let result = result.and_then(|()| lost.map_or(Ok(()), Err));
                Event::Removed { round, result }
            }
            Command::Bury {
                round,
                epoch,
                entries,
                ..
            } => {
                let result = match refused {
                    Some(failure) => Err(failure),
                    None if epoch.0 != self.epoch => Ok(BuryReply::Fenced),
                    None => {
                        for Buried { id, stamps } in entries {
                            let all = self.stamps_of(id);
                            if self.redis.outbox.remove(&id).is_none() {
                                continue;
                            }
                            // Of those that only lie there, none may vanish with it.
                            for stamp in all {
                                let buried = stamps.contains(&stamp);
                                assert!(buried || self.is_somewhere(stamp), "{stamp}");
                            }
                            self.redis.dead.extend(stamps);
                        }
                        lost.map_or(Ok(BuryReply::Buried), Err)
                    }
                };
                Event::Buried { round, result }
            }
            Command::Room(_) | Command::Trouble { .. } => return,
        };
        self.event(who, event);
    }

    /// As the script does it.
    fn append(
        &mut self,
        to: &StreamName,
        uid: &Uid,
        partition: Partition,
        after: Option<EntryId>,
        stamps: Vec<EntryId>,
    ) -> AppendFromReply {
        let creations = self.redis.targets.get_mut(to).unwrap();
        let number = creations.len();
        let Some(Some(creation)) = creations.last_mut() else {
            return AppendFromReply::StreamGone;
        };
        if uid.as_str() != format!("uid-{number}") {
            return AppendFromReply::StreamGone;
        }
        let log = creation.logs.entry(partition.0).or_default();
        let consumed = *creation.consumed.entry(partition.0).or_default();
        let last = creation.last.entry(partition.0).or_default();
        if after.is_some_and(|after| *last < after) {
            return AppendFromReply::Behind;
        }
        let mut ids = Vec::new();
        for stamp in stamps {
            if stamp <= *last {
                ids.push(None);
            } else if log.len() - consumed < self.capacity {
                log.push(stamp);
                *last = stamp;
                ids.push(Some(stamp));
            } else {
                break;
            }
        }
        AppendFromReply::Accepted { ids }
    }

    /// Without faults, until everything is at its target.
    fn finish(&mut self) {
        for target in [false, true] {
            self.step(&Step::Create(target));
        }
        self.step(&Step::Acquire);
        self.requests = [VecDeque::new(), VecDeque::new()];
        let owner = self.owner;
        let epoch = Epoch(self.epoch);
        self.event(owner, Event::Held { epoch });
        for turn in 0.. {
            assert!(turn < 10_000, "it never ends: {:?}", self.relays[owner]);
            if self.relays[owner].is_empty() && self.requests[owner].is_empty() {
                break;
            }
            self.execute(owner, 0, 0);
            for target in [false, true] {
                self.step(&Step::Consume { target, count: 9 });
            }
            if self.requests[owner].is_empty()
                && let Some(wake) = self.relays[owner].poll_timeout()
            {
                self.now = self.now.max(wake);
                self.poll(owner);
            }
        }
    }

    fn judge(&self, deletes: bool) {
        assert!(self.redis.outbox.is_empty());
        let mut seen: BTreeMap<EntryId, usize> = BTreeMap::new();
        for creation in self.redis.targets.values().flatten().flatten() {
            for log in creation.logs.values() {
                assert!(log.is_sorted_by(|a, b| a < b), "out of order: {log:?}");
                log.iter().for_each(|s| *seen.entry(*s).or_default() += 1);
            }
        }
        self.redis
            .dead
            .iter()
            .for_each(|s| *seen.entry(*s).or_default() += 1);
        let all: BTreeSet<_> = seen.keys().copied().collect();
        assert_eq!(all, self.emitted);
        if !deletes {
            assert!(self.redis.dead.is_empty());
            assert!(seen.values().all(|times| *times == 1), "{seen:?}");
        }
    }
}

fn run(steps: &[Step], capacity: usize, deletes: bool) {
    let mut world = World::new(capacity);
    for step in steps {
        world.step(step);
    }
    world.finish();
    world.judge(deletes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn each_message_is_at_its_target_once_and_in_order(
        steps in prop::collection::vec(step(false), 0..150),
        capacity in 1usize..20,
    ) {
        run(&steps, capacity, false);
    }

    /// A message that was appended to a target that went, or whose answer was lost, may be in the next
    /// one of that name, or a dead letter, too; never nowhere.
    #[test]
    fn nothing_vanishes_when_targets_go(
        steps in prop::collection::vec(step(true), 0..150),
        capacity in 1usize..20,
    ) {
        run(&steps, capacity, true);
    }
}

fn stamped(epoch: u64, numbers: std::ops::Range<u64>) -> Vec<Stamped> {
    numbers
        .map(|seq| Stamped {
            stamp: EntryId { ms: epoch, seq },
            emit: Emit {
                to: "invoices".parse().unwrap(),
                content: content(0),
            },
        })
        .collect()
}

fn rooms(relay: &mut Relay) -> Vec<Room> {
    let mut rooms = Vec::new();
    while let Some(command) = relay.poll(Time(1)) {
        if let Command::Room(room) = command {
            rooms.push(room);
        }
    }
    rooms
}

#[test]
fn a_full_outbox_is_said_once_and_so_is_room_again() {
    let epoch = Epoch(5);
    let most = limits::OUTBOX_ENTRIES as u64;
    let mut relay = Relay::new(1);
    relay.handle(Time(1), Event::Held { epoch });
    relay.handle(
        Time(1),
        Event::Loaded {
            round: 1,
            result: Ok(Vec::new()),
        },
    );
    let commit = |relay: &mut Relay, numbers| {
        let emits = stamped(5, numbers);
        relay.handle(Time(1), Event::Committed { epoch, emits });
    };
    commit(&mut relay, 1..most);
    assert_eq!(rooms(&mut relay), []);
    let waits_for = Some("invoices".to_owned());
    for next in most..most + 3 {
        commit(&mut relay, next..next + 1);
    }
    assert_eq!(
        rooms(&mut relay),
        [Room::Little {
            waits_for: waits_for.clone()
        }]
    );
    commit(&mut relay, most + 3..2 * most + 1);
    assert_eq!(rooms(&mut relay), [Room::None { waits_for }]);
    // Dropped and held again: it knows of none, until they are loaded.
    relay.handle(Time(1), Event::Held { epoch: Epoch(6) });
    assert_eq!(rooms(&mut relay), [Room::Free]);
}

#[test]
fn what_was_put_there_by_somebody_else_is_buried_with_its_reason() {
    let mut relay = Relay::new(1);
    relay.handle(Time(1), Event::Held { epoch: Epoch(5) });
    assert!(matches!(
        relay.poll(Time(1)),
        Some(Command::Load { round: 1, .. })
    ));
    let odd = Waiting {
        id: EntryId { ms: 1, seq: 1 },
        messages: Err("odd".to_owned()),
    };
    let result = Ok(vec![odd]);
    relay.handle(Time(1), Event::Loaded { round: 1, result });
    let expected = Command::Bury {
        round: 1,
        epoch: Epoch(5),
        entries: vec![Buried {
            id: EntryId { ms: 1, seq: 1 },
            stamps: Vec::new(),
        }],
        reason: "odd".to_owned(),
    };
    assert_eq!(relay.poll(Time(1)), Some(expected));
    assert_eq!(relay.poll(Time(1)), None);
    assert!(!relay.is_empty());
    let result = Ok(BuryReply::Buried);
    relay.handle(Time(1), Event::Buried { round: 1, result });
    assert!(relay.is_empty());
}

#[test]
fn a_target_that_is_behind_makes_everything_loaded_again() {
    let epoch = Epoch(5);
    let mut relay = Relay::new(1);
    relay.handle(Time(1), Event::Held { epoch });
    relay.handle(
        Time(1),
        Event::Loaded {
            round: 1,
            result: Ok(Vec::new()),
        },
    );
    let commit = |relay: &mut Relay, seq| {
        let emits = stamped(5, seq..seq + 1);
        relay.handle(Time(1), Event::Committed { epoch, emits });
    };
    commit(&mut relay, 1);
    let to: StreamName = "invoices".parse().unwrap();
    let round = 1;
    let expected = Command::Find {
        round,
        to: to.clone(),
    };
    assert_eq!(relay.poll(Time(1)), Some(expected));
    let target = Target {
        uid: "uid".parse().unwrap(),
        shape: Shape::new(1, 10).unwrap(),
    };
    let result = Ok(Some(target));
    relay.handle(
        Time(1),
        Event::Found {
            round,
            to: to.clone(),
            result,
        },
    );
    let after_of = |command| match command {
        Some(Command::Append { after, .. }) => after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after_of(relay.poll(Time(1))), None);
    let appended = |relay: &mut Relay, reply| {
        let event = Event::Appended {
            round,
            to: to.clone(),
            partition: Partition(0),
            result: Ok(reply),
        };
        relay.handle(Time(1), event);
    };
    let ids = vec![Some(EntryId { ms: 9, seq: 0 })];
    appended(&mut relay, AppendFromReply::Accepted { ids });
    commit(&mut relay, 2);
    let first = EntryId { ms: 5, seq: 1 };
    assert_eq!(after_of(relay.poll(Time(1))), Some(first));
    appended(&mut relay, AppendFromReply::Behind);
    assert_eq!(relay.poll(Time(1)), None, "not in a hot loop");
    let wake = relay.poll_timeout().expect("a wake");
    let expected = Command::Load {
        round: 2,
        after: EntryId::ZERO,
        count: limits::OUTBOX_PAGE_ENTRIES,
    };
    assert_eq!(relay.poll(wake), Some(expected));
}

#[test]
fn what_was_emitted_to_a_stream_of_others_becomes_a_dead_letter() {
    let epoch = Epoch(5);
    let mut relay = Relay::new(1);
    relay.handle(Time(1), Event::Held { epoch });
    let round = 1;
    let result = Ok(Vec::new());
    relay.handle(Time(1), Event::Loaded { round, result });
    let emits = stamped(5, 1..2);
    relay.handle(Time(1), Event::Committed { epoch, emits });
    let to: StreamName = "invoices".parse().unwrap();
    let asked = relay.poll(Time(1));
    let find = Command::Find {
        round,
        to: to.clone(),
    };
    assert_eq!(asked, Some(find));
    let result = Ok(Some(Target {
        uid: "uid".parse().unwrap(),
        shape: Shape::SOURCE,
    }));
    relay.handle(Time(1), Event::Found { round, to, result });
    let Some(Command::Bury {
        entries, reason, ..
    }) = relay.poll(Time(1))
    else {
        panic!("it is buried");
    };
    let id = EntryId { ms: 5, seq: 1 };
    let stamps = vec![id];
    assert_eq!(entries, [Buried { id, stamps }]);
    assert!(
        reason.contains("stream invoices, which other programs write"),
        "{reason}"
    );
    assert_eq!(relay.poll(Time(1)), None, "nothing is appended");
}
