//! The guest examples that keep state and emit, through crashes; and what is not granted.

use std::collections::BTreeMap;

use segmenter_tests::process::{Host, guest, until};
use serde_json::json;

use crate::support::World;

const PARTITIONS: u32 = 4;

fn run(world: &World, name: &str, grants: &[&str]) -> Host {
    let module = guest(name);
    let mut args = vec![module.to_str().unwrap(), "--stream", "s", "--group", "g"];
    args.extend(grants.iter().flat_map(|grant| ["--grant", grant]));
    Host::start(&world.url, &args)
}

/// What the handler keeps, as it lies in Redis.
fn state(world: &World) -> BTreeMap<String, String> {
    let mut redis = world.redis();
    let mut all = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let key = format!("seg:{{default/s/{partition}}}:state:g");
        let kept: BTreeMap<String, String> = redis::cmd("HGETALL")
            .arg(key)
            .query(&mut redis)
            .expect("a hash");
        let named = |(name, value): (String, String)| {
            let name = name.strip_prefix('=')?;
            Some((name.to_owned(), value))
        };
        all.extend(kept.into_iter().filter_map(named));
    }
    all
}

fn totals(world: &World) -> BTreeMap<String, u64> {
    let total = |(name, value): (String, String)| {
        let key = name.strip_prefix("total ")?;
        Some((key.to_owned(), value.parse().expect("a number")))
    };
    state(world).into_iter().filter_map(total).collect()
}

/// Each (key, id) twice in a row and once more at the end: what a producer does that hears no answer.
fn resent(keys: usize, ids: usize) -> Vec<String> {
    let line = |id: usize, key: usize| {
        json!({"key": format!("key-{key}"), "payload": "x", "attributes": {"id": id.to_string()}})
            .to_string()
    };
    let pairs = || (0..ids).flat_map(|id| (0..keys).map(move |key| (id, key)));
    let twice = pairs().flat_map(|(id, key)| [line(id, key), line(id, key)]);
    twice
        .chain(pairs().map(|(id, key)| line(id, key)))
        .collect()
}

#[test]
fn dedup_counts_each_id_once_through_kills() {
    const KEYS: usize = 20;
    const IDS: usize = 100;
    let world = World::with_stream(PARTITIONS, 10_000);
    let lines = resent(KEYS, IDS);
    world.send_lines(&lines);
    let expected: BTreeMap<String, u64> = (0..KEYS)
        .map(|key| (format!("key-{key}"), IDS as u64))
        .collect();
    let mut handled = 0;
    for kills in 1..=3 {
        let host = run(&world, "dedup", &["state"]);
        until("a part is handled", || {
            let lines = handled + host.guest_lines().len();
            (lines > KEYS * IDS * 3 * kills / 5).then_some(())
        });
        handled += host.kill().len();
    }
    let host = run(&world, "dedup", &["state"]);
    world.until_acked(PARTITIONS, "g");
    assert_eq!(totals(&world), expected);
    host.stop();

    // Another host knows what the first ones counted.
    world.send_lines(&lines[..KEYS]);
    let host = run(&world, "dedup", &["state"]);
    world.until_acked(PARTITIONS, "g");
    let again = host.stop();
    assert_eq!(again.len(), KEYS);
    assert!(again.iter().all(|line| line.text.contains("again=")));
    assert_eq!(totals(&world), expected);
}

#[test]
fn without_an_id_every_entry_counts_once_also_when_it_comes_again() {
    let world = World::with_stream(PARTITIONS, 1_000);
    world.send_numbered(400, 10);
    let host = run(&world, "dedup", &["state"]);
    world.until_acked(PARTITIONS, "g");
    host.stop();
    let all: BTreeMap<String, u64> = (0..10).map(|key| (format!("key-{key}"), 40)).collect();
    assert_eq!(totals(&world), all);
    // The same entries a second time: they are known by their ids, as long as state is kept.
    let seek = ["group", "seek", "s", "g", "--to", "start"];
    world.run(&seek).ok();
    let host = run(&world, "dedup", &["state"]);
    world.until_acked(PARTITIONS, "g");
    host.stop();
    assert_eq!(totals(&world), all);
}

type Fields = BTreeMap<String, String>;

/// Waits until every emitted message is at its target: no outbox holds any.
fn until_relayed(world: &World) {
    let mut redis = world.redis();
    until("the outboxes are empty", || {
        let waiting = |partition: u32| -> u64 {
            redis::cmd("XLEN")
                .arg(format!("seg:{{default/s/{partition}}}:outbox:g"))
                .query(&mut redis)
                .expect("XLEN")
        };
        let all: u64 = (0..PARTITIONS).map(waiting).sum();
        (all == 0).then_some(())
    });
}

/// Emitted messages at their target, by key.
fn at_target(world: &World, target: &str) -> BTreeMap<String, Vec<Fields>> {
    let mut redis = world.redis();
    let mut by_key: BTreeMap<String, Vec<Fields>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
            .arg(format!("seg:{{default/{target}/{partition}}}:log"))
            .arg("-")
            .arg("+")
            .query(&mut redis)
            .expect("entries");
        for (_, fields) in entries {
            let fields: Fields = fields
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect();
            by_key.entry(fields["k"].clone()).or_default().push(fields);
        }
    }
    by_key
}

