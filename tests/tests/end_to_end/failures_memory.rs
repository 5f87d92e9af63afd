//! The memory of a real host whose guests fail message after message: the same at the end as after a
//! tenth of them. `SEGMENTER_SOAK_CALLS` says how many of each kind; `cargo xtask soak` says 100,000.

use std::fmt::Write;

use serde_json::json;

use segmenter_tests::process::{self, Host};

use crate::failing;
use crate::support::World;

const GROWTH_KIB_MAX: u64 = 5 * 1024;
/// Of each kind, unless asked for more.
const MESSAGES: u64 = 1_000;

struct Kind {
    /// Of handler and stream.
    id: &'static str,
    /// Fails once, then is handled; but a reject.
    payload: &'static str,
    limits: &'static str,
    /// So many times fewer messages, because each waits.
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
    kind("blocked", "b2", "deadline = '1ms'", 10),
    kind("spins", "l2", "deadline = '1ms'", 100),
];

fn configuration(world: &World, messages: u64) -> String {
    let dir = world.server.dir();
    let module = failing::guest(dir);
    let mut text = String::new();
    for Kind { id, limits, .. } in KINDS {
        write!(
            text,
            "[[stream]]\nname = '{id}'\npartitions = 1\ncapacity = {messages}\n\
             [[handler]]\nname = '{id}'\nstream = '{id}'\ngroup = 'g'\nmodule = {module:?}\n\
             [handler.limits]\n{limits}\n\
             [handler.retry]\nbackoff = {{ initial = '1ms', max = '1ms' }}\n"
        )
        .expect("a String takes it");
    }
    let path = dir.join("segmenter.toml");
    std::fs::write(&path, text).expect("the folder is there");
    path.to_str().expect("UTF-8").to_owned()
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("VmRSS: N kB")
}

/// Looks until no stream has more than such a part of its messages left.
fn until_left(world: &World, of: impl Fn(&Kind) -> u64, tenths: u64) {
    let mut best = u64::MAX;
    loop {
        // Patience for each step of progress, not for all of it.
        let left = process::until("hosts go on", || {
            let lag = |kind: &Kind| {
                let lag = world.lag_and_pending_of(kind.id, 1, "g")[0]
                    .0
                    .unwrap_or(of(kind));
                lag.saturating_sub(of(kind) * tenths / 10)
            };
            let left: u64 = KINDS.iter().map(lag).sum();
            (left == 0 || left < best).then_some(left)
        });
        if left == 0 {
            return;
        }
        best = left;
    }
}

#[test]
fn a_host_does_not_grow_while_its_guests_fail() {
    let messages = match std::env::var("SEGMENTER_SOAK_CALLS") {
        Ok(text) => text.parse().expect("SEGMENTER_SOAK_CALLS is a number"),
        Err(_) => MESSAGES,
    };
    let of = |kind: &Kind| (messages / kind.fewer).max(10);
    let world = World::new();
    for kind in KINDS {
        world.create(kind.id, 1, messages);
        let line = json!({"key": "k", "payload": kind.payload}).to_string() + "\n";
        let jsonl = line.repeat(of(kind) as usize);
        let args = ["send", kind.id, "--jsonl", "-"];
        process::with_input(&world.url, &args, jsonl.as_bytes()).ok();
    }
    let config = configuration(&world, messages);
    let host = Host::quiet(&world.url, &["-c", &config]);
    until_left(&world, of, 9);
    let early = rss_kib(host.pid());
    until_left(&world, of, 0);
    let late = rss_kib(host.pid());
    println!(
        "host with {messages} failing messages of each kind: {early} KiB after a tenth, {late} KiB after all"
    );
    assert!(
        late <= early + GROWTH_KIB_MAX,
        "the host grew from {early} to {late} KiB"
    );
    host.stop();
}
