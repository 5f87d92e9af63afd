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
