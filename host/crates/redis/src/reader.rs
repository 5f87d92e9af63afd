//! Blocking reads of one stream's partitions over one connection: all partitions that ask travel in one
//! XREAD. Knows who asked for what; must not know what entries are for.
//!
//! XREAD knows no limit in bytes, so COUNT is chosen such that as many of the largest entry that was ever
//! appended to a partition fit into the room that it asked with. Append keeps that size in the partition's
//! meta, in the script that appends; it is looked at before a partition is read for what it asked. So what
//! lies there is bounded; what is larger than its room is what comes between that look and the read, or in
//! the one append that wakes it, and an entry that something else than append wrote.
//!
//! Where entries are small now and one was large once, that COUNT would be tiny: there a script reads, which
//! counts bytes. It costs Redis several times as much per entry, and cannot block.
//!
//! A read blocks on the server until any asked partition has an entry. When another partition asks
//! meanwhile, `CLIENT UNBLOCK` over the shared connection wakes it, because waiting for the block to end
//! would cost that partition up to two seconds, and polling would cost an idle Redis its rest.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use segmenter_core::backoff::Backoff;
use segmenter_core::entry::RawEntry;
use segmenter_core::lease::Epoch;
use segmenter_core::limits;
use segmenter_core::message::EntryId;
use segmenter_core::names::{Partition, StreamId};
use segmenter_core::port::Failure;
use segmenter_core::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::address::Address;
use crate::broker::{Broker, open_blocking};
use crate::convert::{self, list, number};
use crate::error::text;
use crate::execute::placed;
use crate::key::Key;
use crate::place::Place;
use crate::script::Script;

/// How long one read blocks. Also the longest time for which a dead connection goes unnoticed when idle.
const BLOCK: Duration = Duration::from_millis(2_000);
/// An answer that is so much later than the block is none.
const LATE: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(50),
    max: Duration::from_secs(2),
};
/// What an entry is taken for before any was seen, and where nobody keeps how large the largest is.
const ENTRY_BYTES_GUESS: usize = 8 * 1024;
/// A script reads where the room has so many times fewer of the largest entry than a reply may have of those
/// seen lately.
const MIXED: usize = 4;
/// Entries that a script reads at once, over all partitions: it stops everybody else for some milliseconds.
const SCRIPT_ENTRIES: usize = 1_024;
/// After a pause between two reads that is longer than this, such as of a process that was stopped, what is
/// known of the largest entries is too old.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// Bytes, with what holds each entry.
    room: usize,
}

/// What a partition's entries may take.
#[derive(Debug, Default)]
struct Size {
    /// For which ask it was looked at.
    ask: Option<Ask>,
    /// Bytes; 0: nobody keeps it.
    largest: usize,
    /// Bytes of the largest that was read.
    seen: usize,
    /// The ask for which a script found nothing.
    nothing: Option<Ask>,
}

