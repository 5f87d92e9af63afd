//! What an operator does while members run: seek, pause, resume, skip, delete. Real processes; no restart.

use std::collections::BTreeSet;

use serde_json::Value;

use segmenter_tests::process::{Host, guest, until};

use crate::support::{World, judge};

fn start(world: &World, name: &str) -> Host {
    let guest = guest(name);
    let args = [guest.to_str().unwrap(), "--stream", "s", "--group", "g"];
    Host::start(&world.url, &args)
}

fn operate(world: &World, args: &[&str]) -> Vec<Value> {
    let mut all = vec!["--format", "json", "group"];
    all.extend_from_slice(args);
    world.run(&all).ok().objects()
}

fn halted(world: &World) -> Vec<Option<String>> {
    let described = &operate(world, &["describe", "s", "g"])[0];
    let partitions = described["partitions"].as_array().expect("partitions");
    let halted = partitions.iter().map(|p| &p["halted"]);
    halted.map(|h| h.as_str().map(str::to_owned)).collect()
}

/// Lines of all hosts, in the order in which they were written: `at_us` is one clock for one machine.
fn together(hosts: Vec<Host>) -> Vec<segmenter_tests::process::GuestLine> {
    let mut lines: Vec<_> = hosts.into_iter().flat_map(Host::stop).collect();
    lines.sort_by_key(|line| line.at_us);
    lines
}

fn handled(hosts: &[Host]) -> usize {
    hosts.iter().map(|host| host.guest_lines().len()).sum()
}

#[test]
fn a_seek_to_the_start_while_members_run_handles_everything_again_in_order() {
    const MESSAGES: usize = 400;
    let world = World::with_stream(4, 10_000);
    let sent = world.send_numbered(MESSAGES, 20);
    // A group that acks nothing keeps the log: what is trimmed cannot be handled again.
    let noop = guest("noop");
    let noop = noop.to_str().unwrap();
    let keeper = Host::start(&world.url, &[noop, "--stream", "s", "--group", "keep"]);
    operate(&world, &["pause", "s", "keep"]);
    operate(&world, &["seek", "s", "keep", "--to", "start"]);
    let hosts = vec![start(&world, "tally"), start(&world, "tally")];
    world.until_acked(4, "g");
    assert_eq!(handled(&hosts), MESSAGES);
    let moved = operate(&world, &["seek", "s", "g", "--to", "start"]);
    assert_eq!(moved.len(), 4, "{moved:?}");
    assert!(
        moved.iter().all(|m| m["acked_through"] == "0-0"),
        "{moved:?}"
    );
    until("everything is handled again", || {
        (handled(&hosts) >= 2 * MESSAGES).then_some(())
    });
    world.until_acked(4, "g");
    let lines = together(hosts);
    assert_eq!(lines.len(), 2 * MESSAGES, "exactly once more");
    for round in lines.chunks(MESSAGES) {
        let judgement = judge(&sent, round);
        assert_eq!(
            (judgement.handled, judgement.out_of_order),
            (MESSAGES, 0),
            "{judgement:?}"
        );
    }
    keeper.stop();
}

#[test]
fn a_seek_to_an_id_in_one_partition_leaves_the_others_alone() {
    let world = World::with_stream(2, 1_000);
    let sent = world.send_numbered(100, 10);
    let host = start(&world, "tally");
    // What is handled and not committed when a pause fences its owner is handled again.
    world.until_acked(2, "g");
    operate(&world, &["pause", "s", "g"]);
    let of = |p: u64| {
        sent.iter()
            .filter(move |(q, _)| *q == p)
            .collect::<Vec<_>>()
    };
    let (first, second) = (of(0), of(1));
    let from = &first[first.len() - 3].1;
    let moved = operate(
        &world,
        &["seek", "s", "g", "--to", from, "--partition", "0"],
    );
    assert_eq!(moved.len(), 1);
    assert_eq!(moved[0]["acked_through"], first[first.len() - 4].1.as_str());
    let lags: Vec<_> = world
        .lag_and_pending(2, "g")
        .into_iter()
        .map(|(lag, _)| lag)
        .collect();
    assert_eq!(lags[0], Some(3));
    let before = host.guest_lines();
    operate(&world, &["resume", "s", "g"]);
    world.until_acked(2, "g");
    let all = host.stop();
    let after: Vec<_> = all[before.len()..].iter().map(|l| l.message()).collect();
    let last: Vec<_> = first[first.len() - 3..]
        .iter()
        .map(|m| (*m).clone())
        .collect();
    let zero: Vec<_> = after.iter().filter(|m| m.0 == 0).cloned().collect();
    assert_eq!(zero, last);
    let ones = all.iter().filter(|l| l.partition == 1).count();
    assert_eq!(ones, second.len(), "each once");
}

