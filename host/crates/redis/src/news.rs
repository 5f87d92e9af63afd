//! What a group or a handler announces, so that nobody waits for a heartbeat. It only makes things faster: whatever
//! is missed, the next heartbeat finds.

use futures_util::StreamExt;
use segmenter_core::backoff::Backoff;
use segmenter_core::member::News;
use segmenter_core::names::{GroupName, HandlerId, StreamId};
use segmenter_core::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::coordinate::news;
use crate::key::Key;

const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
};

/// Announcements that wait to be heard; beyond that the connection waits.
const UNHEARD_MAX: usize = 64;

/// A subscription on a connection of its own, made anew for ever. Ends when it is dropped.
pub struct Subscription {
    heard: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Subscription {
    pub fn start(broker: &Broker, stream: &StreamId, group: &GroupName) -> Subscription {
        let (out, heard) = mpsc::channel(UNHEARD_MAX);
        let channel = Key::News(stream, group).to_string();
        let task = tokio::spawn(listen(broker.clone(), channel, out, news, News::Changed));
        Subscription { heard, task }
    }

    /// What was announced, or that something may have been missed.
    pub async fn recv(&mut self) -> News {
        match self.heard.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The same for what is wanted of a handler.
pub struct HandlerNews {
    heard: mpsc::Receiver<()>,
    task: JoinHandle<()>,
}

impl HandlerNews {
    pub fn start(broker: &Broker, handler: &HandlerId) -> HandlerNews {
        let (out, heard) = mpsc::channel(UNHEARD_MAX);
        let channel = Key::HandlerNews(handler).to_string();
        let task = tokio::spawn(listen(broker.clone(), channel, out, |_| (), ()));
        HandlerNews { heard, task }
    }

    /// Something else is wanted, or may be.
    pub async fn recv(&mut self) {
        if self.heard.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

impl Drop for HandlerNews {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen<T: Clone>(
    broker: Broker,
    channel: String,
    out: mpsc::Sender<T>,
    heard: fn(&str) -> T,
    missed: T,
) {
    let mut failures = 0u32;
    loop {
        if let Ok(mut subscription) = broker.address().client().get_async_pubsub().await
            && subscription.subscribe(&channel).await.is_ok()
        {
            failures = 0;
            // Whatever was announced before was missed.
            if out.send(missed.clone()).await.is_err() {
                return;
            }
            let mut messages = subscription.on_message();
            while let Some(message) = messages.next().await {
                let payload = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
                if out.send(heard(&payload)).await.is_err() {
                    return;
                }
            }
        }
        failures = failures.saturating_add(1);
        tokio::time::sleep(BACKOFF.wait(failures, u64::from(failures))).await;
    }
}