#[test]
fn enrich_emits_each_message_once_and_in_order_through_a_kill() {
    const MESSAGES: usize = 2_000;
    const KEYS: usize = 20;
    let world = World::with_stream(PARTITIONS, 10_000);
    world.create("enriched", PARTITIONS, 10_000);
    world.send_numbered(MESSAGES, KEYS);
    let host = run(&world, "enrich", &["emit=enriched"]);
    until("a part is acked", || {
        let lag = world.lag_and_pending(PARTITIONS, "g");
        let lag: u64 = lag.iter().filter_map(|(lag, _)| *lag).sum();
        (lag < MESSAGES as u64 * 3 / 4).then_some(())
    });
    host.kill();
    let host = run(&world, "enrich", &["emit=enriched"]);
    world.until_acked(PARTITIONS, "g");
    until_relayed(&world);
    host.stop();

    let by_key = at_target(&world, "enriched");
    let mut times: BTreeMap<_, u32> = BTreeMap::new();
    for message in by_key.values().flatten() {
        let source = (&message["@source"], &message["@source-id"]);
        *times.entry(source).or_default() += 1;
    }
    assert!(times.values().all(|n| *n == 1), "emitted twice: {times:?}");
    assert_eq!(by_key.len(), KEYS);
    for (key, messages) in &by_key {
        let payloads: Vec<_> = messages.iter().map(|m| m["p"].clone()).collect();
        let expected: Vec<_> = (0..MESSAGES / KEYS).map(|n| format!("{key}:{n}")).collect();
        assert_eq!(payloads, expected, "{key}");
        for message in messages {
            assert_eq!(message["@bytes"], message["p"].len().to_string());
            assert!(message["@source"].starts_with("s/"), "{message:?}");
        }
    }
}

#[test]
fn number_gives_each_message_its_number_once_through_kills() {
    const MESSAGES: usize = 2_000;
    const KEYS: usize = 20;
    let world = World::with_stream(PARTITIONS, 10_000);
    world.create("numbered", PARTITIONS, 10_000);
    world.send_numbered(MESSAGES, KEYS);
    let grants = ["state", "emit=numbered"];
    let mut handled = 0;
    for kills in 1..=3 {
        let host = run(&world, "number", &grants);
        until("a part is handled", || {
            let lines = handled + host.guest_lines().len();
            (lines > MESSAGES * kills / 5).then_some(())
        });
        handled += host.kill().len();
    }
    let host = run(&world, "number", &grants);
    world.until_acked(PARTITIONS, "g");
    until_relayed(&world);
    host.stop();

    let counts = state(&world).into_values();
    let counts: Vec<_> = counts.map(|count| count.parse()).collect();
    assert_eq!(counts, vec![Ok(MESSAGES / KEYS); KEYS]);
    let by_key = at_target(&world, "numbered");
    assert_eq!(by_key.len(), KEYS);
    for (key, messages) in by_key {
        let found = messages
            .iter()
            .map(|m| (m["p"].clone(), m["@number"].clone()));
        let expected = (0..MESSAGES / KEYS).map(|n| (format!("{key}:{n}"), (n + 1).to_string()));
        assert!(found.eq(expected), "{key}: {messages:?}");
    }
}

#[test]
fn a_target_that_does_not_exist_is_told_when_the_host_starts() {
    let world = World::with_stream(1, 10);
    let enrich = guest("enrich");
    let refused = world.run(&[
        "run",
        enrich.to_str().unwrap(),
        "--stream",
        "s",
        "--group",
        "g",
        "--grant",
        "emit=nowhere",
    ]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("default/nowhere, which does not exist"),
        "{refused:?}"
    );
}

#[test]
fn what_is_not_granted_is_refused_before_redis_is_asked() {
    let world = World::with_stream(1, 10);
    let dedup = guest("dedup");
    let refused = world.run(&[
        "run",
        dedup.to_str().unwrap(),
        "--stream",
        "s",
        "--group",
        "g",
    ]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    for says in [
        "segmenter:handler/state@0.1.0",
        "state = true",
        "--grant state",
    ] {
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    // The same by file, where `--check` finds it, and a folder that is not there.
    let checked = |grants: &str| {
        let path = world.server.dir().join("granted.toml");
        let text = format!(
            "[[handler]]\nname = \"h\"\nstream = \"s\"\ngroup = \"g\"\nmodule = {dedup:?}\n[handler.grants]\n{grants}\n"
        );
        std::fs::write(&path, text).expect("the folder is there");
        world.run(&["run", "-c", path.to_str().unwrap(), "--check"])
    };
    checked("state = true").ok();
    for (grants, code, says) in [
        ("emit = [\"x\"]", 1, "state = true"),
        (
            "state = true\nfiles = [{ host = \"gone\", guest = \"/data\" }]",
            1,
            "gone",
        ),
        ("state = true\nhttp = [\"example.com\"]", 2, "https://HOST"),
    ] {
        let refused = checked(grants);
        assert_eq!(refused.code(), Some(code), "{grants}: {refused:?}");
        assert!(
            refused.stderr.contains(says),
            "{grants}: {}",
            refused.stderr
        );
    }
}
