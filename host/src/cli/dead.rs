//! `dead list|show`; what becomes of letters is next door.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, bail};
use segmenter_core::entry::{Entry, RawEntry};
use segmenter_core::source::Layout;
use segmenter_redis::admin::{self, DeadEntry};
use serde::Serialize;
use serde_json::Value;

use super::args::{DeadCommand, Global};
use super::{jsonl, redrive};
use crate::host::telemetry::{self, Event};
use crate::output::{Format, Out, moment, preview};

pub(super) async fn run(global: &Global, command: DeadCommand) -> anyhow::Result<ExitCode> {
    let broker = global.connect().await?;
    let mut out = global.out();
    match command {
        DeadCommand::List {
            stream,
            group,
            limit,
        } => {
            let (id, info) = global.stream(&broker, &stream).await?;
            let mut letters = Vec::new();
            let mut more = false;
            admin::dead_each(&broker, &id, info.shape, &group, |mut letter| {
                more = letters.len() == limit;
                if more {
                    return ControlFlow::Break(());
                }
                // A list needs no messages, and they may be a MiB each.
                letter.fields.clear();
                letters.push(letter);
                ControlFlow::Continue(())
            })
            .await
            .with_context(|| format!("reading the dead letters of {id}, group {group}"))?;
            match out.format {
                Format::Json => {
                    for letter in &letters {
                        out.object(&Head::of(letter))?;
                    }
                }
                Format::Human => {
                    let rows: Vec<_> = letters.iter().map(row).collect();
                    let header = ["PARTITION", "ID", "ATTEMPTS", "VERSION", "REASON"];
                    out.table(
                        &header,
                        &rows,
                        &format!("group {group} of {id} has no dead letters"),
                    )?;
                }
            }
            if more {
                out.flush()?;
                let text = format!("these are the first {limit}; --limit N shows more");
                telemetry::say(out.format, &Event::Warning { text: &text });
            }
        }
        DeadCommand::Show {
            stream,
            group,
            id: ids,
        } => {
            let (id, info) = global.stream(&broker, &stream).await?;
            let layout = Layout::of(info.source.clone());
            let mut missing: BTreeSet<_> = ids.iter().copied().collect();
            let mut shown = Ok(());
            // Ids are unique in a partition only: all that fit are shown.
            admin::dead_each(&broker, &id, info.shape, &group, |letter| {
                if ids.contains(&letter.id) {
                    missing.remove(&letter.id);
                    shown = show(&mut out, &layout, &letter);
                }
                match &shown {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })
            .await
            .with_context(|| format!("reading the dead letters of {id}, group {group}"))?;
            shown?;
            out.flush()?;
            if !missing.is_empty() {
                bail!(
                    "group {group} of {id} has no dead letter of {}",
                    missing
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                );
            }
        }
        DeadCommand::Redrive {
            stream,
            group,
            which,
            to,
            full_timeout,
        } => {
            let to = to.as_ref();
            return redrive::redrive(global, &broker, &stream, &group, &which, to, full_timeout)
                .await;
        }
        DeadCommand::Purge {
            stream,
            group,
            which,
        } => return redrive::purge(global, &broker, &stream, &group, &which).await,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What is told of a dead letter beside its message.
#[derive(Serialize)]
struct Head<'a> {
    partition: u32,
    id: String,
    dead_id: String,
    reason: &'a str,
    attempts: u32,
    version: &'a str,
    at_ms: u64,
}

impl<'a> Head<'a> {
    fn of(letter: &'a DeadEntry) -> Head<'a> {
        Head {
            partition: letter.partition.0,
            id: letter.id.to_string(),
            dead_id: letter.dead_id.to_string(),
            reason: &letter.reason,
            attempts: letter.attempts,
            version: &letter.version,
            at_ms: letter.at_ms,
        }
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    #[serde(flatten)]
    message: Message<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Message<'a> {
    Ours(jsonl::Shown<'a>),
    Foreign { fields: Value },
}

fn row(letter: &DeadEntry) -> Vec<String> {
    vec![
        letter.partition.to_string(),
        letter.id.to_string(),
        letter.attempts.to_string(),
        letter.version.chars().take(12).collect(),
        preview(&letter.reason, 80),
    ]
}

fn show(out: &mut Out, layout: &Layout, letter: &DeadEntry) -> anyhow::Result<()> {
    let raw = RawEntry {
        id: letter.id,
        fields: letter.fields.clone(),
    };
    let entry = layout.decode(raw, usize::MAX);
    if out.format == Format::Json {
        let message = match &entry {
            Entry::Ours { content, .. } => Message::Ours(jsonl::Shown::of(content)),
            Entry::Foreign { fields, .. } => Message::Foreign {
                fields: jsonl::foreign(fields),
            },
        };
        let head = Head::of(letter);
        return out.object(&Whole { head, message });
    }
    out.line(&format!("partition {}  id {}", letter.partition, letter.id))?;
    out.line(&format!("  reason    {}", preview(&letter.reason, 4_096)))?;
    out.line(&format!(
        "  attempts  {} of version {}",
        letter.attempts, letter.version
    ))?;
    out.line(&format!("  at        {}", moment(letter.at_ms)))?;
    for (name, value) in &letter.fields {
        let text = |bytes: &[u8]| preview(&String::from_utf8_lossy(bytes), 1_000);
        out.line(&format!("  {:<9} {}", text(name), text(value)))?;
    }
    Ok(())
}
