//! What a real host holds of a backlog that is many times larger than it may read ahead: 64 partitions whose
//! messages have the largest payload, while all of their first calls wait.

use std::fmt::Write;

use serde_json::json;

use segmenter_core::limits::{ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX};
use segmenter_core::names::Shape;
use segmenter_core::partitioner::partition;
use segmenter_tests::process::{self, Host};

use crate::failing;
use crate::support::World;

const PARTITIONS: u32 = 64;
/// Of each guest: the message that it is called with, and its own pages; of the host for it: store and stack.
const INSTANCE_KIB: u64 = (PAYLOAD_BYTES_MAX as u64 + 256 * 1024) / 1024;
/// Buffers of connections, tasks, what an allocator keeps.
const OTHER_KIB: u64 = 48 * 1024;

/// A key for each partition.
fn keys() -> Vec<String> {
    let shape = Shape::new(PARTITIONS, 1).expect("a shape");
    let mut keys = vec![None; PARTITIONS as usize];
    for n in 0.. {
        let key = format!("k{n}");
        keys[partition(&key, shape).0 as usize].get_or_insert(key);
        if keys.iter().all(Option::is_some) {
            break;
        }
    }
    keys.into_iter().flatten().collect()
}

/// So many messages of each key, all with this payload.
fn send(world: &World, keys: &[String], each: usize, payload: &str) {
    let mut jsonl = String::new();
    for key in keys {
        let line = json!({"key": key, "payload": payload}).to_string();
        for _ in 0..each {
            writeln!(jsonl, "{line}").expect("a String takes it");
        }
    }
    process::with_input(&world.url, &["send", "s", "--jsonl", "-"], jsonl.as_bytes()).ok();
}

/// Fails once, by waiting until its deadline; then is handled.
fn waits(bytes: usize) -> String {
    format!("b2{}", "x".repeat(bytes - 2))
}

/// Is handled.
fn works(bytes: usize) -> String {
    format!("k0{}", "x".repeat(bytes - 2))
}

/// Runs a host over the backlog that `fill` makes. Answers how much it grew at most, and what it may hold.
fn grown(read_ahead_mib: u64, fill: impl Fn(&World, &[String])) -> (u64, u64) {
    let world = World::new();
    world.create("s", PARTITIONS, 10_000);
    let module = failing::guest(world.server.dir());
    let text = format!(
        "read_ahead = '{read_ahead_mib}MiB'\n\
         [[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = {module:?}\n\
         [handler.limits]\ndeadline = '3s'\n\
         [handler.retry]\nbackoff = {{ initial = '1ms', max = '1ms' }}\n"
    );
    let config = world.server.dir().join("segmenter.toml");
    std::fs::write(&config, text).expect("the folder is there");
    let host = Host::quiet(&world.url, &["-c", config.to_str().expect("UTF-8")]);
    world.until_shared(&[PARTITIONS as usize]);
    world.run(&["group", "pause", "s", "g"]).ok();
    fill(&world, &keys());
    let before = process::memory_kib(host.pid(), "VmRSS");
    world.run(&["group", "resume", "s", "g"]).ok();
    world.until_acked(PARTITIONS, "g");
    let most = process::memory_kib(host.pid(), "VmHWM");
    host.stop();
    // As `read_ahead` is divided: a share each, or half of it and one message.
    let share = read_ahead_mib * 1024 * 1024 / u64::from(PARTITIONS);
    let message = (PAYLOAD_BYTES_MAX + ENTRY_OVERHEAD_BYTES + 8) as u64;
    let held = share.max(share / 2 + message) * u64::from(PARTITIONS) / 1024;
    println!(
        "read_ahead {read_ahead_mib} MiB: from {before} to {most} KiB at most; {held} KiB may be held"
    );
    (most - before, held)
}

fn holds_what_it_may((grown, held): (u64, u64)) {
    let bound = held + u64::from(PARTITIONS) * INSTANCE_KIB + OTHER_KIB;
    assert!(
        grown <= bound,
        "it grew by {grown} KiB; allowed are {bound}"
    );
}

