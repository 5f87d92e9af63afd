//! One handler in its group: carries out what the core's member asks for and steers a worker per
//! partition. It decides nothing itself, and must not know what a partition does with a message.

use std::sync::Arc;

use segmenter_core::consumer::{BROKER_BACKOFF, Claim};
use segmenter_core::consumer::{Config as ConsumerConfig, Consumer, Event as ConsumerEvent};
use segmenter_core::member::{self, Command, Event, Exit, Member, News, Standing};
use segmenter_core::names::{Incarnation, MemberId, Partition, Shape, Uid};
use segmenter_core::port::{
    Failure, Install, InstallReply, Reply, Request, Sync, SyncReply, Verify,
};
use segmenter_core::relay;
use segmenter_core::source::Layout;
use segmenter_core::time::{Duration, Time};
use segmenter_redis::{Broker, Delivery, Reader, Subscription};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock;
use super::handler::Handler;
use super::lineup::{self, Published};
use super::random;
use super::relay::RelayBox;
use super::telemetry;
use super::worker::{Dropped, Mailbox, Shared, Worker, odd};
use super::{Plan, Say};

/// What a supervisor is made of.
pub(super) struct Supervisor<H> {
    pub(super) plan: Plan,
    pub(super) broker: Broker,
    pub(super) published: Published<H>,
    pub(super) say: Say,
    pub(super) uid: Uid,
    pub(super) shape: Shape,
    pub(super) layout: Layout,
    /// Bytes that each partition may hold of what it read.
    pub(super) share_bytes: usize,
    pub(super) member: MemberId,
    pub(super) incarnation: Incarnation,
}

/// How a supervisor ended.
pub(super) struct Ended {
    pub(super) exit: Exit,
    /// The start of the server that last knew it as a member.
    pub(super) served_by: Option<String>,
}

/// What reaches the supervisor while it runs. Each kind is bounded by what is in the air.
enum Input {
    Synced(Result<SyncReply, Failure>),
    Installed(Result<InstallReply, Failure>),
    Verified(Vec<(Partition, Claim)>, Result<Reply, Failure>),
    Connected,
    Disconnected(String),
}

/// What whoever started it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    /// Drain, commit, release, leave; by this moment.
    Leave {
        by: Time,
    },
}

impl<H: Handler> Supervisor<H> {
    /// Until it left the group, or must not go on. `ready` is told once, when it is a member.
    pub(super) async fn run(
        self,
        mut orders: watch::Receiver<Order>,
        ready: &mut Option<oneshot::Sender<()>>,
    ) -> Ended {
        let mut served_by = None;
        let exit = self.serve(&mut orders, ready, &mut served_by).await;
        Ended { exit, served_by }
    }

