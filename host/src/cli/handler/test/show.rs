//! What a test came to, for people: a line a message, below it what is otherwise than expected, and what the
//! handler said. Colours only where a terminal shows them. Must not know how anything is compared.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use segmenter_core::effects::Emit;
use segmenter_core::outcome::Outcome;

use super::contrast::{contrast, shown};
use super::expect::{self, Difference, Value};
use super::{Case, Result, Summary};
use crate::output::{Out, preview};

/// Characters of a key, and of a reason, in the line of a message.
const KEY_CHARS: usize = 24;
const REASON_CHARS: usize = 120;
/// Columns before what is told below a line.
const INDENT: usize = 18;

pub(super) struct Show {
    colours: bool,
    /// Also of messages that are as expected.
    verbose: bool,
}

impl Show {
    pub(super) fn new(verbose: bool) -> Show {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Show { colours, verbose }
    }

    fn word(&self, result: Result) -> String {
        let (word, colour) = match result {
            Result::AsExpected => ("ok  ", "32"),
            Result::Unchecked => ("ran ", "36"),
            Result::Otherwise => ("FAIL", "31"),
        };
        match self.colours {
            true => format!("\x1b[{colour}m{word}\x1b[0m"),
            false => word.to_owned(),
        }
    }

    pub(super) fn case(&self, out: &mut Out, case: &Case) -> anyhow::Result<()> {
        let outcome = &case.played.outcome;
        let mut told = expect::kind(outcome).to_owned();
        if let Some(ms) = expect::after_ms(outcome) {
            told = format!("{told} after {ms} ms");
        }
        if let Some(reason) = expect::reason(outcome) {
            told = format!("{told}: {}", preview(reason, REASON_CHARS));
        }
        let word = self.word(case.result());
        let key = preview(&format!("{:?}", case.key), KEY_CHARS);
        out.line(&format!("{word}  line {:<4}  {key:<12}  {told}", case.line))?;
        for line in differences(&case.differences) {
            out.line(&line)?;
        }
        if let Some(difference) = &case.against {
            row(
                out,
                "against",
                &preview(&difference.to_string(), usize::MAX),
            )?;
        }
        // Nobody said what these should be, so they are what the person wants to see.
        if self.verbose || case.result() == Result::Unchecked {
            effects(out, outcome)?;
        }
        if self.verbose || case.result() == Result::Otherwise {
            said(out, case)?;
        }
        Ok(())
    }

    pub(super) fn summary(&self, out: &mut Out, summary: &Summary) -> anyhow::Result<()> {
        out.line(&summary.to_string())
    }
}

/// Several lines of text below a line, the first with its word before it.
fn row(out: &mut Out, word: &str, text: &str) -> anyhow::Result<()> {
    for (n, line) in text.lines().enumerate() {
        let word = if n == 0 { word } else { "" };
        out.line(format!("      {word:<10}  {line}").trim_end())?;
    }
    Ok(())
}

fn effects(out: &mut Out, outcome: &Outcome) -> anyhow::Result<()> {
    let Outcome::Ok(effects) = outcome else {
        return Ok(());
    };
    for Emit { to, content } in &effects.emits {
        let key = preview(&format!("{:?}", content.key()), KEY_CHARS);
        let mut text = format!("{to}  {key}  {}", shown(content.payload()));
        for (name, value) in content.attributes() {
            text = format!(
                "{text}  {}={}",
                preview(name, KEY_CHARS),
                shown(value.as_bytes())
            );
        }
        row(out, "emitted", &text)?;
    }
    for (name, value) in &effects.state {
        let value = value.as_deref().map_or("deleted".to_owned(), shown);
        row(
            out,
            "state",
            &format!("{} = {value}", preview(name, KEY_CHARS)),
        )?;
    }
    Ok(())
}

fn said(out: &mut Out, case: &Case) -> anyhow::Result<()> {
    for line in &case.played.lines {
        // What the other version says is of interest where it does something else.
        if line.shadow && case.against.is_none() {
            continue;
        }
        let shadow = if line.shadow { " (shadow)" } else { "" };
        let text = preview(&line.text, usize::MAX);
        row(
            out,
            "log",
            &format!("{:<5}{shadow} {text}", line.level.as_str()),
        )?;
    }
    if let Some(backtrace) = &case.played.backtrace {
        let lines: Vec<_> = backtrace
            .lines()
            .map(|line| preview(line, usize::MAX))
            .collect();
        row(out, "backtrace", &lines.join("\n"))?;
    }
    Ok(())
}

/// As lines below the one of a message.
pub(super) fn differences(differences: &[Difference]) -> Vec<String> {
    let mut lines = Vec::new();
    for Difference {
        what,
        expected,
        actual,
    } in differences
    {
        let [expected, actual, mark] = match (expected, actual) {
            (Value::Bytes(expected), Value::Bytes(actual)) if !what.starts_with("reason") => {
                contrast(expected, actual)
            }
            (expected, actual) => [value(expected), value(actual), String::new()],
        };
        lines.push(format!("      {}", preview(what, usize::MAX)));
        lines.push(format!("{:>16}  {expected}", "expected"));
        lines.push(format!("{:>16}  {actual}", "actual"));
        if !mark.is_empty() {
            lines.push(format!("{}{mark}", " ".repeat(INDENT)));
        }
    }
    lines
}

fn value(value: &Value) -> String {
    match value {
        Value::Word(word) => word.clone(),
        Value::Bytes(bytes) => shown(bytes),
        Value::Nothing => "nothing".to_owned(),
    }
}

/// `--against`, at the end.
pub(super) fn versions(out: &mut Out, live: &str, shadow: &str) -> anyhow::Result<()> {
    out.line(&format!("live is {live}, shadow is {shadow}"))
}

/// State at the end, for `--verbose`.
pub(super) fn state(out: &mut Out, state: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    for (name, value) in state {
        let name = preview(name, KEY_CHARS);
        out.line(&format!("state at the end: {name} = {}", shown(value)))?;
    }
    Ok(())
}