#[test]
fn a_backlog_of_large_messages_stays_within_what_may_be_read_ahead() {
    let (grown, held) = grown(192, |world, keys| {
        send(world, keys, 1, &waits(PAYLOAD_BYTES_MAX));
        for _ in 0..15 {
            send(world, keys, 1, &works(PAYLOAD_BYTES_MAX));
        }
    });
    assert!(
        grown > held / 2,
        "it was not read ahead at all: {grown} KiB"
    );
    holds_what_it_may((grown, held));
}

#[test]
fn so_does_one_that_turns_from_small_to_large() {
    holds_what_it_may(grown(192, |world, keys| {
        send(world, keys, 1, &waits(10));
        send(world, keys, 300, &works(10));
        send(world, keys, 1, &waits(PAYLOAD_BYTES_MAX));
        for _ in 0..15 {
            send(world, keys, 1, &works(PAYLOAD_BYTES_MAX));
        }
    }));
}

#[test]
fn with_next_to_nothing_each_partition_goes_on_one_message_at_a_time() {
    holds_what_it_may(grown(1, |world, keys| {
        send(world, keys, 1, &waits(PAYLOAD_BYTES_MAX));
        for _ in 0..3 {
            send(world, keys, 1, &works(PAYLOAD_BYTES_MAX));
        }
    }));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let module = failing::guest(dir.path());
    let text = format!(
        "read_ahead = '8MiB'\n[[stream]]\nname = 's'\npartitions = 4\ncapacity = 10\n\
         [[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = {module:?}\n"
    );
    let config = dir.path().join("segmenter.toml");
    std::fs::write(&config, text).expect("the folder is there");
    let checked = |variable: Option<&str>, flag: &[&str]| {
        let mut command = std::process::Command::new(process::binary());
        command.args(["--format", "json", "run", "--check", "-c"]);
        command.arg(&config).args(flag);
        command.env_remove("SEGMENTER_READ_AHEAD");
        if let Some(value) = variable {
            command.env("SEGMENTER_READ_AHEAD", value);
        }
        let output = command.output().expect("segmenter starts");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = said
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let lines: Vec<serde_json::Value> = lines.collect();
        let line = lines
            .into_iter()
            .find(|line| line["event"] == "checked_read_ahead");
        (output.status.code(), line)
    };
    let found = |variable, flag: &[&str]| {
        let (code, line) = checked(variable, flag);
        assert_eq!(code, Some(0));
        let line = line.expect("it says what it comes to");
        assert_eq!(line["partitions"], 4);
        (line["bytes"].as_u64(), line["bytes_per_partition"].as_u64())
    };
    assert_eq!(found(None, &[]), (Some(8 << 20), Some(2 << 20)));
    assert_eq!(found(Some("4MiB"), &[]), (Some(4 << 20), Some(1 << 20)));
    let flag = ["--read-ahead", "1MiB"];
    assert_eq!(found(Some("4MiB"), &flag), (Some(1 << 20), Some(1 << 18)));
    assert_eq!(checked(None, &["--read-ahead", "1"]), (Some(2), None));
}

#[test]
fn a_host_says_at_its_start_that_what_lies_there_does_not_fit() {
    let world = World::with_stream(4, 100);
    let start = |read_ahead: &str| {
        let module = failing::guest(world.server.dir());
        let module = module.to_str().expect("UTF-8");
        let args = [module, "--stream", "s", "--group", "g"];
        Host::start(
            &world.url,
            &[&args[..], &["--read-ahead", read_ahead]].concat(),
        )
    };
    let warned = |host: &Host| {
        let mut said = host.said().into_iter();
        said.find(|line| line.contains("warning") && line.contains("read_ahead"))
    };
    send(&world, &["a".to_owned()], 1, &works(PAYLOAD_BYTES_MAX));
    let host = start("1MiB");
    world.until_acked(4, "g");
    let text = warned(&host).expect("a warning");
    for part in ["1MiB for 4 partitions", "9MiB would be enough"] {
        assert!(text.contains(part), "{text}");
    }
    host.stop();
    let host = start("9MiB");
    world.until_shared(&[4]);
    assert_eq!(warned(&host), None);
    host.stop();
}
