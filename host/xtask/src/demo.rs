//! The main job on real input, judged from outside: what was sent, what the handler logged, and a plain
//! count of the same files must agree, crate by crate.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde_json::{Value, json};

use crate::server::Private;
use crate::source::{self, Counts, PAYLOAD_MAX, SourceFile};
use crate::{cargo, guests, say, servers};

const PARTITIONS: &str = "16";
const CAPACITY: &str = "5000";
/// Nothing new for so long: something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

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
        bytes as f64 / f64::from(1 << 20)
    ));
    let server = Private::start(&server)?;
    let tool = Tool {
        binary: &segmenter,
        url: server.url(),
    };
    tool.done(&[
        "stream",
        "create",
        "code",
        "--partitions",
        PARTITIONS,
        "--capacity",
        CAPACITY,
    ])?;
    let started = Instant::now();
    let bars = Bars::new(messages);
    let host = Host::start(&tool, &guests.join("tally.wasm"), &bars)?;
    let sent = send(&tool, &files, &bars)?;
    let record = host.watch(&sent)?;
    bars.clear();
    let seconds = started.elapsed().as_secs_f64();
    let verdict = judge(&sent, &record)?;
    say("counting the same files plainly");
    let plain = source::count(&files)?;
    table(&verdict.by_package, &files);
    let differing = compare(&verdict.by_package, &plain);
    println!();
    println!("sent           {:>9}", sent.len());
    println!("handled        {:>9}", verdict.handled);
    println!("duplicates     {:>9}", verdict.duplicates);
    println!("out of order   {:>9}", verdict.out_of_order);
    println!("lost           {:>9}", verdict.lost);
    println!(
        "crates equal   {:>9} of {}",
        plain.len() - differing.len(),
        plain.len()
    );
    println!(
        "{seconds:.1} s: {:.0} messages/s, {:.0} MiB/s",
        sent.len() as f64 / seconds,
        bytes as f64 / f64::from(1 << 20) / seconds
    );
    let object = json!({
        "sent": sent.len(),
        "handled": verdict.handled,
        "duplicates": verdict.duplicates,
        "out_of_order": verdict.out_of_order,
        "lost": verdict.lost,
    });
    let path = cargo::target().join("demo.json");
    std::fs::write(&path, format!("{object}\n"))
        .with_context(|| format!("writing {}", path.display()))?;
    for line in &differing {
        println!("differs: {line}");
    }
    let clean = verdict.duplicates == 0 && verdict.out_of_order == 0 && verdict.lost == 0;
    if !differing.is_empty() || !clean {
        bail!("the handlers' record and the input differ");
    }
    println!("every crate's count is equal to a plain count of its files");
    Ok(())
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

struct Tool<'a> {
    binary: &'a Path,
    url: String,
}

impl Tool<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command
            .args(args)
            .env("SEGMENTER_REDIS", &self.url)
            .env_remove("SEGMENTER_NAMESPACE");
        command
    }

    fn done(&self, args: &[&str]) -> anyhow::Result<()> {
        cargo::watched(
            &mut self.command(args),
            &format!("segmenter {}", args.join(" ")),
        )
    }
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

    fn clear(&self) {
        let _ = self.all.clear();
    }
}

/// indicatif's own rate has four decimals, which jump about.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // What cannot be written to a bar is not shown.
    let _ = write!(out, "{:.0}/s", state.per_sec());
}

/// One accepted append, in the order of sending.
struct Sent {
    package: String,
    partition: u64,
    id: String,
}

