//! Producers that never pause: each appends its own keys, numbered per key, in order. What is answered
//! was appended; what lost its answer is unknown, and is neither sent again nor counted as sent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Partition, Shape, StreamId, Uid};
use segmenter_core::partitioner;
use segmenter_core::port::{Append, AppendReply, Failure, Reply, Request};
use segmenter_redis::{Address, Broker, admin};

use super::clock::now_us;
use super::record::What;

/// Of one producer in one partition.
const KEYS: u32 = 4;
const BATCH: usize = 64;
/// Between two tries at a full partition, or at a Redis that is away.
const RETRY: Duration = Duration::from_millis(20);

/// What became of the messages.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) accepted: Vec<(u32, EntryId, What)>,
    pub(super) unknown: Vec<What>,
    /// Of each of `accepted`: when its producer began to append it.
    pub(super) sent_us: Vec<u64>,
}

pub(super) struct Producers {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
    tasks: tokio::task::JoinSet<anyhow::Result<()>>,
}

struct Shared {
    stop: AtomicBool,
    accepted: AtomicU64,
    sent: Mutex<Sent>,
}

impl Producers {
    /// One per URL, `rate` messages a second over all of them.
    pub(super) fn start(urls: &[String], stream: &str, rate: u32) -> anyhow::Result<Producers> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            sent: Mutex::default(),
        });
        let stream = StreamId {
            namespace: "default".parse()?,
            stream: stream.parse()?,
        };
        let mut tasks = tokio::task::JoinSet::new();
        let mut next_key = 0;
        for url in urls {
            let broker = runtime.block_on(Broker::connect(&Address::new(url, None)?))?;
            let info = runtime.block_on(admin::find_stream(&broker, &stream))?;
            let info = info.context("the stream is gone")?;
            let each = f64::from(rate) / urls.len() as f64 / f64::from(info.shape.partitions());
            for (partition, keys) in info.shape.all().zip(keys(info.shape, &mut next_key)) {
                let producer = Producer {
                    broker: broker.clone(),
                    stream: stream.clone(),
                    uid: info.uid.clone(),
                    partition,
                    next: keys
                        .into_iter()
                        .map(|key| What { key, number: 0 })
                        .collect(),
                    at: 0,
                    shared: shared.clone(),
                };
                tasks.spawn_on(producer.run(each), runtime.handle());
            }
        }
        Ok(Producers {
            shared,
            runtime,
            tasks,
        })
    }

    pub(super) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// After what is in the air was answered, or lost.
    pub(super) fn end(mut self) -> anyhow::Result<Sent> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.runtime.block_on(async {
            while let Some(ended) = self.tasks.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        })?;
        Ok(std::mem::take(
            &mut *self.shared.sent.lock().expect("no panic"),
        ))
    }
}

/// So many for each partition, all of them new.
fn keys(shape: Shape, next: &mut u32) -> Vec<Vec<u32>> {
    let mut keys = vec![Vec::new(); shape.partitions() as usize];
    while keys.iter().any(|keys| keys.len() < KEYS as usize) {
        let partition = partitioner::partition(&What::key_text(*next), shape);
        let of = &mut keys[partition.0 as usize];
        if of.len() < KEYS as usize {
            of.push(*next);
        }
        *next += 1;
    }
    keys
}

/// One producer in one partition: one append in the air at a time, so nothing overtakes.
struct Producer {
    broker: Broker,
    stream: StreamId,
    uid: Uid,
    partition: Partition,
    /// The next message of each key.
    next: Vec<What>,
    at: usize,
    shared: Arc<Shared>,
}

impl Producer {
    async fn run(mut self, per_second: f64) -> anyhow::Result<()> {
        let started = Instant::now();
        // Partitions do not send at the same moment.
        let phase = f64::from(self.partition.0 % 16) / 16.0;
        let mut made = 0u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let due = (started.elapsed().as_secs_f64() * per_second + phase) as u64;
            if due <= made {
                let next =
                    (made as f64 + 1.0 - phase) / per_second - started.elapsed().as_secs_f64();
                tokio::time::sleep(Duration::from_secs_f64(next.max(0.000_5))).await;
                continue;
            }
            let n = usize::try_from(due - made).map_or(BATCH, |n| n.min(BATCH));
            let batch: Vec<What> = (0..n).map(|_| self.take()).collect();
            self.append(&batch).await?;
            made += n as u64;
            if due - made > per_second as u64 + 1 {
                // It was refused for long: it goes on from now, a flood afterwards is not the point.
                made = due;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> What {
        let keys = self.next.len();
        let next = &mut self.next[self.at % keys];
        self.at += 1;
        let taken = *next;
        next.number += 1;
        taken
    }

    /// Until all are appended or unknown. At the end of the run what was refused is given up: it was
    /// surely not appended.
    async fn append(&mut self, mut left: &[What]) -> anyhow::Result<()> {
        let began_us = now_us();
        while !left.is_empty() {
            let messages = left.iter().map(content).collect::<anyhow::Result<_>>()?;
            let request = Request::Append(Append {
                stream: self.stream.clone(),
                uid: self.uid.clone(),
                partition: self.partition,
                messages,
            });
            match self.broker.execute(request).await {
                Ok(Reply::Append(AppendReply::Appended { ids })) => {
                    let (done, rest) = left.split_at(ids.len());
                    let accepted = done
                        .iter()
                        .zip(ids)
                        .map(|(what, id)| (self.partition.0, id, *what));
                    let mut sent = self.shared.sent.lock().expect("no panic");
                    sent.accepted.extend(accepted);
                    sent.sent_us.extend(done.iter().map(|_| began_us));
                    self.shared
                        .accepted
                        .fetch_add(done.len() as u64, Ordering::Relaxed);
                    left = rest;
                    if left.is_empty() {
                        return Ok(());
                    }
                }
                Err(Failure::Unknown(_)) => {
                    let mut sent = self.shared.sent.lock().expect("no panic");
                    sent.unknown.extend_from_slice(left);
                    return Ok(());
                }
                Err(Failure::NotDone(_)) => {}
                other => anyhow::bail!("an append was answered with {other:?}"),
            }
            if self.shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }
}

fn content(what: &What) -> anyhow::Result<Content> {
    let payload = what.number.to_string().into_bytes();
    let key = What::key_text(what.key);
    Ok(Content::new(
        key,
        payload,
        Vec::new(),
        limits::PAYLOAD_BYTES_MAX,
    )?)
}