#[test]
fn a_seek_to_the_end_skips_what_waits_and_goes_on_with_what_comes() {
    let world = World::with_stream(2, 1_000);
    let host = start(&world, "tally");
    operate(&world, &["pause", "s", "g"]);
    world.send_numbered(100, 10);
    operate(&world, &["seek", "s", "g", "--to", "end"]);
    world.until_acked(2, "g");
    operate(&world, &["resume", "s", "g"]);
    let sent = world.send_numbered(50, 10);
    world.until_acked(2, "g");
    let judgement = judge(&sent, &host.stop());
    assert_eq!(
        (judgement.handled, judgement.lost),
        (50, 0),
        "{judgement:?}"
    );
}

#[test]
fn a_seek_to_a_moment_begins_with_the_first_message_since() {
    let world = World::with_stream(1, 1_000);
    let sent = world.send_numbered(3, 1);
    start(&world, "noop").stop();
    let ms: u64 = sent[1].1.split_once('-').unwrap().0.parse().unwrap();
    // Nobody knows here how the ids of one send fall into milliseconds: a moment before all, and one after.
    let far = operate(&world, &["seek", "s", "g", "--to", "2h"]);
    assert_eq!(far[0]["acked_through"], "0-0", "{far:?}");
    let later = operate(&world, &["seek", "s", "g", "--to", "2100-01-01T00:00:00Z"]);
    assert_eq!(later[0]["acked_through"], sent[2].1.as_str(), "{later:?}");
    let exact = operate(&world, &["seek", "s", "g", "--to", &format!("{ms}")]);
    let of_ms = |id: &str| -> u64 { id.split_once('-').unwrap().0.parse().unwrap() };
    let before = sent.iter().rfind(|(_, id)| of_ms(id) < ms);
    let expected = before.map_or("0-0", |(_, id)| id);
    assert_eq!(exact[0]["acked_through"], expected, "{exact:?}");
}

#[test]
fn while_paused_nothing_is_handled_and_after_resume_all_of_it_in_order() {
    let world = World::with_stream(4, 10_000);
    let mut hosts = vec![start(&world, "tally"), start(&world, "tally")];
    let mut sent = world.send_numbered(200, 20);
    world.until_acked(4, "g");
    let paused = operate(&world, &["pause", "s", "g"]);
    assert_eq!(paused.len(), 4);
    for reason in halted(&world) {
        let reason = reason.expect("halted");
        assert!(
            reason.starts_with("paused by an operator at 20"),
            "{reason}"
        );
    }
    until(
        "all partitions are said to be halted by their owners",
        || {
            let said = hosts.iter().flat_map(Host::said);
            let said = said.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let halted = said.filter(|line| line["event"] == "partition_halted");
            let halted: BTreeSet<_> = halted.map(|line| line["partition"].as_u64()).collect();
            (halted.len() == 4).then_some(())
        },
    );
    sent.extend(world.send_numbered(200, 20));
    // A member that starts meanwhile finds the halt, too, and so does one that takes over.
    hosts.push(start(&world, "tally"));
    let gone = hosts.remove(0);
    let mut lines = gone.stop();
    let again = operate(&world, &["pause", "s", "g"]);
    assert!(again.iter().all(|p| p["already"] == true), "{again:?}");
    let lags = world.lag_and_pending(4, "g");
    let waiting: u64 = lags.iter().map(|(lag, _)| lag.expect("known")).sum();
    assert_eq!(waiting, 200);
    assert_eq!(
        lines.len() + handled(&hosts),
        200,
        "nothing since the pause"
    );
    operate(&world, &["resume", "s", "g"]);
    world.until_acked(4, "g");
    assert_eq!(halted(&world), vec![None; 4]);
    lines.extend(together(hosts));
    lines.sort_by_key(|line| line.at_us);
    let judgement = judge(&sent, &lines);
    assert_eq!(
        (
            judgement.handled,
            judgement.duplicates,
            judgement.out_of_order
        ),
        (400, 0, 0),
        "{judgement:?}"
    );
}

