//! Bad input: each a clear error, a fitting exit status, and nothing lost or hung.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use segmenter_tests::process::{self, Ended, Host, guest};
use segmenter_tests::server::Options;

use crate::support::World;

/// Ended with this status, and said all of this on stderr.
fn refused(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!(ended.code(), Some(code), "{ended:#?}");
    for expected in says {
        assert!(
            ended.stderr.contains(expected),
            "{expected:?} is missing in {ended:#?}"
        );
    }
    let panicked = ended.stderr.contains("panicked") || ended.stderr.contains("RUST_BACKTRACE");
    assert!(!panicked, "{ended:#?}");
}

fn run_args(module: &str) -> [&str; 6] {
    ["run", module, "--stream", "s", "--group", "g"]
}

fn file(world: &World, name: &str, bytes: &[u8]) -> PathBuf {
    let path = world.server.dir().join(name);
    std::fs::write(&path, bytes).expect("the folder of the server is ours");
    path
}

/// Such as `7.0.15`.
fn version(redis: &mut redis::Connection) -> String {
    let info: String = redis::cmd("INFO").arg("server").query(redis).expect("INFO");
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    field("valkey_version:")
        .or(field("redis_version:"))
        .expect("a version")
        .to_owned()
}

#[test]
fn no_redis() {
    let nowhere = "redis://127.0.0.1:1";
    let ended = process::segmenter(nowhere, &["stream", "list"]);
    refused(&ended, 1, &["127.0.0.1:1"]);
    let noop = guest("noop");
    let ended = process::segmenter(nowhere, &run_args(noop.to_str().unwrap()));
    refused(&ended, 1, &["127.0.0.1:1", "within 10 s", "--wait"]);
}

#[test]
fn a_wrong_password_is_named_and_never_printed() {
    let world = World::with(Options {
        password: Some("right-one".to_owned()),
        ..Options::default()
    });
    let port = world.server.port();
    let noop = guest("noop");
    for args in [
        &["stream", "list"][..],
        &run_args(noop.to_str().unwrap())[..],
    ] {
        for (url, says) in [
            (format!("redis://:wrong-one@127.0.0.1:{port}"), "password"),
            (format!("redis://127.0.0.1:{port}"), "password"),
        ] {
            let ended = process::segmenter(&url, args);
            refused(&ended, 1, &[says]);
            let all = format!("{}{}", ended.stdout, ended.stderr);
            assert!(!all.contains("wrong-one"), "{all}");
        }
    }
    let right = format!("redis://:right-one@127.0.0.1:{port}");
    process::segmenter(&right, &["stream", "list"]).ok();
}

#[test]
fn a_redis_that_is_too_old_is_refused_with_its_version() {
    let Some(old) = std::env::var_os("SEGMENTER_TEST_OLD_SERVER") else {
        println!(
            "left out: SEGMENTER_TEST_OLD_SERVER names no Redis 6.2 (`cargo xtask test` fetches one)"
        );
        return;
    };
    let world = World::with(Options {
        binary: Some(old.into()),
        ..Options::default()
    });
    let noop = guest("noop");
    for args in [
        &["stream", "list"][..],
        &run_args(noop.to_str().unwrap())[..],
    ] {
        refused(&world.run(args), 1, &["6.2", "7.0"]);
    }
}

#[test]
fn a_user_without_the_needed_permissions_is_told_which() {
    let world = World::with_stream(1, 10);
    let mut redis = world.redis();
    let _: () = redis::cmd("ACL")
        .arg(&[
            "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-evalsha", "-eval", "-script",
        ])
        .query(&mut redis)
        .expect("ACL SETUSER");
    let url = format!("redis://weak:pw@127.0.0.1:{}", world.server.port());
    let noop = guest("noop");
    let ended = process::segmenter(&url, &run_args(noop.to_str().unwrap()));
    refused(&ended, 1, &["permission"]);
    let ended = process::segmenter(&url, &["send", "s", "--key", "k", "x"]);
    refused(&ended, 1, &["permission"]);
}

