//! `send`: one message, or a file of them; what was sent, and if not all, what not and why.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use segmenter_core::limits;
use segmenter_core::message::Content;
use segmenter_core::names::Partition;
use segmenter_core::port::{Failure, Reply, Request};
use segmenter_redis::{Broker, admin};
use serde_json::{Value, json};

use super::Usage;
use super::append::{Accepted, Appender, Outcome, Stop};
use super::args::{Global, SendArgs};
use super::jsonl::{BadLine, Numbered};
use super::numbers::{Numbering, Numbers};
use super::read_ahead;
use crate::output::{Closed, Format, Out};

/// What to do about numbered messages that were not all sent.
const AGAIN: &str =
    "; send the whole again with the same --id, which goes on where each partition is";

/// Ranges of lines that an error names, at most.
const RANGES_SHOWN: usize = 32;

pub(super) async fn run(global: &Global, args: SendArgs) -> anyhow::Result<ExitCode> {
    match &args.jsonl {
        Some(path) => file(global, &args, path).await,
        None => one(global, &args).await,
    }
}

async fn one(global: &Global, args: &SendArgs) -> anyhow::Result<ExitCode> {
    // Refused before anything is asked of Redis.
    let content = without_payload(args)?;
    let id = match &args.id {
        None => None,
        Some(Numbering { first: Some(n), .. }) => Some(*n),
        Some(Numbering { producer, .. }) => {
            let why = format!(
                "--id {producer} has no number; write --id {producer}:NUMBER, above the number of every message that {producer} sent before"
            );
            return Err(Usage(why).into());
        }
    };
    let broker = global.connect().await?;
    let appender = appender(global, &broker, args).await?;
    let max = appender.shape.payload_max();
    let (key, _, attributes) = content.into_parts();
    let content = Content::new(key, payload(args, max)?, attributes, max)
        .with_context(|| format!("stream {} takes no such message", args.stream))?;
    let outcome = appender
        .append(vec![Numbered {
            line: 1,
            id,
            content,
        }])
        .await;
    if let Some((partition, stop)) = outcome.stopped.first_key_value() {
        return Err(match stop {
            Stop::Unknown { why, .. } => anyhow!(
                "the answer was lost, so the message may have been appended or not: look (`segmenter tail {} --from start`) before you send it again", args.stream
            )
            .context(why.clone()),
            stop => {
                let why = anyhow!(reason(&broker, &appender, *partition, stop).await);
                why.context(match (id, stop) {
                    (Some(_), Stop::Away(_)) => {
                        "the message was perhaps not sent; send it again with the same --id"
                    }
                    _ => "the message was not sent",
                })
            }
        });
    }
    let mut out = global.out();
    for accepted in outcome.accepted {
        match out.format {
            Format::Json => out.object(&told(accepted, args.id.is_some()))?,
            Format::Human => {
                let Accepted { partition, id, .. } = accepted;
                let what = id.map_or("was there already".to_owned(), |id| format!("id {id}"));
                out.line(&format!("partition {partition}  {what}"))?;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// One answer. `numbered`: it says, too, whether the message was there already.
fn told(accepted: Accepted, numbered: bool) -> Value {
    let Accepted { partition, id, .. } = accepted;
    let mut object = json!({"partition": partition.0, "id": id.map(|id| id.to_string())});
    if numbered {
        object["duplicate"] = json!(id.is_none());
    }
    object
}

/// Key and attributes, as far as arguments alone tell, with no payload yet.
fn without_payload(args: &SendArgs) -> anyhow::Result<Content> {
    let key = args.key.clone().unwrap_or_default().into_encoded_bytes();
    let mut attributes = Vec::new();
    for attribute in &args.attr {
        let Some((name, value)) = attribute.split_once('=') else {
            return Err(Usage(format!("--attr {attribute:?} is not NAME=VALUE")).into());
        };
        attributes.push((name.to_owned(), value.to_owned()));
    }
    Content::new(key, Vec::new(), attributes, 0).map_err(|e| Usage(e.to_string()).into())
}

/// At most `max` bytes.
fn payload(args: &SendArgs, max: usize) -> anyhow::Result<Vec<u8>> {
    let payload = args.payload.clone().unwrap_or_default();
    if payload != "-" {
        return Ok(payload.into_encoded_bytes());
    }
    let mut bytes = Vec::new();
    let input = io::stdin().lock();
    input
        .take(max as u64 + 1)
        .read_to_end(&mut bytes)
        .context("reading the payload from stdin")?;
    if bytes.len() > max {
        bail!(
            "the payload on stdin has more than {max} bytes, which is the limit of stream {}",
            args.stream
        );
    }
    Ok(bytes)
}

async fn file(global: &Global, args: &SendArgs, path: &Path) -> anyhow::Result<ExitCode> {
    let (input, size): (Box<dyn Read + Send>, Option<u64>) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let meta = file.metadata().ok().filter(std::fs::Metadata::is_file);
        (Box::new(file), meta.map(|meta| meta.len()))
    };
    let broker = global.connect().await?;
    let appender = appender(global, &broker, args).await?;
    let numbers = Numbers::of(args.id.as_ref());
    let mut parts = read_ahead::start(input, numbers, appender.shape.payload_max());
    let bar = progress(global.format, size);
    let mut answers = Answers::new(global.out(), args.id.is_some());
    let (mut sent, mut duplicates) = (0u64, 0u64);
    let started = Instant::now();
    while let Some(part) = parts.next().await {
        let outcome = appender.append(part.messages).await;
        sent += outcome.accepted.len() as u64;
        duplicates += outcome.duplicates();
        answers.tell(&outcome)?;
        bar.set_position(if size.is_some() {
            part.bytes_read
        } else {
            sent
        });
        bar.set_message(format!("{sent} messages"));
        if !outcome.stopped.is_empty() {
            bar.abandon();
            let mut reasons = reasons(&broker, &appender, &outcome.stopped).await;
            if args.id.is_some() {
                reasons.push_str(AGAIN);
            }
            return Err(anyhow!(reasons).context(stopped(sent, &outcome)));
        }
        if let Some(BadLine { number, why }) = part.bad {
            bar.abandon();
            bail!(
                "line {number}: {why}; {sent} messages before it were sent, nothing after it was"
            );
        }
    }
    bar.finish_and_clear();
    if global.format == Format::Human {
        let seconds = started.elapsed().as_secs_f64();
        let there = match args.id {
            Some(_) => format!(", {duplicates} of them were there already"),
            None => String::new(),
        };
        answers
            .out
            .line(&format!("{sent} messages sent in {seconds:.1} s{there}"))?;
    }
    answers.out.flush()?;
    Ok(ExitCode::SUCCESS)
}

type Sending = Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send>>;

async fn appender(
    global: &Global,
    broker: &Broker,
    args: &SendArgs,
) -> anyhow::Result<Appender<impl Fn(Request) -> Sending>> {
    let (stream, info) = global.stream(broker, &args.stream).await?;
    if let Some(source) = &info.source {
        bail!(
            "stream {stream} reads {source}, which other programs write; send there as they do: XADD {} '*' {} KEY {} PAYLOAD",
            source.redis_key(),
            source.key_field(),
            source.payload_field()
        );
    }
    let broker = broker.clone();
    Ok(Appender {
        send: move |request| {
            let broker = broker.clone();
            Box::pin(async move { broker.execute(request).await }) as Sending
        },
        stream,
        uid: info.uid,
        shape: info.shape,
        producer: args.id.as_ref().map(|id| id.producer.clone()),
        full_timeout: args.full_timeout,
        there: RefCell::default(),
    })
}

/// One answer a line of input, in its order, for machines.
struct Answers {
    out: Out,
    /// Somebody reads them.
    heard: bool,
    numbered: bool,
}

impl Answers {
    fn new(out: Out, numbered: bool) -> Answers {
        let heard = out.format == Format::Json;
        Answers {
            out,
            heard,
            numbered,
        }
    }

    /// A reader that goes away does not end the sending: half a file would be sent without a word.
    fn tell(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        if !self.heard {
            return Ok(());
        }
        match self.write(outcome) {
            Err(error) if error.downcast_ref::<Closed>().is_some() => {
                self.heard = false;
                Ok(())
            }
            other => other,
        }
    }

    fn write(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        for accepted in &outcome.accepted {
            let mut object = told(*accepted, self.numbered);
            if !outcome.stopped.is_empty() {
                // After a failure the answers have gaps; the line says which message each is for.
                object["line"] = json!(accepted.line);
            }
            self.out.object(&object)?;
        }
        self.out.flush()
    }
}

/// How far it came.
fn stopped(sent: u64, outcome: &Outcome) -> String {
    let first_left = outcome.first_left.unwrap_or_default();
    let after = outcome
        .accepted
        .iter()
        .filter(|one| one.line > first_left)
        .count();
    let mut text =
        format!("{sent} messages were sent; the first that was not is line {first_left}");
    if after > 0 {
        text.push_str(&format!(
            ", and {after} of those sent lie after it, because other partitions took theirs"
        ));
    }
    text
}

/// What may have happened to which lines first: nobody may send those again unseen.
async fn reasons<A>(
    broker: &Broker,
    appender: &Appender<A>,
    stopped: &BTreeMap<Partition, Stop>,
) -> String {
    let mut unknown = Vec::new();
    let mut lost = None;
    let mut others = Vec::new();
    for (partition, stop) in stopped {
        match stop {
            Stop::Unknown { why, lines } => {
                unknown.extend_from_slice(lines);
                lost = lost.or(Some(why));
            }
            stop => others.push((*partition, stop)),
        }
    }
    let mut told = Vec::new();
    if let Some(why) = lost {
        unknown.sort_unstable();
        told.push(format!(
            "answers were lost ({why}), so these lines may have been appended or not, look before you send them again: {}",
            ranges(&unknown)
        ));
    }
    if let Some((partition, stop)) = others.first() {
        let mut text = reason(broker, appender, *partition, stop).await;
        if others.len() > 1 {
            text.push_str(&format!(
                "; {} more partitions failed with it",
                others.len() - 1
            ));
        }
        told.push(text);
    }
    told.join("; besides, ")
}

async fn reason<A>(
    broker: &Broker,
    appender: &Appender<A>,
    partition: Partition,
    stop: &Stop,
) -> String {
    let Appender {
        stream,
        shape,
        full_timeout,
        ..
    } = appender;
    match stop {
        Stop::Full => {
            let found = admin::describe_stream(broker, stream, *shape).await;
            let partitions = found.unwrap_or_default();
            let groups = partitions
                .into_iter()
                .find(|found| found.partition == partition)
                .map(|found| found.groups);
            let slowest = groups.map(|groups| groups.into_iter().min_by_key(|g| g.acked_through));
            let hint = match slowest {
                Some(Some(group)) => match group.lag {
                    Some(lag) => format!(
                        "group {} is the slowest there, {lag} entries behind",
                        group.group
                    ),
                    None => format!("group {} is the slowest there", group.group),
                },
                Some(None) => {
                    "no group reads it yet, so nothing may be dropped (`segmenter run` starts one)"
                        .to_owned()
                }
                None => format!(
                    "`segmenter stream describe {}` shows who lags",
                    stream.stream
                ),
            };
            format!(
                "partition {partition} is full: it holds its capacity of {} entries, and had no room for {full_timeout:?} (--full-timeout); {hint}",
                shape.capacity().unwrap_or_default()
            )
        }
        Stop::Away(why) if appender.producer.is_some() => format!(
            "Redis took nothing for partition {partition}, or its answers were lost, for {full_timeout:?} (--full-timeout): {why}"
        ),
        Stop::Away(why) => format!(
            "Redis took nothing for partition {partition} for {full_timeout:?} (--full-timeout): {why}"
        ),
        Stop::Behind => format!(
            "Redis lost its last writes: what partition {partition} had accepted is not there any more, and nothing was sent to it after that"
        ),
        Stop::Crowded => format!(
            "partition {partition} remembers the numbers of {} producers, the most that it may, and this is another one: use names that stay, such as one per sending program; only deleting the stream makes a partition forget them",
            limits::PRODUCERS_MAX
        ),
        Stop::Unknown { why, .. } => format!("the answer of partition {partition} was lost: {why}"),
        Stop::Fatal(why) => format!("appending to partition {partition} of {stream}: {why}"),
        Stop::Gone => format!(
            "stream {stream} was deleted, or deleted and created anew, while messages were sent to it"
        ),
    }
}

/// `1-5, 7, 9-12` of sorted numbers.
fn ranges(numbers: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let text = |(first, last): &(u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let shown: Vec<_> = ranges.iter().take(RANGES_SHOWN).map(text).collect();
    let mut shown = shown.join(", ");
    if let (Some((first, _)), Some((_, last))) = (ranges.get(RANGES_SHOWN), ranges.last()) {
        shown.push_str(&format!(", and some of {first}-{last}"));
    }
    shown
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
    // Also while a full partition is waited for.
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_as_ranges_and_not_without_end() {
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), "1-3, 5, 7-8");
        let odd: Vec<u64> = (0..200).map(|n| 2 * n + 1).collect();
        let text = ranges(&odd);
        assert!(text.starts_with("1, 3, 5, "), "{text}");
        assert!(text.ends_with(", 63, and some of 65-399"), "{text}");
    }

    #[test]
    fn it_is_told_how_far_it_came() {
        let accepted = |line| Accepted {
            line,
            partition: Partition(0),
            id: Some(segmenter_core::message::EntryId::ZERO),
        };
        let mut outcome = Outcome {
            accepted: vec![accepted(11), accepted(12)],
            stopped: BTreeMap::new(),
            first_left: Some(13),
        };
        assert_eq!(
            stopped(12, &outcome),
            "12 messages were sent; the first that was not is line 13"
        );
        outcome.accepted.push(accepted(15));
        assert!(stopped(13, &outcome).contains("line 13, and 1 of those sent lie after it"));
    }
}
