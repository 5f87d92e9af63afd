//! One handler in each language (tests/guests/echo): bytes, keys and failures.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use segmenter_tests::process::{Host, guest};
use serde_json::json;

use crate::support::World;
use crate::{Entry, entries, letters, until_done};

const PARTITIONS: u32 = 4;
/// Latin, Cyrillic, Chinese, Arabic, emoji of one and of several code points, none, and what is no letter.
const KEYS: &[&str] = &[
    "order-1",
    "заказ",
    "订单",
    "طلب",
    "🍎",
    "👩‍👩‍👧",
    "",
    "a b\t\"\\\u{0}\u{7f}é\u{301}",
];
/// The largest that a stream takes unless it says otherwise.
const LARGEST: usize = 1_048_576;

/// Every byte value, nothing, one byte, what looks like text in several ways, and the largest.
fn payloads() -> Vec<Vec<u8>> {
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    vec![
        (0..=255).collect(),
        Vec::new(),
        vec![0],
        "\u{feff}line\r\nline\n\0é\u{1f34e}".into(),
        (0..LARGEST).map(|_| random()).collect(),
    ]
}

fn run(world: &World, language: &str) -> Host {
    let module = guest(&format!("echo-{language}"));
    let module = module.to_str().expect("UTF-8");
    let args = [
        module, "--stream", "s", "--group", "g", "--grant", "emit=out",
    ];
    Host::start(&world.url, &args)
}

fn line(key: &str, payload: &[u8], attributes: &[(&str, &str)]) -> String {
    let attributes: BTreeMap<_, _> = attributes.iter().copied().collect();
    json!({"key": key, "payload_base64": STANDARD.encode(payload), "attributes": attributes})
        .to_string()
}

fn goes_through(language: &str) {
    let world = World::with_stream(PARTITIONS, 10_000);
    world.create("out", PARTITIONS, 10_000);
    let host = run(&world, language);
    bytes_and_keys(&world);
    failures(&world, &host);
    host.stop();
}

/// What is emitted is what came in: key, payload, attributes, and the order of each key.
fn bytes_and_keys(world: &World) {
    let payloads = payloads();
    let mut lines = Vec::new();
    let mut expected: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for (at, key) in KEYS.iter().enumerate() {
        for payload in &payloads {
            // The largest once, else this is all that the test does.
            if at > 0 && payload.len() == LARGEST {
                continue;
            }
            let attributes = [("to", "out"), ("ключ", key), ("empty", "")];
            lines.push(line(key, payload, &attributes));
            let mut entry: Entry = attributes
                .iter()
                .map(|(name, value)| (format!("@{name}"), value.as_bytes().to_vec()))
                .collect();
            entry.insert("k".to_owned(), key.as_bytes().to_vec());
            entry.insert("p".to_owned(), payload.clone());
            expected.entry((*key).to_owned()).or_default().push(entry);
        }
    }
    world.send_lines(&lines);
    until_done(world, "s", PARTITIONS, "g");
    let mut found = entries(world, "out", PARTITIONS);
    for entry in found.values_mut().flatten() {
        // Who sent it, for the target.
        entry.retain(|name, _| matches!(name.as_str(), "k" | "p") || name.starts_with('@'));
    }
    for (key, expected) in &expected {
        let found = found
            .get(key)
            .unwrap_or_else(|| panic!("nothing came for {key:?}"));
        assert_eq!(found.len(), expected.len(), "{key:?}");
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                found == expected,
                "message {at} of {key:?} came out differently"
            );
        }
    }
    assert_eq!(found.len(), expected.len());
}

/// Below the third attempt it fails as asked: only a reject is a dead letter, and what waits behind comes after.
fn failures(world: &World, host: &Host) {
    let kinds = ["retry", "reject", "trap"];
    let lines = kinds.map(|kind| line(kind, b"x", &[("fail", kind), ("to", "out")]));
    world.send_lines(&lines);
    until_done(world, "s", PARTITIONS, "g");

    let out = entries(world, "out", PARTITIONS);
    assert_eq!(
        kinds.map(|kind| out.get(kind).map_or(0, Vec::len)),
        [1, 0, 1],
        "what fails for a while is emitted once in the end, and what is rejected never"
    );
    let letters = letters(world, "s", "g");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["key"], "reject");
    assert_eq!(letters[0]["reason"], "asked to");
    assert_eq!(letters[0]["attempts"], 1);

    let failed: Vec<serde_json::Value> = host
        .said()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["event"] == "handler_failed")
        .collect();
    let reasons = |key: &str| -> Vec<String> {
        let of_key = failed.iter().filter(|line| line["key"] == key);
        of_key
            .map(|line| line["reason"].as_str().expect("a reason").to_owned())
            .collect()
    };
    let (retried, trapped) = (reasons("retry"), reasons("trap"));
    assert_eq!(retried.len(), 2, "{failed:?}");
    assert!(
        retried.iter().all(|why| why.contains("asked to")),
        "{retried:?}"
    );
    assert!(
        !retried.iter().any(|why| why.contains("trap")),
        "{retried:?}"
    );
    assert_eq!(trapped.len(), 2, "{failed:?}");
    assert!(
        trapped.iter().all(|why| why.contains("trap")),
        "{trapped:?}"
    );
}

#[test]
fn rust() {
    goes_through("rust");
}

#[test]
fn c() {
    goes_through("c");
}

#[test]
fn zig() {
    goes_through("zig");
}

#[test]
fn javascript() {
    goes_through("js");
}

#[test]
fn python() {
    goes_through("python");
}
