//! What state and emits cost: calls through the whole engine, each beside the plain guest of the same round,
//! and Redis' CPU for one of them beside the one command that somebody would use instead.
//!
//! - A **state write**: `noop-state` reads and writes the value of each message's key. The keys of one commit
//!   differ, so that no write hides another. The ceiling is the same HSET, same names and values of the same
//!   hash, alone in a pipeline.
//! - An **emit**: `noop-emit` emits each message as it is. The ceiling is XADD of the same entries to the
//!   same logs, alone in a pipeline. What an emit costs is all of its way: the entry of the outbox, the
//!   append at the target, and the removal from the outbox.
//!
//! What one costs is what the server took for a message with it, less what it took for the same message
//! without (`noop`), both through the whole engine and under load; ratios are of one round, then the median.
//! Taken off is what the message costs anyway, reading and ack: the HSET or XADD alone does neither. So this
//! asks what it costs to write state or to emit here, instead of by hand. The stricter reading, the whole
//! message beside that one command, is a row of its own and not judged.
//!
//! It is CPU of the server's process (see `redis_seconds`), and the commands alone are sent by the host's
//! user: what a user may do is looked up at each command, for the host's as well.

use std::process::Stdio;

use anyhow::bail;
use segmenter_core::names::Shape;
use segmenter_core::partitioner;

use crate::append::pipelined;
use crate::consume::{self, Host, Rate};
use crate::raw::{Item, Raw, encode};
use crate::report::{Row, median, median_rate, plain, rate_row};
use crate::world::{KEYS, PAYLOAD_BYTES, World, key, xadd};

/// An instance for each message is so much slower that fewer messages tell as much.
const FRESH_SHARE: usize = 10;
/// Where `noop-emit` emits to.
const TARGET: &str = "emitted";

pub(crate) struct Round {
    /// `noop`, for comparison.
    plain: Rate,
    state: Rate,
    emit: Rate,
    /// Emits of each partition go to all partitions of the target.
    spread: Rate,
    fresh: Rate,
    hset: Rate,
    xadd: Rate,
}

pub(crate) fn round(
    world: &World,
    partitions: u32,
    messages: usize,
    plain: Rate,
) -> anyhow::Result<Round> {
    Ok(Round {
        plain,
        state: state(world, partitions, messages)?,
        hset: hset(world, partitions, messages)?,
        emit: emit(world, partitions, partitions, messages)?,
        xadd: xadd_alone(world, partitions, messages)?,
        spread: emit(world, partitions, partitions - 1, messages)?,
        fresh: fresh(world, partitions, messages / FRESH_SHARE)?,
    })
}

pub(crate) fn rows(rounds: &[Round], partitions: u32, ceiling: Rate, rows: &mut Vec<Row>) {
    let all = |of: fn(&Round) -> Rate| rounds.iter().map(of).collect::<Vec<_>>();
    for (name, of) in [
        ("engine_state", (|r| r.state) as fn(&Round) -> Rate),
        ("engine_emit", |r| r.emit),
        ("engine_fresh", |r| r.fresh),
    ] {
        let share = rounds.iter().map(|r| of(r).per_second / r.plain.per_second);
        let row = rate_row(name, partitions, median_rate(&mut all(of)), Some(ceiling));
        let share = median(share.collect());
        rows.push(Row {
            note: format!("{}, {share:.2} of engine_guest", row.note),
            ..row
        });
    }
    let mut cost =
        |name, of: &dyn Fn(&Round) -> f64, ceiling: Option<fn(&Round) -> f64>, note: &str| {
            rows.push(Row {
                ratio: ceiling.map(|c| median(rounds.iter().map(|r| of(r) / c(r)).collect())),
                note: note.to_owned(),
                ..plain(
                    name,
                    partitions,
                    median(rounds.iter().map(of).collect()),
                    "Redis µs",
                )
            });
        };
    cost(
        "message_redis_us",
        &|r| r.plain.redis_us,
        None,
        "noop, read and acked",
    );
    let hset: fn(&Round) -> f64 = |r| r.hset.redis_us;
    let xadd: fn(&Round) -> f64 = |r| r.xadd.redis_us;
    cost("ceiling_state_redis_us", &hset, None, "HSET alone");
    cost(
        "state_redis_us",
        &|r| r.state.redis_us - r.plain.redis_us,
        Some(hset),
        "what a state write adds",
    );
    cost(
        "message_state_redis_us",
        &|r| r.state.redis_us,
        Some(hset),
        "the whole message: the stricter reading",
    );
    cost("ceiling_emit_redis_us", &xadd, None, "XADD alone");
    cost(
        "emit_redis_us",
        &|r| r.emit.redis_us - r.plain.redis_us,
        Some(xadd),
        "what an emit adds",
    );
    cost(
        "emit_spread_redis_us",
        &|r| r.spread.redis_us - r.plain.redis_us,
        Some(xadd),
        "to all partitions of the target",
    );
    cost(
        "message_emit_redis_us",
        &|r| r.emit.redis_us,
        Some(xadd),
        "the whole message: the stricter reading",
    );
}

