//! Idle for a long time: eight hosts in four groups of one stream, with nothing to do. Nobody may be
//! expelled, nothing may move, and Redis should hardly notice them. `cargo xtask idle` sets up what it
//! needs.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use segmenter_tests::process::{self, Host, guest};
use segmenter_tests::server::{Options, Server};
use serde_json::Value;

const HOSTS: usize = 8;
const GROUPS: usize = 4;
const PARTITIONS: &str = "64";
/// What a host may ask of Redis.
const REQUESTS_PER_S_MAX: f64 = 5.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let minutes = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(30.0),
        ["--minutes", minutes] => minutes.parse::<f64>(),
        _ => {
            eprintln!("usage: idle [--minutes M]   (30, unless told otherwise)");
            return ExitCode::from(2);
        }
    };
    let run = minutes
        .context("--minutes takes a number")
        .and_then(|minutes| run(Duration::from_secs_f64(minutes * 60.0)));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(span: Duration) -> anyhow::Result<()> {
    let server = Server::start(Options::default());
    let url = server.url();
    let create = [
        "stream",
        "create",
        "s",
        "--partitions",
        PARTITIONS,
        "--capacity",
        "100",
    ];
    process::segmenter(&url, &create).ok();
    let noop = guest("noop");
    let noop = noop.to_str().context("a path that is UTF-8")?;
    let groups: Vec<String> = (0..GROUPS).map(|n| format!("g{n}")).collect();
    let hosts: Vec<Host> = (0..HOSTS)
        .map(|n| {
            Host::start(
                &url,
                &[noop, "--stream", "s", "--group", &groups[n % GROUPS]],
            )
        })
        .collect();
    for group in &groups {
        process::until(&format!("{group} is shared"), || {
            shared(&url, group).then_some(())
        });
    }
    let before: Vec<Value> = groups.iter().map(|group| describe(&url, group)).collect();
    let requests = watch(server.port(), span)?;
    println!(
        "\n{:<6} {:>8} {:>11} {:>11}",
        "GROUP", "MEMBERS", "GENERATION", "EXPELLED"
    );
    let mut moved = false;
    for (group, before) in groups.iter().zip(&before) {
        let after = describe(&url, group);
        let same = after["generation"] == before["generation"] && owners(&after) == owners(before);
        moved |= !same;
        let members = after["members"].as_array().map_or(0, Vec::len);
        let expelled = if same { "nobody" } else { "CHANGED" };
        println!(
            "{group:<6} {members:>8} {:>11} {expelled:>11}",
            after["generation"]
        );
    }
    let per_host = requests as f64 / span.as_secs_f64() / HOSTS as f64;
    println!(
        "\n{requests} requests in {:.0} s: {per_host:.2} per second and host",
        span.as_secs_f64()
    );
    for host in hosts {
        let said = host.said().join("\n");
        for bad in ["outside", "partition_lost", "redis_away"] {
            ensure!(
                !said.contains(&format!("\"event\":\"{bad}\"")),
                "a host said {bad}:\n{said}"
            );
        }
        host.stop();
    }
    if moved {
        bail!("a group changed while nothing happened");
    }
    ensure!(
        per_host <= REQUESTS_PER_S_MAX,
        "more than {REQUESTS_PER_S_MAX} requests per second and host"
    );
    Ok(())
}

fn describe(url: &str, group: &str) -> Value {
    let described = process::segmenter(url, &["--format", "json", "group", "describe", "s", group]);
    described.ok().objects().swap_remove(0)
}

fn owners(described: &Value) -> Vec<&str> {
    let partitions = described["partitions"].as_array();
    partitions
        .into_iter()
        .flatten()
        .map(|p| p["owner"].as_str().unwrap_or(""))
        .collect()
}

/// Every partition has an owner, and both members have as many.
fn shared(url: &str, group: &str) -> bool {
    let described = describe(url, group);
    let owners = owners(&described);
    let of = |owner: &str| owners.iter().filter(|o| **o == owner).count();
    owners
        .iter()
        .all(|owner| !owner.is_empty() && of(owner) * HOSTS / GROUPS == owners.len())
}

/// Lines of MONITOR that are not from inside scripts.
fn watch(port: u16, span: Duration) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"MONITOR\r\n")?;
    let started = Instant::now();
    let mut requests = 0;
    let mut told = 0;
    // Heartbeats alone come often enough for the loop to see the time.
    for line in BufReader::new(stream).lines() {
        let line = line.context("the server ended")?;
        if line != "+OK" && !line.contains(" lua] ") {
            requests += 1;
        }
        let passed = started.elapsed();
        if passed >= span {
            break;
        }
        if passed.as_secs() / 60 > told {
            told = passed.as_secs() / 60;
            let rate = requests as f64 / passed.as_secs_f64() / HOSTS as f64;
            eprintln!("▸ {told} min: {rate:.2} requests per second and host");
        }
    }
    Ok(requests)
}