/// Pipes every file as lines of JSON into `segmenter send` and pairs its answers with them.
fn send(tool: &Tool<'_>, files: &[SourceFile], bars: &Bars) -> anyhow::Result<Vec<Sent>> {
    let mut child = tool
        .command(&["--format", "json", "send", "code", "--jsonl", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting segmenter send")?;
    let mut input = BufWriter::with_capacity(1 << 20, child.stdin.take().context("its stdin")?);
    let output = BufReader::new(child.stdout.take().context("its stdout")?);
    let bar = bars.sent.clone();
    let answers = std::thread::spawn(move || -> anyhow::Result<Vec<(u64, String)>> {
        let mut answers = Vec::new();
        for line in output.lines() {
            let answer: Value =
                serde_json::from_str(&line?).context("an answer of segmenter send")?;
            let id = answer["id"].as_str().context("an answer without an id")?;
            answers.push((
                answer["partition"].as_u64().context("no partition")?,
                id.to_owned(),
            ));
            bar.inc(1);
        }
        Ok(answers)
    });
    let mut packages = Vec::new();
    for file in files {
        let text = std::fs::read(&file.place)
            .with_context(|| format!("reading {}", file.place.display()))?;
        for piece in source::pieces(&text, PAYLOAD_MAX) {
            let line = json!({
                "key": file.package,
                "payload_base64": STANDARD.encode(piece),
                "attributes": {"path": file.path},
            });
            if writeln!(input, "{line}").is_err() {
                // It ended early; its exit status and words tell why.
                break;
            }
            packages.push(file.package.clone());
        }
    }
    drop(input.into_inner());
    let status = child.wait()?;
    let answers = answers
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of answers panicked"))??;
    if !status.success() {
        bail!(
            "segmenter send ended with {status} after {} messages",
            answers.len()
        );
    }
    if answers.len() != packages.len() {
        bail!(
            "{} messages were sent, {} were answered",
            packages.len(),
            answers.len()
        );
    }
    let pairs = packages.into_iter().zip(answers);
    Ok(pairs
        .map(|(package, (partition, id))| Sent {
            package,
            partition,
            id,
        })
        .collect())
}

/// One line of the handler: partition, id, counts.
type Record = Vec<(u64, String, Counts)>;

struct Host {
    child: Child,
    lines: mpsc::Receiver<Value>,
    other: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn start(tool: &Tool<'_>, module: &Path, bars: &Bars) -> anyhow::Result<Host> {
        let module = module
            .to_str()
            .context("the target folder's path is not UTF-8")?;
        let mut child = tool
            .command(&[
                "--format", "json", "run", module, "--stream", "code", "--group", "tally",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting segmenter run")?;
        let stderr = BufReader::new(child.stderr.take().context("its stderr")?);
        let (lines_out, lines) = mpsc::channel();
        let other: Arc<Mutex<Vec<String>>> = Arc::default();
        let rest = other.clone();
        let bar = bars.handled.clone();
        std::thread::spawn(move || {
            // Messages are handled while others are still being sent, so here is where it shows.
            let mut distinct = HashSet::new();
            for line in stderr.lines().map_while(Result::ok) {
                match serde_json::from_str::<Value>(&line) {
                    Ok(value) if value["event"] == "guest_log" => {
                        if distinct.insert((value["partition"].as_u64(), value["id"].to_string())) {
                            bar.inc(1);
                        }
                        if lines_out.send(value).is_err() {
                            return;
                        }
                    }
                    _ => rest.lock().map(|mut rest| rest.push(line)).unwrap_or(()),
                }
            }
        });
        Ok(Host {
            child,
            lines,
            other,
        })
    }

    /// Until as many distinct messages were handled as were sent; then it must drain and exit with 0.
    fn watch(mut self, sent: &[Sent]) -> anyhow::Result<Record> {
        let mut record = Record::new();
        let mut distinct = HashSet::new();
        while distinct.len() < sent.len() {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!(
                    "no message was handled for {} s; {} of {} are; the host said:\n{}",
                    PATIENCE.as_secs(),
                    distinct.len(),
                    sent.len(),
                    self.said()
                ),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("segmenter run ended early; it said:\n{}", self.said())
                }
            };
            let entry = parse(&line)?;
            distinct.insert((entry.0, entry.1.clone()));
            record.push(entry);
        }
        cargo::watched(
            Command::new("kill").arg(self.child.id().to_string()),
            "kill",
        )?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!(
                "segmenter run ended with {status} after SIGTERM; it said:\n{}",
                self.said()
            );
        }
        // What it handled until its end counts, too.
        while let Ok(line) = self.lines.recv() {
            record.push(parse(&line)?);
        }
        Ok(record)
    }

    fn said(&self) -> String {
        self.other
            .lock()
            .map(|lines| lines.join("\n"))
            .unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `lines=N unsafe=M bytes=B`
fn parse(line: &Value) -> anyhow::Result<(u64, String, Counts)> {
    let text = line["text"].as_str().unwrap_or_default();
    let field = |name: &str| {
        let word = text
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|n| n.parse::<u64>().ok())
            .with_context(|| format!("the handler logged {text:?}"))
    };
    let counts = Counts {
        lines: field("lines")?,
        unsafes: field("unsafe")?,
        bytes: field("bytes")?,
    };
    let partition = line["partition"]
        .as_u64()
        .context("a log line without a partition")?;
    let id = line["id"].as_str().context("a log line without an id")?;
    Ok((partition, id.to_owned(), counts))
}

#[derive(Debug, Default)]
struct Verdict {
    handled: u64,
    duplicates: u64,
    out_of_order: u64,
    lost: u64,
    by_package: BTreeMap<String, Counts>,
}

fn judge(sent: &[Sent], record: &Record) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let known: HashMap<(u64, &str), usize> = sent
        .iter()
        .enumerate()
        .map(|(i, s)| ((s.partition, s.id.as_str()), i))
        .collect();
    let mut seen = vec![false; sent.len()];
    let mut last_of_key: HashMap<&str, usize> = HashMap::new();
    for (partition, id, counts) in record {
        let Some(&at) = known.get(&(*partition, id.as_str())) else {
            bail!("partition {partition} id {id} was handled, but never sent");
        };
        if std::mem::replace(&mut seen[at], true) {
            verdict.duplicates += 1;
            continue;
        }
        verdict.handled += 1;
        let package = sent[at].package.as_str();
        let last = last_of_key.entry(package).or_insert(at);
        if at < *last {
            verdict.out_of_order += 1;
        }
        *last = at.max(*last);
        verdict
            .by_package
            .entry(package.to_owned())
            .or_default()
            .add(*counts);
    }
    verdict.lost = sent.len() as u64 - verdict.handled;
    Ok(verdict)
}

/// What differs, one line a crate.
fn compare(found: &BTreeMap<String, Counts>, plain: &BTreeMap<String, Counts>) -> Vec<String> {
    let nothing = Counts::default();
    let names: std::collections::BTreeSet<_> = found.keys().chain(plain.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (found, plain) = (
                found.get(name).unwrap_or(&nothing),
                plain.get(name).unwrap_or(&nothing),
            );
            (found != plain).then(|| format!("{name}: handlers {found:?}, files {plain:?}"))
        })
        .collect()
}

