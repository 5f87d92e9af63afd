//! `send`: one message, or a file of them. Messages of one partition are appended strictly in order:
//! nothing later is sent before a refused rest, because order per key would be lost.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use segmenter_core::backoff::Backoff;
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Partition, StreamId};
use segmenter_core::partitioner;
use segmenter_core::port::{Append, AppendReply, Failure, Reply, Request};
use segmenter_redis::Broker;
use segmenter_redis::admin::StreamInfo;
use serde_json::json;
use tokio::sync::mpsc;

use super::Usage;
use super::args::{Global, SendArgs};
use super::jsonl::{BadLine, Lines, Numbered};
use crate::output::{Format, Out};

/// Messages that are read ahead and sent together.
const CHUNK_MESSAGES: usize = 8_192;
const CHUNK_BYTES: usize = 16 * 1024 * 1024;
/// Between two tries at a full partition, or at a Redis that is away.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(5),
    max: Duration::from_millis(500),
};

pub(super) async fn run(global: &Global, args: SendArgs) -> anyhow::Result<ExitCode> {
    match &args.jsonl {
        Some(path) => file(global, &args, path).await,
        None => one(global, &args).await,
    }
}

async fn one(global: &Global, args: &SendArgs) -> anyhow::Result<ExitCode> {
    // Refused before anything is asked of Redis.
    let content = content(args)?;
    let broker = global.connect().await?;
    let (stream, info) = global.stream(&broker, &args.stream).await?;
    let sender = Sender {
        broker,
        stream,
        info,
        full_timeout: args.full_timeout,
    };
    let chunk = vec![Numbered { line: 1, content }];
    let (answers, error) = sender.send(chunk).await;
    if let Some(error) = error {
        return Err(error);
    }
    let mut out = global.out();
    for (_, partition, id) in answers {
        match out.format {
            Format::Json => answer(&mut out, partition, id, None)?,
            Format::Human => out.line(&format!("partition {partition}  id {id}"))?,
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn content(args: &SendArgs) -> anyhow::Result<Content> {
    let key = args.key.clone().unwrap_or_default().into_encoded_bytes();
    let payload = args
        .payload
        .clone()
        .unwrap_or_default()
        .into_encoded_bytes();
    let payload = if payload == b"-" {
        let mut bytes = Vec::new();
        let limit = limits::PAYLOAD_BYTES_MAX as u64 + 1;
        io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .context("reading the payload from stdin")?;
        bytes
    } else {
        payload
    };
    let mut attributes = Vec::new();
    for attribute in &args.attr {
        let Some((name, value)) = attribute.split_once('=') else {
            return Err(Usage(format!("--attr {attribute:?} is not NAME=VALUE")).into());
        };
        attributes.push((name.to_owned(), value.to_owned()));
    }
    Content::new(key, payload, attributes, limits::PAYLOAD_BYTES_MAX)
        .map_err(|e| Usage(e.to_string()).into())
}

async fn file(global: &Global, args: &SendArgs, path: &Path) -> anyhow::Result<ExitCode> {
    let (input, size): (Box<dyn BufRead + Send>, Option<u64>) = if path == Path::new("-") {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let size = file.metadata().ok().map(|meta| meta.len());
        (Box::new(BufReader::with_capacity(1 << 20, file)), size)
    };
    let broker = global.connect().await?;
    let (stream, info) = global.stream(&broker, &args.stream).await?;
    let sender = Sender {
        broker,
        stream,
        info,
        full_timeout: args.full_timeout,
    };
    let (chunks_out, mut chunks) = mpsc::channel(2);
    std::thread::spawn(move || read_ahead(input, &chunks_out));
    let bar = progress(global.format, size);
    let mut out = global.out();
    let mut sent = 0u64;
    let started = Instant::now();
    while let Some(Chunk {
        messages,
        bytes,
        bad,
    }) = chunks.recv().await
    {
        let (answers, error) = sender.send(messages).await;
        sent += answers.len() as u64;
        if out.format == Format::Json {
            for (line, partition, id) in answers {
                // After a failure the answers have gaps; the line says which message each is for.
                let line = error.is_some().then_some(line);
                answer(&mut out, partition, id, line)?;
            }
            out.flush()?;
        }
        bar.set_position(if size.is_some() { bytes } else { sent });
        bar.set_message(format!("{sent} messages"));
        if let Some(error) = error {
            bar.abandon();
            return Err(error.context(format!("{sent} messages were sent, then it failed")));
        }
        if let Some(BadLine { number, why }) = bad {
            bar.abandon();
            bail!(
                "line {number}: {why}; the {sent} messages before it were sent, nothing after it was"
            );
        }
    }
    bar.finish_and_clear();
    if out.format == Format::Human {
        let seconds = started.elapsed().as_secs_f64();
        out.line(&format!("{sent} messages sent in {seconds:.1} s"))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn answer(
    out: &mut Out,
    partition: Partition,
    id: EntryId,
    line: Option<u64>,
) -> anyhow::Result<()> {
    let mut object = json!({"partition": partition.0, "id": id.to_string()});
    if let Some(line) = line {
        object["line"] = json!(line);
    }
    out.object(&object)
}

fn progress(format: Format, size: Option<u64>) -> ProgressBar {
    if format == Format::Json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:40} {bytes}/{total_bytes}  {msg}  {elapsed}, {eta} to go",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

struct Chunk {
    messages: Vec<Numbered>,
    /// Read so far.
    bytes: u64,
    /// Why there is no more.
    bad: Option<BadLine>,
}

/// Parses on a thread of its own while the chunk before is being sent.
fn read_ahead(input: impl BufRead, chunks: &mpsc::Sender<Chunk>) {
    let mut lines = Lines::new(input, limits::PAYLOAD_BYTES_MAX);
    loop {
        let (mut messages, mut size) = (Vec::new(), 0);
        let mut bad = None;
        let mut ended = false;
        while messages.len() < CHUNK_MESSAGES && size < CHUNK_BYTES {
            match lines.next() {
                Some(Ok(message)) => {
                    size += message.content.bytes();
                    messages.push(message);
                }
                Some(Err(line)) => {
                    bad = Some(line);
                    break;
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        ended |= bad.is_some();
        let chunk = Chunk {
            messages,
            bytes: lines.bytes,
            bad,
        };
        if chunks.blocking_send(chunk).is_err() || ended {
            return;
        }
    }
}

/// Line, partition and id of what was accepted.
type Answers = Vec<(u64, Partition, EntryId)>;

struct Sender {
    broker: Broker,
    stream: StreamId,
    info: StreamInfo,
    full_timeout: Duration,
}

impl Sender {
    /// Partitions side by side, each in order. Answers are in the order of the lines.
    async fn send(&self, messages: Vec<Numbered>) -> (Answers, Option<anyhow::Error>) {
        let partitions = self.info.shape.partitions() as usize;
        let mut by_partition: Vec<Vec<Numbered>> = (0..partitions).map(|_| Vec::new()).collect();
        for message in messages {
            let partition = partitioner::partition(message.content.key(), self.info.shape);
            by_partition[partition.0 as usize].push(message);
        }
        let sending = by_partition
            .into_iter()
            .zip(self.info.shape.all())
            .filter(|(messages, _)| !messages.is_empty())
            .map(|(messages, partition)| self.send_to(partition, messages));
        let mut answers = Vec::new();
        let mut first_error = None;
        for (lines, partition, ids, error) in futures_util::future::join_all(sending).await {
            answers.extend(
                lines
                    .into_iter()
                    .zip(ids)
                    .map(|(line, id)| (line, partition, id)),
            );
            first_error = first_error.or(error);
        }
        answers.sort_unstable_by_key(|(line, ..)| *line);
        (answers, first_error)
    }

    async fn send_to(
        &self,
        partition: Partition,
        messages: Vec<Numbered>,
    ) -> (Vec<u64>, Partition, Vec<EntryId>, Option<anyhow::Error>) {
        let (lines, mut left): (Vec<u64>, Vec<Content>) =
            messages.into_iter().map(|m| (m.line, m.content)).unzip();
        let mut ids = Vec::with_capacity(lines.len());
        let mut refused = 0u32;
        let mut progress = Instant::now();
        while !left.is_empty() {
            let batch = first_batch(&left);
            let request = Request::Append(Append {
                stream: self.stream.clone(),
                uid: self.info.uid.clone(),
                partition,
                messages: left[..batch].to_vec(),
            });
            let stopped = match self.broker.execute(request).await {
                Ok(Reply::Append(AppendReply::Appended { ids: accepted })) => {
                    if !accepted.is_empty() {
                        progress = Instant::now();
                        refused = 0;
                        left.drain(..accepted.len());
                        let all = accepted.len() == batch;
                        ids.extend(accepted);
                        if all {
                            continue;
                        }
                    }
                    format!(
                        "partition {partition} is full: its capacity is {} entries, and no more may be trimmed before every group has acked them (`segmenter stream describe {}` shows who lags); no room within {:?}",
                        self.info.shape.capacity(),
                        self.stream.stream,
                        self.full_timeout
                    )
                }
                Ok(Reply::Append(AppendReply::StreamGone)) => {
                    let error = anyhow::anyhow!(
                        "stream {} was deleted, or deleted and created anew, while messages were sent to it",
                        self.stream
                    );
                    return (lines, partition, ids, Some(error));
                }
                Ok(other) => {
                    let error = anyhow::anyhow!("the broker answered something else: {other:?}");
                    return (lines, partition, ids, Some(error));
                }
                Err(Failure::NotDone(why)) => {
                    format!(
                        "Redis did not take messages for partition {partition} within {:?}: {why}",
                        self.full_timeout
                    )
                }
                Err(Failure::Unknown(why)) => {
                    let error = anyhow::anyhow!(
                        "the answer for partition {partition} was lost ({why}): the messages of {} to {} with keys of this partition may have been appended or not; look before you send them again",
                        what(lines[ids.len()]),
                        what(lines[ids.len() + batch - 1]),
                    );
                    return (lines, partition, ids, Some(error));
                }
                Err(Failure::Fatal(why)) => {
                    let error = anyhow::anyhow!(
                        "appending to partition {partition} of {}: {why}",
                        self.stream
                    );
                    return (lines, partition, ids, Some(error));
                }
            };
            if progress.elapsed() >= self.full_timeout {
                return (lines, partition, ids, Some(anyhow::anyhow!("{stopped}")));
            }
            refused = refused.saturating_add(1);
            let noise = u64::from(partition.0)
                .wrapping_mul(0x9e37_79b9)
                .wrapping_add(u64::from(refused));
            tokio::time::sleep(BACKOFF.wait(refused, noise)).await;
        }
        (lines, partition, ids, None)
    }
}

fn what(line: u64) -> String {
    format!("line {line}")
}

/// How many of `messages` go into one script: bounded by count and bytes, at least one.
fn first_batch(messages: &[Content]) -> usize {
    let mut bytes = 0;
    let fits = messages
        .iter()
        .take(limits::APPEND_BATCH_MESSAGES_MAX)
        .take_while(|message| {
            bytes += message.bytes();
            bytes <= limits::APPEND_BATCH_BYTES_MAX
        });
    fits.count().max(1)
}
