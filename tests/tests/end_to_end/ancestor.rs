//! Where the ancestor failed, by experiment: each situation by its name, with the count zero. Its figures
//! are in the comments: INV is a message first handled after a later one of its key, OVL one handled
//! while another process handled the same partition.

use std::time::{Duration, Instant};

use segmenter_tests::process::{GuestLine, Host, until};
use segmenter_tests::server::Options;
use serde_json::{Value, json};

use crate::load::{Load, merged, overlaps, repeated};
use crate::support::{Judgement, World, judge};

const SESSION: Duration = Duration::from_millis(1_000);

fn host(world: &World) -> Host {
    Host::start(&world.url, &["-c", &world.config("tally", SESSION)])
}

fn describe(world: &World) -> Value {
    let args = ["--format", "json", "group", "describe", "s", "g"];
    world.run(&args).ok().objects().remove(0)
}

fn members(world: &World) -> usize {
    describe(world)["members"]
        .as_array()
        .expect("members")
        .len()
}

/// So much time, and not a condition: what must not happen in it is what is tested.
fn pass(time: Duration) {
    let end = Instant::now() + time;
    until("the time is over", || (Instant::now() >= end).then_some(()));
}

/// All in order, nothing lost, nothing repeated.
fn all(sent: &[(u64, String)]) -> Judgement {
    Judgement {
        handled: sent.len(),
        ..Judgement::default()
    }
}

fn until_handles(host: &Host, more: usize) {
    let wanted = host.guest_lines().len() + more;
    until("it handles more", || {
        (host.guest_lines().len() >= wanted).then_some(())
    });
}

/// 45 INV, 33 duplicates, 72 OVL of 5,996.
#[test]
fn three_members_join_one_after_another_under_load() {
    let world = World::with_stream(8, 20_000);
    let load = Load::start(&world.url);
    let mut hosts = Vec::new();
    for _ in 0..3 {
        hosts.push(host(&world));
        load.more(900);
    }
    world.until_shared(&[2, 3, 3]);
    load.more(600);
    let sent = load.end();
    world.until_acked(8, "g");
    let lines: Vec<_> = hosts.into_iter().map(Host::stop).collect();
    assert!(
        lines.iter().all(|lines| !lines.is_empty()),
        "each has a share"
    );
    assert_eq!(judge(&sent, &merged(&lines)), all(&sent));
    assert_eq!(overlaps(&lines), 0);
}

/// 1-7 INV: new messages were read before the dead member's.
#[test]
fn killed_with_messages_in_flight() {
    let world = World::with_stream(8, 20_000);
    let load = Load::start(&world.url);
    let mut hosts = vec![host(&world)];
    until_handles(&hosts[0], 300);
    hosts.extend([host(&world), host(&world)]);
    world.until_shared(&[2, 3, 3]);
    load.more(600);
    let mut lines = vec![hosts.remove(0).kill()];
    load.more(600);
    let sent = load.end();
    world.until_acked(8, "g");
    lines.extend(hosts.into_iter().map(Host::stop));
    let found = judge(&sent, &merged(&lines));
    assert_eq!(
        (found.handled, found.lost, found.out_of_order),
        (sent.len(), 0, 0),
        "{found:?}"
    );
    assert_eq!(overlaps(&lines), 0);
    for (message, who) in repeated(&lines) {
        assert!(
            who.len() == 2 && who[0] == 0 && who[1] != 0,
            "{message:?} was handled by {who:?}; only what host 0 had not committed may be repeated"
        );
    }
}

/// 100 INV; reading went on after the shutdown: 2,621 messages were handled 30 s later.
#[test]
fn graceful_shutdown_under_load() {
    let world = World::with_stream(8, 20_000);
    let load = Load::start(&world.url);
    let mut leaver = host(&world);
    let stays = host(&world);
    world.until_shared(&[4, 4]);
    until_handles(&leaver, 300);
    leaver.signal("TERM");
    assert_eq!(leaver.ended().code(), Some(0));
    let left = leaver.guest_lines();
    let in_order = left.iter().map(|line| line.at_us).max();
    load.more(600);
    let sent = load.end();
    world.until_acked(8, "g");
    let lines = vec![left, stays.stop()];
    assert_eq!(judge(&sent, &merged(&lines)), all(&sent));
    assert_eq!(overlaps(&lines), 0);
    // Whatever the leaver handled lies before what the other handled of the same partition after it.
    let after = |line: &&GuestLine| Some(line.at_us) > in_order;
    assert!(lines[1].iter().any(|line| after(&line)), "it takes over");
}

/// Kept its partitions for good: 125 INV, 480 OVL.
#[test]
fn stopped_for_three_session_timeouts_and_continued() {
    const PARTITIONS: u32 = 4;
    let world = World::with_stream(PARTITIONS, 20_000);
    let load = Load::start(&world.url);
    let paused = host(&world);
    until_handles(&paused, 100);
    let other = host(&world);
    world.until_shared(&[2, 2]);
    load.more(300);
    paused.signal("STOP");
    let stopped = Instant::now();
    until_handles(&other, 300);
    until("three session timeouts are over", || {
        (stopped.elapsed() >= 3 * SESSION).then_some(())
    });
    paused.signal("CONT");
    world.until_shared(&[2, 2]);
    load.more(600);
    let sent = load.end();
    world.until_acked(PARTITIONS, "g");
    let lines = vec![paused.stop(), other.stop()];
    let found = judge(&sent, &merged(&lines));
    assert_eq!(
        (found.handled, found.lost, found.out_of_order),
        (sent.len(), 0, 0),
        "{found:?}"
    );
    // A call that was running when it was stopped runs to its end; nothing of it counts.
    let overlaps = overlaps(&lines);
    assert!(overlaps <= PARTITIONS as usize, "{overlaps} overlaps");
    for (message, who) in repeated(&lines) {
        assert!(who.contains(&0), "{message:?} was handled by {who:?}");
    }
}

