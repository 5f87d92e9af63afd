//! A group in virtual time: the core's members against the broker in memory, each answer after 1 ms.
//! Partitions are taken and released at once: what is looked at is coordination alone.

use std::collections::BTreeMap;

use anyhow::ensure;
use segmenter_core::member::{Command, Config, Event, Member};
use segmenter_core::names::{GroupName, MemberId, Partition, Shape, StreamId, Uid};
use segmenter_core::port::{EnsureGroup, Register, Reply, Request, Start};
use segmenter_core::time::{Duration, Time};
use segmenter_tests::broker::MemoryBroker;

use crate::Join;

const STEP_US: u64 = 1_000;
const LIMIT_US: u64 = 600_000_000;

struct World {
    broker: MemoryBroker,
    now_us: u64,
    config: Config,
    members: Vec<Member>,
    /// Who has each partition.
    owners: BTreeMap<Partition, usize>,
    /// To be heard in the next step.
    events: Vec<(usize, Event)>,
    syncs: usize,
}

pub(crate) fn join(members: usize, partitions: u32) -> anyhow::Result<Join> {
    let mut world = World::new(partitions)?;
    for n in 1..members {
        world.add(n);
    }
    world.settle()?;
    let before = world.owners.clone();
    let (started, syncs) = (world.now_us, world.syncs);
    world.add(members);
    world.settle()?;
    let moved = |(p, owner): &(&Partition, &usize)| before.get(p) != Some(owner);
    Ok(Join {
        moves: world.owners.iter().filter(moved).count(),
        syncs: world.syncs - syncs,
        settle_ms: (world.now_us - started) as f64 / 1_000.0,
    })
}

impl World {
    fn new(partitions: u32) -> anyhow::Result<World> {
        let stream = StreamId {
            namespace: "scale".parse()?,
            stream: "s".parse()?,
        };
        let uid = Uid::new("uid")?;
        let mut broker = MemoryBroker::default();
        let now_us = 1_700_000_000_000_000;
        let register = Register {
            stream: stream.clone(),
            shape: Shape::new(partitions, 1)?,
            retain: None,
            source: None,
            uid: uid.clone(),
        };
        broker.execute(now_us, Request::Register(register))?;
        let group = GroupName::new("g")?;
        let ensure = EnsureGroup {
            stream: stream.clone(),
            uid: uid.clone(),
            // Where a join looks whether the group is.
            partition: Partition(0),
            group: group.clone(),
            start: Start::Beginning,
        };
        broker.execute(now_us, Request::EnsureGroup(ensure))?;
        Ok(World {
            broker,
            now_us,
            config: Config {
                stream,
                uid,
                group,
                member: MemberId::new("m")?,
                incarnation: "i".parse()?,
                partitions,
                session_timeout: Duration::from_secs(3),
                seed: 1,
            },
            members: Vec::new(),
            owners: BTreeMap::new(),
            events: Vec::new(),
            syncs: 0,
        })
    }

    fn add(&mut self, n: usize) {
        let config = Config {
            member: format!("m{n:04}").parse().expect("a name"),
            incarnation: format!("i{n:04}").parse().expect("a name"),
            seed: n as u64,
            ..self.config.clone()
        };
        self.members.push(Member::new(config, Time(self.now_us)));
    }

    /// Until every partition has an owner and sizes differ by at most one.
    fn settle(&mut self) -> anyhow::Result<()> {
        let until = self.now_us + LIMIT_US;
        while !self.settled() {
            ensure!(self.now_us < until, "not settled within {LIMIT_US} µs");
            self.step()?;
        }
        Ok(())
    }

    fn settled(&self) -> bool {
        let mut sizes = vec![0; self.members.len()];
        for owner in self.owners.values() {
            sizes[*owner] += 1;
        }
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        self.owners.len() == self.config.partitions as usize
            && most
                .zip(least)
                .is_some_and(|(most, least)| most - least <= 1)
    }

    fn step(&mut self) -> anyhow::Result<()> {
        self.now_us += STEP_US;
        let now = Time(self.now_us);
        for (who, event) in std::mem::take(&mut self.events) {
            self.members[who].handle(now, event);
        }
        for who in 0..self.members.len() {
            while let Some(command) = self.members[who].poll(now) {
                self.carry_out(who, command)?;
            }
        }
        for (_, _, news) in self.broker.take_news() {
            let all = 0..self.members.len();
            self.events
                .extend(all.map(|who| (who, Event::News(news.clone()))));
        }
        Ok(())
    }

    fn carry_out(&mut self, who: usize, command: Command) -> anyhow::Result<()> {
        let answer = match command {
            Command::Sync(sync) => {
                self.syncs += 1;
                match self.broker.execute(self.now_us, Request::Sync(sync))? {
                    Reply::Sync(reply) => Event::Synced(Ok(reply)),
                    other => anyhow::bail!("{other:?}"),
                }
            }
            Command::Install(install) => {
                match self
                    .broker
                    .execute(self.now_us, Request::Install(install))?
                {
                    Reply::Install(reply) => Event::Installed(Ok(reply)),
                    other => anyhow::bail!("{other:?}"),
                }
            }
            Command::Assign(partition) => {
                let before = self.owners.insert(partition, who);
                ensure!(before.is_none(), "{partition} was given to two at once");
                return Ok(());
            }
            Command::Revoke(partition) => {
                self.owners.remove(&partition);
                Event::Dropped {
                    partition,
                    refuse: false,
                }
            }
            Command::Verify => Event::Verified,
            Command::Exit(exit) => anyhow::bail!("a member ended: {exit:?}"),
            Command::Now(_) | Command::Rebalanced { .. } => return Ok(()),
        };
        self.events.push((who, answer));
        Ok(())
    }
}
