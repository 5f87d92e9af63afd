//! The main job: appended, read in order, handled once, acked.

use std::collections::BTreeMap;

use segmenter_tests::process::{Host, guest, until};

use crate::support::{Judgement, World, judge};

#[test]
fn every_message_is_handled_once_in_order_and_acked() {
    let world = World::with_stream(8, 10_000);
    let tally = guest("tally");
    // Before the group exists, and while it runs.
    let mut sent = world.send_numbered(2_000, 50);
    let host = Host::start(
        &world.url,
        &[tally.to_str().unwrap(), "--stream", "s", "--group", "g"],
    );
    sent.extend(world.send_numbered(2_000, 50));
    world.until_acked(8, "g");
    let lines = host.stop();
    let expected = Judgement {
        handled: 4_000,
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &lines), expected);
    assert!(lines.iter().all(|line| line.attempt == 1));
}

#[test]
fn payload_key_and_attributes_arrive_as_they_were_sent() {
    let world = World::with_stream(1, 100);
    let flaky = guest("flaky");
    let payload = "zwölf Boxkämpfer\u{0} 🦀";
    // Written by hand: the order of attributes counts, and serde_json's maps sort.
    let line =
        r#"{"key":"ключ","payload":"zwölf Boxkämpfer\u0000 🦀","attributes":{"b":"2","a":"1"}}"#;
    world.send_lines(&[line.to_owned()]);
    let mut redis = world.redis();
    let entries: Vec<(String, Vec<(String, String)>)> = redis::cmd("XRANGE")
        .arg(&["seg:{default/s/0}:log", "-", "+"])
        .query(&mut redis)
        .expect("XRANGE");
    let fields: Vec<_> = entries[0]
        .1
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        fields,
        [("k", "ключ"), ("p", payload), ("@b", "2"), ("@a", "1")]
    );
    let mut host = Host::start(
        &world.url,
        &[flaky.to_str().unwrap(), "--stream", "s", "--group", "g"],
    );
    let said = host.event("guest_log");
    assert!(said["text"].as_str().unwrap().contains("ключ"), "{said}");
    host.stop();
}

#[test]
fn two_groups_each_see_every_message_and_the_slowest_keeps_the_log() {
    let world = World::with_stream(2, 500);
    let noop = guest("tally");
    let noop = noop.to_str().unwrap();
    let a = Host::start(&world.url, &[noop, "--stream", "s", "--group", "a"]);
    let b = Host::start(&world.url, &[noop, "--stream", "s", "--group", "b"]);
    let sent = world.send_numbered(400, 20);
    for group in ["a", "b"] {
        world.until_acked(2, group);
    }
    for host in [a, b] {
        let expected = Judgement {
            handled: 400,
            ..Judgement::default()
        };
        assert_eq!(judge(&sent, &host.stop()), expected);
    }
}

#[test]
fn a_group_that_starts_at_the_end_sees_only_what_comes_after() {
    let world = World::with_stream(2, 1_000);
    world.send_numbered(100, 10);
    let tally = guest("tally");
    let args = [
        tally.to_str().unwrap(),
        "--stream",
        "s",
        "--group",
        "g",
        "--from",
        "end",
    ];
    let host = Host::start(&world.url, &args);
    world.until_acked(2, "g");
    let sent = world.send_numbered(100, 10);
    world.until_acked(2, "g");
    let expected = Judgement {
        handled: 100,
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &host.stop()), expected);
}

#[test]
fn the_configuration_file_runs_two_handlers_of_one_stream() {
    let world = World::new();
    let folder = world.server.dir();
    let config = format!(
        r#"
namespace = "default"
[[stream]]
name = "s"
partitions = 4
capacity = 1_000
[[handler]]
name = "count"
stream = "s"
group = "count"
module = {tally:?}
[[handler]]
name = "nothing"
stream = "s"
group = "nothing"
module = {noop:?}
[handler.limits]
deadline = "2s"
memory = "16MiB"
"#,
        tally = guest("tally"),
        noop = guest("noop"),
    );
    let path = folder.join("segmenter.toml");
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap();
    world.run(&["run", "-c", path, "--check"]).ok();
    let host = Host::start(&world.url, &["-c", path]);
    let sent = world.send_numbered(200, 10);
    for group in ["count", "nothing"] {
        world.until_acked(4, group);
    }
    let expected = Judgement {
        handled: 200,
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &host.stop()), expected);
}