fn table(counts: &BTreeMap<String, Counts>, files: &[SourceFile]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(package: &str, partition: u64, id: &str) -> Sent {
        Sent {
            package: package.to_owned(),
            partition,
            id: id.to_owned(),
        }
    }

    #[test]
    fn duplicates_order_and_losses_are_found() {
        let all = [
            sent("a", 0, "1-0"),
            sent("b", 1, "1-0"),
            sent("a", 0, "2-0"),
            sent("a", 0, "3-0"),
        ];
        let one = Counts {
            lines: 1,
            unsafes: 0,
            bytes: 2,
        };
        let line = |partition: u64, id: &str| (partition, id.to_owned(), one);
        let record = vec![
            line(0, "2-0"),
            line(0, "1-0"),
            line(1, "1-0"),
            line(0, "2-0"),
        ];
        let verdict = judge(&all, &record).unwrap();
        assert_eq!(
            (
                verdict.handled,
                verdict.duplicates,
                verdict.out_of_order,
                verdict.lost
            ),
            (3, 1, 1, 1)
        );
        assert_eq!(verdict.by_package["a"].lines, 2);
        assert!(judge(&all, &vec![line(7, "1-0")]).is_err(), "never sent");
        let plain = BTreeMap::from([("a".to_owned(), one)]);
        assert_eq!(compare(&verdict.by_package, &plain).len(), 2);
    }

    #[test]
    fn a_log_line_is_read() {
        let line = json!({"partition": 3, "id": "5-1", "text": "lines=1 unsafe=2 bytes=3"});
        let counts = Counts {
            lines: 1,
            unsafes: 2,
            bytes: 3,
        };
        assert_eq!(parse(&line).unwrap(), (3, "5-1".to_owned(), counts));
        assert!(parse(&json!({"text": "something else"})).is_err());
    }
}
