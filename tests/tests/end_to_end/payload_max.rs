//! A stream's own payload limit: everybody who appends to it or handles it keeps the same one.

use std::time::Duration;

use segmenter_tests::process::{self, Ended, Host, guest, until};
use serde_json::{Value, json};

use crate::support::World;

fn refused(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!(ended.code(), Some(code), "{ended:#?}");
    for expected in says {
        assert!(ended.stderr.contains(expected), "{expected:?}: {ended:#?}");
    }
}

fn create(world: &World, stream: &str, limit: &str) {
    let args = [
        "--partitions",
        "1",
        "--capacity",
        "100",
        "--payload-max",
        limit,
    ];
    world
        .run(&[&["stream", "create", stream], &args[..]].concat())
        .ok();
}

fn line(bytes: usize) -> Vec<u8> {
    json!({"key": "k", "payload": "x".repeat(bytes)})
        .to_string()
        .into_bytes()
}

fn send(world: &World, args: &[&str], input: &[u8]) -> Ended {
    process::with_input(&world.url, &[&["send"], args].concat(), input)
}

fn letters(world: &World) -> Vec<Value> {
    let args = ["--format", "json", "dead", "list", "s", "g"];
    world.run(&args).ok().objects()
}

#[test]
fn a_larger_one_is_kept_by_send_host_and_handler() {
    const LIMIT: usize = 4 << 20;
    let world = World::new();
    create(&world, "s", "4MiB");
    let json = |args: &[&str]| {
        let ended = world
            .run(&[&["--format", "json", "stream"], args].concat())
            .ok();
        ended.objects().remove(0)
    };
    assert_eq!(json(&["list"])["payload_max"], LIMIT);
    assert_eq!(json(&["describe", "s"])["payload_max"], LIMIT);
    let listed = world.run(&["stream", "list"]).ok().stdout;
    assert!(listed.contains("4194304"), "{listed}");
    let other = [
        "stream",
        "create",
        "s",
        "--partitions",
        "1",
        "--capacity",
        "100",
    ];
    refused(
        &world.run(&other),
        1,
        &["1 partitions of 100 entries and payloads of at most 4194304"],
    );

    let file = ["s", "--jsonl", "-"];
    send(&world, &file, &line(LIMIT)).ok();
    refused(
        &send(&world, &file, &line(LIMIT + 1)),
        1,
        &["line 1", "4194305", "4194304"],
    );
    let stdin = ["s", "--key", "k", "-"];
    send(&world, &stdin, &vec![0xff; LIMIT]).ok();
    refused(
        &send(&world, &stdin, &vec![0xff; LIMIT + 1]),
        1,
        &["4194304", "stream s"],
    );
    let escaped = format!(
        "{{\"key\":\"k\",\"payload\":\"{}\"}}",
        "\\u0001".repeat(LIMIT)
    );
    send(&world, &file, escaped.as_bytes()).ok();
    world.holds(3);

    let tally = guest("tally");
    let args = [tally.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let host = Host::start(&world.url, &args);
    world.until_acked(1, "g");
    assert_eq!(host.stop().len(), 3);
    assert_eq!(letters(&world), [] as [Value; 0]);
}

#[test]
fn a_smaller_one_makes_dead_letters_of_what_others_append_and_keeps_redrives_out() {
    let world = World::new();
    create(&world, "s", "10B");
    create(&world, "tiny", "3B");
    create(&world, "roomy", "1MiB");
    send(&world, &["s", "--key", "k", "1234567890"], b"").ok();
    let over = ["s", "--key", "k", "12345678901"];
    refused(
        &send(&world, &over, b""),
        1,
        &["11 bytes", "limit is 10", "stream s"],
    );
    world.holds(1);
    let odd: String = redis::cmd("XADD")
        .arg("seg:{default/s/0}:log")
        .arg(&["*", "k", "k", "p", "12345678901"])
        .query(&mut world.redis())
        .expect("XADD");
    let tally = guest("tally");
    let args = [tally.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let host = Host::start(&world.url, &args);
    world.until_acked(1, "g");
    assert_eq!(host.stop().len(), 1);
    let found = letters(&world);
    assert_eq!((found.len(), &found[0]["id"]), (1, &json!(odd)));
    let reason = found[0]["reason"].as_str().unwrap();
    assert!(reason.contains("11 bytes; the limit is 10"), "{reason}");

    let redrive = ["--format", "json", "dead", "redrive", "s", "g", "--all"];
    for (to, max) in [(&[][..], "takes 10"), (&["--to", "tiny"], "takes 3")] {
        let ended = world.run(&[&redrive[..], to].concat());
        refused(&ended, 1, &[&odd, "has 11 bytes", max]);
        assert_eq!(ended.objects(), [json!({"redriven": 0, "kept": 1})]);
    }
    let ended = world.run(&[&redrive[..], &["--to", "roomy"]].concat()).ok();
    assert_eq!(ended.objects(), [json!({"redriven": 1, "kept": 0})]);
    assert_eq!(letters(&world), [] as [Value; 0]);
}

#[test]
fn a_handler_is_told_the_limit_of_the_stream_that_it_emits_to() {
    let world = World::with_stream(1, 100);
    let target = r#"
[[stream]]
name = "enriched"
partitions = 1
capacity = 100
payload_max = "10B"
"#;
    let grants = "[handler.grants]\nemit = [\"enriched\"]\n";
    let config = world.config_with("enrich", Duration::from_secs(3), target, grants);
    let host = Host::start(&world.url, &["-c", &config]);
    for payload in ["1234567890", "12345678901"] {
        send(&world, &["s", "--key", "k", payload], b"").ok();
    }
    world.until_acked(1, "g");
    until("the shorter one is there", || {
        let length: u64 = redis::cmd("XLEN")
            .arg("seg:{default/enriched/0}:log")
            .query(&mut world.redis())
            .expect("XLEN");
        (length == 1).then_some(())
    });
    host.stop();
    let found = letters(&world);
    let reason = found[0]["reason"].as_str().unwrap();
    assert!(
        found.len() == 1 && reason.contains("exceeds 10 bytes"),
        "{found:?}"
    );
    // The same stream with another limit is another stream.
    let text = std::fs::read_to_string(&config)
        .unwrap()
        .replace("10B", "11B");
    std::fs::write(&config, text).unwrap();
    let ended = world.run(&["run", "-c", &config]);
    refused(
        &ended,
        1,
        &["at most 10 bytes", "at most 11 bytes", "never changes"],
    );
}

#[test]
fn what_is_no_limit_is_wrong_usage() {
    let url = "redis://127.0.0.1:1";
    for (size, says) in [
        ("0B", "use 1 to 67108864"),
        ("65MiB", "use 1 to 67108864"),
        ("10", "no unit"),
        ("1MB", "unknown"),
    ] {
        let args = [
            "--partitions",
            "1",
            "--capacity",
            "1",
            "--payload-max",
            size,
        ];
        let ended = process::segmenter(url, &[&["stream", "create", "s"], &args[..]].concat());
        refused(&ended, 2, &[says]);
    }
}
