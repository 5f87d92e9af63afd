//! Blocking reads of one stream's partitions over one connection: all partitions that ask travel in one
//! XREAD. Knows who asked for what; must not know what entries are for.
//!
//! A read blocks on the server until any asked partition has an entry. When another partition asks
//! meanwhile, `CLIENT UNBLOCK` over the shared connection wakes it, because waiting for the block to end
//! would cost that partition up to two seconds, and polling would cost an idle Redis its rest.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use segmenter_core::backoff::Backoff;
use segmenter_core::entry::RawEntry;
use segmenter_core::lease::Epoch;
use segmenter_core::limits;
use segmenter_core::message::EntryId;
use segmenter_core::names::{Partition, StreamId};
use segmenter_core::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::address::Address;
use crate::broker::{Broker, open_blocking};
use crate::convert;
use crate::error::text;
use crate::key::Key;
use crate::place::Place;

/// How long one read blocks. Also the longest time for which a dead connection goes unnoticed when idle.
const BLOCK: Duration = Duration::from_millis(2_000);
/// An answer that is so much later than the block is none.
const LATE: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(50),
    max: Duration::from_secs(2),
};
/// What an entry is taken for before any was seen: careful, because COUNT is the only bound XREAD knows.
const ENTRY_BYTES_GUESS: usize = 64 * 1024;

pub enum Delivery {
    Entries {
        partition: Partition,
        epoch: Epoch,
        after: EntryId,
        entries: Vec<RawEntry>,
    },
    /// Reads wait until it is connected again; nothing that was asked for is lost.
    Disconnected { reason: String },
    /// Again, after it was disconnected.
    Connected,
}

/// Ends when it is dropped.
pub struct Reader {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    asks: Mutex<Asks>,
    changed: Notify,
}

#[derive(Default)]
struct Asks {
    by_partition: BTreeMap<Partition, Ask>,
    /// Something was asked that the read in the air does not cover.
    uncovered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ask {
    epoch: Epoch,
    after: EntryId,
}

impl Shared {
    fn asks(&self) -> std::sync::MutexGuard<'_, Asks> {
        self.asks.lock().expect("never panics while held")
    }
}

impl Reader {
    pub fn start(
        address: Address,
        broker: Broker,
        stream: StreamId,
        deliver: impl Fn(Delivery) + Send + Sync + 'static,
    ) -> Reader {
        let shared: Arc<Shared> = Arc::default();
        let run = Run {
            address,
            broker,
            stream,
            deliver,
            shared: shared.clone(),
            entry_bytes: ENTRY_BYTES_GUESS,
        };
        Reader {
            shared,
            task: tokio::spawn(run.forever()),
        }
    }

    /// Entries of `partition` above `after`, once there are any. Replaces what it asked for before.
    pub fn ask(&self, partition: Partition, epoch: Epoch, after: EntryId) {
        let mut asks = self.shared.asks();
        asks.by_partition.insert(partition, Ask { epoch, after });
        asks.uncovered = true;
        drop(asks);
        self.shared.changed.notify_one();
    }

