//! A stream that other programs write, as a source: they go on as before, and see no difference.

use std::time::Duration;

use redis::Value;
use segmenter_tests::process::{Host, until};
use segmenter_tests::server::USER;

use crate::support::World;

/// The stream `s` reads `app:events`, with a handler of `flaky`.
fn config(world: &World, more: &str) -> String {
    let path = world.config("flaky", Duration::from_secs(3));
    let text = std::fs::read_to_string(&path).expect("written");
    let stream = format!(
        "[[stream]]\nname = \"s\"\nsource = {{ redis_key = \"app:events\", key_field = \"user\", payload_field = \"body\" }}\n{more}"
    );
    let text = text.replacen("[[handler]]", &format!("{stream}[[handler]]"), 1);
    std::fs::write(&path, text).expect("the folder is there");
    path
}

fn allowed() -> World {
    let world = World::new();
    let mut redis = world.redis();
    let rule = ["SETUSER", USER, "~app:events"];
    let _: () = redis::cmd("ACL").arg(&rule).query(&mut redis).expect("ACL");
    world
}

fn xadd(redis: &mut redis::Connection, fields: &[(&str, &[u8])]) -> String {
    let mut command = redis::cmd("XADD");
    command.arg("app:events").arg("*");
    for (name, value) in fields {
        command.arg(*name).arg(*value);
    }
    command.query(redis).expect("XADD")
}