#[test]
fn what_describe_and_tail_say_agrees_with_redis() {
    let world = World::with_stream(4, 1_000);
    let sent = world.send_numbered(40, 10);
    let noop = guest("noop");
    let host = Host::start(
        &world.url,
        &[
            noop.to_str().unwrap(),
            "--stream",
            "s",
            "--group",
            "g",
            "--member",
            "host-1",
        ],
    );
    world.until_acked(4, "g");
    let described = world
        .run(&["--format", "json", "group", "describe", "s", "g"])
        .ok();
    let group = &described.objects()[0];
    let members = group["members"].as_array().expect("members");
    assert_eq!(members.len(), 1, "{group}");
    let mut newest: BTreeMap<u64, &str> = BTreeMap::new();
    for (partition, id) in &sent {
        newest.insert(*partition, id);
    }
    for row in group["partitions"].as_array().expect("partitions") {
        let partition = row["partition"].as_u64().unwrap();
        assert_eq!(row["owner"], "host-1", "{row}");
        assert_eq!(
            row["acked_through"].as_str(),
            newest.get(&partition).copied(),
            "{row}"
        );
        assert_eq!(row["lag"], 0, "{row}");
        assert!(row["version"].as_str().unwrap().len() == 64 && row["epoch"].as_u64().unwrap() > 0);
    }
    host.stop();
    // After the drain nobody owns anything.
    let described = world
        .run(&["--format", "json", "group", "describe", "s", "g"])
        .ok();
    let group = &described.objects()[0];
    assert!(group["members"].as_array().unwrap().is_empty(), "{group}");
    let owners: Vec<_> = group["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["owner"])
        .collect();
    assert!(owners.iter().all(|owner| owner.is_null()), "{owners:?}");
}

#[test]
fn sigterm_finishes_the_running_call_commits_it_and_releases() {
    let world = World::with_stream(1, 100);
    let flaky = guest("flaky");
    let host = Host::start(
        &world.url,
        &[flaky.to_str().unwrap(), "--stream", "s", "--group", "g"],
    );
    let sent = world.send_numbered(50, 1);
    until("some message is handled", || {
        (!host.guest_lines().is_empty()).then_some(())
    });
    let first = host.stop();
    let host = Host::start(
        &world.url,
        &[flaky.to_str().unwrap(), "--stream", "s", "--group", "g"],
    );
    world.until_acked(1, "g");
    let mut lines = first;
    lines.extend(host.stop());
    let expected = Judgement {
        handled: 50,
        ..Judgement::default()
    };
    assert_eq!(
        judge(&sent, &lines),
        expected,
        "a drain leaves nothing to repeat"
    );
}

#[test]
fn sigterm_while_redis_is_still_waited_for_ends_with_0() {
    let noop = guest("noop");
    let args = [
        noop.to_str().unwrap(),
        "--stream",
        "s",
        "--group",
        "g",
        "--wait",
    ];
    let mut host = Host::spawn("redis://127.0.0.1:1", &args);
    host.event("redis_away");
    host.stop();
}

#[test]
fn a_guest_in_c_is_a_handler_like_any_other() {
    let world = World::with_stream(1, 100);
    let guest = guest("c-lines");
    let line = serde_json::json!({"key": "k", "payload": "one\ntwo\nthree"}).to_string();
    let sent = world.send_lines(&[line]);
    let args = [guest.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let host = Host::start(&world.url, &args);
    world.until_acked(1, "g");
    let lines = host.stop();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].message(), sent[0]);
    assert_eq!(lines[0].text, "lines=2 bytes=13");
}
