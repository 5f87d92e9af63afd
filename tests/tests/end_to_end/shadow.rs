//! A version beside the live one, on the same messages: what it does is compared, and nothing of it is left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use segmenter_tests::process::{self, GuestLine, Host, until};
use serde_json::{Value, json};

use crate::failing;
use crate::support::{Judgement, World, judge};
use crate::swap::{until_all_run, version};

const PARTITIONS: u32 = 4;
const KEYS: usize = 20;
/// Longer than any test.
const LONG: &str = "1h";
/// `host/src/host/shadow.rs`.
const BROKEN_MAX: usize = 3;

/// With a stream and a host of handler `h` that runs what is deployed: `guest`.
fn host(world: &World, guest: &str, more: &str) -> Host {
    let module = write(world, "live", &version(&process::guest(guest), 0));
    deployed(world, &module, &[]);
    let config = world.server.dir().join("segmenter.toml");
    let text = format!(
        "[[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = 'deployed'\nsession_timeout = '30s'\n{more}\n"
    );
    std::fs::write(&config, text).expect("the folder is there");
    Host::start(&world.url, &["-c", config.to_str().expect("UTF-8")])
}

fn write(world: &World, name: &str, bytes: &[u8]) -> PathBuf {
    let path = world.server.dir().join(format!("{name}.wasm"));
    std::fs::write(&path, bytes).expect("the folder is there");
    path
}

fn handler(world: &World, args: &[&str]) -> Vec<Value> {
    let all = [&["--format", "json", "handler"], args].concat();
    world.run(&all).ok().objects()
}

/// The digest.
fn deployed(world: &World, module: &std::path::Path, more: &[&str]) -> String {
    let module = module.to_str().expect("UTF-8");
    let answers = handler(world, &[&["deploy", "h", module], more].concat());
    answers[0]["version"]
        .as_str()
        .expect("a version")
        .to_owned()
}

/// From here on, it is called with each message.
fn begins(world: &World, host: &mut Host, module: &std::path::Path) {
    let version = deployed(world, module, &["--shadow", "--for", LONG]);
    let begun = host.event("shadow_begun");
    assert_eq!(begun["version"], version.as_str());
}

/// What the only host found: same, outcome, emitted, state; once it has told of so many calls.
fn found(world: &World, calls: usize) -> ([usize; 4], String) {
    until(&format!("{calls} calls are compared"), || {
        let listed = handler(world, &["list", "h"]).remove(0);
        let host = &listed["hosts"][0];
        // Not what was counted of the shadow before.
        if host["revision"] != listed["revision"] {
            return None;
        }
        let d = &host["differences"];
        let all = ["same", "outcome", "emitted", "state"]
            .map(|name| d[name].as_u64().expect("a number") as usize);
        let example = d["example"].as_str().expect("text").to_owned();
        (all.iter().sum::<usize>() >= calls).then_some((all, example))
    })
}

fn ends(world: &World, host: &mut Host) -> Value {
    handler(world, &["rollback", "h"]);
    host.event("shadow_ended")
}

fn lines(ids: std::ops::Range<usize>, payload: &str) -> Vec<String> {
    let line = |id: usize, key: usize| {
        json!({"key": format!("key-{key}"), "payload": payload, "attributes": {"id": id.to_string()}})
            .to_string()
    };
    let of = |id: usize| (0..KEYS).map(move |key| line(id, key));
    ids.flat_map(of).collect()
}

/// What shadows logged.
fn shadow_lines(host: &Host) -> Vec<GuestLine> {
    let parse = |line: &String| serde_json::from_str::<Value>(line).ok();
    let said = host.said();
    let shadows = said.iter().filter_map(parse).filter_map(|mut line| {
        let marked = line.as_object_mut()?.remove("shadow")?;
        assert_eq!(marked, true);
        Some(GuestLine::of(&line).expect("a line of a guest"))
    });
    shadows.collect()
}

fn totals(world: &World) -> BTreeMap<String, String> {
    let mut redis = world.redis();
    let mut all = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let kept: BTreeMap<String, String> = redis::cmd("HGETALL")
            .arg(format!("seg:{{default/s/{partition}}}:state:g"))
            .query(&mut redis)
            .expect("a hash");
        all.extend(kept);
    }
    all.retain(|name, _| name.starts_with("=total "));
    all
}

