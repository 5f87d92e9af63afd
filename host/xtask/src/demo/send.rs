//! Pipes every file as lines of JSON into `segmenter send`, as far as the gate lets it, and pairs its
//! answers with them.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::Stdio;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::gate::Gate;
use super::record::Id;
use super::tool::Tool;
use crate::source::{self, PAYLOAD_MAX, SourceFile};

/// One accepted append, in the order of sending.
pub(super) struct Sent {
    pub(super) package: String,
    pub(super) partition: u64,
    pub(super) id: Id,
}

pub(super) fn send(
    tool: &Tool<'_>,
    stream: &str,
    files: &[SourceFile],
    gate: &Gate,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Sent>> {
    let mut child = tool
        .command(&["--format", "json", "send", stream, "--jsonl", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting segmenter send")?;
    let mut input = BufWriter::with_capacity(1 << 20, child.stdin.take().context("its stdin")?);
    let output = BufReader::new(child.stdout.take().context("its stdout")?);
    let bar = bar.clone();
    let answers = std::thread::spawn(move || -> anyhow::Result<Vec<(u64, Id)>> {
        let mut answers = Vec::new();
        for line in output.lines() {
            let answer: Value =
                serde_json::from_str(&line?).context("an answer of segmenter send")?;
            let id = answer["id"].as_str().context("an answer without an id")?;
            answers.push((
                answer["partition"].as_u64().context("no partition")?,
                id.parse()?,
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
            let number = packages.len() as u64;
            if !gate.lets_pass(number) {
                // What is behind it shall not wait with it.
                let _ = input.flush();
                gate.wait(number);
            }
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