#[test]
fn an_operator_may_act_at_any_moment_while_hosts_come_and_go() {
    let world = World::with_stream(8, 10_000);
    let mut hosts = vec![start(&world, "tally"), start(&world, "tally")];
    let (mut sent, mut lines) = (Vec::new(), Vec::new());
    for round in 0..6 {
        sent.extend(world.send_numbered(400, 40));
        match round {
            0 => drop(operate(&world, &["seek", "s", "g", "--to", "start"])),
            1 => hosts.push(start(&world, "tally")),
            2 => drop(operate(&world, &["pause", "s", "g", "--partition", "3"])),
            3 => lines.extend(hosts.remove(0).kill()),
            4 => {
                operate(
                    &world,
                    &["seek", "s", "g", "--to", "1m", "--partition", "3"],
                );
                operate(&world, &["resume", "s", "g"]);
            }
            _ => lines.extend(hosts.remove(0).stop()),
        }
        // How much of it is handled by now, and by whom, is left to chance.
    }
    world.until_acked(8, "g");
    lines.extend(together(hosts));
    lines.sort_by_key(|line| line.at_us);
    let judgement = judge(&sent, &lines);
    assert_eq!(
        (judgement.handled, judgement.lost, judgement.out_of_order),
        (sent.len(), 0, 0),
        "{judgement:?}"
    );
}

