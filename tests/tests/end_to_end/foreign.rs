//! Components that other hosts' toolchains made: they handle messages here as they are.

use std::collections::BTreeMap;

use segmenter_tests::process::{Host, guest, until};
use serde_json::{Value, json};

use crate::support::World;

const PARTITIONS: u32 = 4;

fn run(world: &World, name: &str, grants: &[&str]) -> Host {
    let module = guest(name);
    let mut args = vec![module.to_str().unwrap(), "--stream", "s", "--group", "g"];
    args.extend(grants.iter().flat_map(|grant| ["--grant", grant]));
    Host::start(&world.url, &args)
}

fn dead_letters(world: &World) -> Vec<Value> {
    let list = ["--format", "json", "dead", "list", "s", "g"];
    world.run(&list).ok().objects()
}

/// Spin's example prints the payload, and fails if it is no text.
#[test]
fn an_example_of_spins_sdk_handles_messages() {
    let world = World::with_stream(PARTITIONS, 1_000);
    let text = |n: usize| format!("message {n} — ключ {}", n % 5);
    let line = |n: usize| json!({"key": format!("key-{}", n % 5), "payload": text(n)}).to_string();
    let mut lines: Vec<String> = (0..200).map(line).collect();
    // No UTF-8: the bytes ff fe.
    lines.insert(
        100,
        json!({"key": "bad", "payload_base64": "//4="}).to_string(),
    );
    let sent = world.send_lines(&lines);

    let host = run(&world, "foreign-spin-redis", &[]);
    world.until_acked(PARTITIONS, "g");
    let mut heard: BTreeMap<(u64, String), Vec<String>> = BTreeMap::new();
    let mut order: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let number = |id: &(u64, String)| sent.iter().position(|sent| sent == id).expect("sent");
    for line in host.stop() {
        let message = line.message();
        order
            .entry(line.partition)
            .or_default()
            .push(number(&message));
        heard.entry(message).or_default().push(line.text);
    }
    for (n, message) in sent.iter().enumerate().filter(|(n, _)| *n != 100) {
        let n = if n < 100 { n } else { n - 1 };
        assert_eq!(heard[message], [text(n)]);
    }
    assert!(
        order.values().all(|numbers| numbers.is_sorted()),
        "{order:?}"
    );

    let dead = dead_letters(&world);
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["id"], sent[100].1.as_str(), "{dead:?}");
    let reason = dead[0]["reason"].as_str().expect("a reason");
    // The SDK wrote it to stderr; the world has no words for errors.
    assert!(reason.contains("invalid utf-8 sequence"), "{reason}");
    let said = &heard[&sent[100]];
    assert_eq!(said.len(), 5, "a line of each attempt: {said:?}");
}

/// The entries of a stream of one partition: the key and the payload of each.
fn entries(world: &World, stream: &str) -> Vec<(String, String)> {
    let entries: Vec<(String, BTreeMap<String, String>)> = redis::cmd("XRANGE")
        .arg(format!("seg:{{default/{stream}/0}}:log"))
        .arg("-")
        .arg("+")
        .query(&mut world.redis())
        .expect("entries");
    let content = |(_, fields): (String, BTreeMap<String, String>)| {
        (fields["k"].clone(), fields["p"].clone())
    };
    entries.into_iter().map(content).collect()
}

#[test]
fn a_component_of_wasmclouds_crate_answers_messages_once_through_a_kill() {
    const MESSAGES: usize = 1_000;
    let world = World::with_stream(1, 10_000);
    world.create("answers", 1, 10_000);
    let line = |n: usize| {
        let key = format!("key-{}", n % 7);
        let attributes = json!({"reply-to": "answers"});
        json!({"key": key, "payload": format!("{key}: {n}"), "attributes": attributes}).to_string()
    };
    world.send_lines(&(0..MESSAGES).map(line).collect::<Vec<_>>());
    let mut host = run(&world, "foreign-wasmcloud", &["emit=answers"]);
    host.line("a message is handled", |line| line["event"] == "guest_log");
    host.kill();
    let host = run(&world, "foreign-wasmcloud", &["emit=answers"]);
    world.until_acked(1, "g");
    let expected: Vec<(String, String)> = (0..MESSAGES)
        .map(|n| (format!("key-{}", n % 7), format!("KEY-{}: {n}", n % 7)))
        .collect();
    until("all answers are there", || {
        (entries(&world, "answers").len() >= MESSAGES).then_some(())
    });
    assert_eq!(entries(&world, "answers"), expected);
    let lines = host.stop();
    assert!(
        lines
            .iter()
            .all(|line| line.text.starts_with("subject s.key-")),
        "{lines:?}"
    );
    // One that wants no answer is an error of the component's, word for word.
    world.send_lines(&[json!({"key": "k", "payload": "x"}).to_string()]);
    let host = run(&world, "foreign-wasmcloud", &["emit=answers"]);
    world.until_acked(1, "g");
    host.stop();
    let dead = dead_letters(&world);
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["reason"], "nobody wants an answer");
}

#[test]
fn what_it_may_not_import_is_told_before_anything_is_handled() {
    let world = World::with_stream(1, 10);
    let module = guest("foreign-wasmcloud");
    let module = module.to_str().expect("a path");
    let refused = world.run(&["run", module, "--stream", "s", "--group", "g"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    for told in ["wasmcloud:messaging/consumer@0.2.0", "--grant emit=STREAM"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
}
