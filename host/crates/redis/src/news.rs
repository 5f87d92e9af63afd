//! What a group announces, so that nobody waits for a heartbeat. It only makes things faster: whatever
//! is missed, the next heartbeat finds.

use std::sync::Arc;

use futures_util::StreamExt;
use segmenter_core::backoff::Backoff;
use segmenter_core::names::{GroupName, StreamId};
use segmenter_core::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::key::Key;

const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
};

/// A subscription on a connection of its own, made anew for ever. Ends when it is dropped.
pub struct News {
    heard: Arc<Notify>,
    task: JoinHandle<()>,
}

impl News {
    pub fn start(broker: &Broker, stream: &StreamId, group: &GroupName) -> News {
        let heard = Arc::new(Notify::new());
        let channel = Key::News(stream, group).to_string();
        let task = tokio::spawn(listen(broker.clone(), channel, heard.clone()));
        News { heard, task }
    }

    /// Something was announced, or may have been missed: several at once count as one.
    pub async fn recv(&mut self) {
        self.heard.notified().await;
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(broker: Broker, channel: String, heard: Arc<Notify>) {
    let mut failures = 0u32;
    loop {
        if let Ok(mut subscription) = broker.address().client().get_async_pubsub().await
            && subscription.subscribe(&channel).await.is_ok()
        {
            if std::mem::take(&mut failures) > 0 {
                heard.notify_one();
            }
            let mut messages = subscription.on_message();
            while messages.next().await.is_some() {
                heard.notify_one();
            }
        }
        failures = failures.saturating_add(1);
        tokio::time::sleep(BACKOFF.wait(failures, u64::from(failures))).await;
    }
}