    /// The partition wants nothing any more. An answer on its way may still come.
    pub fn forget(&self, partition: Partition) {
        self.shared.asks().by_partition.remove(&partition);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Run<D> {
    address: Address,
    broker: Broker,
    stream: StreamId,
    deliver: D,
    shared: Arc<Shared>,
    /// The larger of what entries lately had and what the last reply had, on average.
    entry_bytes: usize,
}

impl<D: Fn(Delivery)> Run<D> {
    async fn forever(mut self) {
        let mut failures = 0u32;
        loop {
            let error = match self.connect().await {
                Ok((connection, id, place)) => {
                    if std::mem::take(&mut failures) > 0 {
                        (self.deliver)(Delivery::Connected);
                    }
                    self.read_until_error(connection, id, place).await
                }
                Err(error) => error,
            };
            if failures == 0 {
                (self.deliver)(Delivery::Disconnected { reason: error });
            }
            failures = failures.saturating_add(1);
            tokio::time::sleep(BACKOFF.wait(failures, u64::from(failures).wrapping_mul(7_919)))
                .await;
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, i64, Place), String> {
        let place = self.broker.place(&self.stream).await;
        let place = place.map_err(|failure| failure.to_string())?;
        let opened = self.open().await;
        let (connection, id) = opened.map_err(|error| text(&error))?;
        Ok((connection, id, place))
    }

    async fn open(&self) -> Result<(MultiplexedConnection, i64), RedisError> {
        let mut connection = open_blocking(&self.address).await?;
        let id = redis::cmd("CLIENT")
            .arg("ID")
            .query_async(&mut connection)
            .await?;
        Ok((connection, id))
    }

    async fn read_until_error(
        &mut self,
        mut connection: MultiplexedConnection,
        id: i64,
        place: Place,
    ) -> String {
        loop {
            let asked = self.next_asks().await;
            let cmd = self.command(&place, &asked);
            let answer = {
                let mut read = pin!(tokio::time::timeout(
                    BLOCK + LATE,
                    cmd.query_async(&mut connection)
                ));
                loop {
                    tokio::select! {
                        biased;
                        answer = &mut read => break answer,
                        () = self.shared.changed.notified() => {
                            if !self.shared.asks().uncovered {
                                continue;
                            }
                            // It may not have begun to block yet: ask until it has, or has returned.
                            tokio::select! {
                                biased;
                                answer = &mut read => break answer,
                                () = self.unblock(id) => {}
                            }
                        }
                    }
                }
            };
            let value: Value = match answer {
                Ok(Ok(value)) => value,
                // Unblocked with ERROR is never asked for; anything else ends this connection.
                Ok(Err(error)) => return text(&error),
                Err(_) => return format!("no answer to a read within {:?}", BLOCK + LATE),
            };
            if let Err(failure) = self.hand_out(&place, &asked, value) {
                return failure.to_string();
            }
        }
    }

    async fn next_asks(&self) -> Vec<(Partition, Ask)> {
        loop {
            {
                let mut asks = self.shared.asks();
                asks.uncovered = false;
                if !asks.by_partition.is_empty() {
                    return asks
                        .by_partition
                        .iter()
                        .map(|(p, ask)| (*p, *ask))
                        .collect();
                }
            }
            self.shared.changed.notified().await;
        }
    }

    fn command(&self, place: &Place, asked: &[(Partition, Ask)]) -> redis::Cmd {
        let room = limits::READ_BYTES_TARGET / (asked.len() * self.entry_bytes).max(1);
        let count = room.clamp(1, limits::READ_ENTRIES_MAX);
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT")
            .arg(count)
            .arg("BLOCK")
            .arg(BLOCK.as_millis().to_string())
            .arg("STREAMS");
        for (partition, _) in asked {
            cmd.arg(place.key(Key::Log(&self.stream, *partition)));
        }
        for (_, ask) in asked {
            cmd.arg(ask.after.to_string());
        }
        cmd
    }

    /// Until the server says that it woke the read; a read that was not blocked yet is none.
    async fn unblock(&self, id: i64) {
        loop {
            let mut cmd = redis::cmd("CLIENT");
            cmd.arg("UNBLOCK").arg(id);
            match self.broker.send(&cmd).await {
                Ok(Value::Int(1)) => return,
                // Refused or unreachable: the block ends by itself soon enough.
                Err(_) => return,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    }

    fn hand_out(
        &mut self,
        place: &Place,
        asked: &[(Partition, Ask)],
        value: Value,
    ) -> Result<(), segmenter_core::port::Failure> {
        let (mut entries_read, mut bytes_read) = (0usize, 0usize);
        for (key, entries) in convert::xread(value)? {
            let Some(partition) = place.partition_of(&key) else {
                continue;
            };
            let Ok(at) = asked.binary_search_by_key(&partition, |(p, _)| *p) else {
                continue;
            };
            let ask = asked[at].1;
            entries_read += entries.len();
            bytes_read += entries.iter().map(bytes_of).sum::<usize>();
            {
                // Answered once; a newer ask stays.
                let mut asks = self.shared.asks();
                if asks.by_partition.get(&partition) == Some(&ask) {
                    asks.by_partition.remove(&partition);
                }
            }
            let Ask { epoch, after } = ask;
            (self.deliver)(Delivery::Entries {
                partition,
                epoch,
                after,
                entries,
            });
        }
        if let Some(average) = bytes_read.checked_div(entries_read) {
            self.entry_bytes = average.max((self.entry_bytes * 3 + average) / 4).max(64);
        }
        Ok(())
    }
}

fn bytes_of(entry: &RawEntry) -> usize {
    entry
        .fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}
