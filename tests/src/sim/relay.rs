//! The relay of one partition, as `host/relay.rs`: carries out what the core's relay asks for and tells it
//! what came of it. Decides nothing.

use segmenter_core::consumer::Event as ConsumerEvent;
use segmenter_core::names::{Partition, Sender, StreamId, StreamName};
use segmenter_core::port::{AppendFrom, Bury, Failure, LoadOutbox, Relayed, Reply, Request};
use segmenter_core::relay::{Command, Event, Relay, Round, Target};
use segmenter_core::time::Time;

use super::host::{Input, Purpose};
use super::supervisor::NEVER;
use super::world::World;

/// A relay and when it wants to be woken.
#[derive(Debug)]
pub(super) struct Courier {
    relay: Relay,
    wake: u64,
}

/// What an answer is about.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Load(Round),
    Append {
        round: Round,
        to: StreamName,
        partition: Partition,
    },
    Remove(Round),
    Bury(Round),
}

impl Courier {
    pub(super) fn new(seed: u64) -> Courier {
        Courier {
            relay: Relay::new(seed),
            wake: NEVER,
        }
    }
}

impl World {
    fn courier(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
    ) -> Option<&mut Courier> {
        let supervisor = self.supervisor(host, handler)?;
        supervisor.couriers.get_mut(partition.0 as usize)
    }

    pub(super) fn relay_event(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        event: Event,
    ) {
        let now = self.local(host);
        if let Some(courier) = self.courier(host, handler, partition) {
            courier.relay.handle(now, event);
            self.pump_relay(host, handler, partition);
        }
    }

    pub(super) fn relay_answered(
        &mut self,
        host: usize,
        (handler, partition): (usize, Partition),
        asked: Asked,
        result: Result<Reply, Failure>,
    ) {
        let event = match asked {
            Asked::Load(round) => Event::Loaded {
                round,
                result: result.map(|reply| match reply {
                    Reply::LoadOutbox(reply) => reply.waiting,
                    other => unreachable!("{other:?} to a load"),
                }),
            },
            Asked::Append {
                round,
                to,
                partition,
            } => Event::Appended {
                round,
                to,
                partition,
                result: result.map(|reply| match reply {
                    Reply::AppendFrom(reply) => reply,
                    other => unreachable!("{other:?} to an append"),
                }),
            },
            Asked::Remove(round) => Event::Removed {
                round,
                result: result.map(|_| ()),
            },
            Asked::Bury(round) => Event::Buried {
                round,
                result: result.map(|reply| match reply {
                    Reply::Bury(reply) => reply,
                    other => unreachable!("{other:?} to a bury"),
                }),
            },
        };
        self.relay_event(host, handler, partition, event);
    }

    pub(super) fn pump_relay(&mut self, host: usize, handler: usize, partition: Partition) {
        let now = self.local(host);
        while let Some(courier) = self.courier(host, handler, partition) {
            let Some(command) = courier.relay.poll(now) else {
                break;
            };
            self.relay_command(host, handler, partition, command);
            if self.violation.is_some() {
                return;
            }
        }
        self.set_relay_wake(host, handler, partition, now);
    }

    fn set_relay_wake(&mut self, host: usize, handler: usize, partition: Partition, local: Time) {
        let now = self.now;
        let Some(courier) = self.courier(host, handler, partition) else {
            return;
        };
        if courier.wake <= now {
            courier.wake = NEVER;
        }
        let (set, next) = (courier.wake, courier.relay.poll_timeout());
        let Some(next) = next.filter(|next| next.0 < NEVER) else {
            return;
        };
        if next <= local {
            return self.defect(format!(
                "the relay of {partition} has nothing to do, and yet asks to be polled at once"
            ));
        }
        let at = self.hosts[host].clock.when(next).max(now + 1);
        if at < set {
            if let Some(courier) = self.courier(host, handler, partition) {
                courier.wake = at;
            }
            self.post(host, at, Input::WakeRelay { handler, partition });
        }
    }

    fn relay_command(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        command: Command,
    ) {
        let shared = self.hosts[host].links.shared;
        let Some(binding) = self.supervisor(host, handler).map(|s| s.binding) else {
            return;
        };
        let bound = &self.bindings[binding];
        let (stream, group) = (self.streams[bound.stream].clone(), bound.group.clone());
        let target = |to: &StreamName| StreamId {
            namespace: stream.namespace.clone(),
            stream: to.clone(),
        };
        let (asked, request) = match command {
            Command::Load {
                round,
                after,
                count,
            } => {
                let request = LoadOutbox {
                    stream,
                    partition,
                    group,
                    after,
                    count,
                };
                (Asked::Load(round), Request::LoadOutbox(request))
            }
            Command::Find { round, to } => {
                let result = match self.redis.is_down() {
                    true => Err(Failure::NotDone("connection refused".to_owned())),
                    false => Ok(self.redis.broker.find(&target(&to))),
                };
                let result = result.map(|found| found.map(|(uid, shape)| Target { uid, shape }));
                let event = Event::Found { round, to, result };
                let now = self.local(host);
                if let Some(courier) = self.courier(host, handler, partition) {
                    courier.relay.handle(now, event);
                }
                return;
            }
            Command::Append {
                round,
                to,
                target: found,
                partition: into,
                after,
                messages,
            } => {
                let request = AppendFrom {
                    stream: target(&to),
                    uid: found.uid,
                    partition: into,
                    source: Sender::outbox(&stream, partition, &group),
                    after,
                    messages,
                };
                let asked = Asked::Append {
                    round,
                    to,
                    partition: into,
                };
                (asked, Request::AppendFrom(request))
            }
            Command::Remove { round, entries } => {
                let request = Relayed {
                    stream,
                    partition,
                    group,
                    entries,
                };
                (Asked::Remove(round), Request::Relayed(request))
            }
            Command::Bury {
                round,
                epoch,
                entries,
                reason,
            } => {
                let request = Bury {
                    stream,
                    partition,
                    group,
                    epoch,
                    entries,
                    reason,
                };
                (Asked::Bury(round), Request::Bury(request))
            }
            Command::Room(room) => {
                return self.tell(host, handler, partition, ConsumerEvent::Outbox(room));
            }
            Command::Trouble { why } => {
                return self.defect(format!("the relay of {partition}: {why}"));
            }
        };
        let purpose = Purpose::Relay {
            handler,
            partition,
            asked,
        };
        self.ask(host, shared, purpose, request);
    }
}