#[test]
fn a_command_that_the_user_may_not_call_is_named_before_anything_starts() {
    let world = World::with_stream(1, 10);
    let mut redis = world.redis();
    let version = version(&mut redis);
    let noop = guest("noop");
    for (rule, says) in [
        ("-xgroup", "XGROUP"),
        ("-client|unblock", "CLIENT UNBLOCK"),
        ("-subscribe", "SUBSCRIBE"),
        ("-publish", "PUBLISH"),
        // Channels that no rule names.
        ("resetchannels", "SUBSCRIBE"),
        ("-evalsha", "evalsha"),
        ("-script", "script|exists"),
        ("resetkeys", "access"),
    ] {
        let _: () = redis::cmd("ACL")
            .arg(&[
                "SETUSER", "weak", "reset", "on", ">pw", "~*", "&*", "+@all", rule,
            ])
            .query(&mut redis)
            .expect("ACL SETUSER");
        let url = format!("redis://weak:pw@127.0.0.1:{}", world.server.port());
        let ended = process::segmenter(&url, &run_args(noop.to_str().unwrap()));
        refused(&ended, 1, &["permission", says, "ACL SETUSER", &version]);
        assert_eq!(ended.stderr.matches("permission:").count(), 1, "{ended:#?}");
    }
}

#[test]
fn an_evicting_redis_is_refused() {
    let world = World::with_stream(1, 10);
    let mut redis = world.redis();
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory-policy", "allkeys-lru"])
        .query(&mut redis)
        .unwrap();
    let noop = guest("noop");
    let ended = world.run(&run_args(noop.to_str().unwrap()));
    refused(&ended, 1, &["allkeys-lru", "noeviction"]);
}

#[test]
fn a_stream_that_does_not_exist() {
    let world = World::new();
    let noop = guest("noop");
    for args in [
        &run_args(noop.to_str().unwrap())[..],
        &["send", "s", "--key", "k", "x"],
        &["tail", "s"],
        &["stream", "describe", "s"],
        &["group", "list", "s"],
        &["group", "describe", "s", "g"],
    ] {
        refused(
            &world.run(args),
            1,
            &["default/s", "does not exist", "stream create"],
        );
    }
}

#[test]
fn another_shape_names_both() {
    let world = World::with_stream(4, 100);
    for (partitions, capacity) in [("8", "100"), ("4", "200")] {
        let args = [
            "stream",
            "create",
            "s",
            "--partitions",
            partitions,
            "--capacity",
            capacity,
        ];
        let says = [
            format!("{partitions} partitions of {capacity}"),
            "4 partitions of 100".to_owned(),
        ];
        let says: Vec<_> = says.iter().map(String::as_str).collect();
        refused(&world.run(&args), 1, &says);
    }
    // The same again is no error.
    world.create("s", 4, 100);
    for (partitions, capacity) in [
        ("0", "100"),
        ("5000", "100"),
        ("4", "0"),
        ("4", "2000000000"),
    ] {
        let args = [
            "stream",
            "create",
            "t",
            "--partitions",
            partitions,
            "--capacity",
            capacity,
        ];
        refused(&world.run(&args), 2, &[]);
    }
}

#[test]
fn a_key_that_is_not_utf8() {
    let world = World::with_stream(1, 10);
    let mut command = std::process::Command::new(process::binary());
    let key = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let out = command
        .env("SEGMENTER_REDIS", &world.url)
        .args(["send", "s", "--key"])
        .arg(key)
        .arg("payload")
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("UTF-8") && stderr.contains("byte 4 of 4"),
        "{stderr}"
    );
    let input = b"{\"key\":\"caf\xe9\",\"payload\":\"x\"}\n";
    let ended = process::with_input(&world.url, &["send", "s", "--jsonl", "-"], input);
    refused(&ended, 1, &["line 1", "UTF-8"]);
    world.holds(0);
}

