//! What becomes of dead letters: redriven, also when that is interrupted, and purged.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use segmenter_tests::process::{self, Host, guest};

use crate::support::World;

/// `count` dead letters of group `g`, whose payloads count from 0 over three keys.
fn with_letters(world: &World, count: usize) {
    let line = |n: usize| {
        json!({"key": format!("k{}", n % 3), "payload": n.to_string(), "attributes": {"fail": "reject"}})
            .to_string()
    };
    world.send_lines(&(0..count).map(line).collect::<Vec<_>>());
    let flaky = guest("flaky");
    let args = [flaky.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let host = Host::start(&world.url, &args);
    world.until_acked(1, "g");
    host.stop();
    assert_eq!(letters(world).len(), count);
}

fn letters(world: &World) -> Vec<Value> {
    let args = [
        "--format", "json", "dead", "list", "s", "g", "--limit", "100000",
    ];
    world.run(&args).ok().objects()
}

/// What `dead …` says under json.
fn dead(world: &World, args: &[&str]) -> Value {
    let args = [&["--format", "json", "dead"][..], args].concat();
    world.run(&args).ok().objects().remove(0)
}

/// Payloads of a partition as they lie there.
fn payloads(world: &World, stream: &str, partition: u32) -> Vec<usize> {
    let key = format!("seg:{{default/{stream}/{partition}}}:log");
    let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(key)
        .arg("-")
        .arg("+")
        .query(&mut world.redis())
        .expect("XRANGE");
    let payload = |(_, fields): (String, Vec<String>)| fields[3].parse().expect("a number");
    entries.into_iter().map(payload).collect()
}

/// How many messages a group's handler gets until it has none before it.
fn handled(world: &World, group: &str) -> usize {
    let tally = guest("tally");
    let args = [tally.to_str().unwrap(), "--stream", "s", "--group", group];
    let host = Host::start(&world.url, &args);
    world.until_acked(1, group);
    host.stop().len()
}

#[test]
fn a_redriven_message_is_handled_again_by_its_group_and_by_no_other() {
    let world = World::with_stream(1, 100);
    with_letters(&world, 6);
    assert_eq!(handled(&world, "other"), 6);
    let one = letters(&world)[3]["id"].as_str().unwrap().to_owned();
    let redriven = |n: u64| json!({"redriven": n, "kept": 0});
    assert_eq!(dead(&world, &["redrive", "s", "g", &one]), redriven(1));
    assert_eq!(letters(&world).len(), 5);
    let key = ["redrive", "s", "g", "--key", "k1"];
    assert_eq!(dead(&world, &key), redriven(2));
    assert_eq!(dead(&world, &key), redriven(0));
    let older = ["redrive", "s", "g", "--older-than", "1h"];
    assert_eq!(dead(&world, &older), redriven(0));
    let reason = ["redrive", "s", "g", "--reason", "asked to reject"];
    assert_eq!(dead(&world, &reason), redriven(3));
    assert_eq!(letters(&world), Vec::<Value>::new());
    assert_eq!(handled(&world, "g"), 6);
    assert_eq!(handled(&world, "other"), 0, "they are not for it");
    assert_eq!(
        handled(&world, "new"),
        6,
        "from the beginning, but not twice"
    );
}

#[test]
fn a_redrive_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    const COUNT: usize = 3_000;
    let world = World::with_stream(1, 10_000);
    with_letters(&world, COUNT);
    world.create("t", 2, 10_000);
    let arrived = || payloads(&world, "t", 0).len() + payloads(&world, "t", 1).len();
    let args = [
        "--redis", &world.url, "dead", "redrive", "s", "g", "--all", "--to", "t",
    ];
    let mut kills = 0;
    for more in [1, 600, 1_300, 2_000] {
        let mut redrive = Command::new(process::binary())
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let ended = process::until("more have arrived, or it has ended", || {
            let ended = redrive.try_wait().expect("a child");
            (ended.is_some() || arrived() >= more).then_some(ended)
        });
        if ended.is_none() {
            redrive.kill().expect("a child");
            kills += 1;
        }
        redrive.wait().expect("a child");
    }
    assert!(kills > 0, "it was too fast to be interrupted");
    dead(&world, &["redrive", "s", "g", "--all", "--to", "t"]);
    assert_eq!(letters(&world), Vec::<Value>::new());
    let mut all = Vec::new();
    for partition in [0, 1] {
        let found = payloads(&world, "t", partition);
        assert!(found.is_sorted_by(|a, b| a < b), "once each, and in order");
        all.extend(found);
    }
    all.sort();
    assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn a_redrive_while_a_host_runs_is_handled_at_once() {
    let world = World::with_stream(1, 100);
    with_letters(&world, 5);
    let tally = guest("tally");
    let args = [tally.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let host = Host::start(&world.url, &args);
    assert_eq!(dead(&world, &["redrive", "s", "g", "--all"])["redriven"], 5);
    process::until("all five are handled", || {
        (host.guest_lines().len() >= 5).then_some(())
    });
    world.until_acked(1, "g");
    assert_eq!(host.stop().len(), 5);
}

#[test]
fn what_is_no_message_is_kept_and_said_and_can_be_purged() {
    let world = World::with_stream(1, 100);
    with_letters(&world, 2);
    let odd: String = redis::cmd("XADD")
        .arg("seg:{default/s/0}:log")
        .arg(&["*", "what", "ever"])
        .query(&mut world.redis())
        .expect("XADD");
    handled(&world, "g");
    let ended = world.run(&["--format", "json", "dead", "redrive", "s", "g", "--all"]);
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert_eq!(ended.objects(), [json!({"redriven": 2, "kept": 1})]);
    assert!(ended.stderr.contains(&odd), "{ended:#?}");
    let left = letters(&world);
    assert_eq!(
        (left.len(), left[0]["id"].as_str()),
        (1, Some(odd.as_str()))
    );
    let none = world.run(&["dead", "purge", "s", "g", "1-1"]);
    assert_eq!(none.code(), Some(1));
    assert_eq!(
        dead(&world, &["purge", "s", "g", &odd]),
        json!({"purged": 1})
    );
    assert_eq!(
        dead(&world, &["purge", "s", "g", "--all"]),
        json!({"purged": 0})
    );
    for args in [
        &["dead", "purge", "s", "g"][..],
        &["dead", "redrive", "s", "g", "--all", "--key", "k"],
    ] {
        assert_eq!(world.run(args).code(), Some(2), "{args:?}");
    }
    let ended = world.run(&["dead", "redrive", "s", "g", "--all", "--to", "nowhere"]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("nowhere"), "{ended:#?}");
}

#[test]
fn a_full_target_stops_a_redrive_and_calling_it_again_goes_on() {
    let world = World::with_stream(1, 100);
    with_letters(&world, 10);
    world.create("t", 1, 4);
    let args = ["redrive", "s", "g", "--all", "--to", "t"];
    let short = [&["dead"][..], &args[..], &["--full-timeout", "100ms"][..]].concat();
    let ended = world.run(&short);
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("full"), "{ended:#?}");
    assert_eq!(payloads(&world, "t", 0), [0, 1, 2, 3]);
    let _: u64 = redis::cmd("DEL")
        .arg("seg:{default/t/0}:meta")
        .query(&mut world.redis())
        .expect("DEL");
    // With another capacity, as if its groups had made room.
    let described: Vec<String> = redis::cmd("HGETALL")
        .arg("seg:{default/t}:stream")
        .query(&mut world.redis())
        .expect("HGETALL");
    let uid = described.iter().skip_while(|name| *name != "uid").nth(1);
    let meta = [
        "protocol",
        "1",
        "uid",
        uid.expect("it has one"),
        "capacity",
        "100",
    ];
    let _: u64 = redis::cmd("HSET")
        .arg("seg:{default/t/0}:meta")
        .arg(&meta)
        .query(&mut world.redis())
        .expect("HSET");
    assert_eq!(dead(&world, &args), json!({"redriven": 0, "kept": 0}));
    assert_eq!(payloads(&world, "t", 0), (0..10).collect::<Vec<_>>());
}