impl Size {
    fn entry_bytes(&self) -> usize {
        let unknown = if self.largest == 0 {
            ENTRY_BYTES_GUESS
        } else {
            0
        };
        let largest = self.largest.max(self.seen).max(unknown);
        largest.saturating_add(limits::ENTRY_OVERHEAD_BYTES)
    }
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
            sizes: BTreeMap::new(),
            read_at: None,
        };
        Reader {
            shared,
            task: tokio::spawn(run.forever()),
        }
    }

    /// Entries of `partition` above `after`, once there are any: at least one, and more as far as there is
    /// room for them, in bytes. Replaces what it asked for before.
    pub fn ask(&self, partition: Partition, epoch: Epoch, after: EntryId, room: usize) {
        let mut asks = self.shared.asks();
        let ask = Ask { epoch, after, room };
        asks.by_partition.insert(partition, ask);
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
    sizes: BTreeMap<Partition, Size>,
    /// When the last read ended.
    read_at: Option<Instant>,
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
            if let Err(failure) = self.look(&place, &asked).await {
                return failure.to_string();
            }
            match self.read_mixed(&place, &asked).await {
                Ok(false) => {}
                Ok(true) => {
                    self.read_at = Some(Instant::now());
                    continue;
                }
                Err(failure) => return failure.to_string(),
            }
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
            self.read_at = Some(Instant::now());
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

    /// At how large the entries may be of which nothing, or too little, is known. What was asked before and
    /// not answered has nothing there yet: its next append wakes the read.
    async fn look(&mut self, place: &Place, asked: &[(Partition, Ask)]) -> Result<(), Failure> {
        let too_old = self.read_at.is_none_or(|at| at.elapsed() > PAUSE);
        let unknown = |(partition, ask): &&(Partition, Ask)| {
            let size = self.sizes.get(partition);
            too_old || size.is_none_or(|size| size.ask != Some(*ask))
        };
        let unknown: Vec<_> = asked.iter().filter(unknown).copied().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let partitions = unknown.iter().map(|(partition, _)| *partition);
        let partitions: Vec<_> = partitions.collect();
        let largest = largest_at(&self.broker, place, &self.stream, &partitions).await?;
        for ((partition, ask), largest) in unknown.into_iter().zip(largest) {
            let size = self.sizes.entry(partition).or_default();
            size.ask = Some(ask);
            size.largest = largest;
        }
        Ok(())
    }

    /// Of each partition: so many of the usual size as one reply shall have, and so many of the largest as
    /// there is room for.
    fn counts(&self, asked: &[(Partition, Ask)]) -> (usize, usize) {
        let usual = limits::READ_BYTES_TARGET / (asked.len() * self.entry_bytes).max(1);
        let fit = asked.iter().map(|(partition, ask)| {
            let size = self.sizes.get(partition);
            ask.room / size.map_or(ENTRY_BYTES_GUESS, Size::entry_bytes)
        });
        let within = |count: usize| count.clamp(1, limits::READ_ENTRIES_MAX);
        (within(usual), within(fit.min().unwrap_or(1)))
    }

    /// By script, if COUNT would be far too small. Whether anything was there; what comes later is for a
    /// read that blocks.
    async fn read_mixed(
        &mut self,
        place: &Place,
        asked: &[(Partition, Ask)],
    ) -> Result<bool, Failure> {
        let (usual, fit) = self.counts(asked);
        let nothing = |(partition, ask): &(Partition, Ask)| {
            let size = self.sizes.get(partition);
            size.is_some_and(|size| size.nothing == Some(*ask))
        };
        if usual < fit.saturating_mul(MIXED) || asked.iter().all(nothing) {
            return Ok(false);
        }
        let logs = asked.iter().map(|(p, _)| Key::Log(&self.stream, *p));
        let logs: Vec<_> = logs.collect();
        let most = usual.min((SCRIPT_ENTRIES / asked.len()).max(1));
        let room_max = limits::READ_BYTES_TARGET / asked.len();
        let fill = |cmd: &mut redis::Cmd| {
            placed(cmd, place, &logs);
            cmd.arg(limits::ENTRY_OVERHEAD_BYTES);
            for (_, ask) in asked {
                let room = ask.room.min(room_max);
                cmd.arg(ask.after.to_string()).arg(room).arg(most);
            }
        };
        let answer = list(self.broker.script(Script::Read, fill).await?)?;
        let (mut entries_read, mut bytes_read) = (0usize, 0usize);
        for ((partition, ask), entries) in asked.iter().zip(answer) {
            let entries = list(entries)?.into_iter().map(convert::entry);
            let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
            if entries.is_empty() {
                self.sizes.entry(*partition).or_default().nothing = Some(*ask);
            } else {
                entries_read += entries.len();
                bytes_read += self.give(*partition, *ask, entries);
            }
        }
        self.has_read(entries_read, bytes_read);
        Ok(entries_read > 0)
    }

    fn command(&self, place: &Place, asked: &[(Partition, Ask)]) -> redis::Cmd {
        let (usual, fit) = self.counts(asked);
        let count = usual.min(fit);
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
    ) -> Result<(), Failure> {
        let (mut entries_read, mut bytes_read) = (0usize, 0usize);
        for (key, entries) in convert::xread(value)? {
            let Some(partition) = place.partition_of(&key) else {
                continue;
            };
            let Ok(at) = asked.binary_search_by_key(&partition, |(p, _)| *p) else {
                continue;
            };
            entries_read += entries.len();
            bytes_read += self.give(partition, asked[at].1, entries);
        }
        self.has_read(entries_read, bytes_read);
        Ok(())
    }

    /// What lately came, of all partitions of a reply.
    fn has_read(&mut self, entries: usize, bytes: usize) {
        if let Some(average) = bytes.checked_div(entries) {
            self.entry_bytes = average.max((self.entry_bytes * 3 + average) / 4).max(64);
        }
    }

    /// Hands out what a partition asked for; answers its bytes.
    fn give(&mut self, partition: Partition, ask: Ask, entries: Vec<RawEntry>) -> usize {
        let size = self.sizes.entry(partition).or_default();
        let mut bytes_read = 0usize;
        for entry in &entries {
            let bytes = bytes_of(entry);
            bytes_read += bytes;
            size.seen = size.seen.max(bytes);
        }
        {
            // Answered once; a newer ask stays.
            let mut asks = self.shared.asks();
            if asks.by_partition.get(&partition) == Some(&ask) {
                asks.by_partition.remove(&partition);
            }
        }
        let Ask { epoch, after, .. } = ask;
        (self.deliver)(Delivery::Entries {
            partition,
            epoch,
            after,
            entries,
        });
        bytes_read
    }
}

/// How large the largest entry is that was ever appended to each partition, in bytes; 0 if nobody keeps it,
/// as for a stream that others write.
pub async fn largest(
    broker: &Broker,
    stream: &StreamId,
    partitions: &[Partition],
) -> Result<Vec<usize>, Failure> {
    let place = broker.place(stream).await?;
    largest_at(broker, &place, stream, partitions).await
}

async fn largest_at(
    broker: &Broker,
    place: &Place,
    stream: &StreamId,
    partitions: &[Partition],
) -> Result<Vec<usize>, Failure> {
    let metas = partitions.iter().map(|p| Key::Meta(stream, *p));
    let metas: Vec<_> = metas.collect();
    let fill = |cmd: &mut redis::Cmd| placed(cmd, place, &metas);
    let answer = list(broker.script(Script::Largest, fill).await?)?;
    let largest = answer.into_iter().map(|bytes| {
        // What is no number is as good as unknown.
        let bytes = number(bytes).unwrap_or(0);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    });
    Ok(largest.collect())
}

fn bytes_of(entry: &RawEntry) -> usize {
    entry
        .fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}
