//! The main job on real input, judged from outside: what was sent, what the handlers of three hosts
//! logged, and a plain count of the same files must agree, crate by crate, although one host is killed
//! and one leaves in the middle, and the handler is swapped: v1 (lines) for v2 (lines and `unsafe`), that for
//! a v3 that traps and is rolled back.

mod gate;
mod hosts;
mod judge;
mod record;
mod send;
mod swaps;
mod tool;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;

use crate::server::Private;
use crate::source::{self, PAYLOAD_MAX, SourceFile};
use crate::{cargo, guests, say, servers};
use gate::Gate;
use hosts::{End, HOSTS, Hosts, Record};
use judge::{Counted, Verdict, compare, judge};
use send::Sent;
use swaps::{Files, Story, Swaps};
use tool::Tool;

const STREAM: &str = "code";
const GROUP: &str = "tally";
const HANDLER: &str = "tally";
const PARTITIONS: &str = "16";
const CAPACITY: &str = "5000";

pub(crate) fn run() -> anyhow::Result<()> {
    let server = servers::any()?;
    let guests = guests::build()?;
    let segmenter = cargo::segmenter()?;
    say("looking up the input: every .rs file of every package in Cargo.lock");
    let files = source::files()?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let messages = messages(&files)?;
    say(&format!(
        "{} files, {:.0} MiB, as {messages} messages into {PARTITIONS} partitions of {CAPACITY} entries",
        files.len(),
        mib(bytes)
    ));
    let server = Private::start(&server)?;
    let tool = Tool {
        binary: &segmenter,
        url: server.url(),
    };
    tool.done(&[
        "stream",
        "create",
        STREAM,
        "--partitions",
        PARTITIONS,
        "--capacity",
        CAPACITY,
    ])?;
    let versions = Files {
        v1: guests.join("lines.wasm"),
        v2: guests.join("tally.wasm"),
        v3: guests.join("broken.wasm"),
    };
    let swaps = Swaps::begin(&tool, HANDLER, versions)?;
    say("v1 (lines) is deployed");
    let gate = Gate::closed();
    let place = (STREAM, GROUP);
    let hosts = Hosts::start(&tool, &configuration()?, place, swaps, &gate)?;
    say(&format!("{HOSTS} hosts share group {GROUP}"));
    let started = Instant::now();
    let (sent, record) = flow(&tool, hosts, &gate, &files, messages)?;
    let seconds = started.elapsed().as_secs_f64();
    say("counting the same files plainly");
    let plain = source::count(&files)?;
    let verdict = judge(&sent, &record.handled, &record.killed, &plain.by_message)?;
    crates(&verdict.by_package, &files);
    who(&record);
    versions_table(&record.story, &verdict);
    let differing = compare(&verdict.by_package, &plain.by_package);
    counts(&sent, &verdict);
    println!(
        "crates equal   {:>9} of {}",
        plain.by_package.len() - differing.len(),
        plain.by_package.len()
    );
    println!(
        "{seconds:.1} s: {:.0} messages/s, {:.0} MiB/s",
        sent.len() as f64 / seconds,
        mib(bytes) / seconds
    );
    write(&sent, &verdict)?;
    for line in differing.iter().chain(&verdict.wrong) {
        println!("differs: {line}");
    }
    let clean = verdict.unexplained == 0 && verdict.out_of_order == 0 && verdict.lost == 0;
    if !differing.is_empty() || !verdict.wrong.is_empty() || !clean {
        bail!("the handlers' record and the input differ");
    }
    if verdict.by_version.contains(&0) {
        bail!("v1 and v2 were to handle messages both");
    }
    println!(
        "every crate's lines and bytes are equal to a plain count of its files, and so is `unsafe` in every message of v2"
    );
    Ok(())
}

/// The hosts follow what is deployed. What is not in it, the stream among it, is there already.
fn configuration() -> anyhow::Result<PathBuf> {
    let folder = cargo::target().join("demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join("segmenter.toml");
    let text = format!(
        "[[handler]]\nname = \"{HANDLER}\"\nstream = \"{STREAM}\"\ngroup = \"{GROUP}\"\nmodule = \"deployed\"\n"
    );
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn messages(files: &[SourceFile]) -> anyhow::Result<u64> {
    let mut messages = 0;
    for file in files {
        messages += match file.bytes {
            0..=1_048_576 => 1,
            _ => source::pieces(&std::fs::read(&file.place)?, PAYLOAD_MAX).len() as u64,
        };
    }
    Ok(messages)
}

/// Sends and watches at the same time.
fn flow(
    tool: &Tool<'_>,
    hosts: Hosts<'_>,
    gate: &Gate,
    files: &[SourceFile],
    messages: u64,
) -> anyhow::Result<(Vec<Sent>, Record)> {
    let bars = Bars::new(messages);
    let failed = AtomicBool::new(false);
    let flowed = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = send::send(tool, STREAM, files, gate, &bars.sent);
            failed.store(sent.is_err(), Ordering::SeqCst);
            sent
        });
        let record = hosts.watch(
            messages,
            &failed,
            &|handled| bars.handled.set_position(handled),
            &|what| bars.say(what),
        );
        let sent = sending
            .join()
            .map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        // Why it was not sent explains why it was not handled.
        let sent = sent?;
        Ok((sent, record?))
    });
    bars.clear();
    flowed
}

