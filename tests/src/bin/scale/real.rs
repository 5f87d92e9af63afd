//! A group on a real server: the core's members with the real adapter and a subscription each. A partition
//! that is taken is acquired, one that is given back is released, by the real scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use segmenter_core::lease::{Fence, Owner};
use segmenter_core::member::{Command, Config, Event, Member};
use segmenter_core::names::{GroupName, Partition, Shape, StreamId, Uid, Version};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::{
    Acquire, AcquireReply, EnsureGroup, Failure, Register, Release, Reply, Request, Start, Sync,
    SyncKind,
};
use segmenter_core::time::Time;
use segmenter_redis::{Address, Broker, Subscription};
use segmenter_tests::server::{Options, Server};
use tokio::sync::mpsc;

use crate::Join;

const LIMIT: Duration = Duration::from_secs(120);
/// Heartbeats whose cost is averaged.
const HEARTBEATS: u64 = 500;

pub(crate) struct Real {
    pub(crate) heartbeat_us: f64,
    pub(crate) join: Join,
}

/// What all members and the watcher share.
struct Group {
    address: Address,
    started: Instant,
    config: Config,
    /// Who has each partition: member number + 1; 0: nobody.
    owners: Vec<AtomicUsize>,
    syncs: AtomicUsize,
}

pub(crate) fn join(members: usize, partitions: u32) -> anyhow::Result<Real> {
    let server = Server::start(Options::default());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let address = Address::new(&server.url(), None)?;
        let broker = Broker::connect(&address).await?;
        let group = Arc::new(Group::new(address, partitions)?);
        group.create(&broker).await?;
        let mut running = tokio::task::JoinSet::new();
        for n in 1..members {
            running.spawn(group.clone().member(n));
        }
        group.settled(members - 1, &mut running).await?;
        let before = group.snapshot();
        let (started, syncs) = (Instant::now(), group.syncs.load(Ordering::Relaxed));
        running.spawn(group.clone().member(members));
        group.settled(members, &mut running).await?;
        let settle_ms = started.elapsed().as_secs_f64() * 1_000.0;
        let syncs = group.syncs.load(Ordering::Relaxed) - syncs;
        let moves = before
            .iter()
            .zip(group.snapshot())
            .filter(|(a, b)| *a != b)
            .count();
        running.shutdown().await;
        let heartbeat_us = group.heartbeat_us(&broker, &server.hands_url()).await?;
        Ok(Real {
            heartbeat_us,
            join: Join {
                moves,
                syncs,
                settle_ms,
            },
        })
    })
}

impl Group {
    fn new(address: Address, partitions: u32) -> anyhow::Result<Group> {
        Ok(Group {
            address,
            started: Instant::now(),
            config: Config {
                stream: StreamId {
                    namespace: "scale".parse()?,
                    stream: "s".parse()?,
                },
                uid: Uid::new("uid")?,
                group: GroupName::new("g")?,
                member: "m".parse()?,
                incarnation: "i".parse()?,
                partitions,
                // A hundred members share two cores here with the server: nobody shall expire.
                session_timeout: Duration::from_secs(30),
                seed: 1,
            },
            owners: (0..partitions).map(|_| AtomicUsize::new(0)).collect(),
            syncs: AtomicUsize::new(0),
        })
    }