/// 40,040 of 59,992 messages were lost in silence.
#[test]
fn a_producer_faster_than_the_handler_at_capacity_1000() {
    let world = World::with_stream(2, 1_000);
    let host = host(&world);
    let sent = world.send_numbered(20_000, 40);
    world.until_acked(2, "g");
    assert_eq!(judge(&sent, &host.stop()), all(&sent));
}

/// The member list was empty while members worked; newcomers got nothing.
#[test]
fn redis_restarts_with_aof_and_is_away_for_longer_than_the_session_timeout() {
    let mut world = World::with(Options {
        appendonly: true,
        ..Options::default()
    });
    world.create("s", 4, 20_000);
    let hosts = [host(&world), host(&world)];
    let mut sent = world.send_numbered(400, 20);
    world.until_acked(4, "g");
    world.until_shared(&[2, 2]);
    let before = describe(&world);
    world.server.kill();
    pass(2 * SESSION);
    world.server.restart();
    sent.extend(world.send_numbered(400, 20));
    world.until_acked(4, "g");
    // Long enough for whoever would be expelled.
    pass(2 * SESSION);
    let after = describe(&world);
    assert_eq!(
        before["generation"], after["generation"],
        "nobody came or went: {after}"
    );
    assert_eq!(members(&world), 2, "{after}");
    let newcomer = host(&world);
    world.until_shared(&[1, 1, 2]);
    sent.extend(world.send_numbered(400, 20));
    world.until_acked(4, "g");
    let mut lines: Vec<_> = hosts.into_iter().map(Host::stop).collect();
    lines.push(newcomer.stop());
    assert!(!lines[2].is_empty(), "the newcomer has a share");
    assert_eq!(judge(&sent, &merged(&lines)), all(&sent));
    assert_eq!(overlaps(&lines), 0);
}

/// In 15 idle minutes every group expelled a live member: its heartbeat was as rare as its time to live.
#[test]
fn idle_members_are_not_expelled() {
    let world = World::with_stream(4, 1_000);
    let config = world.config("tally", Duration::from_millis(500));
    let hosts: Vec<_> = (0..3)
        .map(|_| Host::start(&world.url, &["-c", &config]))
        .collect();
    world.until_shared(&[1, 1, 2]);
    let before = describe(&world);
    pass(Duration::from_millis(4_000));
    let after = describe(&world);
    assert_eq!(before["generation"], after["generation"], "{after}");
    assert_eq!(members(&world), 3, "{after}");
    let epochs = |group: &Value| {
        let partitions = group["partitions"].as_array().expect("partitions").iter();
        partitions.map(|p| p["epoch"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&before), epochs(&after), "nothing moved");
    hosts.into_iter().for_each(|host| drop(host.stop()));
}

/// Crashed by slice bounds; with other pairs, members stayed idle or differed by more than one.
#[test]
fn more_members_than_partitions_and_odd_pairs() {
    for (members, partitions, shares) in [
        (3, 1, &[1][..]),
        (4, 2, &[1, 1]),
        (2, 3, &[1, 2]),
        (3, 7, &[2, 2, 3]),
    ] {
        let world = World::with_stream(partitions, 1_000);
        let hosts: Vec<_> = (0..members).map(|_| host(&world)).collect();
        until("all are members", || {
            (self::members(&world) == members).then_some(())
        });
        world.until_shared(shares);
        let sent = world.send_numbered(200, 20);
        world.until_acked(partitions, "g");
        let lines: Vec<_> = hosts.into_iter().map(Host::stop).collect();
        let found = judge(&sent, &merged(&lines));
        assert_eq!(
            found,
            all(&sent),
            "{members} members, {partitions} partitions"
        );
        assert_eq!(overlaps(&lines), 0);
    }
}

/// Blocked for ever.
#[test]
fn a_second_shutdown_ends_at_once() {
    let world = World::with_stream(1, 100);
    // The second call does not end by itself before its deadline, which is longer than any patience.
    let config = world.config_with(
        "flaky",
        SESSION,
        "drain_timeout = \"10m\"",
        "deadline = \"10m\"",
    );
    let line = |number: u32, attributes: Value| {
        json!({"key": "k", "payload": number.to_string(), "attributes": attributes}).to_string()
    };
    world.send_lines(&[line(1, json!({})), line(2, json!({"fail": "loop"}))]);
    let mut host = Host::start(&world.url, &["-c", &config]);
    until("the first is acked, so the second runs", || {
        (describe(&world)["partitions"][0]["lag"] == 1).then_some(())
    });
    host.signal("TERM");
    host.event("draining");
    assert_eq!(members(&world), 1, "it waits for its call");
    host.signal("TERM");
    assert_eq!(host.ended().code(), Some(1));
    let said = host.said().join("\n");
    assert!(said.contains("second signal"), "{said}");
}

/// Never delivered.
#[test]
fn a_message_appended_before_the_group_exists() {
    let world = World::with_stream(2, 100);
    let sent = world.send_numbered(10, 5);
    let host = host(&world);
    world.until_acked(2, "g");
    assert_eq!(judge(&sent, &host.stop()), all(&sent));
}
