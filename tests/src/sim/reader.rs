//! The blocking reads of one handler, as the adapter's reader: one read in the air for all partitions that
//! ask, woken when another one asks, made anew after its connection broke.

use std::collections::BTreeMap;

use segmenter_core::consumer::Event as ConsumerEvent;
use segmenter_core::lease::Epoch;
use segmenter_core::member::{Event as MemberEvent, News};
use segmenter_core::message::EntryId;
use segmenter_core::names::Partition;
use segmenter_core::port::{Failure, Read, Reply, Request};
use segmenter_core::relay;
use segmenter_core::time::Duration;

use super::host::{Input, Purpose};
use super::net::LinkId;
use super::world::{Event, World};

/// From where each partition wants to read, and for which tenure.
type Asks = BTreeMap<Partition, (Epoch, EntryId)>;

#[derive(Debug)]
pub(super) struct Reader {
    asks: Asks,
    /// What the read in the air asked for, and its token.
    in_air: Option<(u64, Asks)>,
    failures: u64,
    /// News is heard.
    pub(super) subscribed: bool,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            asks: Asks::new(),
            in_air: None,
            failures: 0,
            subscribed: true,
        }
    }
}

pub(super) const BLOCK: Duration = Duration::from_secs(2);

impl World {
    fn reader_link(&self, host: usize, handler: usize) -> LinkId {
        let host = &self.hosts[host];
        let process = host.process.as_ref();
        let supervisor = process.and_then(|process| process.supervisors.get(handler));
        host.links.readers[supervisor.map_or(0, |supervisor| supervisor.binding)]
    }

    pub(super) fn ask_read(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        ask: (Epoch, EntryId),
    ) {
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        supervisor.reader.asks.insert(partition, ask);
        match &supervisor.reader.in_air {
            None => self.read(host, handler),
            Some((token, _)) => {
                let token = *token;
                let link = self.reader_link(host, handler);
                let at = self.now + self.latency(link);
                self.schedule(at, Event::Unblock { link, token });
            }
        }
    }

    pub(super) fn forget_read(&mut self, host: usize, handler: usize, partition: Partition) {
        if let Some(supervisor) = self.supervisor(host, handler) {
            supervisor.reader.asks.remove(&partition);
        }
    }

    fn read(&mut self, host: usize, handler: usize) {
        let link = self.reader_link(host, handler);
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        let reader = &supervisor.reader;
        if reader.asks.is_empty() || reader.in_air.is_some() || reader.failures > 0 {
            return;
        }
        let asks = reader.asks.clone();
        let binding = supervisor.binding;
        let request = Request::Read(Read {
            stream: self.streams[self.bindings[binding].stream].clone(),
            after: asks.iter().map(|(p, (_, after))| (*p, *after)).collect(),
            count: self.plan.read_count,
            block: BLOCK,
        });
        let token = self.ask(host, link, Purpose::Read { handler }, request);
        if let Some(supervisor) = self.supervisor(host, handler) {
            supervisor.reader.in_air = Some((token, asks));
        }
    }

    pub(super) fn read_answered(
        &mut self,
        host: usize,
        handler: usize,
        result: Result<Reply, Failure>,
    ) {
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        let reader = &mut supervisor.reader;
        let Some((_, asked)) = reader.in_air.take() else {
            return;
        };
        let reply = match result {
            Ok(Reply::Read(reply)) => reply,
            Ok(other) => unreachable!("{other:?} to a read"),
            Err(_) => {
                reader.failures += 1;
                let wait = 25_000 << reader.failures.min(6);
                self.post(host, self.now + wait, Input::Reconnect { handler });
                return;
            }
        };
        for (partition, entries) in reply.entries {
            let Some(&(epoch, after)) = asked.get(&partition) else {
                continue;
            };
            let Some(supervisor) = self.supervisor(host, handler) else {
                return;
            };
            let asks = &mut supervisor.reader.asks;
            // Answered once; a newer ask stays.
            if asks.get(&partition) == Some(&(epoch, after)) {
                asks.remove(&partition);
            }
            let event = ConsumerEvent::Entries {
                epoch,
                after,
                entries,
            };
            self.tell(host, handler, partition, event);
        }
        self.read(host, handler);
    }

    pub(super) fn reconnect(&mut self, host: usize, handler: usize) {
        let link = self.reader_link(host, handler);
        let away = self.redis.is_down() || self.now < self.links[link.0].blocked_until;
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        if away {
            supervisor.reader.failures += 1;
            let wait = 25_000 << supervisor.reader.failures.min(6);
            self.post(host, self.now + wait, Input::Reconnect { handler });
            return;
        }
        supervisor.reader.failures = 0;
        for partition in self.shape.all() {
            self.relay_event(host, handler, partition, relay::Event::Reconnected);
        }
        self.member_event(host, handler, MemberEvent::News(News::Changed));
        self.read(host, handler);
    }
}