#[test]
fn a_pause_ends_a_running_call_and_the_message_is_handled_after_resume() {
    let world = World::with_stream(1, 100);
    let mut host = start(&world, "flaky");
    let line = r#"{"key":"k","payload":"x","attributes":{"fail":"retry:1000000"}}"#;
    let sent = world.send_lines(&[line.to_owned()]);
    host.event("handler_failed");
    operate(&world, &["pause", "s", "g", "--partition", "0"]);
    host.event("partition_halted");
    let resumed = operate(&world, &["resume", "s", "g", "--skip"]);
    assert_eq!(resumed[0]["skipped"], sent[0].1.as_str(), "{resumed:?}");
    host.event("partition_resumed");
    let next = world.send_lines(&[r#"{"key":"k","payload":"next"}"#.to_owned()]);
    world.until_acked(1, "g");
    let lines = host.stop();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].message(), next[0]);
    let dead = world
        .run(&["--format", "json", "dead", "show", "s", "g", &sent[0].1])
        .ok()
        .objects();
    assert_eq!(dead.len(), 1, "{dead:?}");
    let reason = dead[0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("skipped by an operator"), "{reason}");
    assert_eq!(dead[0]["payload"], "x", "it is whole: {dead:?}");
    let refused = world.run(&["group", "resume", "s", "g", "--skip"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("halted"), "{refused:?}");
}

#[test]
fn a_group_with_live_members_is_deleted_only_by_force_and_they_end() {
    let world = World::with_stream(4, 100);
    let mut hosts = [start(&world, "noop"), start(&world, "noop")];
    let sent = world.send_numbered(20, 5);
    assert_eq!(sent.len(), 20);
    world.until_acked(4, "g");
    let refused = world.run(&["group", "delete", "s", "g"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("--force") && refused.stderr.contains("members m-"),
        "{refused:?}"
    );
    let deleted = operate(&world, &["delete", "s", "g", "--force"]);
    assert_eq!(deleted[0]["deleted"], true, "{deleted:?}");
    for host in &mut hosts {
        assert_eq!(host.ended().code(), Some(1), "{}", host.said().join("\n"));
        let said = host.said().join("\n");
        assert!(said.contains("the group was deleted"), "{said}");
    }
    let mut redis = world.redis();
    let mut left: Vec<String> = redis::cmd("KEYS").arg("seg:*").query(&mut redis).unwrap();
    left.retain(|key| key.contains(":lease:") || key.contains("s/g}"));
    assert_eq!(left, Vec::<String>::new(), "nobody made it again");
    let again = world.run(&["group", "delete", "s", "g"]);
    assert_eq!(again.code(), Some(1), "{again:?}");
    assert!(again.stderr.contains("no group g"), "{again:?}");
    // Who starts anew begins anew.
    start(&world, "noop").stop();
    operate(&world, &["delete", "s", "g"]);
}

#[test]
fn a_stream_with_several_members_is_deleted_by_force_and_all_of_them_end() {
    let world = World::with_stream(4, 100);
    let mut hosts = [
        start(&world, "noop"),
        start(&world, "noop"),
        start(&world, "noop"),
    ];
    let refused = world.run(&["stream", "delete", "s"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    world.run(&["stream", "delete", "s", "--force"]).ok();
    for host in &mut hosts {
        assert_eq!(host.ended().code(), Some(1), "{}", host.said().join("\n"));
        let said = host.said().join("\n");
        assert!(said.contains("the stream was deleted"), "{said}");
    }
    let mut redis = world.redis();
    let left: Vec<String> = redis::cmd("KEYS").arg("seg:*").query(&mut redis).unwrap();
    assert_eq!(left, Vec::<String>::new(), "nobody made it again");
}

#[test]
fn what_an_operator_mistypes_is_refused() {
    let world = World::with_stream(2, 100);
    start(&world, "noop").stop();
    for (args, code, says) in [
        (&["seek", "s", "g", "--to", "yesterday"][..], 2, "yesterday"),
        (&["seek", "s", "g"], 2, "--to"),
        (
            &["pause", "s", "g", "--partition", "2"],
            2,
            "partitions 0 to 1",
        ),
        (&["pause", "s", "nobody"], 1, "no group nobody"),
        (
            &["seek", "s", "nobody", "--to", "end"],
            1,
            "no group nobody",
        ),
        (&["resume", "nothing", "g"], 1, "does not exist"),
        (&["delete", "s", "nobody"], 1, "no group nobody"),
    ] {
        let mut all = vec!["group"];
        all.extend_from_slice(args);
        let ended = world.run(&all);
        assert_eq!(ended.code(), Some(code), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{args:?}: {ended:?}");
    }
}

#[test]
fn the_doctor_tells_each_check_and_fails_if_one_does() {
    let world = World::new();
    let checks = world.run(&["--format", "json", "doctor"]).ok().objects();
    let names: Vec<_> = checks.iter().map(|c| c["name"].as_str().unwrap()).collect();
    let expected = [
        "version",
        "permissions",
        "eviction",
        "persistence",
        "replicas",
        "memory",
        "latency",
    ];
    assert_eq!(names, expected);
    for check in &checks {
        let status = check["status"].as_str().unwrap();
        assert!(["ok", "warning"].contains(&status), "{check}");
        assert_eq!(check["advice"].is_null(), status == "ok", "{check}");
    }
    let mut redis = world.redis();
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory-policy", "allkeys-lru"])
        .query(&mut redis)
        .unwrap();
    let told = world.run(&["doctor"]);
    assert_eq!(told.code(), Some(1), "{told:?}");
    for says in [
        "failed",
        "allkeys-lru",
        "noeviction",
        "ACL SETUSER",
        "+evalsha",
    ] {
        assert!(told.stdout.contains(says), "{says}: {told:?}");
    }
    let nowhere =
        segmenter_tests::process::segmenter("redis://127.0.0.1:1", &["--format", "json", "doctor"]);
    assert_eq!(nowhere.code(), Some(1), "{nowhere:?}");
    assert_eq!(nowhere.objects()[0]["name"], "connection");
    assert_eq!(nowhere.objects()[0]["status"], "failed");
}

#[test]
fn run_says_once_what_the_doctor_would() {
    /// All of a host that ran and ended: what it says on two pipes comes in no order.
    fn warnings(world: &World) -> Vec<String> {
        let mut host = start(world, "noop");
        host.signal("TERM");
        assert_eq!(host.ended().code(), Some(0));
        let said = host.said().into_iter();
        said.filter(|line| line.contains("\"warning\"")).collect()
    }
    let said = warnings(&World::with_stream(1, 100));
    assert_eq!(said.len(), 1, "a throw-away server keeps nothing: {said:?}");
    for says in ["persistence", "appendonly"] {
        assert!(said[0].contains(says), "{said:?}");
    }
    let world = World::with(segmenter_tests::server::Options {
        appendonly: true,
        ..Default::default()
    });
    world.create("s", 1, 100);
    assert_eq!(warnings(&world), Vec::<String>::new(), "all is well");
}