/// Each key was counted so many times, and nothing became a dead letter.
#[track_caller]
fn counted(world: &World, ids: usize) {
    let total = |key: usize| (format!("=total key-{key}"), ids.to_string());
    assert_eq!(totals(world), (0..KEYS).map(total).collect());
    let dead = ["--format", "json", "dead", "list", "s", "g"];
    assert_eq!(world.run(&dead).ok().objects(), Vec::<Value>::new());
}

#[test]
fn the_same_code_does_the_same_and_leaves_no_trace() {
    let world = World::with_stream(PARTITIONS, 10_000);
    let mut host = host(&world, "dedup", "[handler.grants]\nstate = true");
    let mut sent = world.send_lines(&lines(0..5, "x"));
    world.until_acked(PARTITIONS, "g");

    let same = write(&world, "same", &version(&process::guest("dedup"), 1));
    begins(&world, &mut host, &same);
    let live = handler(&world, &["list", "h"]).remove(0)["current"].clone();
    // The first five are there already: what both write depends on the state that both see.
    let seen = world.send_lines(&lines(3..10, "x"));
    world.until_acked(PARTITIONS, "g");
    let (counts, example) = found(&world, seen.len());
    assert_eq!((counts, example.as_str()), ([seen.len(), 0, 0, 0], ""));
    counted(&world, 10);
    until_all_run(&world, live.as_str().expect("a version"));

    let ended = ends(&world, &mut host);
    let told = format!("{} calls the same, 0 different", seen.len());
    assert_eq!(ended["found"], told);
    sent.extend(seen.iter().cloned());
    sent.extend(world.send_lines(&lines(10..12, "x")));
    world.until_acked(PARTITIONS, "g");
    counted(&world, 12);

    // Both said the same of each message, and the shadow of no other.
    let shadows = shadow_lines(&host);
    let of_live = host.stop();
    let text = |line: &GuestLine| (line.message(), (line.attempt, line.text.clone()));
    let shadows: BTreeMap<_, _> = shadows.iter().map(text).collect();
    assert_eq!(shadows.len(), seen.len());
    let live: BTreeMap<_, _> = of_live.iter().map(text).collect();
    for (message, said) in &shadows {
        assert_eq!(live.get(message), Some(said), "{message:?}");
    }
    let expected = Judgement {
        handled: sent.len(),
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &of_live), expected);
}

#[test]
fn each_difference_is_counted_and_costs_the_live_version_nothing() {
    let world = World::with_stream(PARTITIONS, 10_000);
    let mut host = host(&world, "dedup", "[handler.grants]\nstate = true");
    let dir = world.server.dir().to_owned();
    // It rejects what says `j`, up to the attempt after it.
    let send = |ids| world.send_lines(&lines(ids, "j9"));

    begins(&world, &mut host, &process::guest("noop"));
    let sent = send(0..3);
    world.until_acked(PARTITIONS, "g");
    let (counts, example) = found(&world, sent.len());
    assert_eq!(counts, [0, 0, 0, sent.len()]);
    assert!(
        example.starts_with("partition ") && example.contains("state: \"ids\": live "),
        "{example}"
    );
    assert!(example.ends_with("shadow wrote nothing"), "{example}");
    ends(&world, &mut host);
    counted(&world, 3);

    begins(&world, &mut host, &failing::guest(&dir));
    let sent = send(3..6);
    world.until_acked(PARTITIONS, "g");
    let (counts, example) = found(&world, sent.len());
    assert_eq!(counts, [0, sent.len(), 0, 0]);
    assert!(
        example.ends_with("outcome: live ok, shadow reject (\"asked to fail\")"),
        "{example}"
    );
    ends(&world, &mut host);
    counted(&world, 6);

    // One that traps is soon not called any more.
    begins(&world, &mut host, &failing::guest_that_traps(&dir));
    let sent = send(6..9);
    world.until_acked(PARTITIONS, "g");
    let of = |partition| sent.iter().filter(|(p, _)| *p == partition).count();
    let each = (0..u64::from(PARTITIONS)).map(of).collect::<Vec<_>>();
    let broken = each.iter().map(|n| BROKEN_MAX.min(*n)).sum();
    let (counts, example) = found(&world, broken);
    assert_eq!(counts, [0, broken, 0, 0]);
    assert!(example.contains("shadow trap ("), "{example}");
    ends(&world, &mut host);
    counted(&world, 9);
    let stopped = host.said();
    let stopped = stopped.iter().filter(|l| l.contains("\"shadow_stopped\""));
    let over = each.iter().filter(|n| **n >= BROKEN_MAX);
    assert_eq!(stopped.count(), over.count());

    let lines = host.stop();
    assert_eq!(lines.len(), 9 * KEYS);
    assert!(lines.iter().all(|line| line.attempt == 1));
}

