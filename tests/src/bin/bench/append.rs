//! Appending: XADD pipelined on a raw socket, and our scripts.

use std::time::Instant;

use segmenter_core::limits;
use segmenter_core::message::Content;
use segmenter_core::names::{Partition, StreamId};
use segmenter_core::partitioner;
use segmenter_core::port::{Append, AppendReply, Reply, Request};
use segmenter_redis::{Address, Broker, admin};

use crate::consume::Rate;
use crate::raw::Raw;
use crate::world::{PAYLOAD_BYTES, World, cpu_seconds, log, redis_seconds, xadd};

const PIPELINE: usize = 128;

pub(crate) fn ceiling(world: &World, partitions: u32, messages: usize) -> anyhow::Result<Rate> {
    let logs: Vec<String> = (0..partitions).map(log).collect();
    let payload = [b'x'; PAYLOAD_BYTES];
    pipelined(world, world.raw()?, messages, |out, n| {
        xadd(out, &logs[n % logs.len()], "key-1", &payload)
    })
}

/// Any command alone in a pipeline; `command` writes the n-th.
pub(crate) fn pipelined(
    world: &World,
    mut raw: Raw,
    messages: usize,
    command: impl Fn(&mut Vec<u8>, usize),
) -> anyhow::Result<Rate> {
    let mut items = Vec::new();
    let mut out = Vec::new();
    measure(world, messages, || {
        // Two pipelines in the air: one is filled while the server works on the other.
        let (mut sent, mut answered) = (0, 0);
        while answered < messages {
            while sent < messages && sent - answered < 2 * PIPELINE {
                out.clear();
                for n in sent..(sent + PIPELINE).min(messages) {
                    command(&mut out, n);
                }
                sent = (sent + PIPELINE).min(messages);
                raw.send(&out)?;
            }
            for _ in 0..PIPELINE.min(messages - answered) {
                raw.reply(&mut items)?;
                answered += 1;
            }
        }
        Ok(())
    })
}

pub(crate) fn ours(world: &World, partitions: u32, messages: usize) -> anyhow::Result<Rate> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let broker = Broker::connect(&Address::new(&world.server.url(), None)?).await?;
        let stream = StreamId {
            namespace: "default".parse()?,
            stream: "bench".parse()?,
        };
        let info = admin::find_stream(&broker, &stream).await?;
        let info = info.ok_or_else(|| anyhow::anyhow!("the stream is gone"))?;
        let mut keys: Vec<String> = vec![String::new(); partitions as usize];
        for n in 0.. {
            let key = format!("key-{n}");
            let at = partitioner::partition(&key, info.shape).0 as usize;
            if keys[at].is_empty() {
                keys[at] = key;
            }
            if keys.iter().all(|key| !key.is_empty()) {
                break;
            }
        }
        let each = messages / partitions as usize;
        let mut watch = world.raw()?;
        let me = std::process::id();
        let (started, redis_before, me_before) =
            (Instant::now(), redis_seconds(&mut watch)?, cpu_seconds(me)?);
        let mut tasks = tokio::task::JoinSet::new();
        for (key, p) in keys.into_iter().zip(0..partitions) {
            let (broker, stream, uid) = (broker.clone(), stream.clone(), info.uid.clone());
            tasks.spawn(async move {
                let payload = vec![b'x'; PAYLOAD_BYTES];
                let content = Content::new(key, payload, Vec::new(), limits::PAYLOAD_BYTES_MAX)?;
                let mut left = each;
                while left > 0 {
                    let batch = left.min(PIPELINE);
                    let request = Request::Append(Append {
                        stream: stream.clone(),
                        uid: uid.clone(),
                        partition: Partition(p),
                        messages: vec![content.clone(); batch],
                    });
                    match broker.execute(request).await? {
                        Reply::Append(AppendReply::Appended { ids }) if ids.len() == batch => {
                            left -= batch
                        }
                        other => anyhow::bail!("{other:?}"),
                    }
                }
                Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let seconds = started.elapsed().as_secs_f64();
        let counted = (each * partitions as usize) as f64;
        let redis = redis_seconds(&mut watch)? - redis_before;
        Ok(Rate::of(
            counted,
            seconds,
            redis,
            cpu_seconds(me)? - me_before,
        ))
    })
}

fn measure(
    world: &World,
    messages: usize,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Rate> {
    let mut watch = world.raw()?;
    let me = std::process::id();
    let (started, redis_before, me_before) =
        (Instant::now(), redis_seconds(&mut watch)?, cpu_seconds(me)?);
    work()?;
    let seconds = started.elapsed().as_secs_f64();
    let redis = redis_seconds(&mut watch)? - redis_before;
    let me = cpu_seconds(me)? - me_before;
    Ok(Rate::of(messages as f64, seconds, redis, me))
}
