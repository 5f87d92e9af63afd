//! Handlers that fail, and entries that are not ours.

use serde_json::{Value, json};

use segmenter_tests::process::{Host, guest};

use crate::support::World;

fn host(world: &World) -> Host {
    let flaky = guest("flaky");
    Host::start(
        &world.url,
        &[flaky.to_str().unwrap(), "--stream", "s", "--group", "g"],
    )
}

fn message(number: u32, fail: Option<&str>) -> String {
    let attributes = fail.map_or(json!({}), |fail| json!({ "fail": fail }));
    json!({"key": "k", "payload": number.to_string(), "attributes": attributes}).to_string()
}

fn dead_letters(world: &World) -> Vec<Value> {
    world
        .run(&["--format", "json", "dead", "list", "s", "g"])
        .ok()
        .objects()
}

#[test]
fn a_message_that_fails_is_tried_again_in_place_and_what_follows_waits() {
    for (fail, outcome) in [
        ("retry:3", "retry"),
        ("trap:3", "trap"),
        ("loop:2", "deadline"),
        ("memory:2", "memory"),
    ] {
        let world = World::with_stream(1, 100);
        let ids = world.send_lines(&[message(1, None), message(2, Some(fail)), message(3, None)]);
        let host = host(&world);
        world.until_acked(1, "g");
        let attempts: u64 = fail.split_once(':').unwrap().1.parse().unwrap();
        let failed: Vec<Value> = host
            .said()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["event"] == "handler_failed")
            .collect();
        assert_eq!(failed.len() as u64, attempts - 1, "{fail}: {failed:?}");
        for (line, attempt) in failed.iter().zip(1..) {
            assert_eq!(line["outcome"], outcome, "{fail}: {line}");
            assert_eq!(
                line["id"].as_str(),
                Some(ids[1].1.as_str()),
                "{fail}: {line}"
            );
            assert_eq!(line["attempt"], attempt, "{fail}: {line}");
        }
        let handled: Vec<_> = host
            .stop()
            .into_iter()
            .filter(|line| line.text.starts_with("key="))
            .map(|line| (line.id, line.attempt))
            .collect();
        let expected: Vec<_> = ids
            .iter()
            .map(|(_, id)| id.clone())
            .zip([1, attempts, 1])
            .collect();
        assert_eq!(handled, expected, "{fail}");
        assert_eq!(dead_letters(&world), Vec::<Value>::new(), "{fail}");
    }
}

#[test]
fn the_reason_of_a_trap_carries_what_the_guest_wrote_to_stderr() {
    let world = World::with_stream(1, 100);
    world.send_lines(&[message(1, Some("trap:2"))]);
    let mut host = host(&world);
    let failed = host.event("handler_failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(
        reason.contains("about to trap") && reason.contains("unreachable"),
        "{reason}"
    );
    world.until_acked(1, "g");
    host.stop();
}

#[test]
fn a_reject_becomes_a_dead_letter_that_keeps_the_message_whole() {
    let world = World::with_stream(1, 100);
    let ids = world.send_lines(&[message(1, Some("reject")), message(2, None)]);
    let host = host(&world);
    world.until_acked(1, "g");
    host.stop();
    let dead = dead_letters(&world);
    assert_eq!(dead.len(), 1, "{dead:?}");
    let letter = &dead[0];
    assert_eq!(
        (letter["id"].as_str(), &letter["attempts"]),
        (Some(ids[0].1.as_str()), &json!(1)),
        "{letter}"
    );
    assert!(!letter["reason"].as_str().unwrap().is_empty());
    assert_eq!(letter["version"].as_str().unwrap().len(), 64, "{letter}");
    let args = ["--format", "json", "dead", "show", "s", "g", &ids[0].1];
    let shown = world.run(&args).ok().objects();
    assert_eq!(shown[0]["key"], "k", "{shown:?}");
    assert_eq!(shown[0]["payload"], "1", "{shown:?}");
    assert_eq!(shown[0]["attributes"]["fail"], "reject", "{shown:?}");
}

#[test]
fn an_entry_from_elsewhere_becomes_a_dead_letter_and_never_a_crash() {
    let world = World::with_stream(1, 100);
    let mut redis = world.redis();
    let log = "seg:{default/s/0}:log";
    let foreign: [&[&str]; 5] = [
        &["temperature", "21"],
        &["k", "key", "p", "x", "temperature", "21"],
        &["k", "key", "p", "x", "p", "y"],
        &["p", "payload alone"],
        &["k", "key", "p", "x", "@", "attribute without a name"],
    ];
    for fields in foreign {
        let _: String = redis::cmd("XADD")
            .arg(log)
            .arg("*")
            .arg(fields)
            .query(&mut redis)
            .unwrap();
    }
    let bytes: [&[u8]; 4] = [b"k", b"\xff\xfe", b"p", b"key is no UTF-8"];
    let _: String = redis::cmd("XADD")
        .arg(log)
        .arg("*")
        .arg(&bytes)
        .query(&mut redis)
        .unwrap();
    let ours = world.send_lines(&[message(1, None)]);
    let host = host(&world);
    world.until_acked(1, "g");
    let handled: Vec<_> = host
        .stop()
        .into_iter()
        .filter(|l| l.text.starts_with("key="))
        .collect();
    assert_eq!(handled.len(), 1);
    assert_eq!(handled[0].message(), ours[0]);
    let dead = dead_letters(&world);
    assert_eq!(dead.len(), 6, "{dead:?}");
    for (letter, expected) in dead.iter().zip([
        "no field 'k'",
        "\"temperature\"",
        "\"p\" twice",
        "no field 'k'",
        "\"@\"",
        "not valid UTF-8",
    ]) {
        assert!(
            letter["reason"].as_str().unwrap().contains(expected),
            "{letter}: {expected}"
        );
    }
}

