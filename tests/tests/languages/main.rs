//! Handlers in every language that a project can be made for: what goes in comes out, failures are told in each
//! language's own idiom, the examples do what their samples say, and from an empty folder to a handled message.
//! Through real processes and a real server; builds need what `cargo xtask guests` fetched.

mod echo;
mod examples;
mod from_empty;
mod producers;
// What is shared with the other end-to-end tests, of which these need a part.
#[path = "../end_to_end/support.rs"]
#[allow(dead_code)]
mod support;

use std::collections::BTreeMap;

use segmenter_tests::process::until;
use serde_json::Value;
use support::World;

/// The fields of an entry, as bytes.
type Entry = BTreeMap<String, Vec<u8>>;

/// What lies in a stream, by key, in the order of each partition.
fn entries(world: &World, stream: &str, partitions: u32) -> BTreeMap<String, Vec<Entry>> {
    let mut redis = world.redis();
    let mut by_key: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for partition in 0..partitions {
        let entries: Vec<(String, Vec<Vec<u8>>)> = redis::cmd("XRANGE")
            .arg(format!("seg:{{default/{stream}/{partition}}}:log"))
            .arg("-")
            .arg("+")
            .query(&mut redis)
            .expect("entries");
        for (_, fields) in entries {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            let entry: Entry = fields
                .chunks(2)
                .map(|pair| (text(&pair[0]), pair[1].clone()))
                .collect();
            by_key.entry(text(&entry["k"])).or_default().push(entry);
        }
    }
    by_key
}

/// Waits until everything is acked and what was emitted is at its target.
fn until_done(world: &World, stream: &str, partitions: u32, group: &str) {
    let mut redis = world.redis();
    until("all is acked and relayed", || {
        let acked = world.lag_and_pending_of(stream, partitions, group);
        let waiting = |partition: u32| -> u64 {
            redis::cmd("XLEN")
                .arg(format!(
                    "seg:{{default/{stream}/{partition}}}:outbox:{group}"
                ))
                .query(&mut redis)
                .expect("XLEN")
        };
        let done = acked.iter().all(|row| *row == (Some(0), 0))
            && (0..partitions).map(waiting).sum::<u64>() == 0;
        done.then_some(())
    });
}

/// Dead letters whole.
fn letters(world: &World, stream: &str, group: &str) -> Vec<Value> {
    let dead = |args: &[&str]| {
        let mut all = vec!["--format", "json", "dead"];
        all.extend(args);
        world.run(&all).ok().objects()
    };
    let ids: Vec<String> = dead(&["list", stream, group])
        .iter()
        .map(|letter| letter["id"].as_str().expect("an id").to_owned())
        .collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let mut show = vec!["show", stream, group];
    show.extend(ids.iter().map(String::as_str));
    dead(&show)
}
