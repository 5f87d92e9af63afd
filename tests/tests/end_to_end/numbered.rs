//! Numbered messages: whoever sends them again, after whatever happened, does not double them.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use segmenter_tests::chaos::proxy::{Mode, Proxy};
use segmenter_tests::process::{self, Host, guest, until};
use segmenter_tests::server::Options;
use serde_json::{Value, json};

use crate::support::World;

/// `count` lines over `keys` keys; the payload counts from 0.
fn lines(count: usize, keys: usize) -> Vec<String> {
    let line = |n: usize| json!({"key": format!("k{}", n % keys), "payload": n.to_string()});
    (0..count).map(|n| line(n).to_string()).collect()
}

fn file(world: &World, lines: &[String]) -> String {
    let path = world.server.dir().join("messages.jsonl");
    std::fs::write(&path, lines.join("\n")).expect("the folder is there");
    path.to_str().expect("UTF-8").to_owned()
}

/// A `send` to stream `s` whose input the test writes, or which reads a file.
fn start(url: &str, args: &[&str]) -> Child {
    Command::new(process::binary())
        .args(["--format", "json", "--redis", url, "send", "s"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

fn answers(world: &World, args: &[&str]) -> Vec<Value> {
    let args = [&["--format", "json", "send", "s"][..], args].concat();
    world.run(&args).ok().objects()
}

fn duplicates(answers: &[Value]) -> usize {
    let of = |answer: &&Value| match (&answer["duplicate"], &answer["id"]) {
        (Value::Bool(true), Value::Null) => true,
        (Value::Bool(false), Value::String(_)) => false,
        _ => panic!("{answer}"),
    };
    answers.iter().filter(of).count()
}

fn entries(world: &World, partitions: u32) -> usize {
    let length = |p: u32| -> usize {
        redis::cmd("XLEN")
            .arg(format!("seg:{{default/s/{p}}}:log"))
            .query(&mut world.redis())
            .unwrap_or(0)
    };
    (0..partitions).map(length).sum()
}

/// Key and payload of all entries of a partition.
fn held(world: &World, partition: u32) -> Vec<(String, usize)> {
    let found: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(format!("seg:{{default/s/{partition}}}:log"))
        .arg("-")
        .arg("+")
        .query(&mut world.redis())
        .expect("XRANGE");
    let message = |(_, fields): (String, Vec<String>)| {
        (fields[1].clone(), fields[3].parse().expect("a number"))
    };
    found.into_iter().map(message).collect()
}

/// All of [`lines`] are there, each once, those of a key in order.
fn all_once_in_order(world: &World, partitions: u32, count: usize, keys: usize) {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for partition in 0..partitions {
        for (key, n) in held(world, partition) {
            by_key.entry(key).or_default().push(n);
        }
    }
    for key in 0..keys {
        let expected: Vec<_> = (key..count).step_by(keys).collect();
        let found = by_key.remove(&format!("k{key}")).unwrap_or_default();
        assert_eq!(found, expected, "of key k{key}");
    }
    assert!(by_key.is_empty(), "{by_key:?}");
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Cut,
    Restart,
}

#[test]
fn a_file_sent_through_kills_cuts_and_restarts_is_there_once_and_in_order() {
    const COUNT: usize = 40_000;
    let mut world = World::with(Options {
        appendonly: true,
        ..Options::default()
    });
    world.create("s", 4, 100_000);
    let path = file(&world, &lines(COUNT, 100));
    let args = ["--jsonl", &path, "--id", "loader:1"];
    let proxy = Proxy::start(world.server.port(), None);
    proxy.set(Mode::Delay(Duration::from_millis(5)));
    let mut send = start(&proxy.url(), &args);
    let mut hit = 0;
    let faults = [Fault::Kill, Fault::Cut, Fault::Restart];
    for fault in faults.into_iter().cycle().take(8) {
        // So it is connected, and in the middle of it.
        let before = entries(&world, 4);
        let ended = until("more have arrived, or it has ended", || {
            let ended = send.try_wait().expect("a child");
            (ended.is_some() || entries(&world, 4) > before).then_some(ended)
        });
        match ended {
            Some(ended) if ended.success() => break,
            // It was connecting when the one before was hit: whoever gets an error sends the whole again.
            Some(_) => send = start(&proxy.url(), &args),
            None => {}
        }
        hit += 1;
        match fault {
            Fault::Kill => {
                send.kill().expect("a child");
                send.wait().expect("a child");
                send = start(&proxy.url(), &args);
            }
            Fault::Cut => proxy.cut(),
            Fault::Restart => world.server.restart(),
        }
    }
    assert!(hit >= 3, "it was too fast to be interrupted: {hit}");
    until("the whole was sent", || {
        let ended = send.wait().expect("a child");
        if !ended.success() {
            send = start(&proxy.url(), &args);
        }
        ended.success().then_some(())
    });
    all_once_in_order(&world, 4, COUNT, 100);
    let again = answers(&world, &args);
    assert_eq!((again.len(), duplicates(&again)), (COUNT, COUNT));
    assert_eq!(entries(&world, 4), COUNT);
}

#[test]
fn a_number_that_is_not_above_the_last_one_is_there_already() {
    let world = World::with_stream(1, 100);
    let send = |id: &str| {
        let mut answers = answers(&world, &["--key", "k", "1", "--id", id]);
        answers.remove(0)
    };
    let first = send("checkout:7");
    assert_eq!(first["duplicate"], false);
    assert!(first["id"].is_string(), "{first}");
    let there = json!({"partition": 0, "id": null, "duplicate": true});
    assert_eq!(send("checkout:7"), there);
    assert_eq!(send("checkout:6"), there);
    assert_eq!(send("checkout:8")["duplicate"], false);
    // Numbers may begin with 0 and have gaps; another producer has its own.
    assert_eq!(send("billing:0")["duplicate"], false);
    assert_eq!(send("billing:0"), there);
    let last = u64::MAX.to_string();
    assert_eq!(send(&format!("billing:{last}"))["duplicate"], false);
    assert_eq!(send("billing:1"), there);
    // Nor does a name meet what else is kept in the same place.
    for name in ["protocol:1", "producers:1"] {
        assert_eq!(send(name)["duplicate"], false);
        assert_eq!(send(name), there);
    }
    let args = ["send", "s", "--key", "k", "1", "--id", "checkout:8"];
    let said = world.run(&args).ok().stdout;
    assert_eq!(said, "partition 0  was there already\n");
    // Without --id nothing is remembered, and the answer is as it was.
    let plain = answers(&world, &["--key", "k", "1"]).remove(0);
    assert_eq!(plain.as_object().expect("an object").len(), 2);
    assert_eq!(entries(&world, 1), 7);
}

#[test]
fn lines_may_have_numbers_of_their_own() {
    let world = World::with_stream(1, 100);
    let line = |id: u64| json!({"id": id, "key": "k", "payload": id.to_string()}).to_string();
    let send = |ids: &[u64], args: &[&str]| {
        let input = ids
            .iter()
            .map(|id| line(*id))
            .collect::<Vec<_>>()
            .join("\n");
        let args = [&["--format", "json", "send", "s", "--jsonl", "-"][..], args].concat();
        process::with_input(&world.url, &args, input.as_bytes())
    };
    let own = ["--id", "checkout"];
    let sent = send(&[3, 5, 9], &own).ok().objects();
    assert_eq!((sent.len(), duplicates(&sent)), (3, 0));
    let sent = send(&[5, 9, 12], &own).ok().objects();
    assert_eq!(duplicates(&sent), 2);
    assert_eq!(sent[2]["duplicate"], false);
    let payloads: Vec<_> = held(&world, 0).into_iter().map(|(_, n)| n).collect();
    assert_eq!(payloads, [3, 5, 9, 12]);
    for (ids, args, says) in [
        (
            &[20, 21, 21][..],
            &own[..],
            &["line 3", "not above 21", "2 messages before it were sent"][..],
        ),
        (&[30], &["--id", "checkout:1"], &["line 1", "has the id 30"]),
        (&[31], &[], &["line 1", "--id PRODUCER"]),
    ] {
        let ended = send(ids, args);
        assert_eq!(ended.code(), Some(1), "{ended:#?}");
        for part in says {
            assert!(ended.stderr.contains(part), "{part}: {ended:#?}");
        }
    }
    let none = ["send", "s", "--jsonl", "-", "--id", "checkout"];
    let ended = process::with_input(&world.url, &none, b"{\"key\":\"k\",\"payload\":\"1\"}");
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("has no id"), "{ended:#?}");
    assert_eq!(entries(&world, 1), 6);
}

#[test]
fn what_numbers_nothing_is_wrong_usage() {
    // Nobody listens there: it is refused before anything is asked of Redis.
    let url = "redis://127.0.0.1:1";
    for (id, says) in [
        ("checkout", "has no number"),
        ("checkout:", "no number"),
        ("checkout:x", "no number"),
        ("checkout:-1", "no number"),
        ("checkout:18446744073709551616", "no number"),
        (":1", "empty"),
        ("a/b:1", "'/'"),
    ] {
        let ended = process::segmenter(url, &["send", "s", "--key", "k", "p", "--id", id]);
        assert_eq!(ended.code(), Some(2), "{ended:#?}");
        assert!(ended.stderr.contains(says), "{id}: {ended:#?}");
    }
}

#[test]
fn a_full_partition_takes_a_prefix_and_the_whole_sent_again_goes_on_behind_it() {
    const COUNT: usize = 30;
    let world = World::with_stream(1, 10);
    let path = file(&world, &lines(COUNT, 3));
    let args = ["--jsonl", &path, "--id", "loader:1"];
    let short = [&["send", "s"][..], &args, &["--full-timeout", "100ms"]].concat();
    for _ in 0..2 {
        let ended = world.run(&short);
        assert_eq!(ended.code(), Some(1), "{ended:#?}");
        for part in ["is full", "10 messages were sent", "line 11", "same --id"] {
            assert!(ended.stderr.contains(part), "{part}: {ended:#?}");
        }
        let held: Vec<_> = held(&world, 0).into_iter().map(|(_, n)| n).collect();
        assert_eq!(held, (0..10).collect::<Vec<_>>());
    }
    // Its host makes room, and the rest follows, though the first are trimmed by then.
    let tally = guest("tally");
    let run = [tally.to_str().unwrap(), "--stream", "s", "--group", "g"];
    let host = Host::start(&world.url, &run);
    world.until_acked(1, "g");
    let sent = answers(&world, &args);
    assert_eq!((sent.len(), duplicates(&sent)), (COUNT, 10));
    world.until_acked(1, "g");
    assert_eq!(host.stop().len(), COUNT, "each is handled once");
    let again = answers(&world, &args);
    assert_eq!(duplicates(&again), COUNT);
}

#[test]
fn two_that_send_the_same_at_once_send_it_once() {
    const COUNT: usize = 10_000;
    let world = World::with_stream(4, 100_000);
    let path = file(&world, &lines(COUNT, 100));
    let args = ["--jsonl", &path, "--id", "loader:1"];
    let new = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| answers(&world, &args)));
        both.map(|one| {
            let answers = one.join().expect("no panic");
            assert_eq!(answers.len(), COUNT);
            COUNT - duplicates(&answers)
        })
    });
    assert_eq!(new[0] + new[1], COUNT, "{new:?}");
    all_once_in_order(&world, 4, COUNT, 100);
}

