//! What every end-to-end test needs: a server of its own, a stream, messages, a look into Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use segmenter_tests::process::{self, GuestLine};
use segmenter_tests::server::{Options, Server};

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) url: String,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> World {
        let server = Server::start(options);
        let url = server.url();
        World { server, url }
    }

    /// With a stream `s` of so many partitions.
    pub(crate) fn with_stream(partitions: u32, capacity: u64) -> World {
        let world = World::new();
        world.create("s", partitions, capacity);
        world
    }

    pub(crate) fn create(&self, stream: &str, partitions: u32, capacity: u64) {
        let (partitions, capacity) = (partitions.to_string(), capacity.to_string());
        let args = [
            "stream",
            "create",
            stream,
            "--partitions",
            &partitions,
            "--capacity",
            &capacity,
        ];
        process::segmenter(&self.url, &args).ok();
    }

    /// The path of a configuration that runs a guest for stream `s` as group `g`.
    pub(crate) fn config(&self, guest: &str, session: Duration) -> String {
        self.config_with(guest, session, "", "")
    }

    /// The same, with more settings at the top and more limits.
    pub(crate) fn config_with(
        &self,
        guest: &str,
        session: Duration,
        top: &str,
        limits: &str,
    ) -> String {
        let module = process::guest(guest);
        let session = session.as_millis();
        let text = format!(
            r#"namespace = "default"
{top}
[[handler]]
name = "h"
stream = "s"
group = "g"
module = {module:?}
session_timeout = "{session}ms"
[handler.limits]
{limits}
"#
        );
        let path = self.server.dir().join("segmenter.toml");
        std::fs::write(&path, text).expect("the folder is there");
        path.to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn run(&self, args: &[&str]) -> process::Ended {
        process::segmenter(&self.url, args)
    }

    pub(crate) fn redis(&self) -> redis::Connection {
        let client = redis::Client::open(self.server.hands_url()).expect("a URL");
        client.get_connection().expect("the server answers")
    }

    /// Sends lines as JSONL; answers (partition, id) of each in their order.
    pub(crate) fn send_lines(&self, lines: &[String]) -> Vec<(u64, String)> {
        let input = lines.join("\n");
        let args = ["--format", "json", "send", "s", "--jsonl", "-"];
        let sent = process::with_input(&self.url, &args, input.as_bytes()).ok();
        let ids: Vec<_> = sent
            .objects()
            .iter()
            .map(|o| {
                let partition = o["partition"].as_u64().expect("partition");
                (partition, o["id"].as_str().expect("id").to_owned())
            })
            .collect();
        assert_eq!(ids.len(), lines.len(), "one answer per line");
        ids
    }

    /// `n` messages over `keys` keys; the payload is `KEY:NUMBER` with the number counting per key.
    pub(crate) fn send_numbered(&self, n: usize, keys: usize) -> Vec<(u64, String)> {
        let line = |i: usize| {
            let (key, number) = (i % keys, i / keys);
            format!(r#"{{"key":"key-{key}","payload":"key-{key}:{number}"}}"#)
        };
        self.send_lines(&(0..n).map(line).collect::<Vec<_>>())
    }

    /// lag and pending of the group in every partition, as `XINFO GROUPS` says.
    pub(crate) fn lag_and_pending(&self, partitions: u32, group: &str) -> Vec<(Option<u64>, u64)> {
        self.lag_and_pending_of("s", partitions, group)
    }

    /// The same of another stream.
    pub(crate) fn lag_and_pending_of(
        &self,
        stream: &str,
        partitions: u32,
        group: &str,
    ) -> Vec<(Option<u64>, u64)> {
        let mut connection = self.redis();
        let of = |p: u32| {
            let key = format!("seg:{{default/{stream}/{p}}}:log");
            let groups: Vec<BTreeMap<String, redis::Value>> = redis::cmd("XINFO")
                .arg("GROUPS")
                .arg(key)
                .query(&mut connection)
                .expect("XINFO");
            let name = |g: &BTreeMap<String, redis::Value>| text(&g["name"]);
            let group = groups
                .iter()
                .find(|g| name(g) == group)
                .expect("the group exists");
            (
                number(&group["lag"]),
                number(&group["pending"]).expect("a number"),
            )
        };
        (0..partitions).map(of).collect()
    }

    /// Waits until every partition has an owner and so many members own so many each, in rising order.
    pub(crate) fn until_shared(&self, shares: &[usize]) {
        process::until(&format!("members own {shares:?} partitions"), || {
            let args = ["--format", "json", "group", "describe", "s", "g"];
            let described = self.run(&args).ok();
            let mut owned: BTreeMap<String, usize> = BTreeMap::new();
            for partition in described.objects()[0]["partitions"].as_array()? {
                *owned
                    .entry(partition["owner"].as_str()?.to_owned())
                    .or_default() += 1;
            }
            let mut found: Vec<usize> = owned.into_values().collect();
            found.sort();
            (found == shares).then_some(())
        });
    }

    /// Waits until everything is acked: lag 0 and pending 0 in every partition.
    pub(crate) fn until_acked(&self, partitions: u32, group: &str) {
        process::until("all partitions have lag 0 and pending 0", || {
            let all = self.lag_and_pending(partitions, group);
            all.iter().all(|row| *row == (Some(0), 0)).then_some(())
        });
    }
}

fn text(value: &redis::Value) -> String {
    redis::from_redis_value(value.clone()).expect("text")
}

fn number(value: &redis::Value) -> Option<u64> {
    redis::from_redis_value(value.clone()).ok()
}

/// What a record of guest lines says about messages that were sent in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Distinct messages with a line.
    pub(crate) handled: usize,
    /// Further lines of them.
    pub(crate) duplicates: usize,
    /// First handled after a later one of its partition.
    pub(crate) out_of_order: usize,
    /// Sent and never handled.
    pub(crate) lost: usize,
}

/// Order within a partition holds order within each of its keys.
pub(crate) fn judge(sent: &[(u64, String)], lines: &[GuestLine]) -> Judgement {
    let order: BTreeMap<_, usize> = sent.iter().cloned().zip(0..).collect();
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<u64, usize> = BTreeMap::new();
    let mut judgement = Judgement::default();
    for line in lines {
        let message = line.message();
        let position = *order
            .get(&message)
            .unwrap_or_else(|| panic!("{message:?} was never sent"));
        if !seen.insert(message) {
            judgement.duplicates += 1;
            continue;
        }
        let last = last.entry(line.partition).or_insert(position);
        if position < *last {
            judgement.out_of_order += 1;
        }
        *last = position.max(*last);
    }
    judgement.handled = seen.len();
    judgement.lost = sent.len() - seen.len();
    judgement
}

impl World {
    /// The stream holds exactly so many entries.
    pub(crate) fn holds(&self, entries: u64) {
        let described = self
            .run(&["--format", "json", "stream", "describe", "s"])
            .ok();
        let stream = &described.objects()[0];
        let partitions = stream["partitions"].as_array().expect("partitions");
        let found: u64 = partitions
            .iter()
            .map(|p| p["entries"].as_u64().expect("entries"))
            .sum();
        assert_eq!(found, entries, "{stream}");
    }
}
