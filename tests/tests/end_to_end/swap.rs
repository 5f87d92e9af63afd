//! Versions that come from a file, while messages flow: judged by what handlers did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use segmenter_tests::process::{self, Host, until};
use serde_json::Value;

use crate::failing;
use crate::support::{Judgement, World, judge};

const PARTITIONS: u32 = 4;

/// The same guest, and yet another version: a custom section at its end says which.
pub(crate) fn version(guest: &Path, number: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(guest).expect("the guest is built");
    let content = format!("\u{7}version{number}");
    bytes.push(0);
    bytes.push(u8::try_from(content.len()).expect("short"));
    bytes.extend(content.as_bytes());
    bytes
}

/// As an atomic deploy does it.
pub(crate) fn rename_over(path: &Path, bytes: &[u8]) {
    let next = path.with_extension("next");
    std::fs::write(&next, bytes).expect("the folder is there");
    std::fs::rename(&next, path).expect("the same folder");
}

fn module(world: &World) -> PathBuf {
    let path = world.server.dir().join("handler.wasm");
    rename_over(&path, &version(&process::guest("tally"), 0));
    path
}

fn start(world: &World, module: &Path, more: &[&str]) -> Host {
    let module = module.to_str().expect("UTF-8");
    let args = [module, "--stream", "s", "--group", "g"];
    Host::start(&world.url, &[&args, more].concat())
}

/// What every partition's lease says that it runs.
pub(crate) fn versions(world: &World) -> BTreeMap<u64, String> {
    let args = ["--format", "json", "group", "describe", "s", "g"];
    let described = world.run(&args).ok();
    let partitions = described.objects()[0]["partitions"].clone();
    let of = |partition: &Value| {
        let number = partition["partition"].as_u64().expect("a number");
        let version = partition["version"].as_str().unwrap_or_default();
        (number, version.to_owned())
    };
    partitions
        .as_array()
        .expect("partitions")
        .iter()
        .map(of)
        .collect()
}

pub(crate) fn until_all_run(world: &World, version: &str) {
    until(&format!("all partitions run {version}"), || {
        let found = versions(world);
        found.values().all(|found| found == version).then_some(())
    });
}

fn is(event: &str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == event
}

#[test]
fn versions_replace_each_other_under_load_and_nothing_is_lost_doubled_or_out_of_order() {
    let world = World::with_stream(PARTITIONS, 100_000);
    let path = module(&world);
    let mut host = start(&world, &path, &[]);
    let mut sent = Vec::new();
    for number in 1..=10 {
        rename_over(&path, &version(&process::guest("tally"), number));
        sent.extend(world.send_numbered(500, 20));
        host.line("it handles", is("version_live"));
    }
    let promoted = host.line("it is promoted", is("version_promoted"));
    until_all_run(&world, promoted["version"].as_str().expect("a version"));
    world.until_acked(PARTITIONS, "g");
    let lines = host.stop();
    let expected = Judgement {
        handled: sent.len(),
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &lines), expected);
}

#[test]
fn a_version_that_traps_is_rolled_back_by_itself_and_costs_no_message_an_attempt() {
    let world = World::with_stream(PARTITIONS, 100_000);
    let path = module(&world);
    // One attempt: a failure that counted would be a dead letter.
    let config = world.server.dir().join("segmenter.toml");
    let text = format!(
        "[[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = {path:?}\n[handler.retry]\nattempts = 1\n"
    );
    std::fs::write(&config, text).expect("the folder is there");
    let config = config.to_str().expect("UTF-8");
    let mut host = Host::start(&world.url, &["-c", config]);
    let mut sent = world.send_numbered(200, 20);
    world.until_acked(PARTITIONS, "g");
    let good = versions(&world)[&0].clone();
    let traps = failing::guest_that_traps(world.server.dir());
    rename_over(&path, &std::fs::read(traps).expect("it was written"));
    let bad = host.line("it is on trial", is("version_live"));
    sent.extend(world.send_numbered(200, 20));
    let back = host.line("it is rolled back", is("version_rolled_back"));
    assert_eq!(back["version"], bad["version"]);
    assert_eq!(back["to"], good.as_str());
    let reason = back["reason"].as_str().expect("a reason");
    assert!(reason.contains("failed"), "{reason}");
    until_all_run(&world, &good);
    sent.extend(world.send_numbered(200, 20));
    world.until_acked(PARTITIONS, "g");
    let dead = world
        .run(&["--format", "json", "dead", "list", "s", "g"])
        .ok();
    assert_eq!(dead.objects(), Vec::<Value>::new(), "no dead letters");
    let lines = host.stop();
    // The good one alone logs `lines=`.
    let good: Vec<_> = lines
        .into_iter()
        .filter(|line| line.text.starts_with("lines="))
        .collect();
    assert!(good.iter().all(|line| line.attempt == 1));
    let expected = Judgement {
        handled: sent.len(),
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &good), expected);
}

