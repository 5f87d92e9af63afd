//! The producers of host/docs/producers: the vectors, and messages on a real server, as the user that hosts are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::entries;
use crate::support::World;

const PARTITIONS: u32 = 4;
const CAPACITY: u64 = 30;
const KEYS: &[&str] = &[
    "",
    "a",
    "order-1",
    "ключ",
    "订单",
    "طلب",
    "👩‍👩‍👧",
    "seven b",
    "eight by",
    "nine byte",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// How a producer is called.
struct Producer {
    program: Vec<String>,
}

impl Producer {
    fn new(program: &str, file: &str) -> Producer {
        let file = root().join("host/docs/producers").join(file);
        let file = file.to_str().expect("UTF-8").to_owned();
        let words = program.split(' ').map(str::to_owned);
        Producer {
            program: words.chain([file]).collect(),
        }
    }

    fn call(&self, url: &str, args: &[&str], payload: &[u8]) -> Output {
        let mut child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(args)
            .env("SEGMENTER_REDIS", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.program));
        // It may refuse before it has read everything.
        let _ = child.stdin.take().expect("piped").write_all(payload);
        child.wait_with_output().expect("it ends")
    }

    fn sends(&self, url: &str, args: &[&str], payload: &[u8]) -> String {
        let output = self.call(url, args, payload);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }

    fn refuses(&self, url: &str, args: &[&str], payload: &[u8], says: &str) {
        let output = self.call(url, args, payload);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(said.contains(says), "{args:?}: {said}");
    }

    fn knows_the_vectors(&self) {
        let vectors = root().join("tests/vectors/partition.json");
        let vectors = vectors.to_str().expect("UTF-8");
        let output = self.call("", &["vectors", vectors], b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// And one that is wrong is told.
    fn tells_a_wrong_vector(&self) {
        let place = tempfile::tempdir().expect("a folder");
        let wrong = place.path().join("wrong.json");
        let vector =
            r#"[{"key": "a", "hash": "3009532316786026828", "partitions": 1, "partition": 0}]"#;
        std::fs::write(&wrong, vector).expect("written");
        let output = self.call("", &["vectors", wrong.to_str().expect("UTF-8")], b"");
        assert!(!output.status.success());
    }

    /// What it appends lies where `send` would have put it, byte for byte, and is handled as a message.
    fn appends(&self) {
        let world = World::with_stream(PARTITIONS, CAPACITY);
        let all: Vec<u8> = (0..=255).collect();
        for key in KEYS {
            let attributes = ["ключ=🍎 = 2", "empty="];
            let mut args = vec!["default/s", key];
            args.extend(attributes);
            let id = self.sends(&world.url, &args, &all);
            let line = serde_json::json!({"key": key, "payload": "behind it"}).to_string();
            let (partition, behind) = world.send_lines(&[line]).remove(0);
            assert!(id < behind, "{id} {behind}");
            let found = entries(&world, "s", PARTITIONS)
                .remove(*key)
                .expect("entries of the key");
            assert_eq!(
                found.len(),
                2,
                "{key:?}: both, which are in one partition or not"
            );
            let [ours, _] = &found[..] else {
                unreachable!()
            };
            assert!(ours["p"] == all, "{key:?}");
            assert_eq!(ours["@ключ"], "🍎 = 2".as_bytes());
            assert_eq!(ours["@empty"], b"");
            assert_eq!(ours.len(), 4, "{ours:?}");
            let tail = format!("seg:{{default/s/{partition}}}:log");
            let there: Vec<redis::Value> = redis::cmd("XRANGE")
                .arg(tail)
                .arg(&id)
                .arg(&id)
                .query(&mut world.redis())
                .expect("entries");
            assert_eq!(
                there.len(),
                1,
                "{key:?} lies in partition {partition}, where send puts it"
            );
        }
        self.sends(
            &world.url,
            &["default/s", "largest"],
            &vec![0xff; 1_048_576],
        );
        self.refuses(
            &world.url,
            &["default/s", "k"],
            &vec![0; 1_048_577],
            "more than 1048576 bytes",
        );
        self.refuses(&world.url, &["default/nowhere", "k"], b"", "takes nothing");

        // Acked whole by a handler: all of them are messages.
        let module = segmenter_tests::process::guest("noop");
        let args = [
            module.to_str().expect("UTF-8"),
            "--stream",
            "s",
            "--group",
            "g",
        ];
        let host = segmenter_tests::process::Host::start(&world.url, &args);
        crate::until_done(&world, "s", PARTITIONS, "g");
        host.stop();
        let letters: Vec<Value> = crate::letters(&world, "s", "g");
        assert!(letters.is_empty(), "{letters:?}");

        world.create("small", 1, 2);
        for _ in 0..2 {
            self.sends(&world.url, &["default/small", "k"], b"x");
        }
        self.refuses(&world.url, &["default/small", "k"], b"x", "full");
    }
}

#[test]
fn python() {
    let producer = Producer::new("python3", "producer.py");
    producer.knows_the_vectors();
    producer.tells_a_wrong_vector();
    producer.appends();
}

#[test]
fn javascript() {
    let producer = Producer::new("node", "producer.mjs");
    producer.knows_the_vectors();
    producer.tells_a_wrong_vector();
    producer.appends();
}

#[test]
fn go_where_it_is_installed() {
    let go = Command::new("go")
        .arg("version")
        .stdout(Stdio::null())
        .status();
    if !go.is_ok_and(|status| status.success()) {
        eprintln!("there is no go on the PATH: its producer was not tried");
        return;
    }
    Producer::new("go run", "producer.go").appends();
}

/// What host/docs/producers.md says of them.
#[test]
fn producers_are_short() {
    for (file, lines) in [
        ("producer.py", 60),
        ("producer.mjs", 60),
        ("producer.go", 93),
    ] {
        let text =
            std::fs::read_to_string(root().join("host/docs/producers").join(file)).expect(file);
        assert!(
            text.lines().count() <= lines,
            "{file}: {}",
            text.lines().count()
        );
    }
}
