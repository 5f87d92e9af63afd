//! The relay of one partition in a task beside its worker: carries out what the core's relay asks for and
//! tells it what came of it. It decides nothing itself. `dead redrive` carries out the same commands.

use segmenter_core::consumer;
use segmenter_core::names::{GroupName, Partition, Sender, StreamId};
use segmenter_core::port::{AppendFrom, Bury, Failure, LoadOutbox, Relayed, Reply, Request};
use segmenter_core::relay::{Command, Event, Relay, Room, Target};
use segmenter_redis::{Broker, admin};
use tokio::sync::{mpsc, watch};

use super::clock;
use super::telemetry;
use super::worker::odd;
use super::{Plan, Say};

/// Whose outbox it is.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    pub(crate) stream: StreamId,
    pub(crate) partition: Partition,
    pub(crate) group: GroupName,
}

/// How others reach a relay. The channel holds one answer per request in the air and what one commit in
/// the air may tell: bounded by the protocol.
#[derive(Clone)]
pub(super) struct RelayBox {
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Nothing that it knows waits.
    empty: watch::Receiver<bool>,
}

impl RelayBox {
    /// Starts the task; it ends with the last sender.
    pub(super) fn start(
        broker: Broker,
        plan: Plan,
        say: Say,
        partition: Partition,
        seed: u64,
        worker: mpsc::UnboundedSender<consumer::Event>,
    ) -> RelayBox {
        let (events, inbox) = mpsc::unbounded_channel();
        let (empty_out, empty) = watch::channel(true);
        let outbox = Outbox {
            stream: plan.stream.clone(),
            partition,
            group: plan.group.clone(),
        };
        let task = Task {
            broker,
            plan,
            say,
            outbox,
            // Its own requests must not keep it alive.
            events: events.downgrade(),
            // Nor must it keep the worker's channel open.
            worker: worker.downgrade(),
        };
        tokio::spawn(task.run(Relay::new(seed), inbox, empty_out));
        RelayBox { events, empty }
    }

    pub(super) async fn is_empty(&mut self) {
        // A task that is gone has nothing.
        let _ = self.empty.wait_for(|empty| *empty).await;
    }
}

struct Task {
    broker: Broker,
    plan: Plan,
    say: Say,
    outbox: Outbox,
    events: mpsc::WeakUnboundedSender<Event>,
    worker: mpsc::WeakUnboundedSender<consumer::Event>,
}

impl Task {
    async fn run(
        self,
        mut relay: Relay,
        mut inbox: mpsc::UnboundedReceiver<Event>,
        empty: watch::Sender<bool>,
    ) {
        loop {
            while let Some(command) = relay.poll(clock::now()) {
                self.carry_out(command);
            }
            empty.send_if_modified(|empty| {
                std::mem::replace(empty, relay.is_empty()) != relay.is_empty()
            });
            tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => relay.handle(clock::now(), event),
                    None => return,
                },
                () = clock::sleep_until(relay.poll_timeout()) => {}
            }
            // What is there already makes batches larger.
            while let Ok(event) = inbox.try_recv() {
                relay.handle(clock::now(), event);
            }
        }
    }

    fn carry_out(&self, command: Command) {
        let handler = self.plan.handler.as_str();
        let partition = self.outbox.partition.0;
        match command {
            Command::Room(room) => {
                self.say.event(&match &room {
                    Room::Free => telemetry::Event::OutboxFree { handler, partition },
                    Room::Little { waits_for } | Room::None { waits_for } => {
                        telemetry::Event::OutboxFull {
                            handler,
                            partition,
                            waits_for: waits_for.as_deref(),
                        }
                    }
                });
                if let Some(worker) = self.worker.upgrade() {
                    let _ = worker.send(consumer::Event::Outbox(room));
                }
            }
            Command::Trouble { why } => self.say.event(&telemetry::Event::RelayTrouble {
                handler,
                partition,
                why: &why,
            }),
            request => {
                let Some(events) = self.events.upgrade() else {
                    return;
                };
                let (broker, outbox) = (self.broker.clone(), self.outbox.clone());
                tokio::spawn(async move {
                    if let Some(event) = ask(&broker, &outbox, request).await {
                        let _ = events.send(event);
                    }
                });
            }
        }
    }
}

/// Carries out one request of a relay. `None`: it was none.
pub(crate) async fn ask(broker: &Broker, outbox: &Outbox, command: Command) -> Option<Event> {
    let Outbox {
        stream,
        partition,
        group,
    } = outbox.clone();
    Some(match command {
        Command::Load {
            round,
            after,
            count,
        } => {
            let request = Request::LoadOutbox(LoadOutbox {
                stream,
                partition,
                group,
                after,
                count,
            });
            let result = broker.execute(request).await.and_then(|reply| match reply {
                Reply::LoadOutbox(reply) => Ok(reply.waiting),
                other => Err(odd(&other)),
            });
            Event::Loaded { round, result }
        }
        Command::Find { round, to } => {
            let target = StreamId {
                namespace: stream.namespace,
                stream: to.clone(),
            };
            let found = admin::find_stream(broker, &target).await;
            let result = found.map(|found| {
                found.filter(|info| !info.deleting).map(|info| Target {
                    uid: info.uid,
                    shape: info.shape,
                })
            });
            Event::Found { round, to, result }
        }
        Command::Append {
            round,
            to,
            target,
            partition: target_partition,
            after,
            messages,
        } => {
            let source = Sender::outbox(&stream, partition, &group);
            let request = Request::AppendFrom(AppendFrom {
                stream: StreamId {
                    namespace: stream.namespace,
                    stream: to.clone(),
                },
                uid: target.uid,
                partition: target_partition,
                source,
                after,
                messages,
            });
            let result = broker.execute(request).await.and_then(|reply| match reply {
                Reply::AppendFrom(reply) => Ok(reply),
                other => Err(odd(&other)),
            });
            Event::Appended {
                round,
                to,
                partition: target_partition,
                result,
            }
        }
        Command::Remove { round, entries } => {
            let request = Request::Relayed(Relayed {
                stream,
                partition,
                group,
                entries,
            });
            let result: Result<(), Failure> =
                broker.execute(request).await.and_then(|reply| match reply {
                    Reply::Relayed(_) => Ok(()),
                    other => Err(odd(&other)),
                });
            Event::Removed { round, result }
        }
        Command::Bury {
            round,
            epoch,
            entries,
            reason,
        } => {
            let request = Request::Bury(Bury {
                stream,
                partition,
                group,
                epoch,
                entries,
                reason,
            });
            let result = broker.execute(request).await.and_then(|reply| match reply {
                Reply::Bury(reply) => Ok(reply),
                other => Err(odd(&other)),
            });
            Event::Buried { round, result }
        }
        Command::Room(_) | Command::Trouble { .. } => return None,
    })
}
