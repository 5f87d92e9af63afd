//! The main job on real input, judged from outside: what was sent, what the handlers of three hosts
//! logged, and a plain count of the same files must agree, crate by crate, although one host is killed
//! and one leaves in the middle.

mod hosts;
mod judge;
mod record;
mod send;
mod tool;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde_json::json;

use crate::server::Private;
use crate::source::{self, Counts, PAYLOAD_MAX, SourceFile};
use crate::{cargo, guests, say, servers};
use hosts::{End, HOSTS, Hosts, Record};
use judge::{Verdict, compare, judge};
use send::Sent;
use tool::Tool;

const STREAM: &str = "code";
const GROUP: &str = "tally";
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
    let hosts = Hosts::start(&tool, &guests.join("tally.wasm"), STREAM, GROUP)?;
    say(&format!("{HOSTS} hosts share group {GROUP}"));
    let started = Instant::now();
    let (sent, record) = flow(&tool, hosts, &files, messages)?;
    let seconds = started.elapsed().as_secs_f64();
    let verdict = judge(&sent, &record.handled, &record.killed)?;
    say("counting the same files plainly");
    let plain = source::count(&files)?;
    crates(&verdict.by_package, &files);
    who(&record);
    let differing = compare(&verdict.by_package, &plain);
    counts(&sent, &verdict);
    println!(
        "crates equal   {:>9} of {}",
        plain.len() - differing.len(),
        plain.len()
    );
    println!(
        "{seconds:.1} s: {:.0} messages/s, {:.0} MiB/s",
        sent.len() as f64 / seconds,
        mib(bytes) / seconds
    );
    write(&sent, &verdict)?;
    for line in &differing {
        println!("differs: {line}");
    }
    let clean = verdict.unexplained == 0 && verdict.out_of_order == 0 && verdict.lost == 0;
    if !differing.is_empty() || !clean {
        bail!("the handlers' record and the input differ");
    }
    println!("every crate's count is equal to a plain count of its files");
    Ok(())
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
    files: &[SourceFile],
    messages: u64,
) -> anyhow::Result<(Vec<Sent>, Record)> {
    let bars = Bars::new(messages);
    let failed = AtomicBool::new(false);
    let flowed = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let sent = send::send(tool, STREAM, files, &bars.sent);
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

fn crates(counts: &BTreeMap<String, Counts>, files: &[SourceFile]) {
    let mut file_counts: BTreeMap<&str, u64> = BTreeMap::new();
    for file in files {
        *file_counts.entry(&file.package).or_default() += 1;
    }
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.lines));
    println!(
        "\n{:<40} {:>6} {:>9} {:>7}",
        "CRATE", "FILES", "LINES", "UNSAFE"
    );
    for (name, counts) in rows.into_iter().take(10) {
        let files = file_counts.get(name.as_str()).copied().unwrap_or(0);
        println!(
            "{name:<40} {files:>6} {:>9} {:>7}",
            counts.lines, counts.unsafes
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