#[test]
fn what_a_shadow_emits_goes_nowhere_and_what_it_found_is_told_at_its_end() {
    let world = World::with_stream(PARTITIONS, 10_000);
    world.create("enriched", 1, 10_000);
    let grants = "[handler.grants]\nemit = ['enriched']";
    let mut host = host(&world, "noop", grants);
    begins(&world, &mut host, &process::guest("enrich"));
    let sent = world.send_lines(&lines(0..3, "x")).len();
    world.until_acked(PARTITIONS, "g");
    let (counts, example) = found(&world, sent);
    assert_eq!(counts, [0, 0, sent, 0]);
    assert!(
        example.ends_with("emitted: live 0 messages, shadow 1"),
        "{example}"
    );
    ends(&world, &mut host);
    assert_eq!(entries(&world, "enriched"), 0);

    // Until its time is over.
    let enrich = write(&world, "enrich", &version(&process::guest("enrich"), 1));
    let enrich = enrich.to_str().expect("UTF-8");
    let answers = std::thread::scope(|scope| {
        let deploy = ["deploy", "h", enrich, "--shadow", "--for", "3s", "--wait"];
        let world = &world;
        let waiting = scope.spawn(move || handler(world, &deploy));
        host.event("shadow_begun");
        while !waiting.is_finished() {
            world.send_lines(&lines(0..1, "x"));
            world.until_acked(PARTITIONS, "g");
        }
        waiting.join().expect("no panic")
    });
    assert_eq!(answers[1]["outcome"], "shadow_ended");
    let reason = answers[1]["reason"].as_str().expect("text");
    for says in [
        "0 calls the same",
        "different",
        "such as partition",
        "live 0 messages, shadow 1",
    ] {
        assert!(reason.contains(says), "{reason}");
    }
    let history = handler(&world, &["history", "h"]);
    let last = history.last().expect("an entry");
    assert_eq!(last["change"], "shadow_ended");
    let told = last["reason"].as_str().expect("text");
    assert!(reason.ends_with(told), "{reason}: {told}");
    host.event("shadow_ended");
    assert_eq!(entries(&world, "enriched"), 0);

    // Turned round, each message is emitted once: by the live version.
    handler(&world, &["deploy", "h", enrich, "--now"]);
    host.event("version_live");
    let noop = write(&world, "noop", &version(&process::guest("noop"), 2));
    begins(&world, &mut host, &noop);
    let emitted = world.send_lines(&lines(0..3, "x")).len();
    world.until_acked(PARTITIONS, "g");
    let (counts, _) = found(&world, emitted);
    assert_eq!(counts, [0, 0, emitted, 0]);
    until("all are at their target", || {
        (entries(&world, "enriched") >= emitted).then_some(())
    });
    ends(&world, &mut host);
    host.stop();
    assert_eq!(entries(&world, "enriched"), emitted);
}

fn entries(world: &World, stream: &str) -> usize {
    let mut redis = world.redis();
    redis::cmd("XLEN")
        .arg(format!("seg:{{default/{stream}/0}}:log"))
        .query(&mut redis)
        .expect("a stream")
}

#[test]
fn a_shadow_that_waits_is_cut_off_with_its_message_which_is_handled_later() {
    let world = World::with_stream(1, 1_000);
    // Longer than a test waits for anything.
    let mut first = host(&world, "tally", "[handler.limits]\ndeadline = '10m'");
    let waits = failing::guest_that_waits(world.server.dir());
    begins(&world, &mut first, &waits);
    let sent = world.send_lines(&lines(0..1, "x9")[..1]);
    until("the shadow's call waits", || {
        (!shadow_lines(&first).is_empty()).then_some(())
    });
    first.signal("TERM");
    first.event("draining");
    first.signal("TERM");
    first.ended();
    assert_eq!(first.guest_lines(), []);
    assert_eq!(world.lag_and_pending(1, "g"), [(Some(1), 0)]);

    handler(&world, &["rollback", "h"]);
    let config = world.server.dir().join("segmenter.toml");
    let second = Host::start(&world.url, &["-c", config.to_str().expect("UTF-8")]);
    world.until_acked(1, "g");
    let expected = Judgement {
        handled: 1,
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &second.stop()), expected);
}
