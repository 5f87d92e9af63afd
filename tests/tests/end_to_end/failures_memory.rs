//! The memory of a real host whose guest fails message after message: the same at the end as after a tenth
//! of them, for each kind of failure in a host of its own. `SEGMENTER_SOAK_CALLS` says how many messages
//! fail in each way; `cargo xtask soak` says 100,000.

use std::fmt::Write;
use std::time::Instant;

use serde_json::json;

use segmenter_tests::process::{self, Host};

use crate::failing;
use crate::support::World;

const GROWTH_KIB_MAX: u64 = 5 * 1024;
/// Of each kind, unless asked for more.
const MESSAGES: u64 = 1_000;
/// For each so many messages a partition: those that wait or spin until their deadline do so at once.
const MESSAGES_PER_PARTITION: u64 = 1_000;
const PARTITIONS_MAX: u64 = 64;
/// They come in so many rounds, each when the one before is handled, so that the queues are as long in the
/// first as in the last.
const TENTHS: u64 = 10;

struct Kind {
    /// Of handler and stream.
    id: &'static str,
    /// Fails once, then is handled; but a reject.
    payload: &'static str,
    limits: &'static str,
    /// In the short form so many times fewer messages, because a tick of 10 ms passes for each.
    fewer: u64,
}

const fn kind(id: &'static str, payload: &'static str, limits: &'static str, fewer: u64) -> Kind {
    Kind {
        id,
        payload,
        limits,
        fewer,
    }
}

const KINDS: &[Kind] = &[
    kind("trap", "p2", "", 1),
    kind("stack", "s2", "", 1),
    kind("memory", "m2", "memory = '1MiB'", 1),
    kind("table", "t2", "table_elements = 1_000", 1),
    kind("exit", "x2", "", 1),
    kind("reject", "j9", "", 1),
    kind("retry", "r2", "", 1),
    kind("blocked", "b2", "deadline = '10ms'", 10),
    kind("spins", "l2", "deadline = '1ms'", 10),
];

fn configuration(world: &World, kind: &Kind) -> String {
    let dir = world.server.dir();
    let module = failing::guest(dir);
    let Kind { id, limits, .. } = kind;
    let mut text = String::new();
    write!(
        text,
        "[[handler]]\nname = '{id}'\nstream = '{id}'\ngroup = 'g'\nmodule = {module:?}\n\
         [handler.limits]\n{limits}\n\
         [handler.retry]\nbackoff = {{ initial = '1ms', max = '1ms' }}\n"
    )
    .expect("a String takes it");
    let path = dir.join(format!("{id}.toml"));
    std::fs::write(&path, text).expect("the folder is there");
    path.to_str().expect("UTF-8").to_owned()
}

/// Sends so many messages and waits until all that there are were handled.
fn round(world: &World, kind: &Kind, partitions: u32, messages: u64) {
    let line = |n: u64| json!({"key": n.to_string(), "payload": kind.payload}).to_string();
    let jsonl: Vec<String> = (0..messages).map(line).collect();
    let args = ["send", kind.id, "--jsonl", "-"];
    process::with_input(&world.url, &args, jsonl.join("\n").as_bytes()).ok();
    let mut best = u64::MAX;
    while best > 0 {
        // Patience for each step of progress, not for all of it.
        best = process::until("the host goes on", || {
            let lags = world.lag_and_pending_of(kind.id, partitions, "g");
            let left: Option<u64> = lags.into_iter().map(|(lag, _)| lag).sum();
            left.filter(|left| *left < best)
        });
    }
}

#[test]
fn a_host_does_not_grow_while_its_guests_fail() {
    let asked = std::env::var("SEGMENTER_SOAK_CALLS").ok();
    let asked: Option<u64> =
        asked.map(|text| text.parse().expect("SEGMENTER_SOAK_CALLS is a number"));
    let world = World::new();
    println!(
        "{:<10} {:>9} {:>10} {:>9}  KiB AFTER EACH TENTH",
        "KIND", "MESSAGES", "PARTITIONS", "SECONDS"
    );
    let mut grew = Vec::new();
    for kind in KINDS {
        let messages = asked.unwrap_or(MESSAGES / kind.fewer).max(10);
        let partitions = (messages / MESSAGES_PER_PARTITION).clamp(1, PARTITIONS_MAX) as u32;
        world.create(kind.id, partitions, messages);
        let config = configuration(&world, kind);
        let started = Instant::now();
        let host = Host::quiet(&world.url, &["-c", &config]);
        let held: Vec<u64> = (0..TENTHS)
            .map(|_| {
                round(&world, kind, partitions, messages / TENTHS);
                process::memory_kib(host.pid(), "VmRSS")
            })
            .collect();
        let (early, late) = (held[0], held[held.len() - 1]);
        let seconds = started.elapsed().as_secs_f64();
        let id = kind.id;
        let held: String = held.iter().map(|kib| format!(" {kib:>7}")).collect();
        println!("{id:<10} {messages:>9} {partitions:>10} {seconds:>9.1} {held}");
        if late > early + GROWTH_KIB_MAX {
            grew.push(format!("{id}: from {early} to {late} KiB"));
        }
        host.stop();
        world.run(&["stream", "delete", id]).ok();
    }
    assert!(grew.is_empty(), "the host grew: {grew:?}");
}