#[test]
fn what_other_programs_write_is_handled_in_order_and_stays_theirs() {
    let world = allowed();
    let mut redis = world.redis();
    let mut ids = Vec::new();
    for n in 0..500 {
        ids.push(xadd(
            &mut redis,
            &[("user", b"u"), ("body", format!("{n}").as_bytes())],
        ));
    }
    // A group of theirs is at work on it.
    let cmd = |parts: &[&str], redis: &mut redis::Connection| -> Value {
        redis::cmd(parts[0])
            .arg(&parts[1..])
            .query(redis)
            .expect("a command")
    };
    cmd(
        &["XGROUP", "CREATE", "app:events", "theirs", "0"],
        &mut redis,
    );
    let read = "XREADGROUP GROUP theirs worker COUNT 7 STREAMS app:events >";
    cmd(&read.split(' ').collect::<Vec<_>>(), &mut redis);
    let pending = |redis: &mut redis::Connection| {
        let summary: Value = cmd(&["XPENDING", "app:events", "theirs"], redis);
        format!("{summary:?}")
    };
    let before = pending(&mut redis);

    let config = config(&world, "");
    let mut host = Host::start(&world.url, &["-c", &config]);
    for n in 500..1_000 {
        ids.push(xadd(
            &mut redis,
            &[("at", b"noon"), ("body", format!("{n}").as_bytes())],
        ));
    }
    // Two that make no message, one that the handler rejects, and one more that is fine.
    let odd = [
        xadd(&mut redis, &[("user", b"u")]),
        xadd(&mut redis, &[("body", b"x"), ("colour", b"\xff")]),
        xadd(
            &mut redis,
            &[("user", b"u"), ("body", b"x"), ("fail", b"reject")],
        ),
    ];
    ids.push(xadd(&mut redis, &[("user", b"u"), ("body", b"last")]));

    let lag = |redis: &mut redis::Connection| -> Option<u64> {
        let groups: Vec<std::collections::BTreeMap<String, Value>> = redis::cmd("XINFO")
            .arg(&["GROUPS", "app:events"])
            .query(redis)
            .expect("XINFO");
        let ours = groups
            .into_iter()
            .find(|g| g["name"] == Value::BulkString(b"g".to_vec()))?;
        redis::from_redis_value(ours["lag"].clone()).ok()
    };
    until("everything is acked", || {
        (lag(&mut redis) == Some(0)).then_some(())
    });

    let describe = world
        .run(&["--format", "json", "group", "describe", "s", "g"])
        .ok();
    let described = &describe.objects()[0];
    assert_eq!(described["partitions"][0]["lag"], 0, "{described}");
    let dead = world
        .run(&["--format", "json", "dead", "list", "s", "g"])
        .ok();
    let dead = dead.objects();
    let reasons: Vec<_> = dead.iter().map(|d| d["reason"].as_str().unwrap()).collect();
    assert_eq!(dead.len(), 3, "{dead:?}");
    assert!(reasons[0].contains("no field \"body\""), "{reasons:?}");
    assert!(
        reasons[1].contains("\"colour\" is not valid UTF-8"),
        "{reasons:?}"
    );
    for (letter, id) in dead.iter().zip(&odd) {
        assert_eq!(letter["id"], **id);
    }
    let shown = world
        .run(&["--format", "json", "dead", "show", "s", "g", &odd[2]])
        .ok();
    let shown = &shown.objects()[0];
    assert_eq!(
        (&shown["key"], &shown["payload"]),
        (&"u".into(), &"x".into())
    );
    assert_eq!(shown["attributes"]["fail"], "reject", "{shown}");

    let refused = world.run(&["dead", "redrive", "s", "g", "--all"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    let says = "other programs write, so that its dead letters cannot be redriven to it";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    assert!(refused.stderr.contains("--to a stream"), "{refused:?}");
    let purge = ["--format", "json", "dead", "purge", "s", "g", "--key", "u"];
    let purged = world.run(&purge).ok();
    assert_eq!(purged.objects()[0]["purged"], 1, "only one has a key");

    let refused = world.run(&["send", "s", "--key", "k", "x"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("XADD app:events"),
        "{}",
        refused.stderr
    );

    // Each message once and in order, the key from its field.
    host.event("guest_log");
    let lines = host.stop();
    let handled: Vec<_> = lines.iter().map(|line| line.id.clone()).collect();
    assert_eq!(handled, ids);
    assert!(
        lines[0].text.contains("key=u payload=0"),
        "{}",
        lines[0].text
    );
    assert!(
        lines[500].text.contains("key= payload=500"),
        "{}",
        lines[500].text
    );

    let length: u64 = redis::cmd("XLEN")
        .arg("app:events")
        .query(&mut redis)
        .unwrap();
    assert_eq!(length, 1_004, "nothing was trimmed");
    assert_eq!(pending(&mut redis), before, "their group is where it was");
    world.run(&["stream", "delete", "s"]).ok();
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
    assert_eq!(left, ["app:events"]);
    let length: u64 = redis::cmd("XLEN")
        .arg("app:events")
        .query(&mut redis)
        .unwrap();
    assert_eq!(length, 1_004);
}

#[test]
fn it_is_tailed_listed_described_sought_and_paused_like_any_other() {
    let world = allowed();
    let mut redis = world.redis();
    let ids: Vec<_> = (0..3)
        .map(|n| {
            xadd(
                &mut redis,
                &[("user", b"u"), ("body", format!("{n}").as_bytes())],
            )
        })
        .collect();
    let config = config(&world, "");
    let mut host = Host::start(&world.url, &["-c", &config]);
    host.line("the last message", |line| line["id"] == *ids[2]);
    let listed = world.run(&["--format", "json", "stream", "list"]).ok();
    let listed = &listed.objects()[0];
    assert_eq!(listed["source"]["redis_key"], "app:events", "{listed}");
    assert!(listed["capacity"].is_null(), "{listed}");
    for args in [
        &["stream", "list"][..],
        &["stream", "describe", "s"],
        &["group", "list", "s"],
        &["doctor"],
    ] {
        world.run(args).ok();
    }
    world.holds(3);
    world.run(&["group", "pause", "s", "g"]).ok();
    host.event("partition_halted");
    let fourth = xadd(&mut redis, &[("user", b"u"), ("body", b"3")]);
    world
        .run(&["group", "seek", "s", "g", "--to", &ids[1]])
        .ok();
    world.run(&["group", "resume", "s", "g"]).ok();
    host.line("the one that came meanwhile", |line| line["id"] == *fourth);
    let handled: Vec<_> = host.stop().into_iter().map(|line| line.id).collect();
    let expected = [&ids[0], &ids[1], &ids[2], &ids[1], &ids[2], &fourth];
    assert_eq!(handled.iter().collect::<Vec<_>>(), expected);
    let mut tail = std::process::Command::new(segmenter_tests::process::binary());
    tail.args(["--redis", &world.url, "--format", "json"]);
    tail.args(["tail", "s", "--from", "start"])
        .stdout(std::process::Stdio::piped());
    let mut tail = tail.spawn().expect("tail starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(tail.stdout.take().unwrap()));
    let first = lines.next().expect("a line").expect("text");
    tail.kill().expect("it runs");
    tail.wait().expect("our child");
    let first: serde_json::Value = serde_json::from_str(&first).expect("an object");
    assert_eq!(
        (&first["key"], &first["payload"]),
        (&"u".into(), &"0".into())
    );
}

#[test]
fn what_cannot_be_bound_is_refused_with_the_reason() {
    let world = allowed();
    let refused = |config: &str, says: &[&str]| {
        let ended = world.run(&["run", "-c", config]);
        for expected in says {
            assert!(
                ended.stderr.contains(expected),
                "{expected:?}: {}",
                ended.stderr
            );
        }
        assert!(matches!(ended.code(), Some(1 | 2)), "{ended:?}");
    };
    refused(
        &config(&world, ""),
        &["no stream \"app:events\" yet", "XADD"],
    );
    refused(
        &config(&world, "capacity = 5\n"),
        &["capacity goes not with source"],
    );
    refused(
        &config(&world, "partitions = 1\n"),
        &["partitions goes not with source"],
    );
    world.create("s", 1, 10);
    let mut redis = world.redis();
    xadd(&mut redis, &[("body", b"x")]);
    refused(&config(&world, ""), &["entries of its own", "app:events"]);
}

#[test]
fn no_handler_may_emit_or_redrive_to_what_others_write() {
    let world = allowed();
    world.create("s", 1, 10);
    let mut redis = world.redis();
    xadd(&mut redis, &[("user", b"u"), ("body", b"theirs")]);
    let source = "[[stream]]\nname = \"enriched\"\nsource = { redis_key = \"app:events\", key_field = \"user\", payload_field = \"body\" }\n";
    let grants = "[handler.grants]\nemit = [\"enriched\"]\n";
    let config = world.config_with("enrich", Duration::from_secs(3), source, grants);
    let ended = world.run(&["run", "-c", &config]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let says = "other programs write it, and nothing is appended there";
    assert!(ended.stderr.contains(says), "{}", ended.stderr);
    let redrive = ["dead", "redrive", "s", "g", "--all", "--to", "enriched"];
    let refused = world.run(&redrive);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("XADD there"), "{}", refused.stderr);
    let length: u64 = redis::cmd("XLEN")
        .arg("app:events")
        .query(&mut redis)
        .unwrap();
    assert_eq!(length, 1, "nothing was written there");
}

#[test]
fn dead_letters_are_redriven_to_a_stream_of_ours_and_never_to_the_source() {
    const COUNT: usize = 1_000;
    let world = allowed();
    let mut redis = world.redis();
    for n in 0..COUNT {
        let (user, body) = (format!("u{}", n % 3), n.to_string());
        let fail: (&str, &[u8]) = ("fail", b"reject");
        xadd(
            &mut redis,
            &[fail, ("body", body.as_bytes()), ("user", user.as_bytes())],
        );
    }
    let odd = xadd(&mut redis, &[("user", b"u0")]);
    let config = config(&world, "");
    let host = Host::start(&world.url, &["-c", &config]);
    let letters = |world: &World| {
        let args = [
            "--format", "json", "dead", "list", "s", "g", "--limit", "100000",
        ];
        world.run(&args).ok().objects()
    };
    until("all are dead letters", || {
        (letters(&world).len() == COUNT + 1).then_some(())
    });
    host.stop();
    world.create("t", 2, 10_000);
    let redrive = [
        "--format", "json", "dead", "redrive", "s", "g", "--all", "--to",
    ];
    let back = world.run(&[&redrive[..], &["s"]].concat());
    assert_eq!(back.code(), Some(1), "{back:?}");
    assert!(back.stderr.contains("XADD there"), "{}", back.stderr);
    assert_eq!(letters(&world).len(), COUNT + 1);

    // Killed in the middle, then called again.
    let payloads = |partition: u32| -> Vec<(String, usize)> {
        let found: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
            .arg(format!("seg:{{default/t/{partition}}}:log"))
            .arg(&["-", "+"])
            .query(&mut world.redis())
            .expect("XRANGE");
        let message = |(_, f): (String, Vec<String>)| {
            assert_eq!((&f[0], &f[2]), (&"k".to_owned(), &"p".to_owned()), "{f:?}");
            assert_eq!(f[4..], ["@fail", "reject"], "{f:?}");
            (f[1].clone(), f[3].parse().expect("a number"))
        };
        found.into_iter().map(message).collect()
    };
    let args = [&redrive[..], &["t"]].concat();
    let mut first = std::process::Command::new(segmenter_tests::process::binary())
        .args(["--redis", &world.url])
        .args(&args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    until("some have arrived, or it has ended", || {
        let ended = first.try_wait().expect("a child").is_some();
        (ended || !payloads(0).is_empty() || !payloads(1).is_empty()).then_some(())
    });
    let _ = first.kill();
    first.wait().expect("a child");
    for _ in 0..2 {
        let again = world.run(&args);
        assert_eq!(again.code(), Some(1), "one is no message: {again:?}");
        assert_eq!(again.objects()[0]["kept"], 1, "{again:?}");
        assert!(again.stderr.contains(&odd), "{again:?}");
    }
    let left = letters(&world);
    assert_eq!(
        (left.len(), left[0]["id"].as_str()),
        (1, Some(odd.as_str()))
    );
    let mut by_key = std::collections::BTreeMap::<String, Vec<usize>>::new();
    for (key, n) in [payloads(0), payloads(1)].concat() {
        by_key.entry(key).or_default().push(n);
    }
    for key in 0..3 {
        let expected: Vec<_> = (key..COUNT).step_by(3).collect();
        assert_eq!(by_key[&format!("u{key}")], expected, "once each, in order");
    }
    let length: usize = redis::cmd("XLEN")
        .arg("app:events")
        .query(&mut redis)
        .unwrap();
    assert_eq!(length, COUNT + 1, "what others write is as it was");
}

#[test]
fn a_source_is_registered_from_the_command_line_too() {
    let world = allowed();
    let mut redis = world.redis();
    let id = xadd(&mut redis, &[("user", b"u"), ("body", b"1")]);
    xadd(&mut redis, &[("user", b"u"), ("body", b"12345")]);
    let create = |more: &[&str]| {
        let fields = ["--key-field", "user", "--payload-field", "body"];
        let args = ["--format", "json", "stream", "create", "s", "--source-key"];
        world.run(&[&args[..], &["app:events"], &fields[..], more].concat())
    };
    for existed in [false, true] {
        let made = create(&["--payload-max", "4B"]).ok().objects().remove(0);
        assert_eq!(made["created"], !existed, "{made}");
        assert_eq!(made["source"]["redis_key"], "app:events", "{made}");
        assert!(made["capacity"].is_null(), "{made}");
    }
    let other = create(&[]);
    assert_eq!(other.code(), Some(1), "{other:?}");
    assert!(other.stderr.contains("at most 4 bytes"), "{}", other.stderr);
    let config = config(&world, "payload_max = \"4B\"\n");
    let mut host = Host::start(&world.url, &["-c", &config]);
    host.line("the message", |line| line["id"] == *id);
    until("the longer one is a dead letter", || {
        let args = ["--format", "json", "dead", "list", "s", "g"];
        let dead = world.run(&args).ok().objects();
        let reason = dead.first()?["reason"].as_str()?.to_owned();
        reason.contains("5 bytes; the limit is 4").then_some(())
    });
    host.stop();

    // Wrong usage, before anything is asked of Redis.
    let url = "redis://127.0.0.1:1";
    let whole = "stream create t --source-key e --key-field k --payload-field p";
    for (args, says) in [
        (
            "stream create t --source-key e --key-field k",
            "--payload-field",
        ),
        (
            "stream create t --key-field k --payload-field p",
            "--source-key",
        ),
        ("stream create t --partitions 1", "--capacity"),
        (&format!("{whole} --partitions 1"), "--partitions"),
        (&format!("{whole} --retain 1"), "--retain"),
        (&whole.replace(" p", " k"), "both \"k\""),
        (
            &whole.replace("-key e", "-key seg:{a/b/0}:log"),
            "begins with seg:",
        ),
    ] {
        let args: Vec<_> = args.split(' ').collect();
        let ended = segmenter_tests::process::segmenter(url, &args);
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
    }
}