#[test]
fn what_cannot_run_is_refused_with_the_reason_and_what_ran_goes_on() {
    let world = World::with_stream(PARTITIONS, 100_000);
    let path = module(&world);
    let mut host = start(&world, &path, &[]);
    let dir = world.server.dir();
    let tally = std::fs::read(process::guest("tally")).expect("built");
    let enrich = std::fs::read(process::guest("enrich")).expect("built");
    let loops = std::fs::read(failing::guest_that_loops_at_start(dir)).expect("written");
    let much = std::fs::read(failing::guest_of_much_memory(dir)).expect("written");
    let core = wat::parse_str("(module)").expect("a module");
    let empty_world = wat::parse_str("(component)").expect("a component");
    let refused: [(&str, &[u8], &str); 8] = [
        ("truncated", &tally[..tally.len() / 2], "does not compile"),
        ("text", b"not WebAssembly", "not WebAssembly"),
        ("empty", b"", "not WebAssembly"),
        ("a core module", &core, "core module"),
        ("another world", &empty_world, "exports none of"),
        ("a missing grant", &enrich, "grant"),
        ("a start that loops", &loops, "instance"),
        ("too much memory", &much, "memory"),
    ];
    for (what, bytes, says) in refused {
        rename_over(&path, bytes);
        let line = host.line(what, |line| {
            line["event"] == "version_refused" || line["event"] == "version_live"
        });
        let why = line["why"].as_str().unwrap_or_default();
        assert!(why.contains(says), "{what}: {line}");
    }
    let large = dir.join("large.wasm");
    let file = std::fs::File::create(&large).expect("the folder is there");
    file.set_len(1 << 30).expect("a sparse file");
    std::fs::rename(&large, &path).expect("the same folder");
    let line = host.line("1 GiB of zeros", is("module_trouble"));
    assert!(
        line["why"].as_str().expect("why").contains("module_size"),
        "{line}"
    );
    std::fs::remove_file(&path).expect("it is there");
    host.line("deleted", is("module_trouble"));
    let sent = world.send_numbered(100, 10);
    world.until_acked(PARTITIONS, "g");
    rename_over(&path, &version(&process::guest("tally"), 1));
    host.line("a good one", is("version_live"));
    let expected = Judgement {
        handled: sent.len(),
        ..Judgement::default()
    };
    assert_eq!(judge(&sent, &host.stop()), expected);
}

#[test]
fn a_changed_configuration_swaps_instances_and_what_needs_a_restart_is_said() {
    let world = World::with_stream(PARTITIONS, 100_000);
    let path = module(&world);
    let config = world.server.dir().join("segmenter.toml");
    let write = |deadline: &str, session: &str| {
        let text = format!(
            "[[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = {path:?}\nsession_timeout = '{session}'\n[handler.limits]\ndeadline = '{deadline}'\n"
        );
        rename_over(&config, text.as_bytes());
    };
    write("1s", "3s");
    let config_arg = config.to_str().expect("UTF-8");
    let mut host = Host::start(&world.url, &["-c", config_arg]);
    world.send_numbered(10, 10);
    world.until_acked(PARTITIONS, "g");
    // A guest that spins ends by the new deadline.
    write("50ms", "3s");
    host.line("it was taken", |line| {
        line["event"] == "settings_live" && line["handler"] == "h"
    });
    write("50ms", "4s");
    let said = host.line("it needs a restart", |line| {
        line["event"] == "warning"
            && line["text"]
                .as_str()
                .is_some_and(|t| t.contains("session_timeout"))
    });
    assert!(
        said["text"].as_str().expect("text").contains("restart"),
        "{said}"
    );
    rename_over(&config, b"[[handler]]\nname = 7\n");
    host.line("it is no configuration", |line| {
        line["event"] == "warning" && line["text"].as_str().is_some_and(|t| t.contains("name"))
    });
    let sent = world.send_numbered(100, 10);
    world.until_acked(PARTITIONS, "g");
    host.signal("TERM");
    assert!(host.ended().success());
    assert_eq!(sent.len(), 100);
}