    async fn create(&self, broker: &Broker) -> anyhow::Result<()> {
        let Config {
            stream,
            uid,
            group,
            partitions,
            ..
        } = &self.config;
        let register = Register {
            stream: stream.clone(),
            shape: Shape::new(*partitions, 10)?,
            retain: None,
            source: None,
            uid: uid.clone(),
        };
        broker.execute(Request::Register(register)).await?;
        for p in 0..*partitions {
            let ensure = EnsureGroup {
                stream: stream.clone(),
                uid: uid.clone(),
                partition: Partition(p),
                group: group.clone(),
                start: Start::Beginning,
            };
            broker.execute(Request::EnsureGroup(ensure)).await?;
        }
        Ok(())
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn snapshot(&self) -> Vec<usize> {
        let owners = self.owners.iter();
        owners.map(|owner| owner.load(Ordering::Relaxed)).collect()
    }

    /// Waits until every partition has an owner, and sizes differ by at most one.
    async fn settled(
        &self,
        members: usize,
        running: &mut tokio::task::JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let mut sizes = vec![0usize; members + 1];
            for owner in self.snapshot() {
                sizes[owner] += 1;
            }
            let (least, most) = (sizes[1..].iter().min(), sizes[1..].iter().max());
            let even = most
                .zip(least)
                .is_some_and(|(most, least)| most - least <= 1);
            if sizes[0] == 0 && even {
                return Ok(());
            }
            if let Some(ended) = running.try_join_next() {
                ended
                    .context("a member panicked")?
                    .context("a member ended")?;
                bail!("a member ended");
            }
            ensure!(
                Instant::now() < until,
                "not settled within {LIMIT:?}: {sizes:?}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// One member, for ever.
    async fn member(self: Arc<Group>, n: usize) -> anyhow::Result<()> {
        let broker = Broker::connect(&self.address).await?;
        let config = Config {
            member: format!("m{n:04}").parse()?,
            incarnation: format!("i{n:04}").parse()?,
            seed: n as u64,
            ..self.config.clone()
        };
        let mut news = Subscription::start(&broker, &config.stream, &config.group);
        let (events_out, mut events) = mpsc::unbounded_channel();
        let holder = Holder {
            n,
            group: self.clone(),
            broker,
            events: events_out,
        };
        let mut member = Member::new(config, self.now());
        loop {
            while let Some(command) = member.poll(self.now()) {
                holder.carry_out(command)?;
            }
            let wake = member
                .poll_timeout()
                .map_or(Duration::MAX, |at| at.since(self.now()));
            tokio::select! {
                Some(event) = events.recv() => member.handle(self.now(), event),
                news = news.recv() => member.handle(self.now(), Event::News(news)),
                () = tokio::time::sleep(wake.min(Duration::from_secs(60))) => {}
            }
        }
    }

    /// Redis' own time for a heartbeat that has nothing new to say.
    async fn heartbeat_us(&self, broker: &Broker, hands: &str) -> anyhow::Result<f64> {
        let owned: PartitionSet = self
            .snapshot()
            .into_iter()
            .zip(0..)
            .filter(|(owner, _)| *owner == 1)
            .map(|(_, p)| Partition(p))
            .collect();
        let beat = |n: u64, owned_whole: bool| {
            Request::Sync(Sync {
                stream: self.config.stream.clone(),
                uid: self.config.uid.clone(),
                group: self.config.group.clone(),
                kind: SyncKind::Heartbeat,
                member: "m0001".parse().expect("a name"),
                incarnation: "i0001".parse().expect("a name"),
                counter: 1_000_000 + n,
                session_timeout: self.config.session_timeout,
                draining: false,
                owned_digest: owned.digest(),
                owned: owned_whole.then(|| owned.clone()),
                refused: PartitionSet::new(),
                known: owned.digest(),
                wants: false,
            })
        };
        broker.execute(beat(0, true)).await?;
        let mut hands = redis::Client::open(hands)?.get_connection()?;
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut hands)?;
        for n in 1..=HEARTBEATS {
            broker.execute(beat(n, false)).await?;
        }
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut hands)?;
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:"))
            .context("no EVALSHA was counted")?;
        let of = |name: &str| -> anyhow::Result<f64> {
            let field = line
                .split(',')
                .find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
            Ok(field.context("a field of commandstats")?.parse()?)
        };
        ensure!(
            of("calls")? as u64 == HEARTBEATS,
            "others spoke meanwhile: {line}"
        );
        of("usec_per_call")
    }
}

/// Takes and gives back partitions for one member.
struct Holder {
    n: usize,
    group: Arc<Group>,
    broker: Broker,
    events: mpsc::UnboundedSender<Event>,
}

impl Holder {
    fn carry_out(&self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Sync(sync) => {
                self.group.syncs.fetch_add(1, Ordering::Relaxed);
                self.ask(Request::Sync(sync), |reply| match reply {
                    Ok(Reply::Sync(reply)) => Some(Event::Synced(Ok(reply))),
                    other => Some(Event::Synced(Err(failed(other)))),
                });
            }
            Command::Install(install) => {
                self.ask(Request::Install(install), |reply| match reply {
                    Ok(Reply::Install(reply)) => Some(Event::Installed(Ok(reply))),
                    other => Some(Event::Installed(Err(failed(other)))),
                });
            }
            Command::Assign(partition) => self.acquire(partition),
            Command::Revoke(partition) => self.release(partition),
            Command::Verify => self.events.send(Event::Verified)?,
            Command::Exit(exit) => bail!("member {} ended: {exit:?}", self.n),
            Command::Now(_) | Command::Rebalanced { .. } => {}
        }
        Ok(())
    }