#[test]
fn what_a_redis_lost_is_not_taken_for_done_while_it_is_sent() {
    const COUNT: usize = 100;
    let mut world = World::with_stream(1, 1_000);
    let path = file(&world, &lines(COUNT, 3));
    let all = lines(COUNT, 3);
    let mut send = start(&world.url, &["--jsonl", "-", "--id", "loader:1"]);
    let mut input = send.stdin.take().expect("piped");
    let mut write = |lines: &[String]| {
        let text = lines.iter().map(|line| format!("{line}\n"));
        input
            .write_all(text.collect::<String>().as_bytes())
            .expect("it reads");
    };
    let arrived = |world: &World, n: usize| {
        until("they have arrived", || {
            (entries(world, 1) == n).then_some(())
        });
    };
    write(&all[..10]);
    arrived(&world, 10);
    let _: String = redis::cmd("SAVE").query(&mut world.redis()).expect("SAVE");
    write(&all[10..30]);
    arrived(&world, 30);
    world.server.restart();
    assert_eq!(entries(&world, 1), 10, "it lost twenty");
    write(&all[30..]);
    drop(input);
    let ended = send.wait_with_output().expect("a child");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains("lost its last writes") && said.contains("same --id"),
        "{said}"
    );
    assert_eq!(entries(&world, 1), 10);
    let sent = answers(&world, &["--jsonl", &path, "--id", "loader:1"]);
    assert_eq!(duplicates(&sent), 10);
    all_once_in_order(&world, 1, COUNT, 3);
}
