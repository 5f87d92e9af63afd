//! Each example with its own samples and its own configuration through a real server: dead letters, emitted
//! messages and state in Redis are what the samples expect. (`handler test` says the same without one.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use segmenter_tests::process::{Host, guest};
use serde_json::Value;

use crate::support::World;
use crate::{Entry, entries, letters, until_done};

/// Of each stream in the examples' configurations.
const PARTITIONS: u32 = 4;

/// What the samples of an example come to in the end.
#[derive(Default)]
struct Expected {
    /// Reasons, by key.
    rejected: Vec<(String, String)>,
    /// By target and key, in order.
    emitted: BTreeMap<(String, String), Vec<Entry>>,
    state: BTreeMap<String, Option<Vec<u8>>>,
}

fn bytes(value: &Value) -> Vec<u8> {
    match (&value["payload"], &value["payload_base64"]) {
        (Value::String(text), _) => text.clone().into_bytes(),
        (_, Value::String(text)) => STANDARD.decode(text).expect("base64"),
        _ => panic!("{value} has no payload"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

impl Expected {
    fn add(&mut self, key: &Value, expect: &Value) {
        if expect["outcome"] == "reject" {
            self.rejected.push((text(key), text(&expect["reason"])));
        } else {
            assert_eq!(expect["outcome"], "ok", "{expect}");
        }
        for message in expect["emitted"].as_array().into_iter().flatten() {
            let mut entry = Entry::from([("p".to_owned(), bytes(message))]);
            entry.insert("k".to_owned(), text(&message["key"]).into_bytes());
            for (name, value) in message["attributes"].as_object().into_iter().flatten() {
                entry.insert(format!("@{name}"), text(value).into_bytes());
            }
            let place = (text(&message["to"]), text(&message["key"]));
            self.emitted.entry(place).or_default().push(entry);
        }
        for (name, value) in expect["state"].as_object().into_iter().flatten() {
            let value = value.as_str().map(|text| text.as_bytes().to_vec());
            self.state.insert(name.clone(), value);
        }
    }
}

fn folder(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../guest-examples")
        .join(example)
}

fn does_what_its_samples_say(example: &str, stream: &str) {
    let world = World::new();
    // The example's own configuration, but for where the module lies.
    let configuration = std::fs::read_to_string(folder(example).join("segmenter.toml")).unwrap();
    let line = |line: &str| match line.starts_with("module = ") {
        true => format!("module = {:?}", guest(example)),
        false => line.to_owned(),
    };
    let lines: Vec<_> = configuration.lines().map(line).collect();
    let path = world.server.dir().join("segmenter.toml");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let host = Host::start(&world.url, &["-c", path.to_str().unwrap()]);

    let mut expected = Expected::default();
    let mut sent = Vec::new();
    let samples = std::fs::read_to_string(folder(example).join("messages.jsonl")).unwrap();
    for line in samples.lines() {
        let mut sample: Value = serde_json::from_str(line).expect("JSON");
        let expect = sample.as_object_mut().unwrap().remove("expect");
        expected.add(&sample["key"], &expect.expect("an expectation"));
        sent.push(sample.to_string());
    }
    let args = ["--format", "json", "send", stream, "--jsonl", "-"];
    let input = sent.join("\n");
    segmenter_tests::process::with_input(&world.url, &args, input.as_bytes()).ok();
    until_done(&world, stream, PARTITIONS, example);
    host.stop();

    dead_letters_are(&world, stream, example, expected.rejected);
    for target in targets(&expected.emitted) {
        emitted_are(&world, &target, &expected.emitted);
    }
    state_is(&world, stream, example, &expected.state);
}

fn dead_letters_are(world: &World, stream: &str, group: &str, mut expected: Vec<(String, String)>) {
    let letters = letters(world, stream, group);
    assert_eq!(letters.len(), expected.len(), "{letters:?}");
    for letter in &letters {
        let (key, reason) = (text(&letter["key"]), text(&letter["reason"]));
        let of = |(k, r): &(String, String)| *k == key && reason.contains(r);
        let at = expected.iter().position(of);
        expected.remove(at.unwrap_or_else(|| panic!("not expected: {letter}")));
    }
}

fn targets(emitted: &BTreeMap<(String, String), Vec<Entry>>) -> Vec<String> {
    let mut targets: Vec<_> = emitted.keys().map(|(target, _)| target.clone()).collect();
    targets.dedup();
    targets
}

fn emitted_are(world: &World, target: &str, expected: &BTreeMap<(String, String), Vec<Entry>>) {
    let found = entries(world, target, PARTITIONS);
    let of_target = expected.iter().filter(|((to, _), _)| to == target);
    assert_eq!(found.len(), of_target.clone().count(), "keys in {target}");
    for ((_, key), expected) in of_target {
        let found = found
            .get(key)
            .unwrap_or_else(|| panic!("nothing came for {key:?}"));
        assert_eq!(found.len(), expected.len(), "{target} {key:?}");
        for (found, expected) in found.iter().zip(expected) {
            for (name, value) in expected {
                assert_eq!(found.get(name), Some(value), "{target} {key:?}: {name}");
            }
        }
    }
}

fn state_is(
    world: &World,
    stream: &str,
    group: &str,
    expected: &BTreeMap<String, Option<Vec<u8>>>,
) {
    let mut redis = world.redis();
    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let kept: BTreeMap<String, Vec<u8>> = redis::cmd("HGETALL")
            .arg(format!(
                "seg:{{default/{stream}/{partition}}}:state:{group}"
            ))
            .query(&mut redis)
            .expect("a hash");
        found.extend(kept);
    }
    for (name, expected) in expected {
        let found = found.get(&format!("={name}"));
        assert_eq!(found, expected.as_ref(), "state {name:?}");
    }
}

#[test]
fn order_totals() {
    does_what_its_samples_say("order-totals", "orders");
}

#[test]
fn c_lineproto() {
    does_what_its_samples_say("c-lineproto", "lines");
}

#[test]
fn zig_checksum() {
    does_what_its_samples_say("zig-checksum", "uploads");
}

#[test]
fn js_reshape() {
    does_what_its_samples_say("js-reshape", "orders");
}

#[test]
fn py_classify() {
    does_what_its_samples_say("py-classify", "texts");
}
