//! One handler for as long as the host runs: a supervisor, and another one after Redis came back without
//! its data. Decides only whether a stream or group that is gone was deleted or lost; must not know what a
//! supervisor does.
//!
//! A deleted stream is never created again by a member. What tells a loss from a delete: the server was
//! started anew since it last knew this member. A database that was emptied while its server ran on
//! (FLUSHALL) counts as deleted: somebody did that.

use segmenter_core::backoff::Backoff;
use segmenter_core::member::Exit;
use segmenter_core::names::{Incarnation, MemberId};
use segmenter_core::port::{Failure, Start};
use segmenter_core::source::Layout;
use segmenter_core::time::Duration;
use segmenter_redis::Broker;
use segmenter_redis::admin::StreamInfo;
use tokio::sync::{oneshot, watch};

use super::handler::Handler;
use super::lineup::Published;
use super::supervisor::{Ended, Order, Supervisor};
use super::{Plan, Say, prepare, random, telemetry};
use crate::config::StreamConfig;

/// Between two tries to register what was lost.
const REVIVE: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(2),
};

/// What Redis came back without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Stream,
    /// It went back to a moment before the group was made.
    Group,
}

pub(super) struct Life<H> {
    pub(super) plan: Plan,
    pub(super) broker: Broker,
    pub(super) published: Published<H>,
    pub(super) say: Say,
    pub(super) member: MemberId,
    pub(super) found: StreamInfo,
    /// Of each partition, in what the host may read ahead.
    pub(super) share_bytes: usize,
    /// How the stream is registered, if the configuration says so.
    pub(super) registration: Option<StreamConfig>,
}

impl<H: Handler> Life<H> {
    /// Until it left the group, or must not go on. `ready` is told once, when it is a member.
    pub(super) async fn run(
        mut self,
        mut orders: watch::Receiver<Order>,
        ready: oneshot::Sender<()>,
    ) -> Exit {
        let mut ready = Some(ready);
        loop {
            let supervisor = Supervisor {
                plan: self.plan.clone(),
                broker: self.broker.clone(),
                published: self.published.clone(),
                say: self.say.clone(),
                uid: self.found.uid.clone(),
                shape: self.found.shape,
                layout: Layout::of(self.found.source.clone()),
                share_bytes: self.share_bytes,
                member: self.member.clone(),
                // What an earlier supervisor left in the air must not pass for this one's.
                incarnation: Incarnation::new(random::name()).expect("hex digits are a name"),
            };
            let Ended { exit, served_by } = supervisor.run(orders.clone(), &mut ready).await;
            let lost = match &exit {
                Exit::StreamGone => Lost::Stream,
                Exit::GroupGone => Lost::Group,
                _ => return exit,
            };
            if !self.was_lost(served_by) {
                return exit;
            }
            if lost == Lost::Stream && self.registration.is_none() {
                return Exit::Fatal(format!(
                    "Redis was started again without stream {}, and no configuration says how to register it; create it, then start again (a [[stream]] table in the configuration makes `run` do that by itself)",
                    self.plan.stream
                ));
            }
            self.say.event(&telemetry::Event::DatabaseLost {
                handler: self.plan.handler.as_str(),
                what: match lost {
                    Lost::Stream => format!("stream {}", self.plan.stream),
                    Lost::Group => {
                        format!("group {} of stream {}", self.plan.group, self.plan.stream)
                    }
                },
            });
            // Whatever is there now came after the loss: none of it may be skipped.
            self.plan.start = Start::Beginning;
            tokio::select! {
                found = self.revive() => match found {
                    Ok(found) => self.found = found,
                    Err(exit) => return exit,
                },
                _ = orders.wait_for(|order| *order != Order::Run) => return Exit::Left,
            }
        }
    }

    fn was_lost(&self, served_by: Option<String>) -> bool {
        match (served_by, self.broker.server_run()) {
            (Some(before), Some(now)) => before != now,
            _ => false,
        }
    }

    /// The stream and its groups, again. Redis may go and come back meanwhile.
    async fn revive(&self) -> Result<StreamInfo, Exit> {
        let mut tries = 0u32;
        loop {
            let error = match self.register().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match error.downcast_ref() {
                Some(failure @ (Failure::NotDone(_) | Failure::Unknown(_))) => {
                    tries = tries.saturating_add(1);
                    self.say.redis(Some(failure));
                    tokio::time::sleep(REVIVE.wait(tries, random::number())).await;
                }
                _ => return Err(Exit::Fatal(format!("{error:#}"))),
            }
        }
    }

    async fn register(&self) -> anyhow::Result<StreamInfo> {
        if let Some(registration) = &self.registration {
            let namespace = &self.plan.stream.namespace;
            prepare::stream(&self.broker, namespace, registration, &self.say).await?;
        }
        let found = prepare::find(&self.broker, &self.plan).await?;
        prepare::group(&self.broker, &self.plan, &found).await?;
        Ok(found)
    }
}