#[test]
fn a_payload_over_the_limit() {
    let world = World::with_stream(1, 10);
    for (bytes, fits) in [(1_048_576, true), (1_048_577, false)] {
        let line = format!(r#"{{"key":"k","payload":"{}"}}"#, "x".repeat(bytes));
        let ended =
            process::with_input(&world.url, &["send", "s", "--jsonl", "-"], line.as_bytes());
        if fits {
            ended.ok();
        } else {
            refused(&ended, 1, &["line 1", "1048577", "1048576"]);
        }
    }
    world.holds(1);
}

#[test]
fn a_key_that_is_no_stream_is_named_and_the_others_are_listed() {
    let world = World::with_stream(1, 10);
    world.create("t", 2, 10);
    let mut redis = world.redis();
    for (key, command) in [("bad", ["SET", "text"]), ("worse", ["SADD", "member"])] {
        let key = format!("seg:{{default/{key}}}:stream");
        let _: redis::Value = redis::cmd(command[0])
            .arg(key)
            .arg(command[1])
            .query(&mut redis)
            .expect("a command");
    }
    let newer = "seg:{default/newer}:stream";
    let _: u64 = redis::cmd("HSET")
        .arg(newer)
        .arg(&["protocol", "9", "uid", "u"])
        .query(&mut redis)
        .expect("HSET");
    let says = [
        "{default/bad}:stream",
        "{default/worse}:stream",
        newer,
        "protocol 9",
    ];
    let ended = world.run(&["--format", "json", "stream", "list"]);
    refused(&ended, 1, &says);
    let listed: Vec<_> = ended
        .objects()
        .iter()
        .map(|o| o["stream"].clone())
        .collect();
    assert_eq!(listed, ["s", "t"]);
    let ended = world.run(&["stream", "list"]);
    refused(&ended, 1, &says);
    assert!(ended.stdout.contains("\ns "), "{ended:#?}");
}

#[test]
fn a_full_partition_refuses_and_says_what_was_sent() {
    let world = World::with_stream(1, 10);
    let lines: Vec<String> = (0..15)
        .map(|i| format!(r#"{{"key":"k","payload":"{i}"}}"#))
        .collect();
    let args = ["send", "s", "--jsonl", "-", "--full-timeout", "200ms"];
    let ended = process::with_input(&world.url, &args, lines.join("\n").as_bytes());
    refused(&ended, 1, &["full", "partition 0", "10 "]);
    world.holds(10);
    let before = Instant::now();
    let ended = world.run(&["send", "s", "--key", "k", "x", "--full-timeout", "200ms"]);
    refused(
        &ended,
        1,
        &["full", "partition 0", "200ms (--full-timeout)"],
    );
    assert!(before.elapsed() >= Duration::from_millis(200), "it waited");
    world.holds(10);
}

#[test]
fn a_full_partition_is_waited_for_and_takes_the_rest_in_order_once_there_is_room() {
    const COUNT: usize = 55;
    let world = World::with_stream(1, 10);
    let lines = |i: usize| format!(r#"{{"key":"k","payload":"{i}"}}"#);
    let lines: Vec<String> = (0..COUNT).map(lines).collect();
    let path = file(&world, "lines.jsonl", lines.join("\n").as_bytes());
    let mut send = std::process::Command::new(process::binary())
        .args(["--redis", &world.url, "send", "s", "--full-timeout", "60s"])
        .arg("--jsonl")
        .arg(path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    process::until("it is full", || {
        let length: u64 = redis::cmd("XLEN")
            .arg("seg:{default/s/0}:log")
            .query(&mut world.redis())
            .expect("XLEN");
        (length == 10).then_some(())
    });
    assert!(send.try_wait().expect("a child").is_none(), "it waits");
    let flaky = guest("flaky");
    let host = Host::start(&world.url, &run_args(flaky.to_str().unwrap())[1..]);
    let status = process::until("everything is sent", || send.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    world.until_acked(1, "g");
    let handled: Vec<_> = host.stop().into_iter().map(|line| line.text).collect();
    let expected: Vec<_> = (0..COUNT).map(|i| format!("key=k payload={i}")).collect();
    assert_eq!(handled, expected);
}

#[test]
fn a_module_that_is_none() {
    let world = World::with_stream(1, 10);
    // The smallest core module, and the smallest component.
    let core = b"\0asm\x01\0\0\0";
    let component = b"\0asm\x0d\0\x01\0";
    for (name, bytes, says) in [
        ("text.wasm", &b"not WebAssembly at all"[..], "WebAssembly"),
        ("empty.wasm", b"", "WebAssembly"),
        ("core.wasm", core, "core module"),
        ("other.wasm", component, "segmenter:handler"),
    ] {
        let path = file(&world, name, bytes);
        let ended = world.run(&run_args(path.to_str().unwrap()));
        refused(&ended, 1, &[says, name]);
        let mut check = vec!["run", path.to_str().unwrap(), "--check", "--stream", "s"];
        check.extend(["--group", "g"]);
        refused(&world.run(&check), 1, &[says, name]);
    }
    let missing = world.server.dir().join("missing.wasm");
    refused(
        &world.run(&run_args(missing.to_str().unwrap())),
        1,
        &["missing.wasm"],
    );
}

#[test]
fn a_module_that_is_not_allowed_does_not_run() {
    let world = World::with_stream(1, 10);
    let noop = guest("noop");
    let checked = |allow: &str| {
        let text = format!(
            "[[handler]]\nname = \"h\"\nstream = \"s\"\ngroup = \"g\"\nmodule = {noop:?}\nallow = [{allow:?}]\n"
        );
        let path = file(&world, "allow.toml", text.as_bytes());
        world.run(&["run", "-c", path.to_str().unwrap(), "--check"])
    };
    let other = "ab".repeat(32);
    let ended = checked(&other);
    let told = ended.stderr.clone();
    refused(&ended, 1, &["handler h", "noop.wasm", "`allow`"]);
    // It says which digest would have to stand there, and that one does.
    let digest = told
        .split(|c: char| !c.is_ascii_hexdigit())
        .find(|word| word.len() == 64)
        .expect("a digest");
    assert_ne!(digest, other);
    checked(digest).ok();
    refused(&checked(&digest[1..]), 2, &["allow", "64 hex digits"]);
}

#[test]
fn a_broken_line_of_a_jsonl_file_is_named_and_the_lines_before_are_sent() {
    let world = World::with_stream(4, 100_000);
    let mut lines: Vec<String> = (1..=6_000)
        .map(|i| format!(r#"{{"key":"key-{}","payload":"{i}"}}"#, i % 100))
        .collect();
    lines[4_999] = r#"{"key":"key-1","payload":"#.to_owned();
    let path = file(&world, "messages.jsonl", lines.join("\n").as_bytes());
    let ended = world.run(&["send", "s", "--jsonl", path.to_str().unwrap()]);
    refused(&ended, 1, &["line 5000", "4999"]);
    world.holds(4_999);
}

#[test]
fn an_unknown_configuration_key_is_named_with_its_table_and_the_nearest_known_one() {
    let world = World::new();
    let config = "[[stream]]\nname = \"s\"\npartitons = 4\npartitions = 4\ncapacity = 10\n";
    let path = file(&world, "bad.toml", config.as_bytes());
    let ended = world.run(&["run", "-c", path.to_str().unwrap()]);
    refused(
        &ended,
        2,
        &["partitons", "stream", "partitions", "bad.toml"],
    );
}

#[test]
fn wrong_usage_exits_2_and_json_errors_are_objects() {
    let world = World::new();
    for args in [
        &[
            "stream",
            "create",
            "bad name",
            "--partitions",
            "1",
            "--capacity",
            "1",
        ][..],
        &["no-such-command"],
        &["run"],
        &["send", "s"],
    ] {
        refused(&world.run(args), 2, &[]);
    }
    let ended = world.run(&["--format", "json", "stream", "describe", "nothing"]);
    assert_eq!(ended.code(), Some(1));
    let last = ended.stderr.lines().last().expect("an error");
    let object: serde_json::Value = serde_json::from_str(last).expect("an object");
    assert_eq!(object["event"], "error", "{object}");
    assert!(
        object["error"].as_str().unwrap().contains("nothing"),
        "{object}"
    );
}

#[test]
fn a_deleted_stream_ends_its_members_and_is_not_created_again() {
    let world = World::with_stream(2, 100);
    let noop = guest("noop");
    let mut host = Host::start(&world.url, &run_args(noop.to_str().unwrap())[1..]);
    refused(
        &world.run(&["stream", "delete", "s"]),
        1,
        &["--force", "member"],
    );
    world.run(&["stream", "delete", "s", "--force"]).ok();
    assert_eq!(host.ended().code(), Some(1), "{}", host.said().join("\n"));
    let mut redis = world.redis();
    let left: Vec<String> = redis::cmd("KEYS").arg("seg:*").query(&mut redis).unwrap();
    assert_eq!(left, Vec::<String>::new());
}
