//! `dead list|show`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, bail};
use segmenter_core::entry::{self, Entry, RawEntry};
use segmenter_redis::admin::{self, DeadEntry};
use serde_json::{Map, Value, json};

use super::args::{DeadCommand, Global};
use super::jsonl;
use crate::output::{Format, Out, preview};

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
            let mut heads = Vec::new();
            admin::dead_each(&broker, &id, info.shape, &group, |mut letter| {
                if heads.len() == limit {
                    return ControlFlow::Break(());
                }
                letter.fields.clear();
                heads.push(letter);
                ControlFlow::Continue(())
            })
            .await
            .with_context(|| format!("reading the dead letters of {id}, group {group}"))?;
            match out.format {
                Format::Json => {
                    for letter in &heads {
                        out.object(&Value::Object(head(letter)))?;
                    }
                }
                Format::Human => {
                    let rows: Vec<_> = heads.iter().map(row).collect();
                    let header = ["PARTITION", "ID", "ATTEMPTS", "VERSION", "REASON"];
                    out.table(
                        &header,
                        &rows,
                        &format!("group {group} of {id} has no dead letters"),
                    )?;
                }
            }
        }
        DeadCommand::Show {
            stream,
            group,
            id: ids,
        } => {
            let (id, info) = global.stream(&broker, &stream).await?;
            let mut missing: BTreeSet<_> = ids.iter().copied().collect();
            let mut shown = Ok(());
            // Ids are unique in a partition only: all that fit are shown.
            admin::dead_each(&broker, &id, info.shape, &group, |letter| {
                if ids.contains(&letter.id) {
                    missing.remove(&letter.id);
                    shown = show(&mut out, &letter);
                }
                if shown.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .await
            .with_context(|| format!("reading the dead letters of {id}, group {group}"))?;
            shown?;
            out.flush()?;
            if !missing.is_empty() {
                let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
                bail!(
                    "group {group} of {id} has no dead letter of {}",
                    missing.join(", ")
                );
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn head(letter: &DeadEntry) -> Map<String, Value> {
    let object = json!({
        "partition": letter.partition.0,
        "id": letter.id.to_string(),
        "dead_id": letter.dead_id.to_string(),
        "reason": letter.reason,
        "attempts": letter.attempts,
        "version": letter.version,
        "at_ms": letter.at_ms,
    });
    match object {
        Value::Object(map) => map,
        _ => Map::new(),
    }
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

fn show(out: &mut Out, letter: &DeadEntry) -> anyhow::Result<()> {
    let raw = RawEntry {
        id: letter.id,
        fields: letter.fields.clone(),
    };
    let entry = entry::decode(raw, usize::MAX);
    if out.format == Format::Json {
        let mut object = head(letter);
        match &entry {
            Entry::Ours { content, .. } => object.extend(jsonl::content(content)),
            Entry::Foreign { fields, .. } => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(n, v)| json!([jsonl::text_or_base64(n), jsonl::text_or_base64(v)]))
                    .collect();
                object.insert("fields".to_owned(), Value::Array(fields));
            }
        }
        return out.object(&Value::Object(object));
    }
    out.line(&format!("partition {}  id {}", letter.partition, letter.id))?;
    out.line(&format!("  reason    {}", preview(&letter.reason, 4_096)))?;
    out.line(&format!(
        "  attempts  {} of version {}",
        letter.attempts, letter.version
    ))?;
    out.line(&format!("  at        {} ms since 1970", letter.at_ms))?;
    for (name, value) in &letter.fields {
        let text = |bytes: &[u8]| preview(&String::from_utf8_lossy(bytes), 1_000);
        out.line(&format!("  {:<9} {}", text(name), text(value)))?;
    }
    Ok(())
}