struct Bars {
    all: MultiProgress,
    sent: ProgressBar,
    handled: ProgressBar,
}

impl Bars {
    fn new(messages: u64) -> Bars {
        let all = MultiProgress::new();
        let bar = |prefix: &'static str| {
            let bar = all.add(ProgressBar::new(messages)).with_prefix(prefix);
            let template = "{prefix:8} {bar:40} {pos:>6}/{len}  {rate:>7}  {elapsed}";
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style.with_key("rate", rate)),
                Err(_) => bar,
            }
        };
        let (sent, handled) = (bar("sent"), bar("handled"));
        // Both from the start, not each at its first message.
        sent.tick();
        handled.tick();
        Bars { all, sent, handled }
    }

    /// Above the bars.
    fn say(&self, what: &str) {
        self.all.suspend(|| say(what));
    }

    fn clear(&self) {
        let _ = self.all.clear();
    }
}

/// indicatif's own rate has four decimals, which jump about.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // What cannot be written to a bar is not shown.
    let _ = write!(out, "{:.0}/s", state.per_sec());
}

fn crates(counts: &BTreeMap<String, Counted>, files: &[SourceFile]) {
    let mut file_counts: BTreeMap<&str, u64> = BTreeMap::new();
    for file in files {
        *file_counts.entry(&file.package).or_default() += 1;
    }
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.lines));
    println!(
        "\n{:<40} {:>6} {:>9} {:>7}  OF",
        "CRATE", "FILES", "LINES", "UNSAFE"
    );
    for (name, counts) in rows.into_iter().take(10) {
        let files = file_counts.get(name.as_str()).copied().unwrap_or(0);
        println!(
            "{name:<40} {files:>6} {:>9} {:>7}  {} messages that v2 handled",
            counts.lines, counts.unsafes, counts.by_second
        );
    }
}

fn who(record: &Record) {
    println!("\n{:<8} {:>9}  END", "HOST", "HANDLED");
    for (host, end) in record.ends.iter().enumerate() {
        let handled = record.handled.iter().filter(|line| line.host == host);
        let end = match end {
            End::Killed => "killed with -9",
            End::Left => "left (SIGTERM)",
            End::Stayed => "stayed to the end",
        };
        println!("{:<8} {:>9}  {end}", hosts::name(host), handled.count());
    }
}

fn versions_table(story: &Story, verdict: &Verdict) {
    let [first, second] = verdict.by_version;
    let short = |version: &str| version.chars().take(12).collect::<String>();
    println!("\n{:<8} {:<12} {:>9}", "VERSION", "SHA256", "HANDLED");
    let row = |name: &str, version: &str, handled: u64, what: &str| {
        println!("{name:<8} {:<12} {handled:>9}  {what}", short(version));
    };
    row("v1", &story.v1, first, "lines: from the start");
    let (from, to) = story.second;
    let what = format!(
        "lines and `unsafe`: deployed when {from} messages were handled, on all hosts when {to} were"
    );
    row("v2", &story.v2, second, &what);
    let (from, to) = story.third;
    let what = format!(
        "traps: deployed when {from} messages were handled, rolled back by itself, on all hosts when {to} were; {} of its calls trapped, and v2 handled their messages",
        story.trapped
    );
    row("v3", &story.v3, 0, &what);
    println!("         v3 was {}", story.reason);
}

fn counts(sent: &[Sent], verdict: &Verdict) {
    println!();
    println!("sent           {:>9}", sent.len());
    println!("handled        {:>9}", verdict.handled);
    println!(
        "duplicates     {:>9}  of {} that the killed host had handled and not acked",
        verdict.duplicates, verdict.uncommitted
    );
    if verdict.unexplained > 0 {
        println!(
            "unexplained    {:>9}  duplicates of other messages",
            verdict.unexplained
        );
    }
    println!("out of order   {:>9}", verdict.out_of_order);
    println!("lost           {:>9}", verdict.lost);
}

fn write(sent: &[Sent], verdict: &Verdict) -> anyhow::Result<()> {
    let object = json!({
        "sent": sent.len(),
        "handled": verdict.handled,
        "duplicates": verdict.duplicates,
        "out_of_order": verdict.out_of_order,
        "lost": verdict.lost,
    });
    let path = cargo::target().join("demo.json");
    std::fs::write(&path, format!("{object}\n"))
        .with_context(|| format!("writing {}", path.display()))
}