    fn acquire(&self, partition: Partition) {
        let config = &self.group.config;
        let acquire = Acquire {
            stream: config.stream.clone(),
            uid: config.uid.clone(),
            partition,
            group: config.group.clone(),
            owner: self.owner(),
        };
        let (group, n) = (self.group.clone(), self.n);
        self.ask(Request::Acquire(acquire), move |reply| {
            let Ok(Reply::Acquire(AcquireReply::Acquired { .. })) = reply else {
                panic!("acquire: {reply:?}");
            };
            let before = group.owners[partition.0 as usize].swap(n, Ordering::Relaxed);
            assert_eq!(before, 0, "{partition} was given to two at once");
            None
        });
    }

    /// What was acquired before: the lease is looked up, because nothing is committed here.
    fn release(&self, partition: Partition) {
        let config = self.group.config.clone();
        let (group, broker, events) =
            (self.group.clone(), self.broker.clone(), self.events.clone());
        let (n, incarnation) = (self.n, self.owner().incarnation);
        tokio::spawn(async move {
            // It may be revoked while its acquire is in the air.
            while group.owners[partition.0 as usize].load(Ordering::Relaxed) != n {
                tokio::task::yield_now().await;
            }
            let verify = segmenter_core::port::Verify {
                stream: config.stream.clone(),
                group: config.group.clone(),
                partitions: vec![partition],
            };
            let Ok(Reply::Verify(found)) = broker.execute(Request::Verify(verify)).await else {
                panic!("no lease of {partition}");
            };
            let lease = found.leases[0].clone().expect("a lease");
            let release = Release {
                stream: config.stream,
                partition,
                group: config.group,
                fence: Fence {
                    incarnation,
                    epoch: lease.epoch,
                    from: lease.acked,
                },
            };
            group.owners[partition.0 as usize].store(0, Ordering::Relaxed);
            broker
                .execute(Request::Release(release))
                .await
                .expect("released");
            let refuse = false;
            let _ = events.send(Event::Dropped { partition, refuse });
        });
    }

    fn owner(&self) -> Owner {
        Owner {
            incarnation: format!("i{:04}", self.n).parse().expect("a name"),
            member: format!("m{:04}", self.n).parse().expect("a name"),
            version: Version::new("scale").expect("a name"),
        }
    }

    fn ask(
        &self,
        request: Request,
        event: impl FnOnce(Result<Reply, Failure>) -> Option<Event> + Send + 'static,
    ) {
        let (broker, events) = (self.broker.clone(), self.events.clone());
        tokio::spawn(async move {
            if let Some(event) = event(broker.execute(request).await) {
                let _ = events.send(event);
            }
        });
    }
}

fn failed(reply: Result<Reply, Failure>) -> Failure {
    match reply {
        Err(failure) => failure,
        Ok(other) => Failure::Fatal(format!("the broker answered something else: {other:?}")),
    }
}