#[test]
fn a_stream_without_dead_letters_lists_none_and_an_unknown_one_is_an_error() {
    let world = World::with_stream(1, 100);
    let listed = world
        .run(&["--format", "json", "dead", "list", "s", "nobody"])
        .ok();
    assert_eq!(listed.stdout, "");
    let unknown = world.run(&["dead", "list", "nothing", "g"]);
    assert_eq!(unknown.code(), Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("nothing"), "{unknown:?}");
}

/// The ancestor starves for good when a fifth of the keys always fails.
#[test]
fn a_fifth_of_the_keys_always_fails_and_everything_drains() {
    poisoned(|key| key % 5 == 0);
}

#[test]
fn one_bad_key_does_not_starve_the_others() {
    poisoned(|key| key == 3);
}

/// 600 messages over 40 keys in 4 partitions; those of some keys never succeed.
fn poisoned(bad: impl Fn(usize) -> bool) {
    let world = World::with_stream(4, 1_000);
    let line = |n: usize| {
        let key = n % 40;
        let fail = if bad(key) {
            json!({"fail": "retry"})
        } else {
            json!({})
        };
        json!({"key": format!("key-{key}"), "payload": n.to_string(), "attributes": fail})
            .to_string()
    };
    let sent = world.send_lines(&(0..600).map(line).collect::<Vec<_>>());
    let host = host(&world);
    world.until_acked(4, "g");
    let dead: Vec<_> = dead_letters(&world)
        .iter()
        .map(|letter| {
            assert_eq!(letter["attempts"], 5, "{letter}");
            (
                letter["partition"].as_u64().unwrap(),
                letter["id"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let handled: Vec<_> = host
        .stop()
        .into_iter()
        .filter(|line| line.text.starts_with("key="))
        .map(|line| line.message())
        .collect();
    let count = |all: &[(u64, String)], wanted: bool| {
        let of =
            |(n, message): (usize, &(u64, String))| all.contains(message) && bad(n % 40) == wanted;
        sent.iter().enumerate().filter(|(n, m)| of((*n, m))).count()
    };
    let bad_ones = (0..600).filter(|n| bad(n % 40)).count();
    assert_eq!((dead.len(), count(&dead, true)), (bad_ones, bad_ones));
    assert_eq!(
        (handled.len(), count(&handled, false)),
        (600 - bad_ones, 600 - bad_ones)
    );
}

#[test]
fn attempts_are_counted_across_a_kill_and_a_message_that_is_given_up_lets_the_next_go_on() {
    let world = World::with_stream(1, 100);
    world.send_lines(&[message(1, Some("retry")), message(2, None)]);
    let flaky = guest("flaky");
    let path = world.server.dir().join("segmenter.toml");
    let text = format!(
        "[[handler]]\nname = \"flaky\"\nstream = \"s\"\ngroup = \"g\"\nmodule = \"{}\"\nsession_timeout = \"1s\"\n[handler.retry]\nattempts = 4\n",
        flaky.display()
    );
    std::fs::write(&path, text).expect("a file");
    let args = ["-c", path.to_str().unwrap()];
    let mut first = Host::start(&world.url, &args);
    let failed = first.event("handler_failed");
    assert_eq!(failed["attempt"], 1);
    first.kill();
    let host = Host::start(&world.url, &args);
    world.until_acked(1, "g");
    let dead = dead_letters(&world);
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["attempts"], 4);
    let attempts: Vec<u64> = host
        .said()
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["event"] == "handler_failed")
        .map(|line| line["attempt"].as_u64().unwrap())
        .collect();
    assert!(attempts[0] > 1 && attempts.len() < 4, "{attempts:?}");
    assert_eq!(host.stop().len(), 1, "the next message was handled");
}

#[test]
fn a_handler_that_prefers_order_halts_and_an_operator_resumes_or_skips() {
    let world = World::with_stream(1, 100);
    let ids = world.send_lines(&[
        message(1, None),
        message(2, Some("retry")),
        message(3, None),
    ]);
    let flaky = guest("flaky");
    let path = world.server.dir().join("segmenter.toml");
    let text = format!(
        "[[handler]]\nname = \"flaky\"\nstream = \"s\"\ngroup = \"g\"\nmodule = \"{}\"\n[handler.retry]\nattempts = 2\nexhausted = \"halt\"\n",
        flaky.display()
    );
    std::fs::write(&path, text).expect("a file");
    let mut host = Host::start(&world.url, &["-c", path.to_str().unwrap()]);
    let halted = host.event("partition_halted");
    assert!(halted.to_string().contains("failed 2 times"), "{halted}");
    world.run(&["group", "resume", "s", "g"]).ok();
    host.event("partition_resumed");
    host.event("partition_halted");
    world.run(&["group", "resume", "s", "g", "--skip"]).ok();
    world.until_acked(1, "g");
    let dead = dead_letters(&world);
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["id"].as_str(), Some(ids[1].1.as_str()));
    let handled: Vec<_> = host.stop().into_iter().map(|line| line.message()).collect();
    assert_eq!(handled, [ids[0].clone(), ids[2].clone()]);
}