    async fn serve(
        &self,
        orders: &mut watch::Receiver<Order>,
        ready: &mut Option<oneshot::Sender<()>>,
        served_by: &mut Option<String>,
    ) -> Exit {
        let (trust_out, trust) = watch::channel(Time::ZERO);
        let (dropped_out, mut dropped) = mpsc::unbounded_channel();
        let (input_out, mut input) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            plan: self.plan.clone(),
            uid: self.uid.clone(),
            incarnation: self.incarnation.clone(),
            member: self.member.clone(),
            broker: self.broker.clone(),
            say: self.say.clone(),
            trust,
            dropped: dropped_out,
        });
        let workers = self.start_workers(&shared, &input_out);
        let mut news = Subscription::start(&self.broker, &self.plan.stream, &self.plan.group);
        let mut member = Member::new(self.member_config(), clock::now());
        let mut cut_at: Option<Time> = None;
        let mut leave_by: Option<Time> = None;
        loop {
            while let Some(command) = member.poll(clock::now()) {
                match command {
                    Command::Sync(sync) => {
                        self.sync(sync, &input_out);
                        if let Some(partition) = workers.hung() {
                            member.handle(clock::now(), Event::Hung(partition));
                        }
                    }
                    Command::Install(install) => self.install(install, &input_out),
                    Command::Assign(p) => workers.tell(p, ConsumerEvent::Assigned),
                    Command::Revoke(p) => workers.tell(p, ConsumerEvent::Revoked),
                    Command::Verify => self.verify(&workers, &input_out),
                    Command::Now(standing) => {
                        self.stands(&standing);
                        if standing != Standing::Outside
                            && let Some(ready) = ready.take()
                        {
                            let _ = ready.send(());
                        }
                    }
                    Command::Rebalanced {
                        generation,
                        why,
                        plan,
                    } => self.say.event(&telemetry::Event::Rebalanced {
                        handler: self.plan.handler.as_str(),
                        generation,
                        why: &why,
                        moves: plan.moves.len(),
                        plan: plan.to_string(),
                    }),
                    Command::Exit(exit) => {
                        workers.relay_the_rest().await;
                        return exit;
                    }
                }
            }
            trust_out.send_if_modified(|trust| {
                std::mem::replace(trust, member.trust_until()) != member.trust_until()
            });
            let wake = member.poll_timeout();
            tokio::select! {
                Some(input) = input.recv() => match input {
                    Input::Synced(result) => {
                        self.say.redis(result.as_ref().err());
                        if matches!(result, Ok(SyncReply::Member(_))) {
                            *served_by = self.broker.server_run();
                        }
                        member.handle(clock::now(), Event::Synced(result));
                    }
                    Input::Installed(result) => {
                        member.handle(clock::now(), Event::Installed(result));
                    }
                    Input::Verified(claims, reply) => {
                        workers.verified(claims, reply);
                        member.handle(clock::now(), Event::Verified);
                    }
                    Input::Connected => {
                        workers.reconnected();
                        member.handle(clock::now(), Event::News(News::Changed));
                    }
                    Input::Disconnected(why) => self.say.away(&why),
                },
                Some(Dropped { partition, refuse }) = dropped.recv() => {
                    member.handle(clock::now(), Event::Dropped { partition, refuse });
                }
                news = news.recv() => member.handle(clock::now(), Event::News(news)),
                Ok(()) = orders.changed() => {
                    if let Order::Leave { by } = *orders.borrow_and_update() {
                        leave_by = Some(by);
                        cut_at = Some(Time(by.0.saturating_sub(self.plan.drain_grace_us())));
                        member.handle(clock::now(), Event::Leave);
                    }
                }
                () = clock::sleep_until(cut_at) => {
                    if clock::passed(cut_at) {
                        cut_at = None;
                        let held = workers.held();
                        self.say.event(&telemetry::Event::DrainCut {
                            handler: self.plan.handler.as_str(),
                            partitions: held,
                        });
                        workers.tell_all(&ConsumerEvent::Cut);
                    }
                }
                () = clock::sleep_until(leave_by) => {
                    if clock::passed(leave_by) {
                        let held = workers.held();
                        return Exit::Fatal(format!(
                            "the drain timeout passed with {held} partitions not released; the next owner takes them over, and handles again what was not committed"
                        ));
                    }
                }
                () = clock::sleep_until(wake) => {}
            }
        }
    }

    fn start_workers(&self, shared: &Arc<Shared>, input: &mpsc::UnboundedSender<Input>) -> Workers {
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            self.shape.all().map(|_| Mailbox::new()).unzip();
        let noise = random::number();
        let relays = std::iter::zip(self.shape.all(), &mailboxes).map(|(partition, mailbox)| {
            RelayBox::start(
                self.broker.clone(),
                self.plan.clone(),
                self.say.clone(),
                partition,
                noise ^ u64::from(partition.0),
                mailbox.events.clone(),
            )
        });
        let workers = Workers {
            relays: relays.collect(),
            mailboxes,
        };
        let deliver = {
            let (workers, input) = (workers.clone(), input.clone());
            move |delivery| match delivery {
                Delivery::Entries {
                    partition,
                    epoch,
                    after,
                    entries,
                } => {
                    let event = ConsumerEvent::Entries {
                        epoch,
                        after,
                        entries,
                    };
                    workers.tell(partition, event);
                }
                Delivery::Connected => {
                    let _ = input.send(Input::Connected);
                }
                Delivery::Disconnected { reason } => {
                    let _ = input.send(Input::Disconnected(reason));
                }
            }
        };
        let reader = Arc::new(Reader::start(
            self.broker.address().clone(),
            self.broker.clone(),
            self.plan.stream.clone(),
            deliver,
        ));
        for (partition, (inbox, mailbox)) in self
            .shape
            .all()
            .zip(inboxes.into_iter().zip(&workers.mailboxes))
        {
            let mut published = self.published.clone();
            let running = lineup::now(&mut published, partition);
            let runs = running.runs();
            let consumer = Consumer::new(ConsumerConfig {
                partition,
                group: self.plan.group.clone(),
                incarnation: self.incarnation.clone(),
                runs,
                retry: self.plan.retry,
                attempts: self.plan.attempts,
                exhausted: self.plan.exhausted,
                broker: BROKER_BACKOFF,
                give_up: self.plan.session_timeout,
                payload_max: self.shape.payload_max(),
                share_bytes: self.share_bytes,
                layout: self.layout.clone(),
                seed: noise.wrapping_add(u64::from(partition.0)),
            });
            let worker = Worker::new(
                shared.clone(),
                consumer,
                partition,
                (mailbox.clone(), inbox),
                reader.clone(),
                workers.relays[partition.0 as usize].events.clone(),
                (published, running),
            );
            tokio::spawn(worker.run());
        }
        workers
    }

    fn member_config(&self) -> member::Config {
        member::Config {
            stream: self.plan.stream.clone(),
            uid: self.uid.clone(),
            group: self.plan.group.clone(),
            member: self.member.clone(),
            incarnation: self.incarnation.clone(),
            partitions: self.shape.partitions(),
            session_timeout: self.plan.session_timeout,
            seed: random::number(),
        }
    }

    fn sync(&self, sync: Sync, input: &mpsc::UnboundedSender<Input>) {
        let (broker, input) = (self.broker.clone(), input.clone());
        tokio::spawn(async move {
            let result = match broker.execute(Request::Sync(sync)).await {
                Ok(Reply::Sync(reply)) => Ok(reply),
                Ok(other) => Err(odd(&other)),
                Err(failure) => Err(failure),
            };
            let _ = input.send(Input::Synced(result));
        });
    }

    fn install(&self, install: Install, input: &mpsc::UnboundedSender<Input>) {
        let (broker, input) = (self.broker.clone(), input.clone());
        tokio::spawn(async move {
            let result = match broker.execute(Request::Install(install)).await {
                Ok(Reply::Install(reply)) => Ok(reply),
                Ok(other) => Err(odd(&other)),
                Err(failure) => Err(failure),
            };
            let _ = input.send(Input::Installed(result));
        });
    }

    fn verify(&self, workers: &Workers, input: &mpsc::UnboundedSender<Input>) {
        let claims = workers.claims();
        let request = Request::Verify(Verify {
            stream: self.plan.stream.clone(),
            group: self.plan.group.clone(),
            partitions: claims.iter().map(|(partition, _)| *partition).collect(),
        });
        let (broker, input) = (self.broker.clone(), input.clone());
        tokio::spawn(async move {
            let reply = broker.execute(request).await;
            let _ = input.send(Input::Verified(claims, reply));
        });
    }

    fn stands(&self, standing: &Standing) {
        let handler = self.plan.handler.as_str();
        self.say.event(&match standing {
            Standing::Member {
                generation,
                members,
                assignment,
            } => telemetry::Event::Assigned {
                handler,
                generation: *generation,
                members: *members,
                count: assignment.len(),
                partitions: assignment.to_string(),
            },
            Standing::Outside => telemetry::Event::Outside { handler },
        });
    }
}

