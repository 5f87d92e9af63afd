//! From just before an append is written to the handler, at 1,000 messages a second. The machine's
//! monotonic clock is the same for all processes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use segmenter_core::names::Shape;
use segmenter_core::partitioner;
use serde_json::Value;

use crate::consume::{Host, streams};
use crate::raw::{Item, Raw, encode};
use crate::world::{PAYLOAD_BYTES, World, log};

const PER_SECOND: u64 = 1_000;
/// Sent before any that counts: caches, JIT-compiled pages, connections.
const WARM_UP: usize = 500;
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// (partition, id)
type Message = (u32, String);

pub(crate) fn ceiling(world: &World, partitions: u32, seconds: u64) -> anyhow::Result<Latency> {
    let total = usize::try_from(PER_SECOND * seconds)? + WARM_UP;
    let mut raw = world.raw()?;
    let logs: Vec<String> = (0..partitions).map(log).collect();
    for log in &logs {
        raw.command(&["XGROUP", "CREATE", log, "raw", "0"])?;
    }
    let consumer = std::thread::spawn(move || -> anyhow::Result<Vec<(Message, u64)>> {
        let mut read = Vec::new();
        let mut args: Vec<&[u8]> = vec![
            b"XREADGROUP",
            b"GROUP",
            b"raw",
            b"c",
            b"COUNT",
            b"100",
            b"BLOCK",
            b"5000",
            b"STREAMS",
        ];
        args.extend(logs.iter().map(|log| log.as_bytes()));
        args.extend(logs.iter().map(|_| &b">"[..]));
        encode(&mut read, &args);
        let (mut items, mut out, mut arrived) = (Vec::new(), Vec::new(), Vec::new());
        while arrived.len() < total {
            raw.send(&read)?;
            raw.reply(&mut items)?;
            let now = now_us();
            if items == [Item::Nil] {
                bail!("nothing arrived for 5 s");
            }
            out.clear();
            let mut acks = 0;
            for (log, ids) in streams(&items) {
                let text = String::from_utf8_lossy(raw.text(&log)).into_owned();
                let partition = partition_of(&text)?;
                let mut args: Vec<&[u8]> = vec![b"XACK", text.as_bytes(), b"raw"];
                args.extend(ids.iter().map(|id| raw.text(id)));
                encode(&mut out, &args);
                acks += 1;
                for id in &ids {
                    let id = String::from_utf8_lossy(raw.text(id)).into_owned();
                    arrived.push(((partition, id), now));
                }
            }
            raw.send(&out)?;
            for _ in 0..acks {
                raw.reply(&mut items)?;
            }
        }
        Ok(arrived)
    });
    let sent = produce(world.raw()?, partitions, total)?;
    let arrived = consumer
        .join()
        .map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
    summary(&sent, arrived)
}

pub(crate) fn engine(world: &World, partitions: u32, seconds: u64) -> anyhow::Result<Latency> {
    let total = usize::try_from(PER_SECOND * seconds)? + WARM_UP;
    let mut host = Host::guest(world, "tally", Stdio::piped())?;
    let stderr = BufReader::new(host.0.stderr.take().context("its stderr")?);
    let (lines_out, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if lines_out.send(line).is_err() {
                return;
            }
        }
    });
    let next = || {
        lines
            .recv_timeout(PATIENCE)
            .context("the host said nothing more")
    };
    while !has_all(&next()?, partitions) {}
    let producer = {
        let raw = world.raw()?;
        std::thread::spawn(move || produce(raw, partitions, total))
    };
    let mut arrived = Vec::with_capacity(total);
    while arrived.len() < total {
        let line: Value = serde_json::from_str(&next()?)?;
        if line["event"] == "guest_log" {
            let partition = u32::try_from(line["partition"].as_u64().context("partition")?)?;
            let id = line["id"].as_str().context("id")?.to_owned();
            arrived.push(((partition, id), line["at_us"].as_u64().context("at_us")?));
        }
    }
    let sent = producer
        .join()
        .map_err(|_| anyhow::anyhow!("the producer panicked"))??;
    summary(&sent, arrived)
}

/// The host says that all partitions are its own.
fn has_all(line: &str, partitions: u32) -> bool {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    line["event"] == "assigned" && line["count"] == partitions
}

/// One append after the other at an even pace; when each was written.
fn produce(
    mut raw: Raw,
    partitions: u32,
    total: usize,
) -> anyhow::Result<HashMap<Message, (usize, u64)>> {
    let shape = Shape::new(partitions, 1)?;
    let payload = [b'x'; PAYLOAD_BYTES];
    let mut sent = HashMap::with_capacity(total);
    let (mut items, mut out) = (Vec::new(), Vec::new());
    let start = now_us();
    for n in 0..total {
        let due = start + n as u64 * 1_000_000 / PER_SECOND;
        while let Some(wait) = due.checked_sub(now_us()).filter(|wait| *wait > 0) {
            std::thread::sleep(Duration::from_micros(wait));
        }
        let key = format!("key-{}", n % 10_007);
        let partition = partitioner::partition(&key, shape).0;
        out.clear();
        encode(
            &mut out,
            &[
                b"XADD",
                log(partition).as_bytes(),
                b"*",
                b"k",
                key.as_bytes(),
                b"p",
                &payload,
            ],
        );
        let at = now_us();
        raw.send(&out)?;
        raw.reply(&mut items)?;
        sent.insert((partition, raw.string(&items[0])), (n, at));
    }
    Ok(sent)
}

fn summary(
    sent: &HashMap<Message, (usize, u64)>,
    arrived: Vec<(Message, u64)>,
) -> anyhow::Result<Latency> {
    let mut took = Vec::new();
    for (message, at) in arrived {
        let (n, sent_at) = sent
            .get(&message)
            .context("a message arrived that was never sent")?;
        if *n >= WARM_UP {
            took.push(at.saturating_sub(*sent_at));
        }
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
    Ok(Latency {
        p50_ms: at(0.50),
        p99_ms: at(0.99),
    })
}

fn partition_of(log: &str) -> anyhow::Result<u32> {
    let tag = log
        .rsplit_once('}')
        .and_then(|(tag, _)| tag.rsplit_once('/'));
    Ok(tag.context("not our key")?.1.parse()?)
}

/// CLOCK_MONOTONIC, in µs.
fn now_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}