fn state(world: &World, partitions: u32, messages: usize) -> anyhow::Result<Rate> {
    world.create(partitions, messages)?;
    world.fill(partitions, messages)?;
    let host = Host::granted(world, "noop-state", &["state"], Stdio::null())?;
    let rate = consume::engine(world, partitions, messages, host)?;
    // Each message counted once: else it was not this that was measured.
    let mut raw = world.raw()?;
    let mut counted = 0;
    for p in 0..partitions {
        let values = raw.command(&["HGETALL", &state_key(p)])?;
        for pair in values[1..].chunks(2) {
            if raw.string(&pair[0]).starts_with('=') {
                counted += raw.string(&pair[1]).parse::<usize>()?;
            }
        }
    }
    if counted != messages {
        bail!("{messages} messages were counted as {counted}");
    }
    Ok(rate)
}

fn hset(world: &World, partitions: u32, messages: usize) -> anyhow::Result<Rate> {
    world.raw()?.command(&["FLUSHALL"])?;
    let shape = Shape::new(partitions, 1)?;
    let keys: Vec<_> = (0..KEYS)
        .map(|n| {
            let partition = partitioner::partition(&key(n), shape);
            (state_key(partition.0), format!("={}", key(n)))
        })
        .collect();
    pipelined(world, world.raw_as_host()?, messages, |out, n| {
        let (hash, name) = &keys[n % KEYS];
        let value = (n / KEYS + 1).to_string();
        encode(
            out,
            &[b"HSET", hash.as_bytes(), name.as_bytes(), value.as_bytes()],
        );
    })
}

fn emit(world: &World, partitions: u32, targets: u32, messages: usize) -> anyhow::Result<Rate> {
    world.create(partitions, messages)?;
    world.also(TARGET, targets, messages)?;
    world.fill(partitions, messages)?;
    let grant = format!("emit={TARGET}");
    let host = Host::granted(world, "noop-emit", &[&grant], Stdio::null())?;
    let outboxes: Vec<_> = (0..partitions)
        .map(|p| format!("seg:{{default/bench/{p}}}:outbox:g"))
        .collect();
    let rate = consume::engine_until(world, partitions, messages, host, |raw| {
        Ok(entries(raw, &outboxes)? == 0)
    })?;
    let logs: Vec<_> = (0..targets).map(target_log).collect();
    let arrived = entries(&mut world.raw()?, &logs)?;
    if arrived != messages {
        bail!("of {messages} emitted messages {arrived} arrived");
    }
    Ok(rate)
}

fn xadd_alone(world: &World, partitions: u32, messages: usize) -> anyhow::Result<Rate> {
    world.raw()?.command(&["FLUSHALL"])?;
    let shape = Shape::new(partitions, 1)?;
    let keys: Vec<_> = (0..KEYS)
        .map(|n| {
            let partition = partitioner::partition(&key(n), shape);
            (target_log(partition.0), key(n))
        })
        .collect();
    let payload = [b'x'; PAYLOAD_BYTES];
    pipelined(world, world.raw_as_host()?, messages, |out, n| {
        let (log, key) = &keys[n % KEYS];
        xadd(out, log, key, &payload);
    })
}

fn fresh(world: &World, partitions: u32, messages: usize) -> anyhow::Result<Rate> {
    world.create(partitions, messages)?;
    world.fill(partitions, messages)?;
    consume::engine(world, partitions, messages, Host::fresh(world, "noop")?)
}

fn entries(raw: &mut Raw, streams: &[String]) -> anyhow::Result<usize> {
    let mut out = Vec::new();
    for stream in streams {
        encode(&mut out, &[b"XLEN", stream.as_bytes()]);
    }
    raw.send(&out)?;
    let (mut items, mut sum) = (Vec::new(), 0);
    for _ in streams {
        raw.reply(&mut items)?;
        match items[..] {
            [Item::Int(n)] => sum += usize::try_from(n)?,
            ref other => bail!("XLEN answered {other:?}"),
        }
    }
    Ok(sum)
}

fn state_key(partition: u32) -> String {
    format!("seg:{{default/bench/{partition}}}:state:g")
}

fn target_log(partition: u32) -> String {
    format!("seg:{{default/{TARGET}/{partition}}}:log")
}