#[derive(Clone)]
struct Workers {
    mailboxes: Vec<Mailbox>,
    relays: Vec<RelayBox>,
}

impl Workers {
    fn tell(&self, partition: Partition, event: ConsumerEvent) {
        if let Some(mailbox) = self.mailboxes.get(partition.0 as usize) {
            let _ = mailbox.events.send(event);
        }
    }

    fn tell_all(&self, event: &ConsumerEvent) {
        for mailbox in &self.mailboxes {
            let _ = mailbox.events.send(event.clone());
        }
    }

    /// Redis may have gone back: what is known of outboxes is loaded again.
    fn reconnected(&self) {
        for relay in &self.relays {
            let _ = relay.events.send(relay::Event::Reconnected);
        }
    }

    /// What was emitted last is at its targets when the host ends, if they take it; the next owner relays
    /// what is left.
    async fn relay_the_rest(&self) {
        let relays = self.relays.iter().cloned();
        let empty = relays.map(|mut relay| async move { relay.is_empty().await });
        let all = futures_util::future::join_all(empty);
        let _ = tokio::time::timeout(RELAY_GRACE, all).await;
    }

    fn claims(&self) -> Vec<(Partition, Claim)> {
        let numbered = self.mailboxes.iter().zip(0..);
        numbered
            .filter_map(|(mailbox, p)| mailbox.claim().map(|claim| (Partition(p), claim)))
            .collect()
    }

    /// A partition whose call runs for longer than it may.
    fn hung(&self) -> Option<Partition> {
        let now = clock::now();
        let hangs = |mailbox: &Mailbox| mailbox.calling_until().is_some_and(|until| now > until);
        let mut numbered = self.mailboxes.iter().zip(0..);
        numbered
            .find(|(mailbox, _)| hangs(mailbox))
            .map(|(_, p)| Partition(p))
    }

    fn held(&self) -> usize {
        self.claims().len()
    }

    /// Without an answer nothing is known to differ: the next verify asks again.
    fn verified(&self, claims: Vec<(Partition, Claim)>, reply: Result<Reply, Failure>) {
        if let Ok(Reply::Verify(reply)) = reply {
            for ((partition, claim), found) in claims.into_iter().zip(reply.leases) {
                self.tell(partition, ConsumerEvent::Verified { claim, found });
            }
        }
    }
}

/// At the end, for what was emitted last.
const RELAY_GRACE: Duration = Duration::from_secs(1);
impl Plan {
    /// Of the drain timeout, what is kept for commit, release and leave after the calls were cut.
    fn drain_grace_us(&self) -> u64 {
        let grace = (self.drain_timeout / 5).min(Duration::from_secs(1));
        u64::try_from(grace.as_micros()).unwrap_or(0)
    }
}
